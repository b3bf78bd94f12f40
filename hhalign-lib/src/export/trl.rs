//! TRL's words for our losses, Python's for our values, and the texts of the folder.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::loss::PreferenceLoss;

/// The fields of `DPOConfig` under which TRL computes a loss, where it computes the same one.
pub(super) fn loss_settings(loss: &PreferenceLoss) -> Result<Map<String, Value>> {
    use PreferenceLoss as L;
    let plain = |name: &str| json!({ "loss_type": [name] });
    let smoothed = |name: &str, share: f64| json!({ "loss_type": [name], "label_smoothing": share });
    // TRL's coefficient is that of u^-c, ours the exponent α - 1 of u.
    let alpha = |c: f64| json!({ "loss_type": ["sigmoid"], "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": c });
    let no = |got: &str| {
        let fix = "choose a loss that both have, such as sigmoid, ipo_per_token, hinge, robust or apo_zero";
        Err(Error::new(format!("the loss {} would be another one in TRL's DPOTrainer", loss.name()), got, fix))
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
        L::JensenShannon => json!({ "loss_type": ["sigmoid"], "f_divergence_type": "js_divergence" }),
        L::Ipo => return no("IPO on summed log-probabilities; TRL's is per token (ipo_per_token)"),
        L::SigmoidNorm => return no("a loss on log-probabilities per token, which TRL has for IPO only"),
        L::BcoPair => return no("BCO without the running mean that TRL subtracts"),
        L::Aot { .. } | L::AotUnpaired { .. } => {
            return no("a loss that sorts the pairs of a pass, and passes are divided otherwise there");
        }
        L::SimPo { .. } | L::Cpo { .. } | L::Orpo { .. } => return no("a loss without a reference"),
        L::Kto { .. } => return no("KTO on pairs with a given estimate of the KL"),
    };
    Ok(fields.as_object().cloned().unwrap_or_default())
}

/// A value as Python writes it.
pub(super) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(yes) => if *yes { "True" } else { "False" }.into(),
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field = |(name, v): (&String, &Value)| format!("{}: {}", json!(name), python(v));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// The first line of the program.
pub(super) fn about(kind: &str) -> &'static str {
    if kind == "dpo" {
        "DPO of a GPT-2 by TRL, with accelerate."
    } else {
        "SFT of a GPT-2 by transformers, with accelerate."
    }
}

/// accelerate's file: processes of one machine. torchrun starts them, on GPUs or (with the program's `--cpu`) without.
pub(super) fn accelerate_yaml(processes: usize) -> String {
    let kind = if processes > 1 { "MULTI_GPU" } else { "NO" };
    format!(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: {kind}\nnum_machines: 1\nmachine_rank: 0\n\
         num_processes: {processes}\nmixed_precision: 'no'\nuse_cpu: false\ngpu_ids: all\nmain_training_function: main\n"
    )
}

/// How to start, and what will differ.
pub(super) fn readme(
    (program, kind): (&str, &str),
    (per_step, left_out): (usize, usize),
    dropout: f64,
    per_token: bool,
) -> String {
    let mut differs = vec![
        "Sums are rounded in another order, so figures agree to rounding at first, and runs drift apart from there.".to_string(),
        "Numbers are f32. `mixed_precision: bf16` in `accelerate.yaml` is faster on a GPU, and rounds more than hhalign's bf16.".into(),
        "A log line has the mean of the training metrics since the line before; hhalign logs the step itself.".into(),
        "The held-out loss is a mean over batches: with several processes, or a last batch that is not full, a few pairs weigh more.".into(),
        "`--resume` counts evaluations without a gain anew, where the run stops early by them (`PATIENCE`).".into(),
        "The optimiser begins fresh: moments of an earlier run are not in this folder.".into(),
    ];
    if left_out > 0 {
        differs.push(format!(
            "hhalign takes a shorter step at the end of an epoch. Here every step has {per_step} pairs, so {left_out} short ones are left out, and later steps come earlier by as many."
        ));
    }
    if dropout > 0.0 {
        differs.push(format!("Dropout ({dropout}) is drawn by torch, so its draws are others."));
    }
    if per_token {
        differs.push("TRL logs rewards and log-probabilities per token for this loss, hhalign their sums. The loss itself is the same.".into());
    }
    if kind == "dpo" {
        differs.push("`eval_kl`, which hhalign samples where it is asked for, is not measured.".into());
    }
    let differs: String = differs.iter().map(|line| format!("- {line}\n")).collect();
    let trainer = if kind == "dpo" { "TRL's `DPOTrainer`" } else { "transformers' `Trainer`" };
    format!(
        "# A run that goes on here\n\n\
        `{program}` trains `model/` with {trainer}, as hhalign would: the same settings (at its top), the same ids (it \
        stops if their hash is another), the same pairs in every step (`batches.json`). Each process takes its share of a \
        step of {per_step} pairs; what does not fit into one pass is accumulated.\n\n\
        ```sh\n\
        pip install -r requirements.txt\n\
        accelerate launch --config_file accelerate.yaml --num_processes N {program}          # N GPUs of this machine\n\
        accelerate launch --config_file accelerate.yaml --num_processes N {program} --cpu    # N processes without a GPU\n\
        ```\n\n\
        N must divide {per_step}. (accelerate's own `--cpu`, in front of the program, would start one process.) For one process add nothing but `--num_processes 1`; for several machines also `--num_machines`, \
        `--machine_rank` and `--main_process_ip`. `--stop-at STEP` ends earlier, `--resume` goes on from the last checkpoint, \
        `--out FOLDER` names another place than `trained/`. What is trained is saved there, with `trainer_state.json` (all \
        metrics); hhalign reads it back with `load_model(\"trained\")`.\n\n\
        ## The files\n\n\
        | file | what |\n|---|---|\n\
        | `{program}` | the program, with its settings |\n\
        | `accelerate.yaml` | how many processes |\n\
        | `model/` | the weights to begin from, their tokenizer |\n\
        | `reference/` | DPO's reference, where it is not `model/` |\n\
        | `train.jsonl`, `eval.jsonl` | both sides of the split: prompt, chosen, rejected |\n\
        | `batches.json` | the rows of `train.jsonl` that each step takes, counted from 0 |\n\
        | `export.json` | settings, and hashes of texts, ids, tokenizer and weights |\n\n\
        ## What will differ\n\n{differs}"
    )
}
