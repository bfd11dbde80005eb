//! The progress of a fetch on standard error, in all its forms.

use crate::support::{
    network::ready,
    process::{Running, Server},
    terminal::Terminal,
    wait::{eventually, until},
    world::{PIECE, World, rfc},
};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;

/// A registry, and a peer that sends RFC 8881 (1.5 MiB) at this rate.
fn slow(limit: &str) -> (World, Server, Server) {
    let world = World::new();
    let registry = world.registry(&["--state", "memory"]);
    world.share("share", &[48, 8881]);
    let slow = world.peer("slow", &registry, &["--share", "share", "--upload-limit", limit]);
    ready(&slow);
    (world, registry, slow)
}

#[test]
fn json_is_one_object_a_second_and_one_at_the_end() {
    let (world, registry, _slow) = slow("512KiB");
    let run = world.p2pctl(&registry, &["get-rfc", "8881", "--progress", "json"]).exits(0);
    let objects: Vec<Value> = run
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}: {run:#?}")))
        .collect();
    let size = rfc(8881).len() as u64;
    let (last, before) = objects.split_last().unwrap();
    assert!(before.len() >= 2, "{run:#?}");
    let last = &last["progress"];
    assert_eq!((last["phase"].as_str(), last["bytes_done"].as_u64()), (Some("ended"), Some(size)), "{last}");
    let mut done = 0;
    for object in before {
        let progress = &object["progress"];
        for field in ["documents", "documents_done", "documents_failed", "bytes", "bytes_per_second", "holders", "sent_bytes"] {
            assert!(progress[field].is_u64(), "{field}: {progress}");
        }
        assert!(progress["bytes_done"].as_u64().unwrap() >= done, "{run:#?}");
        done = progress["bytes_done"].as_u64().unwrap();
    }
    let fetching = before.iter().map(|object| &object["progress"]).find(|progress| progress["bytes_done"].as_u64() > Some(0));
    let fetching = fetching.unwrap_or_else(|| panic!("{run:#?}"));
    assert_eq!((fetching["phase"].as_str(), fetching["bytes"].as_u64()), (Some("fetching"), Some(size)), "{fetching}");
    assert_eq!((fetching["holder_names"][0].as_str(), fetching["waiting"].is_null()), (Some("slow"), true), "{fetching}");
    assert!(fetching["bytes_per_second"].as_u64() > Some(100_000), "{fetching}");
}

#[test]
fn plain_is_lines_and_a_short_fetch_without_a_terminal_has_none() {
    let (world, registry, _slow) = slow("256KiB");
    let plain = world.p2pctl(&registry, &["get-rfc", "8881", "--out", "plain"]).exits(0);
    let lines: Vec<_> = plain.stderr.lines().collect();
    assert!(lines.len() >= 2, "a transfer of six seconds has a line on the way and one at the end: {plain:#?}");
    assert!(lines[0].contains("% of 1.5 MiB, ") && lines[0].contains("/s") && lines[0].ends_with("from slow"), "{plain:#?}");
    assert_eq!(lines.last(), Some(&"100% of 1.5 MiB"), "{plain:#?}");
    for (out, quiet) in [("none", ["--progress", "none"].as_slice()), ("quiet", &["--quiet"]), ("json", &["-o", "json"])] {
        let run = world.p2pctl(&registry, &[["get-rfc", "8881", "--out", out].as_slice(), quiet].concat()).exits(0);
        assert_eq!(run.stderr, "", "{quiet:?}");
    }
    let short = world.p2pctl(&registry, &["get-rfc", "48"]).exits(0);
    assert_eq!(short.stderr, "");
    // Asked for, it comes for a short one, too, and where there is no terminal for a bar.
    for form in ["plain", "bar"] {
        let short = world.p2pctl(&registry, &["get-rfc", "48", "--progress", form, "--out", form]).exits(0);
        assert_eq!(short.stderr.lines().count(), 1, "{short:#?}");
    }
}

#[test]
fn the_bar_says_why_nothing_moves() {
    let (world, registry, slow) = slow("256KiB");
    let terminal = Terminal::with_columns(world.p2pctl_command(&registry, &["get-rfc", "8881"]), 100);
    for shown in ["%", " KiB/s", "left", "KiB/1.5 MiB", "1 holder"] {
        terminal.shows(shown);
    }
    slow.signal(Signal::STOP);
    terminal.shows("waiting for slow, last byte ");
    slow.signal(Signal::CONT);
    until("it goes on", || terminal.shown().contains("./out/rfc8881.txt"));
    terminal.exits(0);
}

#[test]
fn several_documents_have_one_total_and_the_bar_leaves_the_results() {
    let (world, registry, _slow) = slow("512KiB");
    let terminal = Terminal::with_columns(world.p2pctl_command(&registry, &["get", "rfc*"]), 100);
    for shown in ["1/2 documents", "  rfc8881.txt", "./out/rfc48.txt", "./out/rfc8881.txt", "2 documents fetched"] {
        terminal.shows(shown);
    }
    terminal.exits(0);
}

/// The last object that a fetch printed.
fn last_progress(running: &Running) -> Option<Value> {
    let stderr = running.stderr();
    let mut whole = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    whole.next_back().map(|object| object["progress"].clone())
}

#[test]
fn who_goes_on_sharing_says_what_it_sent() {
    let world = World::new();
    let registry = world.registry(&["--state", "memory"]);
    world.share("share", &[8881]);
    let first = world.peer("first", &registry, &["--share", "share"]);
    ready(&first);
    let size = rfc(8881).len() as u64;
    let seed = ["get-rfc", "8881", "--progress", "json", "--seed", "10m"];
    let sharing = Running::start(world.p2pctl_command(&registry, &seed));
    let is_seeding = |progress: &Value| progress["phase"] == "seeding";
    eventually("it shares", || last_progress(&sharing).filter(is_seeding));
    first.kill();
    let hash = format!("b3:{}", blake3::hash(&rfc(8881)).to_hex());
    // Until that one announces that it has all, the tracker names the one that was killed.
    world.p2pctl(&registry, &["get", &hash, "--out", "other", "--wait-for-holders", "1m"]).exits(0);
    let shown = eventually("it says what it sent", || {
        last_progress(&sharing).filter(is_seeding).filter(|progress| progress["sent_bytes"].as_u64() >= Some(size))
    });
    assert_eq!((shown["bytes_done"].as_u64(), shown["documents_done"].as_u64()), (Some(size), Some(1)), "{shown}");
    sharing.signal(Signal::INT);
    let ended = sharing.ended().exits(0);
    let last: Value = serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["progress"]["phase"], "ended", "{ended:#?}");
    assert!(last["progress"]["sent_bytes"].as_u64() >= Some(size), "{ended:#?}");
}

#[test]
fn a_fetch_goes_on_when_its_only_holder_was_stopped_for_longer_than_it_may_be_silent() {
    let (world, registry, slow) = slow("256KiB");
    let patient = ["get-rfc", "8881", "--progress", "json", "--stall-timeout", "1s", "--wait-for-holders", "10m"];
    let fetching = Running::start(world.p2pctl_command(&registry, &patient));
    eventually("some of it is there", || last_progress(&fetching).filter(|progress| progress["bytes_done"].as_u64() > Some(0)));
    slow.signal(Signal::STOP);
    let given_up = "waiting for a peer that has what is missing";
    eventually("the holder is given up", || {
        last_progress(&fetching).filter(|progress| progress["waiting"].as_str().is_some_and(|why| why.starts_with(given_up)))
    });
    slow.signal(Signal::CONT);
    fetching.ended().exits(0);
    assert!(world.read("out/rfc8881.txt") == rfc(8881));
}

#[test]
fn eight_fetches_end_although_the_seed_is_killed_once_each_piece_left_it() {
    const FETCHES: usize = 8;
    const PIECES: usize = 24;
    let world = World::new();
    let registry = world.registry(&["--state", "memory"]);
    // Each piece has other bytes.
    let data: Vec<u8> = (0..PIECES * PIECE).map(|at| u8::try_from((at + at / PIECE) % 251).unwrap()).collect();
    fs::create_dir_all(world.path("share")).unwrap();
    fs::write(world.path("share/big.bin"), &data).unwrap();
    let seed = world.peer("seed", &registry, &["--share", "share", "--upload-limit", "2MiB"]);
    ready(&seed);
    until("the seed shares it", || world.p2pctl(&registry, &["ls", "big.bin"]).stdout.contains("big.bin"));
    let hash = format!("b3:{}", blake3::hash(&data).to_hex());
    let out = |fetch: usize| format!("out-{fetch}");
    let fetches: Vec<_> = (0..FETCHES)
        .map(|fetch| {
            // One that is done stays until all are: it may be the only one with a piece that came from the seed last.
            let arguments = ["get", &hash, "--out", &out(fetch), "--wait-for-holders", "10m", "--seed", "10m"];
            Running::start(world.p2pctl_command(&registry, &arguments))
        })
        .collect();
    let mut left = [false; PIECES];
    until("each piece has left the seed", || {
        for fetch in 0..FETCHES {
            for file in fs::read_dir(world.path(out(fetch))).into_iter().flatten().flatten() {
                let written = fs::read(file.path()).unwrap_or_default();
                let pieces = data.chunks(PIECE).zip(written.chunks(PIECE)).enumerate();
                pieces.filter(|(_, (piece, written))| piece == written).for_each(|(piece, _)| left[piece] = true);
            }
        }
        left.iter().all(|left| *left)
    });
    seed.kill();
    for fetch in 0..FETCHES {
        let file = format!("{}/big.bin", out(fetch));
        until("it is whole", || world.path(&file).exists());
        assert!(world.read(&file) == data);
    }
    for running in fetches {
        running.signal(Signal::INT);
        running.ended();
    }
}

#[test]
fn an_unknown_form_is_wrong_usage() {
    let world = World::new();
    let mut command = world.command("p2pctl", &["get-rfc", "48"]);
    command.env("P2PDI_CTL_PROGRESS", "loud");
    Running::run_to_end(command).exits(2).stdout_is_empty().stderr_has(&["auto", "bar", "plain", "json", "none"]);
}
