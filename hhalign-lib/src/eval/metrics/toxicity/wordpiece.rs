//! The tokenizer of an uncased BERT, from its `vocab.txt`.

use std::collections::HashSet;

use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece as HfWordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use crate::base::error::{Error, Result};

/// Words longer than this are unknown, as in BERT's own tokenizer.
const LONGEST_WORD: usize = 100;

/// BERT's uncased WordPiece: lower case, no accents, words split at punctuation, pieces by longest
/// match first.
pub(super) struct WordPiece {
    inner: HfTokenizer,
    cls: u32,
    sep: u32,
}

impl WordPiece {
    /// Reads a `vocab.txt`: one piece a line, with the line number as id.
    ///
    /// # Errors
    /// Another number of lines than the model has ids, a repeated piece, or a missing special
    /// piece.
    pub(super) fn new(vocabulary: &str, vocab_size: usize) -> Result<Self> {
        let fix =
            "give the vocab.txt that belongs to these weights (bert-base-uncased has 30522 lines)";
        let lines: Vec<&str> =
            vocabulary.strip_suffix('\n').unwrap_or(vocabulary).split('\n').collect();
        let pieces: Vec<String> =
            lines.iter().map(|l| l.strip_suffix('\r').unwrap_or(l).to_string()).collect();
        let different = pieces.iter().collect::<HashSet<_>>().len();
        if pieces.len() != vocab_size || different != vocab_size {
            let what =
                format!("the vocabulary must have {vocab_size} different pieces, one a line");
            return Err(Error::data(
                what,
                format!("{} lines, {different} different pieces", pieces.len()),
                fix,
            ));
        }
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        if let Some(absent) = special.iter().find(|s| !pieces.iter().any(|p| p == *s)) {
            return Err(Error::data(
                format!("the vocabulary must have the piece {absent}"),
                "none",
                fix,
            ));
        }
        let ids: Vocab = pieces.into_iter().zip(0..).collect();
        let model = HfWordPiece::builder()
            .vocab(ids)
            .unk_token("[UNK]".into())
            .max_input_chars_per_word(LONGEST_WORD)
            .build()
            .map_err(failed)?;
        let mut inner = HfTokenizer::new(model);
        inner.with_normalizer(Some(BertNormalizer::new(true, true, None, true))).map_err(failed)?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        // A text that spells out "[SEP]" gets the special id, as in the original.
        inner.add_special_tokens(special.map(|s| AddedToken::from(s, true))).map_err(failed)?;
        let id = |piece: &str| inner.token_to_id(piece).expect("a piece that was just found");
        Ok(Self { cls: id("[CLS]"), sep: id("[SEP]"), inner })
    }

    /// Returns `[CLS]`, the first pieces of a text, `[SEP]`: at most `most` ids.
    pub(super) fn ids(&self, text: &str, most: usize) -> Result<Vec<u32>> {
        let pieces = self.inner.encode_fast(text, false).map_err(failed)?;
        let kept = pieces.get_ids().iter().copied().take(most - 2);
        Ok(std::iter::once(self.cls).chain(kept).chain([self.sep]).collect())
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::data("the tokenizer of the toxicity classifier failed", error.to_string(), "")
        .caused_by(error)
}
