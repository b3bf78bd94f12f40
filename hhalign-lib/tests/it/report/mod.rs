//! The report: that its words hold the summary's numbers, that no text of a run can act on the
//! page, and what it refuses.

mod page;
mod side_by_side;
mod summaries;

use std::sync::OnceLock;

use hhalign::data::Dataset;
use hhalign::data::batch::Side;
use hhalign::eval::comparison::Comparison;
use hhalign::eval::metrics::perplexity::perplexity;
use hhalign::eval::metrics::quality::quality;
use hhalign::eval::metrics::ranking::reward_accuracy;
use hhalign::eval::metrics::refusal::{Refusal, RefusalPrompts, matcher};
use hhalign::eval::metrics::toxicity::{Classifier, ToxicityReport};
use hhalign::eval::summary::{Settings, Summary};
use hhalign::infer::sample::Reply;
use hhalign::loss::Rewards;
use hhalign::model::Gpt;
use hhalign::train::{Dpo, History, Outcome};
use serde_json::Value;

use crate::common::{Folder, texts, tiny, tokenized, tokenizer};

/// A comparison of two small models whose figures follow from counts: 90 of 100 pairs ranked right,
/// refusal right in 75 and in 93 of 100 prompts, no classifier of toxicity.
fn comparison() -> &'static Comparison {
    static TABLE: OnceLock<Comparison> = OnceLock::new();
    TABLE.get_or_init(measured)
}

fn measured() -> Comparison {
    let data = Dataset::embedded(0, 100).unwrap();
    let [first, second] = [0, 1].map(|seed| Gpt::new(tiny(1, 0.0), seed).unwrap());
    let table = Comparison::new(&data, &tokenizer(), ("SFT", &first), ("DPO", &second), 7).unwrap();
    let mut table = table.trained_by(&run(0.3));
    let chosen = (0..100).map(|i| if i < 90 { 1.0 } else { -1.0 }).collect();
    table.add_joint(&reward_accuracy(&Rewards { chosen, rejected: vec![0.0; 100] }, 7));
    let prompts = RefusalPrompts::embedded(0, 50).unwrap();
    let refusal = |harmful_right: usize, benign_right: usize| {
        let mut seen = [0, 0];
        let refused: Vec<bool> = prompts
            .harmful
            .iter()
            .map(|&harmful| {
                seen[usize::from(harmful)] += 1;
                if harmful { seen[1] <= harmful_right } else { seen[0] > benign_right }
            })
            .collect();
        Refusal::from_decisions(&prompts, &refused, &matcher(), 7).unwrap()
    };
    table.add_all(&refusal(50, 25), &refusal(45, 48)).unwrap();
    let replies = texts(3, 100);
    let toxicity =
        ToxicityReport::of(&Classifier::find("no such folder", None).unwrap(), &[], &[], 7)
            .unwrap();
    table.add_all(&toxicity, &toxicity).unwrap();
    let pairs = tokenized(&replies[..40]);
    let of = |model: &Gpt| perplexity(model, &pairs, &replies[..40], Side::Chosen, 7).unwrap();
    table.add_all(&of(&first), &of(&second)).unwrap();
    let drawn = |longest: usize| -> Vec<Reply> {
        let cut = |text: &str| text.split_whitespace().take(longest).collect::<Vec<_>>().join(" ");
        replies.iter().map(|p| Reply::from_text(&cut(&p.chosen))).collect()
    };
    table.add_all(&quality(&drawn(20), 7), &quality(&drawn(8), 7)).unwrap();
    table
}

/// A preference run with this β.
fn run(beta: f64) -> Outcome {
    let mut dpo = Dpo { beta, ..Dpo::default() };
    (dpo.train.max_steps, dpo.train.warmup_steps, dpo.train.progress) = (1, 0, false);
    let reference = Gpt::new(tiny(1, 0.0), 0).unwrap().freeze().unwrap();
    let pairs = tokenized(&texts(1, 4));
    dpo.fit(&mut reference.fork().unwrap(), &reference, &pairs, &pairs).unwrap()
}

/// The same as a results folder, changed by hand where a test wants that.
fn folder(name: &str, change: impl FnOnce(&mut Value)) -> Folder {
    let table = comparison();
    let mut history = History::default();
    for step in 0..5 {
        let loss = 0.7 / (1 + step) as f64;
        history.log(
            step,
            [
                ("loss".to_string(), loss),
                ("eval_loss".into(), loss),
                ("eval_rewards/chosen".into(), -loss),
            ],
        );
    }
    let settings = Settings::default()
        .with("preset", "Toy")
        .with("parameters", 12_345)
        .with("pairs_train", 80)
        .with("pairs_held_out", 20)
        .with("pairs_judge", 15)
        .with("sft_steps", 30)
        .with("dpo_steps", 10);
    let reply = |text: &str| vec![Reply::from_text(text)];
    let summary = Summary::new(table, &settings).unwrap().with_history("SFT", &history).unwrap();
    let summary = summary.with_history("DPO", &history).unwrap().with_samples(
        &[0],
        &["\n\nHuman: Good day\n\nAssistant:".into()],
        ("SFT", &reply(" Hello")),
        ("DPO", &reply("")),
    );
    let folder = Folder::new(&format!("report-{name}"));
    summary.write(&folder.0).unwrap();
    let path = folder.join("results_summary.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    folder.write("results_summary.json", json.to_string());
    folder
}

/// What a reader sees: no tags, no entities, one space for any blank.
fn seen(html: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            c if !inside => text.push(c),
            _ => {}
        }
    }
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    [" ,", " ;", " .", " )"].iter().fold(text, |t, gap| t.replace(gap, gap.trim()))
}

/// The part of a page between two marks.
fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let start = page.find(from).unwrap_or_else(|| panic!("no {from:?} on the page")) + from.len();
    &page[start
        ..start + page[start..].find(to).unwrap_or_else(|| panic!("no {to:?} after {from:?}"))]
}

fn has(text: &str, wanted: &str) {
    assert!(text.contains(wanted), "{wanted:?} is missing in:\n{text}");
}
