//! The display of our types in a notebook cell; the only module that knows evcxr.
//!
//! evcxr shows one display for each cell and calls `evcxr_display` of types that have it, so every
//! type that may end a cell has it here. This file has the tables of all types, `recipes.rs` those
//! of recipes, and `views.rs` texts side by side and coloured tokens.

mod recipes;
mod views;

use std::fmt::Display;

use crate::base::error::Result;
use crate::data::audit::Audit;
use crate::data::batch::TokenizedPairs;
use crate::data::tokenize::Tokenizer;
use crate::data::{Dataset, Split};
use crate::eval::bench::{EvalBench, EvalSettings};
use crate::eval::comparison::{Comparison, metrics_table};
use crate::eval::evaluation::Evaluation;
use crate::eval::measure::Measure;
use crate::eval::metrics::perplexity::Perplexity;
use crate::eval::metrics::quality::Quality;
use crate::eval::metrics::refusal::Refusal;
use crate::eval::metrics::toxicity::ToxicityReport;
use crate::eval::preferences::agreement::Agreement;
use crate::eval::preferences::judge::HeadToHead;
use crate::eval::preferences::winrate::WinRate;
use crate::infer::score::ReferenceLogps;
use crate::live::{Phase, Run, Sweep};
use crate::loss::{PairLogps, Rewards, Values};
use crate::model::{Gpt, GptConfig};
use crate::notebook::lesson;
use crate::notebook::options::{RealDataRecipes, RunOptions};
use crate::report::Written;
use crate::show::plot::Figure;
use crate::show::table::{Column, Table};
use crate::show::view::View;
use crate::stats::{Estimate, McNemar};
use crate::train::reward::RewardConfig;
use crate::train::{Dpo, History, Outcome, Sft};

/// Prints a display block: HTML for notebooks, plain text for other outputs.
fn show(html: &str, text: &str) {
    println!("EVCXR_BEGIN_CONTENT text/html\n{html}\nEVCXR_END_CONTENT");
    println!("EVCXR_BEGIN_CONTENT text/plain\n{}\nEVCXR_END_CONTENT", text.trim_end());
}

/// Shows a table, or the error.
fn show_table(table: Result<Table>) {
    match table {
        Ok(table) => show(&table.html(), &table.to_string()),
        Err(error) => show_line(&error),
    }
}

fn show_line(line: &dyn Display) {
    let text = line.to_string();
    show(
        &format!("<div style=\"white-space:pre-wrap\">{}</div>", crate::show::table::escape(&text)),
        &text,
    );
}

macro_rules! display_as_table {
    ($($type:ty: |$it:ident| $table:expr),* $(,)?) => {$(
        impl $type {
            /// Shows the value in a notebook cell; evcxr calls this method.
            pub fn evcxr_display(&self) {
                let $it = self;
                show_table($table);
            }
        }
    )*};
}

display_as_table! {
    Table: |t| Ok(t.clone()),
    Audit: |a| a.table(),
    Dataset: |d| d.audit.table(),
    Split: |s| s.table(),
    TokenizedPairs: |t| t.table(),
    RunOptions: |o| o.table(),
    History: |h| h.table(),
    Comparison: |c| c.table(),
    EvalBench: |b| b.table(),
    EvalSettings: |s| recipes::evaluation(s),
    Evaluation: |e| metrics_table(e),
    Sft: |s| recipes::sft(s),
    Dpo: |d| recipes::dpo(d),
    RewardConfig: |r| recipes::reward(r),
    RealDataRecipes: |r| recipes::real_data(r),
    Sweep: |s| s.table(),
    Agreement: |a| a.table(),
    HeadToHead: |h| h.table(),
    Measure: |m| Table::new("", vec![
        Column::text("metric", vec![m.name().into()]),
        Column::text("value [95% interval]", vec![m.estimate().text()]),
        Column::text("interval", vec![m.estimate().method.to_string()]),
        Column::text("by", vec![m.instrument().text().unwrap_or_default()]),
    ]),
    Refusal: |r| metrics_table(r),
    Perplexity: |p| metrics_table(p),
    Quality: |q| metrics_table(q),
    ToxicityReport: |t| metrics_table(t),
    lesson::Check: |c| c.table(),
    WinRate: |w| Table::new(
        format!("Preferences for {}", w.model),
        vec![
            Column::int("wins", vec![w.wins as i64]),
            Column::int("losses", vec![w.losses as i64]),
            Column::int("ties", vec![w.ties as i64]),
            Column::int("not judged", vec![w.open as i64]),
            Column::int("annotators", vec![w.annotators as i64]),
            Column::text("win rate [95% interval]", vec![w.rate.estimate().text()]),
        ],
    ),
    McNemar: |m| m.table("first", "second"),
    GptConfig: |c| model_table(c),
    Gpt: |m| model_table(&m.config),
    PairLogps: |p| pair_table(p),
    Rewards: |r| Table::new("Implicit rewards", vec![
        Column::float("chosen", 3, r.chosen.clone()),
        Column::float("rejected", 3, r.rejected.clone()),
        Column::float("margin", 3, r.margins()),
    ]),
    Values: |v| v.to_vec().and_then(|numbers| {
        Table::new("Values", vec![Column::float("value", 4, numbers)])
    }),
    ReferenceLogps: |r| Table::new("Reference", vec![
        Column::int("pairs scored", vec![r.chosen.len() as i64]),
        Column::text("from", vec![if r.from_cache { "cache".into() } else { "the model".into() }]),
    ]),
    Outcome: |r| Table::new("Run", vec![
        Column::int("steps", vec![r.steps as i64]),
        Column::text("stopped early", vec![if r.stopped_early { "yes" } else { "no" }.into()]),
        Column::int("best step", vec![r.best.step as i64]),
        Column::float("best held-out loss", 4, vec![r.best.loss]),
        Column::float("seconds", 1, vec![r.seconds]),
        Column::float("tokens per second", 0, vec![r.tokens / r.seconds.max(1e-9)]),
    ]),
}

impl Run {
    /// Shows the value in a notebook cell; evcxr calls this method.
    pub fn evcxr_display(&self) {
        match self.card() {
            Ok(card) => card.evcxr_display(),
            Err(error) => show_line(&error),
        }
    }
}

impl Phase {
    /// Shows the value in a notebook cell; evcxr calls this method.
    pub fn evcxr_display(&self) {
        show_line(self);
    }
}

impl Figure {
    /// Shows the value in a notebook cell; evcxr calls this method.
    pub fn evcxr_display(&self) {
        match self.html() {
            Ok(html) => show(&html, "a figure"),
            Err(error) => show_line(&error),
        }
    }
}

impl Estimate {
    /// Shows the value in a notebook cell; evcxr calls this method.
    pub fn evcxr_display(&self) {
        show_line(&self.text());
    }
}

impl Written {
    /// Shows the value in a notebook cell; evcxr calls this method.
    pub fn evcxr_display(&self) {
        show_line(self);
    }
}

impl Tokenizer {
    /// Shows the value in a notebook cell; evcxr calls this method.
    pub fn evcxr_display(&self) {
        show_line(&format!(
            "Byte-level BPE with {} ids; end of text is id {}.",
            self.vocab_size(),
            self.eos_id()
        ));
    }
}

impl View {
    /// Shows the value in a notebook cell; evcxr calls this method.
    pub fn evcxr_display(&self) {
        show(self.html(), self.text());
    }
}

fn model_table(c: &GptConfig) -> Result<Table> {
    let embeddings = (c.vocab_size + c.block_size) * c.n_embd;
    let rows = [
        ("layers", c.n_layer),
        ("heads", c.n_head),
        ("width", c.n_embd),
        ("block (tokens)", c.block_size),
        ("vocabulary", c.vocab_size),
        ("parameters in blocks", c.n_parameters() - embeddings),
        ("parameters in embeddings", embeddings),
        ("parameters in all", c.n_parameters()),
    ];
    Table::new(
        "GPT",
        vec![
            Column::text("size", rows.iter().map(|r| r.0.into()).collect()),
            Column::int("value", rows.iter().map(|r| r.1 as i64).collect()),
        ],
    )
}

fn pair_table(p: &PairLogps) -> Result<Table> {
    let int = |v: &[usize]| v.iter().map(|&n| n as i64).collect();
    Table::new(
        "Summed log-probabilities of both replies",
        vec![
            Column::float("log π(chosen)", 2, p.policy_chosen().to_vec()?),
            Column::float("log ref(chosen)", 2, p.ref_chosen().to_vec()?),
            Column::float("log π(rejected)", 2, p.policy_rejected().to_vec()?),
            Column::float("log ref(rejected)", 2, p.ref_rejected().to_vec()?),
            Column::float("D", 3, p.margins().to_vec()?),
            Column::int("tokens chosen", int(p.chosen_tokens())),
            Column::int("tokens rejected", int(p.rejected_tokens())),
        ],
    )
}
