// From logits to log-probabilities and their gradients. One block per row; logits exist for a chunk
// of rows at a time.

// Computes logps[row] = log softmax(logits[row])[target]. With dlogps, also dlogits = dlogp
// (onehot - softmax), zero in the padding. With `right`, also whether the target is the likeliest
// token, and the entropy.
KERNEL void log_probs(float* logps, float* right, float* entropy, S* dlogits, const float* logits,
                      const int* targets, const float* dlogps, int v, int stride, float scale) {
    long row = blockIdx.x;
    const float* x = logits + row * stride;
    int target = targets[row];
    // Computes maximum and sum in one pass: a larger logit rescales the sum so far.
    float local_max = -3.4e38f, total = 0.0f;
    for (int i = threadIdx.x; i < v; i += blockDim.x) {
        float a = x[i];
        if (a > local_max) {
            total *= quick_exp(local_max - a);
            local_max = a;
        }
        total += quick_exp(a - local_max);
    }
    float largest = block_max(local_max), weighted_sum = 0.0f, n_ahead = 0.0f;
    total = block_sum(total * quick_exp(local_max - largest));
    if (right) {
        for (int i = threadIdx.x; i < v; i += blockDim.x) {
            float shifted = x[i] - largest;
            weighted_sum += quick_exp(shifted) * shifted;
            // Of equal logits, the first one is the likeliest.
            if (i < target && x[i] >= x[target]) n_ahead += 1.0f;
            if (i > target && x[i] > x[target]) n_ahead += 1.0f;
        }
        weighted_sum = block_sum(weighted_sum);
        n_ahead = block_sum(n_ahead);
    }
    if (threadIdx.x == 0) {
        logps[row] = x[target] - largest - logf(total);
        if (right) {
            right[row] = n_ahead == 0.0f ? 1.0f : 0.0f;
            entropy[row] = logf(total) - weighted_sum / total;
        }
    }
    if (!dlogps) return;
    float dlogp = dlogps[row] * scale, coefficient = -dlogp / total;
    for (int i = threadIdx.x; i < stride; i += blockDim.x) {
        float d = i < v ? coefficient * quick_exp(x[i] - largest) : 0.0f;
        if (i == target) d += dlogp;
        dlogits[row * stride + i] = to_stored(d);
    }
}

// Draws one token per row from softmax(logits / temperature), at the quantile that `uniform` gives.
// At temperature 0 it takes the likeliest token. A row that is not finite gives -1.
KERNEL void draw(int* drawn, const float* logits, const float* uniform, int v, int stride,
                 float temperature) {
    // First the largest logit of each thread, then its part of the sum.
    __shared__ float sums[1024];
    __shared__ int best_of[1024];
    const float* x = logits + (long)blockIdx.x * stride;
    int chunk = (v + blockDim.x - 1) / blockDim.x, begin = threadIdx.x * chunk,
        end = begin + chunk < v ? begin + chunk : v;
    int best = begin;
    bool is_bad = false;
    for (int i = begin; i < end; i++) {
        if (x[i] > x[best]) best = i;
        is_bad |= !(fabsf(x[i]) <= 3.4e38f);
    }
    best_of[threadIdx.x] = begin < v ? best : 0;
    sums[threadIdx.x] = x[best_of[threadIdx.x]];
    float any_bad = block_max(is_bad ? 1.0f : 0.0f);
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned first = 0;
        for (unsigned t = 1; t < blockDim.x; t++)
            if (sums[t] > sums[first]) first = t;
        best_of[0] = best_of[first];
    }
    __syncthreads();
    best = best_of[0];
    if (any_bad > 0.0f || temperature == 0.0f) {
        if (threadIdx.x == 0) drawn[blockIdx.x] = any_bad > 0.0f ? -1 : best;
        return;
    }
    float largest = x[best], local_sum = 0.0f;
    for (int i = begin; i < end; i++) local_sum += expf((x[i] - largest) / temperature);
    sums[threadIdx.x] = local_sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    float total = 0.0f;
    for (unsigned t = 0; t < blockDim.x; t++) total += sums[t];
    float remaining = uniform[blockIdx.x] * total;
    unsigned t = 0;
    while (t + 1 < blockDim.x && remaining >= sums[t]) remaining -= sums[t++];
    int found = -1;
    for (int i = t * chunk; i < v && i < (int)(t + 1) * chunk && found < 0; i++) {
        remaining -= expf((x[i] - largest) / temperature);
        if (remaining < 0.0f) found = i;
    }
    drawn[blockIdx.x] = found < 0 ? best : found;
}
