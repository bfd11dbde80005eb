//! Interrupted verbs: a fetch is resumed by the next run, an observer's lease ends.

use crate::support::{
    network::{ready, status},
    process::Running,
    terminal::Terminal,
    wait::{eventually, until},
    world::{PIECE, World, rfc, whole_pieces},
};
use rustix::process::Signal;
use std::fs;

#[test]
fn ctrl_c_keeps_verified_pieces_and_the_next_run_resumes_from_them() {
    let world = World::new();
    let registry = world.registry(&[]);
    world.share("share", &[8881]);
    let slow = world.peer("slow", &registry, &["--share", "share", "--upload-limit", "512KiB"]);
    ready(&slow);
    let fetching = Running::start(world.p2pctl_command(&registry, &["get-rfc", "8881"]));
    let partial = eventually("some pieces are written", || {
        let mut entries = fs::read_dir(world.path("out")).ok()?;
        let partial = entries.find_map(|entry| entry.ok().map(|entry| entry.path()))?;
        (whole_pieces(&partial, 8881) >= 2).then_some(partial)
    });
    fetching.signal(Signal::INT);
    fetching.ended().exits(130).stdout_is_empty().stderr_has(&["error: interrupted", "hint: ", "to resume"]);
    assert!(partial.file_name().unwrap().to_str().unwrap().starts_with(".rfc8881.txt."), "{}", partial.display());
    assert!(!world.path("out/rfc8881.txt").exists());
    assert!(whole_pieces(&partial, 8881) < rfc(8881).chunks(PIECE).count());

    let json = world.p2pctl(&registry, &["get-rfc", "8881", "-o", "json"]).exits(0).json();
    let resumed = json["resumed_bytes"].as_u64().unwrap();
    // Whole pieces; the last one of the document is shorter.
    let (part, last) = (resumed % PIECE as u64, rfc(8881).len() as u64 % PIECE as u64);
    assert!(resumed >= PIECE as u64 && (part == 0 || part == last), "{json}");
    assert_eq!(resumed + json["fetched_bytes"].as_u64().unwrap(), json["document"]["size"].as_u64().unwrap());
    assert_eq!(json["sources"][0]["bytes"], json["fetched_bytes"], "{json}");
    assert!(world.read("out/rfc8881.txt") == rfc(8881));
    assert!(!partial.exists());
}

#[test]
fn a_progress_bar_fits_a_terminal_of_40_columns() {
    const COLUMNS: u16 = 40;
    let world = World::new();
    let registry = world.registry(&[]);
    world.share("share", &[8881]);
    let slow = world.peer("slow", &registry, &["--share", "share", "--upload-limit", "512KiB"]);
    ready(&slow);
    let terminal = Terminal::with_columns(world.p2pctl_command(&registry, &["get-rfc", "8881"]), COLUMNS);
    until("the bar is drawn several times", || terminal.shown().matches('%').count() >= 5);
    let shown = terminal.shown();
    // Lines as drawn, without control sequences (CSI, parameters, a letter).
    for line in shown.split(['\r', '\n']).filter(|line| line.contains('%')) {
        let mut plain = String::new();
        let mut rest = line.chars();
        while let Some(c) = rest.next() {
            if c == '\u{1b}' {
                rest.by_ref().find(char::is_ascii_alphabetic);
            } else {
                plain.push(c);
            }
        }
        assert!(plain.chars().count() <= COLUMNS.into(), "{plain:?}");
        assert!(!line.contains("\u{1b}[1A"), "it wrapped: {line:?}");
    }
}

#[test]
fn ctrl_c_ends_an_observers_lease() {
    let world = World::new();
    let registry = world.registry(&["--state", "memory"]);
    world.share("share", &[8881]);
    let slow = world.peer("slow", &registry, &["--share", "share", "--upload-limit", "64KiB"]);
    ready(&slow);
    let observers = || status(&registry)["observers"].as_u64();
    let fetching = Running::start(world.p2pctl_command(&registry, &["get-rfc", "8881"]));
    eventually("the fetch is registered", || observers().is_some_and(|count| count > 0).then_some(()));
    fetching.signal(Signal::INT);
    fetching.ended().exits(130);
    assert_eq!(observers(), Some(0));
}
