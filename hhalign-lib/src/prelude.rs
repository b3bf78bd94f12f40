//! What a notebook cell may name: `use hhalign::prelude::*;`.

pub use crate::batch::{Batch, Side, TokenizedPairs};
pub use crate::checkpoint::{load_model, save_model};
pub use crate::data::cues::cue_table;
pub use crate::data::{Dataset, Pair, PromptKind, Split};
pub use crate::device::Device;
pub use crate::error::{Error, Result};
pub use crate::eval::agreement::{Agreement, cohen_kappa, krippendorff_alpha, percent_agreement};
pub use crate::eval::annotation::write_annotation_files;
pub use crate::eval::bench::{EvalBench, EvalSettings};
pub use crate::eval::comparison::{Comparison, Metrics, Verdict, before_after};
pub use crate::eval::evaluation::{Evaluation, Training};
pub use crate::eval::fluency::{Fluency, ReplyLikelihood, fluency};
pub use crate::eval::frontier::{Frontier, frontier};
pub use crate::eval::judge::{ChatJudge, HeadToHead, Judge, People, RewardJudge, RewardScorer, head_to_head};
pub use crate::eval::measure::{Better, Measure};
pub use crate::eval::perplexity::{Perplexity, perplexity, perplexity_with};
pub use crate::eval::quality::{Quality, novel_words, quality, self_bleu};
pub use crate::eval::ranking::{LikelihoodRanking, likelihood_ranking, reward_accuracy};
pub use crate::eval::refusal::{
    Refusal, RefusalPrompts, declines, likelihood_auc, likelihood_auc_with, ordinary_answered,
};
pub use crate::eval::summary::{Settings, Summary};
pub use crate::eval::toxicity::{Classifier, ToxBlock, ToxicBert, ToxicityReport, ToxicityScorer, ToxicityScores};
pub use crate::eval::winrate::{WinRate, read_helpfulness, read_preferences};
pub use crate::export::{export_dpo, export_sft};
pub use crate::fused::{Compute, Precision};
pub use crate::gpu::{Memory, MemoryPlan, Storage};
pub use crate::hub::{Hub, Repo};
pub use crate::lab;
pub use crate::lesson;
pub use crate::live::{Branch, Pausable, Phase, Run, Sweep, overlay};
pub use crate::loss::{PairLogps, PairValues, PreferenceLoss, Rewards, Values};
pub use crate::model::{Gpt, GptConfig, Preset};
pub use crate::nn::Dropout;
pub use crate::options::{RealDataRecipes, RunOptions};
pub use crate::plot::{Figure, Panel, figures};
pub use crate::report::write_report;
pub use crate::reward::{RewardConfig, RewardGroup, RewardMixture, RewardModel, whole_dialogues};
pub use crate::sample::{Reply, Sampler};
pub use crate::score::{pair_logps, reference_logps, score_pairs};
pub use crate::stats::{
    self, Estimate, McNemar, bootstrap_mean, holm, mcnemar, pairs_for_win_rate, prompts_for_shares, wilson, win_rate,
};
pub use crate::table::{Column, Table};
pub use crate::tokenize::Tokenizer;
pub use crate::train::{
    Best, Dpo, History, Outcome, Pitfall, Recipe, Sft, TrainConfig, evaluate_preferences, evaluate_replies,
};
pub use crate::view::View;
