//! The same fetches, connections, whispers and KeepAlives with certificates and without.

use crate::{
    certificates::Authority,
    figure::{Aim, Figure, median, time, write_noise},
    programs::{Network, Server},
};
use p2pdi::{
    channel::{Channel, Dial},
    cookie::COOKIE_HEADER,
    endpoint::Endpoint,
    tls::Expected,
    v1::{
        KeepAliveRequest, PingRequest, RegisterRequest, WhisperRequest, peer_client::PeerClient, registry_client::RegistryClient,
    },
};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tonic::Request;

/// Clients that shake hands at once: enough that both cores of a small machine are busy.
const CLIENTS: usize = 8;
/// How long connections are counted.
const COUNTED: Duration = Duration::from_secs(3);
const SMALL_RUNS_PER_RUN: usize = 8;
/// Rounds of calls on connections that stay, with and without in turn.
const CALL_ROUNDS: usize = 15;
/// KeepAlives in flight, and how long they are counted in a round.
const KEEPALIVES: usize = 64;
const KEEPALIVES_COUNTED: Duration = Duration::from_millis(500);
/// Whispers in a round, one after the other.
const WHISPERS: usize = 500;

pub(crate) fn run(folder: &Path, size: u64, runs: u64) -> Vec<Figure> {
    let share = folder.join("share");
    fs::create_dir(&share).unwrap();
    write_noise(&share.join("large.bin"), size);
    fs::copy("testdata/rfc/rfc48.txt", share.join("rfc48.txt")).unwrap();
    let authority = Authority::new("benchmark");
    // A program that speaks for the peer: what others say has to be signed by them.
    let (caller, own) = (authority.tls(&["caller"]), authority.tls(&["fff-c"]));
    let (plain, secured) = (folder.join("plain"), folder.join("secured"));
    let plain = Network::start(&plain);
    let secured = Network::with_certificates_of(&secured, Some(authority));
    let plain_peer = plain.peer("fff-c", &share, &[]);
    let peer = secured.peer("fff-c", &share, &[]);
    for network in [&plain, &secured] {
        network.wait_for("fff-c", "large.bin");
    }
    let get = |network: &Network, args: &[&str]| {
        let took = time(&mut network.p2pctl(args));
        network.forget();
        took
    };
    let [mut with, mut without, mut small, mut small_without] = [const { Vec::new() }; 4];
    for _ in 0..runs {
        without.push(get(&plain, &["get", "large.bin"]));
        with.push(get(&secured, &["get", "large.bin"]));
        for _ in 0..SMALL_RUNS_PER_RUN {
            small_without.push(get(&plain, &["get-rfc", "48"]));
            small.push(get(&secured, &["get-rfc", "48"]));
        }
    }
    let idle = folder.join("idle");
    fs::create_dir(&idle).unwrap();
    let others = [&plain, &secured].map(|network| network.peer("fff-d", &idle, &[]));
    let calls = calls([
        Side { registry: &plain.registry, peer: &plain_peer, dial: Dial::default(), own: Dial::default() },
        Side { registry: &secured.registry, peer: &peer, dial: Dial::with(Some(caller.clone())), own: Dial::with(Some(own)) },
    ]);
    drop(others);
    let connections = handshakes(peer.address, &Dial::with(Some(caller)));
    let plain_connections = handshakes(plain_peer.address, &Dial::default());
    let mut figures = vec![
        Figure::new("large document verified to disk, with TLS", "s", median(&mut with)).against(
            "without",
            median(&mut without),
            Aim::AtMost(1.25),
        ),
        Figure::new("get-rfc 48 as a whole process, with TLS", "s", median(&mut small)).against(
            "without",
            median(&mut small_without),
            Aim::None,
        ),
        Figure::new("connections with a call, both sides on this machine, with TLS", "/s", connections),
        Figure::new("the same, without", "/s", plain_connections),
    ];
    figures.extend(calls);
    figures
}

/// A registry and a peer, and how they are called.
struct Side<'a> {
    registry: &'a Server,
    peer: &'a Server,
    dial: Dial,
    /// How the peer is called.
    own: Dial,
}

/// The clients of one side, on connections that stay.
struct Clients {
    registry: RegistryClient<Channel>,
    cookie: String,
    peer: PeerClient<Channel>,
}

impl Clients {
    async fn connect(side: &Side<'_>) -> Self {
        let at: Endpoint = side.registry.address.into();
        let mut registry = RegistryClient::new(side.dial.connect(&at, Expected::Registry(at.clone())).await.unwrap());
        let ask = RegisterRequest { name: "caller".into(), endpoint: "127.0.0.1:9".into(), ..RegisterRequest::default() };
        let cookie = registry.register(ask).await.unwrap().into_inner().cookie;
        let expected = Expected::Peer("fff-c".parse().unwrap());
        let peer = PeerClient::new(side.own.connect(&side.peer.address.into(), expected).await.unwrap());
        let clients = Self { registry, cookie, peer };
        let begun = Instant::now();
        while clients.whisper().await != Some(1) {
            assert!(begun.elapsed() < Duration::from_secs(30), "fff-c has no link to fff-d");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        clients
    }

    /// One whisper from the peer to its neighbour: how many peers passed it on.
    async fn whisper(&self) -> Option<u32> {
        let request = WhisperRequest { to: "fff-d".into(), body: "a short message".into(), ..WhisperRequest::default() };
        self.peer.clone().whisper(request).await.ok().map(|answer| answer.into_inner().hops)
    }

    /// The median of a round, in microseconds.
    async fn whispers(&self) -> f64 {
        let mut took = Vec::with_capacity(WHISPERS);
        for _ in 0..WHISPERS {
            let begun = Instant::now();
            assert_eq!(self.whisper().await, Some(1), "the whisper took another route");
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        took.sort_by(f64::total_cmp);
        took[took.len() / 2]
    }

    /// KeepAlives a second.
    async fn keep_alives(&self) -> f64 {
        let begun = Instant::now();
        let worker = |mut registry: RegistryClient<Channel>, cookie: String| async move {
            let mut done = 0_u32;
            while begun.elapsed() < KEEPALIVES_COUNTED {
                let mut request = Request::new(KeepAliveRequest::default());
                request.metadata_mut().insert(COOKIE_HEADER, cookie.parse().unwrap());
                registry.keep_alive(request).await.unwrap();
                done += 1;
            }
            done
        };
        let workers: JoinSet<u32> = (0..KEEPALIVES).map(|_| worker(self.registry.clone(), self.cookie.clone())).collect();
        let done: u32 = workers.join_all().await.into_iter().sum();
        f64::from(done) / begun.elapsed().as_secs_f64()
    }
}

/// Whispers and KeepAlives on connections that stay: without certificates, with them.
fn calls(sides: [Side<'_>; 2]) -> [Figure; 2] {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clients = [Clients::connect(&sides[0]).await, Clients::connect(&sides[1]).await];
        let (mut whispers, mut keep_alives) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
        // The first round is a warm-up.
        for round in 0..=CALL_ROUNDS {
            for (side, clients) in clients.iter().enumerate() {
                let (whisper, rate) = (clients.whispers().await, clients.keep_alives().await);
                if round > 0 {
                    whispers[side].push(whisper);
                    keep_alives[side].push(rate);
                }
            }
        }
        let middle = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let [without, with] = whispers.map(middle);
        let whisper = Figure::new("whisper of 15 B to a linked peer, p50, with TLS", "µs", with);
        let whisper = whisper.against("without", without, Aim::AtMost(1.2));
        let [without, with] = keep_alives.map(middle);
        let keep_alive = Figure::new("KeepAlives, 64 at once on one connection, with TLS", "/s", with);
        [whisper, keep_alive.against("without", without, Aim::AtLeast(0.9))]
    })
}

/// New connections a second, with both sides' certificates checked and one call on each.
fn handshakes(peer: SocketAddr, dial: &Dial) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    let done: u64 = runtime.block_on(async {
        let client = |dial: Dial| async move {
            let mut done = 0;
            while begun.elapsed() < COUNTED {
                let channel = dial.connect(&peer.into(), Expected::Peer("fff-c".parse().unwrap())).await.unwrap();
                PeerClient::new(channel).ping(PingRequest {}).await.unwrap();
                done += 1;
            }
            done
        };
        let clients: JoinSet<u64> = (0..CLIENTS).map(|_| client(dial.clone())).collect();
        clients.join_all().await.into_iter().sum()
    });
    done as f64 / begun.elapsed().as_secs_f64()
}
