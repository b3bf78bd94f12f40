//! The report: that its words hold the summary's numbers, that no text of a run can act on the page, and what it refuses.

mod common;

use std::path::Path;
use std::sync::OnceLock;

use common::{Folder, error, texts, tiny, tokenized, tokenizer};
use hhalign::batch::Side;
use hhalign::data::Dataset;
use hhalign::eval::comparison::{Comparison, Verdict};
use hhalign::eval::perplexity::perplexity;
use hhalign::eval::quality::quality;
use hhalign::eval::ranking::reward_accuracy;
use hhalign::eval::refusal::{Refusal, RefusalPrompts, matcher};
use hhalign::eval::summary::{Settings, Summary};
use hhalign::eval::toxicity::{Classifier, ToxicityReport};
use hhalign::loss::Rewards;
use hhalign::model::Gpt;
use hhalign::report::{compare, report, write_report};
use hhalign::sample::Reply;
use hhalign::train::{Dpo, History, Outcome};
use serde_json::{Value, json};

const HOSTILE: &str = "<script>alert(1)</script> \"><img src=x onerror=alert(2)> </pre><!-- &lt;b&gt; '\u{2028}";

/// A comparison of two small models whose figures follow from counts: 90 of 100 pairs ranked right, refusal right in 75
/// and in 93 of 100 prompts, no classifier of toxicity.
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
    let toxicity = ToxicityReport::of(&Classifier::find("no such folder", None).unwrap(), &[], &[], 7).unwrap();
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
        history
            .log(step, [("loss".to_string(), loss), ("eval_loss".into(), loss), ("eval_rewards/chosen".into(), -loss)]);
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
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    [" ,", " ;", " .", " )"].iter().fold(text, |t, gap| t.replace(gap, gap.trim()))
}

/// The part of a page between two marks.
fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let start = page.find(from).unwrap_or_else(|| panic!("no {from:?} on the page")) + from.len();
    &page[start..start + page[start..].find(to).unwrap_or_else(|| panic!("no {to:?} after {from:?}"))]
}

fn has(text: &str, wanted: &str) {
    assert!(text.contains(wanted), "{wanted:?} is missing in:\n{text}");
}

#[test]
fn the_abstract_says_what_was_done_and_what_changed() {
    let folder = folder("abstract", |_| {});
    let page = report(&folder.0).unwrap();
    let said = seen(between(&page, "class=\"abstract\"", "</section>"));
    has(
        &said,
        "A small GPT of 12,345 parameters was fine-tuned on the preferred replies of 80 pairs of preferences (SFT, 30 steps)",
    );
    has(&said, "direct preference optimisation (DPO, β = 0.3, 10 steps)");
    has(&said, "which is synthetic");
    has(&said, "measured on 20 held-out pairs");
    // Wilson's interval of 90 of 100, as any book's table has it.
    has(&said, "reward accuracy, 90.0% [82.6, 94.5] where chance is 50% (n = 100)");
    has(&said, "refusal, balanced accuracy, from 75.0% to 93.0% (+18.0 points [");
    has(&said, "Without one way being the better one, they differ in words in a reply, from ");
    has(&said, "None was shown to be worse, which is no proof that none is.");
    has(&said, "That is not evidence that the models are alike there");
    has(&said, "Not enough data for a figure with an interval: toxicity, mean score");
    let tests = comparison().corrected().iter().flatten().count();
    has(&said, &format!("Holm’s correction for all {tests} tests"));
    has(&said, "another training seed would give other models");
    let whole = seen(&page).to_lowercase();
    for word in ["identical", "the same as sft", "equally good", "no effect", "significant"] {
        assert!(!whole.contains(word), "{word:?} says more than a test can");
    }
}

#[test]
fn every_row_has_its_figures_and_the_librarys_own_verdict() {
    let folder = folder("rows", |_| {});
    let page = report(&folder.0).unwrap();
    let table = comparison();
    let rows: Vec<&str> =
        between(&page, "<div class=\"table results\">", "</table>").split("<tr role=\"row\" class=").skip(1).collect();
    assert_eq!(rows.len(), table.rows().len());
    for ((html, row), verdict) in rows.iter().zip(table.rows()).zip(table.verdicts()) {
        let text = seen(html);
        has(&text, &row.metric);
        assert_eq!(html.starts_with("\"detail\""), row.detail, "{text}");
        let words = match verdict {
            Verdict::Better if row.first.is_none() => "✓ above chance",
            Verdict::Better => "✓ better",
            Verdict::Worse => "✗ worse",
            Verdict::Different => "≠ different",
            Verdict::NotShown => "○ no difference shown",
            Verdict::NotTested if !row.second.is_known() => "– not enough data",
            Verdict::NotTested => "– not tested",
        };
        assert!(text.ends_with(words), "{words:?} does not end {text:?}");
        if !row.second.is_known() {
            has(&text, &format!(", n = {}", row.second.n));
        }
    }
    let perplexity = table.rows().iter().position(|r| r.metric == "perplexity of chosen replies").unwrap();
    let row = &table.rows()[perplexity];
    let ratio = row.second.value / row.first.as_ref().unwrap().value;
    has(&seen(rows[perplexity]), &format!("× {ratio:.3}"));
}

#[test]
fn a_verdict_in_the_file_is_the_one_on_the_page() {
    for (verdict, words) in [
        ("worse", "It is worse in one main metric: refusal, balanced accuracy"),
        ("not_shown", "No difference was shown in these:"),
    ] {
        let folder = folder(&format!("verdict-{verdict}"), |json| json["comparisons"][1]["verdict"] = verdict.into());
        let said = seen(between(&report(&folder.0).unwrap(), "class=\"abstract\"", "</section>"));
        has(&said, words);
        assert!(!said.contains("better than SFT in two"), "{said}");
    }
}

#[test]
fn no_text_of_a_run_can_act_on_the_page() {
    let folder = folder("hostile", |json| {
        json["provenance"]["data"] = HOSTILE.into();
        json["settings"]["preset"] = HOSTILE.into();
        json["settings"][HOSTILE] = HOSTILE.into();
        json["samples"][0] = json!({ "prompt": HOSTILE, "replies": { "SFT": HOSTILE, "DPO": HOSTILE } });
        for part in ["figures", "comparisons"] {
            for row in json[part].as_array_mut().unwrap() {
                row["metric"] = HOSTILE.into();
                if part == "figures" {
                    row["instrument"] = json!({ "kind": "judge", "identity": HOSTILE });
                }
            }
        }
        let estimate = json!({ "value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "method": "Wilson" });
        json["judges"] = json!([{ "identity": HOSTILE, "accuracy": estimate }]);
        json["frontier"] =
            json!([{ "label": HOSTILE, "beta": 0.1, "step": 1, "kl": estimate, "reward": estimate, "judge": HOSTILE }]);
        json["toxicity_scores"] = json!({ "SFT": [0.1, 0.2], "DPO": [0.1] });
        json["histories"]["SFT"]["marks"] = json!([{ "step": 1, "text": HOSTILE }]);
    });
    for page in [report(&folder.0).unwrap(), compare(&folder.0, &folder.0).unwrap()] {
        for tag in ["<script", "<img", "<!--"] {
            assert!(!page.contains(tag), "{tag} stands on the page");
        }
        well_formed(&page);
        has(&seen(&page), "<script>alert(1)</script> \"><img src=x onerror=alert(2)>");
        let command = page.contains("<pre>").then(|| between(&page, "<pre>", "</pre>"));
        assert!(command.is_none_or(|c| !c.contains("alert")), "a text came into the command");
    }
}

/// Every element that begins ends, in order: a text that broke out would leave a piece over.
fn well_formed(page: &str) {
    let mut open = vec![];
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap_or_default();
        match tag {
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "before {:.80}", rest),
            _ if tag.ends_with('/') || ["meta", "!doctype", "br"].contains(&name) => {}
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[test]
fn the_page_loads_nothing_and_is_whole() {
    let folder = folder("whole", |_| {});
    for page in [report(&folder.0).unwrap(), compare(&folder.0, &folder.0).unwrap()] {
        well_formed(&page);
        has(&page, "default-src 'none'; style-src 'unsafe-inline'");
        for loads in ["src=", "url(", "@import", "<link", "<script", "<iframe", "<object"] {
            assert!(!page.contains(loads), "{loads} on the page");
        }
        for link in page.split("href=\"").skip(1) {
            let target = &link[..link.find('"').unwrap()];
            assert!(
                target.starts_with('#') && page.contains(&format!("id=\"{}\"", &target[1..])),
                "{target} leads nowhere"
            );
        }
        let drawings = page.matches("<svg ").count();
        assert_eq!(drawings, page.matches("<svg role=\"img\" aria-label=\"").count(), "a figure without words");
        assert_eq!(page.matches("<table").count(), page.matches("<caption>").count(), "a table without a caption");
    }
}

#[test]
fn a_report_lies_beside_its_summary_and_is_made_alike_each_time() {
    let folder = folder("written", |_| {});
    let written = write_report(&folder.0).unwrap();
    assert_eq!(written.path, folder.join("report.html"));
    let page = std::fs::read_to_string(&written.path).unwrap();
    assert_eq!((page.len(), &page), (written.bytes, &report(&folder.0).unwrap()));
    assert!(written.to_string().starts_with("report.html, "), "{written}");
    let command = seen(between(&page, "<pre>", "</pre>"));
    assert_eq!(
        command,
        "./scripts/run --preset toy --seed 7 --sft-steps 30 --dpo-steps 10 --beta 0.3 --pairs 100 --out results-again"
    );
    for hash in [&comparison().provenance().data_hash, &comparison().provenance().models[1].hash] {
        assert!(page.matches(hash.as_str()).count() >= 2, "{hash} stands in the set-up and at the foot");
    }
}

#[test]
fn real_data_is_asked_for_and_not_called_synthetic() {
    let folder =
        folder("real", |json| json["provenance"]["data"] = "harmless-base.train, 4000 of 42537 pairs drawn".into());
    let page = report(&folder.0).unwrap();
    assert!(!seen(&page).to_lowercase().contains("synthetic"));
    has(between(&page, "<pre>", "</pre>"), "--data HH_FOLDER");
    has(between(&page, "<pre>", "</pre>"), "--pairs 4000 ");
}

#[test]
fn data_from_the_hub_are_named_in_the_command() {
    let commit = "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa";
    for (data, option) in [
        (format!("Anthropic/hh-rlhf@{commit}, harmless-base"), format!("--data hub:harmless-base@{commit} ")),
        (format!("Anthropic/hh-rlhf@{commit}, helpful-base, 9 of 99 pairs drawn"), "--pairs 9 ".into()),
        ("Anthropic/hh-rlhf@$(id), harmless-base".into(), "--data HH_FOLDER ".into()),
    ] {
        let folder = folder(&format!("hub-{}", data.len()), |json| json["provenance"]["data"] = data.clone().into());
        has(between(&report(&folder.0).unwrap(), "<pre>", "</pre>"), &option);
    }
}

#[test]
fn weights_to_begin_from_are_asked_for_and_not_called_a_preset() {
    let folder = folder("weights", |json| json["settings"]["preset"] = "weights of gpt2; rm -r".into());
    let page = report(&folder.0).unwrap();
    has(&page, "./scripts/run --init WEIGHTS_FOLDER --seed 7");
    assert!(!page.contains("--preset"));
}

#[test]
fn what_a_run_did_not_write_is_left_out_and_what_it_did_is_shown() {
    let plain = folder("plain", |_| {});
    let page = report(&plain.0).unwrap();
    for absent in ["Reward and distance", "How often each judge", "Share of sampled replies at or above"] {
        assert!(!page.contains(absent), "{absent}");
    }
    has(&page, "<i>an empty reply</i>");
    let full = folder("full", |json| {
        let estimate =
            |v: f64| json!({ "value": v, "low": v - 0.1, "high": v + 0.1, "n": 200, "method": "bootstrap-t" });
        let unknown = json!({ "value": null, "low": null, "high": null, "n": 3, "method": "not enough data" });
        json["frontier"] = json!([
            { "label": "β = 0.1", "step": 80, "kl": estimate(12.5), "reward": estimate(1.25), "judge": "J" },
            { "label": "β = 0.2", "step": 81, "kl": estimate(2.5), "reward": estimate(0.75), "judge": "J" },
            { "label": "β = 0.9", "step": 82, "kl": unknown, "reward": estimate(0.25), "judge": "J" },
        ]);
        let accuracy = json!({ "value": 0.9, "low": 0.8256, "high": 0.9448, "n": 100, "method": "Wilson" });
        json["judges"] = json!([{ "identity": "reward model, sha256 0123abcd", "accuracy": accuracy }]);
        json["toxicity_scores"] = json!({ "SFT": [0.0, 0.6, 0.95], "DPO": [0.0, 0.1, 0.2] });
    });
    let page = report(&full.0).unwrap();
    has(&page, "β = 0.1, step 80");
    assert!(!page.contains("step 82"), "a point without data was drawn");
    has(&seen(&page), "each line is a training (β = 0.1 and β = 0.2)");
    let text = seen(&page);
    has(&text, "Without enough data to be drawn: 1.");
    has(&text, "reward model, sha256 0123abcd 90.0% [82.6, 94.5] 100");
    has(&text, "SFT: 2 of 3 at or above 0.5, 1 at or above 0.9; DPO: 0 of 3");
}

#[test]
fn what_is_no_summary_is_refused_with_a_reason() {
    let refused = |folder: &Path| {
        let e = error(report(folder));
        assert_eq!(e, error(compare(folder, folder)));
        assert!(error(write_report(folder)).what().contains(&*folder.to_string_lossy()), "{e}");
        e
    };
    let empty = Folder::new("report-empty");
    has(refused(&empty.0).fix(), "./scripts/run --out");
    empty.write("results_summary.json", "{\"schema_version\": 1, \"figures\": [");
    has(refused(&empty.0).got(), "EOF");
    empty.write("results_summary.json", "{}");
    has(refused(&empty.0).got(), "schema_version");
    empty.write("results_summary.json", "{\"schema_version\": 2}");
    has(refused(&empty.0).got(), "schema_version 2, and this library reads 1");
    type Change = fn(&mut Value);
    let broken: [(&str, Change, &str); 5] = [
        ("low", |j| drop(j["figures"][0].as_object_mut().unwrap().remove("low")), "missing field `low`"),
        ("instrument", |j| drop(j["figures"][2]["instrument"].as_object_mut().unwrap().remove("identity")), "identity"),
        ("fewer", |j| drop(j["figures"].as_array_mut().unwrap().pop()), "no figure for"),
        ("more", |j| drop(j["comparisons"].as_array_mut().unwrap().pop()), "a figure without a comparison"),
        ("swapped", |j| j["figures"].as_array_mut().unwrap().swap(1, 4), "where"),
    ];
    for (name, change, got) in broken {
        has(refused(&folder(&format!("broken-{name}"), change).0).got(), got);
    }
    // What a later version adds is no reason to refuse.
    let more = folder("unknown", |json| json["later"] = json!([1, 2]));
    report(&more.0).unwrap();
}

#[test]
fn a_summary_without_a_run_names_no_beta() {
    let folder = folder("no-beta", |json| json["provenance"]["beta"] = Value::Null);
    let text = seen(&report(&folder.0).unwrap());
    assert!(!text.contains("--beta") && !text.contains("β\u{a0}="), "{text}");
    has(&text, "β not recorded");
    has(&seen(&report(&self::folder("beta", |_| {}).0).unwrap()), "--beta 0.3");
}

#[test]
fn a_later_version_s_methods_and_scales_are_read_and_not_guessed() {
    let folder = folder("later", |json| {
        for figure in json["figures"].as_array_mut().unwrap() {
            figure["method"] = "Wilson's, improved".into();
        }
        for row in json["comparisons"].as_array_mut().unwrap() {
            row["effect_name"] = "Cohen's new one".into();
        }
    });
    let text = seen(&report(&folder.0).unwrap());
    has(&text, "refusal, balanced accuracy ↑");
    assert!(!text.contains("75.0% [") && text.contains("0.75"), "only a known share is shown in percent");
}

#[test]
fn two_runs_on_the_same_data_compare_row_by_row() {
    let (a, b) = (folder("same-a", |_| {}), folder("same-b", |json| json["settings"]["dpo_steps"] = 99.into()));
    let page = compare(&a.0, &b.0).unwrap();
    assert!(!page.contains("class=\"warning\""));
    assert_eq!(page.matches(">yes</td>").count(), comparison().rows().len());
    let marked: Vec<String> =
        page.split("<tr class=\"differs\">").skip(1).map(|r| seen(between(r, "<th", "</tr>"))).collect();
    assert_eq!(marked.len(), 1, "{marked:?}");
    has(&marked[0], "dpo steps 10 99 ≠ differs");
    has(&seen(&page), "75.0% [");
    has(&seen(&page), "No test is made between runs");
}

#[test]
fn runs_on_other_data_are_shown_with_a_warning_in_every_row() {
    let a = folder("apart-a", |_| {});
    let b = folder("apart-b", |json| {
        json["provenance"]["data_hash"] = "0123456789abcdef".into();
        json["provenance"]["tokenizer_hash"] = "fedcba9876543210".into();
        json["figures"].as_array_mut().unwrap().iter_mut().for_each(|f| f["data_hash"] = "0123456789abcdef".into());
    });
    let page = compare(&a.0, &b.0).unwrap();
    has(
        &seen(between(&page, "class=\"warning\"", "</p>")),
        "These runs do not compare: other data and other tokenizer.",
    );
    assert_eq!(page.matches("no: other data and other tokenizer").count(), comparison().rows().len());
    assert!(!page.contains(">yes</td>"));
}

#[test]
fn a_row_measured_otherwise_or_in_one_run_only_says_so() {
    let a = folder("other-a", |_| {});
    let b = folder("other-b", |json| {
        for figure in json["figures"].as_array_mut().unwrap() {
            if figure["metric"] == "harmful prompts refused" {
                figure["instrument"] = json!({ "kind": "rule", "identity": "three phrases" });
            }
        }
        for part in ["figures", "comparisons"] {
            json[part].as_array_mut().unwrap().retain(|row| row["metric"] != "distinct-2");
        }
    });
    let page = compare(&a.0, &b.0).unwrap();
    let text = seen(&page);
    has(&text, "no: other instrument (");
    has(&text, "; three phrases)");
    has(&text, "no: only in A");
    assert_eq!(page.matches(">yes</td>").count(), comparison().rows().len() - 2);
    has(&seen(&compare(&b.0, &a.0).unwrap()), "no: only in B");
}
