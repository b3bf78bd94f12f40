//! The table type of the notebooks: a polars frame with a title and a format for each column.

use std::fmt;
use std::path::Path;

use polars::prelude::{AnyValue, Column as PolarsColumn, DataFrame};

use crate::base::error::{Error, Result};

/// A titled polars frame that prints aligned columns and renders as HTML.
#[derive(Debug, Clone)]
pub struct Table {
    title: String,
    note: String,
    frame: DataFrame,
    decimals: Vec<Option<usize>>,
}

/// A named column for a [`Table`].
#[derive(Debug, Clone)]
pub struct Column {
    name: String,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    Text(Vec<String>),
    Int(Vec<i64>),
    Float(usize, Vec<Option<f64>>),
}

impl Column {
    /// Makes a column of text.
    pub fn text(name: impl Into<String>, values: Vec<String>) -> Self {
        Self { name: name.into(), values: Values::Text(values) }
    }

    /// Makes a column of whole numbers.
    pub fn int(name: impl Into<String>, values: Vec<i64>) -> Self {
        Self { name: name.into(), values: Values::Int(values) }
    }

    /// Makes a column of numbers, shown with `decimals` decimals; a value that is not finite is
    /// shown as missing.
    pub fn float(name: impl Into<String>, decimals: usize, values: Vec<f64>) -> Self {
        let values = values.into_iter().map(|v| v.is_finite().then_some(v)).collect();
        Self { name: name.into(), values: Values::Float(decimals, values) }
    }
}

impl Table {
    /// Makes a table from columns of equal length.
    ///
    /// # Errors
    /// Columns of different lengths, or two columns with the same name.
    ///
    /// # Example
    /// ```
    /// use hhalign::show::table::{Column, Table};
    /// let what = Column::text("what", vec!["pairs".into()]);
    /// let t = Table::new("Counts", vec![what, Column::int("n", vec![4000])])?;
    /// assert!(t.to_string().contains("pairs  4000"));
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn new(title: impl Into<String>, columns: Vec<Column>) -> Result<Self> {
        let mut decimals = vec![];
        let mut data = vec![];
        for column in columns {
            let name = column.name.as_str().into();
            decimals.push(if let Values::Float(d, _) = column.values { Some(d) } else { None });
            data.push(match column.values {
                Values::Text(v) => PolarsColumn::new(name, v),
                Values::Int(v) => PolarsColumn::new(name, v),
                Values::Float(_, v) => PolarsColumn::new(name, v),
            });
        }
        let height = data.first().map_or(0, PolarsColumn::len);
        let frame = DataFrame::new(height, data)?;
        Ok(Self { title: title.into(), note: String::new(), frame, decimals })
    }

    /// Adds a line of explanation under the table.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Returns the polars frame.
    pub fn frame(&self) -> &DataFrame {
        &self.frame
    }

    /// Returns the number of rows.
    pub fn n_rows(&self) -> usize {
        self.frame.height()
    }

    /// Returns the first `n` rows as a table.
    #[must_use]
    pub fn head(&self, n: usize) -> Self {
        Self { frame: self.frame.head(Some(n)), ..self.clone() }
    }

    /// Returns every cell as it is shown, row by row.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let columns = self.frame.columns();
        (0..self.frame.height())
            .map(|row| {
                columns
                    .iter()
                    .zip(&self.decimals)
                    .map(|(c, d)| format_value(&c.get(row).unwrap_or(AnyValue::Null), *d))
                    .collect()
            })
            .collect()
    }

    /// Returns the names of the columns.
    pub fn names(&self) -> Vec<String> {
        self.frame.get_column_names().iter().map(|n| n.to_string()).collect()
    }

    fn is_number(&self, column: usize) -> bool {
        self.frame.columns()[column].dtype().is_numeric()
    }

    /// Writes the table as CSV, with full precision.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        use polars::prelude::{CsvWriter, SerWriter};
        let mut bytes = vec![];
        CsvWriter::new(&mut bytes).finish(&mut self.frame.clone())?;
        crate::base::files::write_atomic(path.as_ref(), &bytes)
    }

    /// Returns one value by column name and row.
    ///
    /// # Errors
    /// No such column or row.
    pub fn value(&self, column: &str, row: usize) -> Result<String> {
        let found = self.names().iter().position(|n| n == column);
        let cell = found.and_then(|c| self.rows().get(row).and_then(|r| r.get(c).cloned()));
        cell.ok_or_else(|| {
            Error::new(
                "no such cell",
                format!("column {column:?}, row {row}"),
                format!(
                    "columns are {:?}, rows 0 to {}",
                    self.names(),
                    self.n_rows().saturating_sub(1)
                ),
            )
        })
    }

    /// Renders the table as an HTML fragment: numbers aligned to the right, texts to the left,
    /// colours of the notebook's theme.
    pub fn html(&self) -> String {
        let alignment = |c: usize| if self.is_number(c) { "right" } else { "left" };
        let cell = "padding:3px 12px;white-space:pre-wrap;max-width:44em;vertical-align:top";
        let mut html = String::from(
            "<div style=\"overflow-x:auto;margin:6px 0\">\
             <table style=\"border-collapse:collapse;font-variant-numeric:tabular-nums\">",
        );
        html += &format!(
            "<caption style=\"text-align:left;font-weight:600;padding:2px 12px 6px;\
             caption-side:top;color:inherit;white-space:nowrap\">{}</caption><thead><tr>",
            escape(&self.title)
        );
        for (c, name) in self.names().iter().enumerate() {
            html += &format!(
                "<th style=\"text-align:{};{cell};border-bottom:1px solid #888\">{}</th>",
                alignment(c),
                escape(name)
            );
        }
        html += "</tr></thead><tbody>";
        for row in self.rows() {
            html += "<tr>";
            for (c, value) in row.iter().enumerate() {
                html += &format!(
                    "<td style=\"text-align:{};{cell}\">{}</td>",
                    alignment(c),
                    escape(&without_breaks(value))
                );
            }
            html += "</tr>";
        }
        html += "</tbody></table>";
        if !self.note.is_empty() {
            html += &format!(
                "<div style=\"padding:4px 12px;opacity:.8;max-width:60em\">{}</div>",
                escape(&self.note)
            );
        }
        html + "</div>"
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names();
        let rows = self.rows();
        let width = |c: usize| {
            rows.iter()
                .map(|r| r[c].chars().count())
                .chain([names[c].chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..names.len()).map(width).collect();
        writeln!(f, "{}", self.title)?;
        let mut line = |cells: &[String]| {
            let mut text = String::new();
            for (c, cell) in cells.iter().enumerate() {
                let gap = " ".repeat(widths[c] - cell.chars().count());
                text += &if self.is_number(c) {
                    format!("{gap}{cell}  ")
                } else {
                    format!("{cell}{gap}  ")
                };
            }
            writeln!(f, "{}", text.trim_end())
        };
        line(&names)?;
        rows.iter().try_for_each(|row| line(row))?;
        if self.note.is_empty() { Ok(()) } else { writeln!(f, "{}", self.note) }
    }
}

fn format_value(value: &AnyValue<'_>, decimals: Option<usize>) -> String {
    match value {
        AnyValue::Null => "–".into(),
        AnyValue::String(s) => (*s).into(),
        AnyValue::StringOwned(s) => s.to_string(),
        AnyValue::Int64(i) => grouped(*i),
        AnyValue::Float64(x) => {
            let text = format!("{x:.*}", decimals.unwrap_or(4));
            // A rounded -0.0004 is shown as zero without a sign.
            if text.trim_start_matches('-').trim_matches(['0', '.']).is_empty() {
                text.replace('-', "")
            } else {
                text
            }
        }
        other => other.to_string(),
    }
}

/// The maximum length of a text that is kept on one line, in characters.
const NO_WRAP_CHARS: usize = 12;

/// Returns the text with no-break spaces in intervals such as `[0.60, 0.84]` and in short texts.
fn without_breaks(text: &str) -> String {
    let (whole, mut inside) = (text.chars().count() <= NO_WRAP_CHARS, false);
    let next = text.chars().skip(1).chain([' ']);
    let kept = text.chars().zip(next).map(|(c, next)| {
        inside = c == '[' && (next.is_ascii_digit() || next == '-') || inside && c != ']';
        if c == ' ' && (inside || whole) { '\u{a0}' } else { c }
    });
    kept.collect()
}

/// Formats a whole number with thousands separators: `12,345`; numbers of four digits have none.
///
/// # Example
/// ```
/// use hhalign::show::table::grouped;
/// assert_eq!([grouped(9999), grouped(12345)], ["9999", "12,345"]);
/// assert_eq!(grouped(-1234567), "-1,234,567");
/// ```
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    if digits.len() < 5 {
        return number.to_string();
    }
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    format!("{}{}", if number < 0 { "-" } else { "" }, groups.join(","))
}

/// Escapes text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_and_short_cells_are_not_broken() {
        assert_eq!(
            without_breaks("0.740 [-0.604, 0.841], n = 50"),
            "0.740 [-0.604,\u{a0}0.841], n = 50"
        );
        assert_eq!(without_breaks("< 0.0001"), "<\u{a0}0.0001");
        assert_eq!(
            without_breaks("a text [with a remark, and more"),
            "a text [with a remark, and more"
        );
    }
}
