//! A look inside a reply: the reward of each token, and where the probability moved.

use candle_core::DType;

use crate::base::error::{Error, Result};
use crate::data::batch::{Batch, Side, TokenizedPair, TokenizedPairs};
use crate::data::tokenize::Tokenizer;
use crate::infer::score;
use crate::model::Gpt;
use crate::model::ops;
use crate::model::ops::Dropout;
use crate::show::table::{Column, Table, escape};
use crate::show::view::View;

/// Returns a heat map of the implicit reward β (log π - log ref) of every token of both replies of
/// a pair; the rewards add up to the reward of the reply.
///
/// # Errors
/// No such pair, or ids that the tokenizer or the models do not have.
pub fn token_rewards(
    policy: &Gpt,
    reference: &Gpt,
    tokenizer: &Tokenizer,
    pairs: &TokenizedPairs,
    index: usize,
    beta: f64,
) -> Result<View> {
    let pair = pair(pairs, index)?;
    let of = |side: Side| -> Result<Vec<f64>> {
        Ok(log_ratios(policy, reference, pairs, index, side)?
            .into_iter()
            .map(|r| beta * r)
            .collect())
    };
    tokenizer.check_fits(policy.config.vocab_size)?;
    let sides = [("chosen", Side::Chosen), ("rejected", Side::Rejected)];
    let rewards = sides.iter().map(|(_, side)| of(*side)).collect::<Result<Vec<_>>>()?;
    let largest = rewards.iter().flatten().fold(1e-9, |m: f64, r| m.max(r.abs()));
    let prompt = tokenizer.decode(&pair.prompt)?;
    let mut html = format!(
        "<div style=\"white-space:pre-wrap;padding:4px 12px;border-left:3px solid #888;\
         margin:4px 0\">{}</div>",
        escape(prompt.trim())
    );
    let mut text = format!("{}\n", prompt.trim());
    for ((name, side), rewards) in sides.iter().zip(&rewards) {
        let sum: f64 = rewards.iter().sum();
        html += &format!(
            "<div style=\"line-height:2.6;max-width:60em;margin:6px 0\">\
             <b>{name}</b>, reward {sum:+.2} = sum of its tokens<br>"
        );
        text += &format!("[{name}] reward {sum:+.3}\n");
        for (piece, reward) in tokenizer.pieces(pair.reply(*side))?.iter().zip(rewards) {
            let shown = piece.replace('\n', "⏎");
            html += &cell(&escape(&shown), *reward, largest);
            text += &format!("  {reward:+.3}  {shown}\n");
        }
        html += "</div>";
    }
    html += "<div style=\"opacity:.8\">Blue and ▲: more likely under the policy than under the \
             reference; orange and ▼: less likely. A stronger colour means more nats; hover over a \
             token to read them.</div>";
    Ok(View::new(html, text))
}

/// Formats a token on a blue (up) or orange (down) background with its number below, so that colour
/// is not the only sign.
fn cell(token: &str, reward: f64, largest: f64) -> String {
    let (colour, sign) = if reward >= 0.0 { ("0,114,178", "▲") } else { ("213,94,0", "▼") };
    let strength = 0.55 * (reward.abs() / largest).sqrt();
    // Numbers below a tenth of the largest are left out.
    let number = if reward.abs() < largest / 10.0 {
        "&nbsp;".into()
    } else {
        if largest < 1.0 {
            format!("{sign}{:.2}", reward.abs())
        } else {
            format!("{sign}{:.1}", reward.abs())
        }
    };
    format!(
        "<span title=\"{reward:+.3} nats\" style=\"display:inline-flex;flex-direction:column;\
         vertical-align:top;line-height:1.25;margin:1px;border-radius:3px;padding:1px 2px;\
         text-align:center;background:rgba({colour},{strength:.2})\">\
         <span style=\"white-space:pre\">{token}</span>\
         <span style=\"font-size:.7em;opacity:.75;font-variant-numeric:tabular-nums\">{number}\
         </span></span>"
    )
}

/// Returns the position of the token whose log-probability changed most in training, for
/// [`moved_mass`].
///
/// # Errors
/// No such pair, or ids that the models do not have.
pub fn most_changed(
    policy: &Gpt,
    reference: &Gpt,
    pairs: &TokenizedPairs,
    index: usize,
    side: Side,
) -> Result<usize> {
    let changes = log_ratios(policy, reference, pairs, index, side)?;
    Ok((0..changes.len())
        .max_by(|&x, &y| changes[x].abs().total_cmp(&changes[y].abs()))
        .unwrap_or(0))
}

/// Returns log π - log ref of every token of a reply.
fn log_ratios(
    policy: &Gpt,
    reference: &Gpt,
    pairs: &TokenizedPairs,
    index: usize,
    side: Side,
) -> Result<Vec<f64>> {
    let pair = pair(pairs, index)?;
    let batch = Batch::new(&[(&pair.prompt, pair.reply(side))], pairs.eos_id())?;
    let logps = |model: &Gpt| {
        let logps = score::token_logps(&model.freeze()?, &batch, &mut Dropout::off())?;
        Ok::<_, Error>(logps.to_dtype(DType::F64)?.to_vec1::<f64>()?)
    };
    Ok(logps(policy)?.iter().zip(logps(reference)?).map(|(pi, reference)| pi - reference).collect())
}

/// Returns the most likely next tokens before and after training at the token `position` of a
/// reply, which shows where the probability moved.
///
/// # Errors
/// No such pair or position, or ids that the models do not have.
#[allow(clippy::too_many_arguments)]
pub fn moved_mass(
    policy: &Gpt,
    reference: &Gpt,
    tokenizer: &Tokenizer,
    pairs: &TokenizedPairs,
    index: usize,
    side: Side,
    position: usize,
    k: usize,
) -> Result<Table> {
    let pair = pair(pairs, index)?;
    let reply = pair.reply(side);
    if position >= reply.len() {
        let fix = format!("choose a position below {}", reply.len());
        return Err(Error::new("the reply has no such token", position.to_string(), fix));
    }
    let batch = Batch::new(&[(&pair.prompt, &reply[..=position])], pairs.eos_id())?;
    let probabilities = |model: &Gpt| -> Result<Vec<f64>> {
        let logits = score::reply_logits(&model.freeze()?, &batch, &mut Dropout::off())?;
        let last = ops::log_softmax(&logits.narrow(0, position, 1)?)?.exp()?.squeeze(0)?;
        Ok(last.to_dtype(DType::F64)?.to_vec1()?)
    };
    let (after, before) = (probabilities(policy)?, probabilities(reference)?);
    let top = |of: &[f64]| {
        let mut ids: Vec<usize> = (0..of.len()).collect();
        ids.sort_by(|&x, &y| of[y].total_cmp(&of[x]).then(x.cmp(&y)));
        ids.truncate(k.max(1));
        ids
    };
    let mut ids = top(&before);
    ids.extend(top(&after));
    // The reply's own token is always included: it may change by many nats at a low probability.
    ids.push(reply[position] as usize);
    ids.sort_by(|&x, &y| (after[y] - before[y]).total_cmp(&(after[x] - before[x])).then(x.cmp(&y)));
    ids.dedup();
    let pieces =
        ids.iter().map(|&id| Ok(tokenizer.pieces(&[id as u32])?.concat().replace('\n', "⏎")));
    let pick = |of: &[f64]| ids.iter().map(|&id| of[id]).collect::<Vec<f64>>();
    let context = tokenizer.decode(&reply[..position])?;
    let columns = vec![
        Column::text("next token", pieces.collect::<Result<Vec<_>>>()?),
        Column::float("before", 4, pick(&before)),
        Column::float("after", 4, pick(&after)),
        Column::float("moved", 4, ids.iter().map(|&id| after[id] - before[id]).collect()),
    ];
    let (b, a) = (pick(&before).iter().sum::<f64>(), pick(&after).iter().sum::<f64>());
    let location = if context.trim().is_empty() {
        "at the beginning of the reply".into()
    } else {
        format!("after “{}”", context.trim())
    };
    let here = tokenizer.pieces(&reply[position..=position])?.concat().replace('\n', "⏎");
    let nats = (after[reply[position] as usize] / before[reply[position] as usize]).ln();
    let note = format!(
        "The reply has “{here}” there: {nats:+.1} nats. Probabilities are those {location}. \
         These tokens have {b:.3} of the probability before and {a:.3} after; the others have \
         the rest."
    );
    Ok(Table::new("Where the probability went", columns)?.with_note(note))
}

fn pair(pairs: &TokenizedPairs, index: usize) -> Result<&TokenizedPair> {
    let missing =
        || Error::new("no such pair", index.to_string(), format!("choose below {}", pairs.len()));
    pairs.pairs.get(index).ok_or_else(missing)
}
