//! What a notebook cell may name: `use hhalign::prelude::*;`.

pub use crate::base::error::{Error, Result};
pub use crate::base::hub::{Hub, Repo};
pub use crate::compute::Device;
pub use crate::compute::gpu::{Memory, MemoryPlan, Storage};
pub use crate::compute::{Compute, Precision};
pub use crate::data::batch::{Batch, Side, TokenizedPairs};
pub use crate::data::cues::cue_table;
pub use crate::data::tokenize::Tokenizer;
pub use crate::data::{Dataset, Pair, PromptKind, Split};
pub use crate::eval::bench::{EvalBench, EvalSettings};
pub use crate::eval::comparison::{Comparison, Verdict, before_after};
pub use crate::eval::evaluation::{Evaluation, Training};
pub use crate::eval::figures;
pub use crate::eval::frontier::{Frontier, frontier};
pub use crate::eval::measure::{Better, Measure, Metrics};
pub use crate::eval::metrics::fluency::{Fluency, ReplyLikelihood, fluency};
pub use crate::eval::metrics::perplexity::{Perplexity, perplexity, perplexity_with};
pub use crate::eval::metrics::quality::{Quality, novel_words, quality, self_bleu};
pub use crate::eval::metrics::ranking::{LikelihoodRanking, likelihood_ranking, reward_accuracy};
pub use crate::eval::metrics::refusal::{
    Refusal, RefusalPrompts, declines, likelihood_auc, likelihood_auc_with, ordinary_answered,
};
pub use crate::eval::metrics::toxicity::{
    Classifier, ToxBlock, ToxicBert, ToxicityReport, ToxicityScorer, ToxicityScores,
};
pub use crate::eval::preferences::agreement::{
    Agreement, cohen_kappa, krippendorff_alpha, percent_agreement,
};
pub use crate::eval::preferences::annotation::write_annotation_files;
pub use crate::eval::preferences::judge::{
    ChatJudge, HeadToHead, Judge, People, RewardJudge, RewardScorer, head_to_head,
};
pub use crate::eval::preferences::winrate::{WinRate, read_helpfulness, read_preferences};
pub use crate::eval::summary::{Settings, Summary};
pub use crate::infer::sample::{Reply, Sampler};
pub use crate::infer::score::{pair_logps, reference_logps, score_pairs};
pub use crate::live::{Branch, Pausable, Phase, Run, Sweep, overlay};
pub use crate::loss::{PairLogps, PairValues, PreferenceLoss, Rewards, Values};
pub use crate::model::checkpoint::{load_model, save_model};
pub use crate::model::ops::Dropout;
pub use crate::model::{Gpt, GptConfig, Preset};
pub use crate::notebook::lab;
pub use crate::notebook::lesson;
pub use crate::notebook::options::{RealDataRecipes, RunOptions};
pub use crate::report::write_report;
pub use crate::show::plot::{Figure, Panel};
pub use crate::show::table::{Column, Table};
pub use crate::show::view::View;
pub use crate::stats;
pub use crate::stats::{
    Estimate, McNemar, bootstrap_mean, holm, mcnemar, pairs_for_win_rate, prompts_for_shares,
    wilson, win_rate,
};
pub use crate::train::export::{export_dpo, export_sft};
pub use crate::train::reward::{
    RewardConfig, RewardGroup, RewardMixture, RewardModel, whole_dialogues,
};
pub use crate::train::{
    Best, Dpo, History, Outcome, Pitfall, Recipe, Sft, TrainConfig, evaluate_preferences,
    evaluate_replies,
};
