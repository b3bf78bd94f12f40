//! Which of two given replies a model prefers, by implicit reward and by likelihood.

use crate::eval::measure::{Better, Cases, Measure};
use crate::loss::{PairLogps, Rewards, to_f64};

/// The name of [`reward_accuracy`] in tables and files: the objective of DPO, which is no
/// comparison with its reference.
pub const REWARD_ACCURACY: &str = "reward accuracy";

/// Returns the share of held-out pairs whose chosen reply has the higher implicit reward, with ties
/// counted one half; the reference itself has one half by definition.
///
/// # Source
/// arXiv 2305.18290, equation 5; TRL's `rewards/accuracies`.
///
/// # Example
/// ```
/// use hhalign::eval::metrics::ranking::reward_accuracy;
/// use hhalign::loss::Rewards;
/// let rewards = Rewards { chosen: vec![1.0, 2.0, 0.0, 1.0], rejected: vec![0.0, 1.0, 0.0, 3.0] };
/// assert_eq!(reward_accuracy(&rewards, 0).value(), 2.5 / 4.0);
/// ```
pub fn reward_accuracy(rewards: &Rewards, seed: u64) -> Measure {
    let margins = rewards.margins();
    let count = |holds: fn(f64) -> bool| margins.iter().filter(|m| holds(**m)).count();
    let cases = Cases::Won {
        wins: count(|m| m > 0.0),
        ties: count(|m| m == 0.0),
        losses: count(|m| m < 0.0),
    };
    Measure::plain(REWARD_ACCURACY, Better::Higher, cases, seed)
}

/// Shares of pairs whose chosen reply is the more likely one.
#[derive(Debug, Clone)]
pub struct LikelihoodRanking {
    /// Under the reference.
    pub reference: Measure,
    /// Under the policy.
    pub policy: Measure,
}

/// Returns [`LikelihoodRanking`] from the log-probabilities of both models.
///
/// This ranking has no reference: long replies are less likely, independent of their quality.
pub fn likelihood_ranking(logps: &PairLogps, seed: u64) -> LikelihoodRanking {
    let of = |chosen, rejected| {
        let (chosen, rejected) = (to_f64(chosen), to_f64(rejected));
        let cases = Cases::Share(chosen.iter().zip(&rejected).map(|(c, r)| c > r).collect());
        Measure::plain("chosen reply is the likelier one", Better::Neither, cases, seed)
    };
    LikelihoodRanking {
        reference: of(&logps.ref_chosen, &logps.ref_rejected),
        policy: of(&logps.policy_chosen, &logps.policy_rejected),
    }
}
