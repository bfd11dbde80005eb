//! What the world can do to a verb: nobody answers, strangers answer.

use crate::support::{network::Network, process::Running, wait::PATIENCE, world::World};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

/// Verbs that need a registry.
const ASKING: [&[&str]; 7] = [
    &["register", "--name", "op", "--endpoint", "127.0.0.1:9"],
    &["peers"],
    &["status"],
    &["get-rfc", "48"],
    &["get", "rfc48.txt"],
    &["rfc-query", "fff-c"],
    &["ping", "fff-c"],
];

#[test]
fn a_registry_that_is_down_is_named_with_a_hint() {
    let world = World::new();
    for verb in ASKING {
        let run = world.run("p2pctl", &[&["--registry", "http://127.0.0.1:1"], verb].concat());
        run.exits(1)
            .prints_nothing()
            .says(&["error: the registry at 127.0.0.1:1 does not answer", "hint: start one with `registry`"]);
    }
}

#[test]
fn a_registry_that_is_something_else_is_an_error() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let _read = stream.read(&mut [0; 1024]);
            let _written = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let run = world.run("p2pctl", &["--registry", &format!("http://{address}"), "peers"]);
    run.exits(1).prints_nothing().says(&["is a web server, not a registry", "hint: "]);
}

#[test]
fn a_server_of_another_kind_is_named() {
    let network = Network::start();
    let peer = network.c.address.to_string();
    let asked = network.world.run("p2pctl", &["--registry", &format!("http://{peer}"), "peers"]);
    asked.exits(1).prints_nothing().says(&[&format!("error: {peer} is a peer, not a registry"), "hint: "]);
    let registry = network.registry.address.to_string();
    for verb in [["peer-count"].as_slice(), &["broadcast", "hi"], &["ping", "fff-c"], &["chat"]] {
        let asked = network.world.run("p2pctl", &[verb, &["--via", &registry]].concat());
        asked.exits(1).prints_nothing().says(&[&format!("{registry} is a registry, not a peer")]);
    }
    for verb in [["ping", &registry].as_slice(), &["status", &registry], &["rfc-query", &registry], &["peers", "--of", &registry]]
    {
        network.p2pctl(verb).exits(1).prints_nothing().says(&[&format!("{registry} is a registry, not a peer")]);
    }
}

#[test]
fn a_host_that_does_not_exist_is_an_error() {
    let world = World::new();
    let run = world.run("p2pctl", &["--registry", "http://no-such-host.invalid:7800", "peers"]);
    run.exits(1).prints_nothing().says(&["no-such-host.invalid:7800 does not answer"]);
}

#[test]
fn without_peers_nobody_has_anything() {
    let world = World::new();
    let registry = world.registry(&["--state", "memory"]);
    let run = world.p2pctl(&registry, &["get-rfc", "48"]).exits(1).prints_nothing();
    run.says(&["error: nobody has RFC 48: no peers are registered", "hint: start one with `peerd --share DIR`"]);
    world.p2pctl(&registry, &["peers"]).exits(0).prints(&["NAME"]);
}

#[test]
fn a_holder_that_died_is_named() {
    let network = Network::start();
    let Network { a, c, registry, world } = network;
    a.kill();
    let run = world.p2pctl(&registry, &["get-rfc", "2324"]).exits(1).prints_nothing();
    // Whether the other peer had learned yet who holds it or not.
    run.says(&["error: ", "RFC 2324", "fff-a"]);
    world.p2pctl(&registry, &["ping", "fff-a"]).exits(1).prints_nothing().says(&["fff-a", "does not answer"]);
    drop(c);
}

#[test]
fn the_state_folder_is_the_users_and_without_one_the_verb_says_so() {
    let network = Network::start();
    let mut command = network.world.p2pctl_command(&network.registry, &["register", "--name", "op", "--endpoint", "127.0.0.1:9"]);
    command.env_remove("HOME").env_remove("XDG_STATE_HOME");
    Running::to_its_end(command).exits(2).prints_nothing().says(&["hint: give a folder with --state"]);
    network.p2pctl(&["register", "--name", "op", "--endpoint", "127.0.0.1:9", "--state", "mine"]).exits(0);
    assert_eq!(fs::read_dir(network.world.path("mine")).unwrap().count(), 1);
    network.p2pctl(&["keepalive", "--state", "mine"]).exits(0);
    network.p2pctl(&["keepalive"]).exits(1);
}

#[test]
fn verbs_that_keep_no_cookie_need_no_home() {
    let network = Network::start();
    for verb in [["peers"].as_slice(), &["status"], &["get-rfc", "48"], &["whisper", "fff-c", "hi"]] {
        let mut command = network.world.p2pctl_command(&network.registry, verb);
        command.env_remove("HOME").env_remove("XDG_STATE_HOME");
        Running::to_its_end(command).exits(0);
    }
}

#[test]
fn without_a_place_for_the_cookie_no_lease_is_taken() {
    let network = Network::start();
    fs::write(network.world.path("a-file"), "").unwrap();
    let register = ["register", "--name", "op", "--endpoint", "127.0.0.1:9", "--state", "a-file/below"];
    network.p2pctl(&register).exits(1).prints_nothing().says(&["error: cannot write", "hint: ", "--state"]);
    let status = crate::support::network::status(&network.registry);
    assert_eq!(status["active_peers"].as_u64(), Some(2), "{status}");
}

#[test]
fn registrations_at_the_same_time_all_keep_a_cookie() {
    let network = Network::start();
    let names: Vec<_> = (0..8).map(|n| format!("op-{n}")).collect();
    let running: Vec<_> = names
        .iter()
        .map(|name| {
            Running::start(
                network.world.p2pctl_command(&network.registry, &["register", "--name", name, "--endpoint", "127.0.0.1:9"]),
            )
        })
        .collect();
    running.into_iter().for_each(|run| drop(run.ended().exits(0)));
    network.p2pctl(&["keepalive"]).exits(0).prints(&["is active for"]);
}
