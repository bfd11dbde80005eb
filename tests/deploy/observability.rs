//! Alerts and the dashboard are about metrics that the servers have.

use crate::{
    render::{documents, root, succeeds},
    support::{
        http::get,
        network::Network,
        tools::promtool,
        wait::{eventually, until},
        world::World,
    },
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

/// Metrics of a replica over etcd, which the tests of replicas look for (`registry/tests/replicas/basics.rs`).
const OF_REPLICAS: [&str; 4] =
    ["p2pdi_registry_replicas", "p2pdi_registry_shards", "p2pdi_registry_store_reachable", "p2pdi_registry_suspects"];

fn read(name: &str) -> String {
    fs::read_to_string(root().join("deploy/observability").join(name)).unwrap()
}

/// All rules of alerts.yaml. `None` without the tools.
fn alerts() -> Option<Vec<Value>> {
    let read = documents(&BTreeMap::from([("alerts".to_owned(), read("alerts.yaml"))]))?;
    let groups = read["documents"]["alerts"][0]["groups"].as_array().unwrap();
    Some(groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect())
}

/// The expressions of the dashboard's panels, with what Grafana puts in place of its variables.
fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    expressions.map(|text| text.replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$namespace", ".*")).collect()
}

/// The names of metrics of this project in an expression, without the suffixes of histograms and summaries.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("p2pdi_") || word.starts_with("process_"));
    let plain = |name: &str| ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix).map(str::to_owned));
    names.map(|name| plain(name).unwrap_or_else(|| name.to_owned())).collect()
}

/// What the servers of a small network say at /metrics, after a call that is refused; then what a registry with certificates says.
fn pages() -> [String; 3] {
    let [registry, peer] = pages_without_certificates();
    let world = World::new();
    let server = world.registry(&["--ca", "authority", "--health-listen", "127.0.0.1:0"]);
    let address = eventually("the registry says where its health is", || {
        let log = server.process.stderr();
        let line = log.lines().find(|line| line.contains("serving health"))?;
        line.split_once("address=")?.1.split(' ').next()?.parse().ok()
    });
    until("its certificate has an end", || get(address, "/metrics", &[]).body.contains("p2pdi_tls_certificate_expiry_seconds "));
    [registry, peer, get(address, "/metrics", &[]).body]
}

fn pages_without_certificates() -> [String; 2] {
    let network = Network::start();
    // Nobody registered: the registry refuses it.
    network.p2pctl(&["keepalive"]);
    let pages = || [&network.registry, &network.a].map(|server| get(server.address, "/metrics", &[]).body);
    network.p2pctl(&["get-rfc", "9999", "--from", "fff-a"]);
    until("a refused call is counted", || pages()[1].contains("p2pdi_rpc_refused_total{"));
    pages()
}

#[test]
fn every_metric_of_alerts_and_dashboard_is_one_that_a_server_has() {
    let Some(alerts) = alerts() else { return };
    let pages = pages();
    let lines = pages.iter().flat_map(|page| page.lines());
    let had: BTreeSet<_> = lines.filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).chain(OF_REPLICAS).collect();
    let expressions = alerts.iter().map(|alert| alert["expr"].as_str().unwrap().to_owned()).chain(dashboard());
    let named: BTreeSet<_> = expressions.flat_map(|expression| metrics(&expression)).collect();
    assert!(named.len() > 30, "{named:?}");
    let unknown: Vec<_> = named.iter().filter(|name| !had.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "no server has {unknown:?}, only {had:?}");
}

#[test]
fn promtool_accepts_what_the_servers_say() {
    let Some(promtool) = promtool() else { return };
    for page in pages() {
        let mut child =
            Command::new(&promtool).args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_alert_fires_when_it_should() {
    let Some(promtool) = promtool() else { return };
    let folder = root().join("deploy/observability");
    succeeds(Command::new(&promtool).args(["check", "rules", "--lint-fatal", "alerts.yaml"]).current_dir(&folder));
    succeeds(Command::new(&promtool).args(["test", "rules", "alerts_test.yaml"]).current_dir(&folder));
    let tested = read("alerts_test.yaml");
    for alert in alerts().into_iter().flatten() {
        let name = alert["alert"].as_str().unwrap();
        assert!(tested.contains(&format!("alertname=\"{name}\"")), "alerts_test.yaml does not test {name}");
    }
}

#[test]
fn every_expression_of_the_dashboard_is_valid() {
    let Some(promtool) = promtool() else { return };
    // Promtool checks expressions of rules only. JSON is YAML.
    let rules: Vec<_> =
        dashboard().iter().enumerate().map(|(n, expr)| serde_json::json!({"record": format!("r{n}"), "expr": expr})).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    succeeds(Command::new(&promtool).args(["check", "rules"]).arg(file.path()));
}

#[test]
fn the_runbook_has_every_alert_and_no_other() {
    let Some(alerts) = alerts() else { return };
    let names: BTreeSet<_> = alerts.iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect();
    let readme = fs::read_to_string(root().join("deploy/README.md")).unwrap();
    let rows =
        readme.lines().filter_map(|line| line.strip_prefix("| `P2pdi")?.split('`').next().map(|name| format!("P2pdi{name}")));
    assert_eq!(rows.collect::<BTreeSet<_>>(), names);
}
