//! Limits, samples and the command to reproduce the run.

use super::read::Results;
use crate::base::hub::HH_RLHF;
use crate::data::SUBSETS;
use crate::eval::measure::Instrument;
use crate::eval::summary::file::Sample;
use crate::show::table::escape;

const SYNTHETIC: &str = "<b>Synthetic data.</b> Prompts and replies come from a grammar, and a \
    grade decides which reply is better. Results on it show whether the method works; they say \
    nothing about how helpful or safe an assistant is, and do not compare with results on real \
    preferences.";

const INDEPENDENCE: &str = "<b>Cases count as independent.</b> Prompts that share a template, or \
    rows that share a first turn, are not quite independent, so the intervals are somewhat too \
    narrow.";

const MANY_METRICS: &str = "<b>Many metrics.</b> Holm’s correction keeps the probability of any \
    false claim among the tested metrics below 5%. Parts of another metric are not tested: among \
    many of them, some move by chance.";

const NO_DIFFERENCE: &str = "<b>“No difference shown” is not “no difference”.</b> The interval of \
    the difference shows how large a difference the cases still allow.";

const RANKING: &str = "<b>Ranking is not writing.</b> Reward accuracy and perplexity are about \
    given replies. The other metrics and the samples are about what the model writes itself.";

/// Writes what the values of this run cannot say.
pub(super) fn limits(results: &Results) -> String {
    let p = &results.provenance;
    let [first, second] = results.names().map(escape);
    let mut items = vec![format!(
        "<b>One training of each model, with seed {}.</b> Intervals and tests are about other \
         prompts of the same kind. They do not cover the results of another seed of training or \
         sampling, or of other settings.",
        p.seed
    )];
    if results.is_synthetic() {
        items.push(SYNTHETIC.into());
    }
    items.push(INDEPENDENCE.into());
    items.push(MANY_METRICS.into());
    items.push(NO_DIFFERENCE.into());
    items.push(format!(
        "<b>Better in a metric is not better in general.</b> A higher score of {second} than of \
         {first} is about what the metric measures and nothing else; both models may be poor. \
         Fewer refusals, fewer toxic replies and shorter replies may cause each other: read them \
         together."
    ));
    items.push(RANKING.into());
    format!("<ul>{}</ul>", items.iter().map(|i| format!("<li>{i}</li>")).collect::<String>())
}

/// Writes the command that gives the same results, as far as the summary has the settings.
pub(super) fn command(results: &Results) -> String {
    let p = &results.provenance;
    let mut words = vec!["./scripts/run".to_string()];
    if !results.is_synthetic() {
        words.push(format!("--data {}", from_hub(&p.data).unwrap_or_else(|| "HH_FOLDER".into())));
    }
    let preset = results.settings.get("preset").and_then(|v| v.as_str()).map(str::to_lowercase);
    // The value goes from a file into a command, so only valid names of presets are allowed.
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

/// The option that fetches the same data, if the data came from the hub.
fn from_hub(data: &str) -> Option<String> {
    let (commit, rest) = data.strip_prefix(HH_RLHF)?.strip_prefix('@')?.split_once(", ")?;
    let subset = rest.split(", ").next()?;
    // The name goes from a file into a command, so only valid commits and subsets are allowed.
    let sound = (subset == "all" || SUBSETS.contains(&subset))
        && commit.bytes().all(|b| b.is_ascii_alphanumeric());
    sound.then(|| format!("hub:{subset}@{commit}"))
}

/// The number of pairs that the run was asked for, if any.
fn pairs(results: &Results) -> Option<i64> {
    if results.is_synthetic() {
        // The pairs of a judge are drawn separately.
        return Some(results.count("pairs_train")? + results.count("pairs_held_out")?);
    }
    // `harmless-base, 4000 of 42537 pairs drawn`
    let drawn = results.provenance.data.strip_suffix(" pairs drawn")?.rsplit(", ").next()?;
    drawn.split_once(" of ")?.0.parse().ok()
}

/// Writes the command, and what to expect of it.
pub(super) fn reproduce(results: &Results) -> String {
    let p = &results.provenance;
    let data = if results.is_synthetic() || from_hub(&p.data).is_some() {
        String::new()
    } else {
        format!(
            " <code>HH_FOLDER</code> is the folder of “{}”; other words in capitals stand for \
             files.",
            escape(&p.data)
        )
    };
    format!(
        "<pre><code>{}</code></pre><p>With hhalign {}.{data} The hashes at the foot of this page \
         show whether data, tokenizer and weights are the same. The steps are those that were \
         taken: fewer than requested if a training stopped early. On a processor with other vector \
         instructions, sums may differ in the last bits, so the hashes of the weights differ and \
         the values differ slightly.</p>",
        escape(&command(results)),
        escape(&results.version)
    )
}

/// Writes a dialogue turn by turn; a text without turns stays as it is.
fn turns(prompt: &str) -> String {
    let text = prompt.trim().strip_suffix("Assistant:").unwrap_or(prompt.trim()).trim_end();
    let turn = |part: &str| {
        let known = ["Human", "Assistant"]
            .iter()
            .find_map(|who| Some((*who, part.strip_prefix(*who)?.strip_prefix(':')?)));
        match known {
            Some((who, said)) => {
                format!("<p><span class=\"who\">{who}</span> {}</p>", escape(said.trim()))
            }
            None => format!("<p>{}</p>", escape(part.trim())),
        }
    };
    text.split("\n\n").map(turn).collect()
}

/// Writes prompts with the replies of both models side by side.
pub(super) fn samples(results: &Results) -> String {
    let reply = |sample: &Sample, name: &str| {
        let text = sample.replies.get(name).map(|r| r.trim());
        let body = match text {
            None => "<i>not recorded</i>".into(),
            Some("") => "<i>an empty reply</i>".into(),
            Some(text) => escape(text),
        };
        format!("<div class=\"reply\"><h4>{}</h4><p>{body}</p></div>", escape(name))
    };
    let one = |sample: &Sample| {
        let replies: String = results.names().iter().map(|name| reply(sample, name)).collect();
        format!(
            "<article><div class=\"prompt\">{}</div><div class=\"replies\">{replies}</div>\
             </article>",
            turns(&sample.prompt)
        )
    };
    results.samples.iter().map(one).collect()
}
