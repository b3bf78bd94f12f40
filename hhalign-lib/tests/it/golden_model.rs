//! Logits, log-probabilities, loss and every gradient against PyTorch and transformers
//! (scripts/golden/make_gpt2.py).

use hhalign::data::batch::Batch;
use hhalign::infer::score;
use hhalign::model::Gpt;
use hhalign::model::ops::Dropout;

use crate::common::{Tensors, distance, named_gradients, numbers};
use crate::fixtures::{golden_batch, golden_model, golden_tensors, gradient_error, number};

const MODELS: [&str; 2] = ["gpt2_l2", "gpt2_l12"];

fn load(name: &str) -> (Gpt, Batch, Tensors) {
    let expected = golden_tensors(&format!("{name}_expected.safetensors"));
    let batch = golden_batch(&expected["input_ids"], &expected["completion_mask"]);
    (golden_model(name), batch, expected)
}

#[test]
fn the_library_builds_the_same_ids_and_mask() {
    for name in MODELS {
        let (_, batch, expected) = load(name);
        // The fixture pads to one length; a batch of ours is as long as its longest row.
        let t = batch.input_ids.dim(1).unwrap();
        for (ours, theirs) in
            [(&batch.input_ids, "input_ids"), (&batch.completion_mask, "completion_mask")]
        {
            assert_eq!(
                numbers(ours),
                numbers(&expected[theirs].narrow(1, 0, t).unwrap()),
                "{name}: {theirs}"
            );
        }
        assert_eq!(
            batch.n_reply_tokens() as f64,
            numbers(&expected["completion_mask"]).iter().sum::<f64>()
        );
    }
}

#[test]
fn logits_equal_pytorchs() {
    for name in MODELS {
        let (model, batch, expected) = load(name);
        let ours = numbers(&model.logits(&batch.input_ids).unwrap());
        let error = distance(&ours, &numbers(&expected["logits"]));
        println!("{name}: logits differ by {error:.1e} at most");
        assert!(error < 1e-4, "{name}: {error}");
    }
}

#[test]
fn token_log_probabilities_equal_pytorchs() {
    for name in MODELS {
        let (model, batch, expected) = load(name);
        let ours = numbers(&score::token_logps(&model, &batch, &mut Dropout::off()).unwrap());
        let all = numbers(&expected["token_logps"]);
        let mask = &expected["completion_mask"];
        let counts = numbers(&mask.narrow(1, 1, mask.dim(1).unwrap() - 1).unwrap());
        let wanted: Vec<f64> =
            all.into_iter().zip(counts).filter(|(_, m)| *m == 1.0).map(|(l, _)| l).collect();
        let error = distance(&ours, &wanted);
        println!("{name}: token log-probabilities differ by {error:.1e} at most");
        assert!(error < 1e-4, "{name}: {error}");
    }
}

#[test]
fn loss_and_every_gradient_equal_pytorchs() {
    for name in MODELS {
        let (model, batch, expected) = load(name);
        let logps = score::token_logps(&model, &batch, &mut Dropout::off()).unwrap();
        let loss = (logps.sum_all().unwrap() * (-1.0 / batch.n_reply_tokens() as f64)).unwrap();
        let loss_error = (number(&loss) - number(&expected["sft_loss"])).abs();
        let gradients = named_gradients(&model, loss.backward().unwrap());
        let (gradient, worst) = gradient_error(&gradients, &expected);
        // Clipping far above the norm changes nothing and returns it.
        let norm = hhalign::compute::gradients::Gradients::from_tensors(&model.config, &gradients)
            .unwrap()
            .norm()
            .unwrap();
        let norm_error = (norm / number(&expected["grad_norm"]) - 1.0).abs();
        println!(
            "{name}: loss {loss_error:.1e}, gradients {gradient:.1e} ({worst}), norm {norm_error:.1e}"
        );
        assert!(loss_error < 1e-5, "{name}: loss {loss_error}");
        assert!(gradient < 1e-4, "{name}: gradient of {worst}: {gradient}");
        assert!(norm_error < 1e-5, "{name}: norm {norm_error}");
    }
}
