//! Failures of verbs: no server answers, another kind of server answers, state cannot be written.

use crate::support::{network::Network, process::Running, wait::WAIT_TIMEOUT, world::World};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Command,
    thread,
};

/// Verbs that need a registry.
const REGISTRY_VERBS: [&[&str]; 11] = [
    &["get", "rfc*"],
    &["ls"],
    &["search", "plateau"],
    &["swarm", "rfc48.txt"],
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
    for verb in REGISTRY_VERBS {
        let run = world.run("p2pctl", &[&["--registry", "http://127.0.0.1:1"], verb].concat());
        run.exits(1)
            .stdout_is_empty()
            .stderr_has(&["error: the registry at 127.0.0.1:1 does not answer", "hint: start one with `registry`"]);
    }
}

#[test]
fn a_web_server_in_place_of_the_registry_is_named() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
            let _read = stream.read(&mut [0; 1024]);
            let _written = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let run = world.run("p2pctl", &["--registry", &format!("http://{address}"), "peers"]);
    run.exits(1).stdout_is_empty().stderr_has(&["is a web server, not a registry", "hint: "]);
}

#[test]
fn a_peer_in_place_of_a_registry_and_a_registry_in_place_of_a_peer_are_named() {
    let network = Network::start();
    let peer = network.c.address.to_string();
    let run = network.world.run("p2pctl", &["--registry", &format!("http://{peer}"), "peers"]);
    run.exits(1).stdout_is_empty().stderr_has(&[&format!("error: {peer} is a peer, not a registry"), "hint: "]);
    let registry = network.registry.address.to_string();
    for verb in [["peer-count"].as_slice(), &["broadcast", "hi"], &["ping", "fff-c"], &["chat"]] {
        let run = network.world.run("p2pctl", &[verb, &["--via", &registry]].concat());
        run.exits(1).stdout_is_empty().stderr_has(&[&format!("{registry} is a registry, not a peer")]);
    }
    for verb in [["ping", &registry].as_slice(), &["status", &registry], &["rfc-query", &registry], &["peers", "--of", &registry]]
    {
        network.p2pctl(verb).exits(1).stdout_is_empty().stderr_has(&[&format!("{registry} is a registry, not a peer")]);
    }
}

#[test]
fn a_host_that_does_not_exist_is_an_error() {
    let world = World::new();
    let run = world.run("p2pctl", &["--registry", "http://no-such-host.invalid:7800", "peers"]);
    let run = run.exits(1).stdout_is_empty().stderr_has(&["the registry at no-such-host.invalid:7800"]);
    // The second: without a name server, as in a container without a network.
    let whys = ["Name or service not known", "Temporary failure in name resolution"];
    assert!(whys.iter().any(|why| run.stderr.contains(why)), "{run:#?}");
}

#[test]
fn get_rfc_without_registered_peers_fails_with_a_hint() {
    let world = World::new();
    let registry = world.registry(&["--state", "memory"]);
    let run = world.p2pctl(&registry, &["get-rfc", "48"]).exits(1).stdout_is_empty();
    run.stderr_has(&["error: nobody has RFC 48: no peers are registered", "hint: start one with `peerd --share DIR`"]);
    world.p2pctl(&registry, &["peers"]).exits(0).stdout_has(&["NAME"]);
}

#[test]
fn a_holder_that_was_killed_is_named() {
    let network = Network::start();
    let Network { a, c, registry, world } = network;
    a.kill();
    let run = world.p2pctl(&registry, &["get-rfc", "2324"]).exits(1).stdout_is_empty();
    // In either case: the other peer may or may not list it as a holder yet.
    run.stderr_has(&["error: ", "RFC 2324", "fff-a"]);
    world.p2pctl(&registry, &["ping", "fff-a"]).exits(1).stdout_is_empty().stderr_has(&["fff-a", "does not answer"]);
    drop(c);
}

#[test]
fn cookies_are_in_the_users_state_folder_or_the_given_one_and_without_either_register_fails() {
    let network = Network::start();
    let mut command = network.world.p2pctl_command(&network.registry, &["register", "--name", "op", "--endpoint", "127.0.0.1:9"]);
    command.env_remove("HOME").env_remove("XDG_STATE_HOME");
    Running::run_to_end(command).exits(2).stdout_is_empty().stderr_has(&["hint: give a folder with --state"]);
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
        Running::run_to_end(command).exits(0);
    }
}

#[test]
fn register_takes_no_lease_if_the_cookie_cannot_be_saved() {
    let network = Network::start();
    fs::write(network.world.path("a-file"), "").unwrap();
    let register = ["register", "--name", "op", "--endpoint", "127.0.0.1:9", "--state", "a-file/below"];
    network.p2pctl(&register).exits(1).stdout_is_empty().stderr_has(&["error: cannot write", "hint: ", "--state"]);
    let status = crate::support::network::status(&network.registry);
    assert_eq!(status["active_peers"].as_u64(), Some(2), "{status}");
}

#[test]
fn concurrent_registrations_leave_a_valid_cookie_file() {
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
    network.p2pctl(&["keepalive"]).exits(0).stdout_has(&["is active for"]);
}

#[test]
fn a_limit_on_the_size_of_files_ends_a_peer_with_words() {
    let world = World::new();
    world.share("share", &[48]);
    let own = ["--no-registry", "--name", "a", "--listen", "127.0.0.1:0", "--share", "share", "--state", "state-a"];
    let peerd = world.command("peerd", &own);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 0 && exec \"$0\" \"$@\""]).arg(peerd.get_program()).args(peerd.get_args());
    limited.env_clear().current_dir(world.path(""));
    let ended = Running::run_to_end(limited).exits(1).stdout_is_empty();
    let ended = ended.stderr_has(&["error: ", "File too large", "hint: ", "--state"]);
    assert!(!ended.stderr.contains("--share"), "{ended:?}");
}
