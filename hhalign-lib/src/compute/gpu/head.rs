//! The output head on a GPU, for a chunk of rows at a time. It mirrors `compute/cpu/head.rs`.

use super::buffers::Upstream;
use super::card::{Operand, Product, Store, download};
use super::kernels::head::LogProbs;
use super::lists::List;
use super::pass::{Pass, no_forward};
use super::weights::Weights;
use crate::base::error::Result;
use crate::compute::cpu::TokenStats;

/// The maximum size of f32 logits in memory, in bytes.
pub(super) const MAX_LOGITS_BYTES: usize = 256 << 20;

impl Pass {
    /// Computes log π of every target. With `upstream` it also computes the gradients of lnf and of
    /// the head's weight.
    pub(super) fn head(
        &mut self,
        w: &Weights,
        stats: Option<&mut TokenStats>,
        upstream: Option<Upstream<'_>>,
    ) -> Result<Vec<f32>> {
        let lists = self.forwarded.take().ok_or_else(no_forward)?;
        let (card, c, s, wte) =
            (&w.card, w.config.n_embd, w.dtypes.storage.bytes(), w.params().wte);
        let (v, stride, n) = (w.config.vocab_size, w.layout.vocab, lists.targets.len);
        let chunk = (MAX_LOGITS_BYTES / (4 * stride)).clamp(1, 4096).min(n.max(1));
        let logps = self.logps.sized(card, n * 4)?;
        let [right, entropy] = match stats {
            Some(_) => [self.right.sized(card, n * 4)?, self.entropy.sized(card, n * 4)?],
            None => [0, 0],
        };
        let [mut dlogps, mut dlogits, mut dlnf] = [0; 3];
        if let Some(upstream) = upstream {
            dlogps = self.dlogps.upload(card, upstream.dlogps)?;
            dlnf = self.dlnf.sized(card, lists.picked.len * c * s)?;
            dlogits = self.dlogits.sized(card, chunk * stride * s)?;
        }
        let scale = upstream.map_or(1.0, |upstream| upstream.scale);
        // Logits exist for one chunk of rows at a time.
        for first in (0..n).step_by(chunk) {
            let rows = chunk.min(n - first);
            let logits = self.logits(w, first, rows)?;
            // Null pointers stay null.
            let at_first = |list: u64| if list == 0 { 0 } else { list + 4 * first as u64 };
            w.launch(&LogProbs {
                logps: at_first(logps),
                right: at_first(right),
                entropy: at_first(entropy),
                dlogits,
                logits,
                targets: lists.address(List { offset: lists.targets.offset + first, len: rows }),
                dlogps: at_first(dlogps),
                v,
                stride,
                scale,
                n: rows,
            })?;
            if let Some(upstream) = upstream {
                let offset = (first * c * s) as u64;
                w.product(&Product {
                    size: [rows, c, stride],
                    a: Operand::rows(dlogits, stride),
                    b: Operand::rows(w.stored_address(wte), c),
                    out: dlnf + offset,
                    store: Store::Stored,
                })?;
                w.product(&Product {
                    size: [stride, c, rows],
                    a: Operand::transposed(dlogits, stride),
                    b: Operand::rows(self.lnf.address() + offset, c),
                    out: upstream.gradients.address_of(wte),
                    store: Store::AddF32,
                })?;
            }
        }
        let values = download(&**card, logps, n)?;
        if let Some(stats) = stats {
            stats.right =
                download::<f32>(&**card, right, n)?.into_iter().map(|x| x > 0.5).collect();
            stats.entropy = download(&**card, entropy, n)?;
        }
        self.forwarded = Some(lists);
        Ok(values)
    }

    /// Computes the logits of `n` rows of lnf, starting at `first`, in f32 with rows of the padded
    /// vocabulary.
    pub(super) fn logits(&mut self, w: &Weights, first: usize, n: usize) -> Result<u64> {
        let (c, stride, s) = (w.config.n_embd, w.layout.vocab, w.dtypes.storage.bytes());
        let logits = self.logits.sized(&w.card, n * stride * 4)?;
        w.product(&Product {
            size: [n, stride, c],
            a: Operand::rows(self.lnf.address() + (first * c * s) as u64, c),
            b: Operand::transposed(w.stored_address(w.params().wte), c),
            out: logits,
            store: Store::F32,
        })?;
        Ok(logits)
    }

    /// Returns the logits of all targets of the preceding forward pass, (N, V), computed in chunks
    /// of rows.
    pub(super) fn target_logits(&mut self, w: &Weights) -> Result<Vec<f32>> {
        let (n, v, stride) = (self.n_targets, w.config.vocab_size, w.layout.vocab);
        let chunk = (MAX_LOGITS_BYTES / (4 * stride)).clamp(1, 4096);
        let mut all = Vec::with_capacity(n * v);
        for first in (0..n).step_by(chunk) {
            let rows = chunk.min(n - first);
            let logits = self.logits(w, first, rows)?;
            let padded: Vec<f32> = download(&*w.card, logits, rows * stride)?;
            all.extend(padded.chunks_exact(stride).flat_map(|row| &row[..v]));
        }
        Ok(all)
    }
}
