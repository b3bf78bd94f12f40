//! Single operations of the fast path beside the composed ones: `cargo bench`.

use criterion::Criterion;
use hhalign::compute::Precision;
use hhalign::compute::cpu::{Decoder, Keep, Purpose, Workspace, with_weights};
use hhalign::compute::gradients::Gradients;
use hhalign::compute::optim::{AdamW, AdamWConfig};
use hhalign::data::packed::Packed;
use hhalign::model::ops::Dropout;
use hhalign::model::{Gpt, GptConfig};

const LENGTH: usize = 256;

fn model() -> Gpt {
    let sizes = GptConfig {
        vocab_size: 4096,
        block_size: LENGTH,
        n_layer: 1,
        n_head: 6,
        n_embd: 384,
        dropout: 0.0,
        layer_norm_epsilon: 1e-5,
    };
    Gpt::new(sizes, 0).expect("sizes that fit")
}

fn ids(n: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919) % 4096) as u32).collect()
}

/// Four sequences of 256 rows, all of which are predicted.
fn packed() -> Packed {
    let mut packed = Packed::default();
    (0..4).for_each(|_| packed.push(&ids(1), &[&ids(LENGTH)]).expect("a sequence"));
    packed
}

fn passes(c: &mut Criterion) {
    let (model, packed) = (model(), packed());
    for precision in [Precision::F32, Precision::Bf16] {
        let done = with_weights(&model, precision, Purpose::Train, |weights| {
            let (mut workspace, mut gradients) =
                (Workspace::default(), Gradients::zeros(&model.config));
            c.bench_function(&format!("one block and the head, forward, {precision:?}"), |b| {
                b.iter(|| {
                    workspace.forward(weights, &packed, Keep::Activations, None).expect("a pass")
                });
            });
            let dlogps = vec![1e-3; packed.n_targets()];
            workspace.forward(weights, &packed, Keep::Activations, None)?;
            c.bench_function(&format!("one block and the head, backward, {precision:?}"), |b| {
                b.iter_batched_ref(
                    || workspace_after_forward(weights, &packed),
                    |w| w.backward(weights, &packed, &dlogps, &mut gradients),
                    criterion::BatchSize::LargeInput,
                );
            });
            Ok(())
        });
        if let Err(error) = done {
            println!("skipped: {error}");
        }
    }
    let input = candle_core::Tensor::new(ids(4 * LENGTH), &candle_core::Device::Cpu).expect("ids");
    let input = input.reshape((4, LENGTH)).expect("four rows");
    c.bench_function("one block and the head, forward, composed", |b| {
        b.iter(|| {
            model.head(&model.hidden(&input, &mut Dropout::off()).expect("a pass")).expect("logits")
        });
    });
}

fn workspace_after_forward(
    weights: &hhalign::compute::cpu::Weights<'_>,
    packed: &Packed,
) -> Workspace {
    let mut workspace = Workspace::default();
    workspace.forward(weights, packed, Keep::Activations, None).expect("a pass");
    workspace
}

fn decoding_and_optimiser(c: &mut Criterion) {
    let model = model();
    with_weights(&model, Precision::F32, Purpose::Decode, |weights| {
        let mut decoder = Decoder::new(weights)?;
        let prompts: Vec<usize> =
            (0..8).map(|_| decoder.start(&ids(32)).map(|s| s.0)).collect::<Result<_, _>>()?;
        let mut left = LENGTH - 32;
        c.bench_function("one token of eight sequences, one block and the head", |b| {
            b.iter(|| {
                if left == 0 {
                    decoder = Decoder::new(weights).expect("weights for decoding");
                    (0..8).for_each(|_| drop(decoder.start(&ids(32)).expect("a prompt")));
                    left = LENGTH - 32;
                }
                left -= 1;
                decoder.append(&prompts, &ids(8)).expect("room for a token")
            });
        });
        Ok(())
    })
    .expect("an f32 model");
    let (mut optimizer, gradients) =
        (AdamW::new(AdamWConfig::default(), &model.config), Gradients::zeros(&model.config));
    c.bench_function("AdamW, 3.4M parameters", |b| {
        b.iter(|| optimizer.step(&model, &gradients, 1.0, 1e-4).expect("a step"));
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    passes(&mut criterion);
    decoding_and_optimiser(&mut criterion);
    criterion.final_summary();
}
