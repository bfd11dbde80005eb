//! The tracker: it knows who fetches or holds which document. A registry is one.

use super::{candidate::Candidate, source::Source};
use crate::session::{AnnounceError, Session};
use p2pdi::{
    content::ContentHash,
    name::PeerName,
    v1::{AnnounceRequest, AnnounceResponse, Contact, SwarmPeer},
};
use std::time::Duration;

/// Most members taken of one answer: the contract's maximum with room for later versions.
const OTHERS_MAX: usize = 64;
/// Most whole holders that one announce may report.
pub const REPORTED_MAX: usize = 8;
/// Interval if an answer has none or one that is none.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(15);

/// A document, and what this peer has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Hash of the document.
    pub hash: ContentHash,
    /// Size of the document, in bytes; 0 if it is not known.
    pub size: u64,
    /// Verified bytes that this peer has.
    pub had: u64,
    /// It leaves the swarm.
    pub done: bool,
    /// Whole holders that it found by other ways and uses, at most [`REPORTED_MAX`].
    pub holders: Vec<Source>,
    /// It searched, as it was told to, and found nobody.
    pub searched: bool,
}

/// The tracker's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced {
    /// Other members, and holders that members reported.
    pub others: Vec<Candidate>,
    /// When to announce again.
    pub interval: Duration,
    /// This peer is the one to search for a holder.
    pub search: bool,
    /// Members in all.
    pub members: u32,
    /// Members that have the whole.
    pub whole: u32,
    /// Size of the document, in bytes, as other members say; 0 if the tracker does not know it.
    pub size: u64,
}

/// Somebody who can be told what this peer has, and who knows others.
#[tonic::async_trait]
pub trait Tracker: Send + Sync {
    /// Tells the tracker, and learns of others.
    ///
    /// # Errors
    /// When there is no tracker, it refuses, or it does not answer.
    async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError>;
}

/// A peer without a registry has no tracker.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTracker;

#[tonic::async_trait]
impl Tracker for NoTracker {
    async fn announce(&self, _: Announcement) -> Result<Announced, AnnounceError> {
        Err(AnnounceError::NoTracker)
    }
}

#[tonic::async_trait]
impl Tracker for Session {
    async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError> {
        Session::announce(self, announcement.into_request(String::new())).await.map(Announced::from)
    }
}

impl Announcement {
    /// The message. `endpoint`: where an observer serves what it has; empty for all others.
    pub fn into_request(self, endpoint: String) -> AnnounceRequest {
        let Self { hash, size, had, done, holders, searched } = self;
        let reported = |source: &Source| SwarmPeer {
            peer: Some(Contact {
                name: source.name.as_ref().map(PeerName::to_string).unwrap_or_default(),
                endpoint: source.endpoint.to_string(),
                ..Default::default()
            }),
            had: size,
            complete: true,
            reported: true,
            ..Default::default()
        };
        let holders = holders.iter().take(REPORTED_MAX).map(reported).collect();
        AnnounceRequest { blake3: hash.to_field(), size, had, done, endpoint, holders, want: 0, searched }
    }
}

impl From<AnnounceResponse> for Announced {
    /// Members with an endpoint that cannot be dialled are left out.
    fn from(answer: AnnounceResponse) -> Self {
        let AnnounceResponse { others, interval, search, members, whole, size } = answer;
        let interval = interval.and_then(|given| Duration::try_from(given).ok()).unwrap_or(INTERVAL_DEFAULT);
        Self {
            others: others.into_iter().take(OTHERS_MAX).filter_map(Candidate::parse).collect(),
            interval,
            search,
            members,
            whole,
            size,
        }
    }
}
