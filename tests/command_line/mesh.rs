//! Three peers without a registry, as programs; C has A and B as bootnodes. Verbs that use the mesh through one peer.

use crate::support::{
    http,
    process::{Running, Server},
    wait::{eventually, until},
    world::World,
};
use rustix::process::Signal;
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

struct Three {
    // The peers are dropped before the folder they use.
    a: Server,
    b: Server,
    c: Server,
    world: World,
}

pub(crate) fn peer(world: &World, name: &str, arguments: &[&str]) -> Server {
    let state = format!("state-{name}");
    let own = ["--no-registry", "--name", name, "--listen", "127.0.0.1:0", "--state", &state];
    Server::start(world.command("peerd", &[&own, arguments].concat()))
}

fn get(peer: &Server, path: &str) -> (u16, String) {
    let answer = http::get(peer.address, path, &[]);
    (answer.status, answer.body)
}

impl Three {
    fn start() -> Self {
        let world = World::new();
        let (a, b) = (peer(&world, "A", &[]), peer(&world, "B", &[]));
        let bootnodes = format!("A:{},B:{}", a.address.port(), b.address.port());
        let c = peer(&world, "C", &["--bootnodes", &bootnodes]);
        until("C is linked to both", || ["to A at ", "to B at "].iter().all(|linked| get(&c, "/").1.contains(linked)));
        Self { a, b, c, world }
    }

    fn via<'a>(&self, via: &'a str, arguments: &[&'a str]) -> crate::support::process::Ended {
        self.world.run("p2pctl", &[arguments, &["--via", via]].concat())
    }
}

#[test]
fn every_peer_reaches_every_other_with_curl_and_with_p2pctl() {
    let three = Three::start();
    let Three { a, b, c, .. } = &three;
    for (from, to, receiver) in [(c, "A", a), (c, "B", b), (b, "C", c), (a, "C", c), (a, "B", b)] {
        let (code, body) =
            get(from, &format!("/whisper?name={}&message=by-curl-from-{}", to.to_lowercase(), from.address.port()));
        assert_eq!(code, 200, "{body}");
        assert!(body.starts_with(&format!("delivered by {to}")), "{body}");
        three
            .via(&from.address.to_string(), &["whisper", to, "by p2pctl"])
            .exits(0)
            .stdout_has(&[&format!("delivered by {to} after ")]);
        let page = get(receiver, "/").1;
        assert!(page.contains(&format!("by-curl-from-{}", from.address.port())) && page.contains("by p2pctl"), "{page}");
    }
    let refused = "request cannot be fulfilled: no route to foo";
    assert_eq!(get(c, "/whisper?name=foo&message=hello"), (404, format!("{refused}\n")));
    three.via(&a.address.to_string(), &["whisper", "foo", "hello"]).exits(1).stdout_is_empty().stderr_has(&[refused]);
    for peer in [a, b, c] {
        peer.signal(Signal::INT);
    }
    let Three { a, b, c, world: _world } = three;
    for peer in [a, b, c] {
        let ended = peer.ended().exits(0);
        assert!(!ended.stderr.contains("ERROR") && !ended.stderr.contains("panicked"), "{ended:#?}");
    }
}

#[test]
fn broadcast_listen_peer_count_and_graph_work_through_one_peer() {
    let three = Three::start();
    let (a, c) = (three.a.address.to_string(), three.c.address.to_string());
    let mut listening = Running::start(three.world.command("p2pctl", &["listen", "--via", &a, "-o", "json"]));
    until("the listener is subscribed", || listening.stderr().contains("listening to"));

    let answer = three.via(&c, &["broadcast", "hello all", "-o", "json"]).exits(0).json();
    assert_eq!((answer["known"].as_u64(), answer["acknowledged"].as_u64()), (Some(2), Some(2)), "{answer}");
    assert_eq!(answer["missing"], serde_json::json!([]));
    three.via(&c, &["broadcast", "once more"]).exits(0).stdout_has(&["2 of 2 known peers have it"]);
    three.via(&c, &["peer-count"]).exits(0).stdout_has(&["2\n"]);
    let heard = eventually("both broadcasts arrive", || {
        assert!(listening.is_running(), "{}", listening.stderr());
        Some(listening.stdout()).filter(|printed| printed.lines().count() >= 2)
    });
    let first: serde_json::Value = serde_json::from_str(heard.lines().next().unwrap()).unwrap();
    assert_eq!(
        (first["text"].as_str(), first["from"].as_str(), first["broadcast"].as_bool()),
        (Some("hello all"), Some("C"), Some(true))
    );
    listening.signal(Signal::INT);
    assert_eq!(listening.ended().exits(0).stdout.lines().count(), 2);

    three.world.run("p2pctl", &["peers", "--of", &c]).exits(0).stdout_has(&["NAME", "A", "B", "it dialled"]);
    three.via(&a, &["graph"]).exits(0).stdout_has(&["3 peers", "C at "]);
    three.via(&a, &["graph", "--format", "dot"]).exits(0).stdout_has(&["graph p2pdi {", " -- "]);
    three.via(&a, &["graph", "--format", "mermaid"]).exits(0).stdout_has(&["graph LR", " --- "]);
    three.via(&a, &["graph", "--format", "svg"]).exits(0).stdout_has(&["<svg ", "<circle", "</svg>"]);
    let graph = three.via(&a, &["graph", "-o", "json"]).exits(0).json();
    assert_eq!(graph["peers"].as_array().unwrap().len(), 3, "{graph}");
}

#[test]
fn without_a_registry_peers_are_found_and_documents_fetched_through_any_of_them() {
    let world = World::new();
    let rfcs = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/rfc");
    let a = peer(&world, "A", &["--share", rfcs]);
    let b = peer(&world, "B", &["--bootnodes", &format!("A:{}", a.address.port())]);
    let (at_a, at_b) = (a.address.to_string(), b.address.to_string());
    until("they are linked", || get(&b, "/").1.contains("to A at "));
    until("the share is read", || get(&a, "/readyz").0 == 200);
    let via_b = |arguments: &[&str]| world.run("p2pctl", &[arguments, &["--via", &at_b]].concat());
    via_b(&["ping", "A"]).exits(0).stdout_has(&[&format!("A at {at_a} answered")]);
    via_b(&["status", "A"]).exits(0).stdout_has(&["mesh       1 neighbour, 1 link, 0 others"]);
    via_b(&["rfc-query", "A", "--number", "48"]).exits(0).stdout_has(&["rfc48"]);
    via_b(&["peers"]).exits(0).stdout_has(&["A", &at_a]);
    via_b(&["peers", "--of", "A"]).exits(0).stdout_has(&["B", &at_b]);
    via_b(&["get-rfc", "48"]).exits(0).stdout_has(&["rfc48", "from A"]);
    via_b(&["get-rfc", "1", "--from", "A", "--out", "from"]).exits(0).stdout_has(&["from/rfc1.txt", "from A"]);
    via_b(&["ping", "foo"]).exits(1).stdout_is_empty().stderr_has(&["no route to foo"]);
    via_b(&["get-rfc", "99999"]).exits(1).stdout_is_empty().stderr_has(&["nobody has RFC 99999", "asked B, A"]);
    let missing = world.run("p2pctl", &["--registry", "http://127.0.0.1:1", "ping", "A"]).exits(1);
    missing.stderr_has(&["the registry at 127.0.0.1:1 does not answer", "ask a peer: --via HOST:PORT"]);
    assert!(get(&b, "/").1.contains("peers      1 known\n"), "B does not know A from the mesh: {}", get(&b, "/").1);
    until("B has A's documents in its index", || get(&b, "/").1.contains("14 documents from other peers"));
}

#[test]
fn join_says_what_answers_where_no_peer_is() {
    let world = World::new();
    let (a, registry) = (peer(&world, "A", &[]), world.registry(&[]));
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let at_web = web.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in web.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let _read = stream.read(&mut [0; 1024]);
                let _written = stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\nserver: nginx\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            });
        }
    });
    let at_registry = registry.address.to_string();
    for (endpoint, words) in [(&at_web, "is a web server (nginx), not a peer"), (&at_registry, "is a registry, not a peer")] {
        let refused = world.run("p2pctl", &["join", endpoint, "--via", &a.address.to_string()]).exits(1).stdout_is_empty();
        refused.stderr_has(&[&format!("cannot join {endpoint}: {endpoint} {words}")]);
    }
    let refused = world.run("p2pctl", &["join", "127.0.0.1:1", "--via", &a.address.to_string()]).exits(1).stdout_is_empty();
    refused.stderr_has(&["cannot join 127.0.0.1:1: ", "dials that address itself: a peer must listen there"]);
}

#[test]
fn join_links_a_peer_to_another() {
    let world = World::new();
    let (a, b) = (peer(&world, "A", &[]), peer(&world, "B", &[]));
    let (at_a, at_b) = (a.address.to_string(), b.address.to_string());
    world.run("p2pctl", &["peer-count", "--via", &at_a, "--wait", "100ms"]).exits(0).stdout_has(&["0\n"]);
    world.run("p2pctl", &["join", &at_b, "--via", &at_a]).exits(0).stdout_has(&[&format!("linked to B at {at_b}")]);
    until("B lists the link", || get(&b, "/").1.contains("from A at "));
    // The forms of --bootnodes, also for a linked peer and for one that has another name.
    let already = format!("is already linked to B at {at_b}\n");
    for written in [format!("b:{}", b.address.port()), format!("B@{at_b}")] {
        let ended = world.run("p2pctl", &["join", &written, "--via", &at_a]).exits(0).stdout_has(&[&already]);
        assert_eq!(ended.stderr, "");
    }
    let renamed = world.run("p2pctl", &["join", &format!("foo@{at_b}"), "--via", &at_a]).exits(0).stdout_has(&[&already]);
    renamed.stderr_has(&["has another name than foo: B"]);
    for wrong in ["E:port", "E", "http://127.0.0.1:1"] {
        let ended = world.run("p2pctl", &["join", wrong, "--via", &at_a]).exits(2).stdout_is_empty();
        ended.stderr_has(&[&format!("invalid value '{wrong}'"), "peer: "]);
    }
    let refused = world.run("p2pctl", &["join", "127.0.0.1:1", "--via", &at_a]).exits(1).stdout_is_empty();
    refused.stderr_has(&["cannot join 127.0.0.1:1"]);
    world
        .run("p2pctl", &["broadcast", "hello", "--via", "127.0.0.1:1"])
        .exits(1)
        .stderr_has(&["127.0.0.1:1 does not answer", "--via"]);
    world.run("p2pctl", &["peer-count", "--wait", "0s"]).exits(2);
    for verb in [["peer-count"].as_slice(), &["broadcast", "hello"]] {
        let ended = world.run("p2pctl", &[verb, &["--wait", "61s", "--via", &at_a]].concat()).exits(2).stdout_is_empty();
        ended.stderr_has(&["invalid value '61s' for '--wait", "at most 60 s"]);
    }
}

#[test]
fn invalid_bootnodes_are_wrong_usage() {
    let world = World::new();
    world.run("peerd", &["--bootnodes", "A"]).exits(2).stdout_is_empty().stderr_has(&["NAME:PORT, NAME@HOST:PORT or HOST:PORT"]);
    let ended = world.run("peerd", &["--bootnodes", "A:1,E:port"]).exits(2).stdout_is_empty();
    ended.stderr_has(&["\"E:port\" has no valid port (1 to 65535"]);
}
