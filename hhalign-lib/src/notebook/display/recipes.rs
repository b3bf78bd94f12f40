//! Tables of recipes: each setting with its value and its meaning.

use crate::base::error::Result;
use crate::eval::bench::EvalSettings;
use crate::notebook::options::RealDataRecipes;
use crate::show::table::{Column, Table};
use crate::train::reward::RewardConfig;
use crate::train::{Dpo, Sft, TrainConfig};

/// A setting: its name in a cell, its value and its meaning.
struct Setting {
    name: &'static str,
    value: String,
    meaning: &'static str,
}

fn setting(name: &'static str, value: impl ToString, meaning: &'static str) -> Setting {
    Setting { name, value: value.to_string(), meaning }
}

fn table(title: &str, rows: &[Setting]) -> Result<Table> {
    let column = |f: fn(&Setting) -> String| rows.iter().map(f).collect();
    Table::new(
        title,
        vec![
            Column::text("setting", column(|r| r.name.into())),
            Column::text("value", column(|r| r.value.clone())),
            Column::text("meaning", column(|r| r.meaning.into())),
        ],
    )
}

fn train(config: &TrainConfig) -> Vec<Setting> {
    let patience = config.patience.map_or("never".into(), |n| n.to_string());
    let mut rows = vec![
        setting("train.max_steps", config.max_steps, "optimiser steps"),
        setting("train.learning_rate", config.learning_rate, "peak learning rate"),
        setting(
            "train.warmup_steps",
            config.warmup_steps,
            "steps of linear warm-up, before the cosine",
        ),
        setting(
            "train.min_lr_ratio",
            config.min_lr_ratio,
            "final learning rate, as a share of the peak",
        ),
        setting("train.batch_size", config.batch_size, "pairs in an optimiser step"),
        setting(
            "train.micro_batch_size",
            config.micro_batch_size,
            "pairs in one pass; affects speed and memory only",
        ),
        setting(
            "train.adamw.weight_decay",
            config.adamw.weight_decay,
            "decay of matrices and embeddings",
        ),
        setting("train.max_grad_norm", config.max_grad_norm, "norm at which gradients are clipped"),
        setting(
            "train.eval_every",
            config.eval_every,
            "steps between evaluations on held-out pairs",
        ),
        setting(
            "train.patience",
            patience,
            "evaluations without a better loss before the run stops",
        ),
        setting(
            "train.log_every",
            config.log_every,
            "steps between records of the training metrics",
        ),
        setting("train.seed", config.seed, "seed of the order of the pairs"),
    ];
    if let Some(pitfall) = config.pitfall {
        rows.push(setting("train.pitfall", format!("{pitfall:?}"), "a deliberate mistake"));
    }
    rows
}

pub(super) fn sft(sft: &Sft) -> Result<Table> {
    table("Supervised fine-tuning", &train(&sft.train))
}

pub(super) fn dpo(dpo: &Dpo) -> Result<Table> {
    let mut rows = vec![
        setting("loss", dpo.loss.name(), "the preference loss"),
        setting("beta", dpo.beta, "strength of the constraint to the reference"),
    ];
    if dpo.rpo_alpha != 0.0 {
        rows.push(setting(
            "rpo_alpha",
            dpo.rpo_alpha,
            "weight of a likelihood term on the chosen reply",
        ));
    }
    if dpo.kl_prompts > 0 {
        rows.push(setting(
            "kl_prompts",
            dpo.kl_prompts,
            "held-out prompts on which the KL is measured",
        ));
    }
    rows.extend(train(&dpo.train));
    table("Preference optimisation", &rows)
}

pub(super) fn reward(reward: &RewardConfig) -> Result<Table> {
    let mut rows = vec![
        setting("max_prompt", reward.max_prompt, "prompt tokens that are read, from its end"),
        setting(
            "lm_weight",
            reward.lm_weight,
            "weight of the language-model loss on the chosen replies",
        ),
        setting("token_dropout", reward.token_dropout, "share of tokens dropped at random"),
    ];
    rows.extend(train(&reward.train));
    table("Reward model", &rows)
}

/// Shows the settings that differ between the trainings of a notebook on real data.
pub(super) fn real_data(recipes: &RealDataRecipes) -> Result<Table> {
    let trainings = [
        ("sft", &recipes.sft.train),
        ("dpo", &recipes.dpo.train),
        ("reader", &recipes.reader.train),
        ("reward", &recipes.reward.train),
    ];
    let count = |f: fn(&TrainConfig) -> usize| trainings.iter().map(|t| f(t.1) as i64).collect();
    let columns = vec![
        Column::text("recipe", trainings.iter().map(|t| t.0.to_string()).collect()),
        Column::int("max_steps", count(|t| t.max_steps)),
        Column::text(
            "learning_rate",
            trainings.iter().map(|t| t.1.learning_rate.to_string()).collect(),
        ),
        Column::int("warmup_steps", count(|t| t.warmup_steps)),
        Column::int("batch_size", count(|t| t.batch_size)),
        Column::int("micro_batch_size", count(|t| t.micro_batch_size)),
        Column::int("eval_every", count(|t| t.eval_every)),
    ];
    let preset = format!("{:?}", recipes.judge_preset).to_lowercase();
    let note = format!("The judge has the preset {preset}.");
    Ok(Table::new("Recipes for real data", columns)?.with_note(note))
}

pub(super) fn evaluation(s: &EvalSettings) -> Result<Table> {
    let rows = [
        setting("prompts", s.prompts, "largest number of held-out prompts"),
        setting("samples", s.samples, "replies to each prompt"),
        setting("temperature", s.temperature, "temperature of the replies"),
        setting("max_new_tokens", s.max_new_tokens, "longest reply, in tokens"),
        setting("refusal_prompts", s.refusal_prompts, "prompts for refusal of each kind"),
        setting("seed", s.seed, "seed of replies, intervals and tests"),
    ];
    table("Evaluation", &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notebook::options::RunOptions;
    use crate::train::Pitfall;

    fn value(table: &Table, name: &str) -> Option<String> {
        table.rows().into_iter().find(|row| row[0] == name).map(|row| row[1].clone())
    }

    #[test]
    fn a_recipe_shows_what_a_cell_may_change_and_follows_the_change() {
        let mut recipe = RunOptions { beta: 0.3, ..RunOptions::default() }.dpo();
        let shown = dpo(&recipe).unwrap();
        assert_eq!(value(&shown, "beta").as_deref(), Some("0.3"));
        assert_eq!(value(&shown, "train.learning_rate").as_deref(), Some("0.00006"));
        assert_eq!(value(&shown, "train.patience").as_deref(), Some("never"));
        assert_eq!(value(&shown, "train.pitfall"), None);
        (recipe.train.log_every, recipe.train.pitfall) = (3, Some(Pitfall::WrongReference));
        let shown = dpo(&recipe).unwrap();
        assert_eq!(value(&shown, "train.log_every").as_deref(), Some("3"));
        assert_eq!(value(&shown, "train.pitfall").as_deref(), Some("WrongReference"));

        let options =
            RunOptions { init: Some("gpt2".into()), sft_steps: 100, ..RunOptions::default() };
        let shown = sft(&options.sft()).unwrap();
        assert_eq!(value(&shown, "train.learning_rate").as_deref(), Some("0.00005"));
        assert_eq!(value(&shown, "train.warmup_steps").as_deref(), Some("5"));
        assert_eq!(
            value(&reward(&options.reward()).unwrap(), "train.max_steps").as_deref(),
            Some("60")
        );
        assert_eq!(
            value(&evaluation(&options.evaluation()).unwrap(), "prompts").as_deref(),
            Some("600")
        );
        let recipes = RealDataRecipes::new(&options, false, &Default::default());
        let shown = real_data(&recipes).unwrap();
        assert_eq!(
            (shown.value("learning_rate", 0).unwrap(), shown.value("batch_size", 2).unwrap()),
            ("0.00005".into(), "16".into())
        );
        assert!(shown.to_string().contains("The judge has the preset toy."), "{shown}");
    }
}
