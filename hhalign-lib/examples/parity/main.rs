//! Fixtures for the Python programs in `scripts/checks` and `scripts/tests`, which compare the
//! library with transformers, TRL and the pages' scripts. The first word names the fixture.

mod export;
mod gpt2;
mod lab_page;
mod logits;
mod scores;

use hhalign::base::error::{Error, Result};

const USAGE: &str = "one of
    parity logits MODEL_FOLDER OUTPUT.json
    parity gpt2 compare FOLDER IDS.safetensors OUTPUT.safetensors
    parity gpt2 tokens FOLDER TEXTS.json OUTPUT.json
    parity gpt2 vocabulary OUTPUT_FOLDER
    parity gpt2 train FOLDER OUTPUT_FOLDER STEPS
    parity scores toxic-bert FOLDER TEXTS.json OUTPUT.json
    parity scores fluency FILE.gguf TEXTS.json OUTPUT.json
    parity lab_page FOLDER [PAIRS]
    parity export FOLDER";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["logits", model, output] => logits::write(model, output),
        ["gpt2", "compare", folder, ids, output] => gpt2::compare(folder, ids, output),
        ["gpt2", "tokens", folder, texts, output] => gpt2::tokens(folder, texts, output),
        ["gpt2", "vocabulary", folder] => gpt2::vocabulary(folder),
        ["gpt2", "train", folder, output, steps] => gpt2::train(folder, output, number(steps)?),
        ["scores", "toxic-bert", folder, texts, output] => {
            scores::toxic_bert(folder, texts, output)
        }
        ["scores", "fluency", file, texts, output] => scores::fluency(file, texts, output),
        ["lab_page", folder] => lab_page::write(folder, lab_page::PAIRS),
        ["lab_page", folder, pairs] => lab_page::write(folder, number(pairs)?),
        ["export", folder] => export::write(folder),
        other => Err(Error::new("there is no such fixture", other.join(" "), USAGE)),
    }
}

fn number(text: &str) -> Result<usize> {
    text.parse().map_err(|_| Error::new("a whole number is needed", text, USAGE))
}
