//! Loops that the compiler vectorises for the processor at hand.
//!
//! [`widest`] evaluates an expression compiled for AVX-512, AVX2 or the portable base. The choice
//! is made at run time, so one build serves every machine. Functions called inside must be inlined.
//! Sums use [`LANES`] partial sums, since the compiler must not reorder floating-point sums.

use std::sync::LazyLock;

/// The number of partial sums: one AVX-512 register of f32.
pub(super) const LANES: usize = 16;

/// The widest vector instructions of this processor.
pub(crate) static ARCH: LazyLock<pulp::Arch> = LazyLock::new(pulp::Arch::new);

/// A value without `Copy`: a closure that moves it out is `FnOnce`.
pub(crate) struct CallOnce;

/// Evaluates an expression compiled for the widest vector instructions of this processor.
macro_rules! widest {
    ($work:expr) => {{
        // Only inlined code is compiled for those instructions. A closure that can be called more
        // than once gets a shim that is not inlined; moving a value out of the closure makes it
        // `FnOnce`.
        let once = $crate::compute::cpu::CallOnce;
        $crate::compute::cpu::ARCH.dispatch(
            #[inline(always)]
            || {
                let _moved = once;
                $work
            },
        )
    }};
}
pub(crate) use widest;

/// Returns whether this processor has a fused multiply-add instruction.
pub(super) fn has_fma() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    cfg!(target_arch = "aarch64")
}

/// Returns the first `n` numbers of a buffer, which grows if necessary. The caller overwrites them.
pub(super) fn sized(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        // Cleared first, since growing would copy numbers that nobody reads.
        buffer.clear();
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// Sums `f(a[i], b[i])`.
#[inline(always)]
pub(super) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] += f(a, b);
    }
    fold(lanes, |a, b| a + b)
}

/// Sums `f(x[i])`.
#[inline(always)]
pub(super) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum2(x, x, |a, _| f(a))
}

/// Returns the maximum: -∞ of no numbers, NaN if any is NaN.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(chunk[i], lanes[i]);
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        lanes[i] = larger(x, lanes[i]);
    }
    fold(lanes, larger)
}

/// Replaces scores by probabilities. Returns the log of the sum of their exponentials.
#[inline(always)]
pub(super) fn softmax(scores: &mut [f32]) -> f32 {
    let largest = max(scores);
    scores.iter_mut().for_each(|s| *s = exp(*s - largest));
    let total = sum(scores, |s| s);
    scores.iter_mut().for_each(|s| *s /= total);
    largest + total.ln()
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Computes e^x with an error of at most 2 units in the last place: x = n ln 2 + r, and a
/// polynomial for e^r. x is clamped to [-87.3, 88.3].
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2^23 rounds to an integer, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + c;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (p * r * r + r + 1.0) * power
}

/// Computes tanh x with an error of at most 2e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_equal_the_standard_librarys() {
        let (mut worst_exp, mut worst_tanh) = (0f64, 0f64);
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let (ours, exact) = widest!((exp(x), f64::from(x).exp()));
            worst_exp = worst_exp.max((f64::from(ours) / exact - 1.0).abs());
            worst_tanh = worst_tanh
                .max((f64::from(widest!(tanh(x / 8.0))) - f64::from(x / 8.0).tanh()).abs());
        }
        assert!(worst_exp < 3e-7 && worst_tanh < 3e-7, "{worst_exp} {worst_tanh}");
        assert!(
            exp(f32::NAN).is_nan()
                && exp(-1e9) < 1e-37
                && tanh(100.0) == 1.0
                && tanh(-100.0) == -1.0
        );
    }

    #[test]
    fn sums_and_maxima_take_every_element_of_odd_lengths() {
        for n in [0, 1, 15, 16, 17, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32 - 40.0).collect();
            assert_eq!(widest!(sum(&x, |v| v)), x.iter().sum::<f32>());
            assert_eq!(widest!(max(&x)), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(widest!(sum2(&x, &x, |a, b| a * b)), x.iter().map(|v| v * v).sum::<f32>());
        }
        assert!(max(&[1.0, f32::NAN, 2.0]).is_nan());
    }
}
