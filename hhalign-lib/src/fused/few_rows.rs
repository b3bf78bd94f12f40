//! Products of a few rows with a large matrix, as in decoding: reading the matrix takes longer than computing with it.
//!
//! Every row is summed up in the same order however many rows there are, so that a sequence does not depend on its
//! neighbours.

use super::gemm::Matrix;
use super::products::Weight;
use super::vector::{LANES, fold, has_fma, widest};

/// Up to so many rows this is faster than a product for many.
pub(super) const FEW_ROWS: usize = 16;

/// Columns computed at once: two registers of sums for each row.
const TILE: usize = 2 * LANES;

/// `out += x W`.
///
/// # Shapes
/// x (R, in), W (in, out), out (R, out); R is small
pub(super) fn add_product(w: &Weight<'_>, x: &[f32], out: &mut [f32]) {
    if has_fma() { with::<true>(w, x, out) } else { with::<false>(w, x, out) }
}

fn with<const FMA: bool>(w: &Weight<'_>, x: &[f32], out: &mut [f32]) {
    let blocks = x.chunks(8 * w.n_in).zip(out.chunks_mut(8 * w.n_out));
    for (mut x, mut out) in blocks {
        for n in [8, 4, 2, 1] {
            if x.len() < n * w.n_in {
                continue;
            }
            let (now, later) = x.split_at(n * w.n_in);
            let (out_now, out_later) = out.split_at_mut(n * w.n_out);
            match n {
                8 => block::<8, FMA>(w, now, out_now),
                4 => block::<4, FMA>(w, now, out_now),
                2 => block::<2, FMA>(w, now, out_now),
                _ => block::<1, FMA>(w, now, out_now),
            }
            (x, out) = (later, out_later);
        }
    }
}

#[inline(always)]
fn add<const FMA: bool>(a: f32, b: f32, sum: f32) -> f32 {
    // Without the instruction `mul_add` would be a slow call of a function.
    if FMA { a.mul_add(b, sum) } else { a * b + sum }
}

fn block<const R: usize, const FMA: bool>(w: &Weight<'_>, x: &[f32], out: &mut [f32]) {
    if w.matrix.row == 1 { dots::<R, FMA>(w, x, out) } else { tiles::<R, FMA>(w, x, out) }
}

/// The matrix lies in rows of `out` numbers.
fn tiles<const R: usize, const FMA: bool>(w: &Weight<'_>, x: &[f32], out: &mut [f32]) {
    let (n_in, n_out, Matrix { data, .. }) = (w.n_in, w.n_out, w.matrix);
    widest!({
        for first in (0..n_out).step_by(TILE) {
            let n = TILE.min(n_out - first);
            let mut sums = [[0f32; TILE]; R];
            for k in 0..n_in {
                let line = &data[k * n_out + first..][..n];
                if let Some(line) = line.first_chunk::<TILE>() {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = x[r * n_in + k];
                        for i in 0..TILE {
                            sums[i] = add::<FMA>(x, line[i], sums[i]);
                        }
                    }
                } else {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = x[r * n_in + k];
                        sums.iter_mut().zip(line).for_each(|(sum, w)| *sum = add::<FMA>(x, *w, *sum));
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let out = &mut out[r * n_out + first..][..n];
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            }
        }
    });
}

/// The matrix lies in columns of `in` numbers: the head.
fn dots<const R: usize, const FMA: bool>(w: &Weight<'_>, x: &[f32], out: &mut [f32]) {
    let (n_in, n_out) = (w.n_in, w.n_out);
    widest!({
        for (j, column) in w.matrix.data.chunks_exact(n_in).enumerate() {
            let mut sums = [[0f32; LANES]; R];
            let (chunks, rest) = column.as_chunks::<LANES>();
            for (c, w) in chunks.iter().enumerate() {
                for (r, sums) in sums.iter_mut().enumerate() {
                    if let Some(x) = x[r * n_in + c * LANES..].first_chunk::<LANES>() {
                        for i in 0..LANES {
                            sums[i] = add::<FMA>(x[i], w[i], sums[i]);
                        }
                    }
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = &x[r * n_in + chunks.len() * LANES..];
                sums.iter_mut().zip(x).zip(rest).for_each(|((sum, x), w)| *sum = add::<FMA>(*x, *w, *sum));
                out[r * n_out + j] += fold(*sums, |a, b| a + b);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_plain_product_and_no_row_depends_on_another() {
        let numbers =
            |n: usize, seed: usize| (0..n).map(|i| ((i * 7919 + seed) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>();
        for (n_in, n_out) in [(3, 5), (33, 70), (64, 96)] {
            let data = numbers(n_in * n_out, 7);
            for w in [Weight::linear(&data, n_in, n_out), Weight::tied(&data, n_in, n_out)] {
                let x = numbers(15 * n_in, 3);
                let mut out = vec![1f32; 15 * n_out];
                add_product(&w, &x, &mut out);
                for r in 0..15 {
                    let mut alone = vec![1f32; n_out];
                    add_product(&w, &x[r * n_in..][..n_in], &mut alone);
                    assert_eq!(alone, out[r * n_out..][..n_out]);
                    for (j, got) in alone.iter().enumerate() {
                        let at = |k: usize| k * w.matrix.row + j * w.matrix.column;
                        let exact: f32 = 1.0 + (0..n_in).map(|k| x[r * n_in + k] * data[at(k)]).sum::<f32>();
                        assert!((got - exact).abs() < 1e-4, "{got} {exact}");
                    }
                }
            }
        }
    }
}
