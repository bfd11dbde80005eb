//! Runs one Availability stream, the same on both sides of it.

use super::{
    news::{News, Told},
    state::{NotJoined, SharedSwarm},
    update::{PEERS_MAX, Start, Update},
};
use crate::{holders::candidate::Candidate, transfer::plan::MemberId};
use p2pdi::{field::InvalidField, v1};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep_until, timeout},
};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Shortest pause between two messages: 20 a second, as the contract says. News waits for it, and travels together.
const SEND_INTERVAL: Duration = Duration::from_millis(50);
/// The same for the messages of the other side. One that sends faster is read more slowly, and its stream's window fills.
const READ_INTERVAL: Duration = Duration::from_millis(25);
/// Shortest pause between two messages that name other members.
const PEERS_INTERVAL: Duration = Duration::from_secs(1);
/// Most members that are taken from one stream: more than there are streams of a swarm, and few of those that a fetch keeps track of.
const NAMED_MAX: usize = 2 * PEERS_MAX;
/// How often it is looked what members shall ask for, besides after each of their requests.
const OFFER_INTERVAL: Duration = Duration::from_millis(250);
/// How long the other side may take for its first message.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages queued for the network: the next one waits in the swarm until this one is gone.
pub(crate) const SEND_QUEUE: usize = 1;

/// Why an exchange ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The stream broke, or the other side refused.
    #[error("{}", p2pdi::status::describe(.0))]
    Stream(Status),
    /// The other side said nothing.
    #[error("no message within {} s", START_TIMEOUT.as_secs())]
    Silent,
    /// The other side broke the contract.
    #[error("broke the protocol: {0}")]
    Protocol(#[from] InvalidField),
    /// The other side speaks of another document.
    #[error("broke the protocol: its availability is of another document")]
    OtherDocument,
    /// The other side is no member.
    #[error(transparent)]
    NotJoined(#[from] NotJoined),
}

impl ExchangeError {
    /// Whether the other side broke the contract.
    pub(crate) fn is_violation(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::OtherDocument)
    }
}

/// Reads the first message of the other side.
///
/// # Errors
/// When none comes, or it is invalid.
pub(crate) async fn read_start<S>(incoming: &mut S) -> Result<Start, ExchangeError>
where
    S: Stream<Item = Result<v1::AvailabilityUpdate, Status>> + Unpin,
{
    let first = timeout(START_TIMEOUT, incoming.next()).await.map_err(|_| ExchangeError::Silent)?;
    let first = first.unwrap_or_else(|| Err(Status::cancelled("the stream ended before its first message")));
    Ok(Start::read(&first.map_err(ExchangeError::Stream)?)?)
}

/// The two directions of a stream.
pub(super) struct Streams<S, T> {
    /// What the other side sends, after its `start`.
    pub(crate) incoming: S,
    /// What this side sends.
    pub(crate) outgoing: mpsc::Sender<T>,
}

/// Exchanges availability with a member until one side ends it. `start`: its first message. `told`: `None` if this side's first message
/// is not sent yet.
///
/// # Errors
/// When the stream breaks, the other side breaks the contract, or it is no member.
pub(super) async fn exchange<S, T>(
    swarm: &SharedSwarm,
    dialled_by_us: bool,
    start: Start,
    told: Option<Told>,
    streams: Streams<S, T>,
    wrap: impl Fn(v1::AvailabilityUpdate) -> T,
) -> Result<(), ExchangeError>
where
    S: Stream<Item = Result<v1::AvailabilityUpdate, Status>> + Unpin,
{
    if start.hash != *swarm.hash() || start.pieces != swarm.pieces() {
        return Err(ExchangeError::OtherDocument);
    }
    let close = CancellationToken::new();
    let id = swarm.join(start, dialled_by_us, close.clone())?;
    let member = Leave { swarm, id };
    let Streams { mut incoming, outgoing } = streams;
    let told = match told {
        Some(told) => told,
        None => {
            let (start, told) = swarm.start();
            if outgoing.send(wrap(start.write())).await.is_err() {
                return Ok(());
            }
            told
        }
    };
    let reading = read(swarm, id, &mut incoming);
    let writing = write(swarm, id, told, outgoing, wrap);
    let ended = tokio::select! {
        ended = reading => ended,
        () = writing => Ok(()),
        () = close.cancelled() => Ok(()),
    };
    drop(member);
    ended
}

/// Ends the membership when dropped.
struct Leave<'a> {
    swarm: &'a SharedSwarm,
    id: MemberId,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.swarm.leave(self.id);
    }
}

async fn read<S>(swarm: &SharedSwarm, id: MemberId, incoming: &mut S) -> Result<(), ExchangeError>
where
    S: Stream<Item = Result<v1::AvailabilityUpdate, Status>> + Unpin,
{
    let (mut pace, mut may_name) = (interval(READ_INTERVAL), NAMED_MAX);
    while let Some(message) = incoming.next().await {
        let message = message.map_err(ExchangeError::Stream)?;
        let Update { gained, complete, ask_for, peers, leaving } = Update::read(message, swarm.pieces())?;
        if !gained.is_empty() || complete {
            swarm.member_gained(id, &gained, complete);
        }
        if let Some(pieces) = ask_for {
            swarm.member_asks_for(id, pieces);
        }
        if !peers.is_empty() && may_name > 0 {
            // What a member says of another one is that it may be asked. What that has, and where it is, it says itself.
            let named: Vec<_> = peers.into_iter().take(may_name).map(|peer| peer.source).collect();
            may_name -= named.len();
            swarm.heard_of(named);
        }
        if leaving {
            break;
        }
        pace.tick().await;
    }
    Ok(())
}

/// Sends what is new for the member until it does not read any more.
async fn write<T>(
    swarm: &SharedSwarm,
    id: MemberId,
    mut told: Told,
    outgoing: mpsc::Sender<T>,
    wrap: impl Fn(v1::AvailabilityUpdate) -> T,
) {
    let mut news = swarm.own_news();
    let mut peers_due = Instant::now();
    loop {
        news.mark_unchanged();
        let now = Instant::now();
        swarm.refresh_offers(now.into_std());
        let peers_max = if now >= peers_due { PEERS_MAX } else { 0 };
        let fresh = swarm.news_for(id, &mut told, peers_max);
        if !fresh.peers.is_empty() {
            peers_due = now + PEERS_INTERVAL;
        }
        if fresh != News::default() {
            // The next message is made when this one is gone: what a slow reader has not read yet stays in the swarm.
            if outgoing.send(wrap(message(fresh))).await.is_err() {
                return;
            }
        }
        let next = Instant::now() + SEND_INTERVAL;
        tokio::select! {
            () = sleep_until(now + OFFER_INTERVAL) => {}
            _ = news.changed() => {}
            () = outgoing.closed() => return,
        }
        sleep_until(next).await;
    }
}

fn message(news: News) -> v1::AvailabilityUpdate {
    let News { gained, complete, ask_for, peers } = news;
    let numbers = |pieces: Vec<usize>| pieces.into_iter().filter_map(|piece| u32::try_from(piece).ok()).collect();
    v1::AvailabilityUpdate {
        start: None,
        gained: numbers(gained),
        complete,
        ask_for: ask_for.map(|pieces| v1::AskFor { pieces: numbers(pieces) }),
        peers: peers.iter().map(swarm_peer).collect(),
        leaving: false,
    }
}

fn swarm_peer(candidate: &Candidate) -> v1::SwarmPeer {
    let contact = v1::Contact {
        id: bytes::Bytes::new(),
        name: candidate.source.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        endpoint: candidate.source.endpoint.to_string(),
    };
    v1::SwarmPeer { peer: Some(contact), zone: candidate.zone.clone(), complete: candidate.complete, ..Default::default() }
}
