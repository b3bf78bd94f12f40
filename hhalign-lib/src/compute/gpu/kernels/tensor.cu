// Products of small matrix tiles on tensor cores, for 16-bit dtypes. Tiles of TILE_ROWS rows are in
// shared memory with a row stride of D + 8 numbers, so that eight rows never share a bank.
//
// A warp holds operands and results in fragments (PTX ISA, "Matrix fragments for mma.m16n8k16").
// Lane 4 g + t holds the following elements.
//   a (16 rows, 16 columns)  rows g and g + 8, columns 2t, 2t + 1, 2t + 8, 2t + 9, two numbers
//                            per register;
//   b (16 rows, 8 columns)   column g, rows 2t, 2t + 1, 2t + 8, 2t + 9;
//   c (16 rows, 8 columns)   rows g and g + 8, columns 2t, 2t + 1, in f32.
// So two neighbouring c, rounded, are one a.

#define TILE_ROWS 64

#ifdef EMULATED
static thread_local unsigned emulated_operands[32][32][6];
static thread_local const S* emulated_rows[32][32];

DEVICE float emulated_element(unsigned pair, int i) { return to_f32((S)(pair >> (16 * i))); }

DEVICE void mma(float* c, const unsigned* a, unsigned b0, unsigned b1) {
    unsigned (*all)[6] = emulated_operands[threadIdx.x / 32];
    int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) all[lane][i] = a[i];
    all[lane][4] = b0;
    all[lane][5] = b1;
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            float x = emulated_element(all[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], k % 2);
            c[i] += x * emulated_element(all[column * 4 + k % 8 / 2][4 + k / 8], k % 2);
        }
    }
    __syncwarp();
}
DEVICE void load_matrices(unsigned* r, const S* row) {
    const S** rows = emulated_rows[threadIdx.x / 32];
    int lane = threadIdx.x % 32;
    rows[lane] = row;
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        const S* pair = rows[8 * i + lane / 4] + lane % 4 * 2;
        r[i] = pair[0] | (unsigned)pair[1] << 16;
    }
    __syncwarp();
}
DEVICE void load_transposed(unsigned* r, const S* row) {
    const S** rows = emulated_rows[threadIdx.x / 32];
    int lane = threadIdx.x % 32;
    rows[lane] = row;
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        const S** pair = rows + 8 * i + lane % 4 * 2;
        r[i] = pair[0][lane / 4] | (unsigned)pair[1][lane / 4] << 16;
    }
    __syncwarp();
}
DEVICE float quick_exp2(float x) { return exp2f(x); }
DEVICE unsigned pack(float low, float high) {
    return to_stored(low) | (unsigned)to_stored(high) << 16;
}
#else
#if STORAGE == BF16
#define DTYPE "bf16"
#else
#define DTYPE "f16"
#endif

// Computes c += a b.
DEVICE void mma(float* c, const unsigned* a, unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." DTYPE "." DTYPE
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    // A T4 multiplies half as many columns at a time, in f16 only.
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

// Loads four matrices (8, 8). Lane 8 i + j has the address of row j of matrix i. Lane 4 g + t gets
// columns 2t and 2t + 1 of row g of each matrix.
DEVICE void load_matrices(unsigned* r, const S* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}
// Loads four matrices (8, 8) transposed. Lane 4 g + t gets rows 2t and 2t + 1 of column g of each
// matrix.
DEVICE void load_transposed(unsigned* r, const S* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}

DEVICE float quick_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE unsigned pack(float low, float high) {
#if __CUDA_ARCH__ >= 800
    unsigned pair;
    asm("cvt.rn." DTYPE "x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return to_stored(low) | (unsigned)to_stored(high) << 16;
#endif
}
#endif

// Eight consecutive numbers, loaded in one transaction.
struct alignas(16) Stored8 {
    S x[8];
};

// Loads `n` rows of a head into a tile. Row i is row first + i of `from`, or row second + i for i
// >= split. The remaining rows are 0.
template <int D>
DEVICE void load_tile(S* tile, const S* from, long stride, int d, int n, int first, int split,
                      int second) {
    for (int i = threadIdx.x; i < TILE_ROWS * (D / 8); i += blockDim.x) {
        int row = i / (D / 8), column = i % (D / 8) * 8;
        Stored8 x = {};
        if (row < n && column < d)
            x = *(const Stored8*)(from + (row < split ? first + row : second + row) * stride +
                                  column);
        *(Stored8*)(tile + row * (D + 8) + column) = x;
    }
}

// Loads 16 rows of a tile as a.
template <int D>
DEVICE void load_fragments(unsigned (*a)[4], const S* tile) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        load_matrices(a[k], tile + lane % 16 * (D + 8) + 16 * k + lane / 16 * 8);
}

// Computes c (16, N) += a (16, D) times the transpose of N rows of a tile.
template <int D, int N>
DEVICE void add_product_transposed(float (*c)[4], const unsigned (*a)[4], const S* tile) {
    int lane = threadIdx.x % 32;
    const S* from = tile + (lane % 8 + lane / 16 * 8) * (D + 8) + lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            unsigned b[4];
            load_matrices(b, from + 16 * n * (D + 8) + 16 * k);
            mma(c[2 * n], a[k], b[0], b[1]);
            mma(c[2 * n + 1], a[k], b[2], b[3]);
        }
}

// Computes c (16, D) += weights (16, N), rounded, times N rows of a tile.
template <int D, int N>
DEVICE void add_product(float (*c)[4], const float (*weights)[4], const S* tile) {
    int lane = threadIdx.x % 32;
    const S* from = tile + lane % 16 * (D + 8) + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        const float *low = weights[2 * k], *high = weights[2 * k + 1];
        unsigned a[4] = {pack(low[0], low[1]), pack(low[2], low[3]), pack(high[0], high[1]),
                         pack(high[2], high[3])};
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            unsigned b[4];
            load_transposed(b, from + 16 * k * (D + 8) + 16 * n);
            mma(c[2 * n], a, b[0], b[1]);
            mma(c[2 * n + 1], a, b[2], b[3]);
        }
    }
}

// Writes the first `n` rows of c (16, D) to the rows of a head that begin at `to`. Each row is
// multiplied by its factor, plus `bias` unless null.
template <int D>
DEVICE void store_rows(S* to, long stride, int d, int n, const float (*c)[4], const float* factor,
                       const float* bias) {
    int group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < D / 8; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = group + 8 * half, column = 8 * i + pair;
            if (row >= n || column >= d) continue;
            float x = c[i][2 * half] * factor[half], y = c[i][2 * half + 1] * factor[half];
            if (bias) x += bias[column], y += bias[column + 1];
            *(unsigned*)(to + row * stride + column) = pack(x, y);
        }
}
