//! Writes the report of a results folder, or of two side by side: what `scripts/report` runs.
//!
//! usage: report RESULTS FILE [OTHER]

use hhalign::error::{Error, Result};
use hhalign::files::write_atomic;
use hhalign::report::{compare, report};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (file, html) = match arguments.as_slice() {
        [results, file] => (file, report(results)?),
        [results, file, other] => (file, compare(results, other)?),
        _ => {
            return Err(Error::new(
                "two or three arguments are needed",
                format!("{}", arguments.len()),
                "report RESULTS FILE [OTHER]",
            ));
        }
    };
    write_atomic(file.as_ref(), html.as_bytes())
}
