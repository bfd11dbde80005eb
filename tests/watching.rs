//! Peers watch the registry: they know of each other at once, not by their next keepalive.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use rustix::process::Signal;
use support::{network::status, process::Server, wait::until, world::World};

/// Keepalives are 20 minutes apart, so whatever a peer learns within a test it is told.
const TTL: [&str; 2] = ["--ttl", "1h"];

fn known(peer: &Server) -> u64 {
    status(peer)["registry"]["known_peers"].as_u64().unwrap()
}

#[test]
fn a_peer_knows_who_joins_and_leaves_between_its_keepalives_also_after_a_restart_of_the_registry() {
    let world = World::new();
    let registry = world.registry(&TTL);
    let first = world.peer("fff-a", &registry, &[]);
    until("it is registered", || status(&first)["registry"]["state"] == "SESSION_STATE_REGISTERED");
    assert_eq!(known(&first), 0);
    let second = world.peer("fff-b", &registry, &[]);
    until("the second is known", || known(&first) == 1);
    let address = registry.address.to_string();
    registry.kill();
    let restarted = Server::start(world.registry_command(&address, &TTL));
    second.signal(Signal::TERM);
    second.ended().exits(0);
    until("the second is gone", || known(&first) == 0);
    let _third = world.peer("fff-c", &restarted, &[]);
    until("the third is known", || known(&first) == 1);
}
