//! Two models that do not differ: the SFT model against itself, with another sampling seed. The
//! table must stay silent.

use hhalign::prelude::*;

use crate::fixtures::test_data;

/// Comparisons that are made.
const REPEATS: u64 = 200;

/// Silent ones at least: a table at 5% speaks in one of twenty.
const SILENT: usize = 186;

#[test]
fn a_model_against_itself_is_seldom_said_to_differ() {
    let data = Dataset::embedded(0, 2000).unwrap();
    let mut split = data.split(0.1).unwrap();
    let judge_pairs = split.set_aside(0.3).unwrap();
    let tokenizer = Tokenizer::train(&split.train, 1024).unwrap();
    let ids = |pairs: &[Pair]| TokenizedPairs::new(pairs, &tokenizer, 256).unwrap();
    let (train, held_out) = (ids(&split.train), ids(&split.held_out));

    let mut model = Gpt::new(Preset::Toy.config(tokenizer.vocab_size()), 0).unwrap();
    let mut sft = Sft::default();
    (sft.train.max_steps, sft.train.batch_size, sft.train.micro_batch_size) = (400, 8, 4);
    (sft.train.learning_rate, sft.train.eval_every, sft.train.progress) = (2.5e-3, 400, false);
    sft.fit(&mut model, &train, &held_out.head(50)).unwrap();

    let mut config = RewardConfig::default();
    (config.train.max_steps, config.train.learning_rate, config.train.progress) = (30, 1e-3, false);
    let (judge_train, watched) = ids(&judge_pairs).divide(0.9);
    let reward = RewardModel::train(&config, &model, &judge_train, &watched, None).unwrap();
    let judge = RewardJudge::new(reward, &tokenizer, &held_out).unwrap();
    assert!(judge.accuracy.estimate().low > 0.5, "{}", judge.accuracy.estimate().text());

    let toxicity = test_data("toxicity in a comparison of equals").map(|data| {
        let file = |name: &str| data.join("toxicity").join(name);
        ToxBlock::from_files(file("toxblock_f16.safetensors"), file("toxblock_vocab.txt")).unwrap()
    });
    let sample = split.held_out_sample(200);
    let prompts: Vec<String> = sample.iter().map(|p| p.prompt.clone()).collect();
    let refusal_prompts = RefusalPrompts::embedded(0, 50).unwrap();
    let all = [prompts.clone(), refusal_prompts.prompts.clone()].concat();

    let repeats: Vec<u64> = (0..REPEATS).collect();
    let spoke = hhalign::base::parallel::map(&repeats, |&repeat| {
        let draw = |side: u64| {
            let seed = 2 * repeat + side;
            let sampler =
                Sampler { temperature: 0.7, max_new_tokens: 48, seed, ..Sampler::default() };
            let mut replies = sampler.replies(&model, &tokenizer, &all).unwrap();
            let to_refusal = replies.split_off(prompts.len());
            (replies, to_refusal)
        };
        let ((first, first_refusal), (second, second_refusal)) = (draw(0), draw(1));
        let mut table =
            Comparison::new(&data, &tokenizer, ("one", &model), ("other", &model), repeat).unwrap();
        let refusal =
            |replies: &[Reply]| Refusal::by_matcher(&refusal_prompts, replies, repeat).unwrap();
        table.add_all(&refusal(&first_refusal), &refusal(&second_refusal)).unwrap();
        table.add_all(&quality(&first, repeat), &quality(&second, repeat)).unwrap();
        let novel = |replies: &[Reply]| novel_words(replies, &split.train, repeat);
        table.add(&novel(&first), &novel(&second)).unwrap();
        let answered = |replies: &[Reply]| ordinary_answered(&sample, replies, repeat);
        table.add(&answered(&first), &answered(&second)).unwrap();
        let result =
            head_to_head(&judge, &prompts, ("one", &first), ("other", &second), repeat).unwrap();
        table.add_joint(&result.rate);
        if let Some(scorer) = &toxicity {
            let report = |replies: &[Reply]| {
                ToxicityReport::by(scorer, &sample, &[replies.to_vec()], repeat).unwrap()
            };
            table.add_all(&report(&first), &report(&second)).unwrap();
        }
        assert!(table.corrected().iter().flatten().count() >= 7, "the family of tests is there");
        let spoke: Vec<String> = table
            .verdicts()
            .iter()
            .zip(table.rows())
            .filter(|(v, _)| !matches!(v, Verdict::NotShown | Verdict::NotTested))
            .map(|(_, row)| row.metric.clone())
            .collect();
        Ok(spoke)
    })
    .unwrap();
    let silent = spoke.iter().filter(|alarms| alarms.is_empty()).count();
    let alarms: Vec<String> = spoke.into_iter().flatten().collect();
    println!(
        "{silent} of {REPEATS} comparisons of a model with itself declare no difference; alarms: {alarms:?}"
    );
    assert!(silent >= SILENT, "{silent} of {REPEATS}; alarms: {alarms:?}");
}
