//! Models on disk: safetensors files with Hugging Face's GPT-2 names, and the config and tokenizer
//! of each model.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use crate::base::error::{Error, Result};
use crate::base::{files, hub};
use crate::data::tokenize::{EOS, Tokenizer};
use crate::model::{Gpt, GptConfig};

/// Saves a model so that both this library and transformers can load it.
///
/// Writes `PATH.safetensors` and the folder `PATH/` with `model.safetensors` (the same bytes),
/// `config.json`, `generation_config.json`, `tokenizer.json` and `tokenizer_config.json`.
/// `AutoModelForCausalLM.from_pretrained("PATH")` reads this layout.
///
/// # Errors
/// A file cannot be written.
pub fn save_model(model: &Gpt, tokenizer: &Tokenizer, path: impl AsRef<Path>) -> Result<PathBuf> {
    let folder = path.as_ref().with_extension("");
    write_language_model(&folder, model, tokenizer)?;
    let weights = folder.join("model.safetensors");
    // A second name for the same file takes no space. Where the file system has no links, copy the
    // file.
    let flat = folder.with_extension("safetensors");
    let temporary = files::temporary_beside(&flat)?;
    let _ = fs::remove_file(&temporary);
    fs::hard_link(&weights, &temporary)
        .or_else(|_| fs::copy(&weights, &temporary).map(drop))
        .and_then(|()| fs::rename(&temporary, &flat))
        .map_err(|e| Error::io(&flat, e))?;
    // Renaming a link onto another link of the same file leaves both names, so remove this one.
    let _ = fs::remove_file(&temporary);
    Ok(flat)
}

/// Writes the folder alone, without `PATH.safetensors`.
pub(crate) fn write_language_model(
    folder: &Path,
    model: &Gpt,
    tokenizer: &Tokenizer,
) -> Result<()> {
    let extra = json!({ "architectures": ["GPT2LMHeadModel"] });
    write_model_folder(folder, &model.named_parameters(), &model.config, tokenizer, &extra)?;
    let eos = tokenizer.eos_id();
    let generation = json!({ "bos_token_id": eos, "eos_token_id": eos, "pad_token_id": eos });
    files::write_atomic(
        &folder.join("generation_config.json"),
        format!("{generation:#}\n").as_bytes(),
    )
}

/// Writes the weights, `config.json` and tokenizer of a GPT-2 in the layout that transformers
/// reads. The keys of `extra` are added to the config or replace its own.
pub(crate) fn write_model_folder(
    folder: &Path,
    tensors: &BTreeMap<String, Tensor>,
    c: &GptConfig,
    tokenizer: &Tokenizer,
    extra: &Value,
) -> Result<()> {
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_tensors(&folder.join("model.safetensors"), tensors, format)?;
    let eos = tokenizer.eos_id();
    let mut config = json!({
        "model_type": "gpt2", "activation_function": "gelu_new", "tie_word_embeddings": true,
        "vocab_size": c.vocab_size, "n_positions": c.block_size, "n_embd": c.n_embd,
        "n_layer": c.n_layer, "n_head": c.n_head, "layer_norm_epsilon": c.layer_norm_epsilon,
        "resid_pdrop": c.dropout, "embd_pdrop": c.dropout, "attn_pdrop": c.dropout,
        "bos_token_id": eos, "eos_token_id": eos, "pad_token_id": eos, "dtype": "float32",
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": c.block_size,
        "clean_up_tokenization_spaces": false,
        "bos_token": EOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS,
    });
    for (name, value) in [("config.json", config), ("tokenizer_config.json", tokenizer_config)] {
        files::write_atomic(&folder.join(name), format!("{value:#}\n").as_bytes())?;
    }
    tokenizer.save(folder.join("tokenizer.json"))
}

/// Loads a model and its tokenizer from the files of [`save_model`] or from a folder of Hugging
/// Face's GPT-2.
///
/// `path` is the folder or the `.safetensors` file next to it. `hub:OWNER/NAME`, such as
/// `hub:openai-community/gpt2`, loads the files from the hub ([`crate::base::hub`]). Parameter
/// names may have the prefix `transformer.` or not. Attention masks in older files and a head that
/// repeats the embedding are ignored.
///
/// # Errors
/// A file is missing or does not fit the config. A model from the hub also has the errors of
/// [`crate::base::hub::Hub::files`].
pub fn load_model(path: impl AsRef<Path>, trainable: bool) -> Result<(Gpt, Tokenizer)> {
    let path =
        &hub::model_folder(path.as_ref(), &["config.json", "model.safetensors", "tokenizer.json"])?;
    let folder = if path.is_dir() { path.to_path_buf() } else { path.with_extension("") };
    let config = read_config(&folder.join("config.json"))?;
    let tensors = read_tensors(&folder.join("model.safetensors"))?;
    let parameters = tensors
        .into_iter()
        .filter(|(name, _)| {
            !name.ends_with(".attn.bias")
                && !name.ends_with(".attn.masked_bias")
                && name != "lm_head.weight"
        })
        .map(|(name, t)| {
            (if name.starts_with("transformer.") { name } else { format!("transformer.{name}") }, t)
        })
        .collect();
    let model =
        Gpt::from_parameters(config, parameters, trainable).map_err(|e| e.at(folder.display()))?;
    Ok((model, Tokenizer::load(folder.join("tokenizer.json"))?))
}

/// Reads the sizes from a GPT-2 `config.json`.
///
/// # Errors
/// A size is missing, or the file describes another kind of model.
pub fn read_config(path: &Path) -> Result<GptConfig> {
    let value: Value = serde_json::from_slice(&files::read(path)?)
        .map_err(|e| Error::from(e).at(path.display()))?;
    let size = |key: &str| {
        value[key].as_u64().map(|v| v as usize).ok_or_else(|| {
            Error::data(
                format!("{key} is missing"),
                "a config without this size",
                "give the config.json of a GPT-2 model",
            )
            .at(path.display())
        })
    };
    let activation = value["activation_function"].as_str().unwrap_or("gelu_new");
    if !matches!(activation, "gelu_new" | "gelu_pytorch_tanh")
        || value["tie_word_embeddings"] == json!(false)
    {
        let got = format!("activation {activation}, tied head {}", value["tie_word_embeddings"]);
        return Err(Error::data(
            "only GPT-2's tanh GELU and tied head are supported",
            got,
            "use a GPT-2 model",
        )
        .at(path.display()));
    }
    let config = GptConfig {
        vocab_size: size("vocab_size")?,
        block_size: size("n_positions")?,
        n_layer: size("n_layer")?,
        n_head: size("n_head")?,
        n_embd: size("n_embd")?,
        dropout: value["resid_pdrop"].as_f64().unwrap_or(0.0),
        layer_norm_epsilon: value["layer_norm_epsilon"].as_f64().unwrap_or(1e-5),
    };
    config.check()?;
    Ok(config)
}

/// Writes named tensors and a string map to one safetensors file, atomically.
///
/// # Errors
/// The file cannot be written.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| {
        Error::bug(format!("cannot write {}", path.display()), e.to_string()).caused_by(e)
    })?;
    files::write_atomic(path, &bytes)
}

/// Reads all tensors of a safetensors file.
///
/// # Errors
/// The file cannot be read or is not a safetensors file.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    fs::metadata(path).map_err(|e| Error::io(path, e))?;
    let tensors =
        candle_core::safetensors::load(path, &Device::Cpu).map_err(|e| not_safetensors(path, e))?;
    Ok(tensors.into_iter().collect())
}

/// Reads the string map of a safetensors file.
///
/// # Errors
/// The file cannot be read or is not a safetensors file.
pub fn read_metadata(path: &Path) -> Result<HashMap<String, String>> {
    let bytes = files::read(path)?;
    let (_, header) =
        safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| not_safetensors(path, e))?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// Returns whether a file is a complete safetensors file.
pub fn is_whole(path: &Path) -> bool {
    files::read(path).is_ok_and(|bytes| safetensors::SafeTensors::deserialize(&bytes).is_ok())
}

fn not_safetensors(path: &Path, error: impl Into<candle_core::Error>) -> Error {
    let what = format!("{} is not a complete safetensors file", path.display());
    Error::from(error.into()).with_message(what, "write or download it again")
}
