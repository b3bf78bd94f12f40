//! The options of a run: from variables and from a file, their checks, and what they decide.

use std::path::{Path, PathBuf};

use hhalign::base::error::Error;
use hhalign::compute::{Compute, Device, Precision};
use hhalign::model::Preset;
use hhalign::notebook::options::RunOptions;

use crate::common::{Folder, error};

/// The options of some variables.
fn variables(given: &[(&str, &str)]) -> Result<RunOptions, Error> {
    let value = |name: &str| given.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
    RunOptions::from_lookup(value)
}

#[test]
fn nothing_given_is_the_default() {
    let options = variables(&[]).unwrap();
    assert_eq!(options, RunOptions::default());
    assert_eq!(
        (options.preset, options.device, options.precision),
        (Preset::Toy, Device::Auto, None)
    );
    assert_eq!(
        (options.seed, options.sft_steps, options.dpo_steps, options.beta),
        (0, 1700, 80, 0.1)
    );
    assert_eq!(
        (options.data, options.init, options.pairs, options.block_size),
        (None, None, None, None)
    );
    assert_eq!((options.toxic_bert, options.gguf), (None, None));
    assert_eq!(options.results, Path::new("../results"));
    assert_eq!(options.toxicity, Path::new("../.cache/toxicity"));
}

#[test]
fn an_empty_variable_counts_as_not_given() {
    let empty =
        ["HHALIGN_DATA", "HHALIGN_SEED", "HHALIGN_BETA", "HHALIGN_RESULTS", "HHALIGN_DEVICE"];
    let options = variables(&empty.map(|name| (name, ""))).unwrap();
    assert_eq!(options, RunOptions::default());
}

#[test]
fn each_variable_sets_its_field() {
    let folder = Folder::new("options-variables");
    let (data, gguf) = (folder.write("data.jsonl", "{}"), folder.write("model.gguf", "GGUF"));
    let place = folder.0.display().to_string();
    let options = variables(&[
        ("HHALIGN_DATA", &data.display().to_string()),
        ("HHALIGN_PRESET", "small"),
        ("HHALIGN_INIT", &place),
        ("HHALIGN_BLOCK_SIZE", "64"),
        ("HHALIGN_SEED", "18446744073709551615"),
        ("HHALIGN_SFT_STEPS", "1"),
        ("HHALIGN_DPO_STEPS", "2"),
        ("HHALIGN_BETA", "0.30000000000000004"),
        ("HHALIGN_PAIRS", "100"),
        ("HHALIGN_DEVICE", "cuda:1"),
        ("HHALIGN_PRECISION", "bf16"),
        ("HHALIGN_RESULTS", "out"),
        ("HHALIGN_TOXICITY_DIR", "tox"),
        ("HHALIGN_TOXIC_BERT", "hub"),
        ("HHALIGN_GGUF", &gguf.display().to_string()),
    ])
    .unwrap();
    let expected = RunOptions {
        data: Some(data),
        preset: Preset::Small,
        init: Some(folder.0.clone()),
        block_size: Some(64),
        seed: u64::MAX,
        sft_steps: 1,
        dpo_steps: 2,
        beta: 0.1 + 0.2,
        pairs: Some(100),
        device: Device::Cuda(1),
        precision: Some(Precision::Bf16),
        results: "out".into(),
        toxicity: "tox".into(),
        toxic_bert: Some("hub:unitary/toxic-bert".into()),
        gguf: Some(gguf),
    };
    assert_eq!(options, expected);

    // The file of a run keeps every bit of it.
    let file = folder.join("options.json");
    options.write(&file).unwrap();
    assert_eq!(RunOptions::read(&file).unwrap(), options);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("\"preset\": \"small\"") && text.contains("\"device\": \"cuda:1\""),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<RunOptions>(&text).unwrap(), options);
}

#[test]
fn names_of_places_on_the_hub_are_kept() {
    let options = variables(&[
        ("HHALIGN_DATA", "hub:harmless-base@v1"),
        ("HHALIGN_INIT", "hub:openai-community/gpt2"),
        ("HHALIGN_TOXIC_BERT", "hub:unitary/toxic-bert@main"),
    ])
    .unwrap();
    assert_eq!(options.data, Some("hub:harmless-base@v1".into()));
    assert_eq!(options.init, Some("hub:openai-community/gpt2".into()));
    assert_eq!(options.toxic_bert, Some("hub:unitary/toxic-bert@main".into()));
}

#[test]
fn a_path_that_exists_becomes_absolute() {
    let options = variables(&[("HHALIGN_DATA", "Cargo.toml")]).unwrap();
    assert_eq!(options.data, Some(std::env::current_dir().unwrap().join("Cargo.toml")));
}

#[test]
fn each_wrong_value_names_its_variable_and_what_it_takes() {
    let wrong = [
        ("HHALIGN_DATA", "no/such/place", "no such file or folder"),
        ("HHALIGN_DATA", "hub:harmless", "harmless-base"),
        ("HHALIGN_DATA", "hub:harmless-base@../x", "a revision"),
        ("HHALIGN_PRESET", "large", "toy, small or gpt2"),
        ("HHALIGN_INIT", "no/such/model", "no such model"),
        ("HHALIGN_INIT", "hub:a/b/c", "OWNER/NAME"),
        ("HHALIGN_BLOCK_SIZE", "7", "at least 8"),
        ("HHALIGN_SEED", "-1", "a whole number"),
        ("HHALIGN_SEED", "18446744073709551616", "a whole number"),
        ("HHALIGN_SFT_STEPS", "0", "at least 1"),
        ("HHALIGN_SFT_STEPS", "1e3", "a whole number"),
        ("HHALIGN_DPO_STEPS", "0", "at least 1"),
        ("HHALIGN_BETA", "-1", "beta must be positive"),
        ("HHALIGN_BETA", "0", "beta must be positive"),
        ("HHALIGN_BETA", "inf", "beta must be positive"),
        ("HHALIGN_BETA", "nan", "beta must be positive"),
        ("HHALIGN_BETA", "0,1", "a number is needed"),
        ("HHALIGN_PAIRS", "99", "at least 100"),
        ("HHALIGN_DEVICE", "gpu", "cuda:N"),
        ("HHALIGN_PRECISION", "fp16", "f32, bf16, f16 or auto"),
        ("HHALIGN_RESULTS", "Cargo.toml", "this is a file"),
        ("HHALIGN_TOXIC_BERT", "no/such/folder", "no such folder"),
        ("HHALIGN_GGUF", "tests", "no such file"),
    ];
    for (name, value, takes) in wrong {
        let error = error(variables(&[(name, value)]));
        assert!(error.what().starts_with(&format!("{name}: ")), "{error}");
        assert!(!error.got().is_empty(), "{error}");
        assert!(error.to_string().contains(takes), "{error}");
        assert!(!error.fix().is_empty(), "{error}");
    }
}

#[test]
fn a_file_is_checked_like_options() {
    let folder = Folder::new("options-file");
    let read = |text: &str| RunOptions::read(folder.write("options.json", text));
    let some = read(r#"{ "beta": 0.3, "pairs": null }"#).unwrap();
    assert_eq!(some, RunOptions { beta: 0.3, ..RunOptions::default() });
    for (text, says) in [
        (r#"{ "beta": -1 }"#, "beta: beta must be positive"),
        (r#"{ "sft_steps": 0 }"#, "sft_steps: at least 1"),
        (r#"{ "sft_steps": "many" }"#, "sft_steps: a whole number"),
        (r#"{ "betta": 1 }"#, "no such field"),
        (r#"[1]"#, "not the file of"),
        ("", "not the file of"),
    ] {
        let error = error(read(text));
        assert!(
            error.what().contains("options.json: ") && error.to_string().contains(says),
            "{error}"
        );
    }
    assert!(error(RunOptions::read(folder.join("none.json"))).what().contains("none.json"));
}

/// In a process of its own, whose variables no other test sees.
#[test]
fn a_kernel_reads_the_file_of_its_run_before_variables() {
    const PART: &str = "HHALIGN_TEST_PART";
    if std::env::var_os(PART).is_some() {
        let read = RunOptions::from_env();
        return println!("{}", read.map_or_else(|e| e.to_string(), |o| format!("beta {}", o.beta)));
    }
    let folder = Folder::new("options-kernel");
    let file = folder.join("options.json");
    RunOptions { beta: 0.4, ..RunOptions::default() }.write(&file).unwrap();
    let say = |variables: &[(&str, &Path)]| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "options::a_kernel_reads_the_file_of_its_run_before_variables";
        child.args(["--exact", name, "--nocapture"]).env(PART, "options");
        child.env("HHALIGN_BETA", "0.2").envs(variables.iter().copied());
        String::from_utf8(child.output().unwrap().stdout).unwrap()
    };
    assert!(say(&[]).contains("beta 0.2"));
    assert!(say(&[("HHALIGN_OPTIONS", Path::new(""))]).contains("beta 0.2"));
    assert!(say(&[("HHALIGN_OPTIONS", &file)]).contains("beta 0.4"));
    let missing = say(&[("HHALIGN_OPTIONS", &folder.join("none.json"))]);
    assert!(missing.contains("HHALIGN_OPTIONS: ") && missing.contains("none.json"), "{missing}");
}

#[test]
fn the_device_reaches_trainings_and_evaluation() {
    let options = RunOptions { device: Device::Cpu, ..RunOptions::default() };
    let devices = [
        options.sft().train.compute.device,
        options.dpo().train.compute.device,
        options.reward().train.compute.device,
        options.evaluation().compute.device,
        options.compute().unwrap().device,
    ];
    assert_eq!(devices, [Device::Cpu; 5]);
    assert_eq!(options.compute().unwrap().precision, Precision::F32);
    assert_eq!(RunOptions::default().sft().train.compute, Compute::default());
}

#[test]
fn the_table_names_options_that_exist() {
    let options = RunOptions { block_size: Some(64), ..RunOptions::default() };
    let table = options.table().unwrap().to_string();
    for option in [
        "--data",
        "--pairs",
        "--preset",
        "--block-size",
        "--seed",
        "--sft-steps",
        "--dpo-steps",
        "--beta",
    ] {
        assert!(table.contains(option), "{table}");
    }
    let init: PathBuf = "elsewhere/weights".into();
    let table = RunOptions { init: Some(init), ..options }.table().unwrap().to_string();
    assert!(table.contains("--init") && !table.contains("--preset"), "{table}");
}
