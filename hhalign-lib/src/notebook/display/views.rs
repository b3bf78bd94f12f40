//! Views of texts side by side, and of tokens coloured by whether the loss uses them.

use crate::base::error::{Error, Result};
use crate::data::Pair;
use crate::data::batch::{Side, TokenizedPairs};
use crate::data::tokenize::Tokenizer;
use crate::infer::sample::Reply;
use crate::show::table::escape;
use crate::show::view::View;

const CARD: &str = "flex:1 1 18em;border:1px solid #8888;border-radius:6px;\
                    padding:8px 12px;white-space:pre-wrap;min-width:14em";
/// The style of a prompt.
const PROMPT: &str =
    "white-space:pre-wrap;padding:4px 12px;border-left:3px solid #888;margin:4px 0";

impl View {
    /// Shows a pair: the prompt, and both replies side by side.
    pub fn pair(pair: &Pair) -> Self {
        let kind = pair.kind.map_or(String::new(), |k| format!(", {k:?}"));
        Self::side_by_side(
            &format!("{}, line {}{kind}", pair.origin.subset, pair.origin.line),
            &pair.prompt,
            &[("chosen", pair.chosen.as_str()), ("rejected", pair.rejected.as_str())],
        )
    }

    /// Shows replies of several models to one prompt.
    pub fn side_by_side(title: &str, prompt: &str, replies: &[(&str, &str)]) -> Self {
        let mut html = format!(
            "<div style=\"margin:8px 0\"><div style=\"opacity:.75\">{}</div>\
             <div style=\"{PROMPT}\">{}</div>\
             <div style=\"display:flex;gap:10px;flex-wrap:wrap\">",
            escape(title),
            escape(prompt.trim())
        );
        let mut text = format!("{title}\n{}\n", prompt.trim());
        for (name, reply) in replies {
            html += &format!(
                "<div style=\"{CARD}\"><b>{}</b>\n{}</div>",
                escape(name),
                escape(reply.trim())
            );
            text += &format!("  [{name}] {}\n", reply.trim());
        }
        Self { html: html + "</div></div>", text }
    }

    /// Shows the prompts at `rows` with the replies of two models.
    ///
    /// # Errors
    /// None of the rows exists; single missing rows are left out.
    pub fn replies_at(
        rows: &[usize],
        prompts: &[String],
        first: (&str, &[Reply]),
        second: (&str, &[Reply]),
    ) -> Result<Self> {
        let mut all = Self { html: String::new(), text: String::new() };
        for &i in rows {
            let (Some(prompt), Some(a), Some(b)) =
                (prompts.get(i), first.1.get(i), second.1.get(i))
            else {
                continue;
            };
            let view = Self::side_by_side(
                &format!("prompt {}", i + 1),
                prompt,
                &[(first.0, &a.text), (second.0, &b.text)],
            );
            all.html += &view.html;
            all.text += &view.text;
        }
        if all.text.is_empty() {
            let fix = format!(
                "choose rows below {}",
                prompts.len().min(first.1.len()).min(second.1.len())
            );
            return Err(Error::new("no such row", format!("{rows:?}"), fix));
        }
        Ok(all)
    }

    /// Shows every token of a prompt and one reply; the loss uses the coloured ones only.
    ///
    /// # Errors
    /// No such pair, or ids that the tokenizer does not have.
    pub fn tokens(
        tokenizer: &Tokenizer,
        pairs: &TokenizedPairs,
        index: usize,
        side: Side,
    ) -> Result<Self> {
        let pair = pairs.pairs.get(index).ok_or_else(|| {
            Error::new("no such pair", index.to_string(), format!("choose below {}", pairs.len()))
        })?;
        let reply = pair.reply(side);
        let mut html = String::from("<div style=\"line-height:1.9;max-width:60em\">");
        let mut text = String::new();
        for (ids, in_loss) in [(pair.prompt.as_slice(), false), (reply, true)] {
            // Tokens of the loss are blue and underlined, so that colour is not the only sign.
            let style = if in_loss {
                "background:#0072b22e;border-bottom:2px solid #56b4e9"
            } else {
                "background:#88888820;opacity:.75"
            };
            for piece in tokenizer.pieces(ids)? {
                let shown = escape(&piece.replace('\n', "⏎"));
                html += &format!(
                    "<span style=\"{style};border-radius:3px;margin:1px;padding:1px 2px;\
                     white-space:pre;display:inline-block\">{shown}</span>"
                );
                text += &if in_loss {
                    format!("[{}]", piece.replace('\n', "⏎"))
                } else {
                    piece.replace('\n', "⏎")
                };
            }
        }
        html += &format!(
            "</div><div style=\"opacity:.8\">Tokens that are read only (grey): {}. Tokens in the \
             loss (blue, underlined): {}.</div>",
            pair.prompt.len(),
            reply.len()
        );
        Ok(Self { html, text })
    }
}
