//! Broadcasts to 50 peers, against NATS publishing to as many subscribers, each with its own connection.
//!
//! Every message must arrive at all 49 receivers exactly once. All peers run in this process, as do all clients of NATS, so both sides share
//! its processor time; NATS also has a server process, the peers have none.

use crate::{
    crowd::Crowd,
    figure::{Figure, quantile},
    nats::{self, NatsServer},
    tally::{Round, Tally, body},
};
use async_nats::Client;
use peerd::inbox::{KIND_DEFAULT, MessageKind};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

const PEERS: usize = 50;
const BODY_BYTES: usize = 256;
const SUBJECT: &str = "broadcast";
/// Length of a round of one side.
const ROUND: Duration = Duration::from_secs(2);
/// Messages in flight in a round of many.
const WINDOW: usize = 64;

/// Rounds: name, number of senders that take turns, and number of messages in flight.
const ROUNDS: [(&str, usize, usize); 3] =
    [("one at a time", 1, 1), ("one sender, 64 at once", 1, WINDOW), ("50 senders, 64 at once", PEERS, WINDOW)];

pub(crate) async fn measure(nats: &NatsServer, rounds: usize) -> Vec<Figure> {
    let crowd = Crowd::start(PEERS, None).await;
    let (ours, theirs) = (Tally::new(PEERS - 1), Tally::new(PEERS - 1));
    let mut listeners = JoinSet::new();
    for peer in &crowd.peers {
        let (mut receiver, mut messages) = (ours.receiver(), peer.inbox().subscribe(Vec::new()).unwrap());
        listeners.spawn(async move {
            while let Some((message, lost)) = messages.next().await {
                assert_eq!(lost, 0, "a listener that reads lost messages");
                receiver.received(&message.body);
            }
        });
    }
    let mut clients = Vec::new();
    for _ in 0..PEERS {
        let client = nats.client().await;
        let (mut receiver, mut messages) = (theirs.receiver(), client.subscribe(SUBJECT).await.unwrap());
        nats::answered(&client).await;
        listeners.spawn(async move {
            while let Some(message) = messages.next().await {
                receiver.received(&message.payload);
            }
        });
        clients.push(client);
    }
    let mut figures = Vec::new();
    for (what, senders, window) in ROUNDS {
        let mut pairs = Vec::new();
        // The first round is a warm-up.
        for round in 0..=rounds {
            let nats = published(&theirs, &clients, senders, window).await;
            let mesh = broadcast(&ours, &crowd, senders, window).await;
            if round > 0 {
                pairs.push((mesh, nats));
            }
        }
        figures.extend(compared(what, window, &pairs));
        assert!(listeners.try_join_next().is_none(), "a listener failed");
    }
    let duplicates: u64 = crowd.peers.iter().map(|peer| peer.mesh().view().status.duplicates).sum();
    let arrived: u64 = crowd.peers.iter().map(|peer| peer.mesh().view().status.broadcasts).sum();
    let share = duplicates as f64 / arrived as f64;
    figures.push(Figure::alone("duplicate broadcasts that arrived on another link", share, "of those delivered"));
    listeners.shutdown().await;
    crowd.stop().await;
    figures
}

async fn broadcast(tally: &Arc<Tally>, crowd: &Crowd, senders: usize, window: usize) -> Round {
    let kind: MessageKind = KIND_DEFAULT.parse().unwrap();
    tally
        .round(ROUND, window, |number| {
            let (mesh, kind) = (crowd.peers[number as usize % senders].mesh().clone(), kind.clone());
            async move {
                mesh.broadcast(&kind, body(number, BODY_BYTES), Duration::ZERO).await.unwrap();
            }
        })
        .await
}

async fn published(tally: &Arc<Tally>, clients: &[Client], senders: usize, window: usize) -> Round {
    tally
        .round(ROUND, window, |number| {
            let client = clients[number as usize % senders].clone();
            async move { client.publish(SUBJECT, body(number, BODY_BYTES)).await.unwrap() }
        })
        .await
}

fn compared(what: &str, window: usize, pairs: &[(Round, Round)]) -> Vec<Figure> {
    let yardstick = "NATS publish";
    let figure = |which: &str, unit, of: fn(&Round) -> f64| {
        let pairs: Vec<_> = pairs.iter().map(|(ours, theirs)| (of(ours), of(theirs))).collect();
        Figure::pairs(format!("broadcast to 49 of 50 peers, {what}, {which}"), unit, yardstick, &pairs)
    };
    if window > 1 {
        return vec![figure("rate", "/s", |round| round.rate)];
    }
    vec![
        figure("last receiver, p50", "µs", |round| quantile(&mut round.took.clone(), 0.5)),
        figure("last receiver, p99", "µs", |round| quantile(&mut round.took.clone(), 0.99)),
    ]
}
