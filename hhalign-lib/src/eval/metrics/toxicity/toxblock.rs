//! The classifier of tox-block: a small LSTM over words.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use crate::base::error::{Error, Result};
use crate::eval::metrics::toxicity::{LABELS, ToxicityScorer, ToxicityScores};

/// The number of words of a text that the classifier reads, from the end.
pub const STEPS: usize = 100;

/// Texts scored at once; the result does not depend on it.
const BATCH: usize = 64;

/// Characters that Keras's tokenizer replaces by a space. The apostrophe stays, so "don't" is one
/// word.
const FILTERS: &str = "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n";

/// The bidirectional LSTM of the Python package tox-block 0.1.2, trained on the Jigsaw toxic
/// comments.
///
/// Words (in lower case, the 19,999 most frequent ones, others dropped) are embedded, two LSTMs
/// read them in both directions, and two dense layers turn the maximum over time of each unit into
/// six probabilities. A short text is padded on the left; a pad counts as a word, since the model
/// was trained without a mask. A text without a known word therefore has the score of a hundred
/// pads (0.02 toxic), not zero.
///
/// These are the raw probabilities. tox-block by default rescales each label to `|p - min| / (max -
/// min)` with two fixed numbers of its configuration. That moves the point of 0.5 by label (for
/// severe_toxic down to 0.32), can exceed 1 and reflects values below `min`, so it is no longer a
/// probability; for the label toxic it changes little.
///
/// # Source
/// Pascal Bliem, tox-block 0.1.2 (MIT), <https://pypi.org/project/tox-block/0.1.2/>.
pub struct ToxBlock {
    /// The index of each word; index 0 is the pad.
    vocabulary: HashMap<String, u32>,
    /// (words, embedding)
    embedding: Tensor,
    /// Both directions, forward first: (2, embedding, 4 units), (2, units, 4 units) and (2, 1, 4
    /// units).
    kernel: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    /// Transposed for `x W + b`: (2 units, hidden), (hidden), (hidden, 6) and (6).
    dense: (Tensor, Tensor),
    out: (Tensor, Tensor),
    digest: String,
}

impl ToxBlock {
    /// Loads the classifier in a folder, or `None` if set-up could not fetch it; fails as
    /// [`Self::from_files`] does.
    pub fn find(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        if dir.as_ref().join("toxblock.safetensors").exists() {
            Self::load(dir).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Loads the two files that `scripts/fetch/get_toxicity_model.py` puts in a folder; fails as
    /// [`Self::from_files`] does.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        Self::from_files(
            dir.as_ref().join("toxblock.safetensors"),
            dir.as_ref().join("toxblock_vocab.txt"),
        )
    }

    /// Loads the weights and the vocabulary from two files of any name.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn from_files(weights: impl AsRef<Path>, vocabulary: impl AsRef<Path>) -> Result<Self> {
        let (weights, vocabulary) = (weights.as_ref(), vocabulary.as_ref());
        let fail = |path: &Path, error: Error| {
            let what = format!("cannot read {} of the toxicity classifier", path.display());
            let fix = "run ./scripts/setup, which fetches it; delete a damaged file first";
            error.with_message(what, fix)
        };
        let bytes = std::fs::read(weights).map_err(|e| fail(weights, Error::io(weights, e)))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
        let tensors = tensors.map_err(|e| fail(weights, e.into()))?;
        let words = std::fs::read_to_string(vocabulary)
            .map_err(|e| fail(vocabulary, Error::io(vocabulary, e)))?;
        let digest = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        Self::from_parts(&tensors, &words, digest).map_err(|e| e.at(weights.display()))
    }

    fn from_parts(tensors: &HashMap<String, Tensor>, words: &str, digest: String) -> Result<Self> {
        let fix = "delete the files of the toxicity model and run ./scripts/setup again";
        // Some sizes come from the file itself; a missing tensor gives zeros here and an error
        // below.
        let size = |name: &str, axis: usize| {
            tensors.get(name).and_then(|t| t.dims().get(axis).copied()).unwrap_or(0)
        };
        let (rows, embed) = (size("embedding.weight", 0), size("embedding.weight", 1));
        let (units, hidden) = (size("lstm.forward.recurrent_kernel", 0), size("dense.weight", 0));
        let tensor = |name: &str, shape: &[usize]| match tensors.get(name) {
            Some(tensor) if tensor.dims() == shape => Ok(tensor.to_dtype(DType::F32)?),
            found => {
                let got = found.map_or("no such tensor".to_string(), |t| format!("{:?}", t.dims()));
                Err(Error::data(
                    format!("the tensor {name} must have the shape {shape:?}"),
                    got,
                    fix,
                ))
            }
        };
        let both = |part: &str, shape: &[usize]| {
            let one = |direction: &str| tensor(&format!("lstm.{direction}.{part}"), shape);
            Ok::<_, Error>(Tensor::stack(&[one("forward")?, one("backward")?], 0)?)
        };
        let layer = |name: &str, to: usize, from: usize| {
            let weight = tensor(&format!("{name}.weight"), &[to, from])?.t()?.contiguous()?;
            Ok::<_, Error>((weight, tensor(&format!("{name}.bias"), &[to])?))
        };
        let embedding = tensor("embedding.weight", &[rows, embed])?;
        // Not `lines`, which would also strip a carriage return that is part of a word.
        let words: Vec<&str> = words.strip_suffix('\n').unwrap_or(words).split('\n').collect();
        let vocabulary: HashMap<_, _> =
            words.iter().zip(1..).map(|(word, index)| (word.to_string(), index)).collect();
        let (lines, different) = (words.len(), vocabulary.len());
        if lines + 1 != rows || different != lines {
            let what = format!(
                "the vocabulary must have {} different words, one a line",
                rows.saturating_sub(1)
            );
            return Err(Error::data(
                what,
                format!("{lines} lines, {different} different words"),
                fix,
            ));
        }
        Ok(Self {
            vocabulary,
            embedding,
            kernel: both("kernel", &[embed, 4 * units])?,
            recurrent: both("recurrent_kernel", &[units, 4 * units])?,
            bias: both("bias", &[4 * units])?.unsqueeze(1)?,
            dense: layer("dense", hidden, 2 * units)?,
            out: layer("out", LABELS.len(), hidden)?,
            digest,
        })
    }

    /// Returns the word indices of a text: its last [`STEPS`] known words, with pads (0) on the
    /// left.
    pub fn encode(&self, text: &str) -> [u32; STEPS] {
        let lower = text.to_lowercase();
        // Only spaces and the filtered characters separate words, as in Keras; a no-break space
        // does not.
        let words = lower.split(|c| c == ' ' || FILTERS.contains(c));
        let known: Vec<u32> = words.filter_map(|word| self.vocabulary.get(word).copied()).collect();
        let kept = &known[known.len().saturating_sub(STEPS)..];
        let mut ids = [0; STEPS];
        ids[STEPS - kept.len()..].copy_from_slice(kept);
        ids
    }

    /// The probabilities (B, 6) of B encoded texts.
    fn forward(&self, rows: &[[u32; STEPS]]) -> Result<Tensor> {
        let batch = rows.len();
        let (_, units, gates) = self.recurrent.dims3()?;
        // Time is the first dimension, so that a step is contiguous; the second half is reversed in
        // time.
        let ids: Vec<u32> = (0..STEPS)
            .chain((0..STEPS).rev())
            .flat_map(|t| rows.iter().map(move |r| r[t]))
            .collect();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let words = self.embedding.index_select(&ids, 0)?.reshape((2, STEPS * batch, ()))?;
        // The input of the gates does not depend on the state: one product for all steps.
        let inputs = words
            .matmul(&self.kernel)?
            .broadcast_add(&self.bias)?
            .reshape((2, STEPS, batch, gates))?;
        let inputs = inputs.transpose(0, 1)?.contiguous()?;
        // Keras's older approximation of the sigmoid of a gate: a line through (0, 0.5), clipped at
        // 0 and 1.
        let hard_sigmoid = |x: Tensor| x.affine(0.2, 0.5)?.clamp(0f32, 1f32);
        let mut state = Tensor::zeros((2, batch, units), DType::F32, &Device::Cpu)?;
        let mut cell = state.clone();
        let mut best = Tensor::full(f32::NEG_INFINITY, (2, batch, units), &Device::Cpu)?;
        for step in 0..STEPS {
            let z = (inputs.get(step)? + state.matmul(&self.recurrent)?)?;
            let part = |index: usize| z.narrow(2, index * units, units)?.contiguous();
            let (input, forget, output) =
                (hard_sigmoid(part(0)?)?, hard_sigmoid(part(1)?)?, hard_sigmoid(part(3)?)?);
            cell = ((forget * &cell)? + (input * part(2)?.tanh()?)?)?;
            state = (output * cell.tanh()?)?;
            // The maximum over time needs no order, so the backward half is not reversed.
            best = best.maximum(&state)?;
        }
        let pooled = Tensor::cat(&[best.get(0)?, best.get(1)?], 1)?;
        let hidden = pooled.matmul(&self.dense.0)?.broadcast_add(&self.dense.1)?.relu()?;
        Ok(candle_nn::ops::sigmoid(&hidden.matmul(&self.out.0)?.broadcast_add(&self.out.1)?)?)
    }
}

impl ToxicityScorer for ToxBlock {
    fn identity(&self) -> String {
        format!(
            "tox-block 0.1.2, raw scores, weights sha256 {}",
            self.digest.get(..12).unwrap_or(&self.digest)
        )
    }

    fn score(&self, texts: &[String]) -> Result<Vec<ToxicityScores>> {
        let mut scores = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            let rows: Vec<_> = batch.iter().map(|text| self.encode(text)).collect();
            let probabilities = self.forward(&rows)?.flatten_all()?.to_vec1::<f32>()?;
            scores.extend(probabilities.as_chunks().0.iter().map(|six| ToxicityScores(*six)));
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Invented weights, large enough to drive gates to 0 and 1; no matrix is square, so that no
    /// transposed one passes.
    fn tensors() -> HashMap<String, Tensor> {
        let shapes = "embedding.weight 7 3,dense.weight 5 4,dense.bias 5,out.weight 6 5,out.bias 6,\
            lstm.forward.kernel 3 8,lstm.forward.recurrent_kernel 2 8,lstm.forward.bias 8,\
            lstm.backward.kernel 3 8,lstm.backward.recurrent_kernel 2 8,lstm.backward.bias 8";
        let tensor = |line: &str| {
            let (name, shape) = line.split_once(' ').unwrap();
            let shape: Vec<usize> = shape.split(' ').map(|n| n.parse().unwrap()).collect();
            let number = |i: usize| 3.0 * ((i * i + name.len()) as f32).sin();
            let numbers = (0..shape.iter().product()).map(number).collect();
            (name.to_string(), Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap())
        };
        shapes.split(',').map(tensor).collect()
    }

    fn small() -> ToxBlock {
        ToxBlock::from_parts(&tensors(), "you\nare\ngood\nbad\ndon't\n\u{a0}bad\n", String::new())
            .unwrap()
    }

    fn difference(a: &[ToxicityScores], b: &[ToxicityScores]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter()
            .zip(b)
            .flat_map(|(a, b)| a.0.into_iter().zip(b.0))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    }

    /// The whole network again, one number at a time in double precision.
    fn by_hand(tensors: &HashMap<String, Tensor>, ids: [u32; STEPS]) -> ToxicityScores {
        let get = |name: &str, part: &str| {
            let numbers =
                tensors[&format!("{name}.{part}")].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            numbers.into_iter().map(f64::from).collect::<Vec<_>>()
        };
        let dot = |x: &[f64], w: &[f64], apart: usize| {
            (0..x.len()).map(|i| x[i] * w[apart * i]).sum::<f64>()
        };
        let (embedding, mut pooled) = (get("embedding", "weight"), Vec::new());
        for lstm in ["lstm.forward", "lstm.backward"] {
            let [kernel, recurrent, bias] =
                ["kernel", "recurrent_kernel", "bias"].map(|part| get(lstm, part));
            let (mut state, mut cell, mut best) = ([0.0; 2], [0.0; 2], [f64::MIN; 2]);
            for step in 0..STEPS {
                let id = ids[if lstm == "lstm.forward" { step } else { STEPS - 1 - step }] as usize;
                let from_word = |k: usize| dot(&embedding[3 * id..3 * id + 3], &kernel[k..], 8);
                let z = |k: usize| bias[k] + from_word(k) + dot(&state, &recurrent[k..], 8);
                let gate = |k: usize| (0.2 * z(k) + 0.5).clamp(0.0, 1.0);
                cell = [0, 1].map(|u| gate(2 + u) * cell[u] + gate(u) * z(4 + u).tanh());
                state = [0, 1].map(|u| gate(6 + u) * cell[u].tanh());
                best = [0, 1].map(|u| state[u].max(best[u]));
            }
            pooled.extend(best);
        }
        let layer = |name: &str, x: &[f64]| -> Vec<f64> {
            get(name, "weight")
                .chunks(x.len())
                .zip(get(name, "bias"))
                .map(|(row, b)| b + dot(x, row, 1))
                .collect()
        };
        let out = layer(
            "out",
            &layer("dense", &pooled).into_iter().map(|x| x.max(0.0)).collect::<Vec<_>>(),
        );
        ToxicityScores(std::array::from_fn(|i| (1.0 / (1.0 + (-out[i]).exp())) as f32))
    }

    #[test]
    fn words_are_found_as_keras_finds_them() {
        let ids = |text: &str| {
            small().encode(text).into_iter().skip_while(|i| *i == 0).collect::<Vec<_>>()
        };
        assert_eq!(ids("You are GOOD; (bad)\tyou,are\nnot. Don't! don t"), [1, 2, 3, 4, 1, 2, 5]);
        // A no-break space belongs to its word, and so does a carriage return.
        assert_eq!(ids("\u{a0}bad bad\r bad"), [6, 4]);
        let long =
            small().encode(&format!("{} are {}", "bad ".repeat(50), "good ".repeat(STEPS - 1)));
        assert_eq!((long[0], long[1], long[STEPS - 1]), (2, 3, 3), "a long text keeps its end");
    }

    #[test]
    fn plain_loops_batches_and_order_give_the_same_scores() {
        let words = ["you", "are", "good", "bad", "don't", "unknown"];
        let text =
            |i: usize| (0..i * 2).map(|j| words[(i * 7 + j * j) % 6]).collect::<Vec<_>>().join(" ");
        let (model, tensors, mut texts) =
            (small(), tensors(), (0..BATCH + 6).map(text).collect::<Vec<_>>());
        let whole = model.score(&texts).unwrap();
        assert!(
            whole.iter().any(|s| (s.toxic() - whole[0].toxic()).abs() > 0.01),
            "the texts must differ"
        );
        let looped: Vec<_> = texts.iter().map(|t| by_hand(&tensors, model.encode(t))).collect();
        let one_by_one: Vec<_> = texts.chunks(1).flat_map(|t| model.score(t).unwrap()).collect();
        texts.reverse();
        let back: Vec<_> = model.score(&texts).unwrap().into_iter().rev().collect();
        let off = [looped, one_by_one, back].map(|other| difference(&whole, &other));
        assert!(off[0] < 1e-5 && off[1] < 1e-6 && off[2] < 1e-6, "{off:?}");
    }

    #[test]
    fn damaged_models_are_refused() {
        let refused = |rows: usize, words: &str| {
            let mut tensors = tensors();
            tensors.insert(
                "out.weight".into(),
                Tensor::zeros((rows, 5), DType::F32, &Device::Cpu).unwrap(),
            );
            ToxBlock::from_parts(&tensors, words, String::new())
                .err()
                .expect("an error")
                .to_string()
        };
        assert!(
            refused(5, "a\nb\nc\nd\ne\nf")
                .contains("out.weight must have the shape [6, 5]\n  got: [5, 5]")
        );
        assert!(refused(6, "a\na\nb\nc\nd\ne").contains("6 lines, 5 different"));
        assert!(
            ToxBlock::load("no such folder")
                .err()
                .expect("an error")
                .to_string()
                .contains("./scripts/setup")
        );
    }

    #[test]
    fn the_real_model_gives_the_scores_of_the_original() {
        let Some(folder) = std::env::var_os("HHALIGN_TEST_DATA") else {
            return println!(
                "skipped: HHALIGN_TEST_DATA is not set, so the real toxicity model is not tested"
            );
        };
        let path = |name: &str| Path::new(&folder).join("toxicity").join(name);
        let model =
            ToxBlock::from_files(path("toxblock_f16.safetensors"), path("toxblock_vocab.txt"))
                .unwrap();
        let cases = std::fs::read_to_string(path("toxblock_parity.json")).unwrap();
        let cases: Vec<serde_json::Value> = serde_json::from_str(&cases).unwrap();
        let compare = |case: &serde_json::Value| {
            let text = case["text"].as_str().unwrap().to_string();
            let ids = model.encode(&text).into_iter().filter(|id| *id != 0);
            assert_eq!(ids.collect::<serde_json::Value>(), case["ids_nonzero"]);
            let raw = serde_json::from_value(case["raw"].clone()).unwrap();
            difference(&model.score(&[text]).unwrap(), &[ToxicityScores(raw)])
        };
        let largest = cases.iter().map(compare).fold(f32::MIN, f32::max);
        println!(
            "{}: largest difference {largest:.1e} over {} texts",
            model.identity(),
            cases.len()
        );
        assert!((0.0..1e-3).contains(&largest));
    }
}
