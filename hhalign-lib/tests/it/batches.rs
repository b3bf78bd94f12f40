//! What padding, order, splitting, cutting and caching must not change; and what a sampler's draw
//! depends on.

use candle_core::{Device, Tensor};
use hhalign::data::Pair;
use hhalign::data::batch::{Batch, Side, TokenizedPair, TokenizedPairs};
use hhalign::infer::sample::Sampler;
use hhalign::infer::score;
use hhalign::model::ops::Dropout;
use hhalign::model::{Gpt, KvCache};

use crate::common::{BLOCK, distance, error, max_abs, numbers, texts, tiny, tokenized, tokenizer};

/// Weights large enough that a wrong position or mask shows in the log-probabilities.
fn model() -> Gpt {
    let small = Gpt::new(tiny(2, 0.0), 5).unwrap();
    for (name, var) in small.named_vars() {
        if name.ends_with("weight") && !name.contains("ln_") {
            var.set(&(var.as_tensor().detach() * 10.0).unwrap()).unwrap();
        }
    }
    small
}

fn logps(model: &Gpt, batch: &Batch) -> Vec<f64> {
    numbers(&score::sequence_logps(model, batch, &mut Dropout::off()).unwrap())
}

#[test]
fn padding_order_and_split_change_no_log_probability() {
    let (model, pairs) = (model(), tokenized(&texts(1, 12)));
    let all: Vec<usize> = (0..pairs.len()).collect();
    for side in [Side::Chosen, Side::Rejected] {
        let of = |indices: &[usize]| logps(&model, &pairs.batch(indices, side).unwrap());
        let together = of(&all);
        let lengths = pairs.batch(&all, side).unwrap().layout.lengths().to_vec();
        assert!(lengths.iter().min() < lengths.iter().max(), "some rows must be padded");
        println!("{side:?}: replies of {lengths:?} ids, {} cut", pairs.replies_cut);
        let alone: Vec<f64> = all.iter().flat_map(|&i| of(&[i])).collect();
        let reversed: Vec<usize> = all.iter().rev().copied().collect();
        let mut backwards = of(&reversed);
        backwards.reverse();
        let split: Vec<f64> = all.chunks(5).flat_map(of).collect();
        for (what, other) in [("padding", alone), ("order", backwards), ("split", split)] {
            // Relative: a sum over some forty tokens of about five nats.
            let error = distance(&together, &other) / max_abs(&together);
            println!("{side:?}, {what}: {error:.1e}");
            assert!(error < 1e-6 && distance(&together, &other) < 1e-3, "{what}: {error}");
        }
    }
}

#[test]
fn the_padding_id_is_never_seen() {
    let model = model();
    let rows: [(&[u32], &[u32]); 2] = [(&[5, 6, 7], &[8, 9]), (&[5, 6], &[10, 11, 12, 13, 14, 15])];
    let with = |pad: u32| logps(&model, &Batch::new(&rows, pad).unwrap());
    assert_eq!(with(0), with(200));
}

#[test]
fn a_batch_marks_reply_tokens_and_nothing_else() {
    let batch = Batch::new(&[(&[5, 6, 7], &[8, 9]), (&[5], &[10, 11, 12, 13])], 1).unwrap();
    assert_eq!(numbers(&batch.input_ids), [5., 6., 7., 8., 9., 5., 10., 11., 12., 13.]);
    assert_eq!(numbers(&batch.completion_mask), [0., 0., 0., 1., 1., 0., 1., 1., 1., 1.]);
    assert_eq!(
        numbers(&batch.predicted_from),
        [2., 3., 5., 6., 7., 8.],
        "one place before each reply token"
    );
    assert_eq!(numbers(&batch.targets), [8., 9., 10., 11., 12., 13.]);
    assert_eq!(batch.layout.sequence_of_tokens(), [0, 0, 1, 1, 1, 1]);
    assert_eq!(batch.layout.lengths(), [2, 4]);
}

#[test]
fn sequences_with_nothing_to_predict_are_refused() {
    assert!(error(Batch::new(&[(&[1], &[2]), (&[1], &[])], 0)).what().contains("empty reply"));
    assert!(error(Batch::new(&[(&[], &[2])], 0)).what().contains("empty prompt"));
    assert!(error(Batch::new(&[], 0)).what().contains("batch"));
    assert!(
        error(tokenized(&texts(1, 3)).batch(&[3], Side::Chosen)).what().contains("no such pair")
    );
}

#[test]
fn cutting_keeps_a_common_prompt_and_never_empties_a_reply() {
    let (texts, tokenizer) = (texts(1, 40), tokenizer());
    let eos = tokenizer.eos_id();
    let whole = TokenizedPairs::new(&texts, &tokenizer, 10_000).unwrap();
    assert_eq!((whole.prompts_cut, whole.replies_cut), (0, 0));
    for max_length in [8, 9, 16, 33, 60, 96] {
        let pairs = TokenizedPairs::new(&texts, &tokenizer, max_length).unwrap();
        let (mut prompts_cut, mut replies_cut) = (0, 0);
        for (pair, full) in pairs.pairs.iter().zip(&whole.pairs) {
            assert!(!pair.prompt.is_empty());
            assert!(full.prompt.ends_with(&pair.prompt), "a prompt keeps its end");
            prompts_cut += usize::from(pair.prompt != full.prompt);
            for (cut, full) in [(&pair.chosen, &full.chosen), (&pair.rejected, &full.rejected)] {
                assert!(!cut.is_empty() && full.starts_with(cut), "a reply keeps its beginning");
                assert!(pair.prompt.len() + cut.len() <= max_length);
                assert_eq!(full.last(), Some(&eos));
                assert_eq!(
                    cut.contains(&eos),
                    cut == full,
                    "only a whole reply ends with the end of text"
                );
                replies_cut += usize::from(cut != full);
            }
        }
        assert_eq!(
            (pairs.prompts_cut, pairs.replies_cut),
            (prompts_cut, replies_cut),
            "counts at {max_length}"
        );
        if max_length < 20 {
            assert!(
                prompts_cut > 0 && replies_cut > 0,
                "nothing was cut at {max_length}: the test shows nothing"
            );
        }
        // What the model sees: both sides of a pair open with the same ids, and predict from there.
        let all: Vec<usize> = (0..pairs.len()).collect();
        let rows = |side| pairs.batch(&all, side).unwrap().input_ids.to_vec2::<u32>().unwrap();
        for ((pair, chosen), rejected) in
            pairs.pairs.iter().zip(rows(Side::Chosen)).zip(rows(Side::Rejected))
        {
            let n = pair.prompt.len();
            assert_eq!(
                (&chosen[..n], &rejected[..n]),
                (pair.prompt.as_slice(), pair.prompt.as_slice())
            );
        }
    }
    assert!(error(TokenizedPairs::new(&texts, &tokenizer, 7)).what().contains("max_length"));
}

#[test]
fn a_prompts_ids_do_not_depend_on_the_reply_behind_it() {
    let tokenizer = tokenizer();
    let pair = texts(1, 1).remove(0);
    let other = Pair { chosen: "ly glued on".into(), ..pair.clone() };
    let ids = |p: &Pair| TokenizedPairs::new(std::slice::from_ref(p), &tokenizer, 500).unwrap();
    assert_eq!(ids(&pair).pairs[0].prompt, ids(&other).pairs[0].prompt);
    assert_ne!(ids(&pair).hash, ids(&other).hash, "the hash covers the replies");
}

#[test]
fn an_epoch_holds_each_pair_once_in_an_order_of_its_own() {
    let pairs = tokenized(&texts(1, 43));
    for batch_size in [1, 8, 50] {
        let batches = pairs.epoch(batch_size, 3, 0);
        assert_eq!(batches.len(), pairs.len().div_ceil(batch_size));
        assert!(batches.iter().all(|b| !b.is_empty() && b.len() <= batch_size));
        let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..pairs.len()).collect::<Vec<_>>(), "batches of {batch_size}");
    }
    assert_eq!(pairs.epoch(8, 3, 1), pairs.epoch(8, 3, 1));
    assert_ne!(pairs.epoch(8, 3, 1), pairs.epoch(8, 3, 2), "each epoch is shuffled anew");
    assert_ne!(pairs.epoch(8, 3, 1), pairs.epoch(8, 4, 1), "each seed shuffles in its own way");
    let mut by_length: Vec<usize> = pairs.by_length(8).into_iter().flatten().collect();
    by_length.sort_unstable();
    assert_eq!(by_length, (0..pairs.len()).collect::<Vec<_>>());
}

#[test]
fn the_hash_of_pairs_tells_where_their_parts_end() {
    let hash = |prompt: &[u32], chosen: &[u32], rejected: &[u32]| {
        let pair = TokenizedPair {
            prompt: prompt.into(),
            chosen: chosen.into(),
            rejected: rejected.into(),
        };
        TokenizedPairs::from_ids(vec![pair], 16, 0).hash
    };
    let whole = hash(&[1, 2], &[3, 0], &[4, 0]);
    assert_eq!(whole, hash(&[1, 2], &[3, 0], &[4, 0]));
    for other in [
        hash(&[1], &[2, 3, 0], &[4, 0]),
        hash(&[1, 2], &[3], &[0, 4, 0]),
        hash(&[1, 2], &[4, 0], &[3, 0]),
    ] {
        assert_ne!(whole, other);
    }
}

fn ids(rows: usize, t: usize) -> Tensor {
    let ids: Vec<u32> = (0..rows * t).map(|i| (i * 37 % 300) as u32).collect();
    Tensor::from_vec(ids, (rows, t), &Device::Cpu).unwrap()
}

#[test]
fn the_cache_gives_the_logits_of_the_whole_forward_pass() {
    let model = model();
    let ids = ids(3, 20);
    let whole = model.logits(&ids).unwrap();
    // A prompt at once and the rest one by one; and uneven pieces.
    for pieces in [[vec![12], vec![1; 8]].concat(), vec![1, 7, 12], vec![20]] {
        let mut cache = KvCache::new(&model);
        assert!(cache.is_empty());
        let mut at = 0;
        for t in pieces {
            let hidden = model.hidden_cached(&ids.narrow(1, at, t).unwrap(), &mut cache).unwrap();
            let logits = numbers(&model.head(&hidden).unwrap());
            let wanted = numbers(&whole.narrow(1, at, t).unwrap());
            let error = distance(&logits, &wanted) / max_abs(&wanted);
            assert!(error < 1e-5, "{t} tokens at {at}: {error}");
            at += t;
            assert_eq!(cache.len(), at);
        }
    }
}

#[test]
fn a_cache_goes_on_with_the_rows_that_are_kept() {
    let model = model();
    let ids = ids(4, 10);
    let whole = model.logits(&ids).unwrap();
    let mut cache = KvCache::new(&model);
    model.hidden_cached(&ids.narrow(1, 0, 9).unwrap(), &mut cache).unwrap();
    let rows = Tensor::new(&[1u32, 3], &Device::Cpu).unwrap();
    cache.keep_rows(&rows).unwrap();
    let last = ids.narrow(1, 9, 1).unwrap().contiguous().unwrap().index_select(&rows, 0).unwrap();
    let logits = model.head(&model.hidden_cached(&last, &mut cache).unwrap()).unwrap();
    let wanted = numbers(
        &whole.narrow(1, 9, 1).unwrap().contiguous().unwrap().index_select(&rows, 0).unwrap(),
    );
    assert!(distance(&numbers(&logits), &wanted) / max_abs(&wanted) < 1e-5);
}

#[test]
fn no_position_sees_a_later_one() {
    let model = model();
    let ids = ids(1, 12);
    let mut changed = ids.to_vec2::<u32>().unwrap();
    changed[0][7] = 299;
    let changed = Tensor::new(changed, &Device::Cpu).unwrap();
    let logits = |ids: &Tensor, from: usize, n: usize| {
        numbers(&model.logits(ids).unwrap().narrow(1, from, n).unwrap())
    };
    assert_eq!(logits(&ids, 0, 7), logits(&changed, 0, 7));
    assert!(distance(&logits(&ids, 7, 5), &logits(&changed, 7, 5)) > 1e-3);
}

#[test]
fn sequences_longer_than_the_block_are_refused() {
    let model = model();
    assert!(
        error(model.logits(&ids(1, BLOCK + 1))).what().contains("longer than the model's block")
    );
    let mut cache = KvCache::new(&model);
    model.hidden_cached(&ids(1, BLOCK), &mut cache).unwrap();
    assert!(
        error(model.hidden_cached(&ids(1, 1), &mut cache)).got().contains(&(BLOCK + 1).to_string())
    );
}

/// Prompts of several lengths, some of them equal, so that groups form.
fn prompts() -> Vec<String> {
    let ask = |what: &str| format!("\n\nHuman: {what}\n\nAssistant:");
    ["Hi", "Hi", "How do I bake bread?", "Tell me a joke.", "Ho"].map(ask).to_vec()
}

#[test]
fn the_same_seed_draws_the_same_replies_and_another_seed_others() {
    let (model, tokenizer) = (Gpt::new(tiny(1, 0.0), 1).unwrap(), tokenizer());
    let draw = |seed: u64| {
        let sampler = Sampler { max_new_tokens: 12, seed, ..Sampler::default() };
        sampler.replies(&model, &tokenizer, &prompts()).unwrap()
    };
    let replies = draw(1);
    assert_eq!(replies, draw(1));
    assert_ne!(replies, draw(2));
    assert_ne!(replies[0], replies[1], "equal prompts at two places have streams of their own");
    for reply in &replies {
        assert!(!reply.ids.is_empty() && reply.ids.len() <= 12);
        assert_eq!(reply.ended, reply.ids.last() == Some(&tokenizer.eos_id()));
        assert!(reply.ended || reply.ids.len() == 12);
        assert_eq!(reply.text, tokenizer.decode(&reply.ids).unwrap());
    }
}

#[test]
fn a_reply_does_not_depend_on_its_neighbours() {
    let (model, tokenizer) = (Gpt::new(tiny(1, 0.0), 1).unwrap(), tokenizer());
    let sampler = Sampler { max_new_tokens: 16, seed: 4, ..Sampler::default() };
    let replies = sampler.replies(&model, &tokenizer, &prompts()).unwrap();
    for i in 0..replies.len() {
        // The prompt stays at its place, and everything around it changes.
        let mut others =
            vec!["\n\nHuman: Something else altogether\n\nAssistant:".to_string(); i + 1];
        others[i] = prompts()[i].clone();
        assert_eq!(
            sampler.replies(&model, &tokenizer, &others).unwrap()[i],
            replies[i],
            "prompt {i}"
        );
    }
}

#[test]
fn temperature_zero_and_a_tiny_top_p_take_the_likeliest_token_each_time() {
    let (model, tokenizer) = (model(), tokenizer());
    let greedy = Sampler { temperature: 0.0, max_new_tokens: 10, seed: 1, ..Sampler::default() };
    let replies = greedy.replies(&model, &tokenizer, &prompts()).unwrap();
    for (prompt, reply) in prompts().iter().zip(&replies) {
        let mut ids = tokenizer.encode(prompt).unwrap();
        for &drawn in &reply.ids {
            let row = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let logits = model.logits(&row).unwrap().narrow(1, ids.len() - 1, 1).unwrap();
            let logits = numbers(&logits);
            let best = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert!(logits[drawn as usize] >= best - 1e-4, "not the likeliest token");
            ids.push(drawn);
        }
    }
    let seedless = Sampler { seed: 2, ..greedy.clone() };
    assert_eq!(seedless.replies(&model, &tokenizer, &prompts()).unwrap(), replies);
    let narrow = Sampler { temperature: 1.0, top_p: 1e-6, ..greedy };
    assert_eq!(narrow.replies(&model, &tokenizer, &prompts()).unwrap(), replies);
}

/// First tokens of replies to `n` equal prompts, and the logits that they are drawn from.
fn first_tokens(sampler: Sampler, n: usize) -> (Vec<usize>, Vec<f64>) {
    let (model, tokenizer) = (model(), tokenizer());
    let prompt = tokenizer.encode(&prompts()[0]).unwrap();
    let row = Tensor::new(prompt.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let logits = numbers(&model.logits(&row).unwrap().narrow(1, prompt.len() - 1, 1).unwrap());
    let one = Sampler { max_new_tokens: 1, seed: 3, ..sampler };
    let drawn = one.ids(&model, vec![prompt; n], None).unwrap();
    (drawn.iter().map(|reply| reply[0] as usize).collect(), logits)
}

/// Asserts that drawn tokens have the mean logit that these weights give, within four standard
/// deviations.
fn assert_mean_logit(drawn: &[usize], logits: &[f64], weights: &[f64]) {
    let total: f64 = weights.iter().sum();
    let mean_of = |f: &dyn Fn(f64) -> f64| {
        logits.iter().zip(weights).map(|(l, w)| f(*l) * w / total).sum::<f64>()
    };
    let mean = mean_of(&|l| l);
    let deviation = (mean_of(&|l| (l - mean).powi(2)) / drawn.len() as f64).sqrt();
    let found = drawn.iter().map(|&id| logits[id]).sum::<f64>() / drawn.len() as f64;
    println!("mean logit {found:.3}, {mean:.3} with a deviation of {deviation:.3}");
    assert!(
        deviation > 0.0 && (found - mean).abs() < 4.0 * deviation,
        "{found} instead of {mean} +- {deviation}"
    );
}

#[test]
fn tokens_are_drawn_as_often_as_the_temperature_says() {
    for temperature in [0.5, 1.0, 2.0] {
        let (drawn, logits) = first_tokens(Sampler { temperature, ..Sampler::default() }, 1000);
        let weights: Vec<f64> = logits.iter().map(|l| (l / temperature).exp()).collect();
        assert_mean_logit(&drawn, &logits, &weights);
    }
}

#[test]
fn top_p_draws_from_the_likeliest_tokens_that_hold_its_share_and_from_all_of_them() {
    for top_p in [0.2, 0.7] {
        let (drawn, logits) = first_tokens(Sampler { top_p, ..Sampler::default() }, 1000);
        let mut weights: Vec<f64> = logits.iter().map(|l| l.exp()).collect();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let total: f64 = weights.iter().sum();
        let mut held = 0.0;
        let mut kept = 0;
        while held < top_p * total {
            held += weights[order[kept]];
            kept += 1;
        }
        order[kept..].iter().for_each(|&id| weights[id] = 0.0);
        assert!(
            kept > 5 && drawn.iter().all(|&id| weights[id] > 0.0),
            "a token outside the first {kept}"
        );
        assert_mean_logit(&drawn, &logits, &weights);
    }
}

#[test]
fn each_of_several_replies_to_a_prompt_is_drawn_anew() {
    let (model, tokenizer) = (Gpt::new(tiny(1, 0.0), 1).unwrap(), tokenizer());
    let sampler = Sampler { max_new_tokens: 12, seed: 1, ..Sampler::default() };
    let samples = sampler.samples(&model, &tokenizer, &prompts(), 3).unwrap();
    let [first, second, third] = samples.as_slice() else {
        panic!("{} lists of replies", samples.len())
    };
    assert_eq!(*first, sampler.replies(&model, &tokenizer, &prompts()).unwrap());
    for ((a, b), c) in first.iter().zip(second).zip(third) {
        assert!(a != b && b != c && a != c, "{a:?}");
    }
}

#[test]
fn a_reply_ends_at_the_end_of_text_and_nowhere_else() {
    let (model, tokenizer) = (model(), tokenizer());
    // The last norm's bias points to the end of text, so that some replies end early and some do
    // not.
    let vars = model.vars().unwrap();
    let eos = vars.wte.as_tensor().get(tokenizer.eos_id() as usize).unwrap();
    vars.lnf.bias.as_ref().unwrap().set(&(eos.detach() * 4.0).unwrap()).unwrap();
    let sampler = Sampler { max_new_tokens: 20, seed: 5, ..Sampler::default() };
    let prompts: Vec<String> = (0..8).flat_map(|_| prompts()).collect();
    let replies = sampler.replies(&model, &tokenizer, &prompts).unwrap();
    for reply in &replies {
        let end = reply.ids.iter().position(|id| *id == tokenizer.eos_id());
        assert_eq!(reply.ids.len(), end.map_or(20, |end| end + 1), "{:?}", reply.ids);
        assert_eq!(reply.ended, end.is_some());
    }
    let ended = replies.iter().filter(|reply| reply.ended).count();
    assert!((5..36).contains(&ended), "{ended} of 40 ended");
}

#[test]
fn prompts_and_replies_longer_than_the_block_are_cut_to_it() {
    let (model, tokenizer) = (Gpt::new(tiny(1, 0.0), 1).unwrap(), tokenizer());
    let long = vec![format!("\n\nHuman: {}\n\nAssistant:", "more and more words ".repeat(40))];
    for max_new_tokens in [1, 20, BLOCK - 1, BLOCK, 5 * BLOCK] {
        let sampler = Sampler { max_new_tokens, ..Sampler::default() };
        let reply = &sampler.replies(&model, &tokenizer, &long).unwrap()[0];
        assert!((1..=max_new_tokens.min(BLOCK)).contains(&reply.ids.len()));
    }
}

#[test]
fn sampler_settings_out_of_range_are_named() {
    let bad = [
        (Sampler { temperature: -1.0, ..Sampler::default() }, "temperature"),
        (Sampler { temperature: f64::NAN, ..Sampler::default() }, "temperature"),
        (Sampler { top_p: 0.0, ..Sampler::default() }, "top_p"),
        (Sampler { top_p: 1.5, ..Sampler::default() }, "top_p"),
        (Sampler { max_new_tokens: 0, ..Sampler::default() }, "max_new_tokens"),
    ];
    for (sampler, setting) in bad {
        assert!(error(sampler.check()).what().contains(setting), "{sampler:?}");
    }
    let (model, tokenizer) = (Gpt::new(tiny(1, 0.0), 1).unwrap(), tokenizer());
    let empty = Sampler::default().replies(&model, &tokenizer, &[String::new()]);
    assert!(error(empty).what().contains("prompt 0 is empty"));
    assert!(Sampler::default().replies(&model, &tokenizer, &[]).unwrap().is_empty());
}
