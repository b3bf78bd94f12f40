// Rows in and out: embeddings, layer norm with the residual sum in front of it, GELU, and sums over rows.

// stream (R, C) = wte[ids] + wpe[positions]
KERNEL void embed(float* stream, const float* wte, const float* wpe, const int* ids, const int* positions, int rows, int c) {
    int quads = c / 4;
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (long)rows * quads; i += (long)gridDim.x * blockDim.x) {
        long row = i / quads, at = i % quads * 4;
        Float4 token = load4(wte + (long)ids[row] * c + at), place = load4(wpe + (long)positions[row] * c + at);
        for (int j = 0; j < 4; j++) token.x[j] += place.x[j];
        store4(stream + row * c + at, token);
    }
}

// The residual sum and the layer norm of it, a warp for each row. With y: sum = x + y + bias is written; without, sum is x.
// normal = (sum - mean) rstd weight + shift; moments (R, 2) keep mean and rstd.
KERNEL void add_norm(float* sum, S* normal, float* moments, const float* x, const S* y, const float* bias, const float* weight,
                     const float* shift, int rows, int c, float epsilon) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    long first = (long)row * c;
    float total = 0.0f;
    for (int at = lane * 4; at < c; at += 128) {
        Float4 v = load4(x + first + at);
        if (y) {
            Float4 more = load4(y + first + at), b = load4(bias + at);
            for (int j = 0; j < 4; j++) v.x[j] += more.x[j] + b.x[j];
            store4(sum + first + at, v);
        }
        for (int j = 0; j < 4; j++) total += v.x[j];
    }
    const float* from = y ? sum : x;
    float mean = warp_sum(total) / c, squares = 0.0f;
    // Each lane reads again what it has written itself.
    for (int at = lane * 4; at < c; at += 128) {
        Float4 v = load4(from + first + at);
        for (int j = 0; j < 4; j++) squares += (v.x[j] - mean) * (v.x[j] - mean);
    }
    float rstd = rsqrtf(warp_sum(squares) / c + epsilon);
    for (int at = lane * 4; at < c; at += 128) {
        Float4 v = load4(from + first + at), w = load4(weight + at), b = load4(shift + at);
        for (int j = 0; j < 4; j++) v.x[j] = (v.x[j] - mean) * rstd * w.x[j] + b.x[j];
        store4(normal + first + at, v);
    }
    if (lane == 0) {
        moments[2 * row] = mean;
        moments[2 * row + 1] = rstd;
    }
}

// sum = x + y + bias, behind the last block.
KERNEL void add_rows(float* sum, const float* x, const S* y, const float* bias, int rows, int c) {
    int quads = c / 4;
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (long)rows * quads; i += (long)gridDim.x * blockDim.x) {
        long at = i * 4;
        Float4 v = load4(x + at), more = load4(y + at), b = load4(bias + at % c);
        for (int j = 0; j < 4; j++) v.x[j] += more.x[j] + b.x[j];
        store4(sum + at, v);
    }
}

// The layer norm once more, from kept moments.
KERNEL void norm_again(S* normal, const float* x, const float* moments, const float* weight, const float* shift, int rows, int c) {
    int quads = c / 4;
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (long)rows * quads; i += (long)gridDim.x * blockDim.x) {
        long row = i / quads, at = i % quads * 4;
        float mean = moments[2 * row], rstd = moments[2 * row + 1];
        Float4 v = load4(x + row * c + at), w = load4(weight + at), b = load4(shift + at);
        for (int j = 0; j < 4; j++) v.x[j] = (v.x[j] - mean) * rstd * w.x[j] + b.x[j];
        store4(normal + row * c + at, v);
    }
}

// d_stream += the gradient of x, a warp for each row; d_stored is d_stream as products read it.
KERNEL void norm_backward(float* d_stream, S* d_stored, const S* d_normal, const float* x, const float* moments,
                          const float* weight, int rows, int c) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    long first = (long)row * c;
    float mean = moments[2 * row], rstd = moments[2 * row + 1], sum = 0.0f, sum_hat = 0.0f;
    for (int at = lane * 4; at < c; at += 128) {
        Float4 d = load4(d_normal + first + at), v = load4(x + first + at), w = load4(weight + at);
        for (int j = 0; j < 4; j++) {
            float g = d.x[j] * w.x[j];
            sum += g;
            sum_hat += g * (v.x[j] - mean) * rstd;
        }
    }
    sum = warp_sum(sum) / c;
    sum_hat = warp_sum(sum_hat) / c;
    for (int at = lane * 4; at < c; at += 128) {
        Float4 d = load4(d_normal + first + at), v = load4(x + first + at), w = load4(weight + at);
        Float4 out = load4(d_stream + first + at);
        for (int j = 0; j < 4; j++) {
            float hat = (v.x[j] - mean) * rstd;
            out.x[j] += (d.x[j] * w.x[j] - sum - hat * sum_hat) * rstd;
        }
        store4(d_stream + first + at, out);
        store4(d_stored + first + at, out);
    }
}

// Gaussian error linear unit, in GPT-2's form with tanh; tanh u = 1 - 2 / (exp(2u) + 1) never overflows to no number.
DEVICE float gelu_tanh(float x) {
    float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return 1.0f - 2.0f / (quick_exp(2.0f * u) + 1.0f);
}

// active = gelu(wide + bias)
KERNEL void gelu_forward(S* active, const S* wide, const float* bias, int rows, int width) {
    int quads = width / 4;
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (long)rows * quads; i += (long)gridDim.x * blockDim.x) {
        Float4 v = load4(wide + i * 4), b = load4(bias + i % quads * 4);
        for (int j = 0; j < 4; j++) {
            float x = v.x[j] + b.x[j];
            v.x[j] = 0.5f * x * (1.0f + gelu_tanh(x));
        }
        store4(active + i * 4, v);
    }
}

// d_wide: the gradient behind the GELU comes in, that before it goes out. wide becomes gelu(wide + bias), for the weight's
// gradient.
KERNEL void gelu_backward(S* d_wide, S* wide, const float* bias, int rows, int width) {
    int quads = width / 4;
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (long)rows * quads; i += (long)gridDim.x * blockDim.x) {
        Float4 v = load4(wide + i * 4), d = load4(d_wide + i * 4), b = load4(bias + i % quads * 4);
        for (int j = 0; j < 4; j++) {
            float x = v.x[j] + b.x[j], t = gelu_tanh(x);
            float inner = 0.7978845608028654f * (1.0f + 3.0f * 0.044715f * x * x);
            d.x[j] *= 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
            v.x[j] = 0.5f * x * (1.0f + t);
        }
        store4(d_wide + i * 4, d);
        store4(wide + i * 4, v);
    }
}

// Sums over rows, in two steps so that the order of additions is always the same. A block adds 128 columns of SUM_ROWS rows.
#define SUM_ROWS 128

// partial (chunks, width) of x
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

// partial (chunks, 2C): of d_normal times the normalised x, then of d_normal.
KERNEL void norm_sums(float* partial, const S* d_normal, const float* x, const float* moments, int rows, int c) {
    __shared__ float sums[8][256];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = blockIdx.x * 128 + lane * 4;
    int begin = blockIdx.y * SUM_ROWS, end = begin + SUM_ROWS < rows ? begin + SUM_ROWS : rows;
    float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (column < c)
        for (int row = begin + warp; row < end; row += 8) {
            float mean = moments[2 * row], rstd = moments[2 * row + 1];
            Float4 d = load4(d_normal + (long)row * c + column), v = load4(x + (long)row * c + column);
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

// out (width) += the sum of `chunks` rows of partial, columns offset .. offset + width of a row of `stride`.
KERNEL void add_partials(float* out, const float* partial, int chunks, int stride, int offset, int width) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float total = 0.0f;
    // Loads ahead of the sum, whose order stays.
#pragma unroll 16
    for (int chunk = 0; chunk < chunks; chunk++) total += partial[(long)chunk * stride + offset + column];
    out[column] += total;
}

// out[i] = from[rows[i]], (n, C)
KERNEL void gather_stored(S* out, const S* from, const int* rows, int n, int c) {
    int quads = c / 4;
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (long)n * quads; i += (long)gridDim.x * blockDim.x)
        *(Stored4*)(out + i * 4) = *(const Stored4*)(from + (long)rows[i / quads] * c + i % quads * 4);
}
KERNEL void gather_stream(float* out, const float* from, const int* rows, int n, int c) {
    int quads = c / 4;
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (long)n * quads; i += (long)gridDim.x * blockDim.x)
        store4(out + i * 4, load4(from + (long)rows[i / quads] * c + i % quads * 4));
}

// Four columns of the sum of the rows of `from` that `order` lists from starts[group] to starts[group + 1]; none give zeros.
template <typename T>
DEVICE Float4 group_sum(const T* from, const int* starts, const int* order, long group, long at, int c) {
    Float4 sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    for (int k = starts[group]; k < starts[group + 1]; k++) {
        Float4 v = load4(from + (long)order[k] * c + at);
        for (int j = 0; j < 4; j++) sum.x[j] += v.x[j];
    }
    return sum;
}

// Row r of out is the sum of group r; stored, where it is given, is the same as products read it.
KERNEL void spread_stream(float* out, S* stored, const float* from, const int* starts, const int* order, int n, int c) {
    int quads = c / 4;
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (long)n * quads; i += (long)gridDim.x * blockDim.x) {
        Float4 sum = group_sum(from, starts, order, i / quads, i % quads * 4, c);
        store4(out + i * 4, sum);
        if (stored) store4(stored + i * 4, sum);
    }
}
KERNEL void spread_stored(S* out, const S* from, const int* starts, const int* order, int n, int c) {
    int quads = c / 4;
    for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < (long)n * quads; i += (long)gridDim.x * blockDim.x)
        store4(out + i * 4, group_sum(from, starts, order, i / quads, i % quads * 4, c));
}

// The gradient of an embedding: out[keys[i]] += the rows of d_stream that `order` lists from starts[i] to starts[i + 1].
KERNEL void embed_backward(float* out, const float* d_stream, const int* keys, const int* starts, const int* order, int c) {
    int key = blockIdx.x;
    for (int at = threadIdx.x * 4; at < c; at += blockDim.x * 4) {
        float* to = out + (long)keys[key] * c + at;
        Float4 before = load4(to), sum = group_sum(d_stream, starts, order, key, at, c);
        for (int j = 0; j < 4; j++) sum.x[j] += before.x[j];
        store4(to, sum);
    }
}
