//! The report of a run: an HTML file generated from its results folder, in which no number is typed
//! in.
//!
//! `read` reads the summary, `findings` writes the abstract, `tables`, `figures` and `prose` write
//! the other parts, and `page` joins them; `side_by_side` compares two folders.

mod figures;
mod findings;
mod page;
mod prose;
mod read;
mod side_by_side;
mod tables;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::error::Result;
use crate::base::files::write_atomic;
use crate::show::table::escape;
use page::Page;
use read::Results;
pub use side_by_side::compare;

/// Returns the report of a results folder as a self-contained HTML page.
///
/// # Errors
/// No summary in the folder, one that is broken, or one of another schema.
///
/// # Example
/// ```
/// let error = hhalign::report::report("no such folder").unwrap_err();
/// assert!(error.fix().contains("./scripts/run"));
/// ```
pub fn report(folder: impl AsRef<Path>) -> Result<String> {
    let results = Results::read(folder.as_ref())?;
    let [first, second] = results.names().map(escape);
    let p = &results.provenance;
    let title = format!(
        "{} against {}: preference alignment of a small GPT",
        results.names()[1],
        results.names()[0]
    );
    let mut page = Page::new(&title);
    page.head(&format!(
        "<p class=\"kicker\">Report of a run</p><h1>Preference alignment of a small GPT</h1><p \
         class=\"subtitle\">{second} against {first} on “{}”{}, seed\u{a0}{}</p><section \
         class=\"abstract\" aria-label=\"Abstract\"><h2>Abstract</h2><p>{}</p></section>{}",
        escape(&p.data),
        p.beta.map_or(String::new(), |beta| format!(", β\u{a0}=\u{a0}{beta}")),
        p.seed,
        findings::summary(&results),
        findings::strip(&results)
    ));
    page.section("Set-up");
    page.table("pairs", &tables::setup(&results), "Data, model and training.");
    if let Some(curves) = figures::curves(&results)? {
        page.section("Training");
        page.figure(&curves);
    }
    page.section("Results");
    if let Some(forest) = figures::forest(&results)? {
        page.figure(&forest);
    }
    page.table("results", &tables::results(&results), &tables::results_caption(&results));
    if let Some(toxicity) = figures::toxicity(&results)? {
        page.section("Toxicity");
        page.figure(&toxicity);
    }
    if let Some(frontier) = figures::reward_frontier(&results)? {
        page.section("Reward and distance");
        page.figure(&frontier);
    }
    if !results.samples.is_empty() {
        page.section("Replies side by side");
        page.html(
            "<p class=\"lead\">Replies that the run kept, chosen by their position in the list of \
             prompts, not by their content.</p>",
        );
        page.html(&prose::samples(&results));
    }
    page.section("Instruments");
    page.table(
        "instruments",
        &tables::instruments(&results),
        "The instruments of measurement, and what they cannot say.",
    );
    if let Some(judges) = tables::judges(&results) {
        page.table(
            "judges",
            &judges,
            "How often each judge agrees with preferences that it has not seen; chance is 50%.",
        );
    }
    page.section("Limits");
    page.html(&prose::limits(&results));
    page.section("How to reproduce");
    page.html(&prose::reproduce(&results));
    Ok(page.finish(&tables::provenance(&results)))
}

/// A report on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: usize,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only the name: the output of a notebook must not show paths of a machine.
        let name = self.path.file_name().unwrap_or_default().display();
        write!(f, "{name}, {} kB, in the results folder", self.bytes.div_ceil(1000))
    }
}

/// Writes the report of a results folder into it, as `report.html`.
///
/// # Errors
/// As [`report`], or the file cannot be written.
///
/// # Example
/// ```no_run
/// println!("{}", hhalign::report::write_report("results")?);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn write_report(folder: impl AsRef<Path>) -> Result<Written> {
    let html = report(folder.as_ref())?;
    let path = folder.as_ref().join("report.html");
    write_atomic(&path, html.as_bytes())?;
    Ok(Written { path, bytes: html.len() })
}
