//! The plan of the library: layers as docs/DESIGN.md lists them, no import upwards, no cycle of
//! files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Top-level modules at most.
const MAX_MODULES: usize = 14;

/// Layers at most.
const MAX_LAYERS: usize = 11;

/// Lines in a file at most.
const MAX_LINES: usize = 450;

struct Source {
    /// Relative to `src`, with slashes.
    file: String,
    /// The names from the crate's root: `["train", "reward", "mixture"]`.
    path: Vec<String>,
    text: String,
    /// The text without comments and unit tests.
    code: String,
}

impl Source {
    fn top(&self) -> &str {
        &self.path[0]
    }

    fn is_folder(&self) -> bool {
        self.file.ends_with("/mod.rs")
    }

    /// The module that `super` names.
    fn parent(&self) -> &[String] {
        &self.path[..self.path.len() - 1]
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files of the library except `lib.rs`, which only lists modules.
fn sources() -> Vec<Source> {
    let (mut folders, mut found) = (vec![root()], vec![]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && path != root().join("lib.rs") {
                found.push(source(&path));
            }
        }
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    assert!(found.len() > 100, "the sources were not found");
    found
}

fn source(path: &Path) -> Source {
    let relative = path.strip_prefix(root()).unwrap();
    let file = relative.to_str().unwrap().replace('\\', "/");
    let names = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let text = fs::read_to_string(path).unwrap();
    let tested = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = tested.lines().map(without_comment).collect::<Vec<_>>().join("\n");
    Source { path: names.split('/').map(String::from).collect(), file, text, code }
}

/// A line up to its comment; a `//` after a quote may be part of a string, and stays.
fn without_comment(line: &str) -> &str {
    match line.find("//") {
        Some(at) if !line[..at].contains('"') => &line[..at],
        _ => line,
    }
}

/// The layer of each module, from the bottom up: rows `| 3 | `stats`, `data` | ... |` of the design
/// document's table.
fn layers() -> BTreeMap<String, usize> {
    let design = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DESIGN.md");
    let mut found = BTreeMap::new();
    for line in fs::read_to_string(design).unwrap().lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, modules, ..] = cells.as_slice() else { continue };
        let Ok(layer) = number.parse::<usize>() else { continue };
        for name in
            modules.split(',').map(|name| name.trim().trim_matches('`').trim_end_matches('/'))
        {
            assert!(found.insert(name.to_string(), layer).is_none(), "{name} has two layers");
        }
    }
    found
}

/// Paths that begin with `crate::`, `super::` or `self::`, lists taken apart: `crate::{a, b::{c,
/// d}}` is three paths.
fn imports(code: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = vec![];
    for mark in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(mark) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|c| !is_name(c) && c != ':') {
                spread(&code[at..], "", &mut found);
            }
        }
    }
    found
}

/// Reads one path and the lists in it; returns what follows.
fn spread<'a>(text: &'a str, prefix: &str, found: &mut Vec<String>) -> &'a str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '*'))
        .unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let path = format!("{prefix}{}", name.trim_end_matches(':'));
    if !(name.ends_with("::") && rest.starts_with('{')) {
        found.push(path.trim_end_matches("::self").to_string());
        return rest;
    }
    rest = rest[1..].trim_start();
    while !rest.is_empty() && !rest.starts_with('}') {
        rest = spread(rest, &format!("{path}::"), found);
        let next = rest.find([',', '}']).unwrap_or(rest.len());
        rest = rest[next..].trim_start_matches(',').trim_start();
    }
    rest.strip_prefix('}').unwrap_or(rest)
}

/// The files that a path leads to: the file of its last module, or the one that an item is
/// re-exported from.
struct Plan<'s> {
    sources: &'s [Source],
    files: BTreeMap<&'s [String], usize>,
}

impl<'s> Plan<'s> {
    fn new(sources: &'s [Source]) -> Self {
        Self {
            files: sources.iter().enumerate().map(|(i, s)| (s.path.as_slice(), i)).collect(),
            sources,
        }
    }

    /// The absolute path of an import in a file.
    fn absolute(&self, of: &Source, import: &str) -> Vec<String> {
        let mut names: Vec<String> = vec![];
        for (i, name) in import.split("::").enumerate() {
            match name {
                "crate" => names.clear(),
                "self" if i == 0 => names = of.path.clone(),
                "super" if i == 0 => names = of.parent().to_vec(),
                "super" => drop(names.pop()),
                _ => names.push(name.to_string()),
            }
        }
        names
    }

    fn file_of(&self, path: &[String], depth: usize) -> Option<usize> {
        let (len, at) =
            (1..=path.len()).rev().find_map(|n| self.files.get(&path[..n]).map(|at| (n, *at)))?;
        let item = path.get(len)?;
        if depth == 0 {
            return Some(at);
        }
        let source = &self.sources[at];
        let reexport =
            source.code.lines().filter(|l| l.trim_start().starts_with("pub")).find_map(|line| {
                let (_, used) = line.split_once(" use ")?;
                let mut found = vec![];
                spread(used, "", &mut found);
                found.into_iter().find(|path| path.rsplit("::").next() == Some(item))
            });
        let Some(reexport) = reexport else { return Some(at) };
        let first = reexport.split("::").next().unwrap();
        let reexport = if ["crate", "super", "self"].contains(&first) {
            reexport
        } else {
            format!("self::{reexport}")
        };
        self.file_of(&self.absolute(source, &reexport), depth - 1)
    }

    /// The file behind an import; a path that ends at a module is that module's file.
    fn target(&self, of: &Source, import: &str) -> Option<usize> {
        let path = self.absolute(of, import);
        self.files.get(path.as_slice()).copied().or_else(|| self.file_of(&path, 4))
    }

    /// Which files a file uses. A folder's `mod.rs` puts its own files together, which is no use of
    /// them.
    fn uses(&self) -> Vec<BTreeSet<usize>> {
        let of = |i: usize| {
            let source = &self.sources[i];
            let own =
                |to: &usize| source.is_folder() && self.sources[*to].path.starts_with(&source.path);
            imports(&source.code)
                .iter()
                .filter_map(|import| self.target(source, import))
                .filter(|to| *to != i && !own(to))
                .collect()
        };
        (0..self.sources.len()).map(of).collect()
    }
}

/// All that can be reached from a node over one arrow or more.
fn reach(arrows: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(node) = open.pop() {
        open.extend(arrows[node].iter().filter(|next| seen.insert(**next)));
    }
    seen
}

#[test]
fn imports_are_read_out_of_every_form() {
    assert_eq!(
        imports("use crate::a::B;\nlet x = super::files::read(p);"),
        ["crate::a::B", "super::files::read"]
    );
    assert_eq!(
        imports("pub use crate::{a::{self, C}, d};"),
        ["crate::a", "crate::a::C", "crate::d"]
    );
    assert_eq!(
        imports("use super::{\n    a,\n    b::{C as D, E},\n};"),
        ["super::a", "super::b::C", "super::b::E"]
    );
    assert_eq!(without_comment("    // use crate::train;"), "    ");
    assert_eq!(without_comment("let u = \"http://x\";"), "let u = \"http://x\";");
}

#[test]
fn a_cycle_is_found_through_a_reexport() {
    let of = |file: &str, code: &str| Source {
        file: file.into(),
        path: file
            .trim_end_matches(".rs")
            .trim_end_matches("/mod")
            .split('/')
            .map(String::from)
            .collect(),
        text: code.into(),
        code: code.into(),
    };
    let files = [
        of("a/mod.rs", "pub use self::b::B;\nuse crate::c::C;"),
        of("a/b.rs", "use crate::c::C;"),
        of("c.rs", "use crate::a::B;"),
    ];
    let uses = Plan::new(&files).uses();
    assert_eq!(uses, [BTreeSet::from([2]), BTreeSet::from([2]), BTreeSet::from([1])]);
    assert!(reach(&uses, 1).contains(&1) && !reach(&uses, 0).contains(&0));
}

#[test]
fn every_module_is_in_the_design_documents_table_and_nothing_else_is() {
    let declared: BTreeSet<String> = layers().into_keys().collect();
    let found: BTreeSet<String> = sources().iter().map(|s| s.top().to_string()).collect();
    assert_eq!(found, declared, "left: src, right: the table of layers in docs/DESIGN.md");
    let n_layers = layers().into_values().collect::<BTreeSet<_>>().len();
    println!("{} modules in {n_layers} layers", found.len());
    assert!(found.len() <= MAX_MODULES && n_layers <= MAX_LAYERS);
}

#[test]
fn no_import_points_upward_or_to_a_neighbour() {
    let (layers, sources) = (layers(), sources());
    let mut wrong = vec![];
    for source in &sources {
        for import in imports(&source.code) {
            let path = Plan::new(&sources).absolute(source, &import);
            // Macros and items of the root are in no module.
            let Some(other) = path.first().filter(|top| layers.contains_key(*top)) else {
                continue;
            };
            if other != source.top() && layers[other] >= layers[source.top()] {
                wrong.push(format!("{}: {import}", source.file));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point upward or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_cycle() {
    let sources = sources();
    let uses = Plan::new(&sources).uses();
    println!(
        "{} arrows between {} files",
        uses.iter().map(BTreeSet::len).sum::<usize>(),
        sources.len()
    );
    let mut cycles = BTreeSet::new();
    for file in 0..sources.len() {
        let there = reach(&uses, file);
        if there.contains(&file) {
            cycles.insert(
                there.into_iter().filter(|f| reach(&uses, *f).contains(&file)).collect::<Vec<_>>(),
            );
        }
    }
    let mut text = String::new();
    for cycle in &cycles {
        text += "cycle:\n";
        for file in cycle {
            let to: Vec<&str> = uses[*file]
                .iter()
                .filter(|f| cycle.contains(f))
                .map(|f| sources[*f].file.as_str())
                .collect();
            text += &format!("  {} -> {}\n", sources[*file].file, to.join(", "));
        }
    }
    assert!(cycles.is_empty(), "{text}");
}

fn assert_never(module: &str, words: &[&str]) {
    for source in sources().iter().filter(|s| s.path.join("::").starts_with(module)) {
        for word in words {
            assert!(!source.code.contains(word), "{}: {module} must not know {word}", source.file);
        }
    }
}

#[test]
fn losses_know_no_model_no_batch_and_no_scores() {
    assert_never("loss", &["Gpt", "TokenizedPairs", "data::batch", "infer::"]);
}

#[test]
fn plots_know_no_tensor() {
    assert_never("show", &["candle_core", "candle_nn", "Tensor"]);
}

#[test]
fn only_the_notebook_module_knows_the_notebook_kernel() {
    for source in sources().iter().filter(|s| !["notebook", "prelude"].contains(&s.top())) {
        assert!(!source.code.to_lowercase().contains("evcxr"), "{} knows evcxr", source.file);
    }
}

#[test]
fn no_source_file_is_longer_than_four_hundred_and_fifty_lines() {
    let long: Vec<String> = sources()
        .iter()
        .map(|s| (s.text.lines().count(), &s.file))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, file)| format!("{file}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

/// Where one of these words is in code, unit tests and the files below `but` left out.
fn places(words: &[&str], but: &[&str]) -> Vec<String> {
    let mut found = vec![];
    for source in sources().iter().filter(|s| !but.iter().any(|b| s.file.starts_with(b))) {
        for (number, line) in source.code.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", source.file, number + 1, line.trim()));
            }
        }
    }
    found
}

/// A second copy of these would drift from the first: the choice of the device, the training loop,
/// the check of β, and the order of a block's parameters.
#[test]
fn what_must_exist_once_exists_once() {
    let device = [
        "GpuPass",
        "GpuDecoder",
        "gpu::Trainer",
        "with_weights(",
        "Workspace",
        ".gpu()",
        "compute.composed {",
    ];
    let counts = [
        ("uses of the device outside the module compute", places(&device, &["compute/"]), 0),
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
