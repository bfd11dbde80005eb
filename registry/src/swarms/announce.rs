//! What an announce says, and who says it.

use p2pdi::{content::ContentHash, cookie::CookieHash, id::PeerId};

/// A document: two sizes for one hash are two swarms, since one of them is a lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentKey {
    /// Its hash.
    pub hash: ContentHash,
    /// Its size in bytes; 0: of those that do not know it.
    pub size: u64,
}

/// The caller of an announce, as the lease table knows it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Hash of its cookie: who it is.
    pub cookie: CookieHash,
    /// Its id.
    pub id: PeerId,
    /// Its name.
    pub name: Box<str>,
    /// `HOST:PORT` where it serves what it has; empty: nowhere, so that it is not named to others. Of an observer with members in several
    /// swarms the latest counts.
    pub endpoint: Box<str>,
    /// Its label `zone`; empty without one.
    pub zone: Box<str>,
    /// Documents that it was sending at its last KeepAlive.
    pub uploads: u32,
}

/// A whole holder that a member found by other ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedHolder {
    /// Its id, if it is known.
    pub id: Option<PeerId>,
    /// Its name; empty if it is not known.
    pub name: Box<str>,
    /// `HOST:PORT` that others can dial.
    pub endpoint: Box<str>,
    /// Its label `zone`; empty if it is not known.
    pub zone: Box<str>,
}

/// A validated announce.
#[derive(Debug, Clone)]
pub struct Announce {
    /// The document.
    pub document: DocumentKey,
    /// Verified bytes that the caller has, at most the document's size.
    pub had: u64,
    /// The caller leaves the swarm.
    pub done: bool,
    /// Whole holders that it found, at most [`super::HOLDERS_MAX`]. They replace those of its earlier announce.
    pub holders: Vec<ReportedHolder>,
    /// Most members to name, up to [`super::WANT_MAX`].
    pub want: usize,
    /// It searched as it was told to, and found nobody.
    pub searched: bool,
}

impl Announce {
    /// Whether the caller has the whole document.
    pub(super) fn is_whole(&self) -> bool {
        self.document.size > 0 && self.had >= self.document.size
    }
}
