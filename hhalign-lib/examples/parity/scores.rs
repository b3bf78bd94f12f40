//! What a toxicity classifier or a language model makes of texts, and how long it takes, for
//! `scripts/checks/check_scores.py`.

use std::time::Instant;

use hhalign::base::error::Result;
use hhalign::base::files;
use hhalign::eval::metrics::fluency::Fluency;
use hhalign::eval::metrics::toxicity::{ToxicBert, ToxicityScorer};
use serde_json::json;

/// Writes the six probabilities of each text of a list.
pub fn toxic_bert(folder: &str, texts: &str, output: &str) -> Result<()> {
    let texts: Vec<String> = serde_json::from_slice(&files::read(texts.as_ref())?)?;
    let start = Instant::now();
    let model = ToxicBert::load(folder)?;
    say(&model.identity(), "loaded", start);
    let start = Instant::now();
    let scores = model.score(&texts)?;
    say(&format!("{} texts", texts.len()), "scored", start);
    let scores: Vec<Vec<_>> = scores.iter().map(|s| s.labels().map(|(_, p)| p).collect()).collect();
    let tokens = texts.iter().map(|t| Ok(model.encode(t)?.len())).sum::<Result<usize>>()?;
    println!("{tokens} tokens with a score");
    files::write_atomic(output.as_ref(), json!(scores).to_string().as_bytes())
}

/// Writes ln p of each token of the replies of a list of [prompt, reply].
pub fn fluency(file: &str, texts: &str, output: &str) -> Result<()> {
    let pairs: Vec<(String, String)> = serde_json::from_slice(&files::read(texts.as_ref())?)?;
    let (prompts, replies): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
    let start = Instant::now();
    let model = Fluency::load(file)?;
    say(&model.identity(), "loaded", start);
    let start = Instant::now();
    let logps = model.token_logps(&prompts, &replies)?;
    say(&format!("{} replies", replies.len()), "scored", start);
    println!("{} tokens with a score", logps.iter().map(Vec::len).sum::<usize>());
    files::write_atomic(output.as_ref(), json!(logps).to_string().as_bytes())
}

fn say(what: &str, done: &str, start: Instant) {
    println!("{what} {done} in {:.2} s", start.elapsed().as_secs_f64());
}
