//! The tokenizer: byte-level BPE trained on the data for small models, or GPT-2's own 50,257 ids.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::rng::sha256_hex;
use crate::data::Pair;

/// The text of the only special token. It ends a reply, and pads a batch where no loss is computed.
pub const EOS: &str = "<|endoftext|>";

/// The smallest vocabulary: 256 bytes and the end-of-text token.
pub const MIN_VOCAB: usize = 257;

/// Encodes text to ids and decodes ids to text.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<HfTokenizer>,
    eos_id: u32,
}

fn failed(error: tokenizers::Error) -> Error {
    Error::data("the tokenizer failed", error.to_string(), "").caused_by(error)
}

impl Tokenizer {
    /// Trains a byte-level BPE of `vocab_size` ids on the texts of `pairs`; the same pairs give the
    /// same ids.
    ///
    /// # Errors
    /// A `vocab_size` below 257 (every byte must have an id), or no pairs.
    ///
    /// # Example
    /// ```
    /// use hhalign::data::Dataset;
    /// use hhalign::data::tokenize::Tokenizer;
    /// let tokenizer = Tokenizer::train(&Dataset::embedded(1, 100)?.pairs, 400)?;
    /// let ids = tokenizer.encode("Hello there!")?;
    /// assert_eq!(tokenizer.decode(&ids)?, "Hello there!");
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn train(pairs: &[Pair], vocab_size: usize) -> Result<Self> {
        if vocab_size < MIN_VOCAB {
            return Err(Error::new(
                "the vocabulary is too small",
                vocab_size.to_string(),
                format!(
                    "a byte-level BPE needs at least {MIN_VOCAB} ids; 2048 is the toy preset's"
                ),
            ));
        }
        if pairs.is_empty() {
            return Err(Error::new(
                "no text to learn a vocabulary from",
                "0 pairs",
                "pass the training pairs",
            ));
        }
        let trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab_size)
            .min_frequency(2)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(EOS, true)])
            .build();
        let mut tokenizer = byte_level(BPE::default());
        let texts =
            pairs.iter().flat_map(|p| [p.prompt.as_str(), p.chosen.as_str(), p.rejected.as_str()]);
        tokenizer.train(&mut TrainerWrapper::from(trainer), texts).map_err(failed)?;
        Self::wrap(tokenizer)
    }

    /// Builds GPT-2's vocabulary from the ranks in the crate tiktoken-rs, without a network.
    ///
    /// The ranks do not include the merges. Each merge is recovered by encoding its token with the
    /// lower ranks only, as byte-pair encoding did. Ids and merges equal those of the published
    /// tokenizer.
    ///
    /// # Errors
    /// The ranks cannot be read.
    pub fn gpt2() -> Result<Self> {
        let ranks = tiktoken_rs::r50k_base()
            .map_err(|e| Error::bug("GPT-2's ranks cannot be read", e.to_string()).caused_by(e))?;
        let n = 50_256u32;
        let tokens: Vec<Vec<u8>> =
            (0..n).map(|id| ranks.decode_bytes(&[id])).collect::<Result<_, _>>().map_err(|e| {
                Error::bug("a rank of GPT-2 cannot be decoded", e.to_string()).caused_by(e)
            })?;
        let rank: HashMap<&[u8], u32> =
            tokens.iter().enumerate().map(|(i, t)| (t.as_slice(), i as u32)).collect();
        let visible = byte_alphabet();
        let name = |bytes: &[u8]| bytes.iter().map(|&b| visible[b as usize]).collect::<String>();
        let mut vocab: tokenizers::models::bpe::Vocab =
            tokens.iter().enumerate().map(|(i, t)| (name(t), i as u32)).collect();
        vocab.insert(EOS.into(), n);
        let merges = tokens
            .iter()
            .filter(|t| t.len() > 1)
            .map(|t| {
                let (left, right) = last_merge(t, &rank);
                (name(left), name(right))
            })
            .collect();
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).build().map_err(failed)?;
        let mut tokenizer = byte_level(bpe);
        tokenizer.add_special_tokens([AddedToken::from(EOS, true)]).map_err(failed)?;
        Self::wrap(tokenizer)
    }

    /// Reads a `tokenizer.json` in Hugging Face's format.
    ///
    /// # Errors
    /// The file cannot be read, is not a tokenizer, or has no `<|endoftext|>`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = files::read(path)?;
        let tokenizer = HfTokenizer::from_bytes(bytes).map_err(|e| {
            Error::data(
                "not a tokenizer.json",
                e.to_string(),
                "give the file that Tokenizer::save wrote",
            )
            .caused_by(e)
            .at(path.display())
        })?;
        Self::wrap(tokenizer).map_err(|e| e.at(path.display()))
    }

    /// Writes `tokenizer.json` in Hugging Face's format.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        files::write_atomic(path.as_ref(), self.inner.to_string(true).map_err(failed)?.as_bytes())
    }

    fn wrap(mut tokenizer: HfTokenizer) -> Result<Self> {
        // A text may contain "<|endoftext|>": it must stay text, so the special token is never
        // matched.
        tokenizer.set_encode_special_tokens(true);
        let eos_id = tokenizer.token_to_id(EOS).ok_or_else(|| {
            Error::data(
                format!("the tokenizer has no {EOS}"),
                "a vocabulary without it",
                "use a GPT-2 style tokenizer",
            )
        })?;
        Ok(Self { inner: Arc::new(tokenizer), eos_id })
    }

    /// Encodes a text; no special token is added or recognised.
    ///
    /// # Errors
    /// A failure inside the tokenizer.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
    }

    /// Decodes ids; the end-of-text token is left out.
    ///
    /// # Errors
    /// A failure inside the tokenizer.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(failed)
    }

    /// Returns the text of each id, which shows where tokens begin and end.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn pieces(&self, ids: &[u32]) -> Result<Vec<String>> {
        let piece = |&id: &u32| {
            if id as usize >= self.vocab_size() {
                let fix = format!("ids go up to {}", self.vocab_size() - 1);
                return Err(Error::new(
                    "a token id is outside the vocabulary",
                    id.to_string(),
                    fix,
                ));
            }
            self.inner.decode(&[id], false).map_err(failed)
        };
        ids.iter().map(piece).collect()
    }

    /// Returns the end-of-text id, which ends a reply.
    pub fn eos_id(&self) -> u32 {
        self.eos_id
    }

    /// Returns an id that no text is encoded to: the byte 255, which does not occur in UTF-8.
    ///
    /// # Errors
    /// A vocabulary without that byte.
    pub fn never_in_text(&self) -> Result<u32> {
        let missing = || {
            let fix = "use a byte-level tokenizer, in which every byte has an id";
            Error::data("the tokenizer has no id for the byte 255", "a vocabulary without it", fix)
        };
        self.inner.token_to_id(&byte_alphabet()[255].to_string()).ok_or_else(missing)
    }

    /// Checks that the tokenizer has `vocab_size` ids, as a model of that vocabulary needs.
    ///
    /// # Errors
    /// A different number of ids.
    pub fn check_fits(&self, vocab_size: usize) -> Result<()> {
        if self.vocab_size() != vocab_size {
            let got = format!("{} ids, the model has {vocab_size}", self.vocab_size());
            let fix = "give the tokenizer that the pairs were made with";
            return Err(Error::data("this tokenizer belongs to another model", got, fix));
        }
        Ok(())
    }

    /// Returns the number of ids.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Returns the first 16 digits of the SHA-256 of its `tokenizer.json`.
    pub fn hash(&self) -> String {
        sha256_hex([self.inner.to_string(false).unwrap_or_default().as_bytes()], 16)
    }
}

fn byte_level(bpe: BPE) -> HfTokenizer {
    let mut tokenizer = HfTokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevelDecoder::default()));
    tokenizer
}

/// Returns the visible character that represents each byte in a byte-level vocabulary.
fn byte_alphabet() -> Vec<char> {
    let printable =
        |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut next = 256;
    (0..256)
        .map(|b| {
            if printable(b) {
                return char::from_u32(b).expect("a byte is a code point");
            }
            next += 1;
            char::from_u32(next - 1).expect("below the surrogates")
        })
        .collect()
}

/// Returns the two parts whose merge made `token`: the last step of byte-pair encoding with lower
/// ranks only.
fn last_merge<'a>(token: &'a [u8], rank: &HashMap<&[u8], u32>) -> (&'a [u8], &'a [u8]) {
    let own = rank[token];
    let mut cuts: Vec<usize> = (0..=token.len()).collect();
    while cuts.len() > 3 {
        let lowest = (0..cuts.len() - 2)
            .filter_map(|i| {
                rank.get(&token[cuts[i]..cuts[i + 2]]).filter(|&&r| r < own).map(|&r| (r, i))
            })
            .min()
            .expect("lower ranks reach every token");
        cuts.remove(lowest.1 + 1);
    }
    token.split_at(cuts[1])
}
