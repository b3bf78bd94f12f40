// Operations on all parameters, which are in one vector, each padded to whole tiles of TILE
// numbers.
#define TILE 1024

// Computes partial[block] = Σ g² over some tiles, in f64.
KERNEL void square_sums(double* partial, const float* gradients, long n) {
    __shared__ double sums[256];
    double sum = 0.0;
    for (long i = grid_thread() * 4; i < n; i += grid_threads() * 4) {
        Float4 g = load4(gradients + i);
        for (int j = 0; j < 4; j++) sum += (double)g.x[j] * g.x[j];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned step = blockDim.x / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) sums[threadIdx.x] += sums[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

// Takes one step of AdamW. decays[tile] is whether the tile's parameter decays. The kernel also
// writes the copy for products and clears the gradients for the next step.
KERNEL void adamw(float* weights, float* first, float* second, float* gradients, S* stored,
                  const unsigned char* decays, float scale, float beta1, float beta2,
                  float decay_factor, float step_size, float inv_sqrt_correction2, float epsilon) {
    long i = (long)blockIdx.x * TILE + threadIdx.x * 4;
    Float4 w = load4(weights + i), m = load4(first + i), v = load4(second + i),
           g = load4(gradients + i);
    float decay = decays[blockIdx.x] ? decay_factor : 1.0f;
    for (int j = 0; j < 4; j++) {
        float d = g.x[j] * scale;
        m.x[j] = m.x[j] * beta1 + d * (1.0f - beta1);
        v.x[j] = v.x[j] * beta2 + d * d * (1.0f - beta2);
        w.x[j] =
            w.x[j] * decay - step_size * m.x[j] / (sqrtf(v.x[j]) * inv_sqrt_correction2 + epsilon);
        g.x[j] = 0.0f;
    }
    store4(weights + i, w);
    store4(first + i, m);
    store4(second + i, v);
    store4(gradients + i, g);
#if STORAGE != F32
    store4(stored + i, w);
#endif
}

// Writes the copy for products after the weights were copied from the host.
KERNEL void copy_weights(S* stored, const float* weights, long n) {
    for (long i = grid_thread() * 4; i < n; i += grid_threads() * 4)
        store4(stored + i, load4(weights + i));
}
