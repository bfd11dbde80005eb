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

/// Most peers that one fetch keeps track of: far more than it asks at the same time.
pub(super) const HOLDERS_MAX: usize = 512;

/// Number of a peer in the table.
pub(super) type Index = usize;

/// How a fetch knows of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// A member named it, which anybody can do.
    Named,
    /// The tracker, a search or the user named it, or it spoke for itself.
    Found,
}

/// A peer that the document may be fetched from.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) source: Source,
    pub(super) known: Known,
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

impl Holder {
    fn new(source: Source, known: Known) -> Self {
        Self {
            source,
            known,
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
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct HolderTable {
    all: Vec<Holder>,
    by_id: BTreeMap<HolderId, Index>,
    next_id: u32,
}

impl HolderTable {
    /// The entry of a source, which is made if there is none. In a full table it takes the place of one that was of no use; `None` if each is
    /// of use, or may be.
    pub(super) fn entry(&mut self, source: &Source, known: Known) -> Option<Index> {
        if let Some(index) = self.find(source) {
            let holder = &mut self.all[index];
            holder.known = holder.known.max(known);
            return Some(index);
        }
        let new = Holder::new(source.clone(), known);
        if self.all.len() < HOLDERS_MAX {
            self.all.push(new);
            return Some(self.all.len() - 1);
        }
        let index = self.replaceable(known)?;
        self.by_id.retain(|_, of| *of != index);
        self.all[index] = new;
        Some(index)
    }

    /// The entry whose place one that is `known` may take: of those that sent nothing and are not in touch, one that a member named and that
    /// failed, or else one that failed, or else one that a member named. What members name replaces only what members named.
    fn replaceable(&self, known: Known) -> Option<Index> {
        let may_go = |holder: &Holder| {
            let sent_nothing = holder.bytes == 0 && holder.last_byte.is_none();
            sent_nothing && holder.member.is_none() && holder.planned.is_none() && !holder.is_dialled && !holder.is_banned
        };
        let rank = |holder: &Holder| match (holder.known, holder.failed_dials > 0 || holder.dropped.is_some()) {
            (Known::Named, true) => Some(0),
            (Known::Found, true) if known == Known::Found => Some(1),
            (Known::Named, false) if known == Known::Found => Some(2),
            _ => None,
        };
        let ranked = self.indexes().filter(|index| may_go(&self.all[*index]));
        ranked.filter_map(|index| Some((rank(&self.all[index])?, index))).min().map(|(_, index)| index)
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
        let id = HolderId(self.next_id);
        // At most some changes a second of what a holder has.
        self.next_id = self.next_id.wrapping_add(1);
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
        let may_have_parts = |holder: &&Holder| !holder.is_whole && holder.known == Known::Found && holder.planned.is_none();
        let mut parts = self.all.iter().filter(may_have_parts).peekable();
        let is_away = |holder: &Holder| holder.member.is_none() && !holder.is_dialled && holder.failed_dials > 0;
        parts.peek().is_some() && parts.all(is_away)
    }

    /// With how many availability is exchanged, or is about to be; and how many of them are being dialled because a member named them.
    pub(super) fn connected(&self) -> (usize, usize) {
        let is_member = |holder: &Holder| holder.member.is_some() && !holder.is_banned;
        let connected = self.all.iter().filter(|holder| holder.is_dialled || is_member(holder));
        connected.fold((0, 0), |(all, named), holder| (all + 1, named + usize::from(holder.known == Known::Named)))
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
        let first = table.entry(&source(None, 1), Known::Found).unwrap();
        assert_eq!(table.entry(&source(Some("a"), 1), Known::Found), Some(first));
        let a = table.entry(&source(Some("a"), 2), Known::Found).unwrap();
        let wrong = table.entry(&source(Some("b"), 2), Known::Found).unwrap();
        assert!(a != wrong);
        assert_eq!(table.entry(&source(Some("a"), 2), Known::Found), Some(a));
    }

    #[test]
    fn members_that_were_killed_are_unreachable_once_dials_failed() {
        let mut table = HolderTable::default();
        let seed = table.entry(&source(Some("seed"), 1), Known::Found).unwrap();
        table.get_mut(seed).is_whole = true;
        assert!(!table.are_unreachable(), "nobody is known yet");
        let killed = table.entry(&source(Some("killed"), 2), Known::Found).unwrap();
        table.get_mut(killed).is_dialled = true;
        assert!(!table.are_unreachable());
        (table.get_mut(killed).is_dialled, table.get_mut(killed).failed_dials) = (false, 1);
        assert!(table.are_unreachable());
        table.entry(&source(Some("other"), 3), Known::Found).unwrap();
        assert!(!table.are_unreachable(), "it may be there");
    }

    #[test]
    fn numbers_for_the_planner_are_not_used_again() {
        let mut table = HolderTable::default();
        let index = table.entry(&source(None, 1), Known::Found).unwrap();
        let first = table.number(index);
        table.get_mut(index).planned = None;
        let second = table.number(index);
        assert!(first != second);
        assert_eq!((table.by_planned(first), table.by_planned(second)), (Some(index), Some(index)));
    }

    #[test]
    fn a_full_table_takes_in_who_is_found_in_the_place_of_who_was_only_named_or_failed() {
        let mut table = HolderTable::default();
        let sender = table.entry(&source(None, 1), Known::Found).unwrap();
        table.get_mut(sender).bytes = 1;
        table.get_mut(sender).failed_dials = 3;
        let away = table.entry(&source(None, 2), Known::Found).unwrap();
        table.get_mut(away).failed_dials = 1;
        let named: Vec<_> = (3..).map_while(|port| table.entry(&source(None, port), Known::Named)).collect();
        assert_eq!(named.len(), HOLDERS_MAX - 2, "members do not crowd out each other's");
        for named in &named {
            table.get_mut(*named).is_dialled = *named != 100;
        }
        table.get_mut(7).is_dialled = false;
        table.get_mut(7).failed_dials = 1;
        assert_eq!(table.entry(&source(None, 10_000), Known::Found), Some(7), "named, and failed");
        assert_eq!(table.entry(&source(None, 10_001), Known::Named), None);
        assert_eq!(table.entry(&source(None, 10_001), Known::Found), Some(away));
        let stale = table.number(100);
        table.get_mut(100).planned = None;
        assert_eq!(table.entry(&source(None, 10_002), Known::Found), Some(100), "only named");
        assert_eq!(table.by_planned(stale), None, "that number is not of who has the place now");
        assert_eq!(table.entry(&source(None, 10_003), Known::Found), None);
        assert_eq!(table.entry(&source(None, 1), Known::Named), Some(sender));
        assert_eq!(table.get(sender).known, Known::Found);
    }
}
