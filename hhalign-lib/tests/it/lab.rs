//! What the lab shows: decoding at another beta, token rewards, pitfalls, annotation and agreement.

use hhalign::eval::preferences::agreement::{
    Agreement, cohen_kappa, krippendorff_alpha, percent_agreement,
};
use hhalign::eval::preferences::annotation::{PAIRWISE, write_annotation_files};
use hhalign::eval::preferences::judgements::{Preference, judge, read_judgements};
use hhalign::eval::preferences::winrate::read_preferences;
use hhalign::infer::sample::{Reply, Sampler};
use hhalign::model::Gpt;
use hhalign::notebook::lab;
use hhalign::train::{Dpo, Pitfall, Sft, TrainConfig, evaluate_preferences};

use crate::common::{Folder, error, short, texts, tiny, tokenized, tokenizer};

fn model(seed: u64) -> Gpt {
    Gpt::new(tiny(2, 0.0), seed).unwrap()
}

#[test]
fn decoding_between_two_models_meets_both_and_follows_their_logits() {
    let (policy, reference) = (model(1), model(2));
    let tokenizer = &tokenizer();
    let prompts: Vec<String> = texts(3, 5).iter().map(|p| p.prompt.clone()).collect();
    let sampler = Sampler { max_new_tokens: 12, seed: 4, ..Sampler::default() };
    let at = |lambda: f64| {
        sampler.replies_between(&policy, &reference, lambda, tokenizer, &prompts).unwrap()
    };
    assert_eq!(at(1.0), sampler.replies(&policy, tokenizer, &prompts).unwrap());
    assert_eq!(at(0.0), sampler.replies(&reference, tokenizer, &prompts).unwrap());
    assert_eq!(
        sampler.replies_at(0.1, (&policy, 0.1), &reference, tokenizer, &prompts).unwrap(),
        at(1.0)
    );
    assert_eq!(
        sampler.replies_at(0.2, (&policy, 0.1), &reference, tokenizer, &prompts).unwrap(),
        at(0.5)
    );
    // Greedy decoding by hand from both models' logits.
    let greedy = Sampler { temperature: 0.0, max_new_tokens: 6, ..Sampler::default() };
    let drawn = greedy.replies_between(&policy, &reference, 0.3, tokenizer, &prompts[..1]).unwrap();
    let mut ids = tokenizer.encode(&prompts[0]).unwrap();
    for token in &drawn[0].ids {
        let input = candle_core::Tensor::new(ids.as_slice(), &candle_core::Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        let last = |m: &Gpt| {
            m.logits(&input)
                .unwrap()
                .get(0)
                .unwrap()
                .get(ids.len() - 1)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        let (pi, reference) = (last(&policy), last(&reference));
        let mixed: Vec<f32> = pi.iter().zip(&reference).map(|(p, r)| 0.3 * p + 0.7 * r).collect();
        let best = (0..mixed.len()).max_by(|&a, &b| mixed[a].total_cmp(&mixed[b])).unwrap() as u32;
        assert_eq!(*token, best);
        ids.push(best);
    }
    let wrong = sampler.replies_between(&policy, &reference, f64::NAN, tokenizer, &prompts);
    assert!(error(wrong).to_string().contains("lambda must be a number"));
    assert!(
        error(sampler.replies_at(0.0, (&policy, 0.1), &reference, tokenizer, &prompts))
            .to_string()
            .contains("positive")
    );
}

#[test]
fn token_rewards_add_up_to_the_reward_of_the_reply() {
    let (policy, reference, pairs) = (model(1), model(2), tokenized(&texts(4, 6)));
    let view = lab::token_rewards(&policy, &reference, &tokenizer(), &pairs, 2, 0.1).unwrap();
    let scores = hhalign::infer::score::score_pairs(&reference, &pairs).unwrap();
    let rewards = evaluate_preferences(&policy, &scores, &pairs).unwrap().rewards(0.1);
    for (name, reward) in [("chosen", rewards.chosen[2]), ("rejected", rewards.rejected[2])] {
        let part = view.text().split(&format!("[{name}] reward ")).nth(1).unwrap();
        let mut lines = part.lines();
        let total: f64 = lines.next().unwrap().parse().unwrap();
        assert!((total - reward).abs() < 2e-3, "{total} and {reward}");
        let tokens = lines
            .take_while(|l| l.starts_with("  "))
            .map(|l| l.trim().split("  ").next().unwrap().parse::<f64>().unwrap());
        assert!((tokens.sum::<f64>() - reward).abs() < 0.02);
    }
    assert!(lab::token_rewards(&policy, &reference, &tokenizer(), &pairs, 99, 0.1).is_err());
    let moved = lab::moved_mass(
        &policy,
        &reference,
        &tokenizer(),
        &pairs,
        2,
        hhalign::data::batch::Side::Chosen,
        1,
        4,
    )
    .unwrap();
    // Four before, four after, and the token that stands there, whether or not it is among them.
    assert!((4..=9).contains(&moved.n_rows()), "{moved}");
    let here = tokenizer().pieces(&pairs.pairs[2].chosen[1..2]).unwrap().concat();
    assert!(moved.rows().iter().any(|row| row[0] == here), "{moved}");
}

#[test]
fn every_pitfall_shows_in_the_numbers_that_are_to_expose_it() {
    let (pairs, held_out) = (tokenized(&texts(1, 60)), tokenized(&texts(2, 20)));
    let train = |pitfall| TrainConfig { pitfall, learning_rate: 3e-3, log_every: 1, ..short(120) };
    let sft = |pitfall| {
        Sft { train: train(pitfall) }.fit(&mut model(3), &pairs, &held_out).unwrap().history
    };
    let clean = sft(None);
    let last = |h: &hhalign::train::History, metric: &str| h.last(metric).unwrap();
    let padded = sft(Some(Pitfall::PaddingLeak));
    assert!(
        last(&padded, "loss") < last(&clean, "loss") - 0.5,
        "padding makes the training loss look good"
    );
    assert!(
        last(&padded, "eval_loss") > last(&clean, "eval_loss"),
        "and the replies are learnt worse"
    );
    let open = sft(Some(Pitfall::NoEos));
    assert!(
        last(&open, "eval_loss") > last(&clean, "eval_loss"),
        "an end that was never seen is a surprise"
    );
    let unmasked = sft(Some(Pitfall::UnmaskedPrompt));
    assert!(unmasked.series("loss")[0] != clean.series("loss")[0]);

    let reference = model(3).freeze().unwrap();
    let dpo = |pitfall| {
        let dpo = Dpo { train: train(pitfall), ..Dpo::default() };
        dpo.fit(&mut reference.fork().unwrap(), &reference, &pairs, &held_out).unwrap().history
    };
    let clean = dpo(None);
    let ln_2 = std::f64::consts::LN_2;
    assert!(
        (clean.series("eval_loss")[0].1 - ln_2).abs() < 1e-4
            && (clean.series("loss")[0].1 - ln_2).abs() < 1e-4
    );
    let wrong = dpo(Some(Pitfall::WrongReference));
    assert!((wrong.series("eval_loss")[0].1 - ln_2).abs() > 1e-3);
    let dropout = dpo(Some(Pitfall::DropoutLeftOn));
    assert!(
        (dropout.series("loss")[0].1 - ln_2).abs() > 1e-4
            && (dropout.series("eval_loss")[0].1 - ln_2).abs() < 1e-4
    );
    let flipped = dpo(Some(Pitfall::FlippedLabels { share: 1.0 }));
    assert!(last(&flipped, "eval_loss") > last(&clean, "eval_loss"));
    assert!(last(&flipped, "eval_rewards/margins") < last(&clean, "eval_rewards/margins"));
    for pitfall in Pitfall::ALL {
        assert!(lab::exposed(pitfall, &clean, &clean).svg().unwrap().contains(pitfall.name()));
    }
    assert!(
        error(Pitfall::FlippedLabels { share: 1.5 }.apply(&pairs, 0).map(drop))
            .to_string()
            .contains("1.5")
    );
}

#[test]
fn several_annotators_are_read_by_majority_and_their_agreement_is_told() {
    let folder = Folder::new("annotators");
    let reply = |text: &str| Reply { text: text.into(), ids: vec![1], ended: true };
    let prompts: Vec<String> = (0..4).map(|i| format!("question {i}")).collect();
    let replies =
        |name: &str| (0..4).map(|i| reply(&format!("{name}, \"{i}\"\nline"))).collect::<Vec<_>>();
    write_annotation_files(
        folder.join(""),
        &prompts,
        ("SFT", &replies("one")),
        ("DPO", &replies("two")),
        1,
    )
    .unwrap();
    let key = std::fs::read_to_string(folder.join("annotation_key.csv")).unwrap();
    let dpo_side = |id: &str| {
        let line = key.lines().find(|l| l.starts_with(id)).unwrap();
        if line.split(',').nth(1) == Some("DPO") { Preference::A } else { Preference::B }
    };
    let other = |p: Preference| if p == Preference::A { Preference::B } else { Preference::A };
    let ids = ["pair-0001", "pair-0002", "pair-0003"];
    for (name, likes) in
        [("ann", [true, true, true]), ("ben", [true, false, false]), ("cy", [true, true, false])]
    {
        for (id, likes) in ids.iter().zip(likes) {
            let side = if likes { dpo_side(id) } else { other(dpo_side(id)) };
            judge(&folder.join(""), name, id, Some(side)).unwrap();
        }
    }
    let rate = read_preferences(&folder.join(""), "DPO").unwrap();
    assert_eq!((rate.wins, rate.losses, rate.ties, rate.open, rate.annotators), (2, 1, 0, 1, 3));
    // A tie is a judgement as well: the most frequent one counts.
    for name in ["eve", "flo", "gus"] {
        judge(&folder.join(""), name, "pair-0004", Some(Preference::Tie)).unwrap();
    }
    judge(&folder.join(""), "ann", "pair-0004", Some(dpo_side("pair-0004"))).unwrap();
    let with_ties = read_preferences(&folder.join(""), "DPO").unwrap();
    assert_eq!((with_ties.wins, with_ties.losses, with_ties.ties, with_ties.open), (2, 1, 1, 0));
    for name in ["ann", "eve", "flo", "gus"] {
        judge(&folder.join(""), name, "pair-0004", None).unwrap();
    }
    // Two against two is a tie; one judgement taken back leaves three.
    judge(&folder.join(""), "dee", "pair-0002", Some(other(dpo_side("pair-0002")))).unwrap();
    assert_eq!(read_preferences(&folder.join(""), "DPO").unwrap().ties, 1);
    assert_eq!(judge(&folder.join(""), "dee", "pair-0002", None).unwrap(), 0);
    let again = read_preferences(&folder.join(""), "DPO").unwrap();
    assert_eq!(
        (again.wins, again.losses, again.ties, again.open),
        (rate.wins, rate.losses, rate.ties, rate.open)
    );
    assert_eq!(again.rate.estimate(), rate.rate.estimate());
    // The file is the original one with one column filled.
    let own = std::fs::read_to_string(folder.join("pairwise_preferences_for_annotation.ann.csv"))
        .unwrap();
    let handed_out = std::fs::read_to_string(folder.join(PAIRWISE)).unwrap();
    assert_eq!(own.lines().next(), handed_out.lines().next());
    assert_eq!(read_judgements(&folder.join("")).unwrap()["ann"].len(), 3);
    let alpha = Agreement::read(&folder.join("")).unwrap().alpha();
    assert!(
        alpha.n == 3 && (alpha.value.is_nan() || (alpha.low..=alpha.high).contains(&alpha.value))
    );
    // Other replies do not overwrite what somebody has judged.
    let moved = write_annotation_files(
        folder.join(""),
        &prompts,
        ("SFT", &replies("new")),
        ("DPO", &replies("two")),
        1,
    )
    .unwrap();
    assert_ne!(moved, folder.join(""));
    for (name, id) in [("../x", "pair-0001"), ("", "pair-0001"), ("ann", "pair-9999")] {
        assert!(judge(&folder.join(""), name, id, Some(Preference::A)).is_err(), "{name} {id}");
    }
}

#[test]
fn agreement_equals_published_examples_and_its_limits() {
    // Cohen's 2 x 2 example [20, 5; 10, 15].
    let counts = [("y", "y", 20), ("y", "n", 5), ("n", "y", 10), ("n", "n", 15)];
    let one: Vec<&str> = counts.iter().flat_map(|&(a, _, n)| vec![a; n]).collect();
    let other: Vec<&str> = counts.iter().flat_map(|&(_, b, n)| vec![b; n]).collect();
    assert!((cohen_kappa(&one, &other) - 0.4).abs() < 1e-12);
    assert!((percent_agreement(&one, &other) - 0.7).abs() < 1e-12);
    // Krippendorff's nominal example with four observers and missing values.
    let units: Vec<Vec<u8>> = [
        "1 1 1", "2 2 3 2", "3 3 3 3", "3 3 3 3", "2 2 2 2", "1 2 3 4", "4 4 4 4", "1 1 2 1",
        "2 2 2 2", "5 5 5", "1 1", "3",
    ]
    .map(|u| u.split(' ').map(|l| l.parse().unwrap()).collect())
    .to_vec();
    assert!((krippendorff_alpha(&units) - 0.743).abs() < 5e-4);
    // Two observers, no missing value, binary: alpha = 1 - (n - 1)/n * (1 - Scott's pi) by its
    // definition.
    let paired: Vec<Vec<&str>> = one.iter().zip(&other).map(|(a, b)| vec![*a, *b]).collect();
    let yes = 55.0 / 100.0;
    let expected = 2.0 * yes * (1.0 - yes) * 100.0 / 99.0;
    assert!((krippendorff_alpha(&paired) - (1.0 - 0.3 / expected)).abs() < 1e-12);
    assert_eq!(
        (cohen_kappa(&[1, 2], &[1, 2]), krippendorff_alpha(&[vec![1, 1], vec![2, 2]])),
        (1.0, 1.0)
    );
    // Nobody could have disagreed, or nothing can be compared.
    assert!(
        cohen_kappa(&["a"; 5], &["a"; 5]).is_nan()
            && krippendorff_alpha(&[vec![1, 1], vec![1, 1]]).is_nan()
    );
    assert!(
        cohen_kappa(&[1, 1, 1, 1], &[1, 2]).is_nan() && percent_agreement(&[1], &[1, 2]).is_nan()
    );
    assert!(krippendorff_alpha::<u8>(&[vec![1]]).is_nan());
}
