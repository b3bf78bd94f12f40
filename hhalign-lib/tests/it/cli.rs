//! The program `hhalign`: what `run` hands to the kernel, what wrong calls say, and the other
//! commands at their smallest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hhalign::model::checkpoint::save_model;
use hhalign::notebook::options::RunOptions;
use serde_json::Value;

use crate::common::Folder;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hhalign");

/// The program without the variables of whoever tests.
fn program(path: impl AsRef<Path>, words: &[&str]) -> Command {
    let mut command = Command::new(path.as_ref());
    command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn call(words: &[&str]) -> (Option<i32>, String, String) {
    said(&program(PROGRAM, words).output().unwrap())
}

/// A repository whose runner of notebooks prints what it was given, and ends with status 7.
struct Repository(PathBuf);

impl Repository {
    fn new(name: &str) -> Self {
        // On the file system of the program, which is linked to.
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&root);
        for folder in ["scripts/jupyter", ".venv/bin", "notebooks", "target/release"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::hard_link(PROGRAM, root.join("target/release/hhalign")).unwrap();
        let runner = "echo \"$@\"\nenv | grep ^HHALIGN_ | sort\nexit 7\n";
        fs::write(root.join("scripts/jupyter/run_notebook.py"), runner).unwrap();
        symlink("/bin/sh", root.join(".venv/bin/python")).unwrap();
        Self(root.canonicalize().unwrap())
    }

    /// `hhalign run` in the folder `notebooks`.
    fn run(&self, words: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let words = [&["run"], words].concat();
        let mut command = program(self.0.join("target/release/hhalign"), &words);
        command.current_dir(self.0.join("notebooks")).envs(variables.iter().copied());
        said(&command.output().unwrap())
    }

    fn options(&self, results: &str) -> RunOptions {
        RunOptions::read(self.0.join(results).join("options.json")).unwrap()
    }
}

#[test]
fn a_run_hands_its_options_to_the_kernel() {
    let repository = Repository::new("cli-run");
    let root = repository.0.display().to_string();
    fs::write(repository.0.join("notebooks/own.ipynb"), "{}").unwrap();
    let words = [
        "--beta=0.3",
        "--seed",
        "7",
        "--seed",
        "8",
        "--data",
        "own.ipynb",
        "--notebook",
        "own.ipynb",
        "--out",
        "../here",
        "--in-place",
    ];
    let variables =
        [("HHALIGN_BETA", "0.2"), ("HHALIGN_DPO_STEPS", "9"), ("HHALIGN_SFT_STEPS", "")];
    let (status, out, err) = repository.run(&words, &variables);
    assert_eq!(status, Some(7), "{out}{err}");

    let options = repository.options("here");
    assert_eq!(
        (options.beta, options.dpo_steps, options.sft_steps, options.seed),
        (0.3, 9, 1700, 8)
    );
    assert_eq!(options.data, Some(repository.0.join("notebooks/own.ipynb")));
    assert_eq!(options.results, repository.0.join("here"));
    assert_eq!(options.toxicity, repository.0.join(".cache/toxicity"));
    let lines = [
        format!("{root}/notebooks/own.ipynb --out ../here --in-place"),
        format!("HHALIGN_OPTIONS={root}/here/options.json"),
        format!("HHALIGN_RESULTS={root}/here"),
        format!("HHALIGN_TOXICITY_DIR={root}/.cache/toxicity"),
        "HHALIGN_BETA=0.3".into(),
        "HHALIGN_SEED=8".into(),
        "HHALIGN_DPO_STEPS=9".into(),
    ];
    for line in lines {
        assert!(out.lines().any(|l| l == line), "{line} is not in\n{out}");
    }
    assert!(!out.contains("HHALIGN_PRESET"), "what was not given is no variable: {out}");
}

#[test]
fn a_run_without_options_uses_the_repository() {
    let repository = Repository::new("cli-plain");
    let root = repository.0.display().to_string();
    let runs = repository.0.join("results/runs/sft");
    fs::create_dir_all(&runs).unwrap();
    let (status, out, err) = repository.run(&[], &[]);
    assert_eq!(status, Some(7), "{out}{err}");
    assert!(
        out.starts_with(&format!("{root}/notebooks/01_pipeline.ipynb --out {root}/results\n")),
        "{out}"
    );
    assert!(runs.exists());
    let usual = RunOptions {
        results: repository.0.join("results"),
        toxicity: repository.0.join(".cache/toxicity"),
        ..RunOptions::default()
    };
    assert_eq!(repository.options("results"), usual);

    let (status, ..) = repository.run(&["--fresh"], &[("HHALIGN_DEVICE", "cpu")]);
    assert_eq!(status, Some(7));
    assert!(!runs.exists() && repository.0.join("results").exists());

    let (status, _, err) = {
        fs::remove_file(repository.0.join(".venv/bin/python")).unwrap();
        repository.run(&[], &[])
    };
    assert_eq!(status, Some(1));
    assert!(err.contains("./scripts/setup"), "{err}");
}

#[test]
fn wrong_calls_say_what_and_got_and_fix_with_status_2() {
    let wrong: [(&[&str], [&str; 4]); 19] = [
        (
            &["run", "--bta", "0.3"],
            ["hhalign run: ", "no such option", "--bta", "did you mean --beta?"],
        ),
        (&["rum"], ["hhalign: ", "no such command", "rum", "did you mean run?"]),
        (&["run", "now"], ["hhalign run: ", "one word too many", "now", "--help"]),
        (
            &["run", "--beta"],
            ["hhalign run: --beta: ", "a value is needed", "nothing", "--beta <X>"],
        ),
        (
            &["run", "--beta="],
            ["hhalign run: --beta: ", "a value is needed", "nothing", "--beta <X>"],
        ),
        (
            &["run", "--beta", "-1"],
            ["hhalign run: --beta: ", "beta must be positive", "-1", "0.1 is usual"],
        ),
        (
            &["run", "--seed", "x"],
            ["hhalign run: --seed: ", "a whole number is needed", "x", "such as 0"],
        ),
        (
            &["run", "--sft-steps=0"],
            ["hhalign run: --sft-steps: ", "at least 1 is needed", "0", "leave it out"],
        ),
        (
            &["run", "--pairs", "5"],
            ["hhalign run: --pairs: ", "too few pairs", "5 pairs", "at least 100"],
        ),
        (
            &["run", "--preset", "big"],
            ["hhalign run: --preset: ", "no such preset", "big", "toy, small or gpt2"],
        ),
        (
            &["run", "--device", "tpu"],
            ["hhalign run: --device: ", "no such device", "tpu", "cuda:N"],
        ),
        (
            &["run", "--data", "hub:nice"],
            ["hhalign run: --data: ", "no such subset", "nice", "harmless-base"],
        ),
        (
            &["run", "--data", "none"],
            ["hhalign run: --data: ", "no such file or folder", "none", "check the path"],
        ),
        (
            &["run", "--gguf", ""],
            ["hhalign run: --gguf: ", "a value is needed", "nothing", "--gguf <FILE>"],
        ),
        (
            &["run", "--out", "Cargo.toml"],
            ["hhalign run: --out: ", "this is a file", "Cargo.toml", "another name"],
        ),
        (
            &["run", "--notebook", "x.ipynb"],
            ["hhalign run: --notebook: ", "no such file", "x.ipynb", "check the path"],
        ),
        (&["export", "ppo", "x"], ["hhalign export: ", "no such value", "ppo", "sft, dpo"]),
        (
            &["bench", "sft", "1", "2"],
            ["hhalign bench sft: ", "something is missing", "<D>", "--help"],
        ),
        (
            &["bench", "sft", "1", "1", "8", "16", "1", "8", "1", "f31"],
            ["hhalign bench sft: ", "no such word", "f31", "bf16"],
        ),
    ];
    for (words, parts) in wrong {
        let (status, out, err) = call(words);
        assert_eq!((status, out.as_str()), (Some(2), ""), "{words:?}: {err}");
        let lines: Vec<&str> = err.lines().collect();
        assert!(lines.len() == 3 && lines[0].starts_with(parts[0]), "{words:?}: {err}");
        assert!(lines[0].contains(parts[1]), "{words:?}: {err}");
        assert!(lines[1].starts_with("  got: ") && lines[1].contains(parts[2]), "{words:?}: {err}");
        assert!(lines[2].starts_with("  fix: ") && lines[2].contains(parts[3]), "{words:?}: {err}");
    }
}

#[test]
fn a_wrong_variable_is_named_unless_an_option_precedes_it() {
    let repository = Repository::new("cli-variables");
    let (status, _, err) = repository.run(&["--seed", "1"], &[("HHALIGN_BETA", "much")]);
    assert_eq!(status, Some(2));
    assert!(
        err.starts_with("hhalign run: HHALIGN_BETA: a number is needed\n  got: much\n"),
        "{err}"
    );
    let (status, _, err) = repository.run(&["--beta", "0.2"], &[("HHALIGN_BETA", "much")]);
    assert_eq!(status, Some(7), "{err}");
    assert_eq!(repository.options("results").beta, 0.2);
}

#[test]
fn help_is_printed_for_every_command() {
    let (status, out, _) = call(&["--help"]);
    assert_eq!(status, Some(0));
    for name in ["run", "report", "export", "evaluate", "reward", "bench"] {
        assert!(out.lines().any(|l| l.trim_start().starts_with(name)), "{name} is not in\n{out}");
        let (status, help, _) = call(&[name, "--help"]);
        assert!(status == Some(0) && help.contains(&format!("Usage: hhalign {name}")), "{help}");
        assert!(help.lines().all(|l| l.chars().count() <= 100), "{help}");
    }
    assert!(!out.contains("  options"), "a command for the authors is hidden: {out}");
    let (status, out, err) = call(&[]);
    assert!(status == Some(2) && out.is_empty() && err.contains("Usage: hhalign"), "{err}");
    assert!(call(&["--version"]).1.starts_with("hhalign 0."));
}

#[test]
fn the_document_of_the_options_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPTIONS.md");
    let (_, made, _) = call(&["options"]);
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == made, "renew it: target/release/hhalign options >docs/OPTIONS.md");
}

#[test]
fn a_report_of_nothing_names_the_folders_that_have_results() {
    let folder = Folder::new("cli-report");
    folder.write("deeper/results_summary.json", "{}");
    let place = folder.0.display().to_string();
    let (status, _, err) = call(&["report", &place]);
    assert_eq!(status, Some(1));
    assert!(err.contains(&format!("./scripts/report {place}/deeper")), "{err}");
    assert!(err.contains(&format!("./scripts/run --out {place}")), "{err}");
    // A summary that cannot be read fails without a page.
    assert_eq!(call(&["report", &format!("{place}/deeper")]).0, Some(1));
    assert!(!folder.join("deeper/report.html").exists());
}

#[test]
fn a_training_of_a_run_is_exported_with_its_options() {
    let folder = Folder::new("cli-export");
    let results = folder.0.display().to_string();
    let target = |name: &str| folder.join(name).display().to_string();
    let (status, _, err) = call(&["export", "sft", &target("sft"), "--results", &results]);
    assert!(status == Some(1) && err.contains("no options.json"), "{err}");

    let options =
        RunOptions { pairs: Some(120), seed: 3, beta: 0.4, sft_steps: 11, ..RunOptions::default() };
    options.write(folder.join(RunOptions::FILE)).unwrap();
    let split = options.dataset().unwrap().split(0.1).unwrap();
    let tokenizer = options.tokenizer(&split.train).unwrap();
    let model = options.model(&tokenizer).unwrap();
    save_model(&model, &tokenizer, folder.join("best_sft_model")).unwrap();
    for training in ["sft", "dpo"] {
        let (status, out, err) =
            call(&["export", training, &target(training), "--results", &results]);
        assert_eq!(status, Some(0), "{out}{err}");
        let manifest = fs::read(folder.join(training).join("export.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let recipe = if training == "sft" { options.sft().train } else { options.dpo().train };
        let settings = &manifest["settings"];
        assert_eq!(settings["max_steps"], recipe.max_steps, "{training}");
        assert_eq!(settings["learning_rate"], recipe.learning_rate, "{training}");
        assert_eq!(settings["seed"], 3);
        assert_eq!(manifest["pairs"]["train.jsonl"], split.train.len());
        assert_eq!(manifest["weights"]["model"], model.hash().unwrap());
        assert_eq!(
            settings.get("beta").and_then(Value::as_f64),
            (training == "dpo").then_some(0.4)
        );
    }
    let (status, _, err) = call(&["export", "sft", &target("sft"), "--results", &results]);
    assert!(status == Some(1) && err.contains("not empty"), "{err}");
}

#[test]
fn a_bench_prints_one_line_of_json() {
    let words = ["bench", "sft", "1", "1", "8", "16", "2", "8", "1", "cpu", "micro", "1"];
    let (status, out, err) = call(&words);
    assert_eq!(status, Some(0), "{err}");
    let line: Value = serde_json::from_str(&out).unwrap();
    assert!(line["work"] == "sft" && line["tok_s"].as_f64().unwrap() > 0.0, "{out}");
}
