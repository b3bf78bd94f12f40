//! Which of two given replies a model prefers: by its implicit reward, and by plain likelihood.

use super::measure::{Better, Cases, Measure};
use crate::loss::{PairLogps, Rewards, plain};

/// The name of [`reward_accuracy`] in tables and files: what DPO trains for, and no comparison with its reference.
pub const REWARD_ACCURACY: &str = "reward accuracy";

/// Share of held-out pairs whose chosen reply has the higher implicit reward, a tie one half; the reference itself stands at
/// one half by definition.
///
/// # Source
/// arXiv 2305.18290, equation 5; TRL's `rewards/accuracies`.
///
/// # Example
/// ```
/// use hhalign::{eval::ranking::reward_accuracy, loss::Rewards};
/// let rewards = Rewards { chosen: vec![1.0, 2.0, 0.0, 1.0], rejected: vec![0.0, 1.0, 0.0, 3.0] };
/// assert_eq!(reward_accuracy(&rewards, 0).value(), 2.5 / 4.0);
/// ```
pub fn reward_accuracy(rewards: &Rewards, seed: u64) -> Measure {
    let margins = rewards.margins();
    let count = |holds: fn(f64) -> bool| margins.iter().filter(|m| holds(**m)).count();
    let cases = Cases::Won { wins: count(|m| m > 0.0), ties: count(|m| m == 0.0), losses: count(|m| m < 0.0) };
    Measure::plain(REWARD_ACCURACY, Better::Higher, cases, seed)
}

/// Share of pairs whose chosen reply is the likelier one by itself.
#[derive(Debug, Clone)]
pub struct LikelihoodRanking {
    /// Under the reference.
    pub reference: Measure,
    /// Under the policy.
    pub policy: Measure,
}

/// [`LikelihoodRanking`] from the log-probabilities of both models.
///
/// This is ranking without a reference: long replies are less likely, whatever their worth.
pub fn likelihood_ranking(logps: &PairLogps, seed: u64) -> LikelihoodRanking {
    let of = |chosen, rejected| {
        let (chosen, rejected) = (plain(chosen), plain(rejected));
        let cases = Cases::Share(chosen.iter().zip(&rejected).map(|(c, r)| c > r).collect());
        Measure::plain("chosen reply is the likelier one", Better::Neither, cases, seed)
    };
    LikelihoodRanking {
        reference: of(&logps.ref_chosen, &logps.ref_rejected),
        policy: of(&logps.policy_chosen, &logps.policy_rejected),
    }
}
