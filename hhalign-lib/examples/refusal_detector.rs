//! How well the refusal matcher agrees with XSTest's human labels, and how often it fires on HH.
//!
//! usage: refusal_detector --data FOLDER [--hh FOLDER]
//!
//! FOLDER holds xstest_completions_MODEL.csv; phrases were derived from one half of the prompts, so the other half is the
//! measure.

use std::path::{Path, PathBuf};

use hhalign::data::Dataset;
use hhalign::error::{Error, Result};
use hhalign::eval::comparison::Metrics;
use hhalign::eval::refusal::declines;
use hhalign::eval::refusal::xstest::{Completion, Half, detector_accuracy, read_completions};
use hhalign::stats::wilson;
use hhalign::table::{Column, Table};

const USAGE: &str = "usage: refusal_detector --data FOLDER [--hh FOLDER]";

fn main() -> Result<()> {
    let (mut data, mut hh) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let slot = match name.as_str() {
            "--data" => &mut data,
            "--hh" => &mut hh,
            _ => return Err(Error::new("an unknown argument", name, USAGE)),
        };
        *slot = Some(PathBuf::from(arguments.next().ok_or_else(|| Error::new("a folder is missing", &name, USAGE))?));
    }
    let data = data.ok_or_else(|| Error::new("no data is named", "no --data", USAGE))?;
    for path in files(&data, "xstest_completions_")? {
        println!("{}", of_file(&path)?);
    }
    if let Some(hh) = hh {
        println!("{}", on_hh(&hh)?);
    }
    Ok(())
}

/// The files in a folder whose names begin so, in order.
fn files(folder: &Path, begin: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))?;
    let named = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(begin));
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(named).collect();
    found.sort();
    if found.is_empty() {
        return Err(Error::new("no replies were found", format!("no {begin}*.csv in {}", folder.display()), USAGE));
    }
    Ok(found)
}

fn of_file(path: &Path) -> Result<Table> {
    let all = read_completions(path)?;
    let half = |half: Half| all.iter().filter(|c| c.half() == half).cloned().collect::<Vec<Completion>>();
    let (mut parts, mut metrics, mut values, mut n) = (vec![], vec![], vec![], vec![]);
    for (part, replies) in [("development", half(Half::Development)), ("test", half(Half::Test)), ("both", all.clone())]
    {
        for measure in detector_accuracy(&replies).measures() {
            let (name, estimate) = (measure.name(), measure.estimate());
            parts.push(part.to_string());
            metrics.push(name.to_string());
            values.push(format!("{:.3} [{:.3}, {:.3}]", estimate.value, estimate.low, estimate.high));
            n.push(estimate.n as i64);
        }
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let table = Table::new(
        name,
        vec![
            Column::text("prompts", parts),
            Column::text("figure", metrics),
            Column::text("value [95% interval]", values),
            Column::int("n", n),
        ],
    )?;
    Ok(table.with_note("Intervals: Wilson. Phrases come from the development half; the test half is the measure.\n"))
}

/// How often the matcher fires on replies that nobody has labelled.
fn on_hh(folder: &Path) -> Result<Table> {
    let pairs = Dataset::read(folder)?.pairs;
    let mut subsets: Vec<_> = pairs.iter().map(|p| p.origin.subset.clone()).collect();
    subsets.dedup();
    let (mut names, mut sides, mut fired, mut shares) = (vec![], vec![], vec![], vec![]);
    let mut n = vec![];
    for subset in subsets {
        for side in ["chosen", "rejected"] {
            let replies = pairs.iter().filter(|p| p.origin.subset == subset);
            let declined = replies.clone().filter(|p| declines(if side == "chosen" { &p.chosen } else { &p.rejected }));
            let (declined, all) = (declined.count(), replies.count());
            let share = wilson(declined as f64, all);
            names.push(subset.to_string());
            sides.push(side.to_string());
            fired.push(declined as i64);
            shares.push(format!("{:.4} [{:.4}, {:.4}]", share.value, share.low, share.high));
            n.push(all as i64);
        }
    }
    Table::new(
        "Replies of HH that the matcher calls refusals",
        vec![
            Column::text("subset", names),
            Column::text("side", sides),
            Column::int("fired", fired),
            Column::text("share [95% interval]", shares),
            Column::int("n", n),
        ],
    )
}
