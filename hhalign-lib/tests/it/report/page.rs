//! The page of one run: its words, its rows, its command, and that it loads nothing.

use hhalign::eval::comparison::Verdict;
use hhalign::report::{compare, report, write_report};
use serde_json::json;

use super::{between, comparison, folder, has, seen};

const HOSTILE: &str =
    "<script>alert(1)</script> \"><img src=x onerror=alert(2)> </pre><!-- &lt;b&gt; '\u{2028}";

#[test]
fn the_abstract_says_what_was_done_and_what_changed() {
    let folder = folder("abstract", |_| {});
    let page = report(&folder.0).unwrap();
    let said = seen(between(&page, "class=\"abstract\"", "</section>"));
    has(
        &said,
        "A small GPT of 12,345 parameters was fine-tuned on the preferred replies of 80 preference pairs (SFT, 30 steps)",
    );
    has(&said, "direct preference optimisation (DPO, β = 0.3, 10 steps)");
    has(&said, "which is synthetic");
    has(&said, "measured on 20 held-out pairs");
    // Wilson's interval of 90 of 100, as any book's table has it.
    has(&said, "reward accuracy, 90.0% [82.6, 94.5] where chance is 50% (n = 100)");
    has(&said, "refusal, balanced accuracy, from 75.0% to 93.0% (+18.0 points [");
    has(
        &said,
        "They also differ in metrics in which neither direction is better: words in a reply, from ",
    );
    has(&said, "None was shown to be worse, which does not prove that none is.");
    has(&said, "This is not evidence that the models are alike there");
    has(&said, "Not enough data for a value with an interval: toxicity, mean score");
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
    let rows: Vec<&str> = between(&page, "<div class=\"table results\">", "</table>")
        .split("<tr role=\"row\" class=")
        .skip(1)
        .collect();
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
    let perplexity =
        table.rows().iter().position(|r| r.metric == "perplexity of chosen replies").unwrap();
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
        let folder = folder(&format!("verdict-{verdict}"), |json| {
            json["comparisons"][1]["verdict"] = verdict.into()
        });
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
        json["samples"][0] =
            json!({ "prompt": HOSTILE, "replies": { "SFT": HOSTILE, "DPO": HOSTILE } });
        for part in ["figures", "comparisons"] {
            for row in json[part].as_array_mut().unwrap() {
                row["metric"] = HOSTILE.into();
                if part == "figures" {
                    row["instrument"] = json!({ "kind": "judge", "identity": HOSTILE });
                }
            }
        }
        let estimate =
            json!({ "value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "method": "Wilson" });
        json["judges"] = json!([{ "identity": HOSTILE, "accuracy": estimate }]);
        json["frontier"] = json!([{ "label": HOSTILE, "beta": 0.1, "step": 1, "model_hash": "0123456789ab", "kl": estimate, "reward": estimate, "judge": HOSTILE, "seed": 7 }]);
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
        assert_eq!(
            drawings,
            page.matches("<svg role=\"img\" aria-label=\"").count(),
            "a figure without words"
        );
        assert_eq!(
            page.matches("<table").count(),
            page.matches("<caption>").count(),
            "a table without a caption"
        );
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
        assert!(
            page.matches(hash.as_str()).count() >= 2,
            "{hash} stands in the set-up and at the foot"
        );
    }
}

#[test]
fn real_data_is_asked_for_and_not_called_synthetic() {
    let folder = folder("real", |json| {
        json["provenance"]["data"] = "harmless-base.train, 4000 of 42537 pairs drawn".into()
    });
    let page = report(&folder.0).unwrap();
    assert!(!seen(&page).to_lowercase().contains("synthetic"));
    has(between(&page, "<pre>", "</pre>"), "--data HH_FOLDER");
    has(between(&page, "<pre>", "</pre>"), "--pairs 4000 ");
}

#[test]
fn data_from_the_hub_are_named_in_the_command() {
    let commit = "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa";
    for (data, option) in [
        (
            format!("Anthropic/hh-rlhf@{commit}, harmless-base"),
            format!("--data hub:harmless-base@{commit} "),
        ),
        (
            format!("Anthropic/hh-rlhf@{commit}, helpful-base, 9 of 99 pairs drawn"),
            "--pairs 9 ".into(),
        ),
        ("Anthropic/hh-rlhf@$(id), harmless-base".into(), "--data HH_FOLDER ".into()),
    ] {
        let folder = folder(&format!("hub-{}", data.len()), |json| {
            json["provenance"]["data"] = data.clone().into()
        });
        has(between(&report(&folder.0).unwrap(), "<pre>", "</pre>"), &option);
    }
}

#[test]
fn weights_to_begin_from_are_asked_for_and_not_called_a_preset() {
    let folder =
        folder("weights", |json| json["settings"]["preset"] = "weights of gpt2; rm -r".into());
    let page = report(&folder.0).unwrap();
    has(&page, "./scripts/run --init WEIGHTS_FOLDER --seed 7");
    assert!(!page.contains("--preset"));
}
