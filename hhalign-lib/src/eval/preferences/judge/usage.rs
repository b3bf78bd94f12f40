//! The cost of judging.

use serde::Serialize;

use crate::base::error::Result;
use crate::show::table::{Column, Table};

/// Dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// For the prompt.
    pub input: f64,
    /// For the answer.
    pub output: f64,
}

/// Requests, tokens and cost since a judge was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Requests sent, including those that failed and were repeated.
    pub requests: usize,
    /// Requests that repeated a failed one.
    pub retries: usize,
    /// Questions answered from the cache.
    pub from_cache: usize,
    /// Questions whose answer has no verdict; they count as not judged.
    pub unreadable: usize,
    /// Tokens of prompts, as the server counts them.
    pub prompt_tokens: u64,
    /// Tokens of answers, as the server counts them.
    pub completion_tokens: u64,
    /// Answers without a number of tokens.
    pub uncounted: usize,
    /// The cost of the counted tokens, if prices are known.
    pub dollars: Option<f64>,
}

impl Usage {
    pub(super) fn add_tokens(
        &mut self,
        prompt: Option<u64>,
        completion: Option<u64>,
        price: Option<Price>,
    ) {
        let (Some(prompt), Some(completion)) = (prompt, completion) else {
            self.uncounted += 1;
            return;
        };
        self.prompt_tokens = self.prompt_tokens.saturating_add(prompt);
        self.completion_tokens = self.completion_tokens.saturating_add(completion);
        self.dollars = price.map(|p| {
            (self.prompt_tokens as f64 * p.input + self.completion_tokens as f64 * p.output)
                / 1_000_000.0
        });
    }

    /// Returns the counts as a table.
    ///
    /// # Errors
    /// The table library fails.
    ///
    /// # Example
    /// ```
    /// use hhalign::eval::preferences::judge::chat::Usage;
    /// let usage = Usage { requests: 12, dollars: Some(0.0314), ..Usage::default() };
    /// assert_eq!(usage.table()?.value("value", 0)?, "12");
    /// assert!(usage.table()?.to_string().contains("0.0314"));
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn table(&self) -> Result<Table> {
        let mut rows = vec![
            ("requests sent", self.requests.to_string()),
            ("of them repeated", self.retries.to_string()),
            ("answered from the cache", self.from_cache.to_string()),
            ("unreadable answers", self.unreadable.to_string()),
            ("prompt tokens", self.prompt_tokens.to_string()),
            ("answer tokens", self.completion_tokens.to_string()),
        ];
        rows.push(("dollars", self.dollars.map_or("no price given".into(), |d| format!("{d:.4}"))));
        let (names, values) =
            rows.into_iter().map(|(name, value)| (name.to_string(), value)).unzip();
        let table = Table::new(
            "Use of the judge",
            vec![Column::text("what", names), Column::text("value", values)],
        )?;
        Ok(match self.uncounted {
            0 => table,
            n => table.with_note(format!(
                "{n} answers have no number of tokens, so tokens and dollars are too low."
            )),
        })
    }
}
