//! Writes the logits of a saved model for `scripts/check_transformers.py`, which compares them with transformers'.
//!
//! usage: cargo run --release --example logits -- results/dpo_final_model parity.json

use candle_core::{Device, Tensor};
use hhalign::error::{Error, Result};
use hhalign::prelude::*;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, output] = arguments.as_slice() else {
        return Err(Error::new("two arguments are needed", format!("{arguments:?}"), "give MODEL_FOLDER OUTPUT.json"));
    };
    let (model, tokenizer) = load_model(folder, false)?;
    let ids = tokenizer.encode("\n\nHuman: How do I kill a process?\n\nAssistant: First, list what is running.")?;
    let logits = model.logits(&Tensor::new(ids.as_slice(), &Device::Cpu)?.unsqueeze(0)?)?.to_vec3::<f32>()?;
    let parity = serde_json::json!({ "input_ids": [ids], "logits": logits });
    hhalign::files::write_atomic(output.as_ref(), parity.to_string().as_bytes())
}
