//! From a token to a running peer, with the real programs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use std::{fs, process::Command};
use support::{
    process::{Running, Server},
    wait::until,
    world::{World, rfc},
};

/// A registry that is a certificate authority in the folder `ca`.
fn registry(world: &World) -> Server {
    world.registry(&["--ca", "ca"])
}

fn create(world: &World, registry: &Server, arguments: &[&str]) -> String {
    let all = [&["token", "create", "--ca", "ca"], arguments].concat();
    world.p2pctl(registry, &all).exits(0).stdout.trim().to_owned()
}

fn joining(world: &World, state: &str, token: &str, arguments: &[&str]) -> Command {
    let mut command = world.command("peerd", &["--listen", "127.0.0.1:0", "--join", token]);
    command.arg("--state").arg(world.path(state)).args(arguments);
    command
}

/// The names of the active peers, asked with the certificate of an operator.
fn peers(world: &World, registry: &Server, operator: &[&str]) -> Vec<String> {
    let listed = world.p2pctl(registry, &[&["peers", "-o", "json"], operator].concat()).exits(0).json();
    listed["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_token_becomes_a_peer_that_serves_documents_and_needs_no_token_again() {
    let world = World::new();
    world.share("share", &[48]);
    let registry = registry(&world);
    let operator = create(&world, &registry, &["--name", "alice", "--operator"]);
    let login = world.p2pctl(&registry, &["login", &operator, "-o", "json"]).exits(0).json();
    let file = |key: &str| login[key].as_str().unwrap().to_owned();
    let (cert, key, ca) = (file("tls_cert"), file("tls_key"), file("tls_ca"));
    let operator = ["--tls-cert", cert.as_str(), "--tls-key", &key, "--tls-ca", &ca];
    let token = create(&world, &registry, &["--name", "fff-c"]);
    assert!(token.starts_with("p2pdi1") && token.lines().count() == 1, "{token}");
    let peer = Server::start(joining(&world, "peer", &token, &["--share", "share"]));
    until("it is registered under the name of the token", || peers(&world, &registry, &operator) == ["fff-c"]);
    let query = [&["rfc-query", "fff-c", "-o", "json"], operator.as_slice()].concat();
    until("it has read its share", || world.p2pctl(&registry, &query).stdout.contains("rfc48.txt"));
    world.p2pctl(&registry, &[&["get-rfc", "48", "--from", "fff-c"], operator.as_slice()].concat()).exits(0);
    assert_eq!(world.read("out/rfc48.txt"), rfc(48));
    // What an operator says is signed with a certificate for clients only.
    world
        .p2pctl(&registry, &[&["whisper", "fff-c", "hello"], operator.as_slice()].concat())
        .exits(0)
        .stdout_has(&["delivered by fff-c"]);
    // An operator needs no folder of the authority.
    let listed = world.p2pctl(&registry, &[&["token", "list"], operator.as_slice()].concat()).exits(0);
    listed.stdout_has(&["fff-c", "alice", "1/1", "used", "operator"]);
    let serial = fs::read(world.path("peer/tls/certificate.pem")).unwrap();
    peer.kill();
    let peer = Server::start(joining(&world, "peer", &token, &[]));
    until("it is registered again", || peers(&world, &registry, &operator) == ["fff-c"]);
    assert_eq!(fs::read(world.path("peer/tls/certificate.pem")).unwrap(), serial, "the stored certificate is used");
    peer.kill();
    let again = Running::run_to_end(joining(&world, "another", &token, &[]));
    again.exits(1).stdout_is_empty().stderr_has(&["was used already, 1 of 1 times", "p2pctl token create"]);
}

#[test]
fn a_token_for_an_operator_makes_no_peer_and_is_not_used_up() {
    let world = World::new();
    let registry = registry(&world);
    let token = create(&world, &registry, &["--name", "alice", "--operator"]);
    let refused = Running::run_to_end(joining(&world, "peer", &token, &["--name", "alice"]));
    refused.exits(1).stdout_is_empty().stderr_has(&["for a person", "p2pctl login TOKEN", "without --operator"]);
    world.p2pctl(&registry, &["login", &token]).exits(0);
    // One character too many: what is shown must not be of use to whoever reads it.
    let wrong = world.p2pctl(&registry, &["login", &format!("{token}1")]).exits(2).stderr_has(&["invalid value '…'", "token"]);
    assert!(!wrong.stderr.contains(&token), "{}", wrong.stderr);
}

#[test]
fn of_two_machines_with_certificates_for_one_name_one_is_told() {
    let world = World::new();
    let registry = world.registry(&["--ca", "ca", "--ttl", "2s"]);
    let token = create(&world, &registry, &["--name", "twin", "--uses", "2"]);
    let twins = ["one", "two"].map(|state| Server::start(joining(&world, state, &token, &[])));
    let word = "another machine with a certificate for its name";
    until("one of them says so", || twins.iter().any(|twin| twin.process.stderr().contains(word)));
}

#[test]
fn a_revoked_peer_cannot_come_back_and_says_why() {
    let world = World::new();
    let registry = world.registry(&["--ca", "ca", "--ttl", "3s"]);
    let token = create(&world, &registry, &["--name", "fff-c"]);
    let peer = Server::start(joining(&world, "peer", &token, &[]));
    until("it is registered", || peer.process.stderr().contains("registered") || world.path("peer/tls/certificate.pem").exists());
    world.p2pctl(&registry, &["revoke", "fff-c", "--ca", "ca"]).exits(0).stdout_has(&["fff-c is revoked: 1 certificate"]);
    until("it is told", || peer.process.stderr().contains("revoked"));
    peer.kill();
    let many = create(&world, &registry, &["--name", "gpu-*", "--uses", "2"]);
    let peer = Server::start(joining(&world, "gpu", &many, &["--name", "gpu-1"]));
    let revoked = world.p2pctl(&registry, &["revoke", "gpu-1", "--ca", "ca"]).exits(0);
    revoked.stderr_has(&["for gpu-*, which has 1 use left", "p2pctl token revoke "]);
    peer.kill();
    let again = Running::run_to_end(joining(&world, "gpu-again", &many, &["--name", "gpu-1"]));
    again.exits(1).stdout_is_empty().stderr_has(&["the certificate of gpu-1 was revoked; join with a new token"]);
    world.p2pctl(&registry, &["revoke", "nobody", "--ca", "ca"]).exits(1).stderr_has(&["nobody has a certificate for nobody"]);
}

#[test]
fn tokens_are_made_listed_and_revoked_without_a_running_registry() {
    let world = World::new();
    world.run("p2pctl", &["ca", "init", "--ca", "ca"]).exits(0).stdout_has(&["GENERATION", "SHA-256"]);
    world.run("p2pctl", &["ca", "init", "--ca", "ca"]).exits(1).stderr_has(&["has a certificate authority already"]);
    world.run("p2pctl", &["ca", "show", "--ca", "elsewhere"]).exits(1).stderr_has(&["holds no certificate authority"]);
    let made = world.run("p2pctl", &["token", "create", "--ca", "ca", "--name", "fff-c", "--label", "zone=a", "-o", "json"]);
    let made = made.exits(0).json();
    let id = made["record"]["id"].as_str().unwrap().to_owned();
    assert_eq!(made["record"]["labels"]["zone"], "a");
    world.run("p2pctl", &["token", "list", "--ca", "ca"]).exits(0).stdout_has(&[&id, "fff-c", "0/1", "expires in", "zone=a"]);
    world.run("p2pctl", &["token", "revoke", &id, "--ca", "ca"]).exits(0);
    world.run("p2pctl", &["token", "list", "--ca", "ca"]).exits(0).stdout_has(&["revoked"]);
    world.run("p2pctl", &["token", "create", "--ca", "ca", "--name", "gpu-*", "--uses", "9", "--rejoin"]).exits(0);
    world.run("p2pctl", &["token", "list", "--ca", "ca"]).exits(0).stdout_has(&["gpu-*  peer, rejoins  0/9"]);
    for wrong in [&["--name", "a b"] as &[&str], &["--name", "a", "--ttl", "60days"], &["--name", "a-*", "--operator"]] {
        let all = [&["token", "create", "--ca", "ca"], wrong].concat();
        world.run("p2pctl", &all).exits(2).stdout_is_empty();
    }
    // Names that no peer may have, since the registry has them.
    for reserved in ["localhost", "Registry", "host.example"] {
        let all = ["token", "create", "--ca", "ca", "--address", "host.example:7800", "--name", reserved];
        world.run("p2pctl", &all).exits(2).stdout_is_empty().stderr_has(&["is no name for a peer", "choose another"]);
    }
}

#[test]
fn files_are_issued_for_programs_that_do_not_join() {
    let world = World::new();
    world.run("p2pctl", &["ca", "init", "--ca", "ca"]).exits(0);
    let issued = world.run("p2pctl", &["ca", "issue", "--ca", "ca", "--name", "fff-c", "--out", "files", "-o", "json"]);
    let files = issued.exits(0).json();
    let file = |key: &str| files[key].as_str().unwrap().to_owned();
    let registry = registry(&world);
    let (cert, key, ca) = (file("tls_cert"), file("tls_key"), file("tls_ca"));
    let arguments = ["--tls-cert", cert.as_str(), "--tls-key", &key, "--tls-ca", &ca];
    let peer = world.peer("fff-c", &registry, &arguments);
    until("it is registered", || {
        peers(&world, &registry, &arguments).contains(&"fff-c".to_owned()) || !peer.process.stderr().is_empty()
    });
    world.run("p2pctl", &["ca", "issue", "--ca", "ca", "--name", "x"]).exits(1).stderr_has(&["in use", "token create"]);
    world.p2pctl(&registry, &["ca", "rotate", "--ca", "ca"]).exits(0).stdout_has(&["30 days"]);
    world.run("p2pctl", &["ca", "show", "--ca", "ca"]).exits(0).stdout_has(&["\n2 "]);
}

#[test]
fn what_is_wrong_with_a_token_is_said_before_anything_is_tried() {
    let world = World::new();
    for (token, expected) in
        [("hello", "does not begin with p2pdi1"), ("p2pdi1aaaa", "not whole"), ("p2pdi2aaaa", "another version")]
    {
        Running::run_to_end(joining(&world, "peer", token, &[])).exits(2).stdout_is_empty().stderr_has(&[expected]);
        world.run("p2pctl", &["login", token]).exits(2).stdout_is_empty().stderr_has(&[expected]);
    }
    assert!(!world.path("peer").exists());
}
