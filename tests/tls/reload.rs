//! Certificates that are replaced while calls are made.

use super::{
    certificates::Authority,
    named,
    network::{Running, member, until},
    peer,
    peers::{self, eventually, peer::Peer, within},
    ping,
};
use p2pdi::{
    channel::Dial,
    cookie::with_cookie,
    document::DocumentName,
    tls::{ClientAuth, Expected, Tls, TlsFiles},
    v1::{
        KeepAliveRequest, PingRequest, RegisterRequest, SessionState, WhisperRequest, peer_client::PeerClient,
        registry_client::RegistryClient,
    },
};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::tracker::NoTracker,
    transfer::{FetchOptions, NoMoreHolders, Progress, Swarms, Throttle, fetch},
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// How many certificates a client must have seen: the files are read every two seconds.
const SEEN: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_the_certificate_is_replaced_every_second() {
    let (network, folder) = (Authority::new("network"), tempfile::tempdir().unwrap());
    let files = network.files(folder.path(), &["fff-a"]);
    let a = peer("fff-a", Tls::from_files(files.clone(), ClientAuth::Required).unwrap()).await;
    let caller = network.tls(&["fff-b"]);
    let done = Arc::new(AtomicBool::new(false));

    // One connection that stays, beside those that are made for each call.
    let mut kept = PeerClient::new(Dial::with(Some(caller.clone())).lazy(&[a.address.into()], named("fff-a")));
    let until = Arc::clone(&done);
    let staying = tokio::spawn(async move {
        let mut calls = 0;
        while !until.load(Ordering::Relaxed) {
            kept.ping(PingRequest {}).await.expect("a call on a connection that stays");
            calls += 1;
        }
        calls
    });
    let until = Arc::clone(&done);
    let replacing = tokio::spawn(async move {
        let mut every_second = interval(Duration::from_secs(1));
        while !until.load(Ordering::Relaxed) {
            every_second.tick().await;
            network.issue(&["fff-a"]).write(&files);
        }
    });
    let mut serials = BTreeSet::new();
    eventually("new certificates", async || {
        let identity = ping(a.address, Some(&caller), named("fff-a")).await.expect("a call on a new connection").unwrap();
        serials.insert(identity.serial().clone());
        (serials.len() >= SEEN).then_some(())
    })
    .await;
    done.store(true, Ordering::Relaxed);
    assert!(staying.await.unwrap() > 0);
    replacing.await.unwrap();
    a.stop().await;
}

/// How many certificates of each server must have been seen under load.
const SEEN_OF_EACH: usize = 3;
/// Bytes of the document that is fetched slowly while they change, and bytes a second of it.
const LARGE: usize = 4_000_000;
const SLOWLY: u64 = 400_000;

/// A program's certificate, in files, which a task replaces every second.
struct Replaced {
    files: TlsFiles,
    names: Vec<&'static str>,
}

impl Replaced {
    fn new(network: &Authority, folder: &std::path::Path, names: &[&'static str]) -> Self {
        Self { files: network.files(&folder.join(names[0]), names), names: names.to_vec() }
    }

    fn tls(&self) -> Tls {
        Tls::from_files(self.files.clone(), ClientAuth::Required).unwrap()
    }
}

/// KeepAlive calls on one connection, every tenth on a new one, until `done`. Returns how many.
async fn keep_alive(registry: SocketAddr, tls: Tls, done: CancellationToken) -> usize {
    let client =
        || RegistryClient::new(Dial::with(Some(tls.clone())).lazy(&[registry.into()], Expected::Registry(registry.into())));
    let request = RegisterRequest { name: "caller".into(), endpoint: "127.0.0.1:7801".into(), ..Default::default() };
    let registered = client().register(request).await.expect("a registration").into_inner();
    let cookie = registered.cookie.parse().unwrap();
    let (mut kept, mut calls) = (client(), 0);
    while !done.is_cancelled() {
        let mut fresh = client();
        let calling = if calls % 10 == 0 { &mut fresh } else { &mut kept };
        let answer = calling.keep_alive(with_cookie(KeepAliveRequest::default(), Some(&cookie)));
        within("an answer to KeepAlive", answer).await.expect("a KeepAlive");
        calls += 1;
    }
    calls
}

/// Messages over the link from `from` to `fff-a`, until `done`. Returns how many.
async fn whisper(from: peerd::node::NodeHandle, done: CancellationToken) -> usize {
    let mut sent = 0;
    while !done.is_cancelled() {
        let message = WhisperRequest { to: "fff-a".into(), body: "x".into(), from: "fff-b".into(), ..Default::default() };
        let answer = within("an answer to a whisper", Box::pin(from.whisper(message))).await.expect("a whisper");
        assert_eq!((answer.delivered_by.as_str(), answer.hops), ("fff-a", 1), "over the link");
        sent += 1;
    }
    sent
}

/// Fetches the whole document from `fff-a`, verified, at this rate, and with no fault of its holder.
async fn fetch_all(tls: &Tls, holder: &Peer, content: &[u8], rate: Option<u64>) {
    let channels = ChannelPool::dialling(Dial::with(Some(tls.clone())));
    let out = tempfile::tempdir().unwrap();
    let swarms = Swarms::of_a_client("fff-c".parse().unwrap(), Arc::new(NoTracker));
    let options = FetchOptions { limit: Throttle::new(rate), ..FetchOptions::new(out.path(), swarms) };
    let wanted = DocumentSelector::Name(DocumentName::parse("model.bin").unwrap());
    let (finder, progress) = (Arc::new(NoMoreHolders), Arc::new(Progress::default()));
    let source = vec![holder.source("fff-a")];
    let fetching = fetch(&channels, &wanted, source, finder, &options, &progress);
    let fetched = within("the document", Box::pin(fetching)).await.expect("a fetch");
    assert!(std::fs::read(fetched.path).unwrap() == content);
    assert!(fetched.sources.iter().all(|source| source.dropped.is_none()), "{:?}", fetched.sources);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_messages_over_a_link_and_keepalives_go_on_while_all_certificates_are_replaced_every_second() {
    let (network, folder) = (Authority::new("network"), tempfile::tempdir().unwrap());
    let of_registry = ["registry.example", "spiffe://default/registry"];
    let programs =
        [&of_registry[..], &["fff-a"], &["fff-b"], &["caller"]].map(|names| Replaced::new(&network, folder.path(), names));
    let registry = Running::start(programs[0].tls()).await;
    let content = peers::bytes(LARGE);
    let a = member("fff-a", programs[1].tls(), registry.address, &[("model.bin", &content)]).await;
    let b = member("fff-b", programs[2].tls(), registry.address, &[]).await;
    for peer in [&a, &b] {
        until(peer, SessionState::Registered).await;
    }
    within("a link", b.handle.mesh().join(a.address.into())).await.unwrap();
    eventually("the link", async || a.handle.mesh().view().is_linked(&"fff-b".parse().unwrap()).then_some(())).await;

    let me = network.tls(&["fff-c"]);
    let done = CancellationToken::new();
    let caller = programs[3].tls();
    let keeping = tokio::spawn(keep_alive(registry.address, caller, done.clone()));
    let whispering = tokio::spawn(whisper(b.handle.clone(), done.clone()));
    let replacing = {
        let done = done.clone();
        tokio::spawn(async move {
            let mut every_second = interval(Duration::from_secs(1));
            while done.run_until_cancelled(every_second.tick()).await.is_some() {
                for Replaced { files, names } in &programs {
                    network.issue(names).write(files);
                }
            }
        })
    };
    let slowly = fetch_all(&me, &a, &content, Some(SLOWLY));
    let meanwhile = async {
        let mut seen = [(); 2].map(|()| BTreeSet::new());
        eventually("new certificates of both", async || {
            for (address, expected, serials) in
                [(registry.address, Expected::Registry(registry.address.into()), 0), (a.address, named("fff-a"), 1)]
            {
                let channel = Dial::with(Some(me.clone())).lazy(&[address.into()], expected);
                // A registry is no peer, and says so.
                let _answer = within("an answer", PeerClient::new(channel.clone()).ping(PingRequest {})).await;
                seen[serials].insert(channel.identity().expect("a connection").serial().clone());
            }
            fetch_all(&me, &a, &content, None).await;
            seen.iter().all(|serials| serials.len() >= SEEN_OF_EACH).then_some(())
        })
        .await;
    };
    tokio::join!(slowly, meanwhile);
    done.cancel();
    replacing.await.unwrap();
    let (kept, sent) = (keeping.await.unwrap(), whispering.await.unwrap());
    assert!(kept > 10 && sent > 10, "{kept} KeepAlive calls, {sent} whispers");
    for peer in [&a, &b] {
        until(peer, SessionState::Registered).await;
        assert_eq!(peer.handle.session().status().registrations, 1, "its session was never lost");
    }
    a.stop().await;
    b.stop().await;
    registry.stop().await;
}
