//! Exercises of the notebooks: each check says whether an answer is right, and if not, why.

pub mod annotation;
pub mod beta;
pub mod evaluation;
pub mod gpu;
pub mod losses;
pub mod pitfalls;
pub mod studies;

use crate::error::Result;
use crate::stats::wilson;
use crate::table::{Column, Table};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Whether the answer is right.
    pub right: bool,
    /// Why, or where to look.
    pub because: String,
}

impl Check {
    /// The check as a table of one row.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(&self) -> Result<Table> {
        let verdict = if self.right { "✓ right" } else { "✗ not yet" };
        let columns = vec![
            Column::text("your answer", vec![verdict.into()]),
            Column::text("because", vec![self.because.clone()]),
        ];
        Table::new("Exercise", columns)
    }
}

/// How many judged pairs does a 68% win rate need before its 95% Wilson interval lies above one half?
///
/// # Example
/// ```
/// use hhalign::lesson::check_sample_size;
/// assert!(!check_sample_size(10).right);
/// let smallest = (1..200).find(|&n| check_sample_size(n).right).unwrap();
/// assert!((25..40).contains(&smallest));
/// ```
pub fn check_sample_size(n: usize) -> Check {
    let low = |n: usize| wilson(0.68 * n as f64, n).low;
    let no = |because: String| Check { right: false, because };
    if n == 0 {
        return no("change the 0 to a number of pairs, and run the cell again".into());
    }
    if low(n) <= 0.5 {
        return no(format!(
            "with n = {n} the interval begins at {:.3}, so a coin could have done it: more pairs are needed",
            low(n)
        ));
    }
    if n > 1 && low(n - 1) > 0.5 {
        return no(format!("n = {n} is enough, but so is {}: find the smallest", n - 1));
    }
    Check {
        right: true,
        because: format!("with n = {n} the interval begins at {:.3}; with one pair fewer it reaches one half", low(n)),
    }
}
