//! The passes on a GPU against the composed model. Without a GPU they run on an emulated one,
//! kernel by kernel and thread by thread; with one (`HHALIGN_DEVICE=cuda`), on that as well.

use hhalign::compute::Device;
use hhalign::compute::cpu::{Keep, Purpose, TokenStats, Workspace, with_weights};
use hhalign::compute::gpu::{Gpu, GpuDecoder, GpuPass, Memory, Storage};
use hhalign::compute::gradients::Gradients;
use hhalign::compute::{Compute, Precision};
use hhalign::data::packed::Packed;
use hhalign::model::Gpt;

use crate::common::emulated;
use crate::common::passes::{
    config, dlogps, ids, long, model, oracle, packed, sequences, super_short, whole, worst,
};
use crate::common::{distance, error, max_abs, numbers};

/// The cards to test: the emulated one, and a real one where there is one.
fn cards() -> Vec<Gpu> {
    let mut cards: Vec<Gpu> = emulated(1024).into_iter().collect();
    if std::env::var("HHALIGN_DEVICE").is_ok_and(|name| name.starts_with("cuda")) {
        cards.push(Device::Auto.gpu().unwrap().unwrap());
    }
    cards
}

fn compute(precision: Precision) -> Compute {
    Compute { precision, ..Compute::default() }
}

fn tf32() -> Compute {
    Compute { tf32: true, ..Compute::default() }
}

fn on_card(
    gpu: &Gpu,
    model: &Gpt,
    packed: &Packed,
    keep: Keep,
    compute: &Compute,
) -> (Vec<f32>, TokenStats, Gradients) {
    let mut pass = GpuPass::new(gpu, model, compute).unwrap();
    let (mut gradients, mut stats) = (pass.zeros().unwrap(), TokenStats::default());
    // A pass before it, so that memory used once is used again.
    let other = super_short();
    pass.forward(&other, keep, None).unwrap();
    pass.backward(&other, &[0.0; 2], &mut gradients).unwrap();
    let logps = pass.forward(packed, keep, Some(&mut stats)).unwrap();
    pass.backward(packed, &dlogps(logps.len()), &mut gradients).unwrap();
    let gradients = pass.download(&gradients).unwrap();
    (logps, stats, gradients)
}

#[test]
fn values_and_every_gradient_equal_the_composed_models() {
    for gpu in cards() {
        for config in [config(1, 1, 8, 37), config(2, 3, 72, 101), config(1, 1, 128, 300)] {
            let (model, sequences) = (model(config.clone()), sequences(config.vocab_size));
            let exact = oracle(&model, &sequences);
            for (share, keep) in
                [(false, Keep::Activations), (true, Keep::Activations), (true, Keep::BlockInputs)]
            {
                let (logps, stats, gradients) =
                    on_card(&gpu, &model, &packed(&sequences, share), keep, &Compute::default());
                let ours: Vec<f64> = logps.iter().copied().map(f64::from).collect();
                let value = distance(&ours, &exact.logps) / max_abs(&exact.logps);
                let (gradient, name) = worst(&gradients, &exact.gradients);
                println!(
                    "{} C {} share {share} {keep:?}: values {value:.1e}, gradients {gradient:.1e} ({name})",
                    gpu.name(),
                    config.n_embd
                );
                assert!(
                    value < 1e-5 && gradient < 5e-5,
                    "{config:?} share {share} {keep:?}: {value} {gradient} {name}"
                );
                assert_eq!(stats.right, exact.stats.right);
                let entropy =
                    |g: &TokenStats| g.entropy.iter().copied().map(f64::from).collect::<Vec<_>>();
                assert!(distance(&entropy(&stats), &entropy(&exact.stats)) < 5e-5);
            }
        }
    }
}

/// TF32 rounds the operands of products to 11 bits. The emulated card does not round: there it is
/// f32 to the bit.
#[test]
fn tf32_stays_near_f32() {
    for gpu in cards() {
        let (model, sequences) = (model(config(2, 3, 72, 101)), sequences(101));
        let (exact, packed) = (oracle(&model, &sequences), packed(&sequences, true));
        let (logps, _, gradients) = on_card(&gpu, &model, &packed, Keep::Activations, &tf32());
        let ours: Vec<f64> = logps.iter().copied().map(f64::from).collect();
        let value = distance(&ours, &exact.logps) / max_abs(&exact.logps);
        let (slope, name) = worst(&gradients, &exact.gradients);
        println!(
            "{} Tf32 C 72 share true: values {value:.1e}, gradients {slope:.1e} ({name})",
            gpu.name()
        );
        assert!(value < 3e-3 && slope < 2e-2, "{value} {slope} {name}");
        if gpu.name().contains("emulated") {
            let (plain, ..) =
                on_card(&gpu, &model, &packed, Keep::Activations, &Compute::default());
            assert_eq!(logps, plain);
        }
    }
}

#[test]
fn kernels_compile_for_every_card_from_the_t4_on() {
    for (storage, architecture) in [
        (Storage::F32, (7, 5)),
        (Storage::F16, (7, 5)),
        (Storage::F32, (8, 0)),
        (Storage::Bf16, (8, 0)),
        (Storage::Bf16, (9, 0)),
    ] {
        match hhalign::compute::gpu::compile_kernels(storage, architecture) {
            Ok(bytes) => assert!(bytes > 10_000, "{storage:?} {architecture:?}: {bytes} bytes"),
            Err(error) if error.got().contains("was not found") => {
                println!("skipped: kernels by NVRTC: {}", error.got());
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn sixteen_bits_stay_near_f32() {
    for gpu in cards() {
        // Heads of 32, 64, 128 and 24 for tensor cores; of 12, which is no multiple of 8, for the
        // kernels without.
        for (n_head, n_embd) in [(2, 64), (1, 64), (1, 128), (3, 72), (4, 48)] {
            let (model, sequences) = (model(config(2, n_head, n_embd, 300)), sequences(300));
            let exact = oracle(&model, &sequences);
            // Scores of one wide head are large, so that their rounding weighs twice, in every
            // kernel.
            let wide = if n_embd == 128 { 2.0 } else { 1.0 };
            for (precision, value_band, gradient_band) in
                [(Precision::Bf16, 0.03, 0.15), (Precision::F16, 0.003, 0.02)]
            {
                let (value_band, gradient_band) = (wide * value_band, wide * gradient_band);
                let ways = [(true, Keep::BlockInputs), (false, Keep::Activations)];
                for &(share, keep) in if n_head == 2 { &ways[..] } else { &ways[..1] } {
                    let packed = packed(&sequences, share);
                    let (logps, _, gradients) =
                        on_card(&gpu, &model, &packed, keep, &compute(precision));
                    let ours: Vec<f64> = logps.iter().copied().map(f64::from).collect();
                    let value = distance(&ours, &exact.logps) / max_abs(&exact.logps);
                    let (gradient, name) = worst(&gradients, &exact.gradients);
                    let case = format!(
                        "{} {precision:?} heads {n_head} C {n_embd} share {share}",
                        gpu.name()
                    );
                    println!("{case}: values {value:.1e}, gradients {gradient:.1e} ({name})");
                    // Neither exact, which would mean that nothing was rounded, nor far off.
                    assert!(
                        value > 1e-7 && value < value_band && gradient < gradient_band,
                        "{case}: {value} {gradient} {name}"
                    );
                }
            }
        }
    }
}

#[test]
fn without_a_driver_the_message_says_what_is_missing() {
    match Device::Cuda(0).gpu() {
        Ok(_) => println!("skipped: a message where no driver is: this machine has a GPU"),
        Err(error) => {
            assert!(
                error.what().contains("GPU") && !error.got().is_empty() && !error.fix().is_empty(),
                "{error}"
            );
            assert!(Device::Cpu.describe().starts_with("CPU"));
            if std::env::var("HHALIGN_DEVICE").is_err() {
                assert!(
                    Device::Auto.gpu().unwrap().is_none()
                        && Device::Auto.describe().starts_with("CPU")
                );
            }
        }
    }
    assert!(Device::from_name("cuda:x").is_err() && Device::from_name("gpu").is_err());
}

#[test]
fn a_constant_upstream_gradient_gives_the_same_gradients() {
    for gpu in cards() {
        let (model, packed) = (model(config(2, 2, 32, 64)), packed(&sequences(64), true));
        let dlogps = dlogps(packed.n_targets());
        let (_, _, twice) = on_card(&gpu, &model, &packed, Keep::Activations, &Compute::default());
        let mut pass = GpuPass::new(&gpu, &model, &Compute::default()).unwrap();
        let mut gradients = pass.zeros().unwrap();
        pass.forward_constant_grad(&packed, Keep::Activations, &dlogps, &mut gradients).unwrap();
        pass.backward(&packed, &dlogps, &mut gradients).unwrap();
        let once = pass.download(&gradients).unwrap();
        assert_eq!(once.values(), twice.values(), "bit for bit, since every sum has its order");
        assert!(
            pass.backward(&packed, &dlogps, &mut gradients).is_err(),
            "there was no forward pass before it"
        );
    }
}

#[test]
fn logits_of_a_chunk_at_a_time_give_the_gradients_of_all_targets() {
    for gpu in cards() {
        // 4,096 targets are a chunk.
        let (model, sequences) = (model(config(1, 1, 8, 37)), long(28, 37));
        let exact = oracle(&model, &sequences);
        let (logps, _, gradients) = on_card(
            &gpu,
            &model,
            &packed(&sequences, true),
            Keep::Activations,
            &Compute::default(),
        );
        assert!(logps.len() > 4096);
        let ours: Vec<f64> = logps.iter().copied().map(f64::from).collect();
        let (gradient, name) = worst(&gradients, &exact.gradients);
        let value = distance(&ours, &exact.logps) / max_abs(&exact.logps);
        println!("{}: values {value:.1e}, gradients {gradient:.1e} ({name})", gpu.name());
        assert!(value < 1e-5 && gradient < 5e-5, "{value} {gradient} {name}");
    }
}

/// What a reward model reads and its gradients, against the CPU's fast path, which tests/it/reward
/// compares with PyTorch.
#[test]
fn ends_of_replies_and_their_gradients_equal_the_cpus() {
    for gpu in cards() {
        let (model, sequences) = (model(config(2, 3, 72, 101)), sequences(101));
        for share in [true, false] {
            let packed = whole(&sequences, share);
            let dlogps = dlogps(packed.n_targets());
            let dends: Vec<f32> =
                (0..packed.n_ends() * 72).map(|i| ((i * 7) % 23) as f32 / 23.0 - 0.5).collect();
            let mut workspace = Workspace::default();
            let mut exact = Gradients::zeros(&model.config);
            let exact_ends = with_weights(&model, Precision::F32, Purpose::Train, |weights| {
                workspace.forward(weights, &packed, Keep::Activations, None)?;
                let ends = workspace.ends(weights, &packed).to_vec();
                workspace.backward_ends(weights, &packed, &dlogps, &dends, &mut exact)?;
                Ok(ends)
            });
            let exact = exact.to_tensors().unwrap();
            for (precision, band) in [(Precision::F32, 2e-5), (Precision::F16, 2e-2)] {
                let mut pass = GpuPass::new(&gpu, &model, &compute(precision)).unwrap();
                let mut gradients = pass.zeros().unwrap();
                pass.forward(&packed, Keep::Activations, None).unwrap();
                let numbers = |x: &[f32]| x.iter().copied().map(f64::from).collect::<Vec<_>>();
                let (ends, exact_ends) =
                    (numbers(&pass.ends().unwrap()), numbers(exact_ends.as_ref().unwrap()));
                let apart = distance(&ends, &exact_ends) / max_abs(&exact_ends);
                pass.backward_ends(&packed, &dlogps, &dends, &mut gradients).unwrap();
                let (gradient, name) = worst(&pass.download(&gradients).unwrap(), &exact);
                println!(
                    "{} {precision:?} share {share}: ends {apart:.1e}, gradients {gradient:.1e} ({name})",
                    gpu.name()
                );
                assert!(
                    apart < band && gradient < band,
                    "{precision:?} share {share}: {apart} {gradient} {name}"
                );
                assert!(pass.backward_ends(&packed, &dlogps, &dends[1..], &mut gradients).is_err());
                // No gradients of the ends are zeros, whatever an earlier pass left.
                let [mut none, mut zeros] = [pass.zeros().unwrap(), pass.zeros().unwrap()];
                pass.forward(&packed, Keep::Activations, None).unwrap();
                pass.backward(&packed, &dlogps, &mut none).unwrap();
                pass.forward(&packed, Keep::Activations, None).unwrap();
                pass.backward_ends(&packed, &dlogps, &vec![0.0; dends.len()], &mut zeros).unwrap();
                let [none, zeros] = [none, zeros].map(|g| pass.download(&g).unwrap());
                assert_eq!(none.values(), zeros.values());
            }
        }
    }
}

#[test]
fn decoding_continues_as_the_whole_sequence_would() {
    for gpu in cards() {
        let model = model(config(2, 2, 64, 100));
        let prompts: Vec<Vec<u32>> = [1, 5, 40, 33].iter().map(|&n| ids(n, n, 100)).collect();
        let more: Vec<Vec<u32>> = (0..4).map(|i| ids(6, 50 + i, 100)).collect();
        let mut decoder = GpuDecoder::new(&gpu, &model, Precision::F32, 4, 60).unwrap();
        prompts.iter().for_each(|p| decoder.push(p).unwrap());
        decoder.read().unwrap();
        let mut logits = vec![decoder.logits().unwrap()];
        for step in 0..6 {
            let last: Vec<u32> = more.iter().map(|m| m[step]).collect();
            decoder.append(&[0, 1, 2, 3], &last).unwrap();
            logits.push(decoder.logits().unwrap());
        }
        for (i, (prompt, more)) in prompts.iter().zip(&more).enumerate() {
            let whole = [prompt.as_slice(), more].concat();
            let input = candle_core::Tensor::new(&whole[..], &candle_core::Device::Cpu)
                .unwrap()
                .unsqueeze(0)
                .unwrap();
            let exact = numbers(&model.logits(&input).unwrap());
            for (step, logits) in logits.iter().enumerate() {
                let ours: Vec<f64> =
                    logits[i * 100..][..100].iter().copied().map(f64::from).collect();
                let at = (prompt.len() - 1 + step) * 100;
                let error = distance(&ours, &exact[at..at + 100]);
                assert!(error < 1e-4, "{} sequence {i} step {step}: {error}", gpu.name());
            }
        }
        // The likeliest token, and a draw at each end of the distribution.
        let last = logits.last().unwrap();
        let best: Vec<u32> = last
            .chunks(100)
            .map(|row| (0..100).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32)
            .collect();
        assert_eq!(decoder.draw(&[0.5; 4], 0.0).unwrap(), best);
        for (i, id) in decoder.draw(&[0.0, 0.25, 0.5, 0.999], 1.0).unwrap().into_iter().enumerate()
        {
            let row = &last[i * 100..][..100];
            let total: f32 = row.iter().map(|x| x.exp()).sum();
            let below: f32 = row[..id as usize].iter().map(|x| x.exp()).sum::<f32>() / total;
            let point = [0.0, 0.25, 0.5, 0.999][i];
            let above = below + row[id as usize].exp() / total;
            assert!(
                below <= point + 1e-4 && point < above + 1e-4,
                "{point} lies outside [{below}, {above}]"
            );
        }
        assert!(decoder.append(&[0], &[100]).is_err() && decoder.append(&[2], &[1]).is_ok());
        // Sequences of another group begin where those of the last one were.
        decoder.clear();
        decoder.push(&prompts[1]).unwrap();
        decoder.read().unwrap();
        let again = decoder.logits().unwrap();
        let before = &logits[0][100..200];
        assert!(again.iter().zip(before).all(|(a, b)| (a - b).abs() < 1e-5), "{}", gpu.name());
    }
}

#[test]
fn memory_is_what_the_plan_said() {
    let config = config(3, 2, 48, 300);
    let (model, packed) = (model(config.clone()), packed(&sequences(300), true));
    for (precision, storage) in [(Precision::F32, Storage::F32), (Precision::Bf16, Storage::Bf16)] {
        for keep in [Keep::Activations, Keep::BlockInputs] {
            let Some(gpu) = emulated(1024) else { return };
            let mut pass = GpuPass::new(&gpu, &model, &compute(precision)).unwrap();
            let mut gradients = pass.zeros().unwrap();
            let n = pass.forward(&packed, keep, None).unwrap().len();
            pass.backward(&packed, &dlogps(n), &mut gradients).unwrap();
            let taken = gpu.memory_taken().unwrap() as f64;
            let plan =
                Memory::plan(&config, packed.n_rows(), n, storage, keep == Keep::BlockInputs);
            let expected = (plan.total() - plan.context - plan.moments) as f64;
            println!("{storage:?} {keep:?}: {taken} bytes taken, {expected} planned");
            assert!(
                taken <= expected && taken > 0.9 * expected,
                "{taken} bytes taken, {expected} planned"
            );
        }
    }
}

#[test]
fn full_memory_is_an_error_that_says_what_to_lower() {
    let Some(gpu) = emulated(3) else { return };
    let (model, sequences) = (model(config(2, 2, 64, 300)), sequences(300));
    let mut pass = GpuPass::new(&gpu, &model, &Compute::default()).unwrap();
    let small = super_short();
    let before = pass.forward(&small, Keep::Activations, None).unwrap();
    let error = error(pass.forward(&packed(&sequences, false), Keep::Activations, None));
    assert!(
        error.what().contains("memory is full") && error.fix().contains("micro_batch_size"),
        "{error}"
    );
    drop(pass);
    assert_eq!(gpu.memory_taken().unwrap(), 0, "all of it was given back");
    let mut again = GpuPass::new(&gpu, &model, &Compute::default()).unwrap();
    assert_eq!(again.forward(&small, Keep::Activations, None).unwrap(), before, "the card goes on");
}
