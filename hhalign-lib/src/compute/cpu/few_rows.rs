//! Products of a few rows with a large matrix, as in decoding, where reading the matrix takes
//! longer than computing with it.
//!
//! The order of summation within a row is the same for any number of rows, so a sequence does not
//! depend on other sequences.

use crate::compute::cpu::gemm::Matrix;
use crate::compute::cpu::vector::{LANES, has_fma, widest};

/// The largest number of rows for which this is faster than a general product.
pub(super) const FEW_ROWS: usize = 16;

/// Columns of a tile: two registers of sums for each row.
const TILE: usize = 2 * LANES;

/// Rows of a tile, whose sums are all in registers.
const ROWS: usize = 4;

#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, sum: f32) -> f32 {
    // Without the instruction, `mul_add` would be a slow function call.
    if FMA { a.mul_add(b, sum) } else { a * b + sum }
}

/// A matrix (in, out) in strips of [`TILE`] columns. Each strip is contiguous, so it is read at the
/// full speed of memory.
pub(super) struct Strips(Vec<f32>);

impl Strips {
    /// Copies a matrix (in, out) into strips.
    pub(super) fn new(matrix: Matrix<'_>, n_in: usize, n_out: usize) -> Self {
        let mut strips = vec![0f32; n_out.div_ceil(TILE) * n_in * TILE];
        for (i, strip) in strips.chunks_exact_mut(n_in * TILE).enumerate() {
            let columns = i * TILE..n_out.min((i + 1) * TILE);
            if matrix.column == 1 {
                for (k, to) in strip.chunks_exact_mut(TILE).enumerate() {
                    let line = &matrix.data[k * matrix.row..][columns.clone()];
                    to[..line.len()].copy_from_slice(line);
                }
            } else {
                for (j, column) in columns.enumerate() {
                    let from = matrix.data[column * matrix.column..].iter().step_by(matrix.row);
                    strip
                        .iter_mut()
                        .skip(j)
                        .step_by(TILE)
                        .zip(from)
                        .for_each(|(to, from)| *to = *from);
                }
            }
        }
        Self(strips)
    }

    /// Computes `out += x W` for a few rows x.
    ///
    /// # Shapes
    /// x (R, in), W (in, out), out (R, out); R is small
    pub(super) fn add_product(&self, [n_in, n_out]: [usize; 2], x: &[f32], out: &mut [f32]) {
        if has_fma() {
            tiles::<true>(self, n_in, n_out, x, out);
        } else {
            tiles::<false>(self, n_in, n_out, x, out);
        }
    }
}

fn tiles<const FMA: bool>(strips: &Strips, n_in: usize, n_out: usize, x: &[f32], out: &mut [f32]) {
    let rows = x.len() / n_in;
    let columns = |r: usize, k: usize| if r < rows { x[r * n_in + k] } else { 0.0 };
    let block = |first: usize| {
        (0..n_in).map(|k| std::array::from_fn(|r| columns(first + r, k))).collect::<Vec<_>>()
    };
    let blocks: Vec<Vec<[f32; ROWS]>> = (0..rows).step_by(ROWS).map(block).collect();
    widest!({
        // All rows use a strip before the next one is read, so each strip is read from memory once.
        for (i, strip) in strips.0.chunks_exact(n_in * TILE).enumerate() {
            for (block, out) in blocks.iter().zip(out.chunks_mut(ROWS * n_out)) {
                let sums = tile::<FMA>(block, strip.as_chunks().0);
                for (out, sums) in out.chunks_exact_mut(n_out).zip(&sums) {
                    let out = &mut out[i * TILE..n_out.min((i + 1) * TILE)];
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
                }
            }
        }
    });
}

/// Computes the sums of one tile. Nothing in the loop can panic, so the sums stay in registers.
#[inline(always)]
fn tile<const FMA: bool>(columns: &[[f32; ROWS]], lines: &[[f32; TILE]]) -> [[f32; TILE]; ROWS] {
    let mut sums = [[0f32; TILE]; ROWS];
    for (x, line) in columns.iter().zip(lines) {
        for r in 0..ROWS {
            for i in 0..TILE {
                sums[r][i] = mul_add::<FMA>(x[r], line[i], sums[r][i]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use crate::compute::cpu::products::Weight;

    #[test]
    fn equals_the_plain_product_and_no_row_depends_on_another() {
        let numbers = |n: usize, seed: usize| {
            (0..n).map(|i| ((i * 7919 + seed) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>()
        };
        for (n_in, n_out) in [(3, 5), (33, 70), (64, 96)] {
            let data = numbers(n_in * n_out, 7);
            for mut w in [Weight::stored(&data, n_out), Weight::transposed(&data, n_in, n_out)] {
                w.make_strips();
                let x = numbers(15 * n_in, 3);
                let mut out = vec![1f32; 15 * n_out];
                w.add_few_rows(&x, &mut out);
                for r in 0..15 {
                    let mut alone = vec![1f32; n_out];
                    w.add_few_rows(&x[r * n_in..][..n_in], &mut alone);
                    assert_eq!(alone, out[r * n_out..][..n_out]);
                    for (j, got) in alone.iter().enumerate() {
                        let at = |k: usize| k * w.matrix.row + j * w.matrix.column;
                        let exact: f32 =
                            1.0 + (0..n_in).map(|k| x[r * n_in + k] * data[at(k)]).sum::<f32>();
                        assert!((got - exact).abs() < 1e-4, "{got} {exact}");
                    }
                }
            }
        }
    }
}
