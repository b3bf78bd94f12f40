//! The exercises of the notebooks. Each check says whether an answer is right, and if not, why.
//!
//! There is one module for each notebook with exercises: [`beta`] for 02, [`pitfalls`] for 03,
//! [`losses`] for 04, [`annotation`] for 05, [`gpu`] for 06, [`evaluation`] and [`studies`] for 07.
//! The check of notebook 01 is here.

pub mod annotation;
pub mod beta;
pub mod evaluation;
pub mod gpu;
pub mod losses;
pub mod pitfalls;
pub mod studies;

use crate::base::error::Result;
use crate::show::table::{Column, Table};
use crate::stats::wilson;

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Whether the answer is right.
    pub right: bool,
    /// The reason, or a hint.
    pub because: String,
}

impl Check {
    /// Returns the check as a table of one row.
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

/// Returns the check of a right answer.
fn yes(because: impl Into<String>) -> Check {
    Check { right: true, because: because.into() }
}

/// Returns the check of a wrong answer.
fn no(because: impl Into<String>) -> Check {
    Check { right: false, because: because.into() }
}

/// Checks the number of judged pairs that a win rate of 68% needs before its 95% Wilson interval
/// lies above one half.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::check_sample_size;
/// assert!(!check_sample_size(10).right);
/// let smallest = (1..200).find(|&n| check_sample_size(n).right).unwrap();
/// assert!((25..40).contains(&smallest));
/// ```
pub fn check_sample_size(n: usize) -> Check {
    let low = |n: usize| wilson(0.68 * n as f64, n).low;
    if n == 0 {
        return no("change the 0 to a number of pairs, and run the cell again");
    }
    if low(n) <= 0.5 {
        return no(format!(
            "with n = {n} the interval begins at {:.3}, so a fair coin could do as well: more \
             pairs are needed",
            low(n)
        ));
    }
    if n > 1 && low(n - 1) > 0.5 {
        return no(format!("n = {n} is enough, but so is {}: find the smallest", n - 1));
    }
    yes(format!(
        "with n = {n} the interval begins at {:.3}; with one pair fewer it reaches one half",
        low(n)
    ))
}
