//! toxic-bert: BERT with a pooler and a head of six sigmoids.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::{layer_norm, sigmoid, softmax_last_dim};
use serde::Deserialize;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::rng::sha256_of_file;
use crate::base::{files, hub, parallel};
use crate::eval::metrics::toxicity::wordpiece::WordPiece;
use crate::eval::metrics::toxicity::{LABELS, ToxicityScorer, ToxicityScores};

/// Tokens scored at once, unless a single text has more; the result does not depend on it.
const TOKENS: usize = 512;

/// The two names of the weights on the hub, in order of preference.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

const FIX: &str =
    "give the folder of unitary/toxic-bert: config.json, vocab.txt and model.safetensors";

fn unreadable(path: &Path, error: Error) -> Error {
    error.with_message(format!("{} of the toxicity classifier is unreadable", path.display()), FIX)
}

/// The sizes in `config.json`.
#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default)]
    id2label: BTreeMap<usize, String>,
}

fn two() -> usize {
    2
}

fn epsilon() -> f64 {
    1e-12
}

fn gelu() -> String {
    "gelu".into()
}

impl Config {
    fn check(&self) -> Result<()> {
        let Self {
            hidden_size,
            num_attention_heads: heads,
            max_position_embeddings: positions,
            ..
        } = self;
        if *heads == 0 || hidden_size % heads != 0 || *positions < 2 {
            let got = format!("hidden_size {hidden_size}, {heads} heads, {positions} positions");
            return Err(Error::data("the sizes of config.json must fit each other", got, FIX));
        }
        if self.hidden_act != "gelu" {
            return Err(Error::data(
                "only BERT's exact GELU is supported",
                self.hidden_act.as_str(),
                FIX,
            ));
        }
        let labels: Vec<&str> = self.id2label.values().map(String::as_str).collect();
        // A config without names has LABEL_0, LABEL_1, ...
        let nameless = labels.iter().all(|l| l.starts_with("LABEL_"));
        if !nameless && labels != LABELS {
            let what = format!("the classifier must have the labels {}", LABELS.join(", "));
            return Err(Error::data(what, labels.join(", "), FIX));
        }
        Ok(())
    }
}

/// A dense layer, its weight transposed for `x W + b`.
struct Dense(Tensor, Tensor);

impl Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.0)?.broadcast_add(&self.1)?)
    }
}

/// Weight and bias of a layer norm, and its ε.
struct Norm(Tensor, Tensor, f32);

impl Norm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(layer_norm(x, &self.0, &self.1, self.2)?)
    }
}

struct Layer {
    /// Queries, keys and values side by side: (C, 3C).
    qkv: Dense,
    attention_out: Dense,
    attention_norm: Norm,
    up: Dense,
    down: Dense,
    norm: Norm,
}

/// BERT-base with six sigmoids, fine-tuned on the Jigsaw toxic comments, the usual toxicity score
/// in papers.
///
/// A text is cut at the end if it exceeds the model's positions (512 tokens with `[CLS]` and
/// `[SEP]`).
///
/// # Source
/// Hanu and Unitary team, Detoxify, 2020, model `original`:
/// <https://huggingface.co/unitary/toxic-bert> (Apache-2.0).
pub struct ToxicBert {
    tokenizer: WordPiece,
    words: Tensor,
    /// (positions, C), the embedding of the first segment added: a single text has no other.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    pooler: Dense,
    classifier: Dense,
    heads: usize,
    digest: String,
}

impl ToxicBert {
    /// Loads the classifier in a folder, or `None` if there are no weights; fails as [`Self::load`]
    /// does.
    pub fn find(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let there = WEIGHTS.iter().any(|name| folder.as_ref().join(name).exists());
        if there { Self::load(folder).map(Some) } else { Ok(None) }
    }

    /// Loads `config.json`, `vocab.txt` and `model.safetensors` or `pytorch_model.bin`, under
    /// transformers' names, from a folder, or from the hub if it is `hub:unitary/toxic-bert`.
    ///
    /// # Errors
    /// A file is missing, damaged or cannot be fetched, a tensor has another shape than the config
    /// says, or the vocabulary does not fit.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder =
            &hub::model_folder(folder.as_ref(), &["config.json", "vocab.txt", WEIGHTS[0]])?;
        let read = |name: &str| {
            let path = folder.join(name);
            let bytes = files::read(&path).map_err(|e| unreadable(&path, e))?;
            String::from_utf8(bytes).map_err(|e| {
                Error::data(format!("{name} is no text"), e.to_string(), FIX).caused_by(e)
            })
        };
        let config: Config = serde_json::from_str(&read("config.json")?).map_err(|e| {
            Error::from(e).with_message("config.json is not BERT's", FIX).at(folder.display())
        })?;
        let vocabulary = read("vocab.txt")?;
        let name = *WEIGHTS.iter().find(|name| folder.join(name).exists()).unwrap_or(&WEIGHTS[0]);
        let path = folder.join(name);
        let digest = sha256_of_file(&path, 12).map_err(|e| unreadable(&path, e))?;
        let tensors = if name == WEIGHTS[0] {
            candle_core::safetensors::load(&path, &Device::Cpu)
        } else {
            candle_core::pickle::read_all(&path).map(HashMap::from_iter)
        };
        let tensors = tensors.map_err(|e| {
            Error::from(e)
                .with_message(format!("{name} is damaged"), FIX)
                .with_kind(ErrorKind::Data)
                .at(folder.display())
        })?;
        Self::from_parts(&config, &tensors, &vocabulary, digest).map_err(|e| e.at(folder.display()))
    }

    fn from_parts(
        config: &Config,
        tensors: &HashMap<String, Tensor>,
        vocabulary: &str,
        digest: String,
    ) -> Result<Self> {
        config.check()?;
        let (c, wide) = (config.hidden_size, config.intermediate_size);
        let tensor = |name: String, shape: &[usize]| match tensors.get(&name) {
            Some(tensor) if tensor.dims() == shape => Ok(tensor.to_dtype(DType::F32)?),
            found => {
                let got = found.map_or("no such tensor".to_string(), |t| format!("{:?}", t.dims()));
                Err(Error::data(
                    format!("the tensor {name} must have the shape {shape:?}"),
                    got,
                    FIX,
                ))
            }
        };
        let linear = |name: &str, to: usize, from: usize| {
            let weight = tensor(format!("{name}.weight"), &[to, from])?.t()?.contiguous()?;
            Ok::<_, Error>(Dense(weight, tensor(format!("{name}.bias"), &[to])?))
        };
        let norm = |name: &str| {
            let part = |part: &str| tensor(format!("{name}.LayerNorm.{part}"), &[c]);
            Ok::<_, Error>(Norm(part("weight")?, part("bias")?, config.layer_norm_eps as f32))
        };
        let embedding = |name: &str, rows: usize| {
            tensor(format!("bert.embeddings.{name}_embeddings.weight"), &[rows, c])
        };
        let layer = |index: usize| {
            let at = |name: &str| format!("bert.encoder.layer.{index}.{name}");
            let [q, k, v] = ["query", "key", "value"]
                .map(|p| linear(&at(&format!("attention.self.{p}")), c, c));
            let (q, k, v) = (q?, k?, v?);
            Ok::<_, Error>(Layer {
                qkv: Dense(Tensor::cat(&[q.0, k.0, v.0], 1)?, Tensor::cat(&[q.1, k.1, v.1], 0)?),
                attention_out: linear(&at("attention.output.dense"), c, c)?,
                attention_norm: norm(&at("attention.output"))?,
                up: linear(&at("intermediate.dense"), wide, c)?,
                down: linear(&at("output.dense"), c, wide)?,
                norm: norm(&at("output"))?,
            })
        };
        let segment = embedding("token_type", config.type_vocab_size)?.narrow(0, 0, 1)?;
        Ok(Self {
            tokenizer: WordPiece::new(vocabulary, config.vocab_size)?,
            words: embedding("word", config.vocab_size)?,
            positions: embedding("position", config.max_position_embeddings)?
                .broadcast_add(&segment)?,
            norm: norm("bert.embeddings")?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            pooler: linear("bert.pooler.dense", c, c)?,
            classifier: linear("classifier", LABELS.len(), c)?,
            heads: config.num_attention_heads,
            digest,
        })
    }

    /// Returns the token ids of a text with `[CLS]` and `[SEP]`, cut to the model's positions.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.ids(text, self.positions.dim(0)?)
    }

    /// Returns the probabilities (B, 6) of B encoded texts.
    ///
    /// The rows of the texts are consecutive, without padding: dense layers take all rows at once,
    /// and attention is computed text by text.
    fn forward(&self, texts: &[&[u32]]) -> Result<Tensor> {
        let index = |ids: Vec<u32>| Tensor::new(ids, &Device::Cpu);
        let ids = index(texts.concat())?;
        let places = index(texts.iter().flat_map(|t| 0..t.len() as u32).collect())?;
        let mut x =
            (self.words.index_select(&ids, 0)? + self.positions.index_select(&places, 0)?)?;
        x = self.norm.forward(&x)?;
        for layer in &self.layers {
            let mixed = self.attention(&layer.qkv.forward(&x)?, texts)?;
            x = layer.attention_norm.forward(&(layer.attention_out.forward(&mixed)? + x)?)?;
            let wide = layer.up.forward(&x)?.gelu_erf()?;
            x = layer.norm.forward(&(layer.down.forward(&wide)? + x)?)?;
        }
        let starts =
            texts.iter().scan(0, |next, t| Some(std::mem::replace(next, *next + t.len() as u32)));
        let pooled = self.pooler.forward(&x.index_select(&index(starts.collect())?, 0)?)?.tanh()?;
        Ok(sigmoid(&self.classifier.forward(&pooled)?)?)
    }

    /// Every token attends to all tokens of its own text: (N, 3C) -> (N, C).
    fn attention(&self, qkv: &Tensor, texts: &[&[u32]]) -> Result<Tensor> {
        let (mut start, mut out) = (0, Vec::with_capacity(texts.len()));
        for text in texts {
            let t = text.len();
            // (3, heads, T, D)
            let parts =
                qkv.narrow(0, start, t)?.reshape((t, 3, self.heads, ()))?.permute((1, 2, 0, 3))?;
            let (q, k, v) = (
                parts.get(0)?.contiguous()?,
                parts.get(1)?.contiguous()?,
                parts.get(2)?.contiguous()?,
            );
            let scores = (q.matmul(&k.t()?)? / (q.dim(D::Minus1)? as f64).sqrt())?;
            let mixed = softmax_last_dim(&scores)?.matmul(&v)?;
            out.push(mixed.transpose(0, 1)?.flatten_from(1)?);
            start += t;
        }
        Ok(Tensor::cat(&out, 0)?)
    }
}

impl ToxicityScorer for ToxicBert {
    fn identity(&self) -> String {
        format!("toxic-bert, weights sha256 {}", self.digest)
    }

    fn score(&self, texts: &[String]) -> Result<Vec<ToxicityScores>> {
        let rows = texts.iter().map(|text| self.encode(text)).collect::<Result<Vec<_>>>()?;
        let mut batches: Vec<Vec<&[u32]>> = vec![];
        let mut room = 0;
        for row in &rows {
            if row.len() > room || batches.is_empty() {
                batches.push(vec![]);
                room = TOKENS.max(row.len());
            }
            room -= row.len();
            batches.last_mut().expect("a batch").push(row);
        }
        let scores = parallel::map(&batches, |batch| {
            Ok(self.forward(batch)?.flatten_all()?.to_vec1::<f32>()?)
        })?;
        Ok(scores.concat().as_chunks().0.iter().map(|six| ToxicityScores(*six)).collect())
    }
}
