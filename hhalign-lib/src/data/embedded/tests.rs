use std::collections::HashSet;

use super::*;
use crate::data::cues::surface_cues;

const N_PAIRS: usize = 4_000;
const SEED: u64 = 42;

/// Returns the first human turn of a prompt.
fn first_turn(prompt: &str) -> &str {
    prompt.trim_start_matches("\n\nHuman: ").split("\n\nAssistant:").next().unwrap_or("")
}

/// Returns the words of a text, in lower case and without punctuation.
fn words(text: &str) -> impl Iterator<Item = String> {
    let separates = |letter: char| !letter.is_alphanumeric() && letter != '\'' && letter != '-';
    text.split(separates).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn split(pairs: &[EmbeddedPair]) -> (Vec<&EmbeddedPair>, Vec<&EmbeddedPair>) {
    pairs.iter().partition(|pair| !pair.held_out())
}

fn declines(reply: &str) -> bool {
    let first_sentence = reply.split(['.', '?', '!']).next().unwrap_or("");
    DECLINE_PHRASES.iter().any(|phrase| first_sentence.contains(phrase))
}

#[test]
fn the_same_seed_gives_the_same_pairs() {
    assert_eq!(generate(1, 50), generate(1, 50));
    assert_ne!(generate(1, 50), generate(2, 50));
    assert_eq!(refusal_prompts(1, 20), refusal_prompts(1, 20));
}

#[test]
fn the_better_grade_is_chosen_and_all_grade_pairs_occur_about_equally_often() {
    let pairs = generate(SEED, N_PAIRS);
    assert!(
        pairs
            .iter()
            .all(|pair| pair.chosen_grade > pair.rejected_grade && pair.chosen != pair.rejected)
    );
    for better in Grade::ALL {
        for worse in Grade::ALL.into_iter().filter(|&grade| grade < better) {
            let of_these =
                |pair: &&EmbeddedPair| (pair.chosen_grade, pair.rejected_grade) == (better, worse);
            let share = pairs.iter().filter(of_these).count() as f64 / N_PAIRS as f64;
            assert!((share - 1.0 / 6.0).abs() < 0.03, "{better:?} over {worse:?}: {share}");
        }
    }
}

#[test]
fn prompts_and_replies_have_the_hh_format() {
    for pair in generate(SEED, N_PAIRS) {
        assert!(
            pair.prompt.starts_with("\n\nHuman: ") && pair.prompt.ends_with("\n\nAssistant:"),
            "{}",
            pair.prompt
        );
        for reply in [&pair.chosen, &pair.rejected] {
            let body = reply.strip_prefix(' ').expect("one leading space");
            assert_eq!(body, body.trim());
            assert!((6..=40).contains(&body.split(' ').count()), "{body}");
            assert!(!body.contains(['{', '\n']) && !body.contains("  "), "{body}");
        }
        assert!(!pair.prompt.contains('{') && !pair.prompt.contains("  "), "{}", pair.prompt);
    }
}

#[test]
fn about_15_in_100_pairs_are_held_out_and_share_no_first_turn_with_training() {
    for seed in 0..5 {
        let pairs = generate(seed, N_PAIRS);
        let (train, held_out) = split(&pairs);
        let share = held_out.len() as f64 / N_PAIRS as f64;
        assert!((0.12..0.18).contains(&share), "{share}");

        let train_turns: HashSet<_> = train.iter().map(|pair| first_turn(&pair.prompt)).collect();
        let held_turns: HashSet<_> = held_out.iter().map(|pair| first_turn(&pair.prompt)).collect();
        assert_eq!(train_turns.intersection(&held_turns).count(), 0);
        assert!(train_turns.len() + held_turns.len() >= 1_500);
    }
}

#[test]
fn every_held_out_word_occurs_in_training() {
    let pairs = generate(SEED, N_PAIRS);
    let (train, held_out) = split(&pairs);
    let text = |pair: &EmbeddedPair| format!("{} {} {}", pair.prompt, pair.chosen, pair.rejected);
    let train_words: HashSet<_> =
        train.iter().flat_map(|pair| words(&text(pair)).collect::<Vec<_>>()).collect();
    let texts: Vec<_> = held_out.iter().map(|pair| text(pair)).collect();
    let prompts: Vec<_> =
        refusal_prompts(SEED, 1_000).into_iter().map(|prompt| prompt.prompt).collect();
    for word in texts.iter().chain(&prompts).flat_map(|text| words(text)) {
        assert!(train_words.contains(&word), "{word} is in no training pair");
    }
}

#[test]
fn declining_replies_and_no_others_have_a_decline_phrase() {
    for pair in generate(SEED, N_PAIRS) {
        for (reply, grade) in
            [(&pair.chosen, pair.chosen_grade), (&pair.rejected, pair.rejected_grade)]
        {
            let wanted = match pair.kind {
                PromptKind::Helpful => false,
                PromptKind::Harmful => grade >= Grade::Good,
                PromptKind::LookAlike => grade == Grade::Poor,
            };
            assert_eq!(declines(reply), wanted, "{reply}");
            assert_eq!(
                DECLINE_PHRASES.iter().any(|phrase| reply.contains(phrase)),
                wanted,
                "{reply}"
            );
        }
    }
}

#[test]
fn refusal_prompts_are_distinct_and_unknown_to_training() {
    let prompts = refusal_prompts(SEED, 150);
    assert_eq!(prompts.len(), 300);
    let distinct: HashSet<_> = prompts.iter().map(|prompt| prompt.prompt.as_str()).collect();
    assert_eq!(distinct.len(), 300);
    let pairs = generate(SEED, N_PAIRS);
    let (train, _) = split(&pairs);
    let train_turns: HashSet<_> = train.iter().map(|pair| first_turn(&pair.prompt)).collect();
    assert!(prompts.iter().all(|prompt| !train_turns.contains(first_turn(&prompt.prompt))));
}

#[test]
fn no_surface_cue_tells_the_chosen_reply() {
    let pairs = generate(SEED, N_PAIRS);
    let (train, held_out) = split(&pairs);
    let replies = |pairs: &[&EmbeddedPair]| -> Vec<(String, String)> {
        pairs.iter().map(|pair| (pair.chosen.clone(), pair.rejected.clone())).collect()
    };
    let (train, held_out) = (replies(&train), replies(&held_out));
    fn borrow(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
        pairs.iter().map(|(chosen, rejected)| (chosen.as_str(), rejected.as_str())).collect()
    }
    for row in surface_cues(&borrow(&train), &borrow(&held_out)) {
        assert!(row.accuracy <= 0.62, "{row:?}");
        if row.cue == "words" {
            assert!((0.42..=0.58).contains(&row.accuracy), "{row:?}");
        }
    }
}
