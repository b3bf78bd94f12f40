// Decoding token by token. The keys and values of earlier tokens are in a cache, (sequences,
// capacity, 2C) for each layer.

// Writes the keys and values of new rows, including their bias, to their positions in the cache.
KERNEL void cache_append(S* cache, const S* qkv, const float* bias, const int* sequences,
                         const int* positions, int rows, int capacity, int c) {
    int quads = 2 * c / 4;
    for (long i = grid_thread(); i < (long)rows * quads; i += grid_threads()) {
        long row = i / quads, at = i % quads * 4;
        Float4 v = load4(qkv + row * 3 * c + c + at), b = load4(bias + c + at);
        for (int j = 0; j < 4; j++) v.x[j] += b.x[j];
        store4(cache + ((long)sequences[row] * capacity + positions[row]) * 2 * c + at, v);
    }
}

// Computes attention of each row's query to its sequence in the cache, up to its own position. One
// block per row and head.
KERNEL void attention_cached(S* atty, const S* qkv, const float* bias, const S* cache,
                             const int* sequences, const int* positions, int capacity, int heads,
                             int d, float scale) {
    DYNAMIC_SHARED(float, shared);
    int row = blockIdx.x, head = blockIdx.y, c = heads * d, n = positions[row] + 1;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    float *scores = shared, *q = scores + capacity, *sums = q + d;
    const S* past = cache + (long)sequences[row] * capacity * 2 * c + head * d;
    for (int i = threadIdx.x; i < d; i += blockDim.x)
        q[i] = to_f32(qkv[(long)row * 3 * c + head * d + i]) + bias[head * d + i];
    __syncthreads();
    for (int key = warp; key < n; key += warps) {
        float sum = 0.0f;
        for (int i = lane; i < d; i += 32) sum += q[i] * to_f32(past[(long)key * 2 * c + i]);
        sum = warp_sum(sum);
        if (lane == 0) scores[key] = sum * scale;
    }
    __syncthreads();
    float max_score = -3.4e38f, total = 0.0f;
    for (int key = threadIdx.x; key < n; key += blockDim.x)
        max_score = fmaxf(max_score, scores[key]);
    max_score = block_max(max_score);
    for (int key = threadIdx.x; key < n; key += blockDim.x) {
        scores[key] = quick_exp(scores[key] - max_score);
        total += scores[key];
    }
    total = block_sum(total);
    // Each warp sums the values of some keys. Then the sums of the warps are added.
    for (int column = lane; column < d; column += 32) {
        float sum = 0.0f;
        for (int key = warp; key < n; key += warps)
            sum += scores[key] * to_f32(past[(long)key * 2 * c + c + column]);
        sums[warp * d + column] = sum;
    }
    __syncthreads();
    for (int column = threadIdx.x; column < d; column += blockDim.x) {
        float sum = 0.0f;
        for (int w = 0; w < warps; w++) sum += sums[w * d + column];
        atty[(long)row * c + head * d + column] = to_stored(sum / total);
    }
}
