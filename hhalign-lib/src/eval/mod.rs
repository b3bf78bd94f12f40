//! Five metrics, each with its number of cases and an interval: perplexity, toxicity, refusal,
//! preferences, quality.
//!
//! A [`measure::Measure`] holds a metric case by case, a [`comparison::Comparison`] compares two
//! models on the same cases, and a [`summary::Summary`] writes it with all that it depends on. A
//! [`bench::EvalBench`] does all of this at once.

pub mod bench;
pub mod comparison;
pub mod evaluation;
pub mod figures;
pub mod frontier;
mod instrument;
pub mod measure;
pub mod metrics;
pub mod preferences;
mod provenance;
pub mod summary;
mod verdict;

moved! {
    fluency to "moved to hhalign::eval::metrics::fluency" {
        pub use crate::eval::metrics::fluency::*;
    }
    perplexity to "moved to hhalign::eval::metrics::perplexity" {
        pub use crate::eval::metrics::perplexity::*;
    }
    quality to "moved to hhalign::eval::metrics::quality" {
        pub use crate::eval::metrics::quality::*;
    }
    ranking to "moved to hhalign::eval::metrics::ranking" {
        pub use crate::eval::metrics::ranking::*;
    }
    refusal to "moved to hhalign::eval::metrics::refusal" {
        pub use crate::eval::metrics::refusal::*;
    }
    toxicity to "moved to hhalign::eval::metrics::toxicity" {
        pub use crate::eval::metrics::toxicity::*;
    }
    agreement to "moved to hhalign::eval::preferences::agreement" {
        pub use crate::eval::preferences::agreement::*;
    }
    annotation to "moved to hhalign::eval::preferences::annotation" {
        pub use crate::eval::preferences::annotation::*;
    }
    judge to "moved to hhalign::eval::preferences::judge" {
        pub use crate::eval::preferences::judge::*;
    }
    judgements to "moved to hhalign::eval::preferences::judgements" {
        pub use crate::eval::preferences::judgements::*;
    }
    winrate to "moved to hhalign::eval::preferences::winrate" {
        pub use crate::eval::preferences::winrate::*;
    }
}
