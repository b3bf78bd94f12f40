// An emulated card: enough of CUDA, in plain C++, to test our kernels without a GPU. Every thread
// of a block has its own context; blocks run one after another. It is slow, and exact about
// barriers: threads in a deadlock end the program with a message.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
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

struct Dim3 {
    unsigned x, y, z;
};
struct Thread {
    void* stack_pointer;
    std::vector<char> stack;
    bool done;
    // The number of barriers of its block and of its warp that the thread has reached.
    long block_barriers, warp_barriers;
};

static thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;
static thread_local std::vector<Thread> emulated_threads;
static thread_local void* emulated_scheduler;
static thread_local unsigned emulated_current;
static thread_local std::vector<unsigned char> emulated_shared;
static thread_local float emulated_lanes[32][32];

// Saves the callee-saved registers and the stack pointer, and resumes `to`.
__attribute__((naked, noinline)) static void emulated_switch(void** from, void* to) {
    asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
static void emulated_yield() {
    emulated_switch(&emulated_threads[emulated_current].stack_pointer, emulated_scheduler);
}
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
static inline float __shfl_xor_sync(unsigned, float x, int mask) {
    return emulated_exchange(x, (threadIdx.x % 32) ^ mask);
}
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

// Runs each thread to its next barrier. A waiting thread continues when all other unfinished
// threads have reached the barrier.
static void emulated_block() {
    unsigned n = blockDim.x, n_running = n;
    for (unsigned i = 0; i < n; i++) {
        Thread& t = emulated_threads[i];
        // The stack of a new thread holds the address of its entry and six registers, as after a
        // switch.
        size_t top = ((size_t)t.stack.data() + t.stack.size()) / 16 * 16 - 16;
        *(void**)top = (void*)emulated_entry;
        t.stack_pointer = (void*)(top - 48);
        t.done = false;
        t.block_barriers = t.warp_barriers = 0;
    }
    while (n_running > 0) {
        bool progressed = false;
        long block_reached = -1;
        for (unsigned i = 0; i < n; i++)
            if (!emulated_threads[i].done &&
                (block_reached < 0 || emulated_threads[i].block_barriers < block_reached))
                block_reached = emulated_threads[i].block_barriers;
        for (unsigned warp = 0; warp * 32 < n; warp++) {
            long warp_reached = -1;
            for (unsigned i = warp * 32; i < n && i < warp * 32 + 32; i++)
                if (!emulated_threads[i].done &&
                    (warp_reached < 0 || emulated_threads[i].warp_barriers < warp_reached))
                    warp_reached = emulated_threads[i].warp_barriers;
            for (unsigned i = warp * 32; i < n && i < warp * 32 + 32; i++) {
                Thread& t = emulated_threads[i];
                if (t.done || t.block_barriers > block_reached || t.warp_barriers > warp_reached)
                    continue;
                emulated_current = i;
                threadIdx = {i, 0, 0};
                emulated_switch(&emulated_scheduler, t.stack_pointer);
                progressed = true;
                if (t.done) n_running--;
            }
        }
        if (!progressed) {
            fprintf(stderr, "emulated card: the threads of a block are in a deadlock\n");
            abort();
        }
    }
}

template <typename... A, size_t... I>
static void emulated_start(void (*kernel)(A...), void** arguments, unsigned gx, unsigned gy,
                           unsigned block, unsigned shared, std::index_sequence<I...>) {
    struct KernelCall : Call {
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
static void emulated_launch(void (*kernel)(A...), void** arguments, unsigned gx, unsigned gy,
                            unsigned block, unsigned shared) {
    emulated_start(kernel, arguments, gx, gy, block, shared, std::index_sequence_for<A...>{});
}
