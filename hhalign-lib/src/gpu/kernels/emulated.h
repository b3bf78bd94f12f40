// A card that is none: enough of CUDA for our kernels, in plain C++, so that they can be tested where no GPU is. Every
// thread of a block is a context of its own; blocks run one after another. Slow, and exact about barriers: threads that
// wait for each other in vain end the program with a message.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#ifndef __x86_64__
#error "the emulated card needs an x86-64 processor"
#endif

#define EMULATED
#define KERNEL static
#define DEVICE static inline
#define __shared__ static thread_local
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(type, name) type* name = (type*)emulated_shared.data()

struct Three {
    unsigned x, y, z;
};
struct Thread {
    void* at;
    std::vector<char> stack;
    bool done;
    // Barriers this thread has reached: of its block, and of its warp.
    long block_barriers, warp_barriers;
    long wants_block, wants_warp;
};

static thread_local Three threadIdx, blockIdx, blockDim, gridDim;
static thread_local std::vector<Thread> emulated_threads;
static thread_local void* emulated_scheduler;
static thread_local unsigned emulated_current;
static thread_local std::vector<unsigned char> emulated_shared;
static thread_local float emulated_lanes[32][32];

// Keeps the registers that a call must keep, and goes on where `to` was left.
__attribute__((naked, noinline)) static void emulated_switch(void** from, void* to) {
    asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
static void emulated_yield() { emulated_switch(&emulated_threads[emulated_current].at, emulated_scheduler); }
static inline void __syncthreads() {
    emulated_threads[emulated_current].block_barriers++;
    emulated_yield();
}
static inline void __syncwarp() {
    emulated_threads[emulated_current].warp_barriers++;
    emulated_yield();
}
static inline float emulated_exchange(float x, unsigned from) {
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    emulated_lanes[warp][lane] = x;
    __syncwarp();
    float y = emulated_lanes[warp][from];
    __syncwarp();
    return y;
}
static inline float __shfl_xor_sync(unsigned, float x, int mask) { return emulated_exchange(x, (threadIdx.x % 32) ^ mask); }
static inline float __shfl_sync(unsigned, float x, int lane) { return emulated_exchange(x, lane); }
static inline float __uint_as_float(unsigned x) {
    float y;
    memcpy(&y, &x, 4);
    return y;
}
static inline unsigned __float_as_uint(float x) {
    unsigned y;
    memcpy(&y, &x, 4);
    return y;
}
#define __expf expf
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float emulated_from_f16(unsigned short x) {
    _Float16 y;
    memcpy(&y, &x, 2);
    return (float)y;
}
static inline unsigned short emulated_to_f16(float x) {
    _Float16 y = (_Float16)x;
    unsigned short bits;
    memcpy(&bits, &y, 2);
    return bits;
}

struct Call {
    virtual void run() = 0;
};
static thread_local Call* emulated_call;
static void emulated_entry() {
    emulated_call->run();
    emulated_threads[emulated_current].done = true;
    emulated_yield();
}

// Runs each thread to its next barrier; one that waits goes on when all others that are not done have reached it too.
static void emulated_block() {
    unsigned n = blockDim.x, alive = n;
    for (unsigned i = 0; i < n; i++) {
        Thread& t = emulated_threads[i];
        // As if the entry had been called from nowhere: six registers and its address lie on the stack.
        size_t top = ((size_t)t.stack.data() + t.stack.size()) / 16 * 16 - 16;
        *(void**)top = (void*)emulated_entry;
        t.at = (void*)(top - 48);
        t.done = false;
        t.block_barriers = t.warp_barriers = t.wants_block = t.wants_warp = 0;
    }
    while (alive > 0) {
        bool moved = false;
        long block_reached = -1;
        for (unsigned i = 0; i < n; i++)
            if (!emulated_threads[i].done && (block_reached < 0 || emulated_threads[i].block_barriers < block_reached))
                block_reached = emulated_threads[i].block_barriers;
        for (unsigned warp = 0; warp * 32 < n; warp++) {
            long warp_reached = -1;
            for (unsigned i = warp * 32; i < n && i < warp * 32 + 32; i++)
                if (!emulated_threads[i].done && (warp_reached < 0 || emulated_threads[i].warp_barriers < warp_reached))
                    warp_reached = emulated_threads[i].warp_barriers;
            for (unsigned i = warp * 32; i < n && i < warp * 32 + 32; i++) {
                Thread& t = emulated_threads[i];
                if (t.done || t.block_barriers > block_reached || t.warp_barriers > warp_reached) continue;
                emulated_current = i;
                threadIdx = {i, 0, 0};
                emulated_switch(&emulated_scheduler, t.at);
                moved = true;
                if (t.done) alive--;
            }
        }
        if (!moved) {
            fprintf(stderr, "emulated card: threads of a block wait for each other in vain\n");
            abort();
        }
    }
}

template <typename... A, size_t... I>
static void emulated_start(void (*kernel)(A...), void** arguments, unsigned gx, unsigned gy, unsigned block, unsigned shared,
                           std::index_sequence<I...>) {
    struct This : Call {
        void (*kernel)(A...);
        void** arguments;
        void run() override { kernel(*(std::remove_reference_t<A>*)arguments[I]...); }
    } call;
    call.kernel = kernel;
    call.arguments = arguments;
    emulated_call = &call;
    gridDim = {gx, gy, 1};
    blockDim = {block, 1, 1};
    emulated_shared.assign(shared + 16, 0xff);
    if (emulated_threads.size() < block) emulated_threads.resize(block);
    for (unsigned i = 0; i < block; i++)
        if (emulated_threads[i].stack.empty()) emulated_threads[i].stack.resize(64 * 1024);
    for (unsigned y = 0; y < gy; y++)
        for (unsigned x = 0; x < gx; x++) {
            blockIdx = {x, y, 0};
            emulated_block();
        }
}
template <typename... A>
static void emulated_launch(void (*kernel)(A...), void** arguments, unsigned gx, unsigned gy, unsigned block, unsigned shared) {
    emulated_start(kernel, arguments, gx, gy, block, shared, std::index_sequence_for<A...>{});
}
