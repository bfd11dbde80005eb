//! A whole network with certificates: a registry, peers, links, messages, documents.

use super::{
    certificates::Authority,
    named,
    peers::{self, eventually, peer::Peer, within},
    ping,
};
use p2pdi::{
    channel::Dial,
    document::DocumentName,
    tls::{Expected, Tls},
    v1::SessionState,
};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::tracker::NoTracker,
    transfer::{FetchOptions, NoMoreHolders, Progress, Swarms, fetch},
};
use registry::{Config, Registry, RegistryError, State};
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(super) struct Running {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), RegistryError>>,
}

impl Running {
    pub(super) async fn start(tls: Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let registry = Registry::open(&Config { state: State::Memory, tls: Some(tls), ..Config::default() }).unwrap();
        let serving = tokio::spawn(registry.serve(listener, stop.clone()));
        Self { address, stop, serving }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        within("the registry's end", self.serving).await.unwrap().unwrap();
    }
}

pub(super) async fn member(name: &str, tls: Tls, registry: SocketAddr, files: &[(&str, &[u8])]) -> Peer {
    Peer::configured(files, |config| {
        config.name = name.parse().unwrap();
        config.tls = Some(tls);
        config.registries = vec![registry.into()];
    })
    .await
}

pub(super) async fn until(peer: &Peer, state: SessionState) -> String {
    let mut states = peer.handle.session().state();
    let reached = tokio::time::timeout(peers::PATIENCE, states.wait_for(|now| *now == state)).await;
    assert!(reached.is_ok(), "never {state:?}: {:?}", peer.handle.session().status());
    peer.handle.session().status().detail
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_register_link_talk_and_fetch_with_certificates_only() {
    let network = Authority::new("network");
    let registry = Running::start(network.tls(&["registry.example", "spiffe://default/registry"])).await;
    let content = peers::bytes(3_000_000);
    let a = member("fff-a", network.tls(&["fff-a"]), registry.address, &[("model.bin", &content)]).await;
    let b = member("fff-b", network.tls(&["fff-b"]), registry.address, &[]).await;
    for peer in [&a, &b] {
        until(peer, SessionState::Registered).await;
    }
    within("a link", b.handle.mesh().join(a.address.into())).await.unwrap();
    eventually("the link", async || a.handle.mesh().view().is_linked(&"fff-b".parse().unwrap()).then_some(())).await;

    let me = network.tls(&["fff-c"]);
    let channels = ChannelPool::dialling(Dial::with(Some(me.clone())));
    let (out, source) = (tempfile::tempdir().unwrap(), a.source("fff-a"));
    let options = FetchOptions::new(out.path().to_owned(), Swarms::of_a_client("fff-c".parse().unwrap(), Arc::new(NoTracker)));
    let wanted = DocumentSelector::Name(DocumentName::parse("model.bin").unwrap());
    let progress = Arc::new(Progress::default());
    let fetching = fetch(&channels, &wanted, vec![source], Arc::new(NoMoreHolders), &options, &progress);
    let fetched = within("the document", Box::pin(fetching)).await.unwrap();
    assert!(std::fs::read(fetched.path).unwrap() == content);

    let stranger = Authority::new("other").tls(&["fff-c"]);
    assert!(ping(a.address, Some(&stranger), named("fff-a")).await.is_err());
    assert!(
        ping(registry.address, Some(&me), Expected::Registry(registry.address.into()))
            .await
            .unwrap_err()
            .contains("Unimplemented")
    );
    a.stop().await;
    b.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn a_registry_proves_its_host_or_its_id_and_a_peer_cannot_stand_in_for_it() {
    let network = Authority::new("network");
    let caller = network.tls(&["fff-b"]);
    for (names, accepted) in [
        (&["127.0.0.1"] as &[&str], true),
        (&["elsewhere.example", "spiffe://default/registry"], true),
        (&["elsewhere.example"], false),
        (&["127.0.0.1", "spiffe://default/peer/fff-a"], false),
        (&["127.0.0.1", "spiffe://default/operator/alice"], false),
    ] {
        let registry = Running::start(network.tls(names)).await;
        let b = member("fff-b", caller.clone(), registry.address, &[]).await;
        if accepted {
            until(&b, SessionState::Registered).await;
        } else {
            let detail = until(&b, SessionState::Unreachable).await;
            assert!(detail.contains("that of the registry is for its host, 127.0.0.1"), "{names:?}: {detail}");
        }
        b.stop().await;
        registry.stop().await;
    }
}

#[tokio::test]
async fn each_of_several_registries_proves_what_it_is() {
    let network = Authority::new("network");
    let registry = Running::start(network.tls(&["127.0.0.1"])).await;
    let impostor = Running::start(network.tls(&["spiffe://default/peer/fff-a"])).await;
    let stranger = Running::start(Authority::new("other").tls(&["127.0.0.1"])).await;
    // Their order is random.
    for name in ["fff-b", "fff-c", "fff-d"] {
        let peer = Peer::configured(&[], |config| {
            config.name = name.parse().unwrap();
            config.tls = Some(network.tls(&[name]));
            config.registries = [&impostor, &registry, &stranger].map(|one| one.address.into()).to_vec();
        })
        .await;
        assert_eq!(until(&peer, SessionState::Registered).await, format!("registered as {name} at {}", registry.address));
        assert_eq!(peer.handle.session().status().registry, format!("https://{}", registry.address));
        peer.stop().await;
    }
    for running in [registry, impostor, stranger] {
        running.stop().await;
    }
}

#[tokio::test]
async fn a_peer_does_not_start_under_a_name_that_its_certificate_lacks() {
    let network = Authority::new("network");
    let built = peerd::Peer::builder("fff-a").tls(network.tls(&["fff-b"])).build().await;
    let error = built.unwrap_err().to_string();
    assert!(error.contains("fff-a is not in the certificate, which is for fff-b"), "{error}");
    let plain = peerd::Peer::builder("fff-a").registry("https://127.0.0.1:7800").build().await;
    assert!(plain.unwrap_err().to_string().contains("https:// needs certificates"));
}
