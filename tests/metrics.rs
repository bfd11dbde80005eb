//! The metrics of the servers: their format, their names, and what they count.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use std::{collections::BTreeMap, fs};
use support::{
    http::{Answer, get},
    network::Network,
    process::Server,
    wait::until,
    world::{World, rfc},
};

#[test]
fn metrics_are_valid_and_count_calls() {
    let network = Network::start();
    network.p2pctl(&["get-rfc", "48", "--from", "fff-c"]).exits(0);
    let registry = metrics(&get(network.registry.address, "/metrics", &[]));
    assert!(registry[r#"p2pdi_rpc_handled_total{method="p2pdi.v1.Registry/Register"}"#] >= 3.0, "{registry:#?}");
    assert!(registry[r#"p2pdi_rpc_handled_total{method="p2pdi.v1.Registry/PQuery"}"#] >= 1.0, "{registry:#?}");
    assert!(registry[r#"p2pdi_rpc_duration_seconds_count{method="p2pdi.v1.Registry/PQuery"}"#] >= 1.0, "{registry:#?}");
    assert_eq!(registry["p2pdi_registry_peers_active"], 2.0);
    let peer = metrics(&get(network.c.address, "/metrics", &[]));
    assert_eq!(peer[r#"p2pdi_rpc_handled_total{method="p2pdi.v1.Peer/GetRFC"}"#], 1.0, "{peer:#?}");
    assert_eq!(peer[r#"p2pdi_upload_bytes_total{kind="whole"}"#], 41_696.0, "{peer:#?}");
    assert_eq!((peer["p2pdi_share_documents"], peer["p2pdi_registered"]), (3.0, 1.0));
    network.p2pctl(&["get-rfc", "7", "--from", "fff-c"]).exits(1);
    let peer = metrics(&get(network.c.address, "/metrics", &[]));
    assert_eq!(peer[r#"p2pdi_rpc_refused_total{method="p2pdi.v1.Peer/GetRFC",reason="DOCUMENT_UNKNOWN"}"#], 1.0, "{peer:#?}");
    assert!(registry.keys().all(|name| !name.contains("p2pdi.v1.Peer/")), "methods that it does not have: {registry:#?}");
    for server in [&registry, &peer] {
        assert_eq!(server[&format!("p2pdi_build_info{{version=\"{}\"}}", p2pdi::VERSION)], 1.0, "{server:#?}");
        assert!(
            server["process_max_fds"] >= 64.0 && server.contains_key("process_cpu_seconds_total") == cfg!(target_os = "linux")
        );
    }
    assert!(registry["p2pdi_registry_changes_total"] >= 2.0 && peer.contains_key("p2pdi_mesh_misbehaviour_total"));
}

#[test]
fn documents_for_some_are_not_counted_where_everyone_reads_the_metrics() {
    let world = World::new();
    world.run("p2pctl", &["ca", "init", "--ca", "ca"]).exits(0);
    world.run("p2pctl", &["ca", "issue", "--ca", "ca", "--name", "fff-c", "--out", "."]).exits(0);
    world.share("share", &[48]);
    world.share("share/team", &[49, 59]);
    let mut command = world.command("peerd", &["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--no-registry"]);
    command.args(["--tls-cert", "fff-c.pem", "--tls-key", "fff-c-key.pem", "--tls-ca", "ca.pem"]);
    command.args(["--state", "peer", "--share", "share", "--share-to", "share/team=team-*"]);
    let peer = Server::start(command);
    let health = peer.health_address();
    until("it has read its share", || get(health, "/readyz", &[]).status == 200);
    let counted = metrics(&get(health, "/metrics", &[]));
    let bytes = f64::from(u32::try_from(rfc(48).len()).unwrap());
    assert_eq!((counted["p2pdi_share_documents"], counted["p2pdi_share_bytes"]), (1.0, bytes), "{counted:#?}");
}

/// The metrics in the table of README.md; those with a `*` stand for all that begin so.
fn documented_metrics() -> Vec<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let table = readme.split("| metric | counts or shows |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).map(str::to_owned);
    names.collect()
}

#[test]
fn every_metric_is_in_the_readme_and_the_other_way_round_and_counters_end_in_total() {
    let network = Network::start();
    network.p2pctl(&["get-rfc", "7", "--from", "fff-c"]).exits(1);
    let documented = documented_metrics();
    let is_documented = |name: &str| {
        documented.iter().any(|known| known == name || known.strip_suffix('*').is_some_and(|start| name.starts_with(start)))
    };
    let mut there = Vec::new();
    for server in [&network.registry, &network.c] {
        for line in get(server.address, "/metrics", &[]).body.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(is_documented(name), "{name} is not in README.md");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            there.push(name.to_owned());
        }
    }
    for name in documented {
        let is_there = |known: &String| *known == name || name.strip_suffix('*').is_some_and(|start| known.starts_with(start));
        assert!(there.iter().any(is_there), "no server has {name}");
    }
    for (metric, label, values) in [
        ("p2pdi_download_pieces_total", "result", &["verified", "twice", "wrong"][..]),
        ("p2pdi_download_stalls_total", "reason", &["no holder", "silent holders", "busy holders", "unreachable holders"]),
        ("p2pdi_upload_bytes_total", "kind", &["whole", "partial"]),
        ("p2pdi_jobs_ended_total", "state", &["done", "failed", "cancelled"]),
    ] {
        let samples = metrics(&get(network.c.address, "/metrics", &[]));
        for value in values {
            let sample = format!("{metric}{{{label}=\"{value}\"}}");
            assert!(samples.contains_key(&sample), "{sample}: {samples:#?}");
        }
    }
}

/// The samples of an answer in Prometheus's text format, version 0.0.4. Every line is a sample or a comment, and every sample has a type.
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
                _ => panic!("not a valid comment: {line:?}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line:?}"));
        let name = sample.split('{').next().unwrap();
        assert!(types.iter().any(|known| name.starts_with(known.as_str())), "{name} has no type");
        let unique =
            samples.insert(sample.to_owned(), value.parse().unwrap_or_else(|error| panic!("{error}: {line:?}"))).is_none();
        assert!(unique, "{sample} is repeated");
    }
    samples
}
