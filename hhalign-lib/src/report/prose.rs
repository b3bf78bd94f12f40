//! Limits, samples and the command: what stands around the figures.

use super::read::{Results, Sample};
use crate::data::SUBSETS;
use crate::eval::measure::Instrument;
use crate::hub::HH_RLHF;
use crate::table::escape;

/// What the figures of this run cannot say, whatever they are.
pub(super) fn limits(results: &Results) -> String {
    let p = &results.provenance;
    let [first, second] = results.names().map(escape);
    let mut items = vec![format!(
        "<b>One training of each model, with seed {}.</b> Intervals and tests are about other prompts of the same kind. They do not cover what another seed of training or of sampling, or other settings, would give.",
        p.seed
    )];
    if results.is_synthetic() {
        items.push("<b>Synthetic data.</b> Prompts and replies come from a grammar, and a reply is the better one because its grade says so. Figures on it show whether the method works; they say nothing about how helpful or safe an assistant is, and do not compare with figures on real preferences.".into());
    }
    items.push("<b>Cases are taken as independent.</b> Prompts that share a template, or rows that share a first turn, are not quite, so the intervals are somewhat too narrow.".into());
    items.push("<b>Many metrics.</b> Holm’s correction keeps the chance of any false claim among the tested metrics below 5%. Lines that are parts of another metric are not tested, and whoever looks for the one that moved will find one.".into());
    items.push("<b>“No difference shown” is not “no difference”.</b> The interval of the difference says how large a difference the cases still allow.".into());
    items.push(format!("<b>Better in a metric is not better.</b> That {second} scores above {first} in a metric speaks for what this metric measures and nothing else; both models may be poor. Fewer refusals, fewer toxic replies and shorter replies can come from one another: read them together."));
    items.push("<b>Ranking is not writing.</b> Reward accuracy and perplexity look at replies that were given to the model. What it writes itself is in the other metrics and in the samples.".into());
    format!("<ul>{}</ul>", items.iter().map(|i| format!("<li>{i}</li>")).collect::<String>())
}

/// The command that gives the same results, as far as the summary knows its settings.
pub(super) fn command(results: &Results) -> String {
    let p = &results.provenance;
    let mut words = vec!["./scripts/run".to_string()];
    if !results.is_synthetic() {
        words.push(format!("--data {}", from_hub(&p.data).unwrap_or_else(|| "HH_FOLDER".into())));
    }
    let preset = results.settings.get("preset").and_then(|v| v.as_str()).map(str::to_lowercase);
    // The value comes from a file and goes into a command: only what a preset can be called.
    if preset.as_deref().is_some_and(|p| p.starts_with("weights of ")) {
        words.push("--init WEIGHTS_FOLDER".into());
    } else if let Some(preset) = preset.filter(|p| p.chars().all(|c| c.is_ascii_alphanumeric())) {
        words.push(format!("--preset {preset}"));
    }
    words.push(format!("--seed {}", p.seed));
    for (option, key) in [("--sft-steps", "sft_steps"), ("--dpo-steps", "dpo_steps")] {
        if let Some(n) = results.count(key) {
            words.push(format!("{option} {n}"));
        }
    }
    words.extend(p.beta.map(|beta| format!("--beta {beta}")));
    if let Some(n) = pairs(results) {
        words.push(format!("--pairs {n}"));
    }
    let uses = |f: fn(&Instrument) -> bool| results.rows.iter().any(|r| f(&r.instrument));
    if uses(|i| matches!(i, Instrument::Classifier(who) if who.contains("toxic-bert"))) {
        words.push("--toxic-bert TOXIC_BERT_FOLDER".into());
    }
    if uses(|i| matches!(i, Instrument::LanguageModel(_))) {
        words.push("--gguf MODEL_FILE".into());
    }
    words.push("--out results-again".into());
    words.join(" ")
}

/// What fetches the same data, where the data came from the hub.
fn from_hub(data: &str) -> Option<String> {
    let (commit, rest) = data.strip_prefix(HH_RLHF)?.strip_prefix('@')?.split_once(", ")?;
    let subset = rest.split(", ").next()?;
    // The name comes from a file and goes into a command: only what a commit and a subset can be called.
    let sound = (subset == "all" || SUBSETS.contains(&subset)) && commit.bytes().all(|b| b.is_ascii_alphanumeric());
    sound.then(|| format!("hub:{subset}@{commit}"))
}

/// How many pairs the run was given, where it was told a number.
fn pairs(results: &Results) -> Option<i64> {
    if results.is_synthetic() {
        // A judge's pairs are drawn beside them.
        return Some(results.count("pairs_train")? + results.count("pairs_held_out")?);
    }
    // `harmless-base, 4000 of 42537 pairs drawn`
    let drawn = results.provenance.data.strip_suffix(" pairs drawn")?.rsplit(", ").next()?;
    drawn.split_once(" of ")?.0.parse().ok()
}

/// The command with what to expect of it.
pub(super) fn reproduce(results: &Results) -> String {
    let p = &results.provenance;
    let data = if results.is_synthetic() || from_hub(&p.data).is_some() {
        String::new()
    } else {
        format!(
            " <code>HH_FOLDER</code> is where “{}” lies; other words in capitals stand for files as well.",
            escape(&p.data)
        )
    };
    format!(
        "<pre><code>{}</code></pre><p>With hhalign {}.{data} The hashes at the foot of this page say whether the same data, tokenizer and weights came out. Steps are those that were taken: a training that stopped early shows fewer than it was asked for. On a processor with other vector instructions sums may differ in their last bits, and so the weights’ hashes and, by little, the figures.</p>",
        escape(&command(results)),
        escape(&results.version)
    )
}

/// A dialogue turn by turn; what has no turns stays as it is.
fn turns(prompt: &str) -> String {
    let text = prompt.trim().strip_suffix("Assistant:").unwrap_or(prompt.trim()).trim_end();
    let turn = |part: &str| {
        let known =
            ["Human", "Assistant"].iter().find_map(|who| Some((*who, part.strip_prefix(*who)?.strip_prefix(':')?)));
        match known {
            Some((who, said)) => format!("<p><span class=\"who\">{who}</span> {}</p>", escape(said.trim())),
            None => format!("<p>{}</p>", escape(part.trim())),
        }
    };
    text.split("\n\n").map(turn).collect()
}

/// Prompts with the replies of both models beside each other.
pub(super) fn samples(results: &Results) -> String {
    let reply = |sample: &Sample, name: &str| {
        let text = sample.replies.get(name).map(|r| r.trim());
        let body = match text {
            None => "<i>none was kept</i>".into(),
            Some("") => "<i>an empty reply</i>".into(),
            Some(text) => escape(text),
        };
        format!("<div class=\"reply\"><h4>{}</h4><p>{body}</p></div>", escape(name))
    };
    let one = |sample: &Sample| {
        let replies: String = results.names().iter().map(|name| reply(sample, name)).collect();
        format!(
            "<article><div class=\"prompt\">{}</div><div class=\"replies\">{replies}</div></article>",
            turns(&sample.prompt)
        )
    };
    results.samples.iter().map(one).collect()
}
