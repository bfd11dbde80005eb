//! What the tree promises and a test can check by reading it: which part knows which, what pure parts leave out, who prints, and that
//! the README's map is the tree's.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod cycles;
mod modules;
mod pure;
mod syntax;
mod tokens;
mod versions;

use modules::Modules;
use proc_macro2::TokenStream;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};
use syntax::Kind;

/// Folders with our own Rust sources.
const SOURCES: [&str; 7] = ["proto", "registry", "peerd", "p2pctl", "tests", "benches", "build.rs"];
/// Lines of a file; one that grows past this wants to become a folder.
const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read_source(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

/// Roots of the four crates, library and program.
fn roots() -> Vec<String> {
    let files = CRATES.iter().flat_map(|(_, folder)| ["lib", "main"].map(|name| format!("{folder}/{name}.rs")));
    files.filter(|file| root().join(file).exists()).collect()
}

/// A Rust source, parsed.
struct Source {
    text: String,
    /// Without what only tests compile.
    product: syn::File,
    /// What only tests compile.
    tests: TokenStream,
}

impl Source {
    fn parse(path: &str, text: String) -> Self {
        let (product, tests) = syntax::split(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { text, product, tests }
    }

    fn tokens(&self) -> TokenStream {
        self.text.parse().unwrap()
    }
}

/// Every Rust source, by its path from the root.
fn sources() -> BTreeMap<String, Source> {
    let mut found = BTreeMap::new();
    let mut waiting: Vec<PathBuf> = SOURCES.iter().map(|path| root().join(path)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting
                .extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("target")));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            let source = Source::parse(&name, fs::read_to_string(&path).unwrap());
            found.insert(name, source);
        }
    }
    assert!(found.len() > 50, "{:?}", found.keys());
    found
}

/// Files that only tests compile: those of test targets and benchmarks, and modules of the product behind `#[cfg(test)]`.
fn is_test(path: &str) -> bool {
    static IN_PRODUCT: LazyLock<BTreeSet<String>> =
        LazyLock::new(|| roots().iter().flat_map(|root| Modules::read(root, &read_source).test_files).collect());
    path.starts_with("tests/") || path.contains("/tests/") || IN_PRODUCT.contains(path)
}

/// Files of the four crates that the product compiles.
fn is_product(path: &str) -> bool {
    !is_test(path) && CRATES.iter().any(|(_, folder)| path.starts_with(&format!("{folder}/")))
}

/// Sources of the product whose path begins with one of these.
fn below<'a>(sources: &'a BTreeMap<String, Source>, paths: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a Source)> {
    for path in paths {
        assert!(sources.keys().any(|source| source.starts_with(path)), "{path} is in a list here and not in the tree");
    }
    let chosen = sources.iter().filter(|(source, _)| paths.iter().any(|path| source.starts_with(path)) && !is_test(source));
    chosen.map(|(path, source)| (path.as_str(), source))
}

#[test]
fn crates_know_only_what_the_arrows_say() {
    // The contract knows none of the others. The registry and the peer do not know each other; the command line knows all.
    let arrows = [
        ("Cargo.toml", [].as_slice()),
        ("registry/Cargo.toml", &["p2pdi"]),
        ("peerd/Cargo.toml", &["p2pdi"]),
        ("p2pctl/Cargo.toml", &["p2pdi", "peerd", "registry"]),
    ];
    for (manifest, expected) in arrows {
        let text = read(manifest);
        let table = text.lines().skip_while(|line| *line != "[dependencies]").skip(1).take_while(|line| !line.starts_with('['));
        let named: BTreeSet<_> = table.filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
        let ours: Vec<_> = ["p2pctl", "p2pdi", "peerd", "registry"].into_iter().filter(|name| named.contains(name)).collect();
        assert_eq!(ours, expected, "{manifest}");
    }
}

/// The parts of `peerd` in their order: each may name those before it, never those after it. `node` wires them.
const PEERD_PARTS: [&str; 19] = [
    // Who this peer is, and the folder that remembers it.
    "identity",
    // Channels to other peers, admission of calls from them.
    "connections",
    // What the peer has.
    "documents",
    // Whom it knows.
    "session",
    "overlay",
    "discovery",
    "config",
    // What arrives; the mesh delivers to it.
    "inbox",
    "mesh",
    "topology",
    // Who has a document, and how it moves.
    "holders",
    "transfer",
    // What the peer says.
    "messages",
    // How it is reached.
    "rpc",
    "http",
    "node",
    "peer",
    // Of the program, not the library.
    "progress",
    "flags",
];
/// Arrows against the order that are still there; an entry that is gone from the code fails too.
const PEERD_WRONG_WAY: [(&str, &str); 0] = [];

#[test]
fn parts_of_the_peer_know_only_those_before_them() {
    let place = |name: &str| PEERD_PARTS.iter().position(|part| *part == name);
    let mut wrong = BTreeSet::new();
    for root in ["peerd/src/lib.rs", "peerd/src/main.rs"] {
        let modules = Modules::read(root, &read_source);
        let part = |path: &str| path.strip_prefix("peerd/src/").unwrap().split(['/', '.']).next().unwrap().to_owned();
        for path in modules.files().keys().filter(|path| **path != root) {
            assert!(place(&part(path)).is_some(), "{path}: its part has no place in PEERD_PARTS");
        }
        for (path, line, other) in modules.parts().into_iter().filter(|(path, ..)| *path != root) {
            let at =
                place(&other).unwrap_or_else(|| panic!("{path}:{line} names crate::{other}, which has no place in PEERD_PARTS"));
            if Some(at) > place(&part(path)) {
                wrong.insert((part(path), other));
            }
        }
    }
    let known: BTreeSet<_> = PEERD_WRONG_WAY.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    assert_eq!(wrong, known, "arrows against the order of the parts");
}

/// Who may write to standard output and error: the printer of the command line, the programs' own main for the line that says where a
/// server listens and for why it cannot, and the log.
const PRINTING: [&str; 4] = ["p2pctl/src/printer.rs", "registry/src/main.rs", "peerd/src/main.rs", "proto/telemetry.rs"];

#[test]
fn only_the_printer_prints() {
    let sources = sources();
    for (path, source) in below(&sources, &["proto/", "registry/src/", "peerd/src/", "p2pctl/src/"]) {
        for mention in syntax::full_mentions(&source.product) {
            let text = mention.text();
            let name = mention.path.last().map(String::as_str).unwrap_or_default();
            let prints = mention.kind == Kind::Macro && ["println", "print", "eprintln", "eprint", "dbg"].contains(&name);
            assert!(!prints, "{path}:{} prints: {text}!", mention.line);
            // Called, or handed on as a function.
            let is_used = mention.kind == Kind::Call || (mention.kind == Kind::Path && mention.path.len() > 1);
            let writes = is_used && ["stdout", "stderr"].contains(&name);
            assert!(!writes || PRINTING.contains(&path), "{path}:{} writes to the terminal: {text}", mention.line);
        }
    }
}

#[test]
fn no_file_is_longer_than_one_reads() {
    for (path, source) in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines; past {LINES_MAX} a file wants to become a folder");
    }
    let main = |path: &&str| read(path).lines().count() < 120;
    assert!(
        ["registry/src/main.rs", "peerd/src/main.rs", "p2pctl/src/main.rs"].iter().all(main),
        "a main parses, binds, runs, drains"
    );
}

#[test]
fn modules_are_named_for_what_they_know() {
    for path in sources().keys() {
        for name in ["common", "util", "utils", "core", "misc", "helpers", "types"] {
            let named = |part: &str| part.strip_suffix(".rs").unwrap_or(part) == name;
            assert!(!path.split('/').any(named), "{path} is named for nothing");
        }
    }
}

/// Crates, and the folder of each one's modules.
const CRATES: [(&str, &str); 4] =
    [("proto", "proto"), ("registry", "registry/src"), ("peerd", "peerd/src"), ("p2pctl", "p2pctl/src")];

#[test]
fn the_map_in_the_readme_is_the_tree() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    let Some((_, section)) = readme.split_once("\n## The tree\n") else { return };
    let block = section.split("```").nth(1).unwrap_or_else(|| panic!("the section has no map"));
    // The first line is what follows the fence: the name of a language, or nothing.
    let lines = block.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let named: BTreeSet<_> = lines.map(|path| path.trim_end_matches('/')).collect();
    for path in &named {
        assert!(root().join(path).exists(), "the map names {path}, which is not there");
    }
    for (name, modules) in CRATES {
        assert!(named.contains(name), "the map does not name {name}");
        let folders =
            fs::read_dir(root().join(modules)).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
        for folder in folders {
            let path = format!("{modules}/{}", folder.file_name().to_str().unwrap());
            assert!(named.contains(path.as_str()), "the map does not name {path}");
        }
    }
    for folder in ["tests", "benches", "testdata", "deploy"].into_iter().filter(|folder| root().join(folder).exists()) {
        assert!(named.contains(folder), "the map does not name {folder}");
    }
}
