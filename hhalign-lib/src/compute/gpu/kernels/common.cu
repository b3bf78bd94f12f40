// Definitions that all kernels share. Each file is compiled once for each dtype of activations
// (STORAGE), by NVRTC for a GPU or by a C++ compiler for the emulated card of the tests. Every sum
// is in f32.
//
// R rows (tokens), C width, H heads, D = C / H, V vocabulary.

#define F32 0
#define BF16 1
#define F16 2

#ifndef EMULATED
#define KERNEL extern "C" __global__
#define DEVICE __device__ __forceinline__
extern __shared__ __align__(16) unsigned char dynamic_shared[];
#define DYNAMIC_SHARED(type, name) type* name = (type*)dynamic_shared
#endif

// S: the dtype of activations and of the copies of weights that products read.
#if STORAGE == F32
typedef float S;
DEVICE float to_f32(S x) { return x; }
DEVICE S to_stored(float x) { return x; }
#else
typedef unsigned short S;
#if STORAGE == BF16
DEVICE float to_f32(S x) { return __uint_as_float((unsigned)x << 16); }
// Rounds to the nearest, ties to even; NaN stays NaN.
DEVICE S to_stored(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (S)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
#elif defined(EMULATED)
DEVICE float to_f32(S x) { return emulated_from_f16(x); }
DEVICE S to_stored(float x) { return emulated_to_f16(x); }
#else
DEVICE float to_f32(S x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}
DEVICE S to_stored(float x) {
    S y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
#endif
#endif

// Four consecutive numbers, loaded in one transaction.
struct alignas(4 * sizeof(S)) Stored4 {
    S x[4];
};
struct alignas(16) Float4 {
    float x[4];
};

DEVICE Float4 load4(const float* p) { return *(const Float4*)p; }
DEVICE void store4(float* p, Float4 v) { *(Float4*)p = v; }
#if STORAGE != F32
DEVICE Float4 load4(const S* p) {
    Stored4 s = *(const Stored4*)p;
    Float4 v;
    for (int i = 0; i < 4; i++) v.x[i] = to_f32(s.x[i]);
    return v;
}
DEVICE void store4(S* p, Float4 v) {
    Stored4 s;
    for (int i = 0; i < 4; i++) s.x[i] = to_stored(v.x[i]);
    *(Stored4*)p = s;
}
#endif

// For a 16-bit dtype, the hardware's fast exponential is precise enough.
#if STORAGE == F32
DEVICE float quick_exp(float x) { return expf(x); }
#else
DEVICE float quick_exp(float x) { return __expf(x); }
#endif

// For grid-stride loops: the index of this thread in the grid, and the number of threads.
DEVICE long grid_thread() { return blockIdx.x * (long)blockDim.x + threadIdx.x; }
DEVICE long grid_threads() { return (long)gridDim.x * blockDim.x; }

DEVICE float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
DEVICE float warp_max(float x) {
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

// Reduce over all threads of a block of whole warps. Every thread gets the result.
DEVICE float block_sum(float x) {
    __shared__ float sums[32];
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    float total = 0.0f;
    for (unsigned i = 0; i < blockDim.x / 32; i++) total += sums[i];
    return total;
}
DEVICE float block_max(float x) {
    __shared__ float maxima[32];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = x;
    __syncthreads();
    float largest = maxima[0];
    for (unsigned i = 1; i < blockDim.x / 32; i++) largest = fmaxf(largest, maxima[i]);
    return largest;
}
