//! The β lab: fixed weights scored with another β, and replies decoded as if trained at another β.

use serde_json::{Value, json};

use crate::base::error::{Error, Result};
use crate::data::tokenize::Tokenizer;
use crate::infer::sample::Sampler;
use crate::loss::{PairLogps, PreferenceLoss, to_f64};
use crate::model::Gpt;
use crate::show::pages;
use crate::show::view::View;

/// Returns sliders for β and label smoothing and a choice of losses over scored pairs, in one
/// output that needs no kernel.
///
/// It scores the same weights again and does not show a run trained at that β;
/// [`crate::train::Dpo::sweep`] does. `note` says where the numbers come from.
///
/// # Errors
/// No pair, or log-probabilities that are not finite.
pub fn beta_lab(logps: &PairLogps, loss: PreferenceLoss, beta: f64, note: &str) -> Result<View> {
    loss.check(beta)?;
    let data = data(logps, loss, beta, note)?;
    let n = logps.len();
    Ok(View::new(
        pages::beta_lab(&data),
        format!("beta lab over {n} pairs (an interactive figure)"),
    ))
}

fn data(logps: &PairLogps, loss: PreferenceLoss, beta: f64, note: &str) -> Result<Value> {
    let [a, b] = logps.logratios().map(|ratios| to_f64(&ratios));
    if a.is_empty() || a.iter().chain(&b).any(|v| !v.is_finite()) {
        let got = if a.is_empty() { "no pair" } else { "a number that is not finite" };
        return Err(Error::new(
            "the beta lab needs scored pairs",
            got,
            "score held-out pairs: evaluate_preferences",
        ));
    }
    let mut losses: Vec<PreferenceLoss> = PreferenceLoss::ALL.to_vec();
    // The run's loss, with its settings, replaces the default of the same name.
    losses.iter_mut().filter(|l| l.name() == loss.name()).for_each(|l| *l = loss);
    let losses: Vec<Value> = losses.iter().map(describe).collect::<Result<_>>()?;
    Ok(json!({
        "a": a, "b": b, "pc": to_f64(&logps.policy_chosen), "pr": to_f64(&logps.policy_rejected),
        "lw": logps.chosen_tokens, "ll": logps.rejected_tokens,
        "beta": beta, "loss": loss.name(), "losses": losses, "note": note,
    }))
}

/// Returns name, title, formula and settings of a loss.
fn describe(loss: &PreferenceLoss) -> Result<Value> {
    use PreferenceLoss as L;
    let (title, formula) = match loss {
        L::Sigmoid => ("DPO (sigmoid)", "−ls(βD)"),
        L::Cdpo { .. } => ("cDPO", "−(1−ε) ls(βD) − ε ls(−βD)"),
        L::Robust { .. } => ("robust DPO", "[−(1−ε) ls(βD) + ε ls(−βD)] / (1−2ε)"),
        L::Hinge => ("hinge (SLiC)", "max(0, 1 − βD)"),
        L::Ipo => ("IPO, summed", "(D − 1/(2β))²"),
        L::IpoPerToken => ("IPO, per token", "(a/Lw − b/Ll − 1/(2β))²"),
        L::ExoPair { .. } => ("EXO", "σ(βD)[ls(βD) − ln(1−ε)] + σ(−βD)[ls(−βD) − ln ε]"),
        L::NcaPair => ("NCA", "−ls(βa) − ls(−βa)/2 − ls(−βb)/2"),
        L::BcoPair => ("BCO, without its mean", "−ls(βa) − ls(−βb)"),
        L::SppoHard => ("SPPO", "(a − 1/(2β))² + (b + 1/(2β))²"),
        L::Aot { .. } => ("AOT", "cDPO of sorted log π margins minus sorted log ref margins"),
        L::AotUnpaired { .. } => ("AOT, unpaired", "cDPO of sorted a minus sorted b"),
        L::ApoZero => ("APO-zero", "1 − σ(βa) + σ(βb)"),
        L::ApoDown => ("APO-down", "σ(βa) + 1 − σ(βD)"),
        L::DiscoPop { .. } => ("DiscoPOP", "−ls(x)(1−m) + e^(−x) m,  x = βD, m = σ(x/τ)"),
        L::SigmoidNorm => ("DPO per token", "−ls(β(a/Lw − b/Ll))"),
        L::ForwardKl => ("f-DPO, forward KL", "−ls(β(e^(−b) − e^(−a)))"),
        L::JensenShannon => ("f-DPO, Jensen-Shannon", "−ls(β(ls(a) − ls(b)))"),
        L::AlphaDivergence { .. } => {
            ("f-DPO, alpha divergence", "−ls(β(s(a) − s(b))),  s(a) = e^((α−1)a)/(α−1)")
        }
        L::SimPo { .. } => ("SimPO (no reference)", "−ls(β(log π(w)/Lw − log π(l)/Ll) − γ)"),
        L::Cpo { .. } => ("CPO (no reference)", "−ls(β(log π(w) − log π(l))) − α log π(w)/Lw"),
        L::Orpo { .. } => ("ORPO (no reference)", "−log π(w)/Lw − λ ls(log odds ratio)"),
        L::Kto { .. } => ("KTO on pairs", "½[1 − σ(β(a−z))] + ½[1 − σ(β(z−b))]"),
    };
    // The JSON is `{"Cdpo": {"label_smoothing": 0.1}}` or `"Sigmoid"`; the settings are the inner
    // object.
    let settings = serde_json::to_value(loss)?;
    let settings =
        settings.as_object().and_then(|o| o.values().next().cloned()).unwrap_or_else(|| json!({}));
    Ok(json!({ "name": loss.name(), "title": title, "formula": formula, "settings": settings }))
}

/// The largest λ for decoding; beyond it the weighted logits are mostly noise.
const MAX_LAMBDA: f64 = 100.0;

/// Returns replies to a few prompts, decoded as if the policy had been trained at each of `betas`,
/// with a slider that needs no kernel. The policy was trained at `trained_beta`.
///
/// # Errors
/// See [`Sampler::replies_at`]; or no prompt, or no β.
///
/// # Source
/// DeRa, arXiv 2402.02992: an approximation at decoding time, from the same two models.
pub fn sample_at(
    betas: &[f64],
    (policy, trained_beta): (&Gpt, f64),
    reference: &Gpt,
    tokenizer: &Tokenizer,
    prompts: &[String],
    sampler: &Sampler,
) -> Result<View> {
    if betas.is_empty() || prompts.is_empty() {
        let got = format!("{} values of beta, {} prompts", betas.len(), prompts.len());
        return Err(Error::new("nothing to sample", got, "give at least one of each"));
    }
    if let Some(&beta) = betas.iter().find(|&&beta| trained_beta / beta > MAX_LAMBDA) {
        let got = format!("beta {beta}, lambda {:.0}", trained_beta / beta);
        return Err(Error::new(
            "this beta is too far from the trained one",
            got,
            "stay above a hundredth of it",
        ));
    }
    let mut stops = vec![];
    let mut text = String::new();
    for &beta in betas {
        let replies =
            sampler.replies_at(beta, (policy, trained_beta), reference, tokenizer, prompts)?;
        let replies: Vec<String> = replies.into_iter().map(|r| r.text.trim().to_string()).collect();
        text += &format!("β = {beta}\n");
        prompts
            .iter()
            .zip(&replies)
            .for_each(|(p, r)| text += &format!("  {}\n    → {r}\n", p.trim()));
        stops.push(json!({ "beta": beta, "lambda": trained_beta / beta, "replies": replies }));
    }
    let prompts: Vec<&str> = prompts.iter().map(|p| p.trim()).collect();
    Ok(View::new(
        pages::slider(&json!({ "prompts": prompts, "stops": stops, "trained": trained_beta })),
        text,
    ))
}
