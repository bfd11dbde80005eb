//! up and demo: networks in one process.

use crate::support::{
    process::Running,
    wait::{eventually, until},
    world::World,
};
use rustix::process::Signal;
use std::{
    fs,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

#[test]
fn up_runs_until_ctrl_c_or_sigterm() {
    let world = World::new();
    for signal in [Signal::INT, Signal::TERM] {
        let mut up =
            Running::start(world.command("p2pctl", &["up", "--peers", "2", "--port", "0", "-o", "json", "--log", "info"]));
        let line = eventually("it is up", || {
            assert!(up.is_running(), "{}", up.stderr());
            Some(up.stdout()).filter(|printed| printed.contains('\n'))
        });
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        let registry = json["registry"].as_str().unwrap();
        let peers = json["peers"].as_array().unwrap();
        assert_eq!(peers.len(), 2, "{json}");
        assert!(peers.iter().all(|peer| peer["documents"].as_u64() > Some(0)), "{json}");
        world.run("p2pctl", &["--registry", registry, "get-rfc", "48", "--force"]).exits(0);
        let listed = world.run("p2pctl", &["--registry", registry, "peers"]).exits(0);
        listed.stdout_has(&["peer-1", "peer-2"]);
        up.signal(signal);
        let ended = up.ended().exits(0);
        assert_eq!(ended.stdout.lines().count(), 1, "{ended:#?}");
        assert_eq!(ended.stderr.matches("left the registry").count(), 2, "{ended:#?}");
        assert!(!ended.stderr.contains("WARN"), "{ended:#?}");
        let refused = TcpStream::connect(registry.strip_prefix("http://").unwrap());
        assert!(refused.is_err(), "the registry still listens");
    }
}

#[test]
fn up_shares_the_given_folder() {
    let world = World::new();
    world.share("mine", &[10]);
    let mut up = Running::start(world.command("p2pctl", &["up", "--peers", "1", "--port", "0", "--share", "mine"]));
    let printed = eventually("it is up", || {
        assert!(up.is_running(), "{}", up.stderr());
        Some(up.stdout()).filter(|printed| printed.contains("1 document"))
    });
    assert!(printed.starts_with("registry  http://127.0.0.1:"), "{printed}");
    up.signal(Signal::INT);
    up.ended().exits(0).stderr_has(&["p2pctl --registry http://127.0.0.1:", "Ctrl-C stops it"]);
    world
        .run("p2pctl", &["up", "--port", "0", "--share", "missing"])
        .exits(2)
        .stdout_is_empty()
        .stderr_has(&["missing", "hint: "]);
}

#[test]
fn up_on_a_port_in_use_fails_with_a_hint() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    world.run("p2pctl", &["up", "--port", &port]).exits(1).stdout_is_empty().stderr_has(&["error: cannot listen on", "hint: "]);
}

#[test]
fn the_demo_runs_every_step_and_leaves_no_files() {
    let world = World::new();
    let temporary = world.share("temporary", &[]);
    let mut command = world.command("p2pctl", &["demo"]);
    command.env("TMPDIR", &temporary);
    let demo = Running::run_to_end(command).exits(0);
    assert_eq!(demo.stderr, "", "{demo:#?}");
    demo.stdout_has(&[
        "registry   http://127.0.0.1:",
        "registered fff-a",
        "registered fff-c",
        "found      RFC 48: ",
        "fetched    rfc48.txt from ",
        "found      RFC 8881: ",
        "fetched    rfc8881.txt from ",
        "verified   b3:",
        "whispered  fff-a to fff-c",
        "Every step succeeded",
    ]);
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn the_demo_prints_one_json_object_per_step() {
    let world = World::new();
    let steps = world.run("p2pctl", &["demo", "-o", "json"]).exits(0).json_lines();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    let expected =
        ["registry", "registered", "registered", "registered", "found", "fetched", "found", "fetched", "whispered", "done"];
    assert_eq!(names, expected);
    let hash = blake3::hash(&crate::support::world::rfc(48)).to_hex();
    assert_eq!(steps[5]["document"]["blake3"], hash.as_str());
}

/// `command` with at most `descriptors` open files and sockets.
fn with_descriptors(command: &Command, descriptors: usize) -> Command {
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.current_dir(command.get_current_dir().unwrap());
    limited
}

#[test]
fn many_peers_in_one_process_keep_few_connections_and_serve_many_fetches_at_once() {
    // Were each peer to keep a connection to each other, they had more than three thousand descriptors.
    const PEERS: usize = 40;
    const DESCRIPTORS: usize = 2_000;
    const FETCHES: usize = 20;
    let world = World::new();
    world.share("mine", &[48]);
    let up = world.command("p2pctl", &["up", "--peers", &PEERS.to_string(), "--port", "0", "--share", "mine", "-o", "json"]);
    let mut up = Running::start(with_descriptors(&up, DESCRIPTORS));
    let line = eventually("it is up", || {
        assert!(up.is_running(), "{}", up.stderr());
        Some(up.stdout()).filter(|printed| printed.contains('\n'))
    });
    let registry = serde_json::from_str::<serde_json::Value>(&line).unwrap()["registry"].as_str().unwrap().to_owned();
    // Until each peer has listed the documents of each other.
    let (mut most, started) = (0, Instant::now());
    until("some rounds of polls are over", || {
        most = most.max(up.descriptors());
        started.elapsed() >= Duration::from_secs(5)
    });
    assert!(most < DESCRIPTORS * 3 / 4, "{most} descriptors");
    let fetches: Vec<_> = (0..FETCHES)
        .map(|fetch| {
            let out = format!("out-{fetch}");
            Running::start(world.command("p2pctl", &["--registry", &registry, "get-rfc", "48", "--out", &out]))
        })
        .collect();
    for fetch in fetches {
        fetch.ended().exits(0);
    }
    assert!(!up.stderr().contains("too many open files"), "{}", up.stderr());
    up.signal(Signal::INT);
    up.ended().exits(0);
}

#[test]
fn drain_ends_a_peer_in_order_with_exit_code_0() {
    let world = World::new();
    let registry = world.registry(&["--state", "memory"]);
    let (peer, other) = (world.peer("fff-a", &registry, &[]), world.peer("fff-b", &registry, &[]));
    for server in [&peer, &other] {
        crate::support::network::ready(server);
    }
    let at = peer.address.to_string();
    world.p2pctl(&registry, &["drain", "--at", &at]).exits(0).stdout_has(&[&format!("{at} is drained, and ends")]);
    peer.ended().exits(0).stderr_has(&["left the registry"]);
    let listed = world.p2pctl(&registry, &["peers", "-o", "json"]).exits(0).json();
    assert_eq!(listed["peers"].as_array().unwrap().len(), 1, "{listed}");
    world.p2pctl(&registry, &["drain", "--at", &at]).exits(1).stdout_is_empty().stderr_has(&["does not answer"]);
    let json = world.p2pctl(&registry, &["drain", "--at", &other.address.to_string(), "-o", "json"]).exits(0).json();
    assert_eq!(json["drained"], true, "{json}");
    other.ended().exits(0);
}
