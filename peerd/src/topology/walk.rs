//! Walks the network: asks peers for their neighbours, then those neighbours in turn.

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

/// Limits of one walk.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls in progress at the same time.
    pub at_once: usize,
    /// Timeout of one call.
    pub answer: Duration,
    /// Timeout of the whole walk.
    pub all: Duration,
}

/// Asks one peer for its neighbours.
///
/// # Errors
/// When the call fails, or takes longer than `limit`.
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

/// Asks the peers in `pending`, then those that they name, and so on, as far as they fit in `snapshot`. Those in `silent` are marked as
/// silent without a call.
pub async fn explore(
    channels: &ChannelPool,
    snapshot: &mut Snapshot,
    pending: Vec<Contact>,
    silent: &BTreeSet<Endpoint>,
    limits: Limits,
) {
    let mut pending: VecDeque<Contact> = pending.into();
    let mut fan_out = FanOut::new(limits.at_once);
    let deadline = Instant::now() + limits.all;
    loop {
        let mut calls = iter::from_fn(|| {
            let contact = loop {
                let contact = pending.pop_front()?;
                if !silent.contains(contact.endpoint()) {
                    break contact;
                }
                snapshot.set_silent(contact.id());
            };
            let channels = channels.clone();
            Some(async move { (contact.id(), ask(&channels, contact.endpoint(), Some(contact.name()), limits.answer).await) })
        });
        // Calls under way at the deadline are cancelled with `fan_out`.
        let Ok(Some((id, answer))) = timeout_at(deadline, fan_out.next(&mut calls)).await else { break };
        if let Ok(answer) = answer {
            pending.extend(snapshot.add_answer(answer));
        }
        // Has no effect if the answer was its own; another peer may have answered in its place.
        snapshot.set_silent(id);
    }
}
