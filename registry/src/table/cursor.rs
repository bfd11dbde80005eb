//! Page tokens: where a listing continues.

use super::query::Query;
use p2pdi::hex;

/// Where the next page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// A full listing, at this slot. A peer keeps its slot while it is active, so none is repeated or left out.
    Slot(u32),
    /// A delta, at this revision.
    Revision(u64),
    /// A full listing of registries that share a store: by the revisions of the records, at this one. A peer that registers anew meanwhile
    /// moves to the end, and may be listed twice.
    Changed(u64),
    /// What follows in such a listing: the observers that are registered here, at this slot.
    Observers(u32),
}

/// A position, and the revision at which the first page was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) position: Position,
    pub(super) revision: u64,
}

/// Kind, position, revision, and an authentication code that binds them to the query.
const BYTES: usize = 1 + 8 + 8 + 8;

impl Cursor {
    /// Opaque text that only this process accepts, and only for the same query.
    pub(super) fn seal(self, query: &Query, key: &[u8; 32]) -> String {
        let (kind, at) = match self.position {
            Position::Slot(slot) => (0, u64::from(slot)),
            Position::Revision(revision) => (1, revision),
            Position::Changed(revision) => (2, revision),
            Position::Observers(slot) => (3, u64::from(slot)),
        };
        let mut bytes = [0; BYTES];
        bytes[0] = kind;
        bytes[1..9].copy_from_slice(&at.to_be_bytes());
        bytes[9..17].copy_from_slice(&self.revision.to_be_bytes());
        let code = code(&bytes[..17], query, key);
        bytes[17..].copy_from_slice(&code);
        hex::encode(&bytes)
    }

    pub(super) fn open(token: &str, query: &Query, key: &[u8; 32]) -> Option<Self> {
        let bytes: [u8; BYTES] = hex::decode(token)?;
        if code(&bytes[..17], query, key) != bytes[17..] {
            return None;
        }
        let at = u64::from_be_bytes(bytes[1..9].try_into().ok()?);
        let revision = u64::from_be_bytes(bytes[9..17].try_into().ok()?);
        let position = match bytes[0] {
            0 => Position::Slot(u32::try_from(at).ok()?),
            1 => Position::Revision(at),
            2 => Position::Changed(at),
            _ => Position::Observers(u32::try_from(at).ok()?),
        };
        Some(Self { position, revision })
    }
}

fn code(token: &[u8], query: &Query, key: &[u8; 32]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(token);
    // Each text with its length, so that no two queries hash alike.
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
    };
    text(&query.name.to_ascii_lowercase());
    for (name, value) in &query.labels {
        text(name);
        text(value);
    }
    hasher.update(&query.since_revision.to_be_bytes()).update(&[u8::from(query.include_observers)]);
    let mut code = [0; 8];
    code.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    code
}
