//! Figures that compare a pitfall with a clean run.

use std::f64::consts::LN_2;

use crate::infer::sample::Reply;
use crate::show::plot::{Figure, Panel};
use crate::train::{History, Pitfall};

/// Draws the curves of a clean run and of a run with a pitfall, in the panels that show it.
pub fn exposed(pitfall: Pitfall, clean: &History, broken: &History) -> Figure {
    let panel = |title: &str, y: &str, metric: &str| {
        Panel::new(title, "step", y)
            .line("clean", clean.series(metric))
            .line(pitfall.name(), broken.series(metric))
    };
    let nats = "nats per counted token";
    let training = || panel("Training loss", nats, "loss");
    let held_out = || panel("Held-out loss of replies", "nats per reply token", "eval_loss");
    let ln_2 = |panel: Panel| panel.level(LN_2, "ln 2");
    let (panels, note) = match pitfall {
        Pitfall::UnmaskedPrompt => (
            [training(), held_out()],
            "Both training losses look healthy, but they are not comparable: one includes \
             prompts. On replies the harm is small in a small model and may be hidden by noise. \
             Look at the tokens in the loss (View::tokens), and at what the model writes for \
             the human's turn.",
        ),
        Pitfall::NoEos => (
            [held_out(), panel("Token accuracy", "share", "mean_token_accuracy")],
            "The held-out replies have an end-of-text token. The run never learnt to expect it, \
             which raises its loss. Sampled replies continue until they are cut.",
        ),
        Pitfall::PaddingLeak => (
            [training(), held_out()],
            "Padding is easy to predict, so the training loss looks far better than it is. The \
             held-out loss counts replies only.",
        ),
        Pitfall::WrongReference => (
            [
                ln_2(panel("DPO loss", "loss", "eval_loss")),
                panel("Reward accuracy", "share ranked right", "eval_rewards/accuracies")
                    .level(0.5, "chance"),
            ],
            "Before the first step policy and reference must agree: loss ln 2, accuracy at \
             chance. A curve that begins elsewhere is measured from another model.",
        ),
        Pitfall::FlippedLabels { .. } => (
            [
                ln_2(panel("Held-out DPO loss", "loss", "eval_loss")),
                panel("Held-out accuracy", "share ranked right", "eval_rewards/accuracies")
                    .level(0.5, "chance"),
            ],
            "Contradictory labels pull in both directions: the held-out loss stays near ln 2 or \
             rises above it, and accuracy gains little.",
        ),
        Pitfall::DropoutLeftOn => (
            [
                ln_2(panel("Training loss", "loss", "loss")),
                panel("Training margin", "β · D, nats", "rewards/margins").level(0.0, "reference"),
            ],
            "The reference was scored without dropout and the policy with it. The log-ratios are \
             noisy from the first step on, and every reply looks less likely than it is.",
        ),
    };
    let figure = panels
        .into_iter()
        .fold(Figure::new(&format!("Clean, and with {}", pitfall.name())), Figure::panel);
    figure.note(note)
}

/// Draws the lengths of the replies of several models, and counts the replies that end by
/// themselves.
pub fn reply_lengths(models: &[(&str, &[Reply])]) -> Figure {
    let panel = models.iter().fold(
        Panel::new("Length of replies", "tokens", "share of replies"),
        |panel, (name, replies)| {
            let ended = replies.iter().filter(|r| r.ended).count();
            let name = format!("{name}: {ended} of {} end", replies.len());
            panel.histogram(&name, replies.iter().map(|r| r.ids.len() as f64).collect())
        },
    );
    Figure::new("Do replies end?")
        .panel(panel)
        .note("A model that never saw the end of text writes until it is cut.")
}
