//! Decoding of prompts in groups, from one model or from a mixture of two.

use rand::Rng as _;

use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::base::rng::{Rng, stream};
use crate::compute::executor::{Decoder, Decoding};
use crate::infer::sample::Sampler;

/// A model and the weight of its logits.
pub(super) struct WeightedModel<'a> {
    pub(super) decoding: &'a dyn Decoding,
    pub(super) weight: f64,
}

/// A request for one reply to each prompt.
pub(super) struct Job<'a> {
    pub(super) sampler: &'a Sampler,
    pub(super) prompts: &'a [Vec<u32>],
    /// Indices of the prompts, in the order in which they are decoded.
    pub(super) order: &'a [usize],
    /// The maximum number of tokens of a sequence.
    pub(super) block: usize,
    pub(super) eos_id: Option<u32>,
}

impl Job<'_> {
    /// Draws a reply to every prompt. Returns them in the order of decoding.
    pub(super) fn run(&self, models: &[WeightedModel<'_>]) -> Result<Vec<Vec<u32>>> {
        let size =
            models.iter().map(|m| m.decoding.group_size(self.order.len())).min().unwrap_or(1);
        let groups: Vec<&[usize]> = self.order.chunks(size).collect();
        let replies = if models.iter().all(|m| m.decoding.is_parallel()) {
            parallel::map(&groups, |group| self.group(models, group))?
        } else {
            parallel::one_by_one(&groups, |group| self.group(models, group))?
        };
        Ok(replies.concat())
    }

    fn group(&self, models: &[WeightedModel<'_>], group: &[usize]) -> Result<Vec<Vec<u32>>> {
        let decoders = models
            .iter()
            .map(|m| Ok(WeightedDecoder { decoder: m.decoding.decoder()?, weight: m.weight }));
        let mut mixture = Mixture(decoders.collect::<Result<_>>()?);
        let prompts: Vec<&[u32]> = group.iter().map(|&i| self.prompts[i].as_slice()).collect();
        let mut rngs: Vec<Rng> =
            group.iter().map(|&i| stream(self.sampler.seed, "sample", &[i as u64])).collect();
        let mut drawn: Vec<Vec<u32>> = vec![vec![]; group.len()];
        let mut started = 0;
        while started < group.len() {
            let n = mixture.start(&prompts[started..])?;
            let new: Vec<usize> = (started..started + n).collect();
            let ids = mixture.draw(self.sampler, &new, &mut rngs)?;
            new.iter().zip(ids).for_each(|(&g, id)| drawn[g].push(id));
            started += n;
        }
        let limit = |g: usize| {
            self.sampler.max_new_tokens.min(self.block - prompts[g].len().min(self.block - 1))
        };
        loop {
            let is_unfinished =
                |g: &usize| drawn[*g].last().copied() != self.eos_id && drawn[*g].len() < limit(*g);
            let unfinished: Vec<usize> = (0..group.len()).filter(is_unfinished).collect();
            if unfinished.is_empty() {
                return Ok(drawn);
            }
            let last: Vec<u32> =
                unfinished.iter().filter_map(|&g| drawn[g].last().copied()).collect();
            mixture.append(&unfinished, &last)?;
            let ids = mixture.draw(self.sampler, &unfinished, &mut rngs)?;
            unfinished.iter().zip(ids).for_each(|(&g, id)| drawn[g].push(id));
        }
    }
}

/// A decoder and the weight of its logits.
struct WeightedDecoder<'a> {
    decoder: Box<dyn Decoder + 'a>,
    weight: f64,
}

/// Decoders that read the same tokens and whose logits are added up.
struct Mixture<'a>(Vec<WeightedDecoder<'a>>);

impl Mixture<'_> {
    /// Reads the first of the prompts with all decoders. Returns the number of prompts read.
    fn start(&mut self, prompts: &[&[u32]]) -> Result<usize> {
        let [first, others @ ..] = self.0.as_mut_slice() else {
            unreachable!("a mixture has a model")
        };
        let n = first.decoder.start(prompts)?;
        for model in others {
            if model.decoder.start(&prompts[..n])? != n {
                let got = "two decoders that read different numbers of prompts";
                return Err(Error::new(
                    "the models of a mixture cannot be read together",
                    got,
                    "use one device for both",
                ));
            }
        }
        Ok(n)
    }

    fn append(&mut self, sequences: &[usize], ids: &[u32]) -> Result<()> {
        self.0.iter_mut().try_for_each(|model| model.decoder.append(sequences, ids))
    }

    /// Draws a token for each of the sequences that were just read.
    fn draw(
        &mut self,
        sampler: &Sampler,
        sequences: &[usize],
        rngs: &mut [Rng],
    ) -> Result<Vec<u32>> {
        if let [model] = self.0.as_mut_slice()
            && model.decoder.can_draw()
            && sampler.top_p >= 1.0
        {
            let uniform: Vec<f32> =
                sequences.iter().map(|&g| rngs[g].random::<f64>() as f32).collect();
            return model.decoder.draw(&uniform, sampler.temperature as f32);
        }
        let logits = self.logits()?;
        let vocabulary = logits.len() / sequences.len();
        let rows = sequences.iter().zip(logits.chunks_exact(vocabulary));
        rows.map(|(&g, logits)| sampler.draw(logits, &mut rngs[g])).collect()
    }

    /// Returns the weighted sum of the logits of all decoders. The logits of a single decoder are
    /// not weighted.
    fn logits(&mut self) -> Result<Vec<f32>> {
        if let [model] = self.0.as_mut_slice() {
            return model.decoder.logits();
        }
        let mut sum: Vec<f32> = vec![];
        for model in &mut self.0 {
            let logits = model.decoder.logits()?;
            sum.resize(logits.len(), 0.0);
            sum.iter_mut().zip(logits).for_each(|(s, l)| *s += l * model.weight as f32);
        }
        Ok(sum)
    }
}
