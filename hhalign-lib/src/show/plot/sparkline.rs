//! A plot in a line of text.

/// Draws the last `width` numbers as a row of small bars: `▇▅▃▂▁`.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let bars: Vec<char> = "▁▂▃▄▅▆▇█".chars().collect();
    let shown = &values[values.len().saturating_sub(width)..];
    let finite = || shown.iter().copied().filter(|v| v.is_finite());
    let (low, high) =
        finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let bar = |v: f64| {
        bars[if high > low { ((v - low) / (high - low) * 7.0).round() as usize } else { 0 }]
    };
    shown.iter().map(|v| if v.is_finite() { bar(*v) } else { ' ' }).collect()
}
