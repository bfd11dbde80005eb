//! Where certificates are optional, whoever shows none has no name.

use super::{
    certificates::Authority,
    network::Running,
    peers::{self, peer::Peer, within},
};
use p2pdi::{
    channel::Dial,
    content::ContentHash,
    document::DocumentName,
    endpoint::Endpoint,
    id::PeerId,
    status::Reason,
    tls::{ClientAuth, Expected, Tls},
    v1::{
        AvailabilityRequest, AvailabilityStart, AvailabilityUpdate, Contact, RegisterRequest, peer_client::PeerClient,
        registry_client::RegistryClient,
    },
};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::tracker::NoTracker,
    transfer::{FetchOptions, NoMoreHolders, Progress, Swarms, fetch},
};
use std::{net::SocketAddr, sync::Arc};

fn dial(tls: &Tls, address: SocketAddr) -> p2pdi::channel::Channel {
    Dial::with(Some(tls.clone())).lazy(&[Endpoint::from(address)], Expected::Anyone)
}

#[tokio::test]
async fn a_registry_gives_a_name_to_those_with_a_certificate_only() {
    let network = Authority::new("network");
    let optional = network.issue(&["127.0.0.1"]).tls(&network.pem(), ClientAuth::Optional).unwrap();
    let registry = Running::start(optional).await;
    let register = |tls: Tls, observer: bool| async move {
        let endpoint = if observer { String::new() } else { "127.0.0.1:7801".to_owned() };
        let request = RegisterRequest { name: "fff-a".into(), endpoint, observer, ..Default::default() };
        let mut client = RegistryClient::new(dial(&tls, registry.address));
        within("an answer", client.register(request)).await
    };
    let refused = register(network.tls_without_certificate(), false).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::CertificateMissing), "{refused:?}");
    register(network.tls_without_certificate(), true).await.unwrap();
    register(network.tls(&["fff-a"]), false).await.unwrap();
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_certificate_fetches_and_is_in_no_swarm() {
    let network = Authority::new("network");
    let content = peers::bytes(3_000_000);
    let optional = network.issue(&["fff-a"]).tls(&network.pem(), ClientAuth::Optional).unwrap();
    let a = Peer::configured(&[("model.bin", &content)], |config| {
        config.name = "fff-a".parse().unwrap();
        config.tls = Some(optional);
    })
    .await;
    let nobody = network.tls_without_certificate();
    let join = |tls: Tls, name: &str| {
        let id = PeerId::of_name(&name.parse().unwrap()).to_field();
        let start = AvailabilityStart {
            blake3: ContentHash::of(&content).to_field(),
            size: content.len() as u64,
            peer: Some(Contact { id, name: name.to_owned(), endpoint: String::new() }),
            ..Default::default()
        };
        let first = AvailabilityRequest { update: Some(AvailabilityUpdate { start: Some(start), ..Default::default() }) };
        let mut client = PeerClient::new(dial(&tls, a.address));
        async move {
            let updates = tokio_stream::StreamExt::chain(tokio_stream::once(first), tokio_stream::pending());
            within("an answer", client.availability(updates)).await.map(drop)
        }
    };
    let refused = join(nobody.clone(), "fff-b").await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::CertificateMissing), "{refused:?}");
    assert!(refused.message().contains("members of a swarm"), "{refused:?}");
    join(network.tls(&["fff-b"]), "fff-b").await.unwrap();
    // The document itself is for everyone.
    let (channels, out) = (ChannelPool::dialling(Dial::with(Some(nobody))), tempfile::tempdir().unwrap());
    let options = FetchOptions::new(out.path().to_owned(), Swarms::of_a_client("fff-c".parse().unwrap(), Arc::new(NoTracker)));
    let wanted = DocumentSelector::Name(DocumentName::parse("model.bin").unwrap());
    let progress = Arc::new(Progress::default());
    let fetching = fetch(&channels, &wanted, vec![a.source("fff-a")], Arc::new(NoMoreHolders), &options, &progress);
    let fetched = within("the document", Box::pin(fetching)).await.unwrap();
    assert!(std::fs::read(fetched.path).unwrap() == content);
    a.stop().await;
}
