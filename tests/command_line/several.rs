//! get and get-rfc of several documents: patterns, dry runs, failures, what is there already.

use crate::support::{
    network::{Network, ready},
    process::{Running, Server},
    wait::until,
    world::rfc,
};
use rustix::process::Signal;
use serde_json::Value;
use std::{collections::BTreeSet, fs};

/// The network, and a peer `fff-d` with a folder of models.
fn with_models() -> (Network, Server) {
    let network = Network::start();
    for (name, bytes) in [("base.bin", 300_000), ("README.md", 10), ("v2/base.bin", 3_000), ("v2/notes.txt", 0)] {
        let path = network.world.path("share-d/models").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![7; bytes]).unwrap();
    }
    let d = network.world.peer("fff-d", &network.registry, &["--share", "share-d"]);
    ready(&d);
    (network, d)
}

/// Names of the files below a folder of the test.
fn files(network: &Network, folder: &str) -> BTreeSet<String> {
    let (top, mut found) = (network.world.path(folder), BTreeSet::new());
    let mut waiting = vec![top.clone()];
    while let Some(path) = waiting.pop() {
        match fs::read_dir(&path) {
            Ok(entries) => waiting.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) if path.exists() => drop(found.insert(path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned())),
            Err(_) => {}
        }
    }
    found
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn patterns_names_and_hashes_are_fetched_together_into_their_folders() {
    let (network, _d) = with_models();
    let hash = format!("b3:{}", blake3::hash(&rfc(49)).to_hex());
    let run = network.p2pctl(&["get", "models/**", "rfc48.txt", &hash, "--exclude", "*.md", "--exclude", "v2/*.txt"]).exits(0);
    let expected = ["models/base.bin", "models/v2/base.bin", "models/v2/notes.txt", "rfc48.txt", "rfc49.txt"];
    assert_eq!(files(&network, "out"), set(expected), "{run:#?}");
    for name in expected {
        assert!(run.stdout.contains(&format!("./out/{name}\n")), "{name}: {run:#?}");
    }
    run.stdout_has(&["  5 documents fetched, ", "  from fff-d (", "  from fff-"]);
    assert_eq!(network.world.read("out/models/base.bin"), [7; 300_000]);
    assert!(network.world.read("out/rfc49.txt") == rfc(49));
    let run = network.p2pctl(&["get", "*", "--include", "rfc8*", "--out", "chosen", "--quiet"]).exits(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("chosen/rfc8881.txt\n", ""));
}

#[test]
fn what_is_there_already_is_not_fetched_again_and_other_content_is_replaced_only_with_force() {
    let network = Network::start();
    network.p2pctl(&["get", "rfc48.txt", "-q"]).exits(0);
    let run = network.p2pctl(&["get-rfc", "48", "rfc49"]).exits(0);
    run.stdout_has(&["./out/rfc48.txt\n", "./out/rfc49.txt\n", "1 document fetched", "1 document was there already, verified"]);
    fs::write(network.world.path("out/rfc49.txt"), "mine").unwrap();
    network.p2pctl(&["get", "rfc4*"]).exits(1).stdout_is_empty().stderr_has(&["rfc49.txt exists with other content", "--force"]);
    fs::remove_file(network.world.path("out/rfc48.txt")).unwrap();
    let run = network.p2pctl(&["get", "rfc4*", "--keep-going"]).exits(1);
    run.stdout_has(&["./out/rfc48.txt\n"]).stderr_has(&["1 of 2 documents failed", "  rfc49.txt: ", "hint: --force replaces it"]);
    assert_eq!(network.world.read("out/rfc49.txt"), b"mine");
    network.p2pctl(&["get", "rfc4*", "--force"]).exits(0);
    assert!(network.world.read("out/rfc49.txt") == rfc(49));
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let (network, _d) = with_models();
    network.p2pctl(&["get-rfc", "48"]).exits(0);
    let run = network.p2pctl(&["get", "rfc*", "models/**", "--dry-run"]).exits(0);
    run.stdout_has(&["NAME", "STATE", "rfc48.txt", "there already", "models/v2/notes.txt", "to fetch", "8 documents, "]);
    assert_eq!(files(&network, "out"), set(["rfc48.txt"]));
    let json = network.p2pctl(&["get", "rfc4*", "--dry-run", "-o", "json"]).exits(0).json();
    let size = |number| rfc(number).len() as u64;
    assert_eq!((json["bytes"].as_u64(), json["present_bytes"].as_u64()), (Some(size(48) + size(49)), Some(size(48))), "{json}");
    assert_eq!((json["missing_bytes"].as_u64(), json["present_documents"].as_u64()), (Some(size(49)), Some(1)), "{json}");
    let states: Vec<_> = json["documents"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["present", "missing"], "{json}");
    // What would fail is no success.
    let run = network.p2pctl(&["get", "rfc49.txt", "no-such.txt", "--dry-run", "--keep-going"]).exits(1);
    run.stdout_has(&["rfc49.txt", "to fetch"]).stderr_has(&["1 of 2 documents would fail", "no-such.txt: nobody has"]);
    // One document, too.
    network.p2pctl(&["get", "rfc49.txt", "--dry-run"]).exits(0).stdout_has(&["rfc49.txt", "to fetch", "1 document, "]);
    assert_eq!(files(&network, "out"), set(["rfc48.txt"]));
}

#[test]
fn a_document_that_nobody_has_ends_it_unless_it_keeps_going() {
    let network = Network::start();
    let run = network.p2pctl(&["get", "rfc48.txt", "no-such.txt", "rfc49.txt"]).exits(1).stdout_is_empty();
    run.stderr_has(&["error: nobody has no-such.txt; asked ", "fff-a", "fff-c"]);
    assert!(files(&network, "out").is_empty());
    let run = network.p2pctl(&["get", "rfc48.txt", "no-such.txt", "none/**", "rfc49.txt", "--keep-going"]).exits(1);
    run.stdout_has(&["./out/rfc48.txt\n", "./out/rfc49.txt\n"]).stderr_has(&[
        "error: 2 of 4 documents failed",
        "  no-such.txt: nobody has no-such.txt",
        "  none/**: no document matches none/**; 2 peers were asked",
    ]);
    assert_eq!(files(&network, "out"), set(["rfc48.txt", "rfc49.txt"]));
    let run = network.p2pctl(&["get", "rfc48.txt", "no-such.txt", "--keep-going", "-o", "json", "--out", "other"]).exits(1);
    assert_eq!(run.json()["path"], "other/rfc48.txt");
    let error = run.stderr.lines().last().unwrap();
    let error: Value = serde_json::from_str(error).unwrap_or_else(|wrong| panic!("{wrong}: {run:#?}"));
    assert_eq!(error["error"]["failed"][0]["name"], "no-such.txt", "{error}");
}

#[test]
fn patterns_that_are_not_valid_or_choose_among_nothing_are_wrong_usage() {
    let network = Network::start();
    network.p2pctl(&["get", "[a"]).exits(2).stdout_is_empty().stderr_has(&["without its ]"]);
    network.p2pctl(&["get", "rfc48.txt", "--exclude", "*"]).exits(2).stdout_is_empty().stderr_has(&["there is no pattern"]);
    network.p2pctl(&["get", "*", "--include", ""]).exits(2).stdout_is_empty().stderr_has(&["is empty; write ** for all"]);
    network.p2pctl(&["get", "*", "--jobs", "0"]).exits(2).stdout_is_empty();
    network.p2pctl(&["get", "*", "--limit", "0"]).exits(2).stdout_is_empty().stderr_has(&["would move nothing"]);
    network.p2pctl(&["get", "*", "--no-share", "--seed", "1m"]).exits(2).stdout_is_empty().stderr_has(&["--no-share"]);
    network.p2pctl(&["get"]).exits(2).stdout_is_empty();
    network.p2pctl(&["get", "none*"]).exits(1).stdout_is_empty().stderr_has(&["error: no document matches none*"]);
}

#[test]
fn an_interrupted_set_says_that_it_resumes_only_if_something_is_kept() {
    let network = Network::start();
    network.world.share("share-slow", &[8881]);
    fs::rename(network.world.path("share-slow/rfc8881.txt"), network.world.path("share-slow/large.txt")).unwrap();
    fs::write(network.world.path("share-slow/large.txt"), vec![1; 4_000_000]).unwrap();
    let slow = network.world.peer("slow", &network.registry, &["--share", "share-slow", "--upload-limit", "256KiB"]);
    ready(&slow);
    let start = || Running::start(network.world.p2pctl_command(&network.registry, &["get", "large.txt", "rfc48.txt"]));
    let fetching = start();
    until("the small document is there", || fetching.stdout().contains("rfc48.txt"));
    fetching.signal(Signal::INT);
    fetching.ended().exits(130).stderr_has(&["error: interrupted", "hint: verified bytes are kept"]);
    assert!(!network.world.path("out/large.txt").exists());
    // Stopped, it sends nothing: there is nothing to keep.
    slow.signal(Signal::STOP);
    let fetching = Running::start(
        network
            .world
            .p2pctl_command(&network.registry, &["get", "large.txt", "--from", &slow.address.to_string(), "--out", "none"]),
    );
    until("it runs", || fetching.handles_interrupts() && fetching.descriptors() > 8);
    fetching.signal(Signal::INT);
    let ended = fetching.ended().exits(130);
    assert!(!ended.stderr.contains("resume"), "{ended:#?}");
    slow.signal(Signal::CONT);
}

#[test]
fn what_was_fetched_is_shared_on_although_another_document_failed() {
    let network = Network::start();
    fs::create_dir_all(network.world.path("share-d")).unwrap();
    fs::write(network.world.path("share-d/large.bin"), vec![7; 1_500_000]).unwrap();
    let d = network.world.peer("fff-d", &network.registry, &["--share", "share-d"]);
    ready(&d);
    let wanted = ["get", "large.bin", "rfc48.txt", "no-such.txt", "--keep-going", "--seed", "1s"];
    network.p2pctl(&wanted).exits(1).stderr_has(&["sharing 1 document for 1s; Ctrl-C ends it", "1 of 3 documents failed"]);
    // It does not wait where nothing is shared.
    network.p2pctl(&["get", "large.bin", "rfc49.txt", "--seed", "1h"]).exits(0).stderr_has(&["nothing is shared on"]);
}
