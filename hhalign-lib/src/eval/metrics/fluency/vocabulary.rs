//! The tokenizer of a model in a GGUF file, from its own vocabulary or from a `tokenizer.json` in
//! the same folder.

use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use crate::base::error::{Error, Result};
use crate::base::files;

/// GGUF's mark of a token that is matched in any text before it is split into words.
const USER_DEFINED: i64 = 4;

const FIX: &str = "put the model's tokenizer.json into the folder of the GGUF file";

pub(super) struct Vocabulary {
    inner: HfTokenizer,
    /// The beginning of text, if the model has one, and whether every text begins with it.
    bos: Option<u32>,
    add_bos: bool,
}

impl Vocabulary {
    /// Reads the byte-level BPE of the file itself.
    ///
    /// # Errors
    /// Another kind of vocabulary, an unknown way of splitting text into words, or broken metadata.
    pub(super) fn from_gguf(content: &Content) -> Result<Self> {
        let text = |key: &str| {
            content.metadata.get(key).and_then(|v| v.to_string().ok()).map_or("none", |s| s)
        };
        let (model, pre) = (text("tokenizer.ggml.model"), text("tokenizer.ggml.pre"));
        let words: PreTokenizerWrapper = match (model, pre) {
            ("gpt2", "gpt-2") => ByteLevel::new(false, true, true).into(),
            // SmolLM splits numbers into digits first.
            ("gpt2", "smollm") => Sequence::new(vec![
                Digits::new(true).into(),
                ByteLevel::new(false, true, true).into(),
            ])
            .into(),
            _ => {
                let got = format!("tokenizer model {model}, words split as {pre}");
                return Err(Error::data(
                    "only the vocabularies of GPT-2 and SmolLM can be read from GGUF",
                    got,
                    FIX,
                ));
            }
        };
        let tokens = strings(content, "tokenizer.ggml.tokens")?;
        let merges = strings(content, "tokenizer.ggml.merges")?
            .into_iter()
            .map(|merge| match merge.split_once(' ') {
                Some((left, right)) => Ok((left.to_string(), right.to_string())),
                None => Err(Error::data("a merge must name two tokens", merge, FIX)),
            })
            .collect::<Result<_>>()?;
        let types = content.metadata.get("tokenizer.ggml.token_type").and_then(|v| v.to_vec().ok());
        let is_whole = |(_, kind): &(&String, &Value)| {
            kind.to_i32().is_ok_and(|k| i64::from(k) == USER_DEFINED)
        };
        let whole: Vec<AddedToken> = types
            .map(|types| {
                tokens
                    .iter()
                    .zip(types)
                    .filter(is_whole)
                    .map(|(t, _)| AddedToken::from(t, false))
                    .collect()
            })
            .unwrap_or_default();
        let vocab = tokens.iter().cloned().zip(0..).collect::<tokenizers::models::bpe::Vocab>();
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).build().map_err(failed)?;
        let mut inner = HfTokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(words));
        inner.add_tokens(whole.into_iter().map(|t| t.normalized(false))).map_err(failed)?;
        Ok(Self::wrap(inner, content))
    }

    /// Reads a tokenizer in Hugging Face's format; the beginning of text still comes from the
    /// metadata of the GGUF file.
    ///
    /// # Errors
    /// The file cannot be read, or is no tokenizer.
    pub(super) fn from_json(path: &Path, content: &Content) -> Result<Self> {
        let inner = HfTokenizer::from_bytes(files::read(path)?).map_err(|e| {
            let fix = "give the model's own file, or remove this one";
            Error::data("not a tokenizer.json", e.to_string(), fix).caused_by(e)
        })?;
        Ok(Self::wrap(inner, content))
    }

    fn wrap(mut inner: HfTokenizer, content: &Content) -> Self {
        // A reply may spell out "<|im_end|>": it must stay text, so special tokens are never
        // matched in it.
        inner.set_encode_special_tokens(true);
        let get = |key: &str| content.metadata.get(key);
        let sentencepiece = get("tokenizer.ggml.model")
            .and_then(|v| v.to_string().ok())
            .is_some_and(|m| m == "llama");
        Self {
            inner,
            bos: get("tokenizer.ggml.bos_token_id").and_then(|v| v.to_u32().ok()),
            // If the file does not say: SentencePiece vocabularies need it, others do not.
            add_bos: get("tokenizer.ggml.add_bos_token")
                .and_then(|v| v.to_bool().ok())
                .unwrap_or(sentencepiece),
        }
    }

    /// Returns the ids of a text, without special tokens.
    pub(super) fn ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
    }

    /// Returns the ids before a reply: the prompt's, and the beginning of text if the model needs
    /// it or there would be none.
    pub(super) fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>> {
        let mut ids = self.ids(prompt)?;
        match self.bos {
            Some(bos) if self.add_bos || ids.is_empty() => ids.insert(0, bos),
            None if ids.is_empty() => {
                let what =
                    "an empty prompt leaves the first token of the reply without a probability";
                return Err(Error::new(
                    what,
                    "a model without a beginning of text",
                    "give a prompt",
                ));
            }
            _ => {}
        }
        Ok(ids)
    }

    /// Checks that a model of `vocab_size` ids has a row for every id.
    pub(super) fn check_fits(&self, vocab_size: usize) -> Result<()> {
        let highest =
            self.inner.get_vocab(true).into_values().chain(self.bos).max().unwrap_or_default();
        if highest as usize >= vocab_size {
            let got = format!("ids up to {highest}, the model has {vocab_size}");
            return Err(Error::data("this tokenizer belongs to another model", got, FIX));
        }
        Ok(())
    }
}

fn strings(content: &Content, key: &str) -> Result<Vec<String>> {
    let list = content.metadata.get(key).and_then(|v| v.to_vec().ok());
    let strings = list
        .and_then(|list| list.iter().map(|v| v.to_string().ok().cloned()).collect::<Option<_>>());
    strings.ok_or_else(|| Error::data(format!("{key} must be a list of texts"), "none", FIX))
}

fn failed(error: tokenizers::Error) -> Error {
    Error::data("the tokenizer of the language model failed", error.to_string(), FIX)
        .caused_by(error)
}
