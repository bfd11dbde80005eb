//! fetch, jobs, pin and unpin: errors before a peer does anything.

use crate::support::{
    http,
    network::{Network, ready},
    world::{World, rfc},
};
use serde_json::Value;

#[test]
fn a_peer_that_does_not_answer_is_named_with_the_flag_that_names_another() {
    let world = World::new();
    for verb in [["fetch", "rfc48.txt"].as_slice(), &["jobs"], &["jobs", "cancel", "1"], &["pin", "a.txt"], &["unpin", "a.txt"]] {
        let run = world.run("p2pctl", &[verb, &["--at", "127.0.0.1:1"]].concat()).exits(1).stdout_is_empty();
        run.stderr_has(&["error: 127.0.0.1:1 does not answer", "hint: --at HOST:PORT"]);
    }
    // The flag may stand before the word, too.
    let run = world.run("p2pctl", &["jobs", "--at", "127.0.0.1:2", "cancel", "1"]).exits(1).stdout_is_empty();
    run.stderr_has(&["error: 127.0.0.1:2 does not answer"]);
    let network = Network::start();
    let registry = network.registry.address.to_string();
    let run = network.p2pctl(&["jobs", "--at", &registry]).exits(1).stdout_is_empty();
    run.stderr_has(&[&format!("{registry} is a registry, not a peer")]);
}

#[test]
fn wrong_usage_is_refused_before_a_peer_is_asked() {
    let world = World::new();
    for wrong in [
        ["fetch"].as_slice(),
        &["fetch", "../x"],
        &["fetch", "[a"],
        &["fetch", "a", "--priority", "first"],
        &["fetch", "a", "--wait-for-holders", "soon"],
        &["fetch", "a", "--from", "http://127.0.0.1:7801/"],
        &["jobs", "cancel"],
        &["jobs", "stop", "1"],
        &["pin"],
        &["pin", "/etc/passwd"],
    ] {
        world.run("p2pctl", wrong).exits(2).stdout_is_empty().stderr_has(&["error: "]);
    }
}

#[test]
fn a_running_peer_fetches_into_its_share_and_its_jobs_are_listed() {
    let network = Network::start();
    let d = network.world.peer("fff-d", &network.registry, &["--share", network.world.share("share-d", &[]).to_str().unwrap()]);
    ready(&d);
    let at = d.address.to_string();
    let run = |arguments: &[&str]| network.p2pctl(&[arguments, &["--at", &at]].concat());
    for (verb, hints) in [("pin", 2), ("unpin", 1)] {
        let refused = run(&[verb, "rfc48.txt"]).exits(1).stdout_is_empty();
        let refused = refused.stderr_has(&["error: the share has no document rfc48.txt", "hint: `p2pctl ls --of 127.0.0.1:"]);
        assert_eq!(refused.stderr.matches("hint: ").count(), hints, "{refused:#?}");
    }
    let fetched = run(&["fetch", "rfc48.txt", "rfc4*", "--wait", "--progress", "json"]).exits(0);
    assert!(network.world.read("share-d/rfc48.txt") == rfc(48) && network.world.read("share-d/rfc49.txt") == rfc(49));
    let last: Value = serde_json::from_str(fetched.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(
        (last["progress"]["phase"].as_str(), last["progress"]["documents_done"].as_u64()),
        (Some("ended"), Some(2)),
        "{last}"
    );
    fetched.stdout_has(&["is done: 2 documents, ", "\n  from fff-"]);
    let id = run(&["fetch", "rfc2324.txt", "--quiet", "--wait"]).exits(0).stdout.trim().to_owned();
    run(&["jobs"]).exits(0).stdout_has(&["ID", "STATE", "WANTED", "done", "rfc48.txt rfc4*", "rfc2324.txt", "job 1: from fff-"]);
    let listed = run(&["jobs", "-o", "json"]).exits(0).json();
    let jobs = listed["jobs"].as_array().unwrap();
    assert_eq!((jobs.len(), jobs[1]["id"].as_str(), jobs[1]["state"].as_str()), (2, Some(id.as_str()), Some("JOB_STATE_DONE")));
    let sent: u64 = jobs[0]["sources"].as_array().unwrap().iter().map(|source| source["bytes"].as_u64().unwrap()).sum();
    assert_eq!(sent, (rfc(48).len() + rfc(49).len()) as u64, "{}", jobs[0]);
    run(&["jobs", "cancel", "no-such-job"]).exits(1).stdout_is_empty().stderr_has(&["hint: `p2pctl jobs` lists the jobs"]);
    run(&["pin", "rfc48.txt"]).exits(0).stdout_has(&["rfc48.txt is pinned"]);
    run(&["pin", "rfc48.txt"]).exits(0).stdout_has(&["rfc48.txt was pinned before"]);
    run(&["unpin", "rfc48.txt"]).exits(0).stdout_has(&["rfc48.txt is released"]);
    let failed = run(&["fetch", "no-such.txt", "--wait", "--wait-for-holders", "1s"]).exits(1).stdout_is_empty();
    let first = failed.stderr.lines().next().unwrap_or_default().to_owned();
    assert!(first.starts_with("job ") && first.contains("`p2pctl jobs cancel "), "{failed:#?}");
    failed.stderr_has(&["error: job ", " failed", "no-such.txt"]);
    // Nobody has it: it waits, and can be cancelled.
    let id = run(&["fetch", "later.txt", "--quiet"]).exits(0).stdout.trim().to_owned();
    run(&["jobs", "cancel", &id]).exits(0).stdout_has(&[&format!("job {id} is cancelled")]);
}

#[test]
fn a_document_of_one_piece_counts_in_the_metrics() {
    let network = Network::start();
    let at = network.a.address.to_string();
    network.p2pctl(&["fetch", "rfc49.txt", "--at", &at, "--wait"]).exits(0);
    let metrics = http::get(network.a.address, "/metrics", &[]).body;
    for line in
        [format!("p2pdi_download_bytes_total {}", rfc(49).len()), "p2pdi_download_pieces_total{result=\"verified\"} 1".to_owned()]
    {
        assert!(metrics.lines().any(|counted| counted == line), "{line}: {metrics}");
    }
}
