//! What a PQuery asks for.

use super::{moment::Now, record::Record};
use p2pdi::selector::NamePattern;
use std::collections::BTreeMap;

/// Most peers in one answer, and the default: 1,000 records with all labels at their longest stay within the answer size that
/// clients accept.
pub const PAGE_MAX: usize = 1_000;

/// A validated PQuery call.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The source of `pattern`.
    pub name: String,
    /// Names to list; `None`: all.
    pub pattern: Option<NamePattern>,
    /// Labels that a peer must have.
    pub labels: BTreeMap<String, String>,
    /// Most peers in one answer, 1 to [`PAGE_MAX`].
    pub page_size: usize,
    /// Where to continue; empty: at the beginning.
    pub page_token: String,
    /// Size of a random sample, up to [`PAGE_MAX`]; 0: pages.
    pub sample: usize,
    /// Only changes after this revision; 0: everything.
    pub since_revision: u64,
    /// List observers too.
    pub include_observers: bool,
}

impl Query {
    fn selects(&self, record: &Record) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(record.peer.strings.name()))
            && record.peer.strings.labels().contain(&self.labels)
    }

    /// Whether the record is in the answer.
    pub(super) fn lists(&self, record: &Record, now: Now) -> bool {
        record.is_live(now.mono_ms) && (self.include_observers || !record.is_observer()) && self.selects(record)
    }
}
