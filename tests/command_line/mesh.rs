//! The three peers of the first small project, as programs: C knows A and B; and what is asked of a mesh through one of them.

use crate::support::{
    http,
    process::{Running, Server},
    wait::{eventually, until},
    world::World,
};
use rustix::process::Signal;

struct Three {
    // Dropped first, before the folder they use.
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
fn everybody_whispers_to_everybody_with_curl_and_with_p2pctl() {
    let three = Three::start();
    let Three { a, b, c, .. } = &three;
    for (from, to, receiver) in [(c, "A", a), (c, "B", b), (b, "C", c), (a, "C", c), (a, "B", b)] {
        let (code, said) =
            get(from, &format!("/whisper?name={}&message=by-curl-from-{}", to.to_lowercase(), from.address.port()));
        assert_eq!(code, 200, "{said}");
        assert!(said.starts_with(&format!("delivered by {to}")), "{said}");
        three
            .via(&from.address.to_string(), &["whisper", to, "by p2pctl"])
            .exits(0)
            .prints(&[&format!("delivered by {to} after ")]);
        let page = get(receiver, "/").1;
        assert!(page.contains(&format!("by-curl-from-{}", from.address.port())) && page.contains("by p2pctl"), "{page}");
    }
    let refused = "request cannot be fulfilled: no route to foo";
    assert_eq!(get(c, "/whisper?name=foo&message=hello"), (404, format!("{refused}\n")));
    three.via(&a.address.to_string(), &["whisper", "foo", "hello"]).exits(1).prints_nothing().says(&[refused]);
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
fn a_mesh_is_asked_through_one_of_its_peers() {
    let three = Three::start();
    let (a, c) = (three.a.address.to_string(), three.c.address.to_string());
    let mut listening = Running::start(three.world.command("p2pctl", &["listen", "--via", &a, "-o", "json"]));
    until("it listens", || listening.said().contains("listening to"));

    let told = three.via(&c, &["broadcast", "hello all", "-o", "json"]).exits(0).json();
    assert_eq!((told["known"].as_u64(), told["acknowledged"].as_u64()), (Some(2), Some(2)), "{told}");
    assert_eq!(told["missing"], serde_json::json!([]));
    three.via(&c, &["broadcast", "once more"]).exits(0).prints(&["2 of 2 known peers have it"]);
    three.via(&c, &["peer-count"]).exits(0).prints(&["2\n"]);
    let heard = eventually("both are heard", || {
        assert!(listening.is_running(), "{}", listening.said());
        Some(listening.printed()).filter(|printed| printed.lines().count() >= 2)
    });
    let first: serde_json::Value = serde_json::from_str(heard.lines().next().unwrap()).unwrap();
    assert_eq!(
        (first["text"].as_str(), first["from"].as_str(), first["broadcast"].as_bool()),
        (Some("hello all"), Some("C"), Some(true))
    );
    listening.signal(Signal::INT);
    assert_eq!(listening.ended().exits(0).stdout.lines().count(), 2);

    three.world.run("p2pctl", &["peers", "--of", &c]).exits(0).prints(&["NAME", "A", "B", "it dialled"]);
    three.via(&a, &["graph"]).exits(0).prints(&["3 peers", "C at "]);
    three.via(&a, &["graph", "--format", "dot"]).exits(0).prints(&["graph p2pdi {", " -- "]);
    three.via(&a, &["graph", "--format", "mermaid"]).exits(0).prints(&["graph LR", " --- "]);
    three.via(&a, &["graph", "--format", "svg"]).exits(0).prints(&["<svg ", "<circle", "</svg>"]);
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
    via_b(&["ping", "A"]).exits(0).prints(&[&format!("A at {at_a} answered")]);
    via_b(&["status", "A"]).exits(0).prints(&["mesh       1 neighbour, 1 link, 0 others"]);
    via_b(&["rfc-query", "A", "--number", "48"]).exits(0).prints(&["rfc48"]);
    via_b(&["peers"]).exits(0).prints(&["A", &at_a]);
    via_b(&["peers", "--of", "A"]).exits(0).prints(&["B", &at_b]);
    via_b(&["get-rfc", "48"]).exits(0).prints(&["rfc48", "from A"]);
    via_b(&["get-rfc", "1", "--from", "A", "--out", "from"]).exits(0).prints(&["from/rfc1.txt", "from A"]);
    via_b(&["ping", "foo"]).exits(1).prints_nothing().says(&["no route to foo"]);
    via_b(&["get-rfc", "99999"]).exits(1).prints_nothing().says(&["nobody has RFC 99999", "asked B, A"]);
    let missing = world.run("p2pctl", &["--registry", "http://127.0.0.1:1", "ping", "A"]).exits(1);
    missing.says(&["the registry at 127.0.0.1:1 does not answer", "ask a peer: --via HOST:PORT"]);
    assert!(get(&b, "/").1.contains("peers      1 known\n"), "known from the mesh: {}", get(&b, "/").1);
    until("what A shares is known to B", || get(&b, "/").1.contains("14 documents from other peers"));
}

#[test]
fn a_peer_joins_when_told_to() {
    let world = World::new();
    let (a, b) = (peer(&world, "A", &[]), peer(&world, "B", &[]));
    let (at_a, at_b) = (a.address.to_string(), b.address.to_string());
    world.run("p2pctl", &["peer-count", "--via", &at_a, "--wait", "100ms"]).exits(0).prints(&["0\n"]);
    world.run("p2pctl", &["join", &at_b, "--via", &at_a]).exits(0).prints(&[&format!("linked to B at {at_b}")]);
    until("both know", || get(&b, "/").1.contains("from A at "));
    // As --bootnodes has it, a linked one and one of another name included.
    let already = format!("is already linked to B at {at_b}\n");
    for written in [format!("b:{}", b.address.port()), format!("B@{at_b}")] {
        let ended = world.run("p2pctl", &["join", &written, "--via", &at_a]).exits(0).prints(&[&already]);
        assert_eq!(ended.stderr, "");
    }
    let renamed = world.run("p2pctl", &["join", &format!("foo@{at_b}"), "--via", &at_a]).exits(0).prints(&[&already]);
    renamed.says(&["goes by another name than foo: B"]);
    for wrong in ["E:port", "E", "http://127.0.0.1:1"] {
        let ended = world.run("p2pctl", &["join", wrong, "--via", &at_a]).exits(2).prints_nothing();
        ended.says(&[&format!("invalid value '{wrong}'"), "peer: "]);
    }
    let refused = world.run("p2pctl", &["join", "127.0.0.1:1", "--via", &at_a]).exits(1).prints_nothing();
    refused.says(&["cannot join 127.0.0.1:1"]);
    world.run("p2pctl", &["broadcast", "hello", "--via", "127.0.0.1:1"]).exits(1).says(&["127.0.0.1:1 does not answer", "--via"]);
    world.run("p2pctl", &["peer-count", "--wait", "0s"]).exits(2);
    for verb in [["peer-count"].as_slice(), &["broadcast", "hello"]] {
        let ended = world.run("p2pctl", &[verb, &["--wait", "61s", "--via", &at_a]].concat()).exits(2).prints_nothing();
        ended.says(&["invalid value '61s' for '--wait", "at most 60 s"]);
    }
}

#[test]
fn wrong_bootnodes_are_wrong_usage() {
    let world = World::new();
    world.run("peerd", &["--bootnodes", "A"]).exits(2).prints_nothing().says(&["NAME:PORT, NAME@HOST:PORT or HOST:PORT"]);
    let ended = world.run("peerd", &["--bootnodes", "A:1,E:port"]).exits(2).prints_nothing();
    ended.says(&["\"E:port\" has no valid port (1 to 65535"]);
}
