//! `model_comparison.csv`: the rows of a comparison with full precision.

use crate::base::error::Result;
use crate::eval::comparison::{Comparison, MetricRow};
use crate::show::table::{Column, Table};
use crate::stats::Estimate;

/// Returns a table with one row for each metric, both models side by side.
///
/// # Errors
/// The table library fails.
pub(super) fn table(comparison: &Comparison) -> Result<Table> {
    let rows = comparison.rows();
    let text = |f: &dyn Fn(&MetricRow) -> String| rows.iter().map(f).collect::<Vec<_>>();
    let number = |name: &str, f: &dyn Fn(&MetricRow) -> Option<f64>| {
        Column::float(name, 4, rows.iter().map(|r| f(r).unwrap_or(f64::NAN)).collect())
    };
    let interval = |name: &str, of: &dyn Fn(&MetricRow) -> Option<Estimate>| {
        let part = |end: &str, part: fn(Estimate) -> f64| {
            number(&format!("{name}{end}"), &|row| of(row).map(part))
        };
        [part("", |e| e.value), part("_low", |e| e.low), part("_high", |e| e.high)]
    };
    let [first, second] = comparison.provenance().models.clone().map(|m| m.name.to_lowercase());
    let mut columns = vec![
        Column::text("metric", text(&|r| r.metric.clone())),
        Column::text("better", text(&|r| format!("{:?}", r.better).to_lowercase())),
    ];
    columns.extend(interval(&first, &|r| r.first.clone()));
    columns.extend(interval(&second, &|r| Some(r.second.clone())));
    columns.push(Column::int("n", rows.iter().map(|r| r.second.n as i64).collect()));
    columns.push(Column::text("interval", text(&|r| r.second.method.to_string())));
    columns.extend(interval("difference", &|r| Some(r.difference.estimate.clone())));
    columns.push(number("p", &|r| r.difference.p_value));
    let corrected = comparison.corrected().into_iter().map(|p| p.unwrap_or(f64::NAN));
    columns.push(Column::float("p_corrected", 6, corrected.collect()));
    let verdicts = comparison.verdicts();
    columns.push(Column::text("verdict", verdicts.iter().map(|v| v.words().into()).collect()));
    Table::new("", columns)
}
