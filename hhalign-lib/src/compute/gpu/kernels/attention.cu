// Causal attention over packed rows, for every head width and dtype; attention_tensor.cu is the
// fast version. Scores exist for one tile at a time and their log-sum-exp is kept, as in
// FlashAttention (arXiv 2205.14135).
//
// qkv (R, 3C) is without its bias, which is added on loading. A query block has five integers: its
// first row, its end row (exclusive), the first row of its span, and the first row and the length
// of the prefix that it sees. Keys are numbered from the start of the prefix. A key block has three
// integers: its first row, its end row, and the end row of the queries that may see it. This works
// because a query never precedes a key that it sees, and no other sequence begins between the rows
// of the two blocks. The blocks of the lists have up to 64 rows; each is two blocks of ROWS here.

#define ROWS 32
// The maximum number of columns of a head per lane of a warp: heads have up to 128 columns.
#define COLUMNS 4

// Loads `n` rows of part 0, 1 or 2 of qkv into a tile of ROWS rows of stride D + 1. With parts = 1,
// `from` is a plain (R, C).
DEVICE void load_rows(float* tile, const S* from, const float* bias, int parts, int part,
                      const int* rows, int n, int head, int heads, int d) {
    int c = heads * d;
    for (int i = threadIdx.x; i < ROWS * d; i += blockDim.x) {
        int row = i / d, column = i % d;
        long at = (long)part * c + head * d + column;
        float x = 0.0f;
        if (row < n) x = to_f32(from[(long)rows[row] * parts * c + at]) + (bias ? bias[at] : 0.0f);
        tile[row * (d + 1) + column] = x;
    }
}

DEVICE float dot(const float* a, const float* b, int d) {
    float sum = 0.0f;
    for (int i = 0; i < d; i++) sum += a[i] * b[i];
    return sum;
}

// Loads the next tile of the keys and values that a query block sees, after all threads have read
// the previous tile. Returns the number of keys.
DEVICE int load_keys(float* k, float* v, const S* qkv, const float* bias, int* rows,
                     const int* block, int first, int keys, int head, int heads, int d) {
    int span_start = block[2], prefix_start = block[3], prefix_len = block[4],
        n = keys - first < ROWS ? keys - first : ROWS;
    __syncthreads();
    if (threadIdx.x < ROWS) {
        int key = first + threadIdx.x;
        rows[threadIdx.x] = key < prefix_len ? prefix_start + key : span_start + key - prefix_len;
    }
    __syncthreads();
    load_rows(k, qkv, bias, 3, 1, rows, n, head, heads, d);
    load_rows(v, qkv, bias, 3, 2, rows, n, head, heads, d);
    __syncthreads();
    return n;
}

// Computes atty (R, C) and lse (R, H). A warp has eight queries. A lane has one key of the tile, or
// some columns of the output.
KERNEL void attention(S* atty, float* lse, const S* qkv, const float* bias, const int* blocks,
                      int heads, int d, float scale) {
    DYNAMIC_SHARED(float, shared);
    __shared__ int rows[ROWS];
    const int* block = blocks + 5 * (blockIdx.x / 2);
    int begin = block[0] + blockIdx.x % 2 * ROWS,
        end = block[1] < begin + ROWS ? block[1] : begin + ROWS;
    if (begin >= end) return;
    int keys = block[4] + end - block[2], head = blockIdx.y;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, c = heads * d;
    float *q = shared, *k = q + ROWS * (d + 1), *v = k + ROWS * (d + 1);
    if (threadIdx.x < ROWS) rows[threadIdx.x] = begin + threadIdx.x;
    __syncthreads();
    load_rows(q, qkv, bias, 3, 0, rows, end - begin, head, heads, d);
    float max_score[8], total[8], sum[8][COLUMNS];
    for (int i = 0; i < 8; i++) {
        max_score[i] = -3.4e38f;
        total[i] = 0.0f;
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = 0.0f;
    }
    for (int first = 0; first < keys; first += ROWS) {
        int n = load_keys(k, v, qkv, bias, rows, block, first, keys, head, heads, d);
        for (int i = 0; i < 8; i++) {
            int query = warp * 8 + i;
            bool seen = lane < n && begin + query < end && rows[lane] <= begin + query;
            float score = seen ? scale * dot(q + query * (d + 1), k + lane * (d + 1), d) : -3.4e38f;
            float new_max = fmaxf(max_score[i], warp_max(score));
            float p = seen ? quick_exp(score - new_max) : 0.0f,
                  rescale = quick_exp(max_score[i] - new_max);
            total[i] = total[i] * rescale + warp_sum(p);
            max_score[i] = new_max;
            // Kept in registers in the loop over the keys.
            float local[COLUMNS];
            for (int j = 0; j < COLUMNS; j++) local[j] = sum[i][j] * rescale;
            for (int key = 0; key < n; key++) {
                float weight = __shfl_sync(0xffffffffu, p, key);
                for (int j = 0; j < COLUMNS; j++)
                    if (lane + 32 * j < d) local[j] += weight * v[key * (d + 1) + lane + 32 * j];
            }
            for (int j = 0; j < COLUMNS; j++) sum[i][j] = local[j];
        }
    }
    for (int i = 0; i < 8; i++) {
        int row = begin + warp * 8 + i;
        if (row >= end) break;
        for (int j = 0; j < COLUMNS; j++)
            if (lane + 32 * j < d)
                atty[(long)row * c + head * d + lane + 32 * j] = to_stored(sum[i][j] / total[i]);
        if (lane == 0) lse[(long)row * heads + head] = max_score[i] + logf(total[i]);
    }
}

// Computes delta (R, H) = Σ datty (atty - bias) over each head, one warp per head. The bias (C) may
// be null.
KERNEL void attention_delta(float* delta, const S* datty, const S* atty, const float* bias,
                            int rows, int heads, int d) {
    int pair = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (pair >= rows * heads) return;
    float sum = 0.0f;
    for (int i = lane; i < d; i += 32) {
        float b = bias ? bias[pair % heads * d + i] : 0.0f;
        sum += to_f32(datty[(long)pair * d + i]) * (to_f32(atty[(long)pair * d + i]) - b);
    }
    sum = warp_sum(sum);
    if (lane == 0) delta[pair] = sum;
}

// Computes the queries' part of dqkv (R, 3C). Threads as in the forward pass.
KERNEL void attention_queries(S* dqkv, const S* datty, const float* delta, const float* lse,
                              const S* qkv, const float* bias, const int* blocks, int heads, int d,
                              float scale) {
    DYNAMIC_SHARED(float, shared);
    __shared__ int rows[ROWS];
    const int* block = blocks + 5 * (blockIdx.x / 2);
    int begin = block[0] + blockIdx.x % 2 * ROWS,
        end = block[1] < begin + ROWS ? block[1] : begin + ROWS;
    if (begin >= end) return;
    int keys = block[4] + end - block[2], head = blockIdx.y;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, c = heads * d, stride = d + 1;
    float *q = shared, *g = q + ROWS * stride, *k = g + ROWS * stride, *v = k + ROWS * stride;
    if (threadIdx.x < ROWS) rows[threadIdx.x] = begin + threadIdx.x;
    __syncthreads();
    load_rows(q, qkv, bias, 3, 0, rows, end - begin, head, heads, d);
    load_rows(g, datty, 0, 1, 0, rows, end - begin, head, heads, d);
    float sum[8][COLUMNS];
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = 0.0f;
    for (int first = 0; first < keys; first += ROWS) {
        int n = load_keys(k, v, qkv, bias, rows, block, first, keys, head, heads, d);
        for (int i = 0; i < 8; i++) {
            int query = warp * 8 + i, row = begin + query;
            float ds = 0.0f;
            if (lane < n && row < end && rows[lane] <= row) {
                float p = quick_exp(scale * dot(q + query * stride, k + lane * stride, d) -
                                    lse[(long)row * heads + head]);
                ds = p *
                     (dot(g + query * stride, v + lane * stride, d) -
                      delta[(long)row * heads + head]) *
                     scale;
            }
            float local[COLUMNS];
            for (int j = 0; j < COLUMNS; j++) local[j] = sum[i][j];
            for (int key = 0; key < n; key++) {
                float weight = __shfl_sync(0xffffffffu, ds, key);
                for (int j = 0; j < COLUMNS; j++)
                    if (lane + 32 * j < d) local[j] += weight * k[key * stride + lane + 32 * j];
            }
            for (int j = 0; j < COLUMNS; j++) sum[i][j] = local[j];
        }
    }
    for (int i = 0; i < 8; i++) {
        int row = begin + warp * 8 + i;
        if (row >= end) break;
        for (int j = 0; j < COLUMNS; j++)
            if (lane + 32 * j < d)
                dqkv[(long)row * 3 * c + head * d + lane + 32 * j] = to_stored(sum[i][j]);
    }
}

// Computes the keys' and values' parts of dqkv. A warp has eight keys. A lane has one query of the
// tile, or some columns.
KERNEL void attention_keys(S* dqkv, const S* datty, const float* delta, const float* lse,
                           const S* qkv, const float* bias, const int* blocks, int heads, int d,
                           float scale) {
    DYNAMIC_SHARED(float, shared);
    __shared__ int rows[ROWS];
    const int* block = blocks + 3 * (blockIdx.x / 2);
    int begin = block[0] + blockIdx.x % 2 * ROWS,
        end = block[1] < begin + ROWS ? block[1] : begin + ROWS;
    if (begin >= end) return;
    int query_end = block[2], head = blockIdx.y;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, c = heads * d, stride = d + 1;
    float *k = shared, *v = k + ROWS * stride, *q = v + ROWS * stride, *g = q + ROWS * stride;
    if (threadIdx.x < ROWS) rows[threadIdx.x] = begin + threadIdx.x;
    __syncthreads();
    load_rows(k, qkv, bias, 3, 1, rows, end - begin, head, heads, d);
    load_rows(v, qkv, bias, 3, 2, rows, end - begin, head, heads, d);
    float d_k[8][COLUMNS], d_v[8][COLUMNS];
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < COLUMNS; j++) d_k[i][j] = d_v[i][j] = 0.0f;
    for (int first = begin; first < query_end; first += ROWS) {
        __syncthreads();
        if (threadIdx.x < ROWS) rows[threadIdx.x] = first + threadIdx.x;
        __syncthreads();
        int n = query_end - first < ROWS ? query_end - first : ROWS;
        load_rows(q, qkv, bias, 3, 0, rows, n, head, heads, d);
        load_rows(g, datty, 0, 1, 0, rows, n, head, heads, d);
        __syncthreads();
        for (int i = 0; i < 8; i++) {
            int key = warp * 8 + i, row = first + lane;
            float p = 0.0f, ds = 0.0f;
            if (lane < n && begin + key < end && begin + key <= row) {
                p = quick_exp(scale * dot(q + lane * stride, k + key * stride, d) -
                              lse[(long)row * heads + head]);
                ds = p *
                     (dot(g + lane * stride, v + key * stride, d) -
                      delta[(long)row * heads + head]) *
                     scale;
            }
            float own_k[COLUMNS], own_v[COLUMNS];
            for (int j = 0; j < COLUMNS; j++) own_k[j] = d_k[i][j], own_v[j] = d_v[i][j];
            for (int query = 0; query < n; query++) {
                float weight = __shfl_sync(0xffffffffu, p, query),
                      d_score = __shfl_sync(0xffffffffu, ds, query);
                for (int j = 0; j < COLUMNS; j++)
                    if (lane + 32 * j < d) {
                        own_v[j] += weight * g[query * stride + lane + 32 * j];
                        own_k[j] += d_score * q[query * stride + lane + 32 * j];
                    }
            }
            for (int j = 0; j < COLUMNS; j++) d_k[i][j] = own_k[j], d_v[i][j] = own_v[j];
        }
    }
    for (int i = 0; i < 8; i++) {
        int row = begin + warp * 8 + i;
        if (row >= end) break;
        for (int j = 0; j < COLUMNS; j++)
            if (lane + 32 * j < d) {
                long at = (long)row * 3 * c + head * d + lane + 32 * j;
                dqkv[at + c] = to_stored(d_k[i][j]);
                dqkv[at + 2 * c] = to_stored(d_v[i][j]);
            }
    }
}
