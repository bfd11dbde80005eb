//! The servers as curl, browsers and Prometheus see them: plain HTTP/1.1 on the port that speaks gRPC.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use std::collections::BTreeMap;
use support::{
    http::{Answer, ask, get, send},
    network::{Network, status},
    wait::until,
    world::World,
};

const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
const CURL: (&str, &str) = ("accept", "*/*");
const JSON: (&str, &str) = ("accept", "application/json");

#[test]
fn curl_gets_text_a_browser_a_page_and_a_program_json() {
    let network = Network::start();
    for (server, words) in [
        (network.registry.address, ["registry", "active peers", "fff-c"].as_slice()),
        (network.c.address, ["fff-c", "3 documents", "registered"].as_slice()),
    ] {
        for headers in [&[][..], &[CURL][..]] {
            let text = get(server, "/", headers);
            assert_eq!((text.status, text.content_type()), (200, "text/plain; charset=utf-8"), "{text:?}");
            assert!(!text.body.contains('<'), "{text:?}");
            assert!(words.iter().all(|word| text.body.contains(word)), "{text:?}");
        }
        let page = get(server, "/", &[BROWSER]);
        assert_eq!((page.status, page.content_type()), (200, "text/html; charset=utf-8"), "{page:?}");
        assert!(page.body.starts_with("<!doctype html>") && page.body.contains("<title>"), "{page:?}");
        assert!(words.iter().all(|word| page.body.contains(word)), "{page:?}");
        let json = get(server, "/", &[JSON]);
        assert_eq!((json.status, json.content_type()), (200, "application/json"), "{json:?}");
        assert!(serde_json::from_str::<serde_json::Value>(&json.body).unwrap().is_object());
    }
    let registry = status(&network.registry);
    assert_eq!(registry["active_peers"], 2, "{registry}");
    let names: Vec<_> = registry["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["fff-a", "fff-c"]);
    let peer = status(&network.c);
    assert_eq!((peer["name"].as_str(), peer["share"]["documents"].as_u64()), (Some("fff-c"), Some(3)), "{peer}");
    assert_eq!(peer["registry"]["state"], "SESSION_STATE_REGISTERED");
}

#[test]
fn a_page_shows_a_message_as_text_whatever_it_says() {
    let network = Network::start();
    network.p2pctl(&["whisper", "fff-c", "<script>alert(1)</script>&"]).exits(0);
    let page = get(network.c.address, "/", &[BROWSER]).body;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;") && !page.contains("<script"), "{page}");
}

#[test]
fn metrics_parse_and_count_calls() {
    let network = Network::start();
    network.p2pctl(&["get-rfc", "48", "--from", "fff-c"]).exits(0);
    let registry = metrics(&get(network.registry.address, "/metrics", &[]));
    assert!(registry[r#"p2pdi_rpc_handled_total{method="p2pdi.v1.Registry/Register"}"#] >= 3.0, "{registry:#?}");
    assert!(registry[r#"p2pdi_rpc_handled_total{method="p2pdi.v1.Registry/PQuery"}"#] >= 1.0, "{registry:#?}");
    assert!(registry[r#"p2pdi_rpc_duration_seconds_count{method="p2pdi.v1.Registry/PQuery"}"#] >= 1.0, "{registry:#?}");
    assert_eq!(registry["p2pdi_registry_peers_active"], 2.0);
    let peer = metrics(&get(network.c.address, "/metrics", &[]));
    assert_eq!(peer[r#"p2pdi_rpc_handled_total{method="p2pdi.v1.Peer/GetRFC"}"#], 1.0, "{peer:#?}");
    assert_eq!(peer["p2pdi_upload_bytes_total"], 41_696.0, "{peer:#?}");
    assert_eq!((peer["p2pdi_share_documents"], peer["p2pdi_registered"]), (3.0, 1.0));
    network.p2pctl(&["get-rfc", "7", "--from", "fff-c"]).exits(1);
    let peer = metrics(&get(network.c.address, "/metrics", &[]));
    assert_eq!(peer[r#"p2pdi_rpc_refused_total{method="p2pdi.v1.Peer/GetRFC"}"#], 1.0, "{peer:#?}");
}

/// The samples of Prometheus's text format, version 0.0.4: every line is one, or a comment, and every sample belongs to a described type.
fn metrics(answer: &Answer) -> BTreeMap<String, f64> {
    assert_eq!(answer.status, 200);
    assert!(answer.content_type().starts_with("text/plain; version=0.0.4"), "{answer:?}");
    let mut types = Vec::new();
    let mut samples = BTreeMap::new();
    for line in answer.body.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("HELP"), Some(_), Some(_)) => {}
                (Some("TYPE"), Some(name), Some("counter" | "gauge" | "histogram" | "summary")) => types.push(name.to_owned()),
                _ => panic!("no comment of Prometheus: {line:?}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        let name = sample.split('{').next().unwrap();
        assert!(types.iter().any(|known| name.starts_with(known.as_str())), "{name} has no type");
        let unique =
            samples.insert(sample.to_owned(), value.parse().unwrap_or_else(|error| panic!("{error}: {line:?}"))).is_none();
        assert!(unique, "{sample} is there twice");
    }
    samples
}

#[test]
fn health_and_readiness_answer_on_both_servers() {
    let network = Network::start();
    for server in [&network.registry, &network.a] {
        for path in ["/healthz", "/readyz"] {
            let answer = get(server.address, path, &[]);
            assert_eq!((answer.status, answer.body.ends_with('\n')), (200, true), "{path}: {answer:?}");
        }
    }
}

#[test]
fn a_peer_that_could_not_register_is_healthy_and_not_ready() {
    let world = World::new();
    let registry = world.registry(&[]);
    let first = world.peer("fff-a", &registry, &[]);
    support::network::ready(&first);
    let second = world.peer("fff-a", &registry, &["--state", "peer-state/second"]);
    until("it is refused", || status(&second)["registry"]["state"] == "SESSION_STATE_REFUSED");
    let ready = get(second.address, "/readyz", &[]);
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.body.contains("fff-a"), "{ready:?}");
    assert_eq!(get(second.address, "/healthz", &[]).status, 200);
}

#[test]
fn an_unknown_path_is_404_with_a_way_on() {
    let network = Network::start();
    for server in [&network.registry, &network.c] {
        for path in ["/nothing", "/metrics/x", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"] {
            let answer = get(server.address, path, &[CURL]);
            assert_eq!((answer.status, answer.content_type()), (404, "text/plain; charset=utf-8"), "{path}: {answer:?}");
            assert!(answer.body.contains("see / for what is here"), "{path}: {answer:?}");
        }
        assert_eq!(ask(server.address, "POST", "/", &[("content-length", "0")]).status, 405);
    }
}

#[test]
fn garbage_on_the_port_ends_its_connection_and_nothing_else() {
    let network = Network::start();
    for server in [&network.registry, &network.c] {
        for garbage in [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), b"SSH-2.0-OpenSSH_9.6\r\n\r\n", &[0xff; 4096]]
        {
            let answer = send(server.address, garbage);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer:?}");
        }
        assert_eq!(get(server.address, "/healthz", &[]).status, 200);
    }
    network.p2pctl(&["get-rfc", "49"]).exits(0);
}
