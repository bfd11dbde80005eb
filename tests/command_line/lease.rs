//! register, keepalive, leave.

use crate::support::{network::Network, world::World};
use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

/// The one cookie file in the home of `world`.
fn cookie_file(world: &World) -> Option<PathBuf> {
    let files: Vec<_> = fs::read_dir(world.path("state/p2pdi/p2pctl")).ok()?.map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() <= 1, "{files:?}");
    files.into_iter().next()
}

fn cookie(world: &World) -> String {
    let text = fs::read_to_string(cookie_file(world).unwrap()).unwrap();
    let cookie = text.lines().nth(1).unwrap().to_owned();
    assert!(cookie.len() == 32 && cookie.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    cookie
}

#[test]
fn the_cookie_file_is_private_and_the_cookie_is_never_printed() {
    let network = Network::start();
    for (output, log) in [("table", "off"), ("json", "trace")] {
        let registered =
            network.p2pctl(&["register", "--name", "op", "--endpoint", "127.0.0.1:9", "-o", output, "--log", log]).exits(0);
        let file = cookie_file(&network.world).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let cookie = cookie(&network.world);
        for run in [registered, network.p2pctl(&["keepalive", "-o", output, "--log", log]).exits(0)] {
            assert!(!run.stdout.contains(&cookie) && !run.stderr.contains(&cookie), "{run:#?}");
        }
        let listed = network.p2pctl(&["pquery", "-o", output, "--log", log]).exits(0);
        assert!(!listed.stdout.contains(&cookie) && !listed.stderr.contains(&cookie), "{listed:#?}");
    }
    let cookie = cookie(&network.world);
    let registry = network.registry.process.stderr();
    assert!(!registry.contains(&cookie), "{registry}");
}

#[test]
fn registering_again_keeps_the_record_and_the_cookie_and_increments_the_count() {
    let network = Network::start();
    let register = |endpoint: &str| {
        network
            .p2pctl(&["register", "--name", "op", "--endpoint", endpoint, "--label", "role=test", "-o", "json"])
            .exits(0)
            .json()
    };
    let first = register("127.0.0.1:9");
    let kept = cookie(&network.world);
    assert_eq!(
        (first["peer"]["registration_count"].as_u64(), first["peer"]["state"].as_str()),
        (Some(1), Some("PEER_STATE_ACTIVE"))
    );
    assert_eq!((first["peer"]["labels"]["role"].as_str(), first["cookie"].as_str()), (Some("test"), Some("")), "{first}");
    let second = register("127.0.0.1:10");
    assert_eq!(cookie(&network.world), kept);
    assert_eq!(second["peer"]["registration_count"], 2);
    assert_eq!(second["peer"]["endpoint"], "127.0.0.1:10");
    assert_eq!(second["peer"]["id"], first["peer"]["id"]);
    assert_eq!(second["peer"]["first_registered_at"], first["peer"]["first_registered_at"]);
    assert!(second["revision"].as_u64() > first["revision"].as_u64(), "{first} {second}");
    network
        .p2pctl(&["register", "--name", "op", "--endpoint", "127.0.0.1:10"])
        .exits(0)
        .stdout_has(&["registered op at 127.0.0.1:10", "registration 3"]);
}

#[test]
fn a_registered_name_is_listed_until_it_leaves() {
    let network = Network::start();
    network.p2pctl(&["register", "--name", "op", "--endpoint", "127.0.0.1:9"]).exits(0);
    let stranger = World::new();
    let names = || -> Vec<String> {
        let listed = stranger.p2pctl(&network.registry, &["peers", "-o", "json"]).exits(0).json();
        listed["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(), ["fff-a", "fff-c", "op"]);
    network.p2pctl(&["keepalive"]).exits(0).stdout_has(&["op is active for 30s"]);
    let alive = network.p2pctl(&["keepalive", "-o", "json"]).exits(0).json();
    assert_eq!((alive["peer"]["name"].as_str(), alive["ttl"].as_str()), (Some("op"), Some("30s")), "{alive}");
    network.p2pctl(&["leave"]).exits(0).stdout_has(&["op left"]);
    assert_eq!(names(), ["fff-a", "fff-c"]);
    for verb in ["keepalive", "leave"] {
        network
            .p2pctl(&[verb])
            .exits(1)
            .stdout_is_empty()
            .stderr_has(&["error: not registered with", "hint: run `p2pctl register` first"]);
    }
    // The name is kept for the cookie, not for others, until an operator frees it.
    let elsewhere = ["register", "--name", "op", "--endpoint", "127.0.0.1:9"];
    stranger.p2pctl(&network.registry, &elsewhere).exits(1).stderr_has(&["reserved", "hint: on the registry's machine"]);
    network.p2pctl(&elsewhere).exits(0).stdout_has(&["registration 2"]);
    stranger.p2pctl(&network.registry, &["registry", "expire", "OP"]).exits(0).stdout_has(&["OP is free"]);
    stranger.p2pctl(&network.registry, &["registry", "expire", "op"]).exits(0).stdout_has(&["nobody had op"]);
    stranger.p2pctl(&network.registry, &elsewhere).exits(0).stdout_has(&["registration 1"]);
    network.p2pctl(&["keepalive"]).exits(1).stderr_has(&["does not know the cookie"]);
}

#[test]
fn a_verb_without_registration_leaves_no_observer_behind() {
    let network = Network::start();
    network.p2pctl(&["peers"]).exits(0);
    network.p2pctl(&["get-rfc", "48"]).exits(0);
    assert_eq!(cookie_file(&network.world), None);
    let status = crate::support::network::status(&network.registry);
    assert_eq!((status["active_peers"].as_u64(), status["observers"].as_u64()), (Some(2), Some(0)), "{status}");
}

#[test]
fn a_name_that_is_active_elsewhere_is_refused_with_the_time_to_wait() {
    let network = Network::start();
    network
        .p2pctl(&["register", "--name", "FFF-A", "--endpoint", "127.0.0.1:9"])
        .exits(1)
        .stdout_is_empty()
        .stderr_has(&["fff-a", "hint: choose another name with --name"]);
    assert_eq!(cookie_file(&network.world), None);
}

#[test]
fn a_cookie_unknown_to_the_registry_is_an_error_with_a_hint() {
    let network = Network::start();
    network.p2pctl(&["register", "--name", "op", "--endpoint", "127.0.0.1:9"]).exits(0);
    let file = cookie_file(&network.world).unwrap();
    fs::write(&file, "op\n00000000000000000000000000000000\n").unwrap();
    network.p2pctl(&["keepalive"]).exits(1).stdout_is_empty().stderr_has(&["hint: p2pctl register takes the name again"]);
    network
        .p2pctl(&["leave"])
        .exits(1)
        .stdout_is_empty()
        .stderr_has(&["error: op has no lease to end", "hint: the saved cookie"]);
    assert_eq!(cookie_file(&network.world), None);
    fs::write(&file, "op\n00000000000000000000000000000000\n").unwrap();
    // A verb that only queries registers as an observer and succeeds.
    network.p2pctl(&["peers"]).exits(0).stdout_has(&["fff-a", "fff-c"]);
    fs::write(&file, "nonsense").unwrap();
    network.p2pctl(&["keepalive"]).exits(1).stderr_has(&["is damaged", "hint: delete it"]);
}
