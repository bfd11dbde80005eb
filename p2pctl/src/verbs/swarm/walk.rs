//! Asks the members of a swarm what they see, then the members that they name, and so on.

use super::seen::{Member, Seen};
use p2pdi::{
    content::ContentHash,
    endpoint::Endpoint,
    fan_out::FanOut,
    v1::{self, SwarmRequest},
};
use peerd::{
    connections::channels::ChannelPool,
    holders::{search::Found, source::Source},
};
use std::{collections::VecDeque, iter, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

/// Calls at the same time: enough to hide the latency of each.
const ASKED_AT_ONCE: usize = 32;
/// Most members asked. A guess: a longer list is not read.
const MEMBERS_MAX: usize = 200;
/// Timeout of one call: a busy peer answers within a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of all of them.
const WALK_TIMEOUT: Duration = Duration::from_secs(30);

/// A walk through a swarm.
pub(super) struct Walk {
    seen: Seen,
    pending: VecDeque<Source>,
}

impl Walk {
    /// Begins with these peers, whether or not they are members.
    pub(super) fn starting_at(peers: Vec<Source>) -> Self {
        let mut walk = Self { seen: Seen::default(), pending: VecDeque::new() };
        for peer in peers {
            walk.meet(peer);
        }
        walk
    }

    /// Begins with the holders of a document.
    pub(super) fn from_holders(found: Found) -> Self {
        let mut walk = Self::starting_at(found.holders);
        (walk.seen.name, walk.seen.size) = (found.document.name.to_string(), found.document.size());
        for member in walk.seen.members.values_mut() {
            member.holds = true;
        }
        walk
    }

    /// Begins with these peers, too.
    pub(super) fn and(mut self, peers: Vec<Source>) -> Self {
        for peer in peers {
            self.meet(peer);
        }
        self
    }

    /// Bytes of the document; 0: not known.
    pub(super) fn size(&self) -> u64 {
        self.seen.size
    }

    /// Adds a peer to those that are asked, once.
    fn meet(&mut self, peer: Source) -> Option<&mut Member> {
        if self.seen.members.len() >= MEMBERS_MAX && !self.seen.members.contains_key(&peer.endpoint) {
            return None;
        }
        let name = peer.name.as_ref().map(ToString::to_string).unwrap_or_default();
        let endpoint = peer.endpoint.clone();
        if !self.seen.members.contains_key(&endpoint) {
            self.pending.push_back(peer);
        }
        let member = self.seen.members.entry(endpoint).or_default();
        if member.name.is_empty() {
            member.name = name;
        }
        Some(member)
    }

    /// Asks all, and those whom they name; returns the members.
    pub(super) async fn run(mut self, channels: &ChannelPool, hash: ContentHash) -> Seen {
        let mut fan_out = FanOut::new(ASKED_AT_ONCE);
        let deadline = Instant::now() + WALK_TIMEOUT;
        loop {
            let pending = &mut self.pending;
            let mut calls = iter::from_fn(|| {
                let peer = pending.pop_front()?;
                let channels = channels.clone();
                Some(async move {
                    let answer = swarms_of(&channels, &peer, Some(hash)).await;
                    (peer.endpoint, answer)
                })
            });
            // Calls under way at the deadline are cancelled with `fan_out`.
            let Ok(Some((endpoint, answer))) = timeout_at(deadline, fan_out.next(&mut calls)).await else { break };
            if let Ok(swarms) = answer {
                self.add(&endpoint, swarms, hash);
            }
        }
        self.seen.members.retain(|_, member| member.is_member());
        self.seen
    }

    /// Takes the answer of the peer at `endpoint`.
    fn add(&mut self, endpoint: &Endpoint, swarms: Vec<v1::Swarm>, hash: ContentHash) {
        let swarm = swarms.into_iter().find(|swarm| ContentHash::from_field(&swarm.blake3).is_ok_and(|of| of == hash));
        for connection in swarm.iter().flat_map(|swarm| &swarm.connections) {
            let Some(reported) = &connection.member else { continue };
            let contact = reported.peer.clone().unwrap_or_default();
            // A member that serves nothing has no endpoint and cannot be asked.
            let Ok(endpoint) = contact.endpoint.parse() else { continue };
            if let Some(member) = self.meet(Source::new(contact.name.parse().ok(), endpoint)) {
                member.reported = Some(reported.clone());
            }
        }
        if let Some(swarm) = &swarm
            && self.seen.size == 0
        {
            (self.seen.name, self.seen.size) = (swarm.name.clone(), swarm.size);
        }
        if let Some(member) = self.seen.members.get_mut(endpoint) {
            (member.swarm, member.answered) = (swarm, true);
        }
    }
}

/// The swarms that a peer is in: that of one document, or all.
///
/// # Errors
/// When the call fails or takes too long.
pub(super) async fn swarms_of(
    channels: &ChannelPool,
    peer: &Source,
    hash: Option<ContentHash>,
) -> Result<Vec<v1::Swarm>, Status> {
    let request = SwarmRequest { blake3: hash.map(ContentHash::to_field).unwrap_or_default() };
    let mut client = channels.peer_at(&peer.addresses(), peer.name.as_ref());
    let answer = timeout(ANSWER_TIMEOUT, client.swarm(request)).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))).map(|answer| answer.into_inner().swarms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::{Contact, SwarmConnection, SwarmPeer};

    fn endpoint(port: u16) -> Endpoint {
        format!("127.0.0.1:{port}").parse().unwrap()
    }

    fn swarm(hash: ContentHash, ports: impl Iterator<Item = u16>) -> v1::Swarm {
        let connection = |port| {
            let peer = Contact { name: format!("p{port}"), endpoint: format!("127.0.0.1:{port}"), ..Default::default() };
            SwarmConnection { member: Some(SwarmPeer { peer: Some(peer), had: 5, ..Default::default() }), ..Default::default() }
        };
        v1::Swarm {
            blake3: hash.to_field(),
            name: "a".into(),
            size: 10,
            connections: ports.map(connection).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn members_are_asked_once_and_no_more_than_the_limit_whatever_peers_invent() {
        let hash = ContentHash::of(b"a");
        let mut walk = Walk::starting_at(vec![Source::new(None, endpoint(1))]);
        walk.add(&endpoint(1), vec![swarm(hash, 1..4)], hash);
        let pending: Vec<_> = walk.pending.iter().map(|peer| peer.endpoint.port()).collect();
        assert_eq!(pending, [1, 2, 3]);
        assert_eq!((walk.seen.size, walk.seen.members[&endpoint(2)].had()), (10, Some(5)));
        walk.add(&endpoint(2), vec![swarm(hash, 1..60_000)], hash);
        assert_eq!((walk.seen.members.len(), walk.pending.len()), (MEMBERS_MAX, MEMBERS_MAX));
        // The answer about another document does not count.
        walk.add(&endpoint(3), vec![swarm(ContentHash::of(b"b"), 4..5)], hash);
        assert!(walk.seen.members[&endpoint(3)].swarm.is_none());
    }
}
