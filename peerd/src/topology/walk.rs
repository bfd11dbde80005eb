//! Asks peers whom they are linked to, and those in turn.

use super::Snapshot;
use crate::connections::channels::ChannelPool;
use p2pdi::{
    contact::Contact,
    endpoint::Endpoint,
    fan_out::FanOut,
    name::PeerName,
    v1::{ListPeersRequest, ListPeersResponse},
};
use std::{
    collections::{BTreeSet, VecDeque},
    iter,
    time::Duration,
};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

/// How much is asked at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Peers asked at the same time.
    pub at_once: usize,
    /// How long one may take.
    pub answer: Duration,
    /// How long all may take together.
    pub all: Duration,
}

/// Asks one peer.
///
/// # Errors
/// When it does not answer, or not within `limit`.
pub async fn ask(
    channels: &ChannelPool,
    endpoint: &Endpoint,
    name: Option<&PeerName>,
    limit: Duration,
) -> Result<ListPeersResponse, Status> {
    let mut client = channels.peer(endpoint, name);
    let answer = timeout(limit, client.list_peers(ListPeersRequest {})).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))).map(tonic::Response::into_inner)
}

/// Asks `waiting`, the peers that those name, and so on, as far as `picture` has room. Those in `resting` are taken to be silent
/// without being asked.
pub async fn explore(
    channels: &ChannelPool,
    snapshot: &mut Snapshot,
    waiting: Vec<Contact>,
    resting: &BTreeSet<Endpoint>,
    limits: Limits,
) {
    let mut waiting: VecDeque<Contact> = waiting.into();
    let mut fan_out = FanOut::new(limits.at_once);
    let deadline = Instant::now() + limits.all;
    loop {
        let mut calls = iter::from_fn(|| {
            let contact = loop {
                let contact = waiting.pop_front()?;
                if !resting.contains(contact.endpoint()) {
                    break contact;
                }
                snapshot.silent(contact.id());
            };
            let channels = channels.clone();
            Some(async move { (contact.id(), ask(&channels, contact.endpoint(), Some(contact.name()), limits.answer).await) })
        });
        // Calls under way at the deadline are cancelled with `fan_out`.
        let Ok(Some((id, answer))) = timeout_at(deadline, fan_out.next(&mut calls)).await else { break };
        if let Ok(answer) = answer {
            waiting.extend(snapshot.answer(answer));
        }
        // No word of who answered in its place, if anybody did.
        snapshot.silent(id);
    }
}
