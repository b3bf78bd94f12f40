//! Preference losses as pure functions of log-probabilities. They do not know the model.
//!
//! Notation: a = log π(y_w) - log ref(y_w) for the chosen reply, b = log π(y_l) - log ref(y_l) for
//! the rejected reply, D = a - b. Log-probabilities are summed over reply tokens. ls is log σ, ε is
//! `label_smoothing`.
//!
//! Read this file first: [`PairLogps`] holds the log-probabilities of a batch of pairs.
//! `preference` has the losses, one match arm each. `values` has [`Values`], the vector with
//! operators that a lesson computes with; `arena` stores its numbers.

mod arena;
mod preference;
mod values;

use candle_core::{DType, Tensor};

use crate::base::error::{Error, Result};
pub use arena::ArenaSize;
pub use preference::PreferenceLoss;
pub use values::Values;
pub(crate) use values::mean;

/// Summed log-probabilities of both replies of B pairs under policy and reference, and the replies'
/// lengths.
///
/// The fields are plain tensors, so training makes no [`Values`]. The methods return [`Values`] for
/// lessons.
///
/// # Example
/// ```
/// use hhalign::loss::{PairLogps, PairValues, Values};
/// let pairs = PairLogps::new(PairValues {
///     policy_chosen: Values::new(&[-26.0, -52.0]),
///     policy_rejected: Values::new(&[-24.0, -58.0]),
///     ref_chosen: Values::new(&[-30.0, -44.0]),
///     ref_rejected: Values::new(&[-18.0, -36.0]),
///     chosen_tokens: vec![14, 20],
///     rejected_tokens: vec![8, 16],
/// })?;
/// assert_eq!(pairs.margins().to_vec()?, [10.0, 14.0]);
/// let fallen = pairs.policy_chosen() - 8.0;
/// let fallen = PairLogps::new(PairValues { policy_chosen: fallen, ..pairs.values() })?;
/// assert_eq!(fallen.margins().to_vec()?, [2.0, 6.0]);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PairLogps {
    // Four vectors (B) of one dtype, as `new` and `ReferenceLogps::with_policy` ensure.
    pub(crate) policy_chosen: Tensor,
    pub(crate) policy_rejected: Tensor,
    pub(crate) ref_chosen: Tensor,
    pub(crate) ref_rejected: Tensor,
    pub(crate) chosen_tokens: Vec<usize>,
    pub(crate) rejected_tokens: Vec<usize>,
}

/// The inputs of [`PairLogps::new`], by name.
#[derive(Debug, Clone)]
pub struct PairValues {
    /// log π(y_w | x), (B).
    pub policy_chosen: Values,
    /// log π(y_l | x), (B).
    pub policy_rejected: Values,
    /// log ref(y_w | x), (B).
    pub ref_chosen: Values,
    /// log ref(y_l | x), (B).
    pub ref_rejected: Values,
    /// The number of tokens in each chosen reply, B of them.
    pub chosen_tokens: Vec<usize>,
    /// The number of tokens in each rejected reply, B of them.
    pub rejected_tokens: Vec<usize>,
}

impl PairLogps {
    /// Makes pairs from their values and keeps the values' gradients.
    ///
    /// # Shapes
    /// four vectors (B), two lists of B lengths
    ///
    /// # Errors
    /// There is no pair, the numbers of values or lengths differ, a reply has no tokens, values are
    /// failed, or their gradient was released.
    pub fn new(values: PairValues) -> Result<Self> {
        let PairValues { policy_chosen, policy_rejected, ref_chosen, ref_rejected, .. } = values;
        let mut tensors = [
            policy_chosen.tensor()?,
            policy_rejected.tensor()?,
            ref_chosen.tensor()?,
            ref_rejected.tensor()?,
        ];
        if tensors.iter().any(|t| t.dtype() != tensors[0].dtype()) {
            for tensor in &mut tensors {
                *tensor = tensor.to_dtype(DType::F64)?;
            }
        }
        let [policy_chosen, policy_rejected, ref_chosen, ref_rejected] = tensors;
        let (chosen_tokens, rejected_tokens) = (values.chosen_tokens, values.rejected_tokens);
        let pairs = Self {
            policy_chosen,
            policy_rejected,
            ref_chosen,
            ref_rejected,
            chosen_tokens,
            rejected_tokens,
        };
        pairs.check()?;
        Ok(pairs)
    }

    /// Returns the values of these pairs, for making a copy with some of them changed.
    pub fn values(&self) -> PairValues {
        PairValues {
            policy_chosen: self.policy_chosen(),
            policy_rejected: self.policy_rejected(),
            ref_chosen: self.ref_chosen(),
            ref_rejected: self.ref_rejected(),
            chosen_tokens: self.chosen_tokens.clone(),
            rejected_tokens: self.rejected_tokens.clone(),
        }
    }

    /// Returns the number of pairs, B.
    pub fn len(&self) -> usize {
        self.policy_chosen.elem_count()
    }

    /// Returns whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns log π(y_w | x), with the policy's gradient, (B).
    pub fn policy_chosen(&self) -> Values {
        Values::from_tensor(self.policy_chosen.clone())
    }

    /// Returns log π(y_l | x), with the policy's gradient, (B).
    pub fn policy_rejected(&self) -> Values {
        Values::from_tensor(self.policy_rejected.clone())
    }

    /// Returns log ref(y_w | x), (B).
    pub fn ref_chosen(&self) -> Values {
        Values::from_tensor(self.ref_chosen.clone())
    }

    /// Returns log ref(y_l | x), (B).
    pub fn ref_rejected(&self) -> Values {
        Values::from_tensor(self.ref_rejected.clone())
    }

    /// Returns the number of tokens in each chosen reply, B of them.
    pub fn chosen_tokens(&self) -> &[usize] {
        &self.chosen_tokens
    }

    /// Returns the number of tokens in each rejected reply, B of them.
    pub fn rejected_tokens(&self) -> &[usize] {
        &self.rejected_tokens
    }

    /// Returns a = log π(y_w) - log ref(y_w): how far the policy moved on the chosen replies, (B).
    pub fn chosen_logratios(&self) -> Values {
        self.policy_chosen() - self.ref_chosen()
    }

    /// Returns b = log π(y_l) - log ref(y_l): how far the policy moved on the rejected replies,
    /// (B).
    pub fn rejected_logratios(&self) -> Values {
        self.policy_rejected() - self.ref_rejected()
    }

    /// Returns D = a - b, the margins that most losses use, (B).
    pub fn margins(&self) -> Values {
        self.chosen_logratios() - self.rejected_logratios()
    }

    /// Returns the index of the pair with the largest D, where training moved most in the label's
    /// direction.
    pub fn widest(&self) -> usize {
        let [a, b] = self.logratios();
        let margins = to_f64(&subtract(&a, &b));
        (0..margins.len()).max_by(|&x, &y| margins[x].total_cmp(&margins[y])).unwrap_or(0)
    }

    /// Returns the implicit rewards beta · (log π - log ref) of this batch.
    pub fn rewards(&self, beta: f64) -> Rewards {
        let [a, b] = self.logratios();
        let scale = |ratios: &Tensor| to_f64(ratios).into_iter().map(|x| beta * x).collect();
        Rewards { chosen: scale(&a), rejected: scale(&b) }
    }

    /// Returns a copy of these pairs without gradients.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self {
            policy_chosen: self.policy_chosen.detach(),
            policy_rejected: self.policy_rejected.detach(),
            ..self.clone()
        }
    }

    /// Returns a and b as tensors.
    pub(crate) fn logratios(&self) -> [Tensor; 2] {
        [
            subtract(&self.policy_chosen, &self.ref_chosen),
            subtract(&self.policy_rejected, &self.ref_rejected),
        ]
    }

    fn check(&self) -> Result<()> {
        let n = self.len();
        let lengths = [
            self.policy_rejected.elem_count(),
            self.ref_chosen.elem_count(),
            self.ref_rejected.elem_count(),
            self.chosen_tokens.len(),
            self.rejected_tokens.len(),
        ];
        if n == 0 || lengths.iter().any(|&l| l != n) {
            return Err(Error::new(
                "log-probabilities of pairs must have one length and must not be empty",
                format!("{n} and {lengths:?}"),
                "give one number for each pair",
            ));
        }
        if self.chosen_tokens.iter().chain(&self.rejected_tokens).any(|&t| t == 0) {
            return Err(Error::new(
                "a reply without tokens has no log-probability",
                "0 tokens",
                "drop such pairs, as the audit of Dataset::read does",
            ));
        }
        Ok(())
    }

    fn lengths(&self) -> Result<[Tensor; 2]> {
        let like = &self.policy_chosen;
        let tensor = |n: &[usize]| -> Result<Tensor> {
            let n: Vec<f64> = n.iter().map(|&n| n as f64).collect();
            Ok(Tensor::from_vec(n, self.len(), like.device())?.to_dtype(like.dtype())?)
        };
        Ok([tensor(&self.chosen_tokens)?, tensor(&self.rejected_tokens)?])
    }
}

const SAME_SHAPE: &str = "PairLogps hold vectors of one length and one floating-point dtype";

fn subtract(x: &Tensor, y: &Tensor) -> Tensor {
    (x - y).expect(SAME_SHAPE)
}

/// Returns the numbers of a vector of [`PairLogps`] in f64.
pub(crate) fn to_f64(vector: &Tensor) -> Vec<f64> {
    values::numbers(vector).expect(SAME_SHAPE)
}

/// Returns an error unless β is positive and finite. Every check of β calls this function.
///
/// # Errors
/// β is zero, negative, infinite or NaN.
pub fn check_beta(beta: f64) -> Result<()> {
    if beta > 0.0 && beta.is_finite() {
        return Ok(());
    }
    Err(Error::new(
        "beta must be positive",
        beta.to_string(),
        "0.1 is usual; 0.01 to 0.5 are tried",
    ))
}

/// Implicit rewards beta · (log π - log ref) of both replies.
///
/// # Source
/// arXiv 2305.18290, equation 5, without the term that cancels between two replies to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewards {
    /// Rewards of the chosen replies.
    pub chosen: Vec<f64>,
    /// Rewards of the rejected replies.
    pub rejected: Vec<f64>,
}

impl Rewards {
    /// Returns the chosen reward minus the rejected reward of each pair.
    pub fn margins(&self) -> Vec<f64> {
        self.chosen.iter().zip(&self.rejected).map(|(c, r)| c - r).collect()
    }

    /// Counts the pairs whose chosen reply has the larger reward. A tie counts one half, so a
    /// policy equal to its reference scores at chance level.
    pub fn correct(&self) -> f64 {
        self.margins()
            .iter()
            .map(|&m| {
                if m > 0.0 {
                    1.0
                } else if m == 0.0 {
                    0.5
                } else {
                    0.0
                }
            })
            .sum()
    }
}
