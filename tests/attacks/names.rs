//! Taking names at the registry: from the victim's address, after restarts, and by made-up names in thousands.

use crate::{
    A, ATTACKER, B, Network, REGISTRY_ADDRESS, connect, reason, register,
    support::{wait::until, world::rfc},
};
use p2pdi::{
    cookie::COOKIE_HEADER,
    status::Reason,
    v1::{RegisterRequest, registry_client::RegistryClient},
};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tonic::Request;

/// Why a name is refused to the attacker.
fn refusal(network: &Network) -> Option<Reason> {
    Some(if network.is_certified() { Reason::NameNotYours } else { Reason::NameTaken })
}

#[test]
fn whoever_calls_from_the_victims_address_neither_takes_its_name_nor_moves_it() {
    for network in Network::both() {
        let _registry = network.registry();
        let [a, _b] = network.peers([&[], &[]]);
        let (mallory, endpoint) = (network.mallory(), a.address.to_string());
        let (same, other) = (endpoint.as_str(), "10.77.0.2:9");
        network.on(A, async || {
            for endpoint in [same, other] {
                assert_eq!(reason(register(mallory.as_ref(), "a", endpoint).await), refusal(&network), "{endpoint}");
                assert_eq!(reason(register(mallory.as_ref(), "A", endpoint).await), refusal(&network), "{endpoint}");
            }
            // A cookie that she makes up.
            let channel = connect(REGISTRY_ADDRESS.parse().unwrap(), mallory.as_ref()).await.unwrap();
            let mut request = Request::new(RegisterRequest { name: "a".into(), endpoint: other.into(), ..Default::default() });
            request.metadata_mut().insert(COOKIE_HEADER, "0".repeat(32).parse().unwrap());
            assert_eq!(reason(RegistryClient::new(channel).register(request).await), refusal(&network));
        });
        if network.is_certified() {
            // Without a certificate there is not even an answer.
            network.on(A, async || {
                let refused = register(None, "a", other).await.unwrap_err();
                assert_ne!(Reason::of(&refused), Some(Reason::NameTaken), "{refused:?}");
            });
        }
        assert_eq!(network.listed()["a"], same);
        network.p2pctl(B, &["whisper", "a", "hello", "--via", "10.77.0.3:7801"]).exits(0).stdout_has(&["delivered by a"]);
        assert_eq!(network.received(A, a.address), 1);
    }
}

#[test]
fn no_restart_frees_a_name() {
    for network in Network::both() {
        let registry = network.registry();
        let [a, _b] = network.peers([&[], &[]]);
        let mallory = network.mallory();
        let refused = |when: &str| {
            let answer = network.on(ATTACKER, async || reason(register(mallory.as_ref(), "a", "10.77.0.4:9").await));
            assert_eq!(answer, refusal(&network), "{when}");
        };
        registry.process.kill();
        let _registry = network.registry();
        refused("after the registry was killed");
        a.process.kill();
        refused("after the peer was killed");
        let a = network.peer(A, "a", &[]);
        until("it is back", || network.listed().get("a") == Some(&a.address.to_string()));
        a.signal(Signal::TERM);
        a.ended().exits(0);
        refused("after the peer left");
        let a = network.peer(A, "a", &[]);
        until("it is back again", || network.listed().get("a") == Some(&a.address.to_string()));
    }
}

/// Registers `count` names at once, each with a connection among a hundred; returns how many were registered, and the reasons of the
/// others.
async fn flood(network: &Network, count: usize) -> (usize, Vec<Option<Reason>>) {
    const CONNECTIONS: usize = 100;
    let mallory = network.mallory();
    let mut calls = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let mallory = mallory.clone();
        calls.spawn(async move {
            let Ok(channel) = connect(REGISTRY_ADDRESS.parse().unwrap(), mallory.as_ref()).await else { return Vec::new() };
            let mut client = RegistryClient::new(channel);
            let mut answers = Vec::new();
            for number in (connection..count).step_by(CONNECTIONS) {
                let (name, endpoint) = (format!("made-up-{number}"), format!("10.77.0.4:{}", 10_000 + number));
                let request = RegisterRequest { name, endpoint, ..RegisterRequest::default() };
                answers.push(client.register(request).await.map_err(|status| Reason::of(&status)).map(drop));
            }
            answers
        });
    }
    let answers = calls.join_all().await.concat();
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.err()).collect();
    (answers.len() - refused.len(), refused)
}

#[test]
fn thousands_of_made_up_registrations_neither_fill_the_registry_nor_make_fetches_fail() {
    const MADE_UP: usize = 5_000;
    for network in Network::both() {
        let _registry = network.registry();
        network.lan.world.share("share-a", &[48]);
        let [_a, _b] = network.peers([&["--share", "share-a"], &[]]);
        until("the share is read", || network.p2pctl(B, &["ls"]).stdout.contains("rfc48.txt"));
        let fetch = |round: usize| {
            let out = format!("out-{round}");
            network.p2pctl(B, &["get-rfc", "48", "--out", &out]).exits(0);
            assert_eq!(network.lan.world.read(&format!("{out}/rfc48.txt")), rfc(48));
        };
        let (registered, refused) = std::thread::scope(|scope| {
            let attack = scope.spawn(|| network.on(ATTACKER, async || flood(&network, MADE_UP).await));
            // Beside it, and after.
            (0..3).for_each(fetch);
            attack.join().unwrap()
        });
        (3..6).for_each(fetch);
        if network.is_certified() {
            assert_eq!(registered, 0);
            assert!(refused.contains(&Some(Reason::NameNotYours)), "{refused:?}");
        } else {
            // What one address may register: a part of what the registry keeps.
            assert!(registered <= 300, "{registered}");
            assert!(
                refused.iter().all(|reason| matches!(reason, Some(Reason::RateLimited | Reason::RegistryFull))),
                "{refused:?}"
            );
        }
        let listed = network.listed();
        assert!(["a", "b"].iter().all(|name| listed.contains_key(*name)), "{listed:?}");
    }
}
