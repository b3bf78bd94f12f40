//! Products with operands rounded to bf16 and sums in f32, on processors that have AVX512-BF16.
//!
//! One instruction (`vdpbf16ps`) multiplies 32 pairs of bf16 numbers and adds two products to each
//! f32 sum, which is twice the work of an f32 multiply-add. Both operands are packed first: two
//! neighbours along the inner dimension share 32 bits. A tile of [`MR`] x [`NR`] results stays in
//! registers during the loop over the inner dimension.

use crate::compute::cpu::gemm::{Matrix, Store};
use crate::compute::cpu::vector::widest;

/// Rows of a tile. Each row takes two registers, so sums take 28 of the 32 registers.
const MR: usize = 14;
/// Columns of a tile: two registers of 16 numbers.
const NR: usize = 32;
/// Pairs along the inner dimension that are packed together. A strip of the left operand then stays
/// in the first-level cache.
const PAIRS: usize = 256;
/// Rows of the left operand that are packed together. They stay in the second-level cache.
const ROWS: usize = 36 * MR;

/// Returns whether this processor has the instruction.
pub(in crate::compute) fn is_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16")
        && std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Rounds to the nearest bf16, ties to even, and returns it in the upper half of a word.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    if x.is_nan() { 0x7fc0_0000 } else { rounded }
}

#[inline(always)]
fn pair(first: f32, second: f32) -> u32 {
    (round(first) >> 16) | round(second)
}

/// The right operand of a product, (k, n), in strips of [`NR`] columns. Each strip holds the pairs
/// along k in order.
#[derive(Default)]
pub(super) struct PackedRight {
    data: Vec<u32>,
    k: usize,
    n: usize,
}

impl PackedRight {
    /// Packs a matrix (k, n) into the memory of this one.
    pub(super) fn pack(&mut self, b: Matrix<'_>, k: usize, n: usize) {
        (self.k, self.n) = (k, n);
        let pairs = k.div_ceil(2).max(1);
        self.data.resize(n.div_ceil(NR) * pairs * NR, 0);
        widest!({
            for (strip, out) in self.data.chunks_exact_mut(pairs * NR).enumerate() {
                let first = strip * NR;
                let columns = NR.min(n - first);
                if b.column == 1 {
                    pack_rows(b, k, first, columns, out);
                } else {
                    pack_columns(b, k, first, columns, out);
                }
            }
        });
    }
}

/// Pairs two lines element by element; a missing element is zero.
#[inline(always)]
fn pair_lines<const N: usize>(upper: &[f32], lower: &[f32], out: &mut [u32; N]) {
    // With arrays of fixed size, the loop becomes vector instructions without bounds checks.
    if let (Some(upper), Some(lower)) = (upper.first_chunk::<N>(), lower.first_chunk::<N>()) {
        for i in 0..N {
            out[i] = pair(upper[i], lower[i]);
        }
    } else {
        out.fill(0);
        let lower = lower.iter().copied().chain(std::iter::repeat(0.0));
        for ((out, &upper), lower) in out.iter_mut().zip(upper).zip(lower) {
            *out = pair(upper, lower);
        }
    }
}

/// Packs a strip of a matrix whose rows are contiguous.
#[inline(always)]
fn pack_rows(b: Matrix<'_>, k: usize, first: usize, columns: usize, out: &mut [u32]) {
    for (p, out) in out.as_chunks_mut::<NR>().0.iter_mut().enumerate() {
        let line = |at: usize| if at < k { &b.data[at * b.row + first..][..columns] } else { &[] };
        pair_lines(line(2 * p), line(2 * p + 1), out);
    }
}

/// Packs a strip of a matrix whose columns are contiguous, so it transposes.
#[inline(always)]
fn pack_columns(b: Matrix<'_>, k: usize, first: usize, columns: usize, out: &mut [u32]) {
    let pairs = out.len() / NR;
    let mut block = [[0u32; NR]; NR];
    for start in (0..pairs).step_by(NR) {
        let n = NR.min(pairs - start);
        for (i, line) in block.iter_mut().enumerate().take(columns) {
            let source =
                &b.data[(first + i) * b.column + 2 * start..][..(2 * n).min(k - 2 * start)];
            let (whole, rest) = source.as_chunks::<2>();
            for (to, two) in line.iter_mut().zip(whole) {
                *to = pair(two[0], two[1]);
            }
            if let [last] = rest {
                line[n - 1] = pair(*last, 0.0);
            }
        }
        for p in 0..n {
            for i in 0..NR {
                out[(start + p) * NR + i] = if i < columns { block[i][p] } else { 0 };
            }
        }
    }
}

/// Memory for the packed left operand.
#[derive(Default)]
pub(super) struct LeftBuffer(Vec<u32>);

/// Computes `out (+)= a b` in one thread, with a (m, k), packed b (k, n), and out in rows of stride
/// `out_row`.
pub(super) fn product(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: &PackedRight,
    out: &mut [f32],
    out_row: usize,
    store: Store,
    buffer: &mut LeftBuffer,
) {
    let pairs = k.div_ceil(2);
    assert_eq!((b.k, b.n), (k, n), "the right side was packed from another matrix");
    assert!(
        m == 0 || n == 0 || (m - 1) * out_row + n <= out.len(),
        "a product writes outside its destination"
    );
    assert!(a.row == 1 || a.column == 1, "one of the dimensions must be contiguous");
    if k == 0 && store == Store::Overwrite {
        (0..m).for_each(|i| out[i * out_row..][..n].fill(0.0));
    }
    let tile = if a.column == 1 { tile_product::<PAIRS, 1> } else { tile_product::<1, MR> };
    for first_pair in (0..pairs).step_by(PAIRS) {
        let n_pairs = PAIRS.min(pairs - first_pair);
        let add = store == Store::Add || first_pair > 0;
        for first_row in (0..m).step_by(ROWS) {
            let rows = ROWS.min(m - first_row);
            buffer.0.resize(rows.div_ceil(MR) * MR * PAIRS, 0);
            if a.column == 1 {
                pack_left_rows(a, [first_row, rows], [first_pair, n_pairs], k, &mut buffer.0);
            } else {
                pack_left_columns(a, [first_row, rows], [first_pair, n_pairs], k, &mut buffer.0);
            }
            for (strip, b) in b.data.chunks_exact(pairs.max(1) * NR).enumerate() {
                let b = &b[first_pair * NR..][..n_pairs * NR];
                let columns = NR.min(n - strip * NR);
                for (i, a) in buffer.0.chunks_exact(MR * PAIRS).enumerate() {
                    let row = first_row + i * MR;
                    let out = &mut out[row * out_row + strip * NR..];
                    tile(a, b, [MR.min(first_row + rows - row), columns], out, out_row, add);
                }
            }
        }
    }
}

/// Packs rows of the left operand when they are contiguous. Each row takes [`PAIRS`] words, used or
/// not.
fn pack_left_rows(
    a: Matrix<'_>,
    [first_row, rows]: [usize; 2],
    [first_pair, n_pairs]: [usize; 2],
    k: usize,
    out: &mut [u32],
) {
    widest!({
        for (i, out) in out.as_chunks_mut::<PAIRS>().0.iter_mut().enumerate() {
            if i >= rows {
                out.fill(0);
                continue;
            }
            let n = (2 * n_pairs).min(k - 2 * first_pair);
            let source = &a.data[(first_row + i) * a.row + 2 * first_pair..][..n];
            let (whole, rest) = source.as_chunks::<2>();
            for (out, two) in out.iter_mut().zip(whole) {
                *out = pair(two[0], two[1]);
            }
            if let [last] = rest {
                out[n_pairs - 1] = pair(*last, 0.0);
            }
        }
    });
}

/// Packs rows of the left operand when its columns are contiguous: strips of [`MR`] rows, each with
/// the pairs along k in order.
fn pack_left_columns(
    a: Matrix<'_>,
    [first_row, rows]: [usize; 2],
    [first_pair, n_pairs]: [usize; 2],
    k: usize,
    out: &mut [u32],
) {
    // Processes a few lines for all strips, so they are still in the cache for the next strip.
    const LINES: usize = 8;
    // Converts a whole register and keeps MR words of it.
    const WIDE: usize = 16;
    widest!({
        for start in (0..n_pairs).step_by(LINES) {
            for (tile, out) in out.chunks_exact_mut(MR * PAIRS).enumerate() {
                let first = first_row + tile * MR;
                let own = MR.min(first_row + rows - first);
                for (p, out) in out
                    .as_chunks_mut::<MR>()
                    .0
                    .iter_mut()
                    .enumerate()
                    .take(n_pairs)
                    .skip(start)
                    .take(LINES)
                {
                    let at = 2 * (first_pair + p);
                    let line =
                        |at: usize| if at < k { &a.data[at * a.column + first..] } else { &[] };
                    let (upper, lower) = (line(at), line(at + 1));
                    if let (MR, Some(_), Some(_)) = (own, upper.get(WIDE - 1), lower.get(WIDE - 1))
                    {
                        let mut wide = [0; WIDE];
                        pair_lines(upper, lower, &mut wide);
                        out.copy_from_slice(&wide[..MR]);
                    } else {
                        pair_lines(&upper[..own], &lower[..own.min(lower.len())], out);
                    }
                }
            }
        }
    });
}

/// Computes one tile of results. Rows and columns beyond `valid` are computed and discarded. `ROW`
/// and `PAIR` are the strides of the left operand between rows and between pairs.
fn tile_product<const ROW: usize, const PAIR: usize>(
    a: &[u32],
    b: &[u32],
    valid: [usize; 2],
    out: &mut [f32],
    out_row: usize,
    add: bool,
) {
    let mut tile = [0f32; MR * NR];
    #[cfg(target_arch = "x86_64")]
    {
        let pairs = b.len() / NR;
        assert!(is_available() && pairs > 0 && (MR - 1) * ROW + (pairs - 1) * PAIR < a.len());
        // SAFETY: the processor has the instructions, both operands hold `pairs` pairs, `tile`
        // holds a whole tile, and `out` is passed only if it holds a whole tile.
        #[allow(unsafe_code)]
        unsafe {
            if valid == [MR, NR] {
                assert!((MR - 1) * out_row + NR <= out.len());
                return run_tile::<ROW, PAIR>(
                    a.as_ptr(),
                    b.as_ptr(),
                    pairs,
                    out.as_mut_ptr(),
                    out_row,
                    add,
                );
            }
            run_tile::<ROW, PAIR>(a.as_ptr(), b.as_ptr(), pairs, tile.as_mut_ptr(), NR, false);
        }
    }
    for (i, row) in tile.as_chunks::<NR>().0.iter().enumerate().take(valid[0]) {
        for (out, x) in out[i * out_row..][..valid[1]].iter_mut().zip(row) {
            *out = if add { *out + x } else { *x };
        }
    }
}

/// Computes one whole tile of results.
///
/// # Safety
/// The processor has AVX512-BF16; `a` holds MR x `pairs` words at its strides, `b` `pairs` x NR
/// words, and `out` MR rows of NR numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
#[allow(unsafe_code)]
unsafe fn run_tile<const ROW: usize, const PAIR: usize>(
    a: *const u32,
    b: *const u32,
    pairs: usize,
    out: *mut f32,
    out_row: usize,
    add: bool,
) {
    use std::arch::x86_64::*;
    // SAFETY: all reads and writes are in the memory that the caller guarantees; __m512bh is 512
    // bits of bf16.
    unsafe {
        let bf16 = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        for p in 0..pairs {
            let right = [
                bf16(_mm512_loadu_si512(b.add(p * NR).cast())),
                bf16(_mm512_loadu_si512(b.add(p * NR + 16).cast())),
            ];
            for (i, sum) in sums.iter_mut().enumerate() {
                let left = bf16(_mm512_set1_epi32(a.add(p * PAIR + i * ROW).read().cast_signed()));
                sum[0] = _mm512_dpbf16_ps(sum[0], left, right[0]);
                sum[1] = _mm512_dpbf16_ps(sum[1], left, right[1]);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            for (half, value) in sum.into_iter().enumerate() {
                let to = out.add(i * out_row + half * 16);
                _mm512_storeu_ps(
                    to,
                    if add { _mm512_add_ps(value, _mm512_loadu_ps(to)) } else { value },
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
    }

    #[test]
    fn equals_the_product_of_rounded_numbers_for_odd_sizes_and_transposes() {
        if !is_available() {
            return println!("skipped: this processor has no AVX512-BF16");
        }
        let rounded = |x: f32| f64::from(f32::from_bits(round(x)));
        for (m, n, k) in
            [(1, 1, 1), (14, 32, 2), (15, 33, 3), (40, 70, 129), (521, 65, 515), (29, 31, 1030)]
        {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            for transposed in [false, true] {
                let matrix = |data, rows, columns| {
                    if transposed {
                        Matrix { data, row: 1, column: rows }
                    } else {
                        Matrix::rows(data, columns)
                    }
                };
                let (left, right) = (matrix(&a, m, k), matrix(&b, k, n));
                let mut packed = PackedRight::default();
                packed.pack(right, k, n);
                let mut out = vec![0.5f32; m * (n + 3)];
                product(
                    [m, n, k],
                    left,
                    &packed,
                    &mut out,
                    n + 3,
                    Store::Add,
                    &mut LeftBuffer::default(),
                );
                for i in 0..m {
                    for j in 0..n {
                        let read = |x: Matrix<'_>, i: usize, j: usize| {
                            rounded(x.data[i * x.row + j * x.column])
                        };
                        let exact: f64 = (0..k).map(|t| read(left, i, t) * read(right, t, j)).sum();
                        let got = f64::from(out[i * (n + 3) + j]) - 0.5;
                        assert!(
                            (got - exact).abs() < 1e-4,
                            "{m} {n} {k} {transposed}: {got} {exact}"
                        );
                    }
                    assert!(
                        out[i * (n + 3) + n..][..3].iter().all(|x| *x == 0.5),
                        "wrote outside the rows"
                    );
                }
            }
        }
    }

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        assert_eq!(round(1.0), 1f32.to_bits());
        assert_eq!(round(f32::from_bits(0x3f80_8000)), 0x3f80_0000);
        assert_eq!(round(f32::from_bits(0x3f81_8000)), 0x3f82_0000);
        assert_eq!(round(f32::from_bits(0x3f80_8001)), 0x3f81_0000);
        assert_eq!(round(f32::INFINITY), f32::INFINITY.to_bits());
        assert!(f32::from_bits(round(f32::NAN)).is_nan());
    }
}
