//! Groups of prompts that grow token by token, from one model or from a mixture of several.

use rand::Rng as _;

use super::Sampler;
use crate::error::{Error, Result};
use crate::executor::{Decoder, Decoding};
use crate::parallel;
use crate::rng::{Rng, stream};

/// A model's part in the logits.
pub(super) struct Share<'a> {
    pub(super) decoding: &'a dyn Decoding,
    pub(super) share: f64,
}

/// Replies to draw.
pub(super) struct Job<'a> {
    pub(super) sampler: &'a Sampler,
    pub(super) prompts: &'a [Vec<u32>],
    /// The prompts' places, in the order in which they are decoded.
    pub(super) order: &'a [usize],
    /// Tokens that a sequence may have at most.
    pub(super) block: usize,
    pub(super) eos_id: Option<u32>,
}

impl Job<'_> {
    /// A reply to every prompt, in the order of decoding.
    pub(super) fn run(&self, models: &[Share<'_>]) -> Result<Vec<Vec<u32>>> {
        let size = models.iter().map(|m| m.decoding.at_once(self.order.len())).min().unwrap_or(1);
        let groups: Vec<&[usize]> = self.order.chunks(size).collect();
        let replies = if models.iter().all(|m| m.decoding.side_by_side()) {
            parallel::map(&groups, |group| self.group(models, group))?
        } else {
            parallel::one_by_one(&groups, |group| self.group(models, group))?
        };
        Ok(replies.concat())
    }

    fn group(&self, models: &[Share<'_>], group: &[usize]) -> Result<Vec<Vec<u32>>> {
        let decoders = models.iter().map(|m| Ok(Part { decoder: m.decoding.decoder()?, share: m.share }));
        let mut mixture = Mixture(decoders.collect::<Result<_>>()?);
        let texts: Vec<&[u32]> = group.iter().map(|&i| self.prompts[i].as_slice()).collect();
        let mut rngs: Vec<Rng> = group.iter().map(|&i| stream(self.sampler.seed, "sample", &[i as u64])).collect();
        let mut drawn: Vec<Vec<u32>> = vec![vec![]; group.len()];
        let mut begun = 0;
        while begun < group.len() {
            let n = mixture.start(&texts[begun..])?;
            let new: Vec<usize> = (begun..begun + n).collect();
            let ids = mixture.draw(self.sampler, &new, &mut rngs)?;
            new.iter().zip(ids).for_each(|(&g, id)| drawn[g].push(id));
            begun += n;
        }
        let limit = |g: usize| self.sampler.max_new_tokens.min(self.block - texts[g].len().min(self.block - 1));
        loop {
            let goes_on = |g: &usize| drawn[*g].last().copied() != self.eos_id && drawn[*g].len() < limit(*g);
            let alive: Vec<usize> = (0..group.len()).filter(goes_on).collect();
            if alive.is_empty() {
                return Ok(drawn);
            }
            let last: Vec<u32> = alive.iter().filter_map(|&g| drawn[g].last().copied()).collect();
            mixture.append(&alive, &last)?;
            let ids = mixture.draw(self.sampler, &alive, &mut rngs)?;
            alive.iter().zip(ids).for_each(|(&g, id)| drawn[g].push(id));
        }
    }
}

/// A decoder and its part in the logits.
struct Part<'a> {
    decoder: Box<dyn Decoder + 'a>,
    share: f64,
}

/// Decoders that read the same tokens.
struct Mixture<'a>(Vec<Part<'a>>);

impl Mixture<'_> {
    /// Reads some of the prompts with all decoders; returns how many.
    fn start(&mut self, prompts: &[&[u32]]) -> Result<usize> {
        let [first, others @ ..] = self.0.as_mut_slice() else { unreachable!("a mixture has a model") };
        let n = first.decoder.start(prompts)?;
        for part in others {
            if part.decoder.start(&prompts[..n])? != n {
                let got = "two decoders that read in other portions";
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
        self.0.iter_mut().try_for_each(|part| part.decoder.append(sequences, ids))
    }

    /// A token after each of the sequences that were just read.
    fn draw(&mut self, sampler: &Sampler, sequences: &[usize], rngs: &mut [Rng]) -> Result<Vec<u32>> {
        if let [part] = self.0.as_mut_slice()
            && part.decoder.draws()
            && sampler.top_p >= 1.0
        {
            let uniform: Vec<f32> = sequences.iter().map(|&g| rngs[g].random::<f64>() as f32).collect();
            return part.decoder.draw(&uniform, sampler.temperature as f32);
        }
        let logits = self.logits()?;
        let vocabulary = logits.len() / sequences.len();
        let rows = sequences.iter().zip(logits.chunks_exact(vocabulary));
        rows.map(|(&g, logits)| sampler.draw(logits, &mut rngs[g])).collect()
    }

    /// The logits of all decoders, added up by their shares; those of a single one are left as they are.
    fn logits(&mut self) -> Result<Vec<f32>> {
        if let [part] = self.0.as_mut_slice() {
            return part.decoder.logits();
        }
        let mut sum: Vec<f32> = vec![];
        for part in &mut self.0 {
            let logits = part.decoder.logits()?;
            sum.resize(logits.len(), 0.0);
            sum.iter_mut().zip(logits).for_each(|(s, l)| *s += l * part.share as f32);
        }
        Ok(sum)
    }
}
