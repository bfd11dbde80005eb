//! pquery and rfc-query, status.

use crate::support::network::Network;
use serde_json::Value;

fn names(listed: &Value) -> Vec<&str> {
    listed["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap()).collect()
}

#[test]
fn peers_are_listed_as_a_table_and_as_json() {
    let network = Network::start();
    for verb in ["pquery", "peers"] {
        let table = network.p2pctl(&[verb]).exits(0);
        let lines: Vec<_> = table.stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{table:#?}");
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["NAME", "ENDPOINT", "LEASE", "ACTIVE", "REGISTERED", "SENDING", "LABELS"]
        );
        assert!(
            lines[1].starts_with("fff-a") && lines[1].contains(&network.a.address.to_string()) && lines[1].ends_with("zone=west")
        );
        assert!(
            lines[2].starts_with("fff-c") && lines[2].contains(&network.c.address.to_string()) && lines[2].ends_with("zone=east")
        );
        let columns = |line: &str| line.find("127.0.0.1").unwrap();
        assert_eq!(columns(lines[1]), columns(lines[2]), "{table:#?}");
    }
    let listed = network.p2pctl(&["peers", "--output", "json"]).exits(0).json();
    assert_eq!(names(&listed), ["fff-a", "fff-c"]);
    assert_eq!((listed["active_peers"].as_u64(), listed["start_over"].as_bool()), (Some(2), Some(false)), "{listed}");
}

#[test]
fn peers_are_filtered_by_name_pattern_and_label() {
    let network = Network::start();
    let listed = |arguments: &[&str]| network.p2pctl(&[&["peers", "-o", "json"], arguments].concat()).exits(0).json();
    assert_eq!(names(&listed(&["--name", "FFF-C"])), ["fff-c"]);
    assert_eq!(names(&listed(&["--name", "*-a"])), ["fff-a"]);
    assert_eq!(names(&listed(&["--name", "nobody"])), Vec::<&str>::new());
    assert_eq!(names(&listed(&["--label", "zone=east"])), ["fff-c"]);
    assert_eq!(names(&listed(&["--label", "zone=east", "--name", "*a"])), Vec::<&str>::new());
    network.p2pctl(&["peers", "--name", "not a name"]).exits(2).stdout_is_empty().stderr_has(&["error: ", "name"]);
    network.p2pctl(&["peers", "--label", "zone"]).exits(2).stdout_is_empty().stderr_has(&["KEY=VALUE"]);
}

#[test]
fn a_sample_has_the_requested_size() {
    let network = Network::start();
    let listed = network.p2pctl(&["peers", "--sample", "1", "-o", "json"]).exits(0).json();
    assert_eq!(names(&listed).len(), 1, "{listed}");
    let listed = network.p2pctl(&["peers", "--sample", "10", "-o", "json"]).exits(0).json();
    assert_eq!(names(&listed).len(), 2, "{listed}");
    network.p2pctl(&["peers", "--sample", "1", "--since-revision", "1"]).exits(2);
}

#[test]
fn only_changes_after_the_given_revision_are_listed() {
    let network = Network::start();
    let listed = |arguments: &[&str]| network.p2pctl(&[&["peers", "-o", "json"], arguments].concat()).exits(0).json();
    let revision = listed(&[])["revision"].to_string();
    let nothing = listed(&["--since-revision", &revision]);
    assert_eq!((names(&nothing), nothing["gone"].as_array().unwrap().len()), (vec![], 0), "{nothing}");
    let late = network.world.peer("late", &network.registry, &[]);
    crate::support::network::ready(&late);
    let joined = listed(&["--since-revision", &revision]);
    assert_eq!(names(&joined), ["late"], "{joined}");
    let revision = joined["revision"].to_string();
    late.signal(rustix::process::Signal::TERM);
    late.ended().exits(0);
    let left = listed(&["--since-revision", &revision]);
    assert_eq!((names(&left), left["gone"][0]["name"].as_str()), (vec![], Some("late")), "{left}");
    network.p2pctl(&["peers", "--since-revision", &revision]).exits(0).stdout_has(&["late is gone"]);
    // A revision that this registry has not reached.
    let over = network.p2pctl(&["peers", "--since-revision", "18446744073709551615"]).exits(0);
    over.stdout_has(&["fff-a", "fff-c"]).stderr_has(&["note: ", "the whole list"]);
}

#[test]
fn documents_are_listed_with_their_holders_and_titles() {
    let network = Network::start();
    let table = network.p2pctl(&["rfc-query", "fff-c", "--own"]).exits(0);
    assert_eq!(table.stdout.lines().count(), 4, "{table:#?}");
    table.stdout_has(&["RFC", "TITLE", "rfc48.txt", "A Possible Protocol Plateau", "rfc8881.txt", "1.5 MiB", "fff-c"]);
    let query = |arguments: &[&str]| -> Vec<String> {
        let run = network.p2pctl(&[&["rfc-query", "fff-c", "--own", "-o", "json"], arguments].concat()).exits(0);
        run.json_lines().iter().map(|holding| holding["document"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(query(&["--number", "48"]), ["rfc48.txt"]);
    assert_eq!(query(&["--title", "PROTOCOL plateau"]), ["rfc48.txt"]);
    assert_eq!(query(&["--name", "RFC49.txt"]), ["rfc49.txt"]);
    assert_eq!(query(&["--limit", "1"]).len(), 1);
    network.p2pctl(&["rfc-query", "fff-c", "--number", "7", "-o", "json"]).exits(1).stdout_is_empty();
    let hash = blake3::hash(&crate::support::world::rfc(48)).to_hex();
    assert_eq!(query(&["--hash", &format!("b3:{hash}")]), ["rfc48.txt"]);
    assert_eq!(query(&["--hash", &hash]), ["rfc48.txt"]);
    network
        .p2pctl(&["rfc-query", "fff-c", "--number", "7"])
        .exits(1)
        .stdout_is_empty()
        .stderr_has(&["fff-c", "no such document"]);
    network.p2pctl(&["rfc-query", "fff-c", "--number", "0"]).exits(2).stdout_is_empty();
    network.p2pctl(&["rfc-query", "fff-c", "--hash", "b3:12"]).exits(2).stdout_is_empty();
    network.p2pctl(&["rfc-query", "fff-x"]).exits(1).stdout_is_empty().stderr_has(&["no active peer is called fff-x", "hint: "]);
}

#[test]
fn a_peer_given_by_address_needs_no_registry() {
    let network = Network::start();
    let (address, unreachable) = (network.c.address.to_string(), "http://127.0.0.1:1");
    let without = |arguments: &[&str]| network.world.run("p2pctl", &[&["--registry", unreachable], arguments].concat());
    without(&["rfc-query", &address, "--number", "48"]).exits(0).stdout_has(&["rfc48.txt"]);
    without(&["ping", &address]).exits(0).stdout_has(&["fff-c"]);
    without(&["status", &address]).exits(0).stdout_has(&["fff-c"]);
    without(&["get-rfc", "48", "--from", &address]).exits(0).stdout_has(&["rfc48.txt"]);
}

#[test]
fn any_of_several_registries_that_answers_is_asked() {
    let network = Network::start();
    let (registry, gone) = (network.registry.url(), "http://127.0.0.1:1");
    let (comma, twice) = (format!("{gone},{registry}"), ["--registry", gone, "--registry", &registry]);
    // Their order is random.
    for arguments in [&["--registry", &comma][..], &twice, &twice, &["--registry", &comma, "--registry", "http://127.0.0.1:2"]] {
        let json = network.world.run("p2pctl", &[arguments, &["status", "-o", "json"]].concat()).exits(0).json();
        assert_eq!((json["registry"].as_str(), json["active_peers"].as_u64()), (Some(registry.as_str()), Some(2)), "{json}");
    }
    let none = format!("{gone},http://127.0.0.1:2");
    let failed = network.world.run("p2pctl", &["--registry", &none, "peers"]).exits(1);
    failed.stderr_has(&["the registry at 127.0.0.1:1, 127.0.0.1:2 does not answer", "hint: "]);
    // What it registered with one of them, it knows with the others.
    let only = |url: &str| vec!["--registry".to_owned(), url.to_owned()];
    let run = |flags: Vec<String>, verb: &[&str]| {
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        network.world.run("p2pctl", &[&flags, verb].concat())
    };
    run(only(&registry), &["register", "--name", "op", "--endpoint", "127.0.0.1:9"]).exits(0);
    run(only(&comma), &["keepalive"]).exits(0);
    run(only(&comma), &["leave"]).exits(0);
    run(only(&registry), &["keepalive"]).exits(1);
}

#[test]
fn a_peer_takes_several_registries_and_shows_the_one_in_use() {
    let network = Network::start();
    let (registry, gone) = (network.registry.url(), "http://127.0.0.1:1");
    let peer = network.world.peer_command("late", &format!("{gone},{registry}"), &[]);
    let peer = crate::support::process::Server::start(peer);
    network.p2pctl(&["status", &peer.address.to_string()]).exits(0);
    crate::support::wait::until("its registration", || {
        let page = crate::support::http::get(peer.address, "/", &[("accept", "text/plain")]).body;
        page.contains(&format!("registered as late at {}", network.registry.address))
    });
    let json = network.p2pctl(&["status", "late", "-o", "json"]).exits(0).json();
    assert_eq!(json["registry"]["registry"], registry, "{json}");
}

#[test]
fn status_shows_the_state_of_the_registry_and_of_a_peer() {
    let network = Network::start();
    let registry = network.registry.address.to_string();
    network.p2pctl(&["status"]).exits(0).stdout_has(&[&registry, "2 active peers", "leases of 30s", "not registered here"]);
    let json = network.p2pctl(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(json["registry"], network.registry.url(), "{json}");
    assert_eq!(
        (json["active_peers"].as_u64(), json["ttl"].as_str(), json["registered_as"].is_null()),
        (Some(2), Some("30s"), true),
        "{json}"
    );
    network.p2pctl(&["status", "FFF-C"]).exits(0).stdout_has(&["fff-c at", "registered as fff-c", "3 documents"]);
    let json = network.p2pctl(&["status", "fff-c", "-o", "json"]).exits(0).json();
    assert_eq!(json["name"], "fff-c");
    assert_eq!(json["registry"]["state"], "SESSION_STATE_REGISTERED", "{json}");
    assert_eq!((json["share"]["documents"].as_u64(), json["share"]["pending"].as_u64()), (Some(3), Some(0)), "{json}");
}
