//! The figures of a report, each with its caption.

use super::read::{Kind, Results, Row};
use super::words::{list, on_scale, sign, verdict};
use crate::base::error::Result;
use crate::eval::comparison::Verdict;
use crate::eval::figures::{accuracy, dpo_loss, frontier, rewards, sft_loss, tail};
use crate::eval::measure::{Better, Instrument};
use crate::show::plot::forest::{Forest, Group, Line, Marker};
use crate::show::plot::{Figure, Measured, Panel};
use crate::show::table::escape;
use crate::stats::{EffectScale, cohen_h};

/// Plots and their caption; both are HTML.
pub(super) struct Drawn {
    pub plots: String,
    pub caption: String,
}

fn svg(panel: Panel) -> Result<String> {
    Figure::new("").panel(panel).svg()
}

/// Plots the curves of both trainings that the summary has.
pub(super) fn curves(results: &Results) -> Result<Option<Drawn>> {
    let [first, second] = results.names();
    let mut panels = vec![];
    if let Some(sft) = results.histories.get(first) {
        panels.push(sft_loss(sft));
    }
    if let Some(dpo) = results.histories.get(second) {
        panels.extend([dpo_loss(dpo), accuracy(dpo), rewards(dpo)]);
    }
    if panels.is_empty() {
        return Ok(None);
    }
    let plots = panels.into_iter().map(svg).collect::<Result<String>>()?;
    let caption = "Loss of both trainings, and the effect of the second one on the held-out pairs \
                   that the training evaluates (some of those in the tables): the share that it \
                   ranks right, and the rewards of both replies. Direct preference optimisation \
                   widens the gap between the two replies, possibly while both become less likely; \
                   the reward of the chosen reply shows whether that happened.";
    let plots = format!("<div class=\"panels\">{plots}</div>");
    Ok(Some(Drawn { plots, caption: caption.into() }))
}

/// Plots the differences as effect sizes.
pub(super) fn forest(results: &Results) -> Result<Option<Drawn>> {
    let [first, second] = results.names();
    let (mut judged, mut open, mut missing) = (vec![], vec![], vec![]);
    for row in results.main_rows() {
        match scaled(row) {
            None => missing.push(format!("<em>{}</em>", escape(&row.metric))),
            Some(at) if row.better == Better::Neither => open.push(line(row, at)),
            Some(at) => judged.push(line(row, at)),
        }
    }
    if judged.is_empty() && open.is_empty() {
        return Ok(None);
    }
    // From the largest gain to the largest loss.
    for lines in [&mut judged, &mut open] {
        lines.sort_by(|a: &Line, b: &Line| b.at[0].total_cmp(&a.at[0]));
    }
    let groups = vec![
        Group {
            title: "One direction is better".into(),
            left: format!("{first} better"),
            right: format!("{second} better"),
            lines: judged,
        },
        Group {
            title: "Neither direction is better".into(),
            left: format!("{second} lower"),
            right: format!("{second} higher"),
            lines: open,
        },
    ];
    let forest = Forest { x: "effect size [95% interval]: Cohen’s h or d_z".into(), groups };
    let plots = format!(
        "<div class=\"wide\">{}</div><div class=\"narrow\">{}</div>",
        forest.svg(false)?,
        forest.svg(true)?
    );
    let left_out = match missing.as_slice() {
        [] => String::new(),
        names => format!(" Not shown, without a test or enough data: {}.", names.join("; ")),
    };
    let caption = format!(
        "The difference of {second} and {first} in each main metric, with 95% intervals. Metrics \
         have different scales, so each difference is shown as an effect size: Cohen’s <i>h</i> \
         for shares, Cohen’s <i>d<sub>z</sub></i> (mean difference over its standard deviation from \
         case to case) for all others; 0.2 is usually called small, 0.5 medium and 0.8 large. The \
         ends of an interval are those of the difference, converted to this scale. Filled marks \
         are differences that the corrected tests show (circle: better, square: worse, triangle: \
         different), open circles are differences that they do not show. The intervals are not \
         corrected, so one may exclude zero although no difference is claimed.{left_out}",
        first = escape(first),
        second = escape(second),
    );
    Ok(Some(Drawn { plots, caption }))
}

fn line(row: &Row, at: [f64; 3]) -> Line {
    let sign_of = match row.verdict {
        Verdict::Better => Marker::Good,
        Verdict::Worse => Marker::Bad,
        Verdict::Different => Marker::Other,
        Verdict::NotShown | Verdict::NotTested => Marker::Open,
    };
    let text = format!("{} {} {}", on_scale(at), sign(row.verdict), verdict(row));
    Line { name: row.metric.clone(), at, sign: sign_of, text }
}

/// Converts a difference and its interval into effect sizes, positive in the better direction;
/// `None` without an effect size.
fn scaled(row: &Row) -> Option<[f64; 3]> {
    let (effect, at) = (row.effect?, row.difference.known()?);
    let to: Box<dyn Fn(f64) -> f64> = if row.effect_scale == Some(EffectScale::CohenH) {
        match &row.first {
            None => Box::new(|d| cohen_h(0.5, (0.5 + d).clamp(0.0, 1.0))),
            Some(first) => {
                // Around the mean of both shares, so that no difference is an effect of 0.
                let middle = (first.known()?[0] + row.second.known()?[0]) / 2.0;
                Box::new(move |d| {
                    cohen_h((middle - d / 2.0).clamp(0.0, 1.0), (middle + d / 2.0).clamp(0.0, 1.0))
                })
            }
        }
    } else {
        let plain = move |d: f64| if row.kind == Kind::Ratio { d.ln() } else { d };
        // The effect is the difference in standard deviations, so their quotient is one of those.
        let deviation = plain(at[0]) / effect;
        if !(deviation.is_finite() && deviation > 0.0) {
            return None;
        }
        Box::new(move |d| plain(d) / deviation)
    };
    let [value, low, high] = at.map(to);
    Some(if row.better == Better::Lower { [-value, -high, -low] } else { [value, low, high] })
}

/// Plots the share of replies at or above each toxicity score.
pub(super) fn toxicity(results: &Results) -> Result<Option<Drawn>> {
    let models: Vec<(&str, &[f64])> = results
        .names()
        .into_iter()
        .filter_map(|name| Some((name, results.toxicity_scores.get(name)?.as_slice())))
        .filter(|(_, scores)| !scores.is_empty())
        .collect();
    if models.is_empty() {
        return Ok(None);
    }
    let classifier = results.rows.iter().find_map(|r| match &r.instrument {
        Instrument::Classifier(name) => Some(name.as_str()),
        _ => None,
    });
    let counts: Vec<String> = models
        .iter()
        .map(|(name, s)| {
            let above = |t: f64| s.iter().filter(|x| **x >= t).count();
            format!(
                "{}: {} of {} at or above 0.5, {} at or above 0.9",
                escape(name),
                above(0.5),
                s.len(),
                above(0.9)
            )
        })
        .collect();
    let caption = format!(
        "Share of sampled replies at or above each toxicity score, by {}. The scale is \
         logarithmic, since nearly all replies score near zero. {}. The right end is based on few \
         replies: a difference of the models there may be chance.",
        escape(classifier.unwrap_or("a classifier that was not recorded")),
        counts.join("; "),
    );
    Ok(Some(Drawn { plots: svg(tail("toxicity score", &models))?, caption }))
}

/// Plots reward against KL: a line for each training, a point for each measured step.
pub(super) fn reward_frontier(results: &Results) -> Result<Option<Drawn>> {
    let mut series: Vec<(String, Vec<Measured>)> = vec![];
    for p in &results.frontier {
        let (Some(x), Some(y)) = (p.kl.known(), p.reward.known()) else { continue };
        let point = Measured { x, y, label: format!("{}, step {}", p.label, p.step) };
        match series.iter_mut().find(|(name, _)| *name == p.label) {
            Some((_, points)) => {
                // Only the last point of a training has a label, since labels at every point would
                // overlap.
                points.iter_mut().for_each(|earlier| earlier.label.clear());
                points.push(point);
            }
            None => series.push((p.label.clone(), vec![point])),
        }
    }
    let Some(judge) =
        results.frontier.first().map(|p| escape(&p.judge)).filter(|_| !series.is_empty())
    else {
        return Ok(None);
    };
    let left_out = results.frontier.len() - series.iter().map(|s| s.1.len()).sum::<usize>();
    let note = if left_out == 0 {
        String::new()
    } else {
        format!(" Not enough data to draw: {left_out}.")
    };
    let names: Vec<String> = series.iter().map(|(name, _)| escape(name)).collect();
    let caption = format!(
        "Reward against distance from the reference: the reward of a reply above that of the \
         reference’s reply to the same prompt, by {judge}, against the KL divergence of replies \
         from the reference, with 95% intervals of both; each line is a training ({}), each point \
         a step of it, and the last one has its name. Of two points at the same height, the left \
         one costs less. A judge that is itself a model may give a high reward to replies that \
         people do not prefer, so its reward says less far to the right.{note}",
        list(&names)
    );
    Ok(Some(Drawn { plots: svg(frontier(series))?, caption }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::summary::file::Number;

    fn number(value: f64, low: f64, high: f64, method: &str) -> Number {
        serde_json::from_value(serde_json::json!({
            "value": value, "low": low, "high": high, "n": 250, "method": method,
        }))
        .unwrap()
    }

    fn row(
        first: f64,
        second: f64,
        at: [f64; 3],
        kind: Kind,
        better: Better,
        effect: (f64, EffectScale),
    ) -> Row {
        Row {
            metric: "m".into(),
            detail: false,
            better,
            instrument: Instrument::Formula,
            data_hash: String::new(),
            first: Some(number(first, first, first, "Wilson")),
            second: number(second, second, second, "Wilson"),
            difference: number(at[0], at[1], at[2], ""),
            kind,
            p_value: None,
            p_corrected: None,
            test: String::new(),
            effect: Some(effect.0),
            effect_scale: Some(effect.1),
            verdict: Verdict::NotTested,
        }
    }

    #[test]
    fn the_middle_of_an_interval_is_the_effect_itself_and_no_difference_is_zero() {
        let h = cohen_h(0.88, 0.956);
        let shares = row(
            0.88,
            0.956,
            [0.076, 0.0, 0.102],
            Kind::Difference,
            Better::Higher,
            (h, EffectScale::CohenH),
        );
        let [value, low, high] = scaled(&shares).unwrap();
        assert!((value - h).abs() < 1e-12 && low == 0.0 && high > h, "{value} {low} {high}");
        let means = row(
            0.0,
            0.0,
            [-0.006, -0.011, -0.001],
            Kind::Difference,
            Better::Lower,
            (-0.12, EffectScale::CohenDz),
        );
        let [value, low, high] = scaled(&means).unwrap();
        assert!(
            (value - 0.12).abs() < 1e-12
                && (low - 0.02).abs() < 1e-12
                && (high - 0.22).abs() < 1e-12
        );
        let ratio = row(
            1.0,
            2.0,
            [2.0, 1.0, 4.0],
            Kind::Ratio,
            Better::Neither,
            (0.5, EffectScale::CohenDz),
        );
        assert_eq!(scaled(&ratio).unwrap(), [0.5, 0.0, 1.0]);
    }

    #[test]
    fn a_difference_of_zero_has_no_deviation_to_scale_by() {
        let none = row(
            0.0,
            0.0,
            [0.0, -0.1, 0.1],
            Kind::Difference,
            Better::Lower,
            (0.0, EffectScale::CohenDz),
        );
        assert!(scaled(&none).is_none());
    }
}
