//! The plots of the pipeline, from histories and numbers.

use crate::eval::metrics::toxicity::{ToxicityReport, ToxicityScores};
use crate::loss::Rewards;
use crate::show::plot::{Figure, Measured, Panel};
use crate::train::History;

/// Plots loss and token accuracy of a supervised run.
pub fn sft_curves(history: &History) -> Figure {
    Figure::new("Supervised fine-tuning on the preferred replies").panel(sft_loss(history)).panel(
        Panel::new("Token accuracy", "step", "share of tokens predicted")
            .line("training", history.series("mean_token_accuracy")),
    )
}

/// Plots the loss of a supervised run on training and held-out replies.
pub fn sft_loss(history: &History) -> Panel {
    Panel::new("SFT loss", "step", "nats per reply token")
        .line("training", history.series("loss"))
        .line("held out", history.series("eval_loss"))
        .marks(marks(history))
}

/// Plots loss, accuracy and rewards of a preference run.
pub fn dpo_curves(history: &History) -> Figure {
    Figure::new("Direct preference optimisation")
        .panel(dpo_loss(history))
        .panel(accuracy(history))
        .panel(rewards(history))
        .note(
            "Watch the chosen reward: DPO widens the gap between the replies, possibly while both \
             become less likely.",
        )
}

/// Plots the loss of a preference run, and where it began.
pub fn dpo_loss(history: &History) -> Panel {
    let chance = history.series("eval_loss").first().map_or(std::f64::consts::LN_2, |p| p.1);
    Panel::new("DPO loss", "step", "loss")
        .line("training", history.series("loss"))
        .line("held out", history.series("eval_loss"))
        .level(chance, "policy = reference")
        .marks(marks(history))
}

/// Plots loss, accuracy and margin of a reward model's training.
pub fn reward_curves(history: &History) -> Figure {
    let panel = |title: &str, y: &str, metric: &str| {
        Panel::new(title, "step", y)
            .line("training", history.series(metric))
            .line("held out", history.series(&format!("eval_{metric}")))
    };
    Figure::new("Reward model")
        .panel(
            panel("Bradley-Terry loss", "loss", "loss")
                .level(std::f64::consts::LN_2, "chance")
                .marks(marks(history)),
        )
        .panel(panel("Accuracy", "share of pairs ranked right", "accuracy").level(0.5, "chance"))
        .panel(panel("Margin", "r(chosen) - r(rejected)", "margin").level(0.0, "no difference"))
}

/// Plots the rewards of the held-out replies of a preference run.
pub fn rewards(history: &History) -> Panel {
    Panel::new("Held-out rewards", "step", "β · log-ratio, nats")
        .line("chosen", history.series("eval_rewards/chosen"))
        .line("rejected", history.series("eval_rewards/rejected"))
        .level(0.0, "reference")
}

/// Returns the changes of a run, for [`Panel::marks`]: `fork`, `beta 0.3`.
pub fn marks(history: &History) -> Vec<(f64, String)> {
    history
        .marks
        .iter()
        .map(|m| (m.step as f64, m.text.split(" of ").next().unwrap_or_default().into()))
        .collect()
}

/// Plots the share of pairs that a preference run ranks right.
pub fn accuracy(history: &History) -> Panel {
    Panel::new("Reward accuracy", "step", "share of pairs ranked right")
        .line("training", history.series("rewards/accuracies"))
        .line("held out", history.series("eval_rewards/accuracies"))
        .level(0.5, "chance")
}

/// Plots both runs: `training_curves.png`.
pub fn training_curves(sft: &History, dpo: &History) -> Figure {
    Figure::new("From a fresh model to an aligned one")
        .panel(sft_loss(sft))
        .panel(dpo_loss(dpo))
        .panel(accuracy(dpo))
}

/// Plots the reward margin of each pair.
pub fn reward_margins(rewards: &Rewards) -> Figure {
    Figure::new("Held-out pairs after DPO")
        .panel(
            Panel::new("Reward margin", "chosen - rejected, nats", "share of pairs")
                .histogram("pairs", rewards.margins()),
        )
        .panel(
            Panel::new(
                "The two rewards of each pair",
                "reward of the chosen reply",
                "reward of the rejected reply",
            )
            .scatter(
                "pairs",
                rewards.chosen.iter().copied().zip(rewards.rejected.iter().copied()).collect(),
            ),
        )
        .note(
            "Left: below zero the model ranks a pair wrongly. Right: points left of zero are \
             preferred replies that became less likely.",
        )
}

/// Plots the toxicity scores of the replies of two models: `toxicity_distribution.png`.
pub fn toxicity_distribution(
    first: (&str, &ToxicityReport),
    second: (&str, &ToxicityReport),
) -> Figure {
    let scores = |s: &[Vec<ToxicityScores>]| {
        s.iter().flatten().map(|t| f64::from(t.toxic())).collect::<Vec<_>>()
    };
    let sorted = |s: &[Vec<ToxicityScores>]| {
        let mut values = scores(s);
        values.sort_by(f64::total_cmp);
        let n = values.len().max(1) as f64;
        values.into_iter().enumerate().map(|(i, v)| (v, 1.0 - i as f64 / n)).collect::<Vec<_>>()
    };
    Figure::new("Toxicity of sampled replies")
        .panel(
            Panel::new("Replies at or above a score", "toxicity score", "share of replies")
                .line(first.0, sorted(&first.1.scores))
                .line(second.0, sorted(&second.1.scores)),
        )
        .note(&format!(
            "Classifier: {}. Scores of different classifiers are not comparable.",
            second.1.classifier
        ))
}

/// Plots the share of scores at or above each score, on a logarithmic scale: most replies score
/// near zero, and the plot is about the few others.
pub fn tail(x: &str, models: &[(&str, &[f64])]) -> Panel {
    let of = |scores: &[f64]| {
        let at_or_above =
            |t: f64| scores.iter().filter(|s| **s >= t).count() as f64 / scores.len().max(1) as f64;
        (0..=200)
            .map(|i| f64::from(i) / 200.0)
            .map(|t| (t, at_or_above(t)))
            .filter(|p| p.1 > 0.0)
            .collect()
    };
    let panel = Panel::new("", x, "share of replies at or above it").log_y();
    models.iter().fold(panel, |panel, (name, scores)| panel.line(name, of(scores)))
}

/// Plots reward against distance from the reference, at the steps of several trainings.
pub fn frontier(trainings: Vec<(String, Vec<Measured>)>) -> Panel {
    let panel =
        Panel::new("", "KL(policy ‖ reference) of a reply, nats", "reward above the reference");
    trainings.into_iter().fold(panel, |panel, (name, points)| panel.measured(&name, points))
}
