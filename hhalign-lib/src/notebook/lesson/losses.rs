//! Exercises of notebook 04, "inside the losses", and the comparison of losses by hand with the
//! library's.

use crate::base::error::{Error, Result};
use crate::loss::{PairLogps, PreferenceLoss, check_beta, to_f64};
use crate::notebook::lesson::{Check, no, yes};
use crate::show::table::{Column, Table};

/// The largest difference at which a calculation by hand agrees with the library, relative to
/// losses above 1.
const TOLERANCE: f64 = 1e-9;

/// Returns a table of losses computed by hand, each above the library's values, with the largest
/// difference.
///
/// `names` are the headings of the pairs. The note under the table names the losses that do not
/// agree.
///
/// # Errors
/// The numbers of names, values and pairs differ; otherwise see [`PreferenceLoss::losses`].
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::losses::beside_library;
/// use hhalign::loss::{PairLogps, PairValues, PreferenceLoss, Values};
/// let logps = PairLogps::new(PairValues {
///     policy_chosen: Values::new(&[-20.0, -26.0]),
///     ref_chosen: Values::new(&[-20.0, -30.0]),
///     policy_rejected: Values::new(&[-20.0, -24.0]),
///     ref_rejected: Values::new(&[-20.0, -18.0]),
///     chosen_tokens: vec![10, 14],
///     rejected_tokens: vec![10, 8],
/// })?;
/// let by_hand = [(PreferenceLoss::Sigmoid, vec![2f64.ln(), (-1f64).exp().ln_1p()])];
/// let table = beside_library("DPO", &["a tie", "D = 10"], &logps, 0.1, &by_hand)?;
/// assert!(table.to_string().contains("all agree"));
/// let wrong_sign = [(PreferenceLoss::Sigmoid, vec![2f64.ln(), 1f64.exp().ln_1p()])];
/// let table = beside_library("DPO", &["a tie", "D = 10"], &logps, 0.1, &wrong_sign)?;
/// assert!(table.to_string().contains("Not the same yet: sigmoid"));
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn beside_library(
    title: &str,
    names: &[&str],
    pairs: &PairLogps,
    beta: f64,
    by_hand: &[(PreferenceLoss, Vec<f64>)],
) -> Result<Table> {
    let (mut labels, mut gaps, mut wrong) = (vec![], vec![], vec![]);
    let mut values = vec![vec![]; names.len()];
    for (loss, hand) in by_hand {
        let library = to_f64(&loss.losses(pairs, beta)?);
        if [hand.len(), names.len()].iter().any(|&n| n != library.len()) {
            return Err(Error::new(
                format!("{}: one name and one value by hand for each pair", loss.name()),
                format!(
                    "{} names and {} values for {} pairs",
                    names.len(),
                    hand.len(),
                    library.len()
                ),
                "compute the loss of every pair",
            ));
        }
        let gap = hand.iter().zip(&library).map(|(h, l)| (h - l).abs());
        // `max` would ignore a value that is not a number.
        let gap = gap.fold(0.0, |a: f64, b| if b.is_nan() || b > a { b } else { a });
        let size = library.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
        if !gap.is_finite() || gap > TOLERANCE * size {
            wrong.push(loss.name());
        }
        labels.extend([format!("{}, by hand", loss.name()), "… by the library".into()]);
        gaps.extend([String::new(), if gap == 0.0 { "0".into() } else { format!("{gap:.0e}") }]);
        for (column, (h, l)) in values.iter_mut().zip(hand.iter().zip(&library)) {
            column.extend([*h, *l]);
        }
    }
    let mut columns = vec![Column::text("loss", labels)];
    columns.extend(names.iter().zip(values).map(|(name, values)| Column::float(*name, 5, values)));
    columns.push(Column::text("largest difference", gaps));
    let note = if wrong.is_empty() {
        "By hand and by the library: all agree up to rounding.".into()
    } else {
        format!(
            "Not the same yet: {}. Compare the formula with the one in PreferenceLoss.",
            wrong.join(", ")
        )
    };
    Ok(Table::new(title, columns)?.with_note(note))
}

fn sigma(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Checks the β at which a pair with D = 7 pulls with half the weight of a tie.
///
/// A pair pulls with β σ(-βD), a tie with β/2. The answer has three decimals.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::losses::check_half_weight;
/// assert!(check_half_weight(0.157).right);
/// assert!(check_half_weight(0.1).because.contains("larger"));
/// assert!(check_half_weight(0.099).because.contains("halves e^(-βD)"));
/// assert!(check_half_weight(0.3).because.contains("smaller"));
/// assert!(!check_half_weight(0.0).right && !check_half_weight(f64::NAN).right);
/// ```
pub fn check_half_weight(beta: f64) -> Check {
    const D: f64 = 7.0;
    if beta == 0.0 {
        return no(
            "change the 0.0 to a β, and run the cell again; at β = 0 every pair would be a tie",
        );
    }
    if check_beta(beta).is_err() {
        return no(format!(
            "β must be a positive number, and {beta} is not: see the table of pulls in section 2"
        ));
    }
    let ratio = sigma(-beta * D) / 0.5;
    if (ratio - 0.5).abs() < 1e-3 {
        return yes(format!(
            "σ(-7β) must be 1/4, so e^(7β) = 3 and β = ln 3 / 7 = {:.4}",
            3f64.ln() / D
        ));
    }
    if (beta - 2f64.ln() / D).abs() < 5e-4 {
        return no(format!(
            "this halves e^(-βD), but the weight is σ(-βD): the pair still pulls with {ratio:.3} \
             of a tie's weight. A tie has σ(0) = 1/2, so which value must σ(-7β) take?"
        ));
    }
    if (ratio - 0.5).abs() < 0.02 {
        return no(format!(
            "close: the pair pulls with {ratio:.4} of a tie's weight. Give β to three decimals"
        ));
    }
    let (how, change) =
        if ratio > 0.5 { ("still too much", "larger") } else { ("too little", "smaller") };
    no(format!(
        "at β = {beta} the pair pulls with {ratio:.3} of a tie's weight, {how}: β must be \
         {change}. Section 2 has the formula"
    ))
}

/// Checks the D that IPO, with summed log-probabilities, aims for at β = 0.2.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::losses::check_ipo_target;
/// assert!(check_ipo_target(2.5).right);
/// assert!(check_ipo_target(5.0).because.contains("1/(2β)"));
/// assert!(check_ipo_target(1.0).because.contains("up"));
/// assert!(check_ipo_target(3.0).because.contains("down"));
/// assert!(!check_ipo_target(0.0).right && !check_ipo_target(f64::NAN).right);
/// ```
pub fn check_ipo_target(d: f64) -> Check {
    const BETA: f64 = 0.2;
    let target = 0.5 / BETA;
    if d == 0.0 {
        return no("change the 0.0 to the D at which IPO stops pulling");
    }
    if !d.is_finite() {
        return no(format!("{d} is not a finite number: section 4 says where IPO's loss is zero"));
    }
    if (d - target).abs() < 1e-6 {
        return yes(
            "the loss (D - 1/(2β))² is zero at D = 1/0.4 = 2.5; twice the β halves the target",
        );
    }
    if (d - 2.0 * target).abs() < 1e-6 {
        return no(
            "5 is 1/β, and it is the target at β = 0.1 as well. The target is 1/(2β), at the β \
             of the question",
        );
    }
    let loss = (d - target) * (d - target);
    let direction = if d < target { "up" } else { "back down" };
    no(format!(
        "at D = {d} IPO's loss is {loss:.4} and pulls D {direction}: look for the D at which the \
         loss is zero (section 4)"
    ))
}

/// Checks the label smoothing at which cDPO has no gradient on a correctly ranked pair with βD = 2.
///
/// The answer has three decimals.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::losses::check_label_smoothing;
/// assert!(check_label_smoothing(0.119).right);
/// assert!(check_label_smoothing(0.881).because.contains("the rest"));
/// assert!(check_label_smoothing(0.05).because.contains("larger"));
/// assert!(check_label_smoothing(0.2).because.contains("smaller"));
/// assert!(!check_label_smoothing(0.0).right && !check_label_smoothing(f64::NAN).right);
/// ```
pub fn check_label_smoothing(label_smoothing: f64) -> Check {
    const X: f64 = 2.0;
    if label_smoothing == 0.0 {
        return no(
            "change the 0.0: without label smoothing cDPO is DPO, and DPO never quite stops \
             pulling",
        );
    }
    if (label_smoothing - sigma(X)).abs() < 1e-3 {
        return no(
            "that is σ(2), the share of labels that the pair should believe in; ε is the rest",
        );
    }
    if !(label_smoothing > 0.0 && label_smoothing < 0.5) {
        return no(format!(
            "label smoothing is the share of labels assumed to be flipped, between 0 and 1/2, \
             and {label_smoothing} is not"
        ));
    }
    // The negative derivative -dL/dx of -(1-ε) ls(x) - ε ls(-x).
    let pull = (1.0 - label_smoothing) - sigma(X);
    if pull.abs() < 6e-4 {
        return yes(format!(
            "(1-ε) σ(-2) = ε σ(2) holds where σ(2) = 1 - ε, so ε = σ(-2) = {:.4}",
            sigma(-X)
        ));
    }
    let (direction, change) = if pull > 0.0 { ("up", "larger") } else { ("back down", "smaller") };
    no(format!(
        "at ε = {label_smoothing} the pair is still pulled {direction}, with {:.4} β: ε must be \
         {change}. Set the derivative of cDPO (section 3) to zero, and give three decimals",
        pull.abs()
    ))
}

/// Checks the smallest number of tokens of the rejected reply with which `sigmoid_norm` ranks the
/// pair correctly.
///
/// The chosen reply has 30 tokens and rose by a = 6 nats, the rejected one rose by b = 3 nats.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::losses::check_rejected_length;
/// let smallest = (1..100).find(|&n| check_rejected_length(n).right);
/// assert_eq!(smallest, Some(16));
/// assert!(check_rejected_length(15).because.contains("tie"));
/// assert!(check_rejected_length(17).because.contains("smallest"));
/// ```
pub fn check_rejected_length(rejected_tokens: usize) -> Check {
    const A: f64 = 6.0;
    const B: f64 = 3.0;
    const CHOSEN_TOKENS: f64 = 30.0;
    if rejected_tokens == 0 {
        return no("change the 0 to a number of tokens, and run the cell again");
    }
    let n = rejected_tokens as f64;
    let (chosen, rejected) = (A / CHOSEN_TOKENS, B / n);
    // Products of whole numbers are exact, so that a tie is detected.
    let (left, right) = (A * n, B * CHOSEN_TOKENS);
    if left < right {
        return no(format!(
            "a/Lw = {chosen:.3} and b/Ll = {rejected:.3}: per token the rejected reply rose more, \
             so the pair is ranked wrong. A longer reply spreads the same 3 nats over more tokens"
        ));
    }
    if left == right {
        return no(format!(
            "a/Lw and b/Ll are both {chosen:.3}: a tie, with a loss of ln 2. Right means below that"
        ));
    }
    if A * (n - 1.0) > right {
        return no(format!(
            "{rejected_tokens} tokens are enough, but so are {}: find the smallest",
            rejected_tokens - 1
        ));
    }
    yes(format!(
        "b/Ll = {rejected:.4} is now below a/Lw = {chosen:.3}; DPO itself, with D = 3, called \
         the pair right at any length"
    ))
}
