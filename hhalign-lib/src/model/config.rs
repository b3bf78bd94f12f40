//! The sizes of a model: presets and checks.

use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};

/// The sizes and rates of a [`Gpt`](super::Gpt).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GptConfig {
    /// Size of the vocabulary, V.
    pub vocab_size: usize,
    /// Maximum length of a sequence, T.
    pub block_size: usize,
    /// Number of transformer blocks.
    pub n_layer: usize,
    /// Number of attention heads.
    pub n_head: usize,
    /// Width of the residual stream, C.
    pub n_embd: usize,
    /// Dropout probability in training.
    pub dropout: f64,
    /// Added to the variance in a layer norm.
    pub layer_norm_epsilon: f64,
}

/// Named model sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// 4 layers, 4 heads, 128 wide: minutes on two cores.
    Toy,
    /// 6 layers, 6 heads, 384 wide, 4,096 ids: about 12 million parameters.
    Small,
    /// 12 layers, 12 heads, 768 wide, GPT-2's 50,257 ids: 85 million parameters in its blocks, 124
    /// million in all.
    Gpt2,
}

impl Preset {
    /// Returns the preset with a name: `toy`, `small` or `gpt2`.
    ///
    /// # Errors
    /// The name is another one.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "toy" => Ok(Self::Toy),
            "small" => Ok(Self::Small),
            "gpt2" => Ok(Self::Gpt2),
            other => Err(Error::new("no such preset", other, "choose toy, small or gpt2")),
        }
    }

    /// Returns the size of the vocabulary to learn, or `None` if GPT-2's vocabulary is used.
    pub fn vocab_size(self) -> Option<usize> {
        match self {
            Self::Toy => Some(2048),
            Self::Small => Some(4096),
            Self::Gpt2 => None,
        }
    }

    /// Returns the model's sizes for a vocabulary of `vocab_size` ids.
    pub fn config(self, vocab_size: usize) -> GptConfig {
        let (n_layer, n_head, n_embd, block_size) = match self {
            Self::Toy => (4, 4, 128, 256),
            Self::Small => (6, 6, 384, 512),
            Self::Gpt2 => (12, 12, 768, 1024),
        };
        GptConfig {
            vocab_size,
            block_size,
            n_layer,
            n_head,
            n_embd,
            dropout: 0.0,
            layer_norm_epsilon: 1e-5,
        }
    }
}

/// The name that [`Preset::from_name`] reads.
impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Toy => "toy",
            Self::Small => "small",
            Self::Gpt2 => "gpt2",
        })
    }
}

impl GptConfig {
    /// Checks the sizes.
    ///
    /// # Errors
    /// A size is zero, `n_head` does not divide `n_embd`, or a rate is out of range.
    pub fn check(&self) -> Result<()> {
        let sizes = [self.vocab_size, self.block_size, self.n_layer, self.n_head, self.n_embd];
        if sizes.contains(&0) {
            return Err(Error::new(
                "every size of a model must be at least 1",
                format!("{self:?}"),
                "start from a preset",
            ));
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(Error::new(
                "n_head must divide n_embd",
                format!("n_embd {}, n_head {}", self.n_embd, self.n_head),
                "for example 128 and 4",
            ));
        }
        if !(self.layer_norm_epsilon > 0.0 && self.layer_norm_epsilon.is_finite()) {
            let got = self.layer_norm_epsilon.to_string();
            return Err(Error::new("layer_norm_epsilon must be positive", got, "1e-5 is usual"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::new(
                "dropout must be in [0, 1)",
                self.dropout.to_string(),
                "0.0 or 0.1 are usual",
            ));
        }
        Ok(())
    }
}

/// Shows the sizes in one line, for a report.
///
/// # Example
/// ```
/// let config = hhalign::model::Preset::Toy.config(2048);
/// let sizes = "GPT-2's, 4 layers, 4 heads, 128 wide, 2048 ids, up to 256 tokens";
/// assert_eq!(config.to_string(), sizes);
/// ```
impl std::fmt::Display for GptConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { n_layer, n_head, n_embd, vocab_size, block_size, .. } = self;
        write!(
            f,
            "GPT-2's, {n_layer} layers, {n_head} heads, {n_embd} wide, {vocab_size} ids, \
             up to {block_size} tokens"
        )?;
        if self.dropout > 0.0 { write!(f, ", dropout {}", self.dropout) } else { Ok(()) }
    }
}
