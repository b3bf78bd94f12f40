//! Preference losses: pure functions of log-probabilities. They know no model.
//!
//! Notation: a = log π(y_w) - log ref(y_w) for the chosen reply, b the same for the rejected one, D = a - b;
//! log-probabilities are summed over reply tokens; ls is log σ; ε is `label_smoothing`.

mod preference;
mod values;

use candle_core::Tensor;

use crate::error::{Error, Result};
pub use preference::PreferenceLoss;
pub use values::Values;

/// Summed log-probabilities of both replies of B pairs under policy and reference, and the replies' lengths.
#[derive(Debug, Clone)]
pub struct PairLogps {
    /// log π(y_w | x), with the policy's gradient, (B).
    pub policy_chosen: Values,
    /// log π(y_l | x), with the policy's gradient, (B).
    pub policy_rejected: Values,
    /// log ref(y_w | x), (B).
    pub ref_chosen: Values,
    /// log ref(y_l | x), (B).
    pub ref_rejected: Values,
    /// Tokens in each chosen reply.
    pub chosen_tokens: Vec<usize>,
    /// Tokens in each rejected reply.
    pub rejected_tokens: Vec<usize>,
}

impl PairLogps {
    /// a = log π(y_w) - log ref(y_w): how far the policy moved on the chosen replies, (B).
    pub fn chosen_logratios(&self) -> Values {
        &self.policy_chosen - &self.ref_chosen
    }

    /// b = log π(y_l) - log ref(y_l): the same for the rejected replies, (B).
    pub fn rejected_logratios(&self) -> Values {
        &self.policy_rejected - &self.ref_rejected
    }

    /// D = a - b, what most losses are made of, (B).
    pub fn margins(&self) -> Values {
        &self.chosen_logratios() - &self.rejected_logratios()
    }

    /// The pair with the largest D: where training moved most in the direction of the label.
    pub fn widest(&self) -> usize {
        let margins = self.margins().to_vec();
        (0..margins.len()).max_by(|&x, &y| margins[x].total_cmp(&margins[y])).unwrap_or(0)
    }

    /// What the implicit reward beta · (log π - log ref) says of this batch.
    pub fn rewards(&self, beta: f64) -> Rewards {
        let scale = |v: Values| v.to_vec().into_iter().map(|x| beta * x).collect();
        Rewards { chosen: scale(self.chosen_logratios()), rejected: scale(self.rejected_logratios()) }
    }

    /// The same pairs without a gradient.
    #[must_use]
    pub fn detach(&self) -> Self {
        let free = |v: &Values| Values::from_tensor(v.tensor().detach());
        Self { policy_chosen: free(&self.policy_chosen), policy_rejected: free(&self.policy_rejected), ..self.clone() }
    }

    fn check(&self) -> Result<()> {
        let n = self.policy_chosen.len();
        let lengths = [
            self.policy_rejected.len(),
            self.ref_chosen.len(),
            self.ref_rejected.len(),
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
        let like = self.policy_chosen.tensor();
        let tensor = |n: &[usize]| -> Result<Tensor> {
            let n: Vec<f64> = n.iter().map(|&n| n as f64).collect();
            Ok(Tensor::from_vec(n, self.policy_chosen.len(), like.device())?.to_dtype(like.dtype())?)
        };
        Ok([tensor(&self.chosen_tokens)?, tensor(&self.rejected_tokens)?])
    }
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
