//! A GPT-2 folder of the original repository's layout, for `scripts/checks/check_gpt2.py`.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use hhalign::base::error::{Error, Result};
use hhalign::compute::Precision;
use hhalign::compute::cpu::{Decoder, Keep, Purpose, Workspace, with_weights};
use hhalign::data::packed::Packed;
use hhalign::infer::score::token_logps;
use hhalign::model::checkpoint::{read_tensors, write_tensors};
use hhalign::prelude::*;

/// Logits of the composed model, log π of every token on both paths, and the decoder's logits after
/// each row.
pub fn compare(folder: &str, ids: &str, output: &str) -> Result<()> {
    let clock = Instant::now();
    let (model, _) = load_model(folder, false)?;
    println!(
        "loaded {} parameters in {:.1} s",
        model.n_parameters(),
        clock.elapsed().as_secs_f64()
    );
    let ids = read_tensors(ids.as_ref())?
        .remove("ids")
        .ok_or_else(|| Error::new("no ids", "a file without them", "name them ids"))?;
    let ids = ids.to_dtype(DType::U32)?;
    let rows = ids.to_vec2::<u32>()?;
    let clock = Instant::now();
    let logits = model.logits(&ids)?;
    println!("composed path: {:?} logits in {:.1} s", logits.dims(), clock.elapsed().as_secs_f64());
    let sequences: Vec<(&[u32], &[u32])> = rows.iter().map(|r| r.split_at(1)).collect();
    let composed = token_logps(&model, &Batch::new(&sequences, 0)?, &mut Dropout::off())?;
    let mut packed = Packed::default();
    sequences.iter().try_for_each(|(prompt, reply)| packed.push(prompt, &[reply]))?;
    let clock = Instant::now();
    let fast = with_weights(&model, Precision::F32, Purpose::Train, |weights| {
        Workspace::default().forward(weights, &packed, Keep::Activations, None)
    })?;
    println!(
        "fast path: {} log-probabilities in {:.1} s",
        fast.len(),
        clock.elapsed().as_secs_f64()
    );
    let decoded = with_weights(&model, Precision::F32, Purpose::Decode, |weights| {
        let mut decoder = Decoder::new(weights)?;
        rows.iter().map(|row| Ok(decoder.start(row)?.1)).collect::<Result<Vec<_>>>()
    })?;
    let n = fast.len();
    let found = BTreeMap::from([
        ("logits".to_string(), logits),
        ("composed".to_string(), composed),
        ("fast".to_string(), Tensor::from_vec(fast, n, &Device::Cpu)?),
        (
            "decoded".to_string(),
            Tensor::from_vec(
                decoded.concat(),
                (rows.len(), model.config.vocab_size),
                &Device::Cpu,
            )?,
        ),
    ]);
    write_tensors(output.as_ref(), &found, HashMap::new())
}

/// The ids of texts under the folder's own tokenizer and under the library's GPT-2.
pub fn tokens(folder: &str, texts: &str, output: &str) -> Result<()> {
    let texts: Vec<String> = serde_json::from_slice(&hhalign::base::files::read(texts.as_ref())?)?;
    let own = Tokenizer::load(std::path::Path::new(folder).join("tokenizer.json"))?;
    let ids = |tokenizer: &Tokenizer| {
        texts.iter().map(|t| tokenizer.encode(t)).collect::<Result<Vec<_>>>()
    };
    let found = serde_json::json!({ "folder": ids(&own)?, "library": ids(&Tokenizer::gpt2()?)? });
    hhalign::base::files::write_atomic(output.as_ref(), found.to_string().as_bytes())
}

/// The library's own GPT-2 tokenizer.
pub fn vocabulary(folder: &str) -> Result<()> {
    Tokenizer::gpt2()?.save(std::path::Path::new(folder).join("tokenizer.json"))
}

/// A few steps of SFT with a shorter block than the weights', and the model as `save_model` leaves
/// it.
pub fn train(folder: &str, output: &str, steps: usize) -> Result<()> {
    let get = |name: &str| match name {
        "HHALIGN_INIT" => Some(folder.to_string()),
        "HHALIGN_BLOCK_SIZE" => Some("512".into()),
        _ => None,
    };
    let options = RunOptions::from_lookup(get)?;
    let split = Dataset::embedded(0, 100)?.split(0.1)?;
    let tokenizer = options.tokenizer(&split.train)?;
    let mut model = options.model(&tokenizer)?;
    let block = model.config.block_size;
    let train = TokenizedPairs::new(&split.train, &tokenizer, block)?;
    let held_out = TokenizedPairs::new(&split.held_out[..4], &tokenizer, block)?;
    let mut sft = Sft::default();
    sft.train = TrainConfig {
        learning_rate: 5e-5,
        warmup_steps: 1,
        max_steps: steps,
        batch_size: 4,
        micro_batch_size: 2,
        eval_every: steps,
        log_every: 1,
        ..sft.train
    };
    let run = sft.fit(&mut model, &train, &held_out)?;
    println!("{steps} steps with {block} positions in {:.1} s", run.seconds);
    save_model(&model, &tokenizer, output)?;
    Ok(())
}
