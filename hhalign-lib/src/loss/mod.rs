//! Preference losses: pure functions of log-probabilities. They know no model.
//!
//! Notation: a = log π(y_w) - log ref(y_w) for the chosen reply, b the same for the rejected one, D = a - b;
//! log-probabilities are summed over reply tokens; ls is log σ; ε is `label_smoothing`.

mod arena;
mod preference;
mod values;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
pub use arena::ArenaSize;
pub use preference::PreferenceLoss;
pub use values::Values;
pub(crate) use values::mean;

/// Summed log-probabilities of both replies of B pairs under policy and reference, and the replies'
/// lengths.
///
/// It holds plain tensors: training makes no [`Values`]. A lesson asks for them by the methods.
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
/// # Ok::<(), hhalign::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PairLogps {
    // Four vectors (B) of one dtype: `new` and `ReferenceLogps::beside` see to it.
    pub(crate) policy_chosen: Tensor,
    pub(crate) policy_rejected: Tensor,
    pub(crate) ref_chosen: Tensor,
    pub(crate) ref_rejected: Tensor,
    pub(crate) chosen_tokens: Vec<usize>,
    pub(crate) rejected_tokens: Vec<usize>,
}

/// What [`PairLogps`] are made of, by name.
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
    /// Tokens in each chosen reply, B of them.
    pub chosen_tokens: Vec<usize>,
    /// Tokens in each rejected reply, B of them.
    pub rejected_tokens: Vec<usize>,
}

impl PairLogps {
    /// Makes pairs from their values, with the gradients that these have.
    ///
    /// # Shapes
    /// four vectors (B), two lists of B lengths
    ///
    /// # Errors
    /// No pair, values or lengths of different numbers of pairs, a reply without tokens, failed
    /// values, or values whose gradient was released.
    pub fn new(values: PairValues) -> Result<Self> {
        let PairValues { policy_chosen, policy_rejected, ref_chosen, ref_rejected, .. } = values;
        let mut tensors =
            [policy_chosen.tensor()?, policy_rejected.tensor()?, ref_chosen.tensor()?, ref_rejected.tensor()?];
        if tensors.iter().any(|t| t.dtype() != tensors[0].dtype()) {
            for tensor in &mut tensors {
                *tensor = tensor.to_dtype(DType::F64)?;
            }
        }
        let [policy_chosen, policy_rejected, ref_chosen, ref_rejected] = tensors;
        let (chosen_tokens, rejected_tokens) = (values.chosen_tokens, values.rejected_tokens);
        let pairs = Self { policy_chosen, policy_rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens };
        pairs.check()?;
        Ok(pairs)
    }

    /// Returns the values that these pairs are made of, to make others with some of them changed.
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

    /// Whether there is no pair.
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

    /// Returns b = log π(y_l) - log ref(y_l): how far it moved on the rejected replies, (B).
    pub fn rejected_logratios(&self) -> Values {
        self.policy_rejected() - self.ref_rejected()
    }

    /// Returns D = a - b, what most losses are made of, (B).
    pub fn margins(&self) -> Values {
        self.chosen_logratios() - self.rejected_logratios()
    }

    /// Returns the pair with the largest D: where training moved most in the label's direction.
    pub fn widest(&self) -> usize {
        let [a, b] = self.logratios();
        let margins = plain(&minus(&a, &b));
        (0..margins.len()).max_by(|&x, &y| margins[x].total_cmp(&margins[y])).unwrap_or(0)
    }

    /// Returns the implicit rewards beta · (log π - log ref) of this batch.
    pub fn rewards(&self, beta: f64) -> Rewards {
        let [a, b] = self.logratios();
        let scale = |ratios: &Tensor| plain(ratios).into_iter().map(|x| beta * x).collect();
        Rewards { chosen: scale(&a), rejected: scale(&b) }
    }

    /// Returns the same pairs without a gradient.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self {
            policy_chosen: self.policy_chosen.detach(),
            policy_rejected: self.policy_rejected.detach(),
            ..self.clone()
        }
    }

    /// a and b as tensors.
    pub(crate) fn logratios(&self) -> [Tensor; 2] {
        [minus(&self.policy_chosen, &self.ref_chosen), minus(&self.policy_rejected, &self.ref_rejected)]
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
                "log-probabilities of pairs must be of one length, and not empty",
                format!("{n} and {lengths:?}"),
                "give one number for each pair",
            ));
        }
        if self.chosen_tokens.iter().chain(&self.rejected_tokens).any(|&t| t == 0) {
            return Err(Error::new(
                "a reply without tokens has no log-probability",
                "0 tokens",
                "drop such pairs; the audit of Dataset::read does",
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

const SAME: &str = "PairLogps hold vectors of one length and one floating-point dtype";

fn minus(x: &Tensor, y: &Tensor) -> Tensor {
    (x - y).expect(SAME)
}

/// The numbers of a vector of [`PairLogps`], in f64.
pub(crate) fn plain(vector: &Tensor) -> Vec<f64> {
    values::numbers(vector).expect(SAME)
}

/// Says so where β is not positive: the one place where it is checked.
///
/// # Errors
/// Zero, a negative number, an infinity or NaN.
pub fn check_beta(beta: f64) -> Result<()> {
    if beta > 0.0 && beta.is_finite() {
        return Ok(());
    }
    Err(Error::new("beta must be positive", beta.to_string(), "0.1 is usual; 0.01 to 0.5 are tried"))
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
    /// Chosen minus rejected, pair by pair.
    pub fn margins(&self) -> Vec<f64> {
        self.chosen.iter().zip(&self.rejected).map(|(c, r)| c - r).collect()
    }

    /// How many pairs have the chosen reply ahead; a tie counts one half, so that a policy equal to its reference
    /// stands at chance.
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
