//! LAN discovery between machines, each a network namespace on one bridge: peers without any configured contact find each other.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

#[path = "support/mod.rs"]
mod support;

use rustix::process::Signal;
use std::{
    path::PathBuf,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};
use support::{
    process::{Ended, Running, Server},
    tools,
    wait::until,
    world::World,
};

/// A bridge and the machines on it. The bridge has its own namespace, so that it is invisible outside and disappears with the
/// namespaces.
struct Lan {
    ip: PathBuf,
    /// The first has the bridge.
    namespaces: Vec<String>,
    world: World,
}

impl Lan {
    /// `None` if there is no `ip`, or namespaces are not permitted.
    fn new(machines: usize) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let ip = tools::ip()?;
        let lan = format!("p2pdi-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let namespaces = (0..=machines).map(|number| format!("{lan}-{number}")).collect();
        let lan = Self { ip, namespaces, world: World::new() };
        let set_up = || {
            for namespace in &lan.namespaces {
                lan.ip(&["netns", "add", namespace])?;
                lan.ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            }
            let switch = &lan.namespaces[0];
            lan.ip(&["-n", switch, "link", "add", "bridge", "type", "bridge"])?;
            lan.ip(&["-n", switch, "link", "set", "bridge", "up"])?;
            for (number, namespace) in lan.namespaces.iter().enumerate().skip(1) {
                let port = format!("port{number}");
                let cable = ["type", "veth", "peer", "name", "eth0", "netns", namespace];
                lan.ip(&[["-n", switch, "link", "add", port.as_str()].as_slice(), &cable].concat())?;
                lan.ip(&["-n", switch, "link", "set", &port, "master", "bridge", "up"])?;
                lan.ip(&["-n", namespace, "address", "add", &format!("10.77.0.{number}/24"), "dev", "eth0"])?;
                lan.ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
            }
            Ok::<_, String>(())
        };
        match set_up() {
            Ok(()) => Some(lan),
            Err(error) => {
                // The environment does not permit it; no package would help.
                tools::skipped(&format!("network namespaces are not available: {error}"));
                None
            }
        }
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        let done = Command::new(&self.ip).args(arguments).output().map_err(|error| error.to_string())?;
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()) }
    }

    /// One of the programs on one machine (the first is 1).
    fn on(&self, machine: usize, program: &str, arguments: &[&str]) -> Command {
        let program = self.world.command(program, arguments);
        let mut command = Command::new(&self.ip);
        command.args(["netns", "exec", &self.namespaces[machine]]).arg(program.get_program()).args(program.get_args());
        command.current_dir(self.world.path("")).env_clear();
        let set =
            program.get_envs().filter_map(|(name, value)| Some((name, value?))).filter(|(name, _)| *name != "P2PDI_PEER_NO_LAN");
        command.envs(set);
        command
    }

    fn peer(&self, machine: usize, name: &str) -> Server {
        let state = format!("state-{name}");
        let arguments = ["--name", name, "--listen", "0.0.0.0:0", "--no-registry", "--state", &state];
        Server::start(self.on(
            machine,
            "peerd",
            &[arguments.as_slice(), &["--log", "info,peerd::discovery=debug,peerd::inbox=debug"]].concat(),
        ))
    }

    /// The same, with more flags.
    fn peer_with(&self, machine: usize, name: &str, flags: &[&str]) -> Server {
        let state = format!("state-{name}");
        let arguments = ["--name", name, "--listen", "0.0.0.0:0", "--no-registry", "--state", &state];
        Server::start(self.on(
            machine,
            "peerd",
            &[arguments.as_slice(), flags, &["--log", "info,peerd::discovery=debug"]].concat(),
        ))
    }

    fn p2pctl(&self, machine: usize, peer: &Server, arguments: &[&str]) -> Ended {
        let via = format!("127.0.0.1:{}", peer.address.port());
        Running::run_to_end(self.on(machine, "p2pctl", &[arguments, &["--via", &via]].concat()))
    }

    /// Peers that answer the one on `machine`.
    fn count(&self, machine: usize, peer: &Server) -> usize {
        let counted = self.p2pctl(machine, peer, &["peer-count", "--wait", "1s"]).exits(0);
        counted.stdout.trim_end().parse().unwrap()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            // Fails if it was not created.
            let _deleted = self.ip(&["netns", "delete", namespace]);
        }
    }
}

#[test]
fn peers_of_a_lan_find_each_other_and_notice_who_leaves() {
    const SENDER: usize = 6;
    let Some(lan) = Lan::new(6) else { return };
    // Alone at first.
    let sender = lan.peer(SENDER, "sender");
    assert_eq!(lan.count(SENDER, &sender), 0);
    let mut receivers: Vec<_> = (1..=4).map(|number| lan.peer(number, &format!("receiver-{number}"))).collect();
    until("four peers answer", || lan.count(SENDER, &sender) == 4);
    receivers.push(lan.peer(5, "receiver-5"));
    until("the fifth peer answers", || lan.count(SENDER, &sender) == 5);

    // One is killed without a goodbye and restarts on another port, with the same id.
    receivers.remove(3).kill();
    receivers.insert(3, lan.peer(4, "receiver-4"));
    until("the restarted peer answers", || lan.count(SENDER, &sender) == 5);

    // An acknowledgement can be lost with a link that is replaced, so the broadcast is repeated until all links are settled.
    let mut sent = 0;
    until("all five acknowledge a broadcast", || {
        sent += 1;
        let result = lan.p2pctl(SENDER, &sender, &["broadcast", "hello", "--wait", "5s", "-o", "json"]).exits(0).json();
        let counts = (result["known"].as_u64(), result["acknowledged"].as_u64());
        counts == (Some(5), Some(5)) && result["missing"] == serde_json::json!([])
    });
    let heard = |peer: &Server| peer.process.stderr().matches(r#"broadcast received from="sender" kind=text"#).count();
    assert_eq!(receivers.iter().map(heard).collect::<Vec<_>>(), [sent; 5]);
    // The announced endpoint of a peer can be dialled.
    lan.p2pctl(SENDER, &sender, &["whisper", "receiver-5", "hello"]).exits(0).stdout_has(&["delivered by receiver-5"]);

    let first = receivers.remove(0);
    first.signal(Signal::INT);
    first.ended().exits(0);
    // Within seconds: without a goodbye, its records would expire after two minutes.
    let is_gone = |peer: &Server| {
        peer.process.stderr().lines().any(|line| line.contains("gone from the LAN") && line.contains("receiver-1-"))
    };
    until("all peers have logged the goodbye", || is_gone(&sender) && receivers.iter().all(is_gone));
    until("four peers answer again", || lan.count(SENDER, &sender) == 4);
    for peer in receivers.into_iter().chain([sender]) {
        peer.signal(Signal::INT);
        let ended = peer.ended().exits(0);
        assert!(!ended.stderr.contains("ERROR"), "{ended:#?}");
    }
}

#[test]
fn peers_on_loopback_find_each_other_and_are_not_found_by_other_machines() {
    let Some(lan) = Lan::new(2) else { return };
    let on_loopback = |machine: usize, name: &str| {
        let state = format!("state-{name}");
        let arguments = ["--name", name, "--listen", "127.0.0.1:0", "--no-registry", "--state", &state];
        Server::start(lan.on(machine, "peerd", &arguments))
    };
    let (a, b, elsewhere) = (on_loopback(1, "a"), on_loopback(1, "b"), on_loopback(2, "elsewhere"));
    let open = lan.peer(2, "open");
    until("the peers of one machine are linked", || lan.count(1, &a) == 1 && lan.count(1, &b) == 1);
    until("the log says how to be found on the LAN", || a.process.stderr().contains("--listen 0.0.0.0:"));
    until("the peer on the LAN is announced", || open.process.stderr().contains("announced by multicast DNS"));
    // No peer on loopback has found it, and it has found none of them.
    for peer in [&a, &b, &elsewhere, &open] {
        assert!(!peer.process.stderr().contains("peer=open"), "{}", peer.process.stderr());
        assert!(!peer.process.stderr().contains("peer=elsewhere"), "{}", peer.process.stderr());
    }
    assert_eq!((lan.count(2, &open), lan.count(2, &elsewhere)), (0, 0));
}

#[test]
fn a_peer_without_a_network_warns_once_and_runs() {
    let Some(lan) = Lan::new(1) else { return };
    lan.ip(&["-n", &lan.namespaces[1], "link", "delete", "eth0"]).unwrap();
    let arguments =
        ["--name", "a", "--listen", "0.0.0.0:0", "--advertise", "a.example:7801", "--no-registry", "--state", "state"];
    let peer = Server::start(lan.on(1, "peerd", &arguments));
    let warnings = || peer.process.stderr().matches("LAN discovery does not work").count();
    until("it warns", || warnings() > 0);
    assert!(peer.process.stderr().contains("no network"), "{}", peer.process.stderr());
    assert_eq!(lan.count(1, &peer), 0);
    peer.signal(Signal::INT);
    let ended = peer.ended().exits(0);
    assert_eq!(ended.stderr.matches("LAN discovery does not work").count(), 1);
}

#[test]
fn a_peer_that_listens_on_the_lan_is_controlled_from_its_own_machine_only() {
    let Some(lan) = Lan::new(2) else { return };
    let arguments = ["--name", "a", "--listen", "10.77.0.1:0", "--no-registry", "--no-lan", "--state", "state"];
    let peer = Server::start(lan.on(1, "peerd", &arguments));
    let at = peer.address.to_string();
    let count = |machine| Running::run_to_end(lan.on(machine, "p2pctl", &["peer-count", "--wait", "100ms", "--via", &at]));
    count(1).exits(0).stdout_has(&["0\n"]);
    count(2).exits(1).stdout_is_empty().stderr_has(&["from its own machine only"]);
}

#[test]
fn peers_of_one_machine_that_listen_on_its_lan_address_find_each_other() {
    let Some(lan) = Lan::new(1) else { return };
    let start = |name: &str| {
        let state = format!("state-{name}");
        let arguments = ["--name", name, "--listen", "10.77.0.1:0", "--no-registry", "--state", &state];
        Server::start(lan.on(1, "peerd", &arguments))
    };
    let (a, b) = (start("a"), start("b"));
    let at = a.address.to_string();
    until("the two are linked", || {
        let counted = Running::run_to_end(lan.on(1, "p2pctl", &["peer-count", "--wait", "1s", "--via", &at])).exits(0);
        counted.stdout == "1\n"
    });
    drop(b);
}

#[test]
fn a_peer_without_an_address_waits_for_one_and_registers_again_when_it_changes() {
    let Some(lan) = Lan::new(2) else { return };
    let namespace = &lan.namespaces[1];
    let address = |verb: &str, ip: &str| lan.ip(&["-n", namespace, "address", verb, &format!("{ip}/24"), "dev", "eth0"]).unwrap();
    address("del", "10.77.0.1");
    let registry = Server::start(lan.on(2, "registry", &["--listen", "0.0.0.0:0", "--state", "memory"]));
    let port = registry.address.port();
    let url = format!("http://10.77.0.2:{port}");
    let own = ["--name", "late", "--listen", "0.0.0.0:0", "--no-lan", "--registry", &url, "--state", "state-late"];
    let peer = Server::start(lan.on(1, "peerd", &own));
    until("the status says what is missing", || {
        lan.p2pctl(1, &peer, &["status", "-o", "json"]).stdout.contains("no address yet that other peers can dial")
    });
    let listed =
        || Running::run_to_end(lan.on(2, "p2pctl", &["peers", "--registry", &format!("http://127.0.0.1:{port}")])).stdout;
    for ip in ["10.77.0.1", "10.77.0.9"] {
        address("add", ip);
        until("it is registered there", || listed().contains(&format!("{ip}:{}", peer.address.port())));
        address("del", ip);
    }
}

#[test]
fn peers_of_two_networks_on_one_lan_do_not_merge() {
    let Some(lan) = Lan::new(4) else { return };
    let peers: Vec<_> = (1..=4)
        .map(|number| {
            let network = if number % 2 == 0 { "even" } else { "odd" };
            lan.peer_with(number, &format!("peer-{number}"), &["--network", network])
        })
        .collect();
    for (index, peer) in peers.iter().enumerate() {
        until("each finds the other of its network", || lan.count(index + 1, peer) == 1);
        until("an announcement of the other network is refused", || {
            peer.process.stderr().contains("and this peer is of the network")
        });
    }
    // Somebody who asks for the link by hand is told why there is none.
    let other = format!("10.77.0.2:{}", peers[1].address.port());
    lan.p2pctl(1, &peers[0], &["join", &other]).exits(1).stderr_has(&["network even", "network odd"]);
    assert_eq!(lan.count(1, &peers[0]), 1);
}

#[test]
fn a_machine_registers_peers_at_its_own_address_only_and_not_many() {
    let Some(lan) = Lan::new(2) else { return };
    let start = |flags: &[&str]| {
        let arguments = [&["--listen", "0.0.0.0:0", "--state", "memory"], flags].concat();
        Server::start(lan.on(1, "registry", &arguments))
    };
    let register = |registry: &Server, name: &str, endpoint: &str| {
        let (url, state) = (format!("http://10.77.0.1:{}", registry.address.port()), format!("state-{name}"));
        let arguments = ["register", "--name", name, "--endpoint", endpoint, "--registry", &url, "--state", &state];
        Running::run_to_end(lan.on(2, "p2pctl", &arguments))
    };
    let registry = start(&["--max-peers-per-address", "2"]);
    register(&registry, "own", "10.77.0.2:7801").exits(0);
    for foreign in ["10.77.0.1:7801", "127.0.0.1:22", "localhost:22", "no-such-host.invalid:22"] {
        register(&registry, "foreign", foreign).exits(1).stderr_has(&["10.77.0.2", "--allow-foreign-endpoints"]);
    }
    register(&registry, "second", "10.77.0.2:7802").exits(0);
    register(&registry, "third", "10.77.0.2:7803").exits(1).stderr_has(&["--max-peers-per-address"]);
    let open = start(&["--allow-foreign-endpoints"]);
    register(&open, "foreign", "10.77.0.1:7801").exits(0);
}
