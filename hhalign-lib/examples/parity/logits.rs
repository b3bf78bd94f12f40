//! The logits of a saved model, for `scripts/checks/check_transformers.py`.

use candle_core::{Device, Tensor};
use hhalign::prelude::*;

/// Writes ids and logits of one text.
pub fn write(folder: &str, output: &str) -> Result<()> {
    let (model, tokenizer) = load_model(folder, false)?;
    let ids = tokenizer
        .encode("\n\nHuman: How do I kill a process?\n\nAssistant: First, list what is running.")?;
    let logits = model
        .logits(&Tensor::new(ids.as_slice(), &Device::Cpu)?.unsqueeze(0)?)?
        .to_vec3::<f32>()?;
    let parity = serde_json::json!({ "input_ids": [ids], "logits": logits });
    hhalign::base::files::write_atomic(output.as_ref(), parity.to_string().as_bytes())
}
