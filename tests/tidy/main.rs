//! What the tree promises and a test can check by reading it: which part knows which, what pure parts leave out, who prints, and that
//! the README's map is the tree's.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod cycles;
mod modules;
mod syntax;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

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

/// Every Rust source: its path from the root, and its text.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting: Vec<PathBuf> = SOURCES.iter().map(|path| root().join(path)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting
                .extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("target")));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    assert!(found.len() > 50, "{:?}", found.keys());
    found
}

/// The product's own lines: no test module (which stands last, where there is one), no comments.
fn code(text: &str) -> String {
    let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    product.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code)).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/conformance.rs")
}

/// Sources whose path begins with one of these.
fn below<'a>(sources: &'a BTreeMap<String, String>, paths: &'a [&str]) -> impl Iterator<Item = (&'a str, String)> {
    for path in paths {
        assert!(sources.keys().any(|source| source.starts_with(path)), "{path} is in a list here and not in the tree");
    }
    let chosen = sources.iter().filter(|(source, _)| paths.iter().any(|path| source.starts_with(path)));
    chosen.map(|(source, text)| (source.as_str(), code(text)))
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
const PEERD_PARTS: [&str; 18] = [
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
];
/// Arrows against the order that are still there; an entry that is gone from the code fails too.
const PEERD_WRONG_WAY: [(&str, &str); 4] =
    [("config", "rpc"), ("holders", "transfer"), ("identity", "overlay"), ("session", "transfer")];

#[test]
fn parts_of_the_peer_know_only_those_before_them() {
    let sources = sources();
    let mut wrong = BTreeSet::new();
    for (path, code) in below(&sources, &["peerd/src/"]) {
        let part = path.strip_prefix("peerd/src/").unwrap().split(['/', '.']).next().unwrap();
        if ["lib", "main"].contains(&part) {
            continue;
        }
        let place = |name: &str| PEERD_PARTS.iter().position(|part| *part == name);
        let own = place(part).unwrap_or_else(|| panic!("{path}: the part {part} has no place in PEERD_PARTS"));
        for other in crate_paths(&code) {
            match place(&other) {
                Some(at) if at > own => drop(wrong.insert((part.to_owned(), other))),
                Some(_) => {}
                None => panic!("{path} names crate::{other}, which has no place in PEERD_PARTS"),
            }
        }
    }
    let known: BTreeSet<_> = PEERD_WRONG_WAY.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    assert_eq!(wrong, known, "arrows against the order of the parts");
}

/// The first names of all paths that begin with `crate::`, those within braces included.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(first_word(rest));
            continue;
        };
        // Names at the first level of the braces.
        let (mut depth, mut begins) = (0, true);
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    names.insert(first_word(&group[index..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Modules that only compute: whoever drives them does the I/O, reads the clock and rolls the dice.
const PURE: [&str; 28] = [
    "registry/src/table",
    "peerd/src/transfer/source_selection.rs",
    "peerd/src/transfer/rate_limit.rs",
    "peerd/src/documents/remote_index.rs",
    "proto/backoff.rs",
    "peerd/src/overlay",
    "peerd/src/discovery/announcement.rs",
    "peerd/src/discovery/bootnodes.rs",
    "peerd/src/discovery/lan_peers.rs",
    "peerd/src/mesh/acks.rs",
    "peerd/src/mesh/reconnect.rs",
    "peerd/src/mesh/name_conflicts.rs",
    "peerd/src/mesh/abuse.rs",
    "peerd/src/topology/snapshot.rs",
    "peerd/src/topology/history.rs",
    "peerd/src/inbox/seen.rs",
    "peerd/src/inbox/kind.rs",
    "peerd/src/documents/share/title",
    "peerd/src/documents/share/number.rs",
    "peerd/src/documents/share/index.rs",
    "peerd/src/documents/info.rs",
    "proto/phrases.rs",
    "proto/contact.rs",
    "proto/content.rs",
    "proto/document.rs",
    "proto/endpoint.rs",
    "proto/name.rs",
    "proto/selector.rs",
];
/// What they leave out. Hash maps are walked in another order in every process.
const IMPURE: [&str; 14] = [
    "tokio",
    "tonic::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::env",
    "SystemTime::now",
    "Instant::now",
    "rand::rng",
    "rand::random",
    "getrandom",
    "spawn",
    "std::collections::HashMap",
    "std::collections::HashSet",
];

#[test]
fn pure_modules_have_no_io_no_clock_no_dice() {
    let sources = sources();
    for (path, code) in below(&sources, &PURE) {
        for word in IMPURE {
            assert!(!code.contains(word), "{path} is pure and has {word}");
        }
        // Through a group as well: `use std::{collections::HashMap, fs}`.
        let imports = code.split("use std::{").skip(1).filter_map(|group| group.split(';').next());
        for word in ["fs", "env", "HashMap", "HashSet", "TcpStream", "TcpListener", "UdpSocket"] {
            let names = |import: &str| import.split(|c: char| !c.is_alphanumeric() && c != '_').any(|name| name == word);
            assert!(!imports.clone().any(names), "{path} is pure and imports {word}");
        }
    }
}

/// Who may write to standard output and error: the printer of the command line, and the programs' own main for the line that says where a
/// server listens and for why it cannot.
const PRINTING: [&str; 3] = ["p2pctl/src/printer.rs", "registry/src/main.rs", "peerd/src/main.rs"];

#[test]
fn only_the_printer_prints() {
    let sources = sources();
    for (path, code) in below(&sources, &["proto/", "registry/src/", "peerd/src/", "p2pctl/src/"]) {
        for word in ["println!", "print!", "eprintln!", "eprint!", "dbg!"] {
            let called = code.match_indices(word).any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            assert!(!called, "{path} has {word}");
        }
        let writes = ["stdout()", "stderr()"].iter().any(|word| code.replace(&format!("{word}.is_terminal"), "").contains(word));
        assert!(!writes || PRINTING.contains(&path), "{path} writes to the terminal");
    }
}

#[test]
fn nothing_is_left_undone() {
    // Spelled so that this file does not find itself.
    let words = ["todo", "unimplemented"].map(|word| format!("{word}!(")).into_iter();
    let words: Vec<_> = words.chain(["ignore]", "ignore ="].map(|word| format!("#[{word}"))).collect();
    let notes = ["DO", "ME"].map(|end| format!("{}{end}", if end == "DO" { "TO" } else { "FIX" }));
    for (path, text) in sources() {
        for word in words.iter().chain(&notes) {
            assert!(!text.contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn no_file_is_longer_than_one_reads() {
    for (path, text) in sources() {
        let lines = text.lines().count();
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

#[test]
fn unsafe_is_nowhere() {
    let word = format!("un{}", "safe");
    for (path, text) in sources() {
        let code = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
        let found = code.filter(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|name| name == word)).count();
        assert_eq!(found, 0, "{path}");
    }
    assert!(read("Cargo.toml").contains("unsafe_code = \"forbid\""));
}

/// Tests wait for what they wait for, with a deadline. These may sleep: between two looks within such a wait, or because time itself is
/// what they are about.
const SLEEPING: [(&str, &str); 6] = [
    ("registry/tests/support/mod.rs", "between two looks of `eventually` and `ended`"),
    ("peerd/tests/support/mod.rs", "between two looks of `eventually`"),
    ("peerd/tests/mesh/support.rs", "between two looks of `until`"),
    ("peerd/tests/support/holder.rs", "a holder that sends slowly"),
    ("peerd/tests/serving/slow_readers.rs", "a reader that takes its time, and one that takes none"),
    ("registry/tests/process.rs", "kills at a random moment"),
];

#[test]
fn tests_wait_for_events_with_a_deadline() {
    let call = format!("{}(", "sleep");
    for (path, text) in sources().iter().filter(|(path, _)| is_test(path)) {
        let sleeps = text.contains(&call) && !SLEEPING.iter().any(|(allowed, _)| allowed == path);
        assert!(!sleeps, "{path} sleeps; wait for the event, with a deadline");
    }
}

#[test]
fn tests_bind_no_fixed_port() {
    for (path, text) in sources().iter().filter(|(path, _)| is_test(path)) {
        for line in text.lines().filter(|line| line.contains("bind(\"")) {
            assert!(line.contains(":0\""), "{path}: {line}");
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
