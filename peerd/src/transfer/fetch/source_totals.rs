//! What each holder of one or several documents sent, and what went wrong with it.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::source_selection::SourceReport;
use crate::holders::source::Source;
use std::{cmp::Reverse, collections::BTreeMap};

/// Holders that are told apart. A fetch knows far fewer; of a job that runs for weeks, later ones are not listed.
const SOURCES_MAX: usize = 1_000;

/// The totals of all holders that sent something, or with which something went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceTotals(BTreeMap<String, SourceTotal>);

/// The total of one holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTotal {
    /// The holder.
    pub source: Source,
    /// Verified bytes that it sent.
    pub bytes: u64,
    /// How often something went wrong with it: at most once for each fetch of a document.
    pub faults: u64,
    /// What went wrong the first time; empty: nothing.
    pub first_fault: String,
}

impl SourceTotals {
    /// Adds what the holders of one document did.
    pub fn add(&mut self, reports: &[SourceReport]) {
        for SourceReport { source, bytes, dropped, .. } in reports {
            let (source, bytes, first_fault) = (source.clone(), *bytes, dropped.clone().unwrap_or_default());
            self.add_total(SourceTotal { source, bytes, faults: u64::from(dropped.is_some()), first_fault });
        }
    }

    /// Adds all of `other`, which is later.
    pub fn merge(&mut self, other: Self) {
        other.0.into_values().for_each(|total| self.add_total(total));
    }

    /// Adds one total, which is later.
    pub fn add_total(&mut self, total: SourceTotal) {
        if total.bytes == 0 && total.faults == 0 {
            return;
        }
        let key = total.source.to_string();
        if let Some(known) = self.0.get_mut(&key) {
            known.bytes = known.bytes.saturating_add(total.bytes);
            known.faults = known.faults.saturating_add(total.faults);
            if known.first_fault.is_empty() {
                known.first_fault = total.first_fault;
            }
        } else if self.0.len() < SOURCES_MAX {
            self.0.insert(key, total);
        }
    }

    /// All of them, those that sent most first.
    pub fn by_bytes(&self) -> Vec<&SourceTotal> {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_by_key(|total| Reverse(total.bytes));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(port: u16, bytes: u64, dropped: Option<&str>) -> SourceReport {
        let source = Source::new(None, format!("192.0.2.1:{port}").parse().unwrap());
        SourceReport { source, bytes, dropped: dropped.map(str::to_owned), gone: false }
    }

    #[test]
    fn bytes_and_faults_add_up_and_who_did_nothing_is_left_out() {
        let (mut totals, mut later) = (SourceTotals::default(), SourceTotals::default());
        totals.add(&[report(1, 10, None), report(2, 0, Some("gone")), report(3, 0, None)]);
        later.add(&[report(1, 5, Some("slow")), report(2, 100, Some("wrong"))]);
        totals.merge(later);
        let seen: Vec<_> =
            totals.by_bytes().into_iter().map(|total| (total.bytes, total.faults, total.first_fault.as_str())).collect();
        assert_eq!(seen, [(100, 2, "gone"), (15, 1, "slow")]);
    }

    #[test]
    fn holders_beyond_the_limit_are_not_listed() {
        let mut totals = SourceTotals::default();
        (0..2_000).for_each(|port| totals.add(&[report(port + 1, 1, None)]));
        assert_eq!(totals.by_bytes().len(), SOURCES_MAX);
    }
}
