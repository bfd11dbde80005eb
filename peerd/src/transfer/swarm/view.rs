//! A swarm as the contract shows it.

use super::state::{Connected, Swarm};
use p2pdi::{id::PeerId, v1};
use std::time::{Duration, Instant};

impl Swarm {
    /// This peer's view of the swarm.
    pub(crate) fn view(&self, now: Instant) -> v1::Swarm {
        let pieces = self.pieces();
        let sum = self.traffic.sum(now);
        let (had, complete, connections, rarest) = self.with(|own, members| {
            let mut copies: Vec<u32> = (0..pieces.count()).map(|piece| u32::from(own.contains(piece))).collect();
            let mut connections = Vec::new();
            for connected in members {
                for piece in connected.has.iter() {
                    copies[piece] += 1;
                }
                connections.push(self.connection(connected, now));
            }
            (own.bytes(pieces), own.is_full(), connections, rarest(&copies))
        });
        v1::Swarm {
            blake3: self.hash().to_field(),
            name: self.name().to_string(),
            size: pieces.size(),
            piece_size: pieces.piece_size(),
            pieces: u32::try_from(pieces.count()).unwrap_or(u32::MAX),
            had,
            complete,
            connections,
            rarest_copies: rarest.0,
            rarest_pieces: rarest.1,
            download_bytes_per_second: sum.receive_rate,
            upload_bytes_per_second: sum.send_rate,
            waiting: self.waiting(),
        }
    }

    fn connection(&self, connected: &Connected, now: Instant) -> v1::SwarmConnection {
        let member = &connected.member;
        let totals = self.traffic.of(member.id, now);
        v1::SwarmConnection {
            member: Some(v1::SwarmPeer {
                peer: Some(v1::Contact {
                    id: member.id.to_field(),
                    name: member.name.to_string(),
                    endpoint: member.endpoint.as_ref().map(ToString::to_string).unwrap_or_default(),
                }),
                zone: member.zone.clone(),
                had: connected.has.bytes(self.pieces()),
                complete: connected.has.is_full(),
                reported: false,
            }),
            received: totals.received,
            sent: totals.sent,
            download_bytes_per_second: totals.receive_rate,
            upload_bytes_per_second: totals.send_rate,
            requests: totals.requests,
            idle: totals.idle.map(duration),
        }
    }

    /// Bytes arrived from a peer.
    pub(crate) fn received(&self, from: Option<PeerId>, bytes: u64, now: Instant) {
        self.traffic.received(from, bytes, now);
    }

    /// Bytes went to a peer.
    pub(crate) fn sent(&self, to: Option<PeerId>, bytes: u64, now: Instant) {
        self.traffic.sent(to, bytes, now);
    }

    /// Bytes that went to others so far, and bytes a second now.
    pub(crate) fn sent_so_far(&self, now: Instant) -> (u64, u64) {
        let sum = self.traffic.sum(now);
        (sum.sent, sum.send_rate)
    }

    /// Requests at a peer that are not answered in full.
    pub(crate) fn set_requests(&self, at: PeerId, requests: u32) {
        self.traffic.set_requests(Some(at), requests);
    }
}

/// Copies of the rarest piece, and of how many pieces there are that few.
fn rarest(copies: &[u32]) -> (u32, u32) {
    let fewest = copies.iter().copied().min().unwrap_or(0);
    let pieces = copies.iter().filter(|count| **count == fewest).count();
    (fewest, u32::try_from(pieces).unwrap_or(u32::MAX))
}

fn duration(idle: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(idle).unwrap_or_default()
}
