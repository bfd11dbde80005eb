//! LAN discovery between machines, each a network namespace on one bridge: peers without any configured contact find each other.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

#[path = "support/mod.rs"]
mod support;

use rustix::process::Signal;
use support::{
    lan::Lan,
    process::{Running, Server},
    tools,
    wait::until,
};

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
    until("it warns", || warnings() > 0 && peer.process.stderr().contains("no network"));
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

#[test]
fn from_another_machine_the_page_of_a_peer_needs_its_token() {
    let Some(curl) = tools::curl() else { return };
    let Some(lan) = Lan::new(2) else { return };
    let token = "0123456789abcdef0123456789abcdef";
    std::fs::write(lan.world.path("token"), format!("{token}\n")).unwrap();
    let with = lan.peer_with(1, "with", &["--http-token", "token"]);
    let without = lan.peer_with(1, "without", &[]);
    let url = |peer: &Server, path: &str| format!("http://10.77.0.1:{}{path}", peer.address.port());
    let ask = |arguments: &[&str]| lan.curl(&curl, 2, arguments);
    let (network, whisper) = (url(&with, "/network"), url(&with, "/whisper?name=with&message=hello"));
    let bearer = format!("authorization: Bearer {token}");
    for path in [network.as_str(), &whisper, &url(&with, "/live"), &url(&with, "/documents?find=a")] {
        let refused = ask(&[path]);
        assert!(refused.ends_with("\n403") && refused.contains("/login"), "{refused}");
        assert!(ask(&["-H", "authorization: Bearer wrong", path]).ends_with("\n403"));
    }
    assert!(ask(&["-H", &bearer, &network]).ends_with("\n200"));
    assert!(ask(&["-H", &bearer, &whisper]).ends_with("\n200"));
    // On its own machine it needs none, and where there is no token none is accepted.
    assert!(lan.curl(&curl, 1, &[&network]).ends_with("\n200"));
    for arguments in [vec![url(&without, "/network")], vec!["-H".to_owned(), bearer.clone(), url(&without, "/network")]] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        assert!(ask(&arguments).ends_with("\n403"));
    }
    assert!(ask(&[&url(&without, "/login")]).ends_with("\n404"));
    // The form gives a cookie, which is not the token.
    let jar = lan.world.path("jar").display().to_string();
    let login = url(&with, "/login");
    let form = ask(&["-i", &login]);
    assert!(form.contains("form-action 'self'") && form.contains("type=\"password\""), "{form}");
    assert!(ask(&["-c", &jar, "-d", "token=wrong", &login]).ends_with("\n403"));
    assert!(ask(&["-b", &jar, &network]).ends_with("\n403"));
    let foreign = ["-c", &jar, "-H", "origin: https://evil.example", "-d", &format!("token={token}"), &login];
    assert!(ask(&foreign).ends_with("\n403"));
    let given = ask(&["-i", "-c", &jar, "-d", &format!("token={token}"), &login]);
    assert!(given.ends_with("\n303") && given.contains("HttpOnly; SameSite=Strict") && !given.contains(token), "{given}");
    assert!(ask(&["-b", &jar, &network]).ends_with("\n200"));
    // Guessing ends soon, also for the right token.
    until("it is refused", || ask(&["-H", "authorization: Bearer guess", &network]).ends_with("\n429"));
    assert!(ask(&["-H", &bearer, &network]).ends_with("\n429"));
}

#[test]
fn from_another_machine_the_page_of_a_registry_with_certificates_needs_one() {
    let Some(curl) = tools::curl() else { return };
    let Some(lan) = Lan::new(2) else { return };
    let registry = ["--listen", "10.77.0.1:7800", "--state", "memory", "--ca", "ca"];
    let registry = Server::start(lan.on(1, "registry", &registry));
    let run = |arguments: &[&str]| Running::run_to_end(lan.on(1, "p2pctl", arguments)).exits(0);
    let url = "http://10.77.0.1:7800";
    let make =
        ["--registry", url, "token", "create", "--ca", "ca", "--name", "alice", "--operator", "--address", "10.77.0.1:7800"];
    let token = run(&make).stdout;
    let login = run(&["login", token.trim(), "-o", "json"]).json();
    let file = |key: &str| login[key].as_str().unwrap().to_owned();
    let (cert, key, ca) = (file("tls_cert"), file("tls_key"), file("tls_ca"));
    let url = |path: &str| format!("https://localhost:{}{path}", registry.address.port());
    // The name that its certificate has.
    let connect = format!("localhost:{0}:10.77.0.1:{0}", registry.address.port());
    let ask =
        |machine: usize, more: &[&str]| lan.curl(&curl, machine, &[&["--connect-to", &connect, "--cacert", &ca], more].concat());
    let refused = ask(2, &[&url("/")]);
    assert!(refused.ends_with("\n403") && refused.contains("certificate of the network"), "{refused}");
    assert!(!refused.contains("active peers") && refused.contains("--http-token"), "{refused}");
    assert!(ask(2, &["--cert", &cert, "--key", &key, &url("/")]).ends_with("\n200"));
    assert!(ask(1, &[&url("/")]).ends_with("\n200"), "on its own machine");
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert!(ask(2, &[&url(open)]).ends_with("\n200"), "{open}");
    }
}

#[test]
fn from_another_machine_the_page_of_a_registry_needs_its_token() {
    let Some(curl) = tools::curl() else { return };
    let Some(lan) = Lan::new(2) else { return };
    let token = "0123456789abcdef0123456789abcdef";
    std::fs::write(lan.world.path("token"), format!("{token}\n")).unwrap();
    let start = |port: &str, flags: &[&str]| {
        let listen = ["--listen", port, "--state", "memory"];
        Server::start(lan.on(1, "registry", &[listen.as_slice(), flags].concat()))
    };
    let with = start("10.77.0.1:7800", &["--http-token", "token"]);
    let without = start("10.77.0.1:7810", &[]);
    let url = |registry: &Server, path: &str| format!("http://10.77.0.1:{}{path}", registry.address.port());
    let ask = |arguments: &[&str]| lan.curl(&curl, 2, arguments);
    let (page, login) = (url(&with, "/"), url(&with, "/login"));
    for refused in [ask(&[&page]), ask(&[&url(&without, "/")]), ask(&["-H", "authorization: Bearer wrong", &page])] {
        assert!(refused.ends_with("\n403") && !refused.contains("active peers"), "{refused}");
    }
    assert!(ask(&["-H", &format!("authorization: Bearer {token}"), &page]).ends_with("\n200"));
    for own in [&with, &without] {
        assert!(lan.curl(&curl, 1, &[&url(own, "/")]).ends_with("\n200"), "on its own machine");
        for open in ["/healthz", "/readyz", "/metrics"] {
            assert!(ask(&[&url(own, open)]).ends_with("\n200"), "{open}");
        }
    }
    let jar = lan.world.path("jar").display().to_string();
    let given = ask(&["-i", "-c", &jar, "-d", &format!("token={token}"), &login]);
    assert!(given.ends_with("\n303") && !given.contains(token), "{given}");
    assert!(ask(&["-b", &jar, &page]).ends_with("\n200"));
    assert!(ask(&[&url(&without, "/login")]).ends_with("\n404"));
}

#[test]
fn a_stranger_on_another_machine_gets_neither_the_name_of_a_peer_nor_its_messages() {
    let Some(lan) = Lan::new(3) else { return };
    let registry = Server::start(lan.on(1, "registry", &["--listen", "10.77.0.1:7800", "--state", "memory"]));
    let url = registry.url();
    let start = |machine: usize, name: &str, flags: &[&str]| {
        let (listen, state) = (format!("10.77.0.{machine}:0"), format!("state-{name}-{machine}"));
        let arguments = ["--name", name, "--listen", &listen, "--no-lan", "--state", &state, "--log", "info,peerd::inbox=debug"];
        Server::start(lan.on(machine, "peerd", &[arguments.as_slice(), flags].concat()))
    };
    let victim = start(1, "victim", &["--registry", &url]);
    let sender = start(2, "sender", &["--registry", &url]);
    let p2pctl = |machine: usize, arguments: &[&str]| {
        Running::run_to_end(lan.on(machine, "p2pctl", &[arguments, &["--registry", &url]].concat()))
    };
    until("both are registered", || {
        let listed = p2pctl(1, &["peers"]).exits(0).stdout;
        listed.contains("victim") && listed.contains("sender")
    });
    // The name goes to nobody without the cookie: neither to another machine, nor to another program of the same one.
    let endpoint = victim.address.to_string();
    for (machine, endpoint) in [(3, "10.77.0.3:9"), (1, &endpoint)] {
        let taken = p2pctl(machine, &["register", "--name", "victim", "--endpoint", endpoint]);
        taken.exits(1).stderr_has(&["the name victim is active elsewhere"]);
    }
    p2pctl(3, &["registry", "expire", "victim"]).exits(1).stderr_has(&["only the registry's operator"]);
    // The lowest id, the same name, links to both.
    std::fs::create_dir_all(lan.world.path("state-victim-3")).unwrap();
    std::fs::write(lan.world.path("state-victim-3/id"), format!("{}\n", "0".repeat(32))).unwrap();
    let bootnodes = format!("{},{}", victim.address, sender.address);
    let stranger = start(3, "victim", &["--no-registry", "--bootnodes", &bootnodes]);
    until("the victim knows of it", || victim.process.stderr().contains("another peer has this peer's name"));
    for number in 0..10 {
        for (machine, via) in [(2, &sender), (1, &victim)] {
            let said = format!("secret-{number}-{machine}");
            let via = via.address.to_string();
            let sent = Running::run_to_end(lan.on(machine, "p2pctl", &["whisper", "victim", &said, "--via", &via]));
            sent.exits(0).stdout_has(&["victim"]);
        }
    }
    let inbox = |peer: &Server, machine: usize| -> serde_json::Value {
        let status = Running::run_to_end(lan.on(machine, "p2pctl", &["status", &peer.address.to_string(), "-o", "json"]));
        serde_json::from_str::<serde_json::Value>(&status.exits(0).stdout).unwrap()["inbox"]["received"].clone()
    };
    assert_eq!(inbox(&victim, 1).to_string().trim_matches('"'), "20");
    assert_eq!(inbox(&stranger, 3).to_string().trim_matches('"'), "0");
    // A restart does not free the name for whoever comes first.
    victim.signal(Signal::TERM);
    victim.ended().exits(0);
    let reserved = p2pctl(3, &["register", "--name", "victim", "--endpoint", "10.77.0.3:9"]);
    reserved.exits(1).stderr_has(&["the name victim is reserved"]);
    let again = start(1, "victim", &["--registry", &url]);
    until("it is back", || p2pctl(2, &["peers"]).exits(0).stdout.contains(&again.address.to_string()));
}
