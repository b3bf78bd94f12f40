//! One axis: its range, its ticks, and the position of a value.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

/// The lowest and highest value, and whether the scale is logarithmic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    pub log: bool,
}

impl Axis {
    /// Returns an axis around the values with a margin, also if there are none or all are equal.
    ///
    /// A logarithmic axis ignores values that are not positive.
    pub fn around(values: impl Iterator<Item = f64>, log: bool) -> Self {
        if !log {
            let (low, high) = range(values);
            return Self { low, high, log };
        }
        let (low, high) = range(values.filter(|v| *v > 0.0).map(f64::log10));
        Self { low: 10f64.powf(low), high: 10f64.powf(high), log }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        if !self.log {
            return RangedCoordf64::from(self.low..self.high).map(value, limit);
        }
        let logs = self.low.log10()..self.high.log10();
        RangedCoordf64::from(logs).map(&value.max(f64::MIN_POSITIVE).log10(), limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if !self.log {
            return RangedCoordf64::from(self.low..self.high).key_points(hint);
        }
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let of = |steps: &[f64]| -> Vec<f64> {
            let all =
                (first..=last).flat_map(|power| steps.iter().map(move |s| s * 10f64.powi(power)));
            all.filter(|v| (self.low..=self.high).contains(v)).collect()
        };
        // An axis of few decades has room for more ticks than the powers of ten.
        let fine = of(&[1.0, 2.0, 5.0]);
        if fine.len() <= hint.max_num_points() { fine } else { of(&[1.0]) }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

/// Returns the lowest and highest of the values with a margin.
pub(super) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = if high > low { (high - low) * 0.06 } else { 0.5 };
    (low - margin, high + margin)
}

/// Formats a number on an axis as briefly as possible.
pub(super) fn short(v: f64, log: bool) -> String {
    // Ticks are sums of steps, so rounding may leave a tiny number in place of zero.
    let v = if v.abs() < 1e-9 { 0.0 } else { v };
    let size = v.abs();
    if size >= 10_000.0 {
        format!("{:.0}k", v / 1000.0)
    } else if size >= 100.0 || (v.fract() == 0.0) {
        format!("{v:.0}")
    } else if log {
        // 10^-4 is shown as 0.0001, not as 0.00.
        format!("{:.*}", (-size.log10().floor()).max(0.0) as usize, v)
    } else if size >= 1.0 {
        format!("{v:.1}")
    } else {
        format!("{v:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_spaces_powers_of_ten_evenly() {
        let axis = Axis { low: 1e-4, high: 1.0, log: true };
        let at: Vec<i32> =
            [1e-4, 1e-3, 1e-2, 0.1, 1.0].iter().map(|v| axis.map(v, (0, 400))).collect();
        assert_eq!(at, [0, 100, 200, 300, 400]);
        let ticks: Vec<String> = axis.key_points(6).into_iter().map(|v| short(v, true)).collect();
        assert_eq!(ticks, ["0.0001", "0.001", "0.01", "0.1", "1"]);
        let short_axis = Axis { low: 0.15, high: 0.6, log: true };
        assert_eq!(short_axis.key_points(6).len(), 2, "0.2 and 0.5");
    }

    #[test]
    fn values_that_are_not_positive_do_not_move_a_logarithmic_axis() {
        let axis = Axis::around([0.0, -1.0, 0.1, 0.01].into_iter(), true);
        assert!(
            axis.low > 0.008 && axis.low < 0.01 && axis.high > 0.1 && axis.high < 0.13,
            "{axis:?}"
        );
    }
}
