//! The order of the house: no import points upward, and no room grows too large.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the ground up; modules of one line stand on one floor and may use each other.
const FLOORS: &[&[&str]] = &[
    &["error"],
    &["rng", "files", "parallel", "secret", "table", "view", "device"],
    &["hub"],
    &["stats"],
    &["data"],
    &["tokenize"],
    &["nn"],
    &["model"],
    &["gradients"],
    &["fused"],
    &["optim"],
    &["gpu"],
    &["batch"],
    &["checkpoint"],
    &["loss"],
    &["executor"],
    &["score"],
    &["sample"],
    &["kl"],
    &["train"],
    &["export"],
    &["reward"],
    &["eval"],
    &["options"],
    &["plot"],
    &["report"],
    &["lesson"],
    &["pages"],
    &["server"],
    &["live"],
    &["lab"],
    &["display"],
    &["prelude"],
];

/// Lines in a file at most.
const MAX_LINES: usize = 450;

struct Source {
    path: PathBuf,
    module: String,
    text: String,
    /// The text without comments, and with them the examples in them.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], vec![]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
                let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_string();
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().map(without_comment).collect::<Vec<_>>().join("\n");
                found.push(Source { path, module, text, code });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// A line up to its comment; a `//` behind a quote or a colon may be part of a string, and stays.
fn without_comment(line: &str) -> &str {
    match line.find("//") {
        Some(at) if !line[..at].contains('"') => &line[..at],
        _ => line,
    }
}

/// The place of a module; `lib.rs` only lists the others.
fn floor(module: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&module)).unwrap_or_else(|| {
        panic!("the module {module} has no floor yet: give it one in FLOORS (tests/architecture.rs) and in the design document")
    })
}

/// The modules that code names behind `crate::`, in lists as well: `use crate::{batch, nn::{self}}`.
fn imports(code: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = vec![];
    for (at, mark) in code.match_indices("crate::") {
        let rest = &code[at + mark.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.push(name(rest));
            continue;
        };
        let (mut depth, mut start) = (0, true);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                _ if start && depth == 0 && !c.is_whitespace() => {
                    names.push(name(&list[i..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn imports_are_read_out_of_every_form() {
    assert_eq!(imports("use crate::error::Error;\nlet x = crate::files::read(p);"), ["error", "files"]);
    assert_eq!(imports("use crate::{batch::{Side, Batch}, nn, rng::stream};"), ["batch", "nn", "rng"]);
    assert_eq!(without_comment("    // use crate::train;"), "    ");
    assert_eq!(without_comment("let u = \"http://x\";"), "let u = \"http://x\";");
}

#[test]
fn no_import_points_upward() {
    let mut wrong = vec![];
    for source in sources().iter().filter(|s| s.module != "lib") {
        let own = floor(&source.module);
        for other in imports(&source.code) {
            // Macros and items of the root have no floor of their own; a module is a file or a folder.
            if other != source.module && (floor(&other) > own || (floor(&other) == own && FLOORS[own].len() == 1)) {
                wrong.push(format!("{}: {} uses {other}", source.path.display(), source.module));
            }
        }
    }
    assert!(wrong.is_empty(), "imports point upward:\n{}", wrong.join("\n"));
}

fn assert_never(module: &str, words: &[&str]) {
    for source in sources().iter().filter(|s| s.module == module) {
        for word in words {
            assert!(!source.code.contains(word), "{}: {module} must not know {word}", source.path.display());
        }
    }
}

#[test]
fn losses_know_no_model_no_batch_and_no_scores() {
    assert_never("loss", &["crate::model", "crate::batch", "crate::score", "Gpt", "TokenizedPairs"]);
    for source in sources().iter().filter(|s| s.module == "loss") {
        for other in imports(&source.code) {
            assert!(!["model", "batch", "score"].contains(&other.as_str()), "{}: {other}", source.path.display());
        }
    }
}

#[test]
fn plots_know_no_tensor() {
    assert_never("plot", &["candle_core", "candle_nn", "Tensor"]);
}

#[test]
fn only_display_and_what_stands_on_it_know_the_notebook_kernel() {
    let display = floor("display");
    for source in sources().iter().filter(|s| s.module != "lib" && floor(&s.module) < display) {
        let code = source.code.to_lowercase();
        assert!(!code.contains("evcxr"), "{}: nothing below display knows evcxr", source.path.display());
    }
}

#[test]
fn no_source_file_is_longer_than_four_hundred_and_fifty_lines() {
    let long: Vec<String> = sources()
        .iter()
        .map(|s| (s.text.lines().count(), &s.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

#[test]
fn every_module_of_the_library_has_a_floor() {
    for source in sources().iter().filter(|s| s.module != "lib") {
        floor(&source.module);
    }
}

/// Where one of these words stands in code, test modules left out.
fn places(words: &[&str], but: &[&str]) -> Vec<String> {
    let mut found = vec![];
    for source in sources().iter().filter(|s| !but.contains(&s.module.as_str())) {
        let code = source.code.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", source.path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

/// What a second copy of would drift from the first: the choice of the device, the training loop, the check of β, and the
/// order of a block's parameters.
#[test]
fn what_must_exist_once_exists_once() {
    let device =
        ["GpuPass", "GpuDecoder", "gpu::Trainer", "with_weights(", "Workspace", ".gpu()", "compute.composed {"];
    let below = ["executor", "fused", "gpu", "device"];
    let counts = [
        ("uses of the device outside the executor's module", places(&device, &below), 0),
        ("functions that validate beta", places(&["beta > 0.0"], &[]), 1),
        ("training loops", places(&["= cosine_schedule("], &[]), 1),
        ("orders of a block's parameters", places(&["gate.try_map(f)"], &[]), 1),
        ("lists of a block's parameter names", places(&["\"attn.c_attn\""], &[]), 1),
        ("slices of twelve", places(&["as_chunks::<12>", "12 * layer", "[Vec<f32>; 12]"], &[]), 0),
    ];
    for (what, found, expected) in &counts {
        println!("{what}: {}\n  {}", found.len(), found.join("\n  "));
        assert_eq!(found.len(), *expected, "{what}:\n{}", found.join("\n"));
    }
}
