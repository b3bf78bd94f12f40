//! The kinds and causes of errors, each provoked by a real failure.

use std::error::Error as _;
use std::io::Write as _;
use std::time::Duration;

use hhalign::base::error::{Error, ErrorKind};
use hhalign::base::hub::{Hub, Repo};
use hhalign::base::parallel;
use hhalign::base::secret::ApiKey;
use hhalign::compute::gpu::{Gpu, GpuPass};
use hhalign::compute::{Compute, Precision};
use hhalign::data::Dataset;
use hhalign::data::tokenize::Tokenizer;
use hhalign::eval::metrics::fluency::Fluency;
use hhalign::eval::preferences::judge::chat::ChatConfig;
use hhalign::eval::preferences::judge::{ChatJudge, Judge, Question};
use hhalign::eval::summary::Summary;
use hhalign::infer::sample::Sampler;
use hhalign::loss::PreferenceLoss;
use hhalign::model::checkpoint::{read_metadata, read_tensors};
use hhalign::model::{Gpt, GptConfig};
use hhalign::train::Sft;

use crate::common::{Folder, emulated, error, texts, tiny, tokenized};

/// The cause of a type in the chain of an error.
fn cause<E: std::error::Error + 'static>(error: &Error) -> Option<&E> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// An address where no server listens.
fn closed() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_missing_file_is_a_file_error_caused_by_the_operating_system() {
    let folder = Folder::new("errors-file");
    let failures = [
        error(Dataset::read(folder.join("none.jsonl"))),
        error(Tokenizer::load(folder.join("none.json"))),
        error(read_tensors(&folder.join("none.safetensors")).map(drop)),
        error(Fluency::load(folder.join("none.gguf")).map(drop)),
        error(Summary::read(&folder.0)),
    ];
    for failure in failures {
        assert_eq!(failure.kind(), ErrorKind::File, "{failure}");
        let io = cause::<std::io::Error>(&failure).unwrap_or_else(|| panic!("no cause: {failure}"));
        assert_eq!(io.kind(), std::io::ErrorKind::NotFound, "{failure}");
        assert_eq!(failure.got(), io.to_string(), "the message shows the cause once");
    }
}

#[test]
fn a_wrong_content_is_a_data_error_with_the_parser_as_its_cause() {
    let folder = Folder::new("errors-data");
    let broken = folder.write("broken", b"no tensors, no text \xff");
    let tensors = error(read_tensors(&broken).map(drop));
    assert!(cause::<candle_core::Error>(&tensors).is_some(), "{tensors}");
    let summary = folder.write("results_summary.json", "{");
    let summary = error(Summary::read(summary.parent().unwrap()));
    assert!(cause::<serde_json::Error>(&summary).is_some(), "{summary}");
    let row = folder.write("row.jsonl", "{\"chosen\": 1}\n");
    let mut rows = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    rows.write_all(&b"{\"chosen\": \"a\", \"rejected\": \"b\"}\n".repeat(1000)).unwrap();
    let rows = rows.finish().unwrap();
    let cut = error(Dataset::read(folder.write("cut.jsonl.gz", &rows[..rows.len() - 12])));
    let io = cause::<std::io::Error>(&cut).unwrap_or_else(|| panic!("no cause: {cut}"));
    assert_eq!(io.kind(), std::io::ErrorKind::UnexpectedEof);
    let others = [
        error(read_metadata(&broken).map(drop)),
        error(Tokenizer::load(&broken)),
        error(Fluency::load(&broken).map(drop)),
        error(Dataset::read(row)),
        tensors,
        summary,
        cut,
    ];
    for failure in others {
        assert_eq!(failure.kind(), ErrorKind::Data, "{failure}");
    }
}

#[test]
fn a_server_that_is_not_reached_is_a_network_error_caused_by_the_request() {
    let cache = Folder::new("errors-network");
    let hub = Hub { endpoint: closed(), retries: 0, progress: false, ..Hub::new(&cache.0) };
    let unreachable = error(hub.file(&Repo::model("owner/small"), "config.json"));
    let judge = ChatJudge::new(ChatConfig {
        key: Some(ApiKey::new("sk-secret-key")),
        retries: 0,
        first_wait: Duration::from_millis(1),
        url: closed(),
        model: "a-model".into(),
        ..ChatConfig::default()
    })
    .unwrap();
    let question = Question { prompt: "\n\nHuman: Hi\n\nAssistant:", a: " Hello", b: " Go away" };
    let unanswered = error(judge.judge(&[question]));
    for failure in [unreachable, unanswered] {
        assert_eq!(failure.kind(), ErrorKind::Network, "{failure}");
        assert!(cause::<ureq::Error>(&failure).is_some(), "no cause: {failure}");
    }
    let offline = Hub { offline: true, ..hub };
    let offline = error(offline.file(&Repo::model("owner/small"), "config.json"));
    assert_eq!(offline.kind(), ErrorKind::Network, "{offline}");
    let name = error(Hub::new(&cache.0).file(&Repo::model("a/b/c"), "config.json"));
    assert_eq!(name.kind(), ErrorKind::Argument, "{name}");
}

#[test]
fn a_device_that_is_missing_or_full_has_a_kind_of_its_own() {
    let missing = error(Gpu::open(99).map(drop));
    assert_eq!(missing.kind(), ErrorKind::Device, "{missing}");
    let compute = Compute { precision: Precision::F16, ..Compute::default() };
    let mut model = Gpt::new(tiny(1, 0.0), 0).unwrap();
    let pairs = tokenized(&texts(1, 8));
    let sft = Sft { train: hhalign::train::TrainConfig { compute, ..crate::common::short(1) } };
    let f16 = error(sft.fit(&mut model, &pairs, &pairs).map(drop));
    assert_eq!(f16.kind(), ErrorKind::Device, "{f16}");
    let Some(gpu) = emulated(1) else { return };
    let config = GptConfig { n_embd: 64, vocab_size: 8000, ..tiny(2, 0.0) };
    let model = Gpt::new(config, 0).unwrap();
    let full = error(GpuPass::new(&gpu, &model, &Compute::default()).map(drop));
    assert_eq!(full.kind(), ErrorKind::Memory, "{full}");
}

#[test]
fn numbers_that_are_not_finite_are_a_numeric_error() {
    let model = Gpt::new(tiny(1, 0.0), 0).unwrap();
    let nan = model.named_parameters().into_iter().map(|(n, t)| (n, (t * f64::NAN).unwrap()));
    let mut broken = Gpt::from_parameters(model.config.clone(), nan.collect(), true).unwrap();
    let drawn = error(Sampler::default().ids(&broken, vec![vec![1, 2, 3]], None));
    assert_eq!(drawn.kind(), ErrorKind::Numeric, "{drawn}");
    let pairs = tokenized(&texts(1, 8));
    let trained =
        error(Sft { train: crate::common::short(2) }.fit(&mut broken, &pairs, &pairs).map(drop));
    assert_eq!(trained.kind(), ErrorKind::Numeric, "{trained}");
}

#[test]
fn a_panic_is_a_bug_and_a_wrong_setting_an_argument() {
    let panic = error(parallel::map(&[1, 2], |i| if *i == 2 { panic!("two") } else { Ok(*i) }));
    assert_eq!((panic.kind(), panic.got()), (ErrorKind::Bug, "two"));
    let beta = error(PreferenceLoss::Sigmoid.check(-0.1));
    assert_eq!((beta.kind(), beta.source().is_none()), (ErrorKind::Argument, true));
    let vocabulary = error(Tokenizer::train(&texts(1, 4), 3));
    assert_eq!(vocabulary.kind(), ErrorKind::Argument);
}
