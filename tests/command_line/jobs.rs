//! fetch, jobs, pin and unpin: errors before a peer does anything.

use crate::support::{network::Network, world::World};

#[test]
fn a_peer_that_does_not_answer_is_named_with_the_flag_that_names_another() {
    let world = World::new();
    for verb in [["fetch", "rfc48.txt"].as_slice(), &["jobs"], &["jobs", "cancel", "1"], &["pin", "a.txt"], &["unpin", "a.txt"]] {
        let run = world.run("p2pctl", &[verb, &["--at", "127.0.0.1:1"]].concat()).exits(1).stdout_is_empty();
        run.stderr_has(&["error: 127.0.0.1:1 does not answer", "hint: --at HOST:PORT"]);
    }
    // The flag may stand before the word, too.
    let run = world.run("p2pctl", &["jobs", "--at", "127.0.0.1:2", "cancel", "1"]).exits(1).stdout_is_empty();
    run.stderr_has(&["error: 127.0.0.1:2 does not answer"]);
    let network = Network::start();
    let registry = network.registry.address.to_string();
    let run = network.p2pctl(&["jobs", "--at", &registry]).exits(1).stdout_is_empty();
    run.stderr_has(&[&format!("{registry} is a registry, not a peer")]);
}

#[test]
fn wrong_usage_is_refused_before_a_peer_is_asked() {
    let world = World::new();
    for wrong in [
        ["fetch"].as_slice(),
        &["fetch", "../x"],
        &["fetch", "[a"],
        &["fetch", "a", "--priority", "first"],
        &["fetch", "a", "--wait-for-holders", "soon"],
        &["fetch", "a", "--from", "http://127.0.0.1:7801/"],
        &["jobs", "cancel"],
        &["jobs", "stop", "1"],
        &["pin"],
        &["pin", "/etc/passwd"],
    ] {
        world.run("p2pctl", wrong).exits(2).stdout_is_empty().stderr_has(&["error: "]);
    }
}
