//! Messages to one peer with 1,000 listeners, against NATS publishing to 1,000 subscriptions; and the same while 100 more do not read.
//!
//! Both sides have their listeners in this process, on 8 connections. Each message counts when all listeners that read have it.

use crate::{
    figure::{Figure, median},
    nats::{self, NatsServer},
    programs::Peer,
    tally::{Round, Tally, body},
};
use async_nats::Client;
use p2pdi::{
    channel::{Channel, connect},
    v1::{SubscribeRequest, SubscribeResponse, WhisperRequest, control_client::ControlClient, peer_client::PeerClient},
};
use peerd::connections::channels::ChannelPool;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::{Streaming, transport::Endpoint};

const LISTENERS: usize = 1_000;
/// Connections of the listeners: a peer accepts 256 streams on each.
const CONNECTIONS: usize = 8;
/// Listeners that do not read, each on its own connection: an unread stream blocks the others on its connection.
const SILENT: usize = 100;
const BODY_BYTES: usize = 256;
const SUBJECT: &str = "inbox";
const ROUND: Duration = Duration::from_secs(2);
/// Messages in flight. The inbox keeps 1,000.
const WINDOW: usize = 64;
/// HTTP/2's initial window: some 200 unread messages.
const WINDOW_MIN: u32 = 65_535;
/// Smallest allowed ratio of the rate with and without listeners that do not read.
const AIM: f64 = 0.9;

pub(crate) async fn measure(nats: &NatsServer, rounds: usize) -> Vec<Figure> {
    let peer = Peer::start("busy", &[]);
    let (fresh, _) = peer.process.resident_mib();
    let (ours, theirs) = (Tally::new(LISTENERS), Tally::new(LISTENERS));
    let mut listeners = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let channel = connect(&peer.endpoint(), None).await.unwrap();
        for _ in 0..LISTENERS / CONNECTIONS {
            let (mut messages, mut receiver) = (subscribed(channel.clone()).await, ours.receiver());
            listeners.spawn(async move {
                while let Some(SubscribeResponse { message, dropped }) = messages.message().await.unwrap() {
                    assert_eq!(dropped, 0, "a listener that reads lost messages");
                    receiver.received(&message.unwrap().body);
                }
            });
        }
    }
    for _ in 0..CONNECTIONS {
        let client = nats.client().await;
        for _ in 0..LISTENERS / CONNECTIONS {
            let (mut messages, mut receiver) = (client.subscribe(SUBJECT).await.unwrap(), theirs.receiver());
            listeners.spawn(async move {
                while let Some(message) = messages.next().await {
                    receiver.received(&message.payload);
                }
            });
        }
        nats::answered(&client).await;
    }
    let (listening, _) = peer.process.resident_mib();
    let (sender, publisher) = (ChannelPool::new(None).peer(&peer.endpoint(), None), nats.client().await);
    let (mut pairs, mut held_up, mut warm) = (Vec::new(), Vec::new(), 0.0);
    // The first round is a warm-up.
    for round in 0..=rounds {
        let nats = published(&theirs, &publisher).await;
        let alone = delivered(&ours, &sender).await;
        if round == 0 {
            (warm, _) = peer.process.resident_mib();
        }
        let silent = silent(&peer).await;
        // Until their windows are full.
        delivered(&ours, &sender).await;
        let beside = delivered(&ours, &sender).await;
        drop(silent);
        let again = delivered(&ours, &sender).await;
        assert!(listeners.try_join_next().is_none(), "a listener failed");
        if round > 0 {
            pairs.push((alone.rate, nats.rate));
            held_up.push((beside.rate, f64::midpoint(alone.rate, again.rate)));
        }
    }
    let (after, _) = peer.process.resident_mib();
    let deliveries = median(pairs.iter().map(|(ours, _)| ours * LISTENERS as f64).collect());
    listeners.shutdown().await;
    let what = format!("messages to {LISTENERS} listeners of one peer");
    vec![
        Figure::pairs(format!("{what}, in"), "/s", "NATS publish to 1,000 subscriptions", &pairs),
        Figure::alone(&format!("{what}, out"), deliveries, "/s"),
        Figure::pairs(format!("{what}, in, while {SILENT} more do not read"), "/s", "before and after", &held_up)
            .at_least_times(AIM),
        Figure::alone("memory of a listener", (listening - fresh) * 1024.0 / LISTENERS as f64, "KiB resident"),
        Figure::alone("resident after the first round", warm, "MiB"),
        Figure::alone("resident after all rounds", after, "MiB"),
    ]
}

/// A subscription, active when this returns.
async fn subscribed(channel: Channel) -> Streaming<SubscribeResponse> {
    let mut messages = ControlClient::new(channel).subscribe(SubscribeRequest::default()).await.unwrap().into_inner();
    messages.message().await.unwrap().expect("the first response");
    messages
}

/// Subscriptions that are never read, with small windows.
async fn silent(peer: &Peer) -> Vec<Streaming<SubscribeResponse>> {
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        let channel = Endpoint::from_shared(format!("http://{}", peer.address)).unwrap();
        let channel = channel.initial_stream_window_size(WINDOW_MIN).initial_connection_window_size(WINDOW_MIN);
        let channel = channel.connect().await.unwrap();
        let mut messages = ControlClient::new(channel).subscribe(SubscribeRequest::default()).await.unwrap().into_inner();
        messages.message().await.unwrap().expect("the first response");
        silent.push(messages);
    }
    silent
}

async fn delivered(tally: &Arc<Tally>, sender: &PeerClient<Channel>) -> Round {
    tally
        .round(ROUND, WINDOW, |number| {
            let mut sender = sender.clone();
            async move {
                let request = WhisperRequest { to: "busy".to_owned(), body: body(number, BODY_BYTES), ..Default::default() };
                sender.whisper(request).await.unwrap();
            }
        })
        .await
}

async fn published(tally: &Arc<Tally>, publisher: &Client) -> Round {
    tally
        .round(ROUND, WINDOW, |number| {
            let publisher = publisher.clone();
            async move { publisher.publish(SUBJECT, body(number, BODY_BYTES)).await.unwrap() }
        })
        .await
}
