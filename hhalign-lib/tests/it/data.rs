//! Reading, parsing, auditing and splitting: malformed files are refused with a mend, irregular
//! rows are counted.

use std::collections::HashSet;
use std::io::Write;

use hhalign::data::parse::{Irregularity, turns};
use hhalign::data::source::RawRow;
use hhalign::data::split::SplitRule;
use hhalign::data::{Dataset, Origin, Pair};

use crate::common::{Folder, error};
use crate::fixtures::test_data;

const GOOD: &str = r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_malformed_line_is_refused_with_file_line_and_mend() {
    let folder = Folder::new("malformed");
    let cases: [(&str, &[u8], &str, &str); 9] = [
        ("not JSON", b"{\"chosen\": \"a\", ", "not valid JSON", "one JSON object"),
        ("plain text", b"Human: Hi", "not valid JSON", "one JSON object"),
        ("no rejected", br#"{"chosen": "a"}"#, "\"rejected\" is missing", "rename the keys"),
        (
            "no chosen",
            br#"{"prompt": "a", "rejected": "b"}"#,
            "\"chosen\" is missing",
            "rename the keys",
        ),
        (
            "a number",
            br#"{"chosen": 3, "rejected": "b"}"#,
            "\"chosen\" must be a string",
            "dialogues as text",
        ),
        (
            "null",
            br#"{"chosen": "a", "rejected": null}"#,
            "\"rejected\" must be a string",
            "dialogues as text",
        ),
        (
            "messages",
            br#"{"chosen": [{"role": "user"}], "rejected": "b"}"#,
            "\"chosen\" must be a string",
            "joined",
        ),
        ("a list", br#"["a", "b"]"#, "must be a JSON object", "{\"chosen\""),
        ("Latin-1", b"{\"chosen\": \"caf\xe9\", \"rejected\": \"b\"}", "UTF-8", "iconv"),
    ];
    for (name, line, what, fix) in cases {
        // On the third line, behind an empty one, which counts as a line but is no row.
        let text = [GOOD.as_bytes(), b"\n\n", line, b"\n", GOOD.as_bytes()].concat();
        for (file, bytes) in [("rows.jsonl", text.clone()), ("rows.jsonl.gz", gzip(&text))] {
            let path = folder.write(file, &bytes);
            let error = error(Dataset::read(&path));
            assert!(
                error.what().contains(&format!("{}, line 3", path.display())),
                "{name}: {error}"
            );
            assert!(error.what().contains(what), "{name}: {error}");
            assert!(error.fix().contains(fix), "{name}: {error}");
        }
    }
}

#[test]
fn what_was_found_instead_is_named() {
    let folder = Folder::new("found");
    let got = |line: &str| error(Dataset::read(folder.write("rows.jsonl", line))).got().to_string();
    assert_eq!(got(r#"{"chosen": 3, "rejected": "b"}"#), "the number 3");
    assert_eq!(got(r#"{"prompt": "a", "answer": "b"}"#), r#"keys "answer", "prompt""#);
    assert_eq!(got("[1, 2]"), "a list of 2 items");
    assert_eq!(got("true"), "the boolean true");
    assert!(got("Hello there").contains("Hello there"));
}

#[test]
fn damaged_and_missing_files_are_refused() {
    let folder = Folder::new("damaged-data");
    let lines: String = (0..200).map(|i| GOOD.replace("Hi", &format!("Hi {i}")) + "\n").collect();
    let packed = gzip(lines.as_bytes());
    for keep in [5, packed.len() / 2, packed.len() - 4] {
        let path = folder.write("cut.jsonl.gz", &packed[..keep]);
        let error = error(Dataset::read(&path));
        assert!(
            error.what().contains("cut.jsonl.gz, line ") && error.fix().contains("again"),
            "{keep}: {error}"
        );
    }
    let plain = folder.write("plain.jsonl.gz", GOOD);
    let refused = error(Dataset::read(&plain));
    assert!(
        refused.what().contains("plain.jsonl.gz") && refused.fix().contains("gzip"),
        "{refused}"
    );

    let missing = error(Dataset::read(folder.join("nowhere.jsonl")));
    assert!(missing.what().contains("nowhere.jsonl"), "{missing}");
    std::fs::create_dir(folder.join("empty")).unwrap();
    folder.write("empty/readme.txt", "nothing here");
    let empty = error(Dataset::read(folder.join("empty")));
    assert!(empty.what().contains("no data file") && empty.what().contains("empty"), "{empty}");
    let no_rows = error(Dataset::read(folder.write("blank.jsonl", "\n\n")));
    assert!(no_rows.what().contains("no usable"), "{no_rows}");
}

#[test]
fn empty_lines_windows_line_ends_and_a_missing_last_newline_are_read() {
    let folder = Folder::new("line-ends");
    let text =
        format!("{GOOD}\r\n\r\n{}\r\n  \n{}", GOOD.replace("Hi", "Ho"), GOOD.replace("Hi", "Hey"));
    let data = Dataset::read(folder.write("rows.jsonl", text)).unwrap();
    assert_eq!(data.pairs.iter().map(|p| p.origin.line).collect::<Vec<_>>(), [1, 3, 5]);
    // Several gzip members in one file, as some tools write them.
    let two =
        [gzip(format!("{GOOD}\n").as_bytes()), gzip(GOOD.replace("Hi", "Ho").as_bytes())].concat();
    assert_eq!(Dataset::read(folder.write("two.jsonl.gz", two)).unwrap().pairs.len(), 2);
}

fn row(line: usize, chosen: &str, rejected: &str) -> RawRow {
    let origin = Origin { subset: "test".into(), line };
    RawRow { chosen: chosen.into(), rejected: rejected.into(), origin, kind: None, held_out: None }
}

#[test]
fn irregular_rows_are_counted_and_dropped_or_kept_with_a_reason() {
    use Irregularity as I;
    let ask = "\n\nHuman: Hi\n\nAssistant:";
    let of = |reply: &str| format!("{ask}{reply}");
    let long = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: And?\n\nAssistant:";
    let cases: Vec<(&str, String, String, Vec<I>, bool)> = vec![
        ("regular", of(" Yes."), of(" No."), vec![], true),
        ("no assistant", "\n\nHuman: Hi".into(), of(" No."), vec![I::NoAssistantTurn], false),
        (
            "diverging",
            of(" Yes."),
            "\n\nHuman: Ho\n\nAssistant: Nothing".into(),
            vec![I::DivergesBeforeLastTurn],
            false,
        ),
        ("identical", of(" Yes."), of(" Yes."), vec![I::Identical], false),
        ("chosen empty", of(" "), of("No."), vec![I::ChosenReplyEmpty], false),
        (
            "rejected empty",
            of(" Yes."),
            of(""),
            vec![I::RejectedReplyEmpty, I::OneSideIsPrefix],
            false,
        ),
        ("prefix", of(" Yes."), of(" Yes. And more."), vec![I::OneSideIsPrefix], true),
        ("a turn in a reply", of(" Yes."), of(" No.\n\nHuman: Ho"), vec![I::ReplyHoldsTurn], false),
        (
            "two humans",
            format!("\n\nHuman: Well{} Yes.", &ask),
            format!("\n\nHuman: Well{} No.", &ask),
            vec![I::TurnsDoNotAlternate],
            true,
        ),
        ("two turns", format!("{long} Yes."), format!("{long} No."), vec![], true),
        ("a quoted marker", of(" Say \"Human:\" aloud."), of(" No."), vec![], true),
    ];
    for (name, chosen, rejected, found, kept) in cases {
        let (seen, pair) = hhalign::data::parse::parse_row(row(1, &chosen, &rejected));
        assert_eq!(seen, found, "{name}");
        assert_eq!(pair.is_some(), kept, "{name}");
        if let Some(pair) = pair {
            assert!(pair.prompt.ends_with("\n\nAssistant:"), "{name}");
            assert_eq!(
                format!("{}{}", pair.prompt, pair.chosen),
                chosen,
                "{name}: nothing is lost"
            );
            assert_eq!(
                format!("{}{}", pair.prompt, pair.rejected),
                rejected,
                "{name}: nothing is lost"
            );
        }
    }
    // A cut at a byte count may fall inside a character; that row must be dropped, not panic.
    let (_, pair) =
        hhalign::data::parse::parse_row(row(1, &of(" Yes."), "\n\nHuman: Hééééééééééééééé"));
    assert!(pair.is_none());
}

#[test]
fn an_audit_accounts_for_every_row() {
    let ask = |what: &str, reply: &str| format!("\n\nHuman: {what}\n\nAssistant:{reply}");
    let rows = vec![
        row(1, &ask("A", " x"), &ask("A", " y")),
        row(2, &ask("A", " z"), &ask("A", " y")),
        row(3, &ask("B", " x"), &ask("B", " x")),
        row(4, &ask("C", ""), &ask("C", " y")),
        row(5, &ask("D", " x"), &ask("E", " y")),
    ];
    let data = Dataset::from_rows("test", rows).unwrap();
    let audit = data.audit.subset("test").unwrap();
    assert_eq!((audit.rows, audit.kept), (5, 2));
    assert_eq!(audit.rows, audit.kept + audit.dropped.values().sum::<usize>());
    assert_eq!((audit.repeated_prompts, audit.rows_sharing_first_turn), (1, 2));
    assert_eq!(data.pairs.iter().map(|p| p.origin.line).collect::<Vec<_>>(), [1, 2]);
    data.audit.table().unwrap();
}

#[test]
fn turns_are_cut_at_their_markers() {
    let dialogue = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: And?";
    assert_eq!(turns(dialogue), [(true, " Hi"), (false, " Yes?"), (true, " And?")]);
    assert!(turns("nothing").is_empty());
}

fn first_turns(pairs: &[Pair]) -> HashSet<String> {
    pairs
        .iter()
        .map(|p| p.first_turn().split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
        .collect()
}

#[test]
fn no_first_turn_crosses_a_split_by_hash() {
    let mut rows = vec![];
    for i in 0..400 {
        // Each question comes in three spellings and with two further turns.
        let turn = match i % 3 {
            0 => format!("Question {}?", i / 6),
            1 => format!("  question   {}? ", i / 6),
            _ => format!("QUESTION {}?\n\nAssistant: Well?\n\nHuman: Go on.", i / 6),
        };
        let ask = format!("\n\nHuman: {turn}\n\nAssistant:");
        rows.push(row(i + 1, &format!("{ask} yes {i}"), &format!("{ask} no {i}")));
    }
    let data = Dataset::from_rows("test", rows).unwrap();
    let split = data.split(0.2).unwrap();
    assert_eq!(split.rule, SplitRule::FirstTurnHash);
    assert!(first_turns(&split.train).is_disjoint(&first_turns(&split.held_out)));
    assert_eq!((split.overlap(), split.overlap_removed), (0, 0));
    assert_eq!(split.train.len() + split.held_out.len(), data.pairs.len());
    let share = split.held_out.len() as f64 / data.pairs.len() as f64;
    assert!((0.05..0.4).contains(&share), "{share}");
    // The side depends on the text alone: fewer rows, in another order, stand where they stood.
    let fewer: Vec<Pair> = data.pairs.iter().rev().step_by(2).cloned().collect();
    let again = hhalign::data::split::split(&fewer, 0.2).unwrap();
    assert!(first_turns(&again.held_out).is_subset(&first_turns(&split.held_out)));
    assert!(first_turns(&again.train).is_subset(&first_turns(&split.train)));
    for fraction in [0.0, 1.0, -0.1, f64::NAN] {
        assert!(error(data.split(fraction)).what().contains("fraction"));
    }
    assert!(
        error(hhalign::data::split::split(&data.pairs[..1], 0.5)).what().contains("both sides")
    );
}

#[test]
fn an_official_split_is_kept_and_its_overlap_leaves_the_training_side() {
    let folder = Folder::new("official");
    let line = |what: &str| GOOD.replace("Hi", what) + "\n";
    folder.write(
        "some-base/train.jsonl",
        line("One") + &line("Two") + &line("  THREE ") + &line("Four"),
    );
    folder.write("some-base/test.jsonl.gz", gzip((line("Three") + &line("Five")).as_bytes()));
    folder.write("other.train.jsonl", line("five") + &line("Six"));
    folder.write("notes.txt", "no data");
    let data = Dataset::read(&folder.0).unwrap();
    let names: Vec<&str> = data.audit.subsets.iter().map(|s| &*s.0).collect();
    assert_eq!(names, ["other", "some-base"]);
    assert_eq!(data.audit.rows_read(), 8);
    let split = data.split(0.1).unwrap();
    assert_eq!(split.rule, SplitRule::Official);
    assert_eq!((split.train.len(), split.held_out.len(), split.overlap_removed), (4, 2, 2));
    assert_eq!(split.overlap(), 0);
    assert!(first_turns(&split.train).is_disjoint(&first_turns(&split.held_out)));
    assert_eq!(split.held_out_sample(1).len(), 1);
    assert_eq!(split.held_out_sample(99), split.held_out);
    split.table().unwrap();
}

#[test]
fn the_embedded_set_is_seeded_and_splits_without_overlap() {
    let data = Dataset::embedded(3, 600).unwrap();
    assert_eq!(data.hash(), Dataset::embedded(3, 600).unwrap().hash());
    assert_ne!(data.hash(), Dataset::embedded(4, 600).unwrap().hash());
    assert_eq!(
        (data.audit.rows_read(), data.audit.pairs_kept(), data.pairs.len()),
        (600, 600, 600)
    );
    let split = data.split(0.1).unwrap();
    assert_eq!(split.overlap(), 0);
    assert!(first_turns(&split.train).is_disjoint(&first_turns(&split.held_out)));
    assert!(data.pairs.iter().all(|p| p.chosen.starts_with(' ') && p.rejected.starts_with(' ')));
}

#[test]
fn written_rows_read_back_as_they_were() {
    let folder = Folder::new("round-trip");
    let mut data = Dataset::embedded(1, 50).unwrap();
    data.pairs[0].chosen =
        " \"Quotes\", \\ tabs\t, Ünïcode 🦀, \u{1}\u{7f} and\nlines\u{2028}".into();
    let path = folder.join("out/rows.jsonl");
    data.write_jsonl(&path).unwrap();
    let back = Dataset::read(&path).unwrap();
    assert_eq!(back.hash(), data.hash());
    for (i, (a, b)) in data.pairs.iter().zip(&back.pairs).enumerate() {
        assert_eq!((&a.prompt, &a.chosen, &a.rejected), (&b.prompt, &b.chosen, &b.rejected));
        assert_eq!(b.origin.line, i + 1);
    }
}

#[test]
fn harmless_base_shows_the_counts_that_were_measured() {
    let Some(folder) = test_data("harmless_base_shows_the_counts_that_were_measured") else {
        return;
    };
    let data = Dataset::read(folder.join("hh/harmless-base.test.jsonl.gz")).unwrap();
    let audit = data.audit.subset("harmless-base").unwrap();
    let found = |it| audit.found.get(&it).copied().unwrap_or(0);
    use Irregularity as I;
    assert_eq!(audit.rows, 2312);
    assert_eq!(found(I::DivergesBeforeLastTurn), 4);
    assert_eq!((found(I::ChosenReplyEmpty), found(I::RejectedReplyEmpty)), (4, 2));
    assert_eq!((found(I::OneSideIsPrefix), found(I::TurnsDoNotAlternate)), (5, 8));
    assert_eq!((found(I::Identical), found(I::NoAssistantTurn)), (0, 0));
    assert_eq!((audit.repeated_prompts, audit.rows_sharing_first_turn), (2, 264));
    assert_eq!(audit.rows, audit.kept + audit.dropped.values().sum::<usize>());
    assert_eq!(audit.kept, data.pairs.len());
    assert!(data.pairs.iter().all(|p| p.held_out == Some(true)));
    // One official side alone is no split: the first turns decide.
    let split = data.split(0.1).unwrap();
    assert_eq!(
        (split.rule, split.overlap(), split.overlap_removed),
        (SplitRule::FirstTurnHash, 0, 0)
    );
    assert!(first_turns(&split.train).is_disjoint(&first_turns(&split.held_out)));
}
