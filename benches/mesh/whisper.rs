//! One message to one peer and its answer, from a program to its own peer and end to end, against a NATS request and its reply.
//!
//! Both go from this process over a server to another and back: four times over loopback, three processes. A whisper goes over the
//! sender's peer to the receiver's, which answers; a request over nats-server to a process that answers. A relayed whisper goes over one
//! more peer: six times, four processes. What a call alone costs is shown by `Ping`, which a program's own peer answers: twice, two
//! processes.

use crate::{
    figure::{Figure, median, quantile},
    nats::{ASKED, NatsServer},
    programs::Peer,
};
use bytes::Bytes;
use p2pdi::{
    channel::Channel,
    v1::{PingRequest, WhisperRequest, peer_client::PeerClient},
    whisper_stream::WhisperStream,
};
use peerd::connections::channels::ChannelPool;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Largest allowed ratio of a whisper's latency to that of a NATS request.
const LATENCY_AIM: f64 = 1.5;
/// Smallest allowed ratio of the whispers a second over one stream to the NATS requests a second, with many in flight.
const RATE_AIM: f64 = 0.4;
const SIZES: [usize; 2] = [16, 1024];
/// Messages in flight, and messages in a round.
const LOADS: [(usize, usize); 2] = [(1, 1_000), (64, 6_400)];

/// What of a load has an aim.
#[derive(Clone, Copy)]
enum Aim {
    Latency,
    Rate,
}

/// A round of one side: microseconds, and messages a second.
#[derive(Clone, Copy)]
struct Sample {
    p50: f64,
    p99: f64,
    rate: f64,
    /// Part of the messages that did not arrive.
    lost: f64,
}

/// Two peers that can dial each other; and two that nobody can dial, with a third between them.
struct Peers {
    near: Peer,
    _right: Peer,
    far: Peer,
    _others: [Peer; 2],
}

impl Peers {
    async fn start() -> Self {
        let bootnode = |peer: &Peer| format!("127.0.0.1:{}", peer.address.port());
        let right = Peer::start("right", &[]);
        let near = Peer::start("near", &["--bootnodes", &bootnode(&right)]);
        let middle = Peer::start("middle", &[]);
        // As behind a NAT each. Port 1 refuses.
        let hidden = ["--advertise", "127.0.0.1:1", "--bootnodes", &bootnode(&middle)];
        let (far, hermit) = (Peer::start("far", &hidden), Peer::start("hermit", &hidden));
        near.until_linked(1).await;
        right.until_linked(1).await;
        far.until_linked(1).await;
        middle.until_linked(2).await;
        Self { near, _right: right, far, _others: [middle, hermit] }
    }
}

pub(crate) async fn measure(nats: &NatsServer, rounds: usize) -> Vec<Figure> {
    let peers = Peers::start().await;
    let client = nats.client().await;
    let _responder = nats.responder(&client).await;
    let channels = ChannelPool::new(None);
    let (near, far) = (channels.peer(&peers.near.endpoint(), None), channels.peer(&peers.far.endpoint(), None));
    let stream = Arc::new(WhisperStream::open(near.clone()).await.unwrap());
    let mut figures = Vec::new();
    for size in SIZES {
        let body = Bytes::from(vec![b'x'; size]);
        for (workers, count) in LOADS {
            let request = || {
                let (client, body) = (client.clone(), body.clone());
                move || {
                    let (client, body) = (client.clone(), body.clone());
                    async move { client.request(ASKED, body).await.map(drop).map_err(|error| error.to_string()) }
                }
            };
            let whisper = |client: &PeerClient<Channel>, to: &'static str, hops: u32| {
                let (client, body) = (client.clone(), body.clone());
                move || {
                    let (mut client, body) = (client.clone(), body.clone());
                    async move {
                        let request = WhisperRequest { to: to.to_owned(), body, ..Default::default() };
                        let answer = client.whisper(request).await.map_err(|error| error.to_string())?.into_inner();
                        assert_eq!(answer.hops, hops, "the whisper took another route");
                        Ok(())
                    }
                }
            };
            let streamed = |stream: &Arc<WhisperStream>| {
                let (stream, body) = (Arc::clone(stream), body.clone());
                move || {
                    let (stream, body) = (Arc::clone(&stream), body.clone());
                    async move {
                        let request = WhisperRequest { to: "right".to_owned(), body, ..Default::default() };
                        let answer = stream.send(request).await.map_err(|error| error.to_string())?;
                        assert_eq!(answer.hops, 1, "the whisper took another route");
                        Ok(())
                    }
                }
            };
            let ping = || {
                let near = near.clone();
                move || {
                    let mut near = near.clone();
                    async move { near.ping(PingRequest {}).await.map(drop).map_err(|error| error.to_string()) }
                }
            };
            let (mut theirs, mut direct, mut relayed, mut pinged) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let mut over_stream = Vec::new();
            // The first round is a warm-up.
            for round in 0..=rounds {
                let samples = [
                    load(workers, count, request()).await,
                    load(workers, count, whisper(&near, "right", 1)).await,
                    load(workers, count, whisper(&far, "hermit", 2)).await,
                    load(workers, count, ping()).await,
                    load(workers, count, streamed(&stream)).await,
                ];
                if round > 0 {
                    theirs.push(samples[0]);
                    direct.push(samples[1]);
                    relayed.push(samples[2]);
                    pinged.push(samples[3]);
                    over_stream.push(samples[4]);
                }
            }
            // With many in flight the processor time of each counts. Who sends many opens a stream.
            let (of_calls, of_stream) = match workers {
                1 => (Some(Aim::Latency), Some(Aim::Latency)),
                _ => (None, Some(Aim::Rate)),
            };
            figures.extend(compared("whisper to a linked peer", size, workers, &direct, &theirs, of_calls));
            figures.extend(compared(
                "whisper to a linked peer, over one stream",
                size,
                workers,
                &over_stream,
                &theirs,
                of_stream,
            ));
            figures.extend(compared("whisper over a third peer", size, workers, &relayed, &theirs, None));
            if size == SIZES[0] {
                figures.extend(compared("ping of one's own peer", 0, workers, &pinged, &theirs, None));
            }
        }
    }
    figures
}

fn compared(what: &str, size: usize, workers: usize, ours: &[Sample], theirs: &[Sample], aim: Option<Aim>) -> Vec<Figure> {
    let pairs = |of: fn(&Sample) -> f64| ours.iter().map(of).zip(theirs.iter().map(of)).collect::<Vec<_>>();
    let how = if workers == 1 { "one at a time".to_owned() } else { format!("{workers} at once") };
    let figure = |which: &str, unit, pairs: &[(f64, f64)]| {
        Figure::pairs(format!("{what}, {size} B, {how}, {which}"), unit, "NATS request", pairs)
    };
    let p50 = figure("p50", "µs", &pairs(|sample| sample.p50));
    let mut figures = vec![
        match aim {
            Some(Aim::Latency) => p50.at_most_times(LATENCY_AIM),
            _ => p50,
        },
        figure("p99", "µs", &pairs(|sample| sample.p99)),
    ];
    let lost = ours.iter().map(|sample| sample.lost).fold(0.0, f64::max);
    if lost > 0.0 {
        figures.push(Figure::alone(&format!("{what}, {size} B, {how}, lost"), lost * 100.0, "%").below(0.0));
    }
    if workers > 1 {
        let rate = figure("rate", "/s", &pairs(|sample| sample.rate));
        figures.push(match aim {
            Some(Aim::Rate) => rate.at_least_times(RATE_AIM),
            _ => rate,
        });
    }
    figures
}

/// Makes `count` calls, `workers` at once.
async fn load<F>(workers: usize, count: usize, call: impl Fn() -> F + Send + Sync + 'static) -> Sample
where
    F: Future<Output = Result<(), String>> + Send,
{
    let call = Arc::new(call);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let call = Arc::clone(&call);
            tokio::spawn(async move {
                let (mut took, mut lost) = (Vec::with_capacity(count / workers), None);
                for _ in 0..count / workers {
                    let begun = Instant::now();
                    match call().await {
                        Ok(()) => took.push(begun.elapsed().as_secs_f64() * 1e6),
                        Err(why) => lost = Some(why),
                    }
                }
                (took, lost)
            })
        })
        .collect();
    let mut took = Vec::with_capacity(count);
    for task in tasks {
        let (arrived, lost) = task.await.unwrap();
        took.extend(arrived);
        if let Some(why) = lost {
            eprintln!("a message did not arrive: {why}");
        }
    }
    let all: Duration = begun.elapsed();
    let arrived = took.len() as f64;
    Sample {
        p50: median(took.clone()),
        p99: quantile(&mut took, 0.99),
        rate: arrived / all.as_secs_f64(),
        lost: 1.0 - arrived / count as f64,
    }
}
