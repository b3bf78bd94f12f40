//! Writes what a toxicity classifier or a language model makes of texts, for `scripts/check_scores.py`, and says how long
//! it took.
//!
//! usage: cargo run --release --example scores -- toxic-bert FOLDER TEXTS.json OUT.json
//!        cargo run --release --example scores -- fluency FILE.gguf TEXTS.json OUT.json
//!
//! TEXTS.json is a list of texts, or of [prompt, reply] for a language model. OUT.json has for each text the six
//! probabilities, or for each reply ln p of its tokens.

use std::time::Instant;

use hhalign::error::{Error, Result};
use hhalign::eval::fluency::Fluency;
use hhalign::eval::toxicity::{ToxicBert, ToxicityScorer};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, model, texts, output] = arguments.as_slice() else {
        let usage = "give toxic-bert or fluency, MODEL, TEXTS.json and OUT.json";
        return Err(Error::new("four arguments are needed", format!("{arguments:?}"), usage));
    };
    let bytes = hhalign::files::read(texts.as_ref())?;
    let start = Instant::now();
    let (out, tokens): (Value, usize) = match kind.as_str() {
        "toxic-bert" => {
            let texts: Vec<String> = serde_json::from_slice(&bytes)?;
            let model = ToxicBert::load(model)?;
            say(&model.identity(), "loaded", start);
            let start = Instant::now();
            let scores = model.score(&texts)?;
            say(&format!("{} texts", texts.len()), "scored", start);
            let scores = scores.iter().map(|s| s.labels().map(|(_, p)| p).collect::<Vec<_>>()).collect::<Vec<_>>();
            let tokens = texts.iter().map(|t| Ok(model.encode(t)?.len())).sum::<Result<usize>>()?;
            (json!(scores), tokens)
        }
        _ => {
            let pairs: Vec<(String, String)> = serde_json::from_slice(&bytes)?;
            let (prompts, replies): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
            let model = Fluency::load(model)?;
            say(&model.identity(), "loaded", start);
            let start = Instant::now();
            let logps = model.token_logps(&prompts, &replies)?;
            say(&format!("{} replies", replies.len()), "scored", start);
            let tokens = logps.iter().map(Vec::len).sum();
            (json!(logps), tokens)
        }
    };
    println!("{tokens} tokens with a score");
    hhalign::files::write_atomic(output.as_ref(), out.to_string().as_bytes())
}

fn say(what: &str, done: &str, start: Instant) {
    println!("{what} {done} in {:.2} s", start.elapsed().as_secs_f64());
}
