//! The holders of one fetch: who they are, what they delivered, and the numbers that the planner knows them by.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::source_selection::SourceReport;
use crate::{
    holders::source::Source,
    transfer::{
        plan::{HolderId, MemberId},
        rate_meter::RateMeter,
    },
};
use p2pdi::id::PeerId;
use std::{collections::BTreeMap, time::Instant};

/// Most peers that one fetch keeps track of: as many as a swarm remembers candidates.
const HOLDERS_MAX: usize = 512;

/// Number of a peer in the table.
pub(super) type Index = usize;

/// A peer that the document may be fetched from.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) source: Source,
    /// Known once availability is exchanged with it.
    pub(super) member: Option<(MemberId, PeerId)>,
    /// Its number in the planner, while it can be asked.
    pub(super) planned: Option<HolderId>,
    /// The planner was told that it has the whole document.
    pub(super) planned_whole: bool,
    /// Somebody says that it has the whole document.
    pub(super) is_whole: bool,
    /// A stream with it is open or being opened.
    pub(super) is_dialled: bool,
    /// Dials that failed, in a row.
    pub(super) failed_dials: u32,
    /// Verified bytes from it.
    pub(super) bytes: u64,
    /// Bytes that arrived from it, verified or not.
    pub(super) received: RateMeter,
    pub(super) last_byte: Option<Instant>,
    /// It said that requests wait there, and sent nothing since.
    pub(super) is_queued: bool,
    /// What went wrong with it last.
    pub(super) error: Option<String>,
    /// Why it is not asked any more.
    pub(super) dropped: Option<String>,
    /// It said that it does not have this content, or not any more.
    pub(super) says_gone: bool,
    /// It is never asked again for this document.
    pub(super) is_banned: bool,
    /// It was dropped and is asked again; nothing came from it since.
    pub(super) is_on_trial: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct HolderTable {
    all: Vec<Holder>,
    by_id: BTreeMap<HolderId, Index>,
}

impl HolderTable {
    /// The entry of a source, which is made if there is none; `None` if the table is full.
    pub(super) fn entry(&mut self, source: &Source) -> Option<Index> {
        if let Some(known) = self.find(source) {
            return Some(known);
        }
        if self.all.len() >= HOLDERS_MAX {
            return None;
        }
        self.all.push(Holder {
            source: source.clone(),
            member: None,
            planned: None,
            planned_whole: false,
            is_whole: false,
            is_dialled: false,
            failed_dials: 0,
            bytes: 0,
            received: RateMeter::default(),
            last_byte: None,
            is_queued: false,
            error: None,
            dropped: None,
            says_gone: false,
            is_banned: false,
            is_on_trial: false,
        });
        Some(self.all.len() - 1)
    }

    /// The entry of the peer at the same endpoint, unless both are known by different names.
    pub(super) fn find(&self, source: &Source) -> Option<Index> {
        let is_same = |known: &Source| {
            known.has_address(&source.endpoint) && (known.name == source.name || known.name.is_none() || source.name.is_none())
        };
        self.all.iter().position(|holder| is_same(&holder.source))
    }

    /// The entry of whoever is at that endpoint: the one of that name, or another one.
    pub(super) fn at(&self, source: &Source) -> Option<Index> {
        let is_there = |holder: &Holder| holder.source.has_address(&source.endpoint);
        self.find(source).or_else(|| self.all.iter().position(is_there))
    }

    /// Whether the peer with this id was banned.
    pub(super) fn is_banned(&self, id: PeerId) -> bool {
        self.all.iter().any(|holder| holder.is_banned && holder.member.is_some_and(|(_, known)| known == id))
    }

    pub(super) fn by_member(&self, id: MemberId) -> Option<Index> {
        self.all.iter().position(|holder| holder.member.is_some_and(|(member, _)| member == id))
    }

    pub(super) fn by_planned(&self, id: HolderId) -> Option<Index> {
        self.by_id.get(&id).copied()
    }

    /// Gives a holder a new number for the planner.
    pub(super) fn number(&mut self, index: Index) -> HolderId {
        // At most some thousand changes of what a holder has.
        let id = HolderId(u32::try_from(self.by_id.len()).unwrap_or(u32::MAX));
        self.by_id.insert(id, index);
        self.all[index].planned = Some(id);
        id
    }

    pub(super) fn get(&self, index: Index) -> &Holder {
        &self.all[index]
    }

    pub(super) fn get_mut(&mut self, index: Index) -> &mut Holder {
        &mut self.all[index]
    }

    pub(super) fn indexes(&self) -> std::ops::Range<Index> {
        0..self.all.len()
    }

    /// Whether nobody can be asked but those that were dropped before, and may still be away.
    pub(super) fn are_on_trial(&self) -> bool {
        self.all.iter().filter(|holder| holder.planned.is_some()).all(|holder| holder.is_on_trial)
    }

    /// Whether somebody is being dialled who may turn out to have something.
    pub(super) fn are_dialling(&self) -> bool {
        let may_help = |holder: &Holder| holder.member.is_none() && !holder.is_banned && holder.dropped.is_none();
        self.all.iter().any(|holder| holder.is_dialled && may_help(holder))
    }

    /// Whether those that may have parts are known, and none of them can be reached: they were killed, and the tracker does not know yet.
    pub(super) fn are_unreachable(&self) -> bool {
        let mut parts = self.all.iter().filter(|holder| !holder.is_whole && holder.planned.is_none()).peekable();
        let is_away = |holder: &Holder| holder.member.is_none() && !holder.is_dialled && holder.failed_dials > 0;
        parts.peek().is_some() && parts.all(is_away)
    }

    /// With how many availability is exchanged, or is about to be.
    pub(super) fn connected(&self) -> usize {
        self.all.iter().filter(|holder| holder.is_dialled || (holder.member.is_some() && !holder.is_banned)).count()
    }

    /// The result of each: why it was dropped, or what went wrong with it after its last piece.
    pub(super) fn reports(&self) -> Vec<SourceReport> {
        let report = |holder: &Holder| SourceReport {
            source: holder.source.clone(),
            bytes: holder.bytes,
            dropped: holder.dropped.clone().or_else(|| holder.error.clone()),
            gone: holder.says_gone,
        };
        self.all.iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: Option<&str>, port: u16) -> Source {
        Source::new(name.map(|name| name.parse().unwrap()), format!("192.0.2.1:{port}").parse().unwrap())
    }

    #[test]
    fn a_peer_is_one_entry_by_its_endpoint_and_a_wrong_name_is_another() {
        let mut table = HolderTable::default();
        let first = table.entry(&source(None, 1)).unwrap();
        assert_eq!(table.entry(&source(Some("a"), 1)), Some(first));
        let a = table.entry(&source(Some("a"), 2)).unwrap();
        let wrong = table.entry(&source(Some("b"), 2)).unwrap();
        assert!(a != wrong);
        assert_eq!(table.entry(&source(Some("a"), 2)), Some(a));
    }

    #[test]
    fn members_that_were_killed_are_unreachable_once_dials_failed() {
        let mut table = HolderTable::default();
        let seed = table.entry(&source(Some("seed"), 1)).unwrap();
        table.get_mut(seed).is_whole = true;
        assert!(!table.are_unreachable(), "nobody is known yet");
        let killed = table.entry(&source(Some("killed"), 2)).unwrap();
        table.get_mut(killed).is_dialled = true;
        assert!(!table.are_unreachable());
        (table.get_mut(killed).is_dialled, table.get_mut(killed).failed_dials) = (false, 1);
        assert!(table.are_unreachable());
        table.entry(&source(Some("other"), 3)).unwrap();
        assert!(!table.are_unreachable(), "it may be there");
    }

    #[test]
    fn numbers_for_the_planner_are_not_used_again() {
        let mut table = HolderTable::default();
        let index = table.entry(&source(None, 1)).unwrap();
        let first = table.number(index);
        table.get_mut(index).planned = None;
        let second = table.number(index);
        assert!(first != second);
        assert_eq!((table.by_planned(first), table.by_planned(second)), (Some(index), Some(index)));
    }
}
