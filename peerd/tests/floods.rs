//! Floods of listings, whispers and links of one address, measured: others are served about as fast as before, memory stays bounded, and all is
//! as before afterwards. A test program of its own, one flood after the other: memory and times are those of the whole process.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::large_futures,
    clippy::cast_possible_truncation,
    reason = "test helpers fail by panicking, and a flood prints what was measured"
)]

mod support;

use crate::support::{
    eventually,
    peer::{self, Peer},
    within,
};
use p2pdi::{
    id::PeerId,
    link::LinkMessage,
    platform::ProcessStats,
    server::{CallLimits, Limits},
    v1::{
        Broadcast, BroadcastId, Contact, LinkFrame, LinkHello, NeighbourRequest, PingRequest, RfcQueryRequest, WhisperRequest,
        link_frame::Body, peer_client::PeerClient,
    },
};
use peerd::node::NodeHandle;
use std::{
    env,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout_at},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// What an honest call may take longer during a flood than twice as long as before, in the middle: those who flood are on the same machine,
/// which is busy with others.
const SLACK: Duration = Duration::from_millis(250);
/// Memory that a flood may cost: a quarter of 10,000 connections of some 20 KiB is 50 MiB, and the allocator keeps some.
const MEMORY: u64 = 96 << 20;
/// What links may cost beside that: one address has up to 32 of them, and what arrives on one that is not read, since it floods, waits in its
/// flow-control window of 4 MiB.
const MEMORY_OF_LINKS: u64 = 32 * (4 << 20);
/// All is as before so long after a flood.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// Time between two honest calls.
const PACE: Duration = Duration::from_millis(20);
/// Tells the process of those who flood what to do, where to, how many of them, and for how many seconds.
const FLOOD: &str = "P2PDI_TEST_FLOOD";

/// What another flood takes would count as this one's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
/// A document that honest callers look for.
const SMALL: (&str, &[u8]) = ("rfc48.txt", b"RFC 48: a possible protocol plateau\n");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    Listings,
    Whispers,
    Links,
}

const FLOODS: [Flood; 3] = [Flood::Listings, Flood::Whispers, Flood::Links];

impl Flood {
    /// One of those who flood, number `number`, on a connection of its own, until `end`; returns how many calls were made.
    async fn run(self, to: SocketAddr, number: u64, end: Instant) -> u64 {
        let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap();
        let endpoint = endpoint.local_address(Some([127, 0, 0, 66].into()));
        let mut calls = 0;
        while Instant::now() < end {
            if let Ok(Ok(channel)) = timeout_at(end.into(), endpoint.connect()).await {
                // An error ends the connection, and another one begins.
                let flooding = self.on(PeerClient::new(channel), number, end, &mut calls);
                let _ended = timeout_at(end.into(), flooding).await;
            }
            sleep(Duration::from_millis(50)).await;
        }
        calls
    }

    async fn on(self, mut client: PeerClient<Channel>, number: u64, end: Instant, calls: &mut u64) -> Result<(), Status> {
        while Instant::now() < end {
            *calls += 1;
            match self {
                Self::Listings => {
                    let mut listing = client.rfc_query(RfcQueryRequest::default()).await?.into_inner();
                    // Every other one is left unread for a moment.
                    if calls.is_multiple_of(2) {
                        sleep(Duration::from_millis(100)).await;
                    }
                    while listing.message().await?.is_some() {}
                }
                Self::Whispers => {
                    let message = WhisperRequest {
                        to: "sharer".into(),
                        body: vec![7; 4_096].into(),
                        from: "flood".into(),
                        ..Default::default()
                    };
                    client.whisper(message).await?;
                }
                Self::Links => link(&mut client, number, *calls, end).await?,
            }
        }
        Ok(())
    }
}

/// A link that says nothing, says who it is and nothing more, or floods its neighbour with broadcasts.
async fn link(client: &mut PeerClient<Channel>, number: u64, call: u64, end: Instant) -> Result<(), Status> {
    let (frames, queue) = mpsc::channel(64);
    let frame = |body| LinkMessage::new(LinkFrame { body: Some(body) });
    let origin = PeerId::from_u128(u128::from(number) << 64 | u128::from(call));
    if !(number + call).is_multiple_of(3) {
        let peer = Contact { id: origin.to_field(), name: format!("flood-{number}-{call}"), endpoint: "127.0.0.66:1".into() };
        let hello = LinkHello { peer: Some(peer), incarnation: 1, network: String::new() };
        let _sent = frames.send(frame(Body::Hello(hello))).await;
    }
    let mut theirs = client.link(ReceiverStream::new(queue)).await?.into_inner();
    if (number + call) % 3 == 2 {
        let _sent = frames.send(frame(Body::NeighbourRequest(NeighbourRequest { urgent: true }))).await;
        for sequence in 1.. {
            let id = BroadcastId { origin: origin.to_field(), incarnation: 1, sequence };
            let broadcast = Broadcast { id: Some(id), hops: 1, age_ms: 0, payload: vec![0; 1_000].into(), signature: None };
            if Instant::now() >= end || frames.send(frame(Body::Broadcast(broadcast))).await.is_err() {
                break;
            }
        }
    }
    while theirs.next().await.transpose()?.is_some() {}
    Ok(())
}

/// Nothing, unless it is started by [`flood_from_elsewhere`].
#[tokio::test(flavor = "multi_thread")]
async fn those_who_flood_from_another_process() {
    let Ok(wanted) = env::var(FLOOD) else { return };
    let [flood, to, count, seconds] = wanted.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let flood = FLOODS.into_iter().find(|one| format!("{one:?}") == flood).unwrap();
    let (to, end) = (to.parse().unwrap(), Instant::now() + Duration::from_secs(seconds.parse().unwrap()));
    let flooding: JoinSet<u64> = (0..count.parse().unwrap()).map(|number| flood.run(to, number, end)).collect();
    // After the test harness's own words on that line.
    println!("\ncalls: {}", flooding.join_all().await.into_iter().sum::<u64>());
}

/// Floods from another process, with the lowest priority where there is `nice`: those who flood have machines of their own.
async fn flood_from_elsewhere(flood: Flood, to: SocketAddr, count: usize, time: Duration) -> u64 {
    let exe = env::current_exe().unwrap();
    let mut command = Command::new(if cfg!(unix) { "nice".as_ref() } else { exe.as_path() });
    if cfg!(unix) {
        command.args(["-n", "19"]).arg(&exe);
    }
    command.args(["--exact", "those_who_flood_from_another_process", "--nocapture"]);
    command.env(FLOOD, format!("{flood:?} {to} {count} {}", time.as_secs()));
    // It ends by itself, after `time`.
    let output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let calls = text.lines().find_map(|line| line.strip_prefix("calls: ")?.parse().ok());
    calls.unwrap_or_else(|| panic!("the flood failed: {text}"))
}

/// What an honest caller does: it looks for a document, whispers, and its neighbour whispers over the link.
async fn be_honest(peer: &Peer, neighbour: &NodeHandle, end: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    let whisper = |from: &str| WhisperRequest { to: "sharer".into(), body: "x".into(), from: from.into(), ..Default::default() };
    let mut client = peer.client();
    while Instant::now() < end {
        if took.len() % 10 == 0 {
            client = peer.client();
        }
        let begun = Instant::now();
        let looking = client.rfc_query(RfcQueryRequest { number: 48, ..Default::default() });
        let mut found = within("an answer", looking).await.expect("an honest caller is served").into_inner();
        within("what is found", found.message()).await.unwrap().unwrap();
        within("an answer", client.whisper(whisper("honest"))).await.expect("an honest whisper");
        let over_the_link = within("an answer", neighbour.whisper(whisper("neighbour"))).await.expect("a whisper over the link");
        assert_eq!(over_the_link.hops, 1);
        took.push(begun.elapsed());
        sleep(PACE).await;
    }
    took.sort();
    took
}

fn middle(took: &[Duration]) -> Duration {
    took[took.len() / 2]
}

fn resident() -> u64 {
    ProcessStats::read().resident_bytes.unwrap_or(0)
}

async fn withstands(flood: Flood) {
    let _turn = ONE_AT_A_TIME.lock().await;
    // The full size takes half a minute each: P2PDI_HOSTILE=full cargo test -p peerd --test floods -- --nocapture
    let (count, seconds) = if env::var_os("P2PDI_HOSTILE").is_some() { (2_000, 20) } else { (200, 3) };
    let time = Duration::from_secs(seconds);
    let calls = CallLimits::default().limiting_local();
    let peer = Peer::configured(&[SMALL], |config| config.limits = Limits { calls, ..Limits::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let neighbour = Peer::start(peerd::config::NodeConfig { share: None, ..peer::config("neighbour", &folder) }, folder).await;
    within("a link", neighbour.handle.mesh().join(peer.address.into())).await.unwrap();
    let is_linked = || peer.handle.mesh().view().is_linked(&"neighbour".parse().unwrap());
    eventually("the link", async || is_linked().then_some(())).await;

    let quiet = be_honest(&peer, &neighbour.handle, Instant::now() + time / 2).await;
    let (before, end) = (resident(), Instant::now() + time);
    let (calls, took) =
        tokio::join!(flood_from_elsewhere(flood, peer.address, count, time), be_honest(&peer, &neighbour.handle, end));
    let grown = resident().saturating_sub(before);
    println!(
        "{flood:?}: {calls} calls; honest rounds: median {:?} of {}, before {:?} of {}; memory grew by {} KiB",
        middle(&took),
        took.len(),
        middle(&quiet),
        quiet.len(),
        grown / 1024
    );
    // Of the lowest priority: on a machine that is busy with others it is a small flood.
    assert!(calls > 0, "there was no flood");
    let memory = MEMORY + if flood == Flood::Links { MEMORY_OF_LINKS } else { 0 };
    assert!(grown < memory, "memory grew by {grown} bytes");
    let bound = middle(&quiet) * 2 + SLACK;
    assert!(middle(&took) <= bound, "{:?}, and {:?} before", middle(&took), middle(&quiet));

    // All is as before: the link is there, though a made-up neighbour that says it has no other one may have taken its place for a moment; whoever
    // flooded is served, those that it made up are no neighbours, and others are as quick.
    let since = Instant::now();
    eventually("the link", async || is_linked().then_some(())).await;
    let mut again = peer.client_from([127, 0, 0, 66].into());
    eventually("the same address is served", async || again.ping(PingRequest {}).await.ok()).await;
    eventually("made-up neighbours are gone", async || (peer.handle.mesh().view().linked.len() == 1).then_some(())).await;
    assert!(since.elapsed() < AFTERWARDS, "{:?}", since.elapsed());
    let later = be_honest(&peer, &neighbour.handle, Instant::now() + time / 3).await;
    assert!(middle(&later) <= bound, "{:?} afterwards, and {:?} before", middle(&later), middle(&quiet));
    peer.assert_serves(SMALL.0, SMALL.1).await;
    neighbour.stop().await;
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_listings_leaves_others_served_and_memory_bounded() {
    withstands(Flood::Listings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_whispers_leaves_others_served_and_memory_bounded() {
    withstands(Flood::Whispers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_links_leaves_others_served_and_memory_bounded() {
    withstands(Flood::Links).await;
}
