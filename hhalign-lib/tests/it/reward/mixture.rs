//! Several reward models, one for each kind of prompt.

use hhalign::data::{Pair, PromptKind};
use hhalign::model::Gpt;
use hhalign::train::reward::{RewardGroup, RewardMixture};

use super::config;
use crate::common::{Folder, error, texts, tiny, tokenized, tokenizer};

/// Harmful and helpful requests; look-alikes are made to be confused.
const KINDS: [PromptKind; 2] = [PromptKind::Harmful, PromptKind::Helpful];

fn of_kind(pairs: Vec<Pair>, kinds: &[PromptKind]) -> Vec<Pair> {
    pairs.into_iter().filter(|p| p.kind.is_some_and(|kind| kinds.contains(&kind))).collect()
}

fn groups() -> [RewardGroup; 2] {
    let of = |seed, n, kind| tokenized(&of_kind(texts(seed, n), &[kind]));
    KINDS.map(|kind| RewardGroup {
        name: format!("{kind:?}"),
        pairs: of(1, 240, kind),
        watched: of(2, 40, kind),
    })
}

#[test]
fn a_mixture_sends_each_prompt_to_the_model_of_its_kind() {
    let (groups, start, tokenizer) = (groups(), Gpt::new(tiny(1, 0.0), 5).unwrap(), tokenizer());
    let folder = Folder::new("reward-mixture");
    let mixture =
        RewardMixture::train(&config(12), &start, &groups, Some(&folder.join("cache"))).unwrap();
    let steps: usize = mixture.models().map(|(_, m)| m.training.as_ref().unwrap().steps).sum();
    assert!((12..=13).contains(&steps), "the steps are shared out: {steps}");
    let unseen = of_kind(texts(3, 80), &KINDS);
    let prompts: Vec<String> = unseen.iter().map(|p| p.prompt.clone()).collect();
    let routed = mixture.route(&tokenizer, &prompts).unwrap();
    let right = unseen.iter().zip(&routed).filter(|(p, g)| p.kind == Some(KINDS[**g])).count();
    println!("{right} of {} prompts went to their kind", unseen.len());
    let larger = unseen.iter().filter(|p| p.kind == Some(KINDS[1])).count();
    assert!(
        right > larger + (unseen.len() - larger) / 4,
        "{right} of {}, {larger} of one kind",
        unseen.len()
    );
    let replies: Vec<String> = unseen.iter().map(|p| p.chosen.clone()).collect();
    let rewards = mixture.score(&tokenizer, &prompts, &replies).unwrap();
    for (group, (_, model)) in mixture.models().enumerate() {
        let alone = model.score(&tokenizer, &prompts, &replies).unwrap();
        let own = (0..unseen.len()).filter(|&i| routed[i] == group);
        assert!(
            own.clone().count() > 0
                && own.into_iter().all(|i| (alone[i] - rewards[i]).abs() < 1e-5)
        );
    }
    let first = mixture.score_in(&tokenizer, &prompts, &replies, &vec![0; prompts.len()]).unwrap();
    assert_ne!(first, rewards, "a group that is known goes before the classifier");
    assert!(
        error(mixture.score_in(&tokenizer, &prompts, &replies, &[0])).got().contains("1 groups")
    );
    let (chosen, _) = mixture.score_pairs(&tokenized(&unseen)).unwrap();
    assert!(
        chosen.iter().zip(&rewards).all(|(a, b)| (a - b).abs() < 1e-5),
        "pairs go the same way"
    );
    mixture.save(&tokenizer, folder.join("saved")).unwrap();
    let (loaded, _) = RewardMixture::load(folder.join("saved")).unwrap();
    assert_eq!(loaded.hash().unwrap(), mixture.hash().unwrap());
    let again =
        RewardMixture::train(&config(12), &start, &groups, Some(&folder.join("cache"))).unwrap();
    assert!(
        again.models().all(|(_, m)| m.from_cache)
            && again.hash().unwrap() == mixture.hash().unwrap()
    );
    assert!(error(RewardMixture::train(&config(2), &start, &[], None)).got().contains("[]"));
    let twice = [groups[0].clone(), groups[0].clone()];
    assert!(
        error(RewardMixture::train(&config(2), &start, &twice, None))
            .what()
            .contains("different names")
    );
}
