//! Translation for TRL: the names of our losses, Python's form of our values, and the texts of the
//! folder.

use serde_json::{Map, Value, json};

use crate::base::error::{Error, Result};
use crate::loss::PreferenceLoss;

/// Returns the fields of `DPOConfig` with which TRL computes a loss.
///
/// # Errors
/// A loss that TRL computes differently or does not have.
pub(super) fn loss_settings(loss: &PreferenceLoss) -> Result<Map<String, Value>> {
    use PreferenceLoss as L;
    let plain = |name: &str| json!({ "loss_type": [name] });
    let smoothed =
        |name: &str, share: f64| json!({ "loss_type": [name], "label_smoothing": share });
    // TRL's coefficient c means u^-c and our α means u^(α - 1), so c = 1 - α.
    let alpha = |c: f64| {
        json!({
            "loss_type": ["sigmoid"],
            "f_divergence_type": "alpha_divergence",
            "f_alpha_divergence_coef": c,
        })
    };
    let no = |got: &str| {
        let fix = "choose a loss that both have, \
                   such as sigmoid, ipo_per_token, hinge, robust or apo_zero";
        Err(Error::new(
            format!("TRL's DPOTrainer does not compute the loss {}", loss.name()),
            got,
            fix,
        ))
    };
    let fields = match *loss {
        L::Sigmoid => plain("sigmoid"),
        L::Cdpo { label_smoothing } => smoothed("sigmoid", label_smoothing),
        L::Robust { label_smoothing } => smoothed("robust", label_smoothing),
        L::ExoPair { label_smoothing } => smoothed("exo_pair", label_smoothing),
        L::IpoPerToken => plain("ipo"),
        L::Hinge | L::NcaPair | L::SppoHard | L::ApoZero | L::ApoDown => plain(loss.name()),
        L::DiscoPop { tau } => json!({ "loss_type": ["discopop"], "discopop_tau": tau }),
        L::ForwardKl => alpha(1.0),
        L::AlphaDivergence { alpha: a } => alpha(1.0 - a),
        L::JensenShannon => {
            json!({ "loss_type": ["sigmoid"], "f_divergence_type": "js_divergence" })
        }
        L::Ipo => return no("IPO on summed log-probabilities; TRL's is per token (ipo_per_token)"),
        L::SigmoidNorm => {
            return no("a loss on log-probabilities per token, which TRL has for IPO only");
        }
        L::BcoPair => return no("BCO without the running mean that TRL subtracts"),
        L::Aot { .. } | L::AotUnpaired { .. } => {
            return no(
                "a loss that sorts the pairs of a pass, and TRL divides a step into other passes",
            );
        }
        L::SimPo { .. } | L::Cpo { .. } | L::Orpo { .. } => {
            return no("a loss without a reference");
        }
        L::Kto { .. } => return no("KTO on pairs with a given estimate of the KL"),
    };
    Ok(fields.as_object().cloned().unwrap_or_default())
}

/// Formats a value as Python.
pub(super) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(yes) => if *yes { "True" } else { "False" }.into(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let field = |(name, v): (&String, &Value)| format!("{}: {}", json!(name), python(v));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Returns the first line of the program.
pub(super) fn about(kind: &str) -> &'static str {
    if kind == "dpo" {
        "DPO of a GPT-2 by TRL, with accelerate."
    } else {
        "SFT of a GPT-2 by transformers, with accelerate."
    }
}

/// Returns accelerate's config: processes on one machine. torchrun starts them, on GPUs or (with
/// the program's `--cpu`) without.
pub(super) fn accelerate_yaml(processes: usize) -> String {
    let kind = if processes > 1 { "MULTI_GPU" } else { "NO" };
    format!(
        "compute_environment: LOCAL_MACHINE\n\
         distributed_type: {kind}\n\
         num_machines: 1\n\
         machine_rank: 0\n\
         num_processes: {processes}\n\
         mixed_precision: 'no'\n\
         use_cpu: false\n\
         gpu_ids: all\n\
         main_training_function: main\n"
    )
}

/// Returns the README: how to start the program, and what will differ.
pub(super) fn readme(
    (program, kind): (&str, &str),
    (per_step, left_out): (usize, usize),
    dropout: f64,
    per_token: bool,
) -> String {
    let mut differences = vec![ROUNDING, DTYPE, LOGGING, HELD_OUT_LOSS, PATIENCE, FRESH_OPTIMISER]
        .into_iter()
        .map(String::from)
        .collect::<Vec<_>>();
    if left_out > 0 {
        differences.push(format!(
            "hhalign takes a shorter step at the end of an epoch. Here every step has\n  \
             {per_step} pairs, so {left_out} short ones are left out, and later steps come\n  \
             that much earlier."
        ));
    }
    if dropout > 0.0 {
        differences.push(format!("torch draws the dropout ({dropout}), so its draws differ."));
    }
    if per_token {
        differences.push(PER_TOKEN.into());
    }
    if kind == "dpo" {
        differences.push("`eval_kl`, which hhalign samples on request, is not measured.".into());
    }
    let differences: String = differences.iter().map(|text| format!("- {text}\n")).collect();
    let trainer = if kind == "dpo" { "TRL's `DPOTrainer`" } else { "transformers' `Trainer`" };
    format!(
        "# An exported run\n\
         \n\
         `{program}` trains `model/` with {trainer}, as hhalign would: with the same\n\
         settings (at its top), the same ids (it stops if their hash differs) and the same pairs\n\
         in every step (`batches.json`). Each process takes its share of a step of {per_step}\n\
         pairs. A share that does not fit into one pass is accumulated over several.\n\
         \n\
         ```sh\n\
         pip install -r requirements.txt\n\
         # N GPUs of this machine\n\
         accelerate launch --config_file accelerate.yaml --num_processes N {program}\n\
         # N processes without a GPU\n\
         accelerate launch --config_file accelerate.yaml --num_processes N {program} --cpu\n\
         ```\n\
         \n\
         N must divide {per_step}. (accelerate's own `--cpu`, before the program, would start one\n\
         process.) For one process use `--num_processes 1`. For several machines also use\n\
         `--num_machines`, `--machine_rank` and `--main_process_ip`.\n\
         \n\
         `--stop-at STEP` ends the run earlier, `--resume` resumes from the last checkpoint, and\n\
         `--out FOLDER` replaces `trained/`. That folder holds the trained model and\n\
         `trainer_state.json` (all metrics); hhalign reads it with `load_model(\"trained\")`.\n\
         \n\
         ## The files\n\
         \n\
         | file | content |\n\
         |---|---|\n\
         | `{program}` | the program, with its settings |\n\
         | `accelerate.yaml` | the number of processes |\n\
         | `model/` | the first weights and their tokenizer |\n\
         | `reference/` | DPO's reference, if it is not `model/` |\n\
         | `train.jsonl`, `eval.jsonl` | both sides of the split: prompt, chosen, rejected |\n\
         | `batches.json` | the rows of `train.jsonl` in each step, counted from 0 |\n\
         | `export.json` | settings, and hashes of texts, ids, tokenizer and weights |\n\
         \n\
         ## What will differ\n\
         \n\
         {differences}"
    )
}

// The list "What will differ" of the README.
const ROUNDING: &str = "Sums are rounded in another order. Results agree up to rounding at first, \
                        and the runs\n  diverge from there.";
const DTYPE: &str = "The dtype is f32. `mixed_precision: bf16` in `accelerate.yaml` is faster on a \
                     GPU, and rounds\n  more than hhalign's bf16.";
const LOGGING: &str = "A log line has the mean of the training metrics since the previous line; \
                       hhalign logs the\n  step itself.";
const HELD_OUT_LOSS: &str = "The held-out loss is a mean over batches. With several processes, or \
                             a last batch that is\n  not full, a few pairs have a larger weight.";
const PATIENCE: &str = "`--resume` restarts the count of evaluations without a gain (`PATIENCE`).";
const FRESH_OPTIMISER: &str = "The optimiser is fresh: this folder has no moments of an earlier \
                               run.";
const PER_TOKEN: &str = "TRL logs rewards and log-probabilities per token for this loss, hhalign \
                         their sums. The\n  loss itself is the same.";
