//! Two networks on one LAN.

use crate::{
    A, ATTACKER, B, REGISTRY,
    certificates::Authority,
    support::{lan::Lan, process::Running, wait::until},
};

/// Without certificates: see `peers_of_two_networks_on_one_lan_do_not_merge` in `tests/lan.rs`.
#[test]
fn the_peers_of_two_authorities_on_one_lan_do_not_merge_whatever_they_call_their_network() {
    let Some(lan) = Lan::new(ATTACKER) else { return };
    let authorities = [Authority::new("one"), Authority::new("other")];
    let flags = |authority: usize, name: &str, id: &str| {
        let files = authorities[authority].files(&lan.world.path(format!("tls-{name}")), &[name, id]);
        let path = |path: &std::path::Path| path.display().to_string();
        let (cert, key) = (path(files.cert.as_deref().unwrap()), path(files.key.as_deref().unwrap()));
        ["--tls-cert".to_owned(), cert, "--tls-key".to_owned(), key, "--tls-ca".to_owned(), path(&files.ca)]
    };
    let start = |machine: usize| {
        let (name, authority) = (format!("peer-{machine}"), machine % 2);
        let tls = flags(authority, &name, &format!("spiffe://default/peer/{name}"));
        lan.peer_with(machine, &name, &tls.each_ref().map(String::as_str))
    };
    let peers = [REGISTRY, A, B, ATTACKER].map(start);
    let operators =
        [0, 1].map(|authority| flags(authority, &format!("operator-{authority}"), "spiffe://default/operator/operator"));
    let p2pctl = |index: usize, arguments: &[&str]| {
        let (machine, peer) = (index + 1, format!("127.0.0.1:{}", peers[index].address.port()));
        let tls = operators[machine % 2].each_ref().map(String::as_str);
        let via = if arguments == ["status"] { vec![peer.as_str(), "-o", "json"] } else { vec!["--via", &peer] };
        Running::run_to_end(lan.on(machine, "p2pctl", &[arguments, &via, tls.as_slice()].concat()))
    };
    let neighbours = |index: usize| p2pctl(index, &["status"]).exits(0).json()["mesh"]["neighbours"].as_u64();
    for index in 0..peers.len() {
        until("each finds the one of its authority", || neighbours(index) == Some(1));
    }
    // The announcements of the others were tried, and refused.
    for peer in &peers {
        until("a handshake of the others failed", || peer.process.stderr().contains("the TLS handshake with a client failed"));
    }
    for index in 0..peers.len() {
        // A link that broke, on a busy machine, is made again; one to the others is never made.
        until("each still has the one of its authority, and no other", || {
            let count = neighbours(index);
            assert!(count <= Some(1), "{count:?}");
            count == Some(1)
        });
        for other in (0..peers.len()).filter(|other| *other != index) {
            let send = || p2pctl(index, &["whisper", &format!("peer-{}", other + 1), "hello"]);
            if other % 2 == index % 2 {
                until("a message to the other one of its authority arrives", || send().code == Some(0));
            } else {
                send().exits(1);
            }
        }
    }
}
