// Operations on rows: embeddings, layer norm with the residual sum before it, GELU, and sums over
// rows.

// Computes encoded (R, C) = wte[ids] + wpe[positions].
KERNEL void embed(float* encoded, const float* wte, const float* wpe, const int* ids,
                  const int* positions, int rows, int c) {
    int quads = c / 4;
    for (long i = grid_thread(); i < (long)rows * quads; i += grid_threads()) {
        long row = i / quads, at = i % quads * 4;
        Float4 token = load4(wte + (long)ids[row] * c + at),
               position = load4(wpe + (long)positions[row] * c + at);
        for (int j = 0; j < 4; j++) token.x[j] += position.x[j];
        store4(encoded + row * c + at, token);
    }
}

// Computes a residual sum and its layer norm, one warp per row. With y, it writes sum = residual +
// y + y_bias; without y, the sum is residual. ln = (sum - mean) rstd weight + bias. mean_rstd (R,
// 2) has the mean and rstd = 1 / √(variance + epsilon) of each row.
KERNEL void residual_layer_norm(float* sum, S* ln, float* mean_rstd, const float* residual,
                                const S* y, const float* y_bias, const float* weight,
                                const float* bias, int rows, int c, float epsilon) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    long first = (long)row * c;
    float total = 0.0f;
    for (int at = lane * 4; at < c; at += 128) {
        Float4 v = load4(residual + first + at);
        if (y) {
            Float4 increment = load4(y + first + at), b = load4(y_bias + at);
            for (int j = 0; j < 4; j++) v.x[j] += increment.x[j] + b.x[j];
            store4(sum + first + at, v);
        }
        for (int j = 0; j < 4; j++) total += v.x[j];
    }
    const float* from = y ? sum : residual;
    float mean = warp_sum(total) / c, squares = 0.0f;
    // Each lane reads only what it has written.
    for (int at = lane * 4; at < c; at += 128) {
        Float4 v = load4(from + first + at);
        for (int j = 0; j < 4; j++) squares += (v.x[j] - mean) * (v.x[j] - mean);
    }
    float rstd = rsqrtf(warp_sum(squares) / c + epsilon);
    for (int at = lane * 4; at < c; at += 128) {
        Float4 v = load4(from + first + at), w = load4(weight + at), b = load4(bias + at);
        for (int j = 0; j < 4; j++) v.x[j] = (v.x[j] - mean) * rstd * w.x[j] + b.x[j];
        store4(ln + first + at, v);
    }
    if (lane == 0) {
        mean_rstd[2 * row] = mean;
        mean_rstd[2 * row + 1] = rstd;
    }
}

// Computes sum = residual + y + y_bias, after the last block.
KERNEL void residual_add(float* sum, const float* residual, const S* y, const float* y_bias,
                         int rows, int c) {
    int quads = c / 4;
    for (long i = grid_thread(); i < (long)rows * quads; i += grid_threads()) {
        long at = i * 4;
        Float4 v = load4(residual + at), increment = load4(y + at), b = load4(y_bias + at % c);
        for (int j = 0; j < 4; j++) v.x[j] += increment.x[j] + b.x[j];
        store4(sum + at, v);
    }
}

// Recomputes the layer norm from the saved mean and rstd.
KERNEL void layer_norm_again(S* ln, const float* x, const float* mean_rstd, const float* weight,
                             const float* bias, int rows, int c) {
    int quads = c / 4;
    for (long i = grid_thread(); i < (long)rows * quads; i += grid_threads()) {
        long row = i / quads, at = i % quads * 4;
        float mean = mean_rstd[2 * row], rstd = mean_rstd[2 * row + 1];
        Float4 v = load4(x + row * c + at), w = load4(weight + at), b = load4(bias + at);
        for (int j = 0; j < 4; j++) v.x[j] = (v.x[j] - mean) * rstd * w.x[j] + b.x[j];
        store4(ln + row * c + at, v);
    }
}

// Adds the gradient of x to dresidual, one warp per row, and copies dresidual to dresidual_stored
// in the storage dtype.
KERNEL void layer_norm_backward(float* dresidual, S* dresidual_stored, const S* dln, const float* x,
                                const float* mean_rstd, const float* weight, int rows, int c) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    long first = (long)row * c;
    float mean = mean_rstd[2 * row], rstd = mean_rstd[2 * row + 1], sum = 0.0f, sum_hat = 0.0f;
    for (int at = lane * 4; at < c; at += 128) {
        Float4 d = load4(dln + first + at), v = load4(x + first + at), w = load4(weight + at);
        for (int j = 0; j < 4; j++) {
            float g = d.x[j] * w.x[j];
            sum += g;
            sum_hat += g * (v.x[j] - mean) * rstd;
        }
    }
    sum = warp_sum(sum) / c;
    sum_hat = warp_sum(sum_hat) / c;
    for (int at = lane * 4; at < c; at += 128) {
        Float4 d = load4(dln + first + at), v = load4(x + first + at), w = load4(weight + at);
        Float4 out = load4(dresidual + first + at);
        for (int j = 0; j < 4; j++) {
            float hat = (v.x[j] - mean) * rstd;
            out.x[j] += (d.x[j] * w.x[j] - sum - hat * sum_hat) * rstd;
        }
        store4(dresidual + first + at, out);
        store4(dresidual_stored + first + at, out);
    }
}

// The tanh of GPT-2's form of the Gaussian error linear unit: tanh u = 1 - 2 / (exp(2u) + 1) never
// overflows to NaN.
DEVICE float gelu_tanh(float x) {
    float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return 1.0f - 2.0f / (quick_exp(2.0f * u) + 1.0f);
}

// Computes fch_gelu = gelu(fch + bias).
KERNEL void gelu_forward(S* fch_gelu, const S* fch, const float* bias, int rows, int width) {
    int quads = width / 4;
    for (long i = grid_thread(); i < (long)rows * quads; i += grid_threads()) {
        Float4 v = load4(fch + i * 4), b = load4(bias + i % quads * 4);
        for (int j = 0; j < 4; j++) {
            float x = v.x[j] + b.x[j];
            v.x[j] = 0.5f * x * (1.0f + gelu_tanh(x));
        }
        store4(fch_gelu + i * 4, v);
    }
}

// Replaces dfch, the gradient of the GELU's output, by that of its input, and fch by gelu(fch +
// bias), for fcproj's weight gradient.
KERNEL void gelu_backward(S* dfch, S* fch, const float* bias, int rows, int width) {
    int quads = width / 4;
    for (long i = grid_thread(); i < (long)rows * quads; i += grid_threads()) {
        Float4 v = load4(fch + i * 4), d = load4(dfch + i * 4), b = load4(bias + i % quads * 4);
        for (int j = 0; j < 4; j++) {
            float x = v.x[j] + b.x[j], t = gelu_tanh(x);
            float inner = 0.7978845608028654f * (1.0f + 3.0f * 0.044715f * x * x);
            d.x[j] *= 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
            v.x[j] = 0.5f * x * (1.0f + t);
        }
        store4(dfch + i * 4, d);
        store4(fch + i * 4, v);
    }
}

// Sums over rows take two steps, so that the order of additions is always the same. A block adds
// 128 columns of SUM_ROWS rows.
#define SUM_ROWS 128

// Writes the column sums of x to partial (chunks, width).
KERNEL void column_sums(float* partial, const S* x, int rows, int width) {
    __shared__ float sums[8][128];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = blockIdx.x * 128 + lane * 4;
    int begin = blockIdx.y * SUM_ROWS, end = begin + SUM_ROWS < rows ? begin + SUM_ROWS : rows;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (column < width)
        for (int row = begin + warp; row < end; row += 8) {
            Float4 v = load4(x + (long)row * width + column);
            for (int j = 0; j < 4; j++) sum[j] += v.x[j];
        }
    for (int j = 0; j < 4; j++) sums[warp][lane * 4 + j] = sum[j];
    __syncthreads();
    int own = blockIdx.x * 128 + threadIdx.x;
    if (threadIdx.x < 128 && own < width) {
        float total = 0.0f;
        for (int w = 0; w < 8; w++) total += sums[w][threadIdx.x];
        partial[(long)blockIdx.y * width + own] = total;
    }
}

// Writes column sums to partial (chunks, 2C): first of dln times the normalised x, then of dln.
KERNEL void layer_norm_sums(float* partial, const S* dln, const float* x, const float* mean_rstd,
                            int rows, int c) {
    __shared__ float sums[8][256];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = blockIdx.x * 128 + lane * 4;
    int begin = blockIdx.y * SUM_ROWS, end = begin + SUM_ROWS < rows ? begin + SUM_ROWS : rows;
    float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (column < c)
        for (int row = begin + warp; row < end; row += 8) {
            float mean = mean_rstd[2 * row], rstd = mean_rstd[2 * row + 1];
            Float4 d = load4(dln + (long)row * c + column), v = load4(x + (long)row * c + column);
            for (int j = 0; j < 4; j++) {
                sum[j] += d.x[j] * (v.x[j] - mean) * rstd;
                sum[4 + j] += d.x[j];
            }
        }
    for (int j = 0; j < 4; j++) {
        sums[warp][lane * 4 + j] = sum[j];
        sums[warp][128 + lane * 4 + j] = sum[4 + j];
    }
    __syncthreads();
    int own = blockIdx.x * 128 + threadIdx.x % 128, which = threadIdx.x / 128;
    if (own < c) {
        float total = 0.0f;
        for (int w = 0; w < 8; w++) total += sums[w][threadIdx.x];
        partial[(long)blockIdx.y * 2 * c + which * c + own] = total;
    }
}

// Adds the sum over `chunks` rows of partial, columns offset .. offset + width of a row of
// `stride`, to out (width).
KERNEL void add_partials(float* out, const float* partial, int chunks, int stride, int offset,
                         int width) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float total = 0.0f;
    // Unrolled, so that loads run ahead of the sum. The order of the sum does not change.
#pragma unroll 16
    for (int chunk = 0; chunk < chunks; chunk++)
        total += partial[(long)chunk * stride + offset + column];
    out[column] += total;
}

// Copies out[i] = from[rows[i]], (n, C).
KERNEL void gather_stored(S* out, const S* from, const int* rows, int n, int c) {
    int quads = c / 4;
    for (long i = grid_thread(); i < (long)n * quads; i += grid_threads())
        *(Stored4*)(out + i * 4) =
            *(const Stored4*)(from + (long)rows[i / quads] * c + i % quads * 4);
}
KERNEL void gather_residual(float* out, const float* from, const int* rows, int n, int c) {
    int quads = c / 4;
    for (long i = grid_thread(); i < (long)n * quads; i += grid_threads())
        store4(out + i * 4, load4(from + (long)rows[i / quads] * c + i % quads * 4));
}

// Returns four columns of the sum of the rows of `from` that `order` lists from starts[group] to
// starts[group + 1]; zero if there are none.
template <typename T>
DEVICE Float4 group_sum(const T* from, const int* starts, const int* order, long group, long at,
                        int c) {
    Float4 sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    for (int k = starts[group]; k < starts[group + 1]; k++) {
        Float4 v = load4(from + (long)order[k] * c + at);
        for (int j = 0; j < 4; j++) sum.x[j] += v.x[j];
    }
    return sum;
}

// Writes the sum of group r to row r of out, and unless it is null also to `stored` in the storage
// dtype.
KERNEL void scatter_sum_residual(float* out, S* stored, const float* from, const int* starts,
                                 const int* order, int n, int c) {
    int quads = c / 4;
    for (long i = grid_thread(); i < (long)n * quads; i += grid_threads()) {
        Float4 sum = group_sum(from, starts, order, i / quads, i % quads * 4, c);
        store4(out + i * 4, sum);
        if (stored) store4(stored + i * 4, sum);
    }
}
KERNEL void scatter_sum_stored(S* out, const S* from, const int* starts, const int* order, int n,
                               int c) {
    int quads = c / 4;
    for (long i = grid_thread(); i < (long)n * quads; i += grid_threads())
        store4(out + i * 4, group_sum(from, starts, order, i / quads, i % quads * 4, c));
}

// Adds the gradient of an embedding: dembedding[keys[i]] += the rows of dresidual that `order`
// lists from starts[i] to starts[i + 1].
KERNEL void embed_backward(float* dembedding, const float* dresidual, const int* keys,
                           const int* starts, const int* order, int c) {
    int key = blockIdx.x;
    for (int at = threadIdx.x * 4; at < c; at += blockDim.x * 4) {
        float* to = dembedding + (long)keys[key] * c + at;
        Float4 before = load4(to), sum = group_sum(dresidual, starts, order, key, at, c);
        for (int j = 0; j < 4; j++) sum.x[j] += before.x[j];
        store4(to, sum);
    }
}
