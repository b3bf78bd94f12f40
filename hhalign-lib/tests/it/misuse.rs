//! Wrong use is told of, and loses nothing.

use hhalign::base::parallel;
use hhalign::compute::Precision;
use hhalign::compute::cpu::{Decoder, Keep, Purpose, Workspace, with_weights};
use hhalign::compute::gradients::Gradients;
use hhalign::compute::optim::{AdamW, AdamWConfig};
use hhalign::data::Dataset;
use hhalign::data::packed::Packed;
use hhalign::eval::preferences::annotation::{PAIRWISE, write_annotation_files};
use hhalign::eval::preferences::winrate::read_preferences;
use hhalign::infer::sample::{Reply, Sampler};
use hhalign::infer::score::reference_logps;
use hhalign::model::{Gpt, GptConfig};
use hhalign::notebook::options::RunOptions;
use hhalign::train::{Sft, TrainConfig};

use crate::common::{Folder, error, short, texts, tiny, tokenized};

fn model() -> Gpt {
    Gpt::new(tiny(1, 0.0), 5).unwrap()
}

fn pack(reply: &[u32]) -> Packed {
    let mut packed = Packed::default();
    packed.push(&[1, 2], &[reply]).unwrap();
    packed
}

#[test]
fn a_backward_pass_wants_its_forward_pass_and_weights_lent_for_it() {
    let model = model();
    let (packed, mut workspace) = (pack(&[3, 4]), Workspace::default());
    let score = with_weights(&model, Precision::Auto, Purpose::Score, |w| {
        Workspace::default().forward(w, &packed, Keep::Activations, None)
    });
    assert!(error(score).to_string().contains("Purpose::Train"));
    with_weights(&model, Precision::F32, Purpose::Train, |w| {
        let mut gradients = Gradients::zeros(&model.config);
        let mut other = Gradients::zeros(&tiny(2, 0.0));
        workspace.forward(w, &packed, Keep::Activations, None)?;
        assert!(
            error(workspace.backward(w, &packed, &[0.1; 2], &mut other))
                .to_string()
                .contains("another model")
        );
        assert!(
            workspace.backward(w, &packed, &[0.1], &mut gradients).is_err(),
            "a gradient is missing"
        );
        assert!(
            workspace.backward(w, &pack(&[3, 5]), &[0.1; 2], &mut gradients).is_err(),
            "another pack"
        );
        workspace.forward(w, &packed, Keep::Activations, None)?;
        workspace.backward(w, &packed, &[0.1; 2], &mut gradients)?;
        assert!(workspace.backward(w, &packed, &[0.1; 2], &mut gradients).is_err(), "twice");
        workspace.forward(w, &packed, Keep::Nothing, None)?;
        assert!(
            workspace.backward(w, &packed, &[0.1; 2], &mut gradients).is_err(),
            "nothing was kept"
        );
        workspace.forward_constant_grad(
            w,
            &packed,
            Keep::Activations,
            None,
            &[0.1; 2],
            &mut gradients,
        )?;
        assert!(
            workspace.backward(w, &packed, &[0.2; 2], &mut gradients).is_err(),
            "another upstream gradient"
        );
        assert!(
            workspace.forward(w, &Packed::default(), Keep::Activations, None).is_err(),
            "no sequence"
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_decoder_takes_each_sequence_once() {
    let model = model();
    with_weights(&model, Precision::F32, Purpose::Decode, |w| {
        let mut decoder = Decoder::new(w)?;
        let (first, _) = decoder.start(&[1, 2])?;
        for (numbers, ids) in
            [(&[first, first][..], &[3, 4][..]), (&[7], &[3]), (&[first], &[3, 4])]
        {
            assert!(decoder.append(numbers, ids).is_err(), "{numbers:?} {ids:?}");
        }
        assert!(decoder.append(&[], &[])?.is_empty());
        decoder.append(&[first], &[3]).map(drop)
    })
    .unwrap();
}

#[test]
fn an_optimiser_takes_gradients_of_its_own_model() {
    let model = model();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model.config);
    let wider = GptConfig { n_embd: 32, ..model.config.clone() };
    assert!(optimizer.step(&model, &Gradients::zeros(&wider), 1.0, 0.1).is_err());
    let mut other = AdamW::new(AdamWConfig::default(), &tiny(2, 0.0));
    let wrong = error(other.step(&model, &Gradients::zeros(&model.config), 1.0, 0.1));
    assert!(wrong.to_string().contains("another model"), "{wrong}");
}

#[test]
fn a_panic_of_work_is_an_error_with_any_number_of_threads() {
    for items in [&[1][..], &[1, 2, 3]] {
        let result = parallel::map(items, |i| if *i == 1 { panic!("one") } else { Ok(*i) });
        assert!(error(result).to_string().contains("one"));
    }
}

#[test]
fn settings_that_cannot_work_are_refused_before_anything_is_trained() {
    let with = |name: &'static str, value: &'static str| {
        RunOptions::from_lookup(move |n| (n == name).then(|| value.into()))
    };
    for (name, value) in [
        ("HHALIGN_SFT_STEPS", "0"),
        ("HHALIGN_DPO_STEPS", "0"),
        ("HHALIGN_BETA", "-1"),
        ("HHALIGN_BETA", "inf"),
    ] {
        assert!(error(with(name, value)).to_string().contains(name));
    }
    assert!(error(with("HHALIGN_PAIRS", "3")).to_string().contains("at least 100"));
    assert!(Dataset::embedded(0, usize::MAX).is_err());
    let wrong = [
        AdamWConfig { weight_decay: f64::NAN, ..AdamWConfig::default() },
        AdamWConfig { beta1: 1.0, ..AdamWConfig::default() },
        AdamWConfig { beta2: 1.0, ..AdamWConfig::default() },
    ];
    for adamw in wrong {
        assert!(TrainConfig { adamw, ..TrainConfig::default() }.check().is_err());
    }
    assert!(GptConfig { layer_norm_epsilon: f64::NAN, ..tiny(1, 0.0) }.check().is_err());
    let pairs = tokenized(&texts(1, 20));
    let none = Sft { train: short(2) }.fit(&mut model(), &pairs, &pairs.head(0));
    assert!(error(none).to_string().contains("0 held-out pairs"));
}

#[test]
fn numbers_that_are_not_numbers_are_not_passed_on() {
    let broken = model();
    let nan = broken
        .named_parameters()
        .iter()
        .map(|(n, t)| (n.clone(), (t * f64::NAN).unwrap()))
        .collect();
    let mut broken = Gpt::from_parameters(broken.config.clone(), nan, true).unwrap();
    let drawn = Sampler::default().ids(&broken, vec![vec![1, 2, 3]], None);
    assert!(error(drawn).to_string().contains("no numbers"));
    let pairs = tokenized(&texts(1, 20));
    let run = Sft { train: short(2) }.fit(&mut broken, &pairs, &pairs.head(4));
    assert!(error(run).to_string().contains("not finite"));
}

#[test]
fn a_cache_knows_the_pairs_and_the_heads() {
    let (folder, pairs) = (Folder::new("cache-keys"), tokenized(&texts(1, 20)));
    assert_ne!(pairs.hash, pairs.head(5).hash);
    let two = model();
    let four = Gpt::from_parameters(
        GptConfig { n_head: 4, ..two.config.clone() },
        two.named_parameters().clone(),
        true,
    )
    .unwrap();
    assert_ne!(two.hash().unwrap(), four.hash().unwrap());
    for reference in [&two, &four] {
        assert!(!reference_logps(reference, &pairs, Some(&folder.0)).unwrap().from_cache);
        assert!(reference_logps(reference, &pairs, Some(&folder.0)).unwrap().from_cache);
    }
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_back_is_followed_once() {
    let folder = Folder::new("link-loop");
    Dataset::embedded(1, 30).unwrap().write_jsonl(folder.join("pairs.jsonl")).unwrap();
    std::os::unix::fs::symlink(&folder.0, folder.join("self")).unwrap();
    assert_eq!(Dataset::read(&folder.0).unwrap().audit.rows_read(), 30);
}

#[test]
fn annotations_that_somebody_has_begun_stay_beside_those_of_another_run() {
    let folder = Folder::new("annotations-kept");
    let reply = |text: &str| vec![Reply { text: text.into(), ids: vec![], ended: true }];
    let prompts = ["Hi".to_string()];
    let write = |second: &str| {
        let (first, second) = (reply("one"), reply(second));
        write_annotation_files(
            folder.join("annotations"),
            &prompts,
            ("SFT", &first),
            ("DPO", &second),
            0,
        )
        .unwrap()
    };
    let place = write("two");
    assert!(place.ends_with("annotations"));
    assert_eq!(write("three"), place, "nobody has begun: the files are written anew");
    let file = std::fs::read_to_string(place.join(PAIRWISE)).unwrap();
    let begun = file.replace("\"\"", "A").trim_end().to_string();
    let begun = if begun.ends_with(',') { format!("{begun}A\n") } else { format!("{begun}\n") };
    std::fs::write(place.join(PAIRWISE), &begun).unwrap();
    assert_eq!(write("three"), place, "the same replies: the file stays");
    let other = write("four");
    assert!(other.ends_with("annotations-2"), "{}", other.display());
    assert_eq!(std::fs::read_to_string(place.join(PAIRWISE)).unwrap(), begun);
    assert_eq!(read_preferences(&other, "DPO").unwrap().open, 1);
    assert_eq!(read_preferences(&place, "DPO").unwrap().open, 0);
}

#[test]
fn a_long_reply_leaves_the_prompt_half_of_the_block() {
    let model = model();
    let sampler = Sampler { temperature: 0.0, max_new_tokens: usize::MAX, ..Sampler::default() };
    let block = model.config.block_size;
    let prompt = |n: usize| (0..n).map(|i| (i % 50) as u32).collect::<Vec<_>>();
    let drawn = sampler.ids(&model, vec![prompt(10), prompt(block)], None).unwrap();
    assert_eq!((drawn[0].len(), drawn[1].len()), (block - 10, block / 2));
}
