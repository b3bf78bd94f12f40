// Logits to log-probabilities and their gradients; one block per row, logits of a chunk of rows at a time.

// logps[row] = log softmax(logits[row])[target]. With dlogps, dlogits = dlogp (onehot - softmax), zero in the padding.
// With `right`: whether the target is the likeliest token, and the entropy.
KERNEL void log_probs(float* logps, float* right, float* entropy, S* dlogits, const float* logits, const int* targets,
                      const float* dlogps, int v, int stride, float scale) {
    long row = blockIdx.x;
    const float* x = logits + row * stride;
    int target = targets[row];
    // Maximum and sum in one reading: the sum so far is rescaled when a larger logit is found.
    float own = -3.4e38f, total = 0.0f;
    for (int i = threadIdx.x; i < v; i += blockDim.x) {
        float a = x[i];
        if (a > own) {
            total *= quick_exp(own - a);
            own = a;
        }
        total += quick_exp(a - own);
    }
    float largest = block_max(own), weighted = 0.0f, before = 0.0f;
    total = block_sum(total * quick_exp(own - largest));
    if (right) {
        for (int i = threadIdx.x; i < v; i += blockDim.x) {
            float above = x[i] - largest;
            weighted += quick_exp(above) * above;
            // An equal logit before the target's would be found first.
            if (i < target && x[i] >= x[target]) before += 1.0f;
            if (i > target && x[i] > x[target]) before += 1.0f;
        }
        weighted = block_sum(weighted);
        before = block_sum(before);
    }
    if (threadIdx.x == 0) {
        logps[row] = x[target] - largest - logf(total);
        if (right) {
            right[row] = before == 0.0f ? 1.0f : 0.0f;
            entropy[row] = logf(total) - weighted / total;
        }
    }
    if (!dlogps) return;
    float dlogp = dlogps[row] * scale, each = -dlogp / total;
    for (int i = threadIdx.x; i < stride; i += blockDim.x) {
        float d = i < v ? each * quick_exp(x[i] - largest) : 0.0f;
        if (i == target) d += dlogp;
        dlogits[row * stride + i] = down(d);
    }
}

// One token per row from softmax(logits / temperature), at the quantile that a uniform number gives; the likeliest token at
// temperature 0. A row that is not finite gives -1.
KERNEL void draw(int* drawn, const float* logits, const float* uniform, int v, int stride, float temperature) {
    // First each thread's largest logit, then its part of the sum.
    __shared__ float sums[1024];
    __shared__ int best_of[1024];
    const float* x = logits + (long)blockIdx.x * stride;
    int span = (v + blockDim.x - 1) / blockDim.x, begin = threadIdx.x * span, end = begin + span < v ? begin + span : v;
    int best = begin;
    bool broken = false;
    for (int i = begin; i < end; i++) {
        if (x[i] > x[best]) best = i;
        broken |= !(fabsf(x[i]) <= 3.4e38f);
    }
    best_of[threadIdx.x] = begin < v ? best : 0;
    sums[threadIdx.x] = x[best_of[threadIdx.x]];
    float any_broken = block_max(broken ? 1.0f : 0.0f);
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned first = 0;
        for (unsigned t = 1; t < blockDim.x; t++)
            if (sums[t] > sums[first]) first = t;
        best_of[0] = best_of[first];
    }
    __syncthreads();
    best = best_of[0];
    if (any_broken > 0.0f || temperature == 0.0f) {
        if (threadIdx.x == 0) drawn[blockIdx.x] = any_broken > 0.0f ? -1 : best;
        return;
    }
    float largest = x[best], own = 0.0f;
    for (int i = begin; i < end; i++) own += expf((x[i] - largest) / temperature);
    sums[threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.x != 0) return;
    float total = 0.0f;
    for (unsigned t = 0; t < blockDim.x; t++) total += sums[t];
    float point = uniform[blockIdx.x] * total;
    unsigned t = 0;
    while (t + 1 < blockDim.x && point >= sums[t]) point -= sums[t++];
    int found = -1;
    for (int i = t * span; i < v && i < (int)(t + 1) * span && found < 0; i++) {
        point -= expf((x[i] - largest) / temperature);
        if (point < 0.0f) found = i;
    }
    drawn[blockIdx.x] = found < 0 ? best : found;
}
