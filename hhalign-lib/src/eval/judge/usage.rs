//! What a judging cost.

use serde::Serialize;

use crate::error::Result;
use crate::table::{Column, Table};

/// Dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Of the prompt.
    pub input: f64,
    /// Of the answer.
    pub output: f64,
}

/// What was asked and paid since a judge was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Requests sent, those that failed and were repeated among them.
    pub requests: usize,
    /// Requests that repeated a failed one.
    pub retries: usize,
    /// Questions that were answered without a request.
    pub from_cache: usize,
    /// Questions whose answer was no verdict; they count as not judged.
    pub unreadable: usize,
    /// Tokens of prompts, as the server counts them.
    pub prompt_tokens: u64,
    /// Tokens of answers, as the server counts them.
    pub completion_tokens: u64,
    /// Answers for which the server named no number of tokens.
    pub uncounted: usize,
    /// What the counted tokens cost, where prices are known.
    pub dollars: Option<f64>,
}

impl Usage {
    pub(super) fn add_tokens(&mut self, prompt: Option<u64>, completion: Option<u64>, price: Option<Price>) {
        let (Some(prompt), Some(completion)) = (prompt, completion) else {
            self.uncounted += 1;
            return;
        };
        self.prompt_tokens += prompt;
        self.completion_tokens += completion;
        self.dollars = price
            .map(|p| (self.prompt_tokens as f64 * p.input + self.completion_tokens as f64 * p.output) / 1_000_000.0);
    }

    /// The counts, one in a row.
    ///
    /// # Errors
    /// A failure of the table library.
    ///
    /// # Example
    /// ```
    /// use hhalign::eval::judge::chat::Usage;
    /// let usage = Usage { requests: 12, dollars: Some(0.0314), ..Usage::default() };
    /// assert_eq!(usage.table()?.value("value", 0)?, "12");
    /// assert!(usage.table()?.to_string().contains("0.0314"));
    /// # Ok::<(), hhalign::error::Error>(())
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
        let (names, values) = rows.into_iter().map(|(name, value)| (name.to_string(), value)).unzip();
        let table =
            Table::new("What the judge was asked", vec![Column::text("what", names), Column::text("value", values)])?;
        Ok(match self.uncounted {
            0 => table,
            n => table
                .with_note(format!("{n} answers came without a number of tokens, so tokens and dollars are too low.")),
        })
    }
}
