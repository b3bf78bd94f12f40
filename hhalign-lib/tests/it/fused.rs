//! The fast path against the composed model and automatic differentiation: values and every
//! gradient.

use candle_core::Tensor;
use hhalign::compute::Precision;
use hhalign::compute::cpu::{Decoder, Keep, Purpose, TokenStats, Workspace, with_weights};
use hhalign::compute::gradients::Gradients;
use hhalign::data::packed::Packed;
use hhalign::model::Gpt;

use crate::common::passes::{
    config, dlogps, ids, long, model, oracle, packed, sequences, super_short, whole, worst,
};
use crate::common::{distance, error, max_abs, numbers};

fn fused(
    model: &Gpt,
    packed: &Packed,
    keep: Keep,
    precision: Precision,
) -> (Vec<f32>, TokenStats, Gradients) {
    let (mut workspace, mut stats) = (Workspace::default(), TokenStats::default());
    let mut gradients = Gradients::zeros(&model.config);
    let logps = with_weights(model, precision, Purpose::Train, |weights| {
        // A pass before it, so that memory used once is used again.
        let other = super_short();
        workspace.forward(weights, &other, keep, None)?;
        workspace.backward(weights, &other, &[0.0; 2], &mut gradients)?;
        let logps = workspace.forward(weights, packed, keep, Some(&mut stats))?;
        workspace.backward(weights, packed, &dlogps(logps.len()), &mut gradients)?;
        Ok(logps)
    });
    (logps.unwrap(), stats, gradients)
}

#[test]
fn values_and_every_gradient_equal_the_composed_models() {
    for config in [config(1, 1, 8, 37), config(2, 3, 33, 101), config(3, 4, 64, 300)] {
        let (model, sequences) = (model(config.clone()), sequences(config.vocab_size));
        let exact = oracle(&model, &sequences);
        for share in [false, true] {
            for keep in [Keep::Activations, Keep::BlockInputs] {
                let (logps, stats, gradients) =
                    fused(&model, &packed(&sequences, share), keep, Precision::F32);
                let ours: Vec<f64> = logps.iter().copied().map(f64::from).collect();
                let (value, (gradient, name)) =
                    (distance(&ours, &exact.logps), worst(&gradients, &exact.gradients));
                println!(
                    "C {} share {share} {keep:?}: values {value:.1e}, gradients {gradient:.1e} ({name})",
                    config.n_embd
                );
                assert!(
                    value < 2e-5 && gradient < 2e-5,
                    "{config:?} share {share} {keep:?}: {value} {gradient} {name}"
                );
                assert_eq!(stats.right, exact.stats.right);
                let entropy =
                    |g: &TokenStats| g.entropy.iter().copied().map(f64::from).collect::<Vec<_>>();
                assert!(distance(&entropy(&stats), &entropy(&exact.stats)) < 2e-5);
            }
        }
    }
}

#[test]
fn logits_of_a_chunk_at_a_time_give_the_gradients_of_all_targets() {
    // 256 targets are a chunk.
    let (model, sequences) = (model(config(1, 2, 16, 50)), long(4, 50));
    let exact = oracle(&model, &sequences);
    let (logps, _, gradients) =
        fused(&model, &packed(&sequences, true), Keep::Activations, Precision::F32);
    assert!(logps.len() > 2 * 256);
    let ours: Vec<f64> = logps.iter().copied().map(f64::from).collect();
    let (value, (gradient, name)) =
        (distance(&ours, &exact.logps), worst(&gradients, &exact.gradients));
    assert!(value < 2e-5 && gradient < 2e-5, "{value} {gradient} {name}");
}

#[test]
fn no_gradients_of_the_ends_are_zeros_whatever_an_earlier_pass_left() {
    let (model, packed) = (model(config(2, 2, 16, 50)), whole(&sequences(50), true));
    let dlogps = dlogps(packed.n_targets());
    let mut workspace = Workspace::default();
    with_weights(&model, Precision::F32, Purpose::Train, |w| {
        let mut backward = |dends: &[f32]| -> hhalign::base::error::Result<Gradients> {
            let mut gradients = Gradients::zeros(&model.config);
            workspace.forward(w, &packed, Keep::Activations, None)?;
            workspace.backward_ends(w, &packed, &dlogps, dends, &mut gradients)?;
            Ok(gradients)
        };
        let some = backward(&vec![0.5; packed.n_ends() * 16])?;
        let none = backward(&[])?;
        let zeros = backward(&vec![0.0; packed.n_ends() * 16])?;
        assert_eq!(none.values(), zeros.values());
        assert_ne!(none.values(), some.values());
        Ok(())
    })
    .unwrap();
}

#[test]
fn scoring_keeps_nothing_and_gives_the_same() {
    let model = model(config(3, 2, 32, 64));
    let packed = packed(&sequences(64), true);
    let (with, ..) = fused(&model, &packed, Keep::Activations, Precision::F32);
    let mut workspace = Workspace::default();
    let without = with_weights(&model, Precision::F32, Purpose::Score, |w| {
        workspace.forward(w, &packed, Keep::Nothing, None)
    })
    .unwrap();
    assert_eq!(with, without);
}

#[test]
fn a_shared_prompt_takes_fewer_rows() {
    let all = sequences(50);
    let rows = |share| packed(&all, share).n_rows();
    let prompts: usize = all.iter().map(|(p, replies)| p.len() * (replies.len() - 1)).sum();
    assert_eq!(rows(false) - rows(true), prompts);
}

#[test]
fn bf16_stays_near_f32() {
    let model = model(config(3, 4, 64, 300));
    let sequences = sequences(300);
    let exact = oracle(&model, &sequences);
    let packed = packed(&sequences, true);
    match with_weights(&model, Precision::Bf16, Purpose::Train, |_| Ok(())) {
        Err(error) => println!("skipped: {error}"),
        Ok(()) => {
            let (logps, _, gradients) = fused(&model, &packed, Keep::Activations, Precision::Bf16);
            let ours: Vec<f64> = logps.iter().copied().map(f64::from).collect();
            let (value, (gradient, name)) =
                (distance(&ours, &exact.logps), worst(&gradients, &exact.gradients));
            println!("bf16: values {value:.1e}, gradients {gradient:.1e} ({name})");
            // bf16 keeps 8 bits, 0.4% of an operand; the largest log-probability here is near -20.
            let value = value / max_abs(&exact.logps);
            assert!(value > 1e-6 && value < 0.01 && gradient < 0.1, "{value} {gradient} {name}");
        }
    }
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    let model = model(config(1, 2, 16, 50));
    let run = |prompt: &[u32], reply: &[u32]| {
        let mut packed = Packed::default();
        packed.push(prompt, &[reply])?;
        with_weights(&model, Precision::F32, Purpose::Score, |w| {
            Workspace::default().forward(w, &packed, Keep::Nothing, None)
        })
    };
    assert!(run(&[1, 2], &[3]).is_ok());
    assert!(error(run(&[1, 50], &[3])).got().contains("id 50"));
    assert!(error(run(&[1], &[99])).got().contains("id 99"));
    assert!(error(run(&[1; 100], &[1; 62])).got().contains("position 160"));
    assert!(
        run(&[1; 100], &[1; 61]).is_ok(),
        "the last token predicts nothing and needs no position"
    );
    assert!(run(&[], &[1]).is_err() && run(&[1], &[]).is_err());
}

#[test]
fn decoding_with_a_cache_gives_the_logits_of_the_whole_text() {
    for config in [config(2, 3, 33, 101), config(3, 4, 64, 300)] {
        let model = model(config.clone());
        let texts: Vec<Vec<u32>> =
            [40, 90, 7].iter().map(|n| ids(*n, *n, config.vocab_size)).collect();
        let whole = |text: &[u32]| {
            let input = Tensor::new(text, &candle_core::Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let logits = model.logits(&input).unwrap();
            numbers(&logits.narrow(1, text.len() - 1, 1).unwrap())
        };
        let other = with_weights(&model, Precision::F32, Purpose::Score, |weights| {
            Decoder::new(weights).map(drop)
        });
        assert!(error(other).to_string().contains("Purpose::Decode"));
        with_weights(&model, Precision::F32, Purpose::Decode, |weights| {
            let mut decoder = Decoder::new(weights)?;
            let check = |logits: &[f32], text: &[u32]| {
                let ours: Vec<f64> = logits.iter().copied().map(f64::from).collect();
                let (error, size) = (distance(&ours, &whole(text)), max_abs(&whole(text)));
                assert!(error < 2e-5 * size, "{} tokens: {error} of {size}", text.len());
            };
            // Prompts end at several places; then the sequences go on together, and one of them
            // stops early.
            for text in &texts {
                let (_, logits) = decoder.start(&text[..text.len() - 5])?;
                check(&logits, &text[..text.len() - 5]);
            }
            for step in 0..5 {
                let numbers: Vec<usize> = if step < 3 { vec![0, 1, 2] } else { vec![2, 0] };
                let next: Vec<u32> =
                    numbers.iter().map(|&n| texts[n][texts[n].len() - 5 + step]).collect();
                let logits = decoder.append(&numbers, &next)?;
                for (&n, logits) in numbers.iter().zip(logits.chunks_exact(config.vocab_size)) {
                    check(logits, &texts[n][..texts[n].len() - 4 + step]);
                }
            }
            assert!(
                decoder.start(&[]).is_err() && decoder.start(&[config.vocab_size as u32]).is_err()
            );
            assert!(decoder.start(&vec![1; config.block_size + 1]).is_err());
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_long_text_decodes_token_by_token_as_it_does_at_once() {
    let model = model(config(2, 3, 33, 101));
    let text = ids(150, 1, 101);
    with_weights(&model, Precision::F32, Purpose::Decode, |weights| {
        let mut decoder = Decoder::new(weights)?;
        let mut logits = decoder.start(&text[..1])?.1;
        // The cache's capacity grows on the way.
        for n in 2..=text.len() {
            logits = decoder.append(&[0], &text[n - 1..n])?;
            if n % 10 == 0 {
                let ours: Vec<f64> = logits.iter().copied().map(f64::from).collect();
                let at_once = Decoder::new(weights)?.start(&text[..n])?.1;
                let wanted: Vec<f64> = at_once.iter().copied().map(f64::from).collect();
                let error = distance(&ours, &wanted) / max_abs(&wanted);
                assert!(error < 2e-5, "{n} tokens: {error}");
            }
        }
        assert_eq!(logits.len(), 101);
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_norm_of_gradients_counts_every_number_whatever_their_count() {
    let mut gradients = Gradients::zeros(&config(1, 3, 33, 37));
    let (mut squares, mut odd) = (0.0, 0);
    gradients.values_mut().as_mut().map(|values| {
        odd += usize::from(values.len() % 8 > 0);
        values.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 7) as f32 - 3.5);
        squares += values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    });
    assert!(odd > 10, "numbers beyond whole lanes of eight");
    assert!((gradients.norm().unwrap() / squares.sqrt() - 1.0).abs() < 1e-12);
}
