// The attention of attention.cu on tensor cores, for 16-bit dtypes and heads whose width is a
// multiple of 8, in tiles as in FlashAttention-2 (arXiv 2307.08691). There are no atomics: the
// backward pass runs once over blocks of queries and once over blocks of keys, so it gives the same
// bits each time.
//
// Biases: the forward pass adds the queries' bias once, in place. The keys' bias shifts all scores
// of a query by the same amount, which the softmax ignores, so it is omitted. The values' bias is
// added to the outputs, and attention_delta subtracts it again.

#define LOG2_E 1.44269504f
// -LARGE is a masked score. LARGE is the log-sum-exp of a query that does not exist.
#define LARGE 3.4e38f

// A query block as described in attention.cu, and the number of keys that its last query sees.
struct QueryBlock {
    int begin, end, span_start, prefix_start, prefix_len, n_keys;
};
DEVICE QueryBlock query_block(const int* blocks) {
    const int* b = blocks + 5 * blockIdx.x;
    return {b[0], b[1], b[2], b[3], b[4], b[4] + b[1] - b[2]};
}

// Loads the tile of keys and values that starts with key `first` of those that a block sees. `qkv`
// is that of the head.
template <int D>
DEVICE void load_keys(S* k, S* v, const S* qkv, int c, int d, const QueryBlock& block, int first) {
    int n = block.n_keys - first, split = block.prefix_len - first,
        before = block.prefix_start + first, after = block.span_start - split;
    __syncthreads();
    load_tile<D>(k, qkv + c, 3L * c, d, n, before, split, after);
    load_tile<D>(v, qkv + 2 * c, 3L * c, d, n, before, split, after);
    __syncthreads();
}

#define FORWARD_PARAMETERS \
    S *atty, float *lse, S *qkv, const float *bias, const int *blocks, int heads, int d, float scale
#define FORWARD_ARGUMENTS atty, lse, qkv, bias, blocks, heads, d, scale

// Limits registers so that one more block fits on a multiprocessor. The test of the launchers reads
// signatures of definitions only.
#if !defined(EMULATED) && __CUDA_ARCH__ >= 800
KERNEL __launch_bounds__(128, 4) void attention_tensor_64(FORWARD_PARAMETERS);
#endif

// Computes attention. A block has TILE_ROWS queries, a warp 16 of them.
template <int D>
DEVICE void forward_tiles(FORWARD_PARAMETERS) {
    DYNAMIC_SHARED(S, shared);
    S *k = shared, *v = k + TILE_ROWS * (D + 8);
    const QueryBlock block = query_block(blocks);
    int begin = block.begin, end = block.end, head = blockIdx.y;
    int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
    int c = heads * d;
    long stride = 3L * c;
    qkv += head * d;
    bias += head * d;
    for (int i = threadIdx.x; i < TILE_ROWS * (D / 8); i += blockDim.x) {
        int row = i / (D / 8), column = i % (D / 8) * 8;
        Stored8 x = {};
        if (row < end - begin && column < d) {
            Stored8* at = (Stored8*)(qkv + (begin + row) * stride + column);
            x = *at;
            for (int j = 0; j < 8; j++) x.x[j] = to_stored(to_f32(x.x[j]) + bias[column + j]);
            *at = x;
        }
        *(Stored8*)(k + row * (D + 8) + column) = x;
    }
    __syncthreads();
    unsigned q[D / 16][4];
    load_fragments<D>(q, k + 16 * warp * (D + 8));
    float sum[D / 8][4] = {}, max_score[2] = {-LARGE, -LARGE}, total[2] = {0.0f, 0.0f};
    // The last key that the lane's first query sees. Its second query, eight rows later, sees eight
    // more.
    int last = block.prefix_len + begin - block.span_start + 16 * warp + group;
    for (int first = 0; first < block.n_keys; first += TILE_ROWS) {
        load_keys<D>(k, v, qkv, c, d, block, first);
        float s[TILE_ROWS / 8][4] = {};
        add_product_transposed<D, TILE_ROWS>(s, q, k);
        if (first + TILE_ROWS > last - group)
#pragma unroll
            for (int n = 0; n < TILE_ROWS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (first + 8 * n + pair + i % 2 > last + i / 2 * 8) s[n][i] = -LARGE;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float new_max = max_score[half];
#pragma unroll
            for (int n = 0; n < TILE_ROWS / 8; n++)
                new_max = fmaxf(new_max, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
            // The four lanes of a group hold the same rows.
            new_max = fmaxf(new_max, __shfl_xor_sync(0xffffffffu, new_max, 1));
            new_max = fmaxf(new_max, __shfl_xor_sync(0xffffffffu, new_max, 2));
            float rescale = quick_exp2((max_score[half] - new_max) * (scale * LOG2_E)),
                  offset = new_max * (scale * LOG2_E);
            max_score[half] = new_max;
            total[half] *= rescale;
#pragma unroll
            for (int n = 0; n < TILE_ROWS / 8; n++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    s[n][i] = quick_exp2(s[n][i] * (scale * LOG2_E) - offset);
                    total[half] += s[n][i];
                }
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                sum[n][2 * half] *= rescale, sum[n][2 * half + 1] *= rescale;
        }
        add_product<D, TILE_ROWS>(sum, s, v);
    }
    int row = begin + 16 * warp;
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(0xffffffffu, total[half], 1);
        total[half] += __shfl_xor_sync(0xffffffffu, total[half], 2);
        factor[half] = 1.0f / total[half];
        int query = row + group + 8 * half;
        if (pair == 0 && query < end)
            lse[(long)query * heads + head] = max_score[half] * scale + logf(total[half]);
    }
    store_rows<D>(atty + (long)row * c + head * d, c, d, end - row, sum, factor, bias + 2 * c);
}
KERNEL void attention_tensor_32(FORWARD_PARAMETERS) { forward_tiles<32>(FORWARD_ARGUMENTS); }
KERNEL void attention_tensor_64(FORWARD_PARAMETERS) { forward_tiles<64>(FORWARD_ARGUMENTS); }
KERNEL void attention_tensor_128(FORWARD_PARAMETERS) { forward_tiles<128>(FORWARD_ARGUMENTS); }

#define BACKWARD_PARAMETERS                                                      \
    S *dqkv, const S *datty, const float *delta, const float *lse, const S *qkv, \
        const int *blocks, int heads, int d, float scale
#define BACKWARD_ARGUMENTS dqkv, datty, delta, lse, qkv, blocks, heads, d, scale

#if !defined(EMULATED) && __CUDA_ARCH__ >= 800
KERNEL __launch_bounds__(128, 3) void attention_tensor_keys_64(BACKWARD_PARAMETERS);
#endif

// Computes the queries' part of dqkv (R, 3C). Threads as in the forward pass.
template <int D>
DEVICE void query_tiles(BACKWARD_PARAMETERS) {
    DYNAMIC_SHARED(S, shared);
    S *k = shared, *v = k + TILE_ROWS * (D + 8);
    const QueryBlock block = query_block(blocks);
    int begin = block.begin, end = block.end, head = blockIdx.y;
    int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
    int c = heads * d, row = begin + 16 * warp;
    long stride = 3L * c;
    qkv += head * d;
    // Queries and upstream gradients are loaded into registers through the tiles.
    load_tile<D>(k, qkv, stride, d, end - begin, begin, TILE_ROWS, 0);
    load_tile<D>(v, datty + head * d, c, d, end - begin, begin, TILE_ROWS, 0);
    __syncthreads();
    unsigned q[D / 16][4], g[D / 16][4];
    load_fragments<D>(q, k + 16 * warp * (D + 8));
    load_fragments<D>(g, v + 16 * warp * (D + 8));
    float row_lse[2], row_delta[2], d_q[D / 8][4] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int query = row + group + 8 * half;
        row_lse[half] = query < end ? lse[(long)query * heads + head] * LOG2_E : LARGE;
        row_delta[half] = query < end ? delta[(long)query * heads + head] : 0.0f;
    }
    int last = block.prefix_len + begin - block.span_start + 16 * warp + group;
    for (int first = 0; first < block.n_keys; first += TILE_ROWS) {
        load_keys<D>(k, v, qkv, c, d, block, first);
#pragma unroll
        for (int part = 0; part < TILE_ROWS; part += 32) {
            float s[4][4] = {}, d_s[4][4] = {};
            add_product_transposed<D, 32>(s, q, k + part * (D + 8));
            add_product_transposed<D, 32>(d_s, g, v + part * (D + 8));
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    bool seen = first + part + 8 * n + pair + i % 2 <= last + i / 2 * 8;
                    float p = seen ? quick_exp2(s[n][i] * (scale * LOG2_E) - row_lse[i / 2]) : 0.0f;
                    d_s[n][i] = p * (d_s[n][i] - row_delta[i / 2]);
                }
            add_product<D, 32>(d_q, d_s, k + part * (D + 8));
        }
    }
    float factor[2] = {scale, scale};
    store_rows<D>(dqkv + row * stride + head * d, stride, d, end - row, d_q, factor, 0);
}
KERNEL void attention_tensor_queries_32(BACKWARD_PARAMETERS) {
    query_tiles<32>(BACKWARD_ARGUMENTS);
}
KERNEL void attention_tensor_queries_64(BACKWARD_PARAMETERS) {
    query_tiles<64>(BACKWARD_ARGUMENTS);
}
KERNEL void attention_tensor_queries_128(BACKWARD_PARAMETERS) {
    query_tiles<128>(BACKWARD_ARGUMENTS);
}

// Computes the keys' and values' parts of dqkv. A warp has 16 keys and loops over the queries.
// Registers hold the transposed scores, a row for each key.
template <int D>
DEVICE void key_tiles(BACKWARD_PARAMETERS) {
    DYNAMIC_SHARED(S, shared);
    __shared__ float row_lse[TILE_ROWS], row_delta[TILE_ROWS];
    S *q = shared, *g = q + TILE_ROWS * (D + 8);
    const int* block = blocks + 3 * blockIdx.x;
    int begin = block[0], end = block[1], query_end = block[2], head = blockIdx.y;
    int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
    int c = heads * d, row = begin + 16 * warp;
    long stride = 3L * c;
    qkv += head * d;
    load_tile<D>(q, qkv + c, stride, d, end - begin, begin, TILE_ROWS, 0);
    load_tile<D>(g, qkv + 2 * c, stride, d, end - begin, begin, TILE_ROWS, 0);
    __syncthreads();
    unsigned k[D / 16][4], v[D / 16][4];
    load_fragments<D>(k, q + 16 * warp * (D + 8));
    load_fragments<D>(v, g + 16 * warp * (D + 8));
    float d_k[D / 8][4] = {}, d_v[D / 8][4] = {};
    for (int first = begin; first < query_end; first += TILE_ROWS) {
        __syncthreads();
        load_tile<D>(q, qkv, stride, d, query_end - first, first, TILE_ROWS, 0);
        load_tile<D>(g, datty + head * d, c, d, query_end - first, first, TILE_ROWS, 0);
        for (int i = threadIdx.x; i < TILE_ROWS; i += blockDim.x) {
            bool exists = first + i < query_end;
            row_lse[i] = exists ? lse[(long)(first + i) * heads + head] * LOG2_E : LARGE;
            row_delta[i] = exists ? delta[(long)(first + i) * heads + head] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int part = 0; part < TILE_ROWS; part += 32) {
            float p[4][4] = {}, d_s[4][4] = {};
            add_product_transposed<D, 32>(p, k, q + part * (D + 8));
            add_product_transposed<D, 32>(d_s, v, g + part * (D + 8));
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int query = part + 8 * n + pair + i % 2;
                    bool seen = row + group + i / 2 * 8 <= first + query;
                    p[n][i] = seen ? quick_exp2(p[n][i] * (scale * LOG2_E) - row_lse[query]) : 0.0f;
                    d_s[n][i] = p[n][i] * (d_s[n][i] - row_delta[query]);
                }
            add_product<D, 32>(d_v, p, g + part * (D + 8));
            add_product<D, 32>(d_k, d_s, q + part * (D + 8));
        }
    }
    float scaled[2] = {scale, scale}, plain[2] = {1.0f, 1.0f};
    S* to = dqkv + row * stride + head * d;
    store_rows<D>(to + c, stride, d, end - row, d_k, scaled, 0);
    store_rows<D>(to + 2 * c, stride, d, end - row, d_v, plain, 0);
}
KERNEL void attention_tensor_keys_32(BACKWARD_PARAMETERS) { key_tiles<32>(BACKWARD_ARGUMENTS); }
KERNEL void attention_tensor_keys_64(BACKWARD_PARAMETERS) { key_tiles<64>(BACKWARD_ARGUMENTS); }
KERNEL void attention_tensor_keys_128(BACKWARD_PARAMETERS) { key_tiles<128>(BACKWARD_ARGUMENTS); }
