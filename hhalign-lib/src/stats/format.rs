//! How numbers are written: the one place that tables, reports and the command line share.

use super::Method;
use crate::show::table::grouped;

/// How a value and its 95% interval are written.
///
/// # Example
/// ```
/// use hhalign::stats::format::Format;
/// use hhalign::stats::wilson;
/// let share = wilson(75.0, 100);
/// assert_eq!(share.format(&Format::TABLE), "0.750 [0.657, 0.825]");
/// assert_eq!(share.format(&Format::PERCENT), "75.0% [65.7, 82.5]");
/// assert_eq!(wilson(0.0, 0).format(&Format::TABLE), "not enough data, n = 0");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The unit.
    pub unit: Unit,
    /// The number of decimals.
    pub decimals: Decimals,
    /// Whether a positive value has a plus sign, as differences have.
    pub signed: bool,
    /// Whether minus signs and spaces are typographic (U+2212, U+00A0), as on pages.
    pub typographic: bool,
}

/// The unit of a written number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// None.
    Plain,
    /// Percent, of a share: `95.6% [93.3, 97.0]`.
    Percent,
    /// Percentage points, of a difference of shares: `7.6 points [4.9, 10.2]`.
    Points,
    /// A ratio: `× 1.086 [1.077, 1.099]`.
    Ratio,
}

/// The number of decimals of a value and its interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decimals {
    /// A fixed number.
    Fixed(usize),
    /// Three for values below 10, two below 100, one above, so that columns line up.
    BySize,
    /// As many as show two digits of the interval's width.
    ByWidth,
    /// A number given by another value of the same row; a value with a much narrower interval still
    /// shows all but one of the digits that [`Decimals::ByWidth`] gives it.
    Aligned(usize),
}

impl Format {
    /// Cells of tables, and lines of text.
    pub const TABLE: Self =
        Self { unit: Unit::Plain, decimals: Decimals::BySize, signed: false, typographic: false };

    /// Shares, in percent with one decimal.
    pub const PERCENT: Self =
        Self { unit: Unit::Percent, decimals: Decimals::Fixed(1), ..Self::TABLE };

    /// Numbers on a page, with the digits that their interval warrants.
    pub const PAGE: Self = Self { decimals: Decimals::ByWidth, typographic: true, ..Self::TABLE };

    /// Returns the same format with a plus sign before positive values.
    #[must_use]
    pub const fn signed(self) -> Self {
        Self { signed: true, ..self }
    }

    /// Returns the same format with another unit.
    #[must_use]
    pub const fn unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    /// Returns the same format with other decimals.
    #[must_use]
    pub const fn decimals(self, decimals: Decimals) -> Self {
        Self { decimals, ..self }
    }

    /// Writes a value with its interval, `[value, low, high]`.
    pub fn interval(&self, at: [f64; 3]) -> String {
        format!("{} {}", self.value(at), self.bounds(at))
    }

    /// Writes the value of `[value, low, high]` alone.
    pub fn value(&self, at: [f64; 3]) -> String {
        let value = self.number(self.scaled(at[0]), self.count_decimals(at));
        let sign = if self.signed && at[0] > 0.0 { "+" } else { "" };
        let (before, after) = match self.unit {
            Unit::Plain => ("", ""),
            Unit::Percent => ("", "%"),
            Unit::Points => ("", " points"),
            Unit::Ratio if self.typographic => ("×\u{a0}", ""),
            Unit::Ratio => ("× ", ""),
        };
        format!("{before}{sign}{value}{after}")
    }

    /// Writes the interval of `[value, low, high]` alone.
    pub fn bounds(&self, at: [f64; 3]) -> String {
        let decimals = self.count_decimals(at);
        let [low, high] = [at[1], at[2]].map(|x| self.number(self.scaled(x), decimals));
        format!("[{low}, {high}]")
    }

    /// Writes an estimate: the value with its interval, the value `by definition`, or why there is
    /// none.
    pub fn estimate(&self, at: Option<[f64; 3]>, n: usize, method: Method) -> String {
        match at {
            None => self.unknown(n, method),
            Some(at) if method == Method::ByDefinition => {
                format!("{} by definition", self.value(at))
            }
            Some(at) => self.interval(at),
        }
    }

    /// Writes why there is no value: `not enough data, n = 3`.
    pub fn unknown(&self, n: usize, method: Method) -> String {
        let why = match method {
            Method::TooUneven => "cases too uneven for an interval",
            _ => "not enough data",
        };
        format!("{why}, {}", self.cases(n))
    }

    /// Writes a number of cases: `n = 12,000`.
    pub fn cases(&self, n: usize) -> String {
        let space = if self.typographic { '\u{a0}' } else { ' ' };
        format!("n{space}={space}{}", grouped(n as i64))
    }

    /// Writes a number with some decimals, and without a sign if it rounds to zero.
    pub fn number(&self, x: f64, decimals: usize) -> String {
        let text = format!("{x:.decimals$}");
        let is_zero = !text.contains(|c: char| c.is_alphanumeric() && c != '0');
        match text.strip_prefix('-') {
            Some(digits) if is_zero => digits.into(),
            Some(digits) if self.typographic => format!("−{digits}"),
            _ => text,
        }
    }

    fn scaled(&self, x: f64) -> f64 {
        if matches!(self.unit, Unit::Percent | Unit::Points) { 100.0 * x } else { x }
    }

    fn count_decimals(&self, at: [f64; 3]) -> usize {
        match self.decimals {
            Decimals::Fixed(n) => n,
            Decimals::BySize if self.scaled(at[0]).abs() >= 100.0 => 1,
            Decimals::BySize if self.scaled(at[0]).abs() >= 10.0 => 2,
            Decimals::BySize => 3,
            Decimals::ByWidth => decimals_by_width(at.map(|x| self.scaled(x))),
            Decimals::Aligned(n) => {
                n.max(decimals_by_width(at.map(|x| self.scaled(x))).saturating_sub(1))
            }
        }
    }
}

/// The decimals that show two digits of the width of the interval `[value, low, high]`.
pub(crate) fn decimals_by_width([_, low, high]: [f64; 3]) -> usize {
    let width = high - low;
    if width > 0.0 { (1.0 - width.log10().floor()).clamp(0.0, 6.0) as usize } else { 3 }
}

/// Writes a p-value with four decimals, or as less than the smallest such number.
///
/// # Example
/// ```
/// use hhalign::stats::format::p_value;
/// assert_eq!([p_value(0.03125), p_value(1e-7)], ["0.0312", "< 0.0001"]);
/// ```
pub fn p_value(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_fewer_decimals_of_larger_numbers_and_no_signed_zero() {
        let table = Format::TABLE;
        assert_eq!(table.interval([0.912, 0.87, 0.94]), "0.912 [0.870, 0.940]");
        assert_eq!(table.interval([12.345, 9.5, 15.0]), "12.35 [9.50, 15.00]");
        assert_eq!(table.interval([233.75, 162.1, 333.96]), "233.8 [162.1, 334.0]");
        assert_eq!(table.interval([-0.0001, -0.0004, 0.2]), "0.000 [0.000, 0.200]");
        assert_eq!(table.interval([-12.0, -13.0, -11.0]), "-12.00 [-13.00, -11.00]");
        assert_eq!(table.signed().value([0.5, 0.4, 0.6]), "+0.500");
    }

    #[test]
    fn a_page_shows_the_digits_that_the_interval_warrants() {
        let page = Format::PAGE;
        assert_eq!(page.interval([0.000_266, 0.000_221, 0.000_334]), "0.00027 [0.00022, 0.00033]");
        assert_eq!(page.interval([233.75, 162.1, 333.96]), "234 [162, 334]");
        assert_eq!(page.interval([-0.0059, -0.0114, -0.0008]), "−0.006 [−0.011, −0.001]");
        assert_eq!(page.number(-0.0001, 2), "0.00");
        // In one row with a value that is known less well.
        for (given, text) in [(2, "1.74 [1.71, 1.78]"), (0, "1.74 [1.71, 1.78]")] {
            let aligned = page.decimals(Decimals::Aligned(given));
            assert_eq!(aligned.interval([1.741, 1.706, 1.781]), text);
        }
    }

    #[test]
    fn units_and_signs_stand_at_the_value() {
        let points = Format::PERCENT.unit(Unit::Points).signed();
        assert_eq!(points.interval([0.076, 0.049, 0.1024]), "+7.6 points [4.9, 10.2]");
        assert_eq!(points.interval([-0.076, -0.1024, -0.049]), "-7.6 points [-10.2, -4.9]");
        let ratio = Format::PAGE.unit(Unit::Ratio);
        assert_eq!(ratio.interval([1.086, 1.077, 1.099]), "×\u{a0}1.086 [1.077, 1.099]");
        assert_eq!(Format::PERCENT.value([0.956, 0.933, 0.97]), "95.6%");
    }

    #[test]
    fn what_was_not_measured_says_why() {
        let table = Format::TABLE;
        assert_eq!(table.estimate(None, 3, Method::NotEnoughData), "not enough data, n = 3");
        assert_eq!(
            table.estimate(None, 12_000, Method::TooUneven),
            "cases too uneven for an interval, n = 12,000"
        );
        assert_eq!(
            table.estimate(Some([-0.0, 0.0, 0.0]), 5, Method::ByDefinition),
            "0.000 by definition"
        );
        assert_eq!(Format::PAGE.cases(500), "n\u{a0}=\u{a0}500");
    }
}
