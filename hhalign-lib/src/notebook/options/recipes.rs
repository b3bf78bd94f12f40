//! The recipes of the notebooks: the settings of a training, as values that a cell may change
//! before it trains.

use crate::base::error::Result;
use crate::compute::Compute;
use crate::eval::bench::EvalSettings;
use crate::model::Preset;
use crate::notebook::options::RunOptions;
use crate::train::reward::RewardConfig;
use crate::train::{Dpo, Sft};

/// Peak learning rates of SFT and DPO.
struct Rates {
    sft: f64,
    dpo: f64,
}

impl Rates {
    /// For weights that were trained before.
    const FINE_TUNING: Self = Self { sft: 5e-5, dpo: 5e-6 };
    /// For fresh weights of the preset [`Preset::Toy`].
    const TOY: Self = Self { sft: 2.5e-3, dpo: 6e-5 };

    /// For fresh weights: the larger the model, the lower the rate.
    fn fresh(preset: Preset) -> Self {
        match preset {
            Preset::Toy => Self::TOY,
            Preset::Small => Self { sft: 1e-3, dpo: 3e-5 },
            Preset::Gpt2 => Self { sft: 6e-4, dpo: 1e-5 },
        }
    }
}

/// The recipes of the notebook on real data: rates by the size of the model, batches by the device,
/// and a judge that first learns to read.
#[derive(Debug, Clone)]
pub struct RealDataRecipes {
    /// Supervised fine-tuning of the policy.
    pub sft: Sft,
    /// Preference optimisation of the policy.
    pub dpo: Dpo,
    /// Size of the judge.
    pub judge_preset: Preset,
    /// How the judge learns to read whole dialogues, before it learns to judge.
    pub reader: Sft,
    /// How the judge learns to judge.
    pub reward: RewardConfig,
}

impl RunOptions {
    /// The recipe of supervised fine-tuning: 2.5e-3 for fresh weights, 5e-5 where there are weights
    /// to begin from.
    ///
    /// # Example
    /// ```
    /// use hhalign::notebook::options::RunOptions;
    /// let fresh = RunOptions::default();
    /// let given = RunOptions { init: Some("gpt2".into()), ..RunOptions::default() };
    /// assert_eq!((fresh.sft().train.learning_rate, given.sft().train.learning_rate), (2.5e-3, 5e-5));
    /// ```
    pub fn sft(&self) -> Sft {
        let mut sft = Sft::default();
        sft.train.max_steps = self.sft_steps;
        sft.train.learning_rate = self.rates(Rates::TOY).sft;
        sft.train.warmup_steps = self.sft_steps / 20;
        (sft.train.batch_size, sft.train.micro_batch_size) = (8, 4);
        (sft.train.eval_every, sft.train.patience, sft.train.log_every) = (100, Some(4), 50);
        (sft.train.seed, sft.train.compute.device) = (self.seed, self.device);
        sft
    }

    /// The recipe of preference optimisation: 6e-5 for a policy of fresh weights, 5e-6 where there
    /// were weights to begin from. The reference's scores are kept in the results folder.
    pub fn dpo(&self) -> Dpo {
        let mut dpo = Dpo { beta: self.beta, cache: Some(self.result("cache")), ..Dpo::default() };
        dpo.train.max_steps = self.dpo_steps;
        dpo.train.learning_rate = self.rates(Rates::TOY).dpo;
        dpo.train.warmup_steps = self.dpo_steps / 10;
        (dpo.train.eval_every, dpo.train.log_every) = (20, 10);
        (dpo.train.seed, dpo.train.compute.device) = (self.seed, self.device);
        dpo
    }

    /// The recipe of a reward model that begins with the weights of SFT.
    pub fn reward(&self) -> RewardConfig {
        let mut reward = RewardConfig::default();
        (reward.train.max_steps, reward.train.learning_rate, reward.train.eval_every) =
            (60, 1e-3, 20);
        (reward.train.seed, reward.train.compute.device) = (self.seed, self.device);
        reward
    }

    /// The recipes for real data, computed as [`RunOptions::compute`] says: rates by preset, larger
    /// batches and a larger judge where a GPU was found.
    ///
    /// # Errors
    /// As [`RunOptions::compute`].
    pub fn real_data(&self) -> Result<RealDataRecipes> {
        let compute = self.compute()?;
        Ok(RealDataRecipes::new(self, compute.is_on_gpu()?, &compute))
    }

    /// How models are evaluated: the seed, the device and the model's name are those of the run,
    /// all else is the default.
    pub fn evaluation(&self) -> EvalSettings {
        let compute = Compute { device: self.device, ..Compute::default() };
        EvalSettings {
            seed: self.seed,
            model: Some(self.model_name()),
            compute,
            ..EvalSettings::default()
        }
    }

    fn rates(&self, fresh: Rates) -> Rates {
        if self.init.is_some() { Rates::FINE_TUNING } else { fresh }
    }
}

impl RealDataRecipes {
    /// For a machine with a GPU or without one.
    pub fn new(options: &RunOptions, on_gpu: bool, compute: &Compute) -> Self {
        let rates = options.rates(Rates::fresh(options.preset));
        let mut sft = options.sft();
        (sft.train.learning_rate, sft.train.compute) = (rates.sft, compute.clone());
        (sft.train.batch_size, sft.train.micro_batch_size) = if on_gpu { (32, 16) } else { (8, 4) };
        sft.train.log_every = 20;
        let mut dpo = options.dpo();
        (dpo.train.learning_rate, dpo.train.compute) = (rates.dpo, compute.clone());

        let judge_preset = if on_gpu { Preset::Small } else { Preset::Toy };
        let mut reader = sft.clone();
        let steps = options.sft_steps.min(1100);
        (reader.train.max_steps, reader.train.warmup_steps) = (steps, steps.min(20));
        reader.train.learning_rate = 1e-3;
        (reader.train.batch_size, reader.train.micro_batch_size) =
            (16, if on_gpu { 16 } else { 4 });
        let mut reward = options.reward();
        (reward.train.max_steps, reward.train.warmup_steps) =
            (options.sft_steps.clamp(60, 420), 20);
        reward.train.learning_rate = if judge_preset == Preset::Toy { 5e-4 } else { 2e-4 };
        (reward.train.batch_size, reward.train.micro_batch_size) =
            (16, if on_gpu { 16 } else { 8 });
        (reward.train.eval_every, reward.train.log_every) = (30, 30);
        reward.train.compute = compute.clone();
        Self { sft, dpo, judge_preset, reader, reward }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Precision;

    fn given() -> RunOptions {
        RunOptions { init: Some("weights".into()), ..RunOptions::default() }
    }

    #[test]
    fn the_default_recipes_are_those_of_the_first_notebook() {
        let options =
            RunOptions { seed: 7, beta: 0.3, results: "out".into(), ..RunOptions::default() };
        let mut sft = Sft::default();
        (sft.train.max_steps, sft.train.warmup_steps, sft.train.learning_rate) = (1700, 85, 2.5e-3);
        (sft.train.batch_size, sft.train.micro_batch_size, sft.train.eval_every) = (8, 4, 100);
        (sft.train.patience, sft.train.log_every, sft.train.seed) = (Some(4), 50, 7);
        assert_eq!(options.sft(), sft);
        let mut dpo = Dpo { beta: 0.3, cache: Some("out/cache".into()), ..Dpo::default() };
        (dpo.train.max_steps, dpo.train.warmup_steps, dpo.train.learning_rate) = (80, 8, 6e-5);
        (dpo.train.eval_every, dpo.train.log_every, dpo.train.seed) = (20, 10, 7);
        assert_eq!(options.dpo(), dpo);
        let mut reward = RewardConfig::default();
        (reward.train.max_steps, reward.train.learning_rate, reward.train.eval_every) =
            (60, 1e-3, 20);
        reward.train.seed = 7;
        assert_eq!(options.reward(), reward);
        assert_eq!(options.evaluation().seed, 7);
    }

    #[test]
    fn given_weights_are_fine_tuned_at_their_own_rates_and_nothing_else_changes() {
        let (fresh, init) = (RunOptions::default(), given());
        assert_eq!((init.sft().train.learning_rate, init.dpo().train.learning_rate), (5e-5, 5e-6));
        let (mut sft, mut dpo) = (init.sft(), init.dpo());
        (sft.train.learning_rate, dpo.train.learning_rate) = (2.5e-3, 6e-5);
        assert_eq!((sft, dpo), (fresh.sft(), fresh.dpo()));
        assert_eq!(init.reward(), fresh.reward());
        let real = RealDataRecipes::new(&init, false, &Compute::default());
        assert_eq!((real.sft.train.learning_rate, real.dpo.train.learning_rate), (5e-5, 5e-6));
        assert_eq!(init.evaluation().model.as_deref(), Some("weights of weights"));
    }

    #[test]
    fn on_real_data_rates_follow_the_preset_and_batches_the_device() {
        let compute = Compute { precision: Precision::Auto, ..Compute::default() };
        for (preset, rates) in [
            (Preset::Toy, (2.5e-3, 6e-5)),
            (Preset::Small, (1e-3, 3e-5)),
            (Preset::Gpt2, (6e-4, 1e-5)),
        ] {
            let recipes = RealDataRecipes::new(
                &RunOptions { preset, ..RunOptions::default() },
                true,
                &compute,
            );
            assert_eq!((recipes.sft.train.learning_rate, recipes.dpo.train.learning_rate), rates);
        }
        let of = |on_gpu| {
            RealDataRecipes::new(
                &RunOptions { sft_steps: 100, ..RunOptions::default() },
                on_gpu,
                &compute,
            )
        };
        let batches = |r: &RealDataRecipes| {
            [&r.sft.train, &r.dpo.train, &r.reader.train, &r.reward.train]
                .map(|t| [t.batch_size, t.micro_batch_size])
        };
        assert_eq!(batches(&of(true)), [[32, 16], [32, 16], [16, 16], [16, 16]]);
        assert_eq!(batches(&of(false)), [[8, 4], [32, 16], [16, 4], [16, 8]]);
        let (gpu, cpu) = (of(true), of(false));
        assert_eq!((gpu.judge_preset, cpu.judge_preset), (Preset::Small, Preset::Toy));
        assert_eq!((gpu.reward.train.learning_rate, cpu.reward.train.learning_rate), (2e-4, 5e-4));
        for train in [&cpu.sft.train, &cpu.dpo.train, &cpu.reader.train, &cpu.reward.train] {
            assert_eq!(train.compute, compute);
        }
        let reader = &cpu.reader.train;
        assert_eq!((reader.max_steps, reader.warmup_steps, reader.learning_rate), (100, 20, 1e-3));
        assert_eq!((reader.eval_every, reader.log_every, reader.patience), (100, 20, Some(4)));
        let reward = &cpu.reward.train;
        assert_eq!(
            (reward.max_steps, reward.warmup_steps, reward.eval_every, reward.log_every),
            (100, 20, 30, 30)
        );
    }
}
