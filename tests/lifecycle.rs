//! How the real servers start, stop, crash and restart.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    net::{SocketAddr, TcpListener},
};
use support::{
    network::{Network, ready, status},
    process::{Running, Server},
    wait::{eventually, until},
    world::{World, rfc, whole_pieces},
};

/// Names of the active peers.
fn names(world: &World, registry: &Server) -> Vec<String> {
    let listed = world.p2pctl(registry, &["peers", "-o", "json"]).exits(0).json();
    listed["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
}

/// The registry's record of an active peer.
fn record(world: &World, registry: &Server, name: &str) -> Value {
    world.p2pctl(registry, &["peers", "--name", name, "-o", "json"]).exits(0).json()["peers"][0].clone()
}

fn state(peer: &Server) -> String {
    status(peer)["registry"]["state"].as_str().unwrap().to_owned()
}

/// An address that nothing listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A peer that shares RFC 8881 slowly, and a fetch of it under way.
fn slow_fetch(world: &World, registry: &Server, limit: &str, grace: &str) -> (Server, Running) {
    world.share("share", &[8881]);
    let slow = world.peer("slow", registry, &["--share", "share", "--upload-limit", limit, "--grace", grace]);
    ready(&slow);
    let fetching = Running::start(world.p2pctl_command(registry, &["get-rfc", "8881"]));
    until("a whole piece came", || {
        let mut entries = fs::read_dir(world.path("out")).into_iter().flatten();
        entries.any(|entry| entry.is_ok_and(|entry| whole_pieces(&entry.path(), 8881) > 0))
    });
    // The first piece, and those that were requested while it was awaited; none between two requests.
    let load = status(&slow)["load"].clone();
    assert!(load["uploads"].as_u64().unwrap() <= 2, "{load}");
    (slow, fetching)
}

#[test]
fn a_peer_that_gets_a_signal_leaves_the_registry_at_once() {
    let Network { a, c, registry, world } = Network::start();
    a.signal(Signal::TERM);
    a.ended().exits(0);
    assert_eq!(names(&world, &registry), ["fff-c"]);
    c.signal(Signal::INT);
    let ended = c.ended().exits(0);
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:#?}");
    assert_eq!(names(&world, &registry), Vec::<String>::new());
    registry.signal(Signal::TERM);
    registry.ended().exits(0);
}

#[test]
fn a_stream_under_way_is_finished_within_the_grace_period() {
    let world = World::new();
    let registry = world.registry(&[]);
    let (slow, mut fetching) = slow_fetch(&world, &registry, "768KiB", "20s");
    slow.signal(Signal::TERM);
    until("it left the registry", || names(&world, &registry).is_empty());
    assert!(fetching.is_running(), "the stream should still be under way");
    fetching.ended().exits(0).stdout_has(&["from slow"]);
    assert!(world.read("out/rfc8881.txt") == rfc(8881));
    slow.ended().exits(0);
}

#[test]
fn a_stream_that_outlasts_the_grace_period_is_cut_and_its_verified_bytes_are_kept() {
    let world = World::new();
    let registry = world.registry(&[]);
    let (slow, fetching) = slow_fetch(&world, &registry, "256KiB", "100ms");
    slow.signal(Signal::TERM);
    slow.ended().exits(0).stderr_has(&["after the grace period"]);
    let ended = fetching.ended().exits(1).stdout_is_empty();
    ended.stderr_has(&["error: no holder could deliver", "slow", "hint: ", "verified bytes are kept"]);
    assert!(!world.path("out/rfc8881.txt").exists());
}

#[test]
fn a_second_signal_ends_a_peer_at_once() {
    let world = World::new();
    let registry = world.registry(&[]);
    let (mut slow, fetching) = slow_fetch(&world, &registry, "64KiB", "1h");
    slow.signal(Signal::INT);
    until("it left the registry", || names(&world, &registry).is_empty());
    assert!(slow.process.is_running());
    slow.signal(Signal::INT);
    slow.ended().exits(130);
    fetching.ended().exits(1).stdout_is_empty();
}

#[test]
fn a_peer_whose_name_is_taken_reports_it_and_registers_when_the_first_is_gone() {
    for signal in [Signal::TERM, Signal::KILL] {
        let world = World::new();
        // After a Leave the name would be kept for its cookie.
        let registry = world.registry(&["--ttl", "1s", "--name-hold", "0s"]);
        let first = world.peer("twin", &registry, &[]);
        ready(&first);
        let second = world.peer("TWIN", &registry, &["--state", "second-state"]);
        until("the second is refused", || state(&second) == "SESSION_STATE_REFUSED");
        let detail = status(&second)["registry"]["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("twin") && detail.contains(&registry.address.to_string()), "{detail}");
        until("its log says so, too", || second.process.stderr().contains(&detail));
        assert_eq!((state(&first).as_str(), names(&world, &registry)), ("SESSION_STATE_REGISTERED", vec!["twin".to_owned()]));
        first.signal(signal);
        until("the second takes over", || state(&second) == "SESSION_STATE_REGISTERED");
        assert_eq!(record(&world, &registry, "twin")["endpoint"], second.address.to_string());
    }
}

#[test]
fn a_state_folder_in_use_is_refused_with_a_hint() {
    let world = World::new();
    let registry = world.registry(&[]);
    let first = world.peer("one", &registry, &["--state", "shared"]);
    ready(&first);
    let second = Running::run_to_end(world.peer_command("two", &registry.url(), &["--state", "shared"]));
    second.exits(1).stdout_is_empty().stderr_has(&["error: the state folder shared is in use", "hint: ", "--state"]);
    assert_eq!(names(&world, &registry), ["one"]);
}

#[test]
fn a_share_that_is_not_there_is_refused_with_a_hint() {
    let world = World::new();
    let registry = world.registry(&[]);
    fs::write(world.path("file"), "").unwrap();
    for share in ["missing", "file"] {
        let peer = Running::run_to_end(world.peer_command("a", &registry.url(), &["--share", share]));
        peer.exits(1).stdout_is_empty().stderr_has(&["error: ", share, "hint: ", "--share"]);
    }
}

#[test]
fn a_port_in_use_is_refused_with_a_hint() {
    let world = World::new();
    let registry = world.registry(&[]);
    let taken = registry.address.to_string();
    let peer = Running::run_to_end(world.command("peerd", &["--name", "a", "--listen", &taken, "--no-registry"]));
    peer.exits(1).stdout_is_empty().stderr_has(&["error: cannot listen on ", &taken, "hint: ", "--listen"]);
    let second = Running::run_to_end(world.registry_command(&taken, &["--state", "memory"]));
    second.exits(1).stdout_is_empty().stderr_has(&["error: cannot listen on ", &taken, "hint: ", "--listen"]);
}

#[test]
fn invalid_flags_are_usage_errors() {
    let world = World::new();
    let label = format!("key={}", "x".repeat(300));
    for arguments in [["--label", label.as_str()], ["--listen", "0.0.0.0:0"]] {
        let command = world.command("peerd", &[&["--name", "a", "--no-registry"], arguments.as_slice()].concat());
        Running::run_to_end(command).exits(2).stdout_is_empty().stderr_has(&["error: "]);
    }
}

#[test]
fn a_peer_without_a_registry_serves() {
    let world = World::new();
    world.share("share", &[48]);
    let arguments = ["--name", "alone", "--listen", "127.0.0.1:0", "--no-registry", "--share", "share", "--state", "state-alone"];
    let alone = Server::start(world.command("peerd", &arguments));
    ready(&alone);
    assert_eq!(state(&alone), "SESSION_STATE_NONE");
    // The flag wins over a registry set for all peers of a machine.
    let mut flagged = world.peer_command("flagged", "http://127.0.0.1:1", &[]);
    flagged.env("P2PDI_PEER_NO_REGISTRY", "1");
    assert_eq!(state(&Server::start(flagged)), "SESSION_STATE_NONE");
    world.run("p2pctl", &["get-rfc", "48", "--from", &alone.address.to_string()]).exits(0);
    alone.signal(Signal::TERM);
    alone.ended().exits(0);
}

#[test]
fn a_peer_started_before_its_registry_registers_when_it_answers() {
    let world = World::new();
    world.share("share", &[48]);
    let address = free_address();
    let peer = Server::start(world.peer_command("early", &format!("http://{address}"), &["--share", "share"]));
    until("it reports that the registry does not answer", || state(&peer) == "SESSION_STATE_UNREACHABLE");
    until("its log says so, too", || peer.process.stderr().contains("does not answer"));
    ready(&peer);
    // Without its registry it serves callers that know its address.
    world.run("p2pctl", &["get-rfc", "48", "--from", &peer.address.to_string()]).exits(0);
    let registry = Server::start(world.registry_command(&address.to_string(), &[]));
    until("it registers", || state(&peer) == "SESSION_STATE_REGISTERED");
    assert_eq!(names(&world, &registry), ["early"]);
}

#[test]
fn a_peer_killed_and_started_again_gets_its_record_back_at_once() {
    let world = World::new();
    let registry = world.registry(&["--ttl", "1h"]);
    let peer = world.peer("phoenix", &registry, &[]);
    ready(&peer);
    let before = record(&world, &registry, "phoenix");
    let cookie = world.read("peer-state/phoenix/cookie");
    peer.kill();
    let peer = world.peer("phoenix", &registry, &[]);
    ready(&peer);
    let after = record(&world, &registry, "phoenix");
    assert_eq!((&after["id"], &after["first_registered_at"]), (&before["id"], &before["first_registered_at"]));
    assert_eq!((&before["registration_count"], &after["registration_count"]), (&1.into(), &2.into()));
    assert_eq!(after["endpoint"], peer.address.to_string());
    assert!(world.read("peer-state/phoenix/cookie") == cookie);
    assert_eq!(status(&peer)["registry"]["registrations"], 1);
}

#[test]
fn peers_keep_their_leases_when_the_registry_is_killed_and_restarted() {
    let world = World::new();
    let registry = world.registry(&["--ttl", "2s"]);
    let address = registry.address.to_string();
    let peers = ["one", "two"].map(|name| world.peer(name, &registry, &[]));
    peers.iter().for_each(ready);
    let revision = |registry: &Server| status(registry)["revision"].as_u64().unwrap();
    let before = (record(&world, &registry, "one"), revision(&registry));
    registry.kill();
    for peer in &peers {
        until("it reports that the registry does not answer", || state(peer) == "SESSION_STATE_UNREACHABLE");
    }
    let registry = Server::start(world.registry_command(&address, &["--ttl", "2s"]));
    // Active at once, before any peer has called.
    assert_eq!(names(&world, &registry), ["one", "two"]);
    for peer in &peers {
        until("it keeps its lease alive again", || state(peer) == "SESSION_STATE_REGISTERED");
        assert_eq!(status(peer)["registry"]["registrations"], 1);
    }
    let after = record(&world, &registry, "one");
    assert_eq!((&after["registration_count"], &after["last_registered_at"]), (&1.into(), &before.0["last_registered_at"]));
    assert!(revision(&registry) >= before.1);
    // Beyond the lease that the restart granted.
    let contact = |peer: &Server| status(peer)["registry"]["last_contact_at"].as_str().unwrap().to_owned();
    let then = contact(&peers[0]);
    eventually("more keepalives", || Some(contact(&peers[0])).filter(|now| *now > then));
    assert_eq!(names(&world, &registry), ["one", "two"]);
}
