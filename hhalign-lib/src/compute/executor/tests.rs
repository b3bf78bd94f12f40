//! Compares the three executors; the composed model is the oracle.

use candle_core::Tensor;

use super::*;
use crate::compute::executor::composed::ComposedExecutor;
use crate::compute::executor::cpu::CpuExecutor;
use crate::compute::executor::gpu::GpuExecutor;
use crate::compute::gpu::Gpu;
use crate::compute::optim::AdamWConfig;
use crate::model::{Gpt, GptConfig};

fn config() -> GptConfig {
    let (n_layer, n_head, n_embd) = (2, 2, 32);
    GptConfig {
        vocab_size: 61,
        block_size: 48,
        n_layer,
        n_head,
        n_embd,
        dropout: 0.0,
        layer_norm_epsilon: 1e-5,
    }
}

/// Returns a model whose biases and norms differ from their initial values, so that a wrong use of
/// one shows.
fn model() -> Gpt {
    let fresh = Gpt::new(config(), 3).unwrap();
    let moved = fresh.named_parameters().into_iter().map(|(name, tensor)| {
        let n = tensor.elem_count();
        let noise: Vec<f32> =
            (0..n).map(|i| ((i * 37 + name.len() * 11) % 97) as f32 / 970.0 - 0.05).collect();
        let noise = Tensor::from_vec(noise, tensor.dims(), tensor.device()).unwrap();
        (name, ((tensor * 3.0).unwrap() + noise).unwrap())
    });
    Gpt::from_parameters(config(), moved.collect(), true).unwrap()
}

fn ids(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 31 + seed * 17 + i * i) % 61) as u32).collect()
}

/// Returns packs with shared prompts, replies of one token, and whole replies of which only some
/// are targets.
fn packs() -> Vec<Packed> {
    let mut plain = Packed::default();
    plain.push(&ids(7, 1), &[&ids(5, 2), &ids(9, 3)]).unwrap();
    plain.push(&ids(1, 4), &[&ids(1, 5)]).unwrap();
    let mut whole = Packed::default();
    whole.push_whole(&ids(6, 6), &[&ids(4, 7), &ids(8, 8)], 1).unwrap();
    whole.push_whole(&ids(3, 9), &[&ids(2, 10)], 0).unwrap();
    let mut ends = Packed::default();
    ends.push_whole(&ids(5, 11), &[&ids(3, 12), &ids(7, 13)], 0).unwrap();
    vec![plain, whole, ends]
}

/// A step with arbitrary upstream gradients.
struct AnyGradient;

fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 13) % 29) as f32 / 29.0 - 0.4).collect()
}

impl StepWork for AnyGradient {
    fn index(&self) -> usize {
        0
    }

    fn n_passes(&self) -> usize {
        packs().len()
    }

    fn pack(&self, pass: usize) -> Result<Packed> {
        Ok(packs().remove(pass))
    }

    fn wants_stats(&self) -> bool {
        false
    }

    fn constant_grad(&self, pass: usize, packed: &Packed) -> Option<Vec<f32>> {
        (pass == 1).then(|| weights(packed.n_targets()))
    }

    fn upstream(&self, _pass: usize, forward: &Forward) -> Result<Upstream> {
        Ok(Upstream {
            dlogps: weights(forward.logps.values.len()),
            dends: weights(forward.ends.len()),
        })
    }
}

fn largest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |m, x| if x.is_nan() { f32::INFINITY } else { m.max(x) })
}

type Make = for<'m> fn(&'m Gpt) -> Option<Box<dyn Executor + 'm>>;

fn others() -> Vec<(&'static str, Make)> {
    let cpu: Make = |model| Some(Box::new(CpuExecutor::new(model, &Compute::default())));
    let card: Make = |model| {
        let optimizer = AdamW::new(AdamWConfig::default(), &model.config);
        match GpuExecutor::for_training(Gpu::emulated(256), model, &optimizer, &Compute::default())
        {
            Ok(executor) => Some(Box::new(executor)),
            Err(error) => {
                println!("skipped: {error}");
                None
            }
        }
    };
    vec![("cpu", cpu), ("emulated card", card)]
}

fn composed(model: &Gpt) -> ComposedExecutor<'_> {
    ComposedExecutor::new(model, DropoutPlan { probability: 0.0, seed: 0 })
}

#[test]
fn scores_ends_and_logits_equal_the_composed_models() {
    let model = model();
    let (packs, both) =
        (
            packs(),
            |forward: &Forward| Ok([forward.logps.values.as_slice(), &forward.ends].concat()),
        );
    let exact = composed(&model).score(&packs, &both).unwrap();
    let sums = composed(&model).score(&packs, &|forward| Ok(forward.logps.by_sequence())).unwrap();
    let logits = composed(&model).logits(&packs[..2]).unwrap();
    assert_eq!((exact[0].len(), exact[1].len(), exact[2].len()), (15, 4 + 3 * 32, 2 * 32));
    assert_eq!(sums.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 0]);
    for (name, make) in others() {
        let Some(mut executor) = make(&model) else { continue };
        for (pack, (ours, exact)) in
            executor.score(&packs, &both).unwrap().iter().zip(&exact).enumerate()
        {
            assert!(largest(ours, exact) < 2e-4, "{name}, pack {pack}: {}", largest(ours, exact));
        }
        for (ours, exact) in executor.logits(&packs[..2]).unwrap().iter().zip(&logits) {
            assert_eq!(ours.dims(), exact.dims());
            let plain = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(largest(&plain(ours), &plain(exact)) < 2e-4, "{name}");
        }
    }
}

#[test]
fn a_step_moves_the_weights_as_the_composed_model_does() {
    let plain = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let step = |model: &Gpt, executor: &mut dyn Executor| {
        // With a large epsilon the step depends on the size of the gradient, not only on its sign.
        let config = AdamWConfig { epsilon: 1.0, ..AdamWConfig::default() };
        let mut optimizer = AdamW::new(config, &model.config);
        let norm = executor.gradients(&AnyGradient).unwrap();
        executor.apply(&mut optimizer, norm, 1e9, 1e-2).unwrap();
        executor.sync_weights().unwrap();
        executor.sync_moments(&mut optimizer).unwrap();
        assert!(!executor.is_stale());
        (norm, optimizer.first_moments().unwrap())
    };
    let begin = model().named_parameters();
    let moved = |model: &Gpt, parameter: &str| {
        (&model.named_parameters()[parameter] - &begin[parameter]).unwrap()
    };
    let exact_model = model();
    let (exact_norm, exact) = step(&exact_model, &mut composed(&exact_model));
    for (name, make) in others() {
        let model = model();
        let Some(mut executor) = make(&model) else { continue };
        let (norm, moments) = step(&model, &mut *executor);
        assert!(
            (norm / exact_norm - 1.0).abs() < 1e-4,
            "{name}: norm {norm}, composed {exact_norm}"
        );
        for (parameter, exact) in &exact {
            let steps = [moved(&model, parameter), moved(&exact_model, parameter)];
            for (what, [ours, exact]) in
                [("gradient", [&moments[parameter], exact]), ("step", steps.each_ref())]
            {
                let (ours, exact) = (plain(ours), plain(exact));
                let scale = exact.iter().fold(1e-12f32, |m, x| m.max(x.abs()));
                assert!(largest(&ours, &exact) / scale < 1e-3, "{name}: {what} of {parameter}");
            }
        }
    }
}

#[test]
fn decoders_read_and_append_alike() {
    let model = model();
    let prompts = [ids(5, 1), ids(9, 2), ids(3, 3)];
    let texts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let run = |executor: &mut dyn Executor| {
        let plan = DecodePlan { sequences: 3, length: 20, models: 1 };
        let (mut first, mut later) = (vec![], vec![]);
        executor
            .decode(&plan, &mut |decoding| {
                assert!((1..=3).contains(&decoding.group_size(3)));
                // Twice, to check that a decoder that is borrowed again has no sequences of the
                // first time.
                for _ in 0..2 {
                    (first, later) = (vec![], vec![]);
                    let mut decoder = decoding.decoder()?;
                    let mut started = 0;
                    while started < texts.len() {
                        let n = decoder.start(&texts[started..])?;
                        assert!(n >= 1);
                        first.extend(decoder.logits()?);
                        started += n;
                    }
                    decoder.append(&[2, 0], &[7, 8])?;
                    later = decoder.logits()?;
                }
                Ok(())
            })
            .unwrap();
        (first, later)
    };
    let (exact_first, exact_later) = run(&mut composed(&model));
    assert_eq!((exact_first.len(), exact_later.len()), (3 * 61, 2 * 61));
    for (name, make) in others() {
        let Some(mut executor) = make(&model) else { continue };
        let (first, later) = run(&mut *executor);
        assert!(largest(&first, &exact_first) < 2e-4, "{name}: after the prompts");
        assert!(largest(&later, &exact_later) < 2e-4, "{name}: after a token more");
    }
}

#[test]
fn an_executor_that_scores_refuses_to_train() {
    let model = model();
    let mut executor = GpuExecutor::new(Gpu::emulated(64), &model, &Compute::default());
    assert!(executor.gradients(&AnyGradient).unwrap_err().what().contains("not made for training"));
}
