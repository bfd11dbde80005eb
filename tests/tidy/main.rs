//! Rules of the source tree, checked by parsing it: which part may use which, what pure modules must not use, what may print, and that
//! the map in the README matches the tree.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod cycles;
mod log_lines;
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

/// Folders with Rust sources of this workspace.
const SOURCES: [&str; 7] = ["proto", "registry", "peerd", "p2pctl", "tests", "benches", "build.rs"];
/// Most lines of a file; a longer one is split into modules.
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
    /// The source without the code that only tests compile.
    product: syn::File,
    /// The code that only tests compile.
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

/// Files of the four crates that are compiled without tests.
fn is_product(path: &str) -> bool {
    !is_test(path) && CRATES.iter().any(|(_, folder)| path.starts_with(&format!("{folder}/")))
}

/// Production sources whose path begins with one of these.
fn below<'a>(sources: &'a BTreeMap<String, Source>, paths: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a Source)> {
    for path in paths {
        assert!(sources.keys().any(|source| source.starts_with(path)), "{path} is listed here but not in the tree");
    }
    let chosen = sources.iter().filter(|(source, _)| paths.iter().any(|path| source.starts_with(path)) && !is_test(source));
    chosen.map(|(path, source)| (path.as_str(), source))
}

#[test]
fn crates_depend_only_on_the_crates_they_may() {
    // The contract depends on none of the others. The registry and the peer do not depend on each other; the command line on all.
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

/// The parts of `peerd` in order: each may use those before it, none of those after it. `node` connects them.
const PEERD_PARTS: &[&str] = &[
    // The peer's identity, and its state folder.
    "identity",
    // Channels to other peers, admission of calls from them.
    "connections",
    // Documents.
    "documents",
    // Other peers: registry, discovery, overlay.
    "session",
    "overlay",
    "discovery",
    "config",
    // Received messages; the mesh delivers to the inbox.
    "inbox",
    "mesh",
    "topology",
    // Holders of documents, and transfers.
    "holders",
    "transfer",
    // Messages to other peers.
    "messages",
    // Interfaces.
    "rpc",
    // A program that fetches and serves what it fetches.
    "fetcher",
    "http",
    "node",
    "peer",
    // Nothing of the library uses the program.
    "program",
];

#[test]
fn parts_of_the_peer_use_only_the_parts_before_them() {
    let place = |name: &str| PEERD_PARTS.iter().position(|part| *part == name);
    let mut wrong = BTreeSet::new();
    let root = "peerd/src/lib.rs";
    let modules = Modules::read(root, &read_source);
    let part = |path: &str| path.strip_prefix("peerd/src/").unwrap().split(['/', '.']).next().unwrap().to_owned();
    for path in modules.files().keys().filter(|path| **path != root) {
        assert!(place(&part(path)).is_some(), "{path}: its part is not in PEERD_PARTS");
    }
    for (path, line, other) in modules.parts().into_iter().filter(|(path, ..)| *path != root) {
        let at = place(&other).unwrap_or_else(|| panic!("{path}:{line} names crate::{other}, which is not in PEERD_PARTS"));
        if Some(at) > place(&part(path)) {
            wrong.insert((part(path), other));
        }
    }
    assert!(wrong.is_empty(), "uses against the order of the parts: {wrong:?}");
}

/// Files that may write to standard output and error: the printer of the command line, the line of a server with its address or with why it
/// cannot start, and the log.
const PRINTING: &[&str] = &["p2pctl/src/printer.rs", "proto/server/console.rs", "proto/telemetry"];

#[test]
fn only_the_printer_prints() {
    let sources = sources();
    for (path, source) in below(&sources, &["proto/", "registry/src/", "peerd/src/", "p2pctl/src/"]) {
        for mention in syntax::full_mentions(&source.product) {
            let text = mention.text();
            let name = mention.path.last().map(String::as_str).unwrap_or_default();
            let prints = mention.kind == Kind::Macro && ["println", "print", "eprintln", "eprint", "dbg"].contains(&name);
            assert!(!prints, "{path}:{} prints: {text}!", mention.line);
            // Called, or passed as a function.
            let is_used = mention.kind == Kind::Call || (mention.kind == Kind::Path && mention.path.len() > 1);
            let writes = is_used && ["stdout", "stderr"].contains(&name);
            assert!(
                !writes || PRINTING.iter().any(|allowed| path.starts_with(allowed)),
                "{path}:{} writes to the terminal: {text}",
                mention.line
            );
        }
    }
}

#[test]
fn no_file_is_longer_than_the_limit() {
    for (path, source) in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines; split files of more than {LINES_MAX}");
    }
    let main = |path: &&str| read(path).lines().count() < 120;
    assert!(
        ["registry/src/program.rs", "peerd/src/program.rs", "p2pctl/src/lib.rs"].iter().all(main),
        "main only parses, binds, runs and shuts down: move the rest to modules"
    );
}

#[test]
fn modules_have_meaningful_names() {
    for path in sources().keys() {
        for name in ["common", "util", "utils", "core", "misc", "helpers", "types"] {
            let named = |part: &str| part.strip_suffix(".rs").unwrap_or(part) == name;
            assert!(!path.split('/').any(named), "{path}: name the module for what it contains");
        }
    }
}

/// Crates, and the folder of each one's modules.
const CRATES: [(&str, &str); 4] =
    [("proto", "proto"), ("registry", "registry/src"), ("peerd", "peerd/src"), ("p2pctl", "p2pctl/src")];

#[test]
fn the_map_in_the_readme_matches_the_tree() {
    let readme = read("README.md");
    let (_, section) = readme.split_once("\n## The tree\n").expect("the README has a section `The tree`");
    let block = section.split("```").nth(1).unwrap_or_else(|| panic!("the section has no map"));
    // The first line follows the fence: the name of a language, or empty.
    let lines = block.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let named: BTreeSet<_> = lines.map(|path| path.trim_end_matches('/')).collect();
    for path in &named {
        assert!(root().join(path).exists(), "the map names {path}, which does not exist");
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
