//! Each pitfall beside a clean run, in the plot that gives it away.

use std::f64::consts::LN_2;

use crate::plot::{Figure, Panel};
use crate::sample::Reply;
use crate::train::{History, Pitfall};

/// The curves of a clean run and of one with a pitfall, in the panels that expose it.
pub fn exposed(pitfall: Pitfall, clean: &History, broken: &History) -> Figure {
    let panel = |title: &str, y: &str, metric: &str| {
        Panel::new(title, "step", y).line("clean", clean.series(metric)).line(pitfall.name(), broken.series(metric))
    };
    let nats = "nats per counted token";
    let training = || panel("Training loss", nats, "loss");
    let held_out = || panel("Held-out loss of replies", "nats per reply token", "eval_loss");
    let ln_2 = |panel: Panel| panel.level(LN_2, "ln 2");
    let (panels, note) = match pitfall {
        Pitfall::UnmaskedPrompt => (
            [training(), held_out()],
            "Both training losses look healthy, and they do not compare: one counts prompts as well. On replies the harm is small in a small model and may hide in the noise; look at what the loss counts (View::tokens), and at what the model writes when it is given the human's turn.",
        ),
        Pitfall::NoEos => (
            [held_out(), panel("Tokens guessed right", "share", "mean_token_accuracy")],
            "The held-out replies do have an end of text: the run never learnt to expect it, and pays for that token. Sampled replies run on until they are cut.",
        ),
        Pitfall::PaddingLeak => (
            [training(), held_out()],
            "Padding is easy to predict, so the training loss looks far better than it is. The held-out loss counts replies only.",
        ),
        Pitfall::WrongReference => (
            [
                ln_2(panel("DPO loss", "loss", "eval_loss")),
                panel("Reward accuracy", "share ranked right", "eval_rewards/accuracies").level(0.5, "chance"),
            ],
            "Before the first step policy and reference must agree: loss ln 2, accuracy at chance. A curve that begins elsewhere measures from somewhere else.",
        ),
        Pitfall::FlippedLabels { .. } => (
            [
                ln_2(panel("Held-out DPO loss", "loss", "eval_loss")),
                panel("Held-out accuracy", "share ranked right", "eval_rewards/accuracies").level(0.5, "chance"),
            ],
            "Labels that contradict each other pull in both directions: the held-out loss stays near ln 2 or rises above it, and accuracy gains little.",
        ),
        Pitfall::DropoutLeftOn => (
            [
                ln_2(panel("Training loss", "loss", "loss")),
                panel("Training margin", "β · D, nats", "rewards/margins").level(0.0, "reference"),
            ],
            "The reference was scored without dropout, the policy with it: log-ratios are noise from the first step on, and every reply looks less likely than it is.",
        ),
    };
    let figure = panels.into_iter().fold(Figure::new(&format!("Clean, and with {}", pitfall.name())), Figure::panel);
    figure.note(note)
}

/// How long the replies of several models are, and how many of them end by themselves.
pub fn reply_lengths(models: &[(&str, &[Reply])]) -> Figure {
    let panel =
        models.iter().fold(Panel::new("Length of replies", "tokens", "share of replies"), |panel, (name, replies)| {
            let ended = replies.iter().filter(|r| r.ended).count();
            let name = format!("{name}: {ended} of {} end", replies.len());
            panel.histogram(&name, replies.iter().map(|r| r.ids.len() as f64).collect())
        });
    Figure::new("Do replies end?").panel(panel).note("A model that never saw the end of text goes on until it is cut.")
}
