//! whisper and ping.

use crate::support::network::{Network, status};

#[test]
fn a_whisper_is_delivered_and_shown_on_the_receivers_page() {
    let network = Network::start();
    network.p2pctl(&["whisper", "FFF-C", "hello there"]).exits(0).stdout_has(&["delivered by fff-c after 0 hops in "]);
    assert_eq!(status(&network.c)["inbox"]["received"], 1);
    let page = crate::support::http::get(network.c.address, "/", &[]).body;
    assert!(page.contains("(text): hello there"), "{page}");
}

#[test]
fn a_whisper_via_another_peer_is_delivered_after_one_hop() {
    let network = Network::start();
    let via = network.a.address.to_string();
    let json = network.p2pctl(&["whisper", "fff-c", "hello", "--via", &via, "--sender", "op", "-o", "json"]).exits(0).json();
    assert_eq!((json["delivered_by"].as_str(), json["hops"].as_u64()), (Some("fff-c"), Some(1)), "{json}");
    assert!(json["round_trip"].as_str().unwrap().ends_with('s'), "{json}");
    assert_eq!((&status(&network.c)["inbox"]["received"], &status(&network.a)["inbox"]["received"]), (&1.into(), &0.into()));
    let page = crate::support::http::get(network.c.address, "/", &[]).body;
    assert!(page.contains("op (text): hello"), "{page}");
}

#[test]
fn a_whisper_carries_the_registered_name() {
    let network = Network::start();
    network.p2pctl(&["register", "--name", "op", "--endpoint", "127.0.0.1:9"]).exits(0);
    network.p2pctl(&["whisper", "fff-c", "hello"]).exits(0);
    let page = crate::support::http::get(network.c.address, "/", &[]).body;
    assert!(page.contains("op (text): hello"), "{page}");
    // No subscription takes messages of another kind.
    network.p2pctl(&["whisper", "fff-c", "hello", "--kind", "chat.v1"]).exits(0);
    assert_eq!(status(&network.c)["inbox"]["unclaimed"], 1);
}

#[test]
fn a_whisper_to_an_unknown_name_is_refused() {
    let network = Network::start();
    let via = network.a.address.to_string();
    let words = ["error: request cannot be fulfilled: no route to nobody"];
    network.p2pctl(&["whisper", "nobody", "hello"]).exits(1).stdout_is_empty().stderr_has(&words);
    network.p2pctl(&["whisper", "nobody", "hello", "--via", &via]).exits(1).stdout_is_empty().stderr_has(&words);
    network
        .p2pctl(&["whisper", "fff-c", "hello", "--via", "127.0.0.1:1"])
        .exits(1)
        .stdout_is_empty()
        .stderr_has(&["127.0.0.1:1 does not answer"]);
    network.p2pctl(&["whisper", "not a name", "hello"]).exits(2).stdout_is_empty();
    network.p2pctl(&["whisper", "fff-c", "hello", "--kind", "two words"]).exits(2).stdout_is_empty().stderr_has(&["kind"]);
    network.p2pctl(&["whisper", "fff-c"]).exits(2).stdout_is_empty();
    assert_eq!(status(&network.c)["inbox"]["received"], 0);
}

#[test]
fn ping_shows_the_name_and_the_documents_of_the_peer() {
    let network = Network::start();
    network.p2pctl(&["ping", "fff-c"]).exits(0).stdout_has(&["fff-c at ", " answered in ", "3 documents"]);
    let json = network.p2pctl(&["ping", &network.a.address.to_string(), "-o", "json"]).exits(0).json();
    assert_eq!((json["name"].as_str(), json["documents"].as_u64()), (Some("fff-a"), Some(2)), "{json}");
    assert!(json["round_trip"].as_str().unwrap().ends_with('s'), "{json}");
    network.p2pctl(&["ping", "fff-x"]).exits(1).stdout_is_empty().stderr_has(&["no active peer is called fff-x"]);
    network.p2pctl(&["ping", "127.0.0.1:1"]).exits(1).stdout_is_empty().stderr_has(&["127.0.0.1:1 does not answer"]);
}
