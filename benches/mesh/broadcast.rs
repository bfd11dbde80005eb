//! Messages to all of 50 peers, against NATS publishing to as many subscribers, each with a connection of its own.
//!
//! Every message is waited for at all 49 receivers, and must come to each exactly once. All peers are in this process, as all clients of
//! NATS are, so both sides share its processor time; NATS has a server beside it, the peers have none.

use crate::{
    crowd::Crowd,
    figure::{Figure, quantile},
    nats::NatsServer,
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
/// Messages that not everybody has yet, in a round of many.
const WINDOW: usize = 64;

/// How a round goes: what it is called, how many send by turns, and how many messages are under way.
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
                receiver.heard(&message.body);
            }
        });
    }
    let mut clients = Vec::new();
    for _ in 0..PEERS {
        let client = nats.client().await;
        let (mut receiver, mut messages) = (theirs.receiver(), client.subscribe(SUBJECT).await.unwrap());
        client.flush().await.unwrap();
        listeners.spawn(async move {
            while let Some(message) = messages.next().await {
                receiver.heard(&message.payload);
            }
        });
        clients.push(client);
    }
    let mut figures = Vec::new();
    for (what, senders, window) in ROUNDS {
        let mut pairs = Vec::new();
        // The first round warms everything up.
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
    figures.push(Figure::alone("broadcasts that came again over another link, and were not shown", share, "of those shown"));
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
