//! A name that is revoked is refused by every peer within a lease, and its links end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

use p2pdi::{
    channel::{Channel, Dial},
    endpoint::Endpoint,
    name::PeerName,
    tls::{ClientAuth, Expected, Tls},
    v1::{CreateTokenRequest, RevokeNameRequest, registry_admin_client::RegistryAdminClient},
};
use peerd::Peer;
use registry::{
    AuthorityConfig, Config, Registry, State,
    ca::{CaSettings, operator_of_folder},
};
use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

const PEERS: u32 = 50;
/// The lease: all must happen within it. Peers send three KeepAlives in that time.
const TTL: Duration = Duration::from_secs(12);
/// Longest wait for what is set up before.
const PATIENCE: Duration = Duration::from_secs(120);

async fn until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    started.elapsed()
}

fn operator(ca: &Path, registry: &Endpoint) -> RegistryAdminClient<Channel> {
    let tls = Tls::from_pem(operator_of_folder(ca, SystemTime::now()).unwrap(), ClientAuth::Required).unwrap();
    let expected = Expected::Registry(registry.clone());
    RegistryAdminClient::new(Dial::with(Some(tls)).lazy(std::slice::from_ref(registry), expected))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_reaches_50_peers_within_a_lease() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca");
    let authority = Some(AuthorityConfig { folder: ca.clone(), settings: CaSettings::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (Endpoint::from(listener.local_addr().unwrap()), CancellationToken::new());
    let registry = Registry::open(&Config { state: State::Memory, ttl: TTL, authority, ..Config::default() }).unwrap();
    let serving = tokio::spawn(registry.serve(listener, stop.clone()));
    let mut operator = operator(&ca, &address);
    let token =
        CreateTokenRequest { name: "peer-*".into(), uses: PEERS, addresses: vec![address.to_string()], ..Default::default() };
    let token = operator.create_token(token).await.unwrap().into_inner().token;
    let mut starting = JoinSet::new();
    for number in 0..PEERS {
        let builder = Peer::builder(format!("peer-{number}")).join_with(&token);
        starting.spawn(async move { builder.build().await.unwrap() });
    }
    let peers = timeout(PATIENCE, starting.join_all()).await.expect("they join");
    let revoked: PeerName = "peer-7".parse().unwrap();
    let (outcast, others): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| *peer.name() == revoked);
    let links = |peer: &Peer| peer.node().mesh().view().linked.len();
    until("every peer has links", PATIENCE, async || others.iter().chain(&outcast).all(|peer| links(peer) > 0)).await;
    let linked = others.iter().filter(|peer| peer.node().mesh().view().is_linked(&revoked)).count();
    assert!(linked > 0, "somebody is linked to it");
    others[0].whisper("peer-7", "TEST", "hello").await.unwrap();

    let started = Instant::now();
    operator.revoke_name(RevokeNameRequest { name: revoked.to_string() }).await.unwrap();
    // New connections: each refuses the certificate that it shows.
    let endpoint = outcast[0].endpoint();
    for peer in &others {
        let refuses = async || peer.node().channels().connect(&endpoint, Some(&revoked)).await.is_err();
        until("every peer refuses it", TTL.saturating_sub(started.elapsed()), refuses).await;
    }
    let refused = started.elapsed();
    // Links that were there before.
    let ended = async || !others.iter().any(|peer| peer.node().mesh().view().is_linked(&revoked));
    until("all links to it end", TTL.saturating_sub(started.elapsed()), ended).await;
    let unlinked = started.elapsed();
    println!("refused by all after {refused:?}, no link left after {unlinked:?}, lease {TTL:?}");
    assert!(unlinked < TTL, "{unlinked:?}");
    assert!(outcast[0].whisper("peer-8", "TEST", "hello").await.is_err());
    // The others are as before.
    others[1].whisper(others[2].name().as_str(), "TEST", "hello").await.unwrap();
    stop.cancel();
    timeout(PATIENCE, serving).await.expect("it ends").unwrap().unwrap();
}
