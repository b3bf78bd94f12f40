//! The forward pass of a Llama with quantised weights: exact log-probabilities of replies, without
//! a cache.

use std::collections::HashMap;
use std::io::{Read, Seek};

use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope_i;

use crate::base::error::{Error, ErrorKind, Result};

/// The number of rows whose logits exist at once.
const CHUNK: usize = 128;

const FIX: &str = "give a GGUF file of the Llama family, such as SmolLM2-135M-Instruct";

/// A prompt with its replies; `rows` are the positions of the results.
pub(super) struct Family<'a> {
    pub(super) prompt: &'a [u32],
    pub(super) replies: Vec<&'a [u32]>,
    pub(super) rows: Vec<usize>,
}

/// Consecutive rows that attend to each other causally, and to the whole of a prompt.
struct Segment {
    /// First row, number of rows.
    own: (usize, usize),
    /// First row and number of rows of the prompt; none for a prompt itself.
    prompt: (usize, usize),
    /// (T, P + T): 0 where a row attends, -∞ elsewhere.
    mask: Tensor,
}

struct Layer {
    attention_norm: Tensor,
    q: QTensor,
    k: QTensor,
    v: QTensor,
    attention_out: QTensor,
    norm: Tensor,
    gate: QTensor,
    up: QTensor,
    down: QTensor,
}

pub(super) struct Llama {
    embedding: QTensor,
    layers: Vec<Layer>,
    norm: Tensor,
    /// `None` if the embedding is the head.
    head: Option<QTensor>,
    /// The angle by which a position rotates each pair of a head's units: (D / 2).
    turns: Vec<f64>,
    heads: usize,
    kv_heads: usize,
    epsilon: f32,
    context: usize,
}

impl Llama {
    /// Reads the sizes and all weights.
    ///
    /// # Errors
    /// Another architecture, a missing size, or a tensor that is missing or of another shape.
    pub(super) fn read<R: Read + Seek>(content: &Content, file: &mut R) -> Result<Self> {
        let sizes = Sizes::read(&content.metadata)?;
        if content.tensor_infos.contains_key("rope_freqs.weight") {
            let what = "positions that are scaled by a table are not supported";
            return Err(Error::data(what, "rope_freqs.weight, as in Llama 3", FIX));
        }
        let mut tensor = |name: &str, shape: &[usize]| {
            let found = content.tensor_infos.get(name).map(|info| info.shape.dims().to_vec());
            if found.as_deref() != Some(shape) {
                let got = found.map_or("no such tensor".to_string(), |dims| format!("{dims:?}"));
                return Err(Error::data(
                    format!("the tensor {name} must have the shape {shape:?}"),
                    got,
                    FIX,
                ));
            }
            content.tensor(file, name, &Device::Cpu).map_err(|e| {
                Error::from(e)
                    .with_message(
                        format!("the tensor {name} cannot be read"),
                        "download the file again",
                    )
                    .with_kind(ErrorKind::Data)
            })
        };
        let Sizes { n_layer, width: c, wide, heads, kv_heads, head_width: d, .. } = sizes;
        let rows = content
            .tensor_infos
            .get("token_embd.weight")
            .and_then(|i| i.shape.dims().first().copied());
        let vocab = rows.unwrap_or_default();
        let mut layers = Vec::with_capacity(n_layer);
        for index in 0..n_layer {
            let mut part =
                |name: &str, shape: &[usize]| tensor(&format!("blk.{index}.{name}.weight"), shape);
            layers.push(Layer {
                attention_norm: part("attn_norm", &[c])?.dequantize(&Device::Cpu)?,
                q: part("attn_q", &[heads * d, c])?,
                k: part("attn_k", &[kv_heads * d, c])?,
                v: part("attn_v", &[kv_heads * d, c])?,
                attention_out: part("attn_output", &[c, heads * d])?,
                norm: part("ffn_norm", &[c])?.dequantize(&Device::Cpu)?,
                gate: part("ffn_gate", &[wide, c])?,
                up: part("ffn_up", &[wide, c])?,
                down: part("ffn_down", &[c, wide])?,
            });
        }
        let has_head = content.tensor_infos.contains_key("output.weight");
        Ok(Self {
            embedding: tensor("token_embd.weight", &[vocab, c])?,
            layers,
            norm: tensor("output_norm.weight", &[c])?.dequantize(&Device::Cpu)?,
            head: if has_head { Some(tensor("output.weight", &[vocab, c])?) } else { None },
            turns: (0..d / 2).map(|i| sizes.rope_base.powf(-2.0 * i as f64 / d as f64)).collect(),
            heads,
            kv_heads,
            epsilon: sizes.epsilon,
            context: sizes.context,
        })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.embedding.shape().dims()[0]
    }

    /// The maximum number of tokens of a prompt and a reply together.
    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// Returns ln p of every token of every reply, family by family.
    ///
    /// The rows of all families are consecutive, without padding; each prompt is computed once, and
    /// all its replies attend to it.
    pub(super) fn reply_logps(&self, families: &[Family<'_>]) -> Result<Vec<Vec<Vec<f32>>>> {
        let (mut ids, mut places, mut segments) = (vec![], vec![], vec![]);
        // The row that predicts each reply token, and that token.
        let (mut sources, mut targets) = (vec![], vec![]);
        for family in families {
            let prompt = (ids.len(), family.prompt.len());
            let texts = std::iter::once((family.prompt, (0, 0)))
                .chain(family.replies.iter().map(|r| (*r, prompt)));
            for (text, before) in texts {
                let own = (ids.len(), text.len());
                segments.push(Segment { own, prompt: before, mask: causal(text.len(), before.1)? });
                places.extend((before.1..before.1 + text.len()).map(|p| p as f64));
                ids.extend_from_slice(text);
                if before.1 > 0 {
                    let last_of_prompt = (prompt.0 + prompt.1 - 1) as u32;
                    sources.extend(
                        std::iter::once(last_of_prompt)
                            .chain(own.0 as u32..(own.0 + own.1 - 1) as u32),
                    );
                    targets.extend_from_slice(text);
                }
            }
        }
        let hidden = self.hidden(&ids, &places, &segments)?;
        let hidden = hidden.index_select(&Tensor::new(sources, &Device::Cpu)?, 0)?;
        let mut logps = self.logps(&hidden, &targets)?.into_iter();
        let mut take = |reply: &&[u32]| logps.by_ref().take(reply.len()).collect();
        Ok(families.iter().map(|family| family.replies.iter().map(&mut take).collect()).collect())
    }

    /// Returns the last hidden states, normalised: (N) -> (N, C).
    fn hidden(&self, ids: &[u32], places: &[f64], segments: &[Segment]) -> Result<Tensor> {
        let angles = places.iter().flat_map(|p| self.turns.iter().map(move |t| p * t));
        let shape = (places.len(), self.turns.len());
        let cos = Tensor::from_vec(
            angles.clone().map(|a| a.cos() as f32).collect(),
            shape,
            &Device::Cpu,
        )?;
        let sin = Tensor::from_vec(angles.map(|a| a.sin() as f32).collect(), shape, &Device::Cpu)?;
        let mut x = self.embedding.embedding(&Tensor::new(ids, &Device::Cpu)?)?;
        for layer in &self.layers {
            let normed = rms_norm(&x, &layer.attention_norm, self.epsilon)?;
            // (N, heads · D) -> (heads, N, D), every row rotated by its position.
            let split = |weight: &QTensor, heads: usize| {
                product(&normed, weight)?
                    .reshape((1, ids.len(), heads, ()))?
                    .transpose(1, 2)?
                    .contiguous()
            };
            let turned = |x: Tensor| rope_i(&x, &cos, &sin)?.squeeze(0);
            let (q, k) =
                (turned(split(&layer.q, self.heads)?)?, turned(split(&layer.k, self.kv_heads)?)?);
            let mixed =
                self.attention(&q, &k, &split(&layer.v, self.kv_heads)?.squeeze(0)?, segments)?;
            x = (x + product(&mixed, &layer.attention_out)?)?;
            let normed = rms_norm(&x, &layer.norm, self.epsilon)?;
            let wide = (silu(&product(&normed, &layer.gate)?)? * product(&normed, &layer.up)?)?;
            x = (x + product(&wide, &layer.down)?)?;
        }
        Ok(rms_norm(&x, &self.norm, self.epsilon)?)
    }

    /// (heads, N, D) and twice (groups, N, D) -> (N, heads · D); several heads share the keys and
    /// values of a group.
    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        segments: &[Segment],
    ) -> Result<Tensor> {
        let (heads, _, d) = q.dims3()?;
        let seen = |x: &Tensor, segment: &Segment| {
            let (own, prompt) = (x.narrow(1, segment.own.0, segment.own.1)?, segment.prompt);
            if prompt.1 == 0 {
                own.contiguous()
            } else {
                Tensor::cat(&[&x.narrow(1, prompt.0, prompt.1)?, &own], 1)
            }
        };
        let mut out = Vec::with_capacity(segments.len());
        for segment in segments {
            let (t, all) = segment.mask.dims2()?;
            let (k, v) = (seen(k, segment)?, seen(v, segment)?);
            // The heads of a group are consecutive: one product for all of them.
            let q = q.narrow(1, segment.own.0, t)?.contiguous()?.reshape((self.kv_heads, (), d))?;
            let scores = (q.matmul(&k.t()?)? / (d as f64).sqrt())?.reshape((heads, t, all))?;
            let weights = softmax_last_dim(&scores.broadcast_add(&segment.mask)?)?;
            let mixed = weights.reshape((self.kv_heads, (), all))?.matmul(&v)?;
            out.push(mixed.reshape((heads, t, d))?.transpose(0, 1)?.flatten_from(1)?);
        }
        Ok(Tensor::cat(&out, 0)?)
    }

    /// Returns ln p of each target from the row that predicts it: (N, C), (N) -> (N).
    fn logps(&self, hidden: &Tensor, targets: &[u32]) -> Result<Vec<f32>> {
        let head = self.head.as_ref().unwrap_or(&self.embedding).dequantize(&Device::Cpu)?;
        let mut logps = Vec::with_capacity(targets.len());
        for (chunk, targets) in targets.chunks(CHUNK).enumerate() {
            let rows = hidden.narrow(0, chunk * CHUNK, targets.len())?;
            let logits = rows.matmul(&head.t()?)?.flatten_all()?.to_vec1::<f32>()?;
            for (logits, &target) in logits.chunks_exact(self.vocab_size()).zip(targets) {
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let total: f64 = logits.iter().map(|x| f64::from((x - largest).exp())).sum();
                logps.push((f64::from(logits[target as usize] - largest) - total.ln()) as f32);
            }
        }
        Ok(logps)
    }
}

/// Returns x Wᵀ, with the weight dequantised for this product: a batch has many rows, so this takes
/// little time, and memory stays that of the file.
fn product(x: &Tensor, weight: &QTensor) -> candle_core::Result<Tensor> {
    x.matmul(&weight.dequantize(&Device::Cpu)?.t()?)
}

/// Returns the mask of `t` rows after a prompt of `before`: (T, P + T).
fn causal(t: usize, before: usize) -> Result<Tensor> {
    let may = |i: usize| {
        (0..before + t).map(move |j| if j <= before + i { 0.0 } else { f32::NEG_INFINITY })
    };
    Ok(Tensor::from_vec((0..t).flat_map(may).collect(), (t, before + t), &Device::Cpu)?)
}

/// The sizes in the metadata.
struct Sizes {
    n_layer: usize,
    width: usize,
    wide: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    context: usize,
    rope_base: f64,
    epsilon: f32,
}

impl Sizes {
    fn read(metadata: &HashMap<String, Value>) -> Result<Self> {
        let text =
            |key: &str| metadata.get(key).and_then(|v| v.to_string().ok()).map_or("none", |s| s);
        let architecture = text("general.architecture");
        if architecture != "llama" {
            return Err(Error::data("only the architecture llama is supported", architecture, FIX));
        }
        let number =
            |key: &str| metadata.get(&format!("llama.{key}")).and_then(|v| v.to_u64().ok());
        let size = |key: &str| match number(key) {
            Some(n) if n > 0 => Ok(n as usize),
            found => Err(Error::data(
                format!("llama.{key} must be a positive number"),
                format!("{found:?}"),
                FIX,
            )),
        };
        let real = |key: &str| metadata.get(&format!("llama.{key}")).and_then(|v| v.to_f32().ok());
        let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let kv_heads = number("attention.head_count_kv").map_or(heads, |n| n as usize);
        let head_width = number("attention.key_length").map_or(width / heads, |n| n as usize);
        let rope_width = number("rope.dimension_count").map_or(head_width, |n| n as usize);
        let experts = number("expert_count").unwrap_or_default();
        let scaling = text("llama.rope.scaling.type");
        let fits = kv_heads > 0
            && heads % kv_heads == 0
            && head_width % 2 == 0
            && rope_width == head_width;
        if !fits || experts > 1 || scaling != "none" {
            let got = format!(
                "{heads} heads of {head_width} units, {kv_heads} of keys, {rope_width} units turned, {experts} experts, \
                 positions scaled: {scaling}"
            );
            return Err(Error::data("this variant of Llama is not supported", got, FIX));
        }
        let Some(epsilon) = real("attention.layer_norm_rms_epsilon") else {
            return Err(Error::data(
                "llama.attention.layer_norm_rms_epsilon must be a number",
                "none",
                FIX,
            ));
        };
        Ok(Self {
            n_layer: size("block_count")?,
            width,
            wide: size("feed_forward_length")?,
            heads,
            kv_heads,
            head_width,
            context: size("context_length")?,
            rope_base: f64::from(real("rope.freq_base").unwrap_or(10_000.0)),
            epsilon,
        })
    }
}
