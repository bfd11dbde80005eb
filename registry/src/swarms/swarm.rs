//! One swarm: its members, found by zone, by what they have and by when they came.

use super::{
    limits::{NEWCOMERS_KEPT, ZONES_MAX},
    reports::Reports,
    search::Search,
};
use indexmap::{IndexMap, IndexSet};
use std::collections::VecDeque;

/// A member of a swarm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// Verified bytes that it has.
    pub(super) had: u64,
    pub(super) is_whole: bool,
    /// Index of its zone; `None` without one.
    zone: Option<u8>,
    pub(super) announces: u32,
    pub(super) joined_ms: u64,
    /// When it last had more than before, or joined.
    pub(super) progressed_ms: u64,
    /// End of its membership.
    pub(super) until_ms: u64,
}

/// What a member says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report<'a> {
    pub(super) had: u64,
    pub(super) is_whole: bool,
    pub(super) zone: &'a str,
    pub(super) is_dialable: bool,
}

/// Members of one zone.
struct Zone {
    name: Box<str>,
    members: IndexSet<u32>,
}

/// A swarm. Members are named by their slot among the callers.
#[derive(Default)]
pub(super) struct Swarm {
    members: IndexMap<u32, Member>,
    /// Never more than [`ZONES_MAX`], so that an index fits.
    zones: Vec<Zone>,
    /// Members that have the whole and can be dialled.
    whole_sources: IndexSet<u32>,
    /// Members that have the whole.
    whole: usize,
    /// The latest newcomers. Some of them may be gone.
    newest: VecDeque<u32>,
    pub(super) reports: Reports,
    pub(super) search: Search,
    /// When to look for members that are over; 0: not scheduled.
    pub(super) check_ms: u64,
}

impl Swarm {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Members that have the whole.
    pub(super) fn whole(&self) -> usize {
        self.whole
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Member> {
        self.members.get(&slot)
    }

    pub(super) fn members(&self) -> &IndexMap<u32, Member> {
        &self.members
    }

    pub(super) fn whole_sources(&self) -> &IndexSet<u32> {
        &self.whole_sources
    }

    pub(super) fn newest(&self) -> impl Iterator<Item = u32> {
        self.newest.iter().rev().copied()
    }

    /// The members of this zone.
    pub(super) fn zone(&self, name: &str) -> Option<&IndexSet<u32>> {
        let zone = self.zones.iter().find(|zone| *zone.name == *name);
        zone.map(|zone| &zone.members).filter(|_| !name.is_empty())
    }

    /// Whether somebody who has the whole can be asked.
    pub(super) fn whole_known(&self) -> bool {
        !self.whole_sources.is_empty() || !self.reports.is_empty()
    }

    /// Adds the member, or notes what it reports.
    pub(super) fn announce(&mut self, slot: u32, report: Report<'_>, now_ms: u64) -> Member {
        let Report { had, is_whole, zone, is_dialable } = report;
        let known = self.take(slot);
        let zone = self.zone_index(zone);
        let mut member = known.unwrap_or_else(|| {
            if self.newest.len() >= NEWCOMERS_KEPT {
                self.newest.pop_front();
            }
            self.newest.push_back(slot);
            Member { had, is_whole, zone, announces: 0, joined_ms: now_ms, progressed_ms: now_ms, until_ms: 0 }
        });
        if had > member.had || is_whole {
            member.progressed_ms = now_ms;
        }
        member = Member { had, is_whole, zone, announces: member.announces.saturating_add(1), ..member };
        if let Some(zone) = zone.and_then(|zone| self.zones.get_mut(usize::from(zone))) {
            zone.members.insert(slot);
        }
        self.whole += usize::from(is_whole);
        if is_whole && is_dialable {
            self.whole_sources.insert(slot);
        }
        self.members.insert(slot, member);
        member
    }

    /// Sets the end of a membership.
    pub(super) fn extend(&mut self, slot: u32, until_ms: u64) {
        if let Some(member) = self.members.get_mut(&slot) {
            member.until_ms = until_ms;
        }
    }

    /// Removes a member, and what it reports. Says whether there was one.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        self.reports.remove(slot);
        self.search.left(slot);
        self.take(slot).is_some()
    }

    /// Members whose time is over.
    pub(super) fn ended(&self, now_ms: u64) -> Vec<u32> {
        self.members.iter().filter(|(_, member)| member.until_ms <= now_ms).map(|(slot, _)| *slot).collect()
    }

    /// When the next member is over, unless it announces itself again.
    pub(super) fn next_end_ms(&self) -> Option<u64> {
        self.members.values().map(|member| member.until_ms).min()
    }

    fn take(&mut self, slot: u32) -> Option<Member> {
        let member = self.members.swap_remove(&slot)?;
        self.whole -= usize::from(member.is_whole);
        self.whole_sources.swap_remove(&slot);
        if let Some(zone) = member.zone.and_then(|zone| self.zones.get_mut(usize::from(zone))) {
            zone.members.swap_remove(&slot);
        }
        Some(member)
    }

    /// The index of this zone; `None` without one, and when there are too many.
    fn zone_index(&mut self, name: &str) -> Option<u8> {
        if name.is_empty() {
            return None;
        }
        let known = self.zones.iter().position(|zone| *zone.name == *name);
        // One that lost its members makes room.
        let unused = || self.zones.iter().position(|zone| zone.members.is_empty());
        let index = match known.or_else(unused) {
            Some(index) => index,
            None if self.zones.len() < ZONES_MAX => {
                self.zones.push(Zone { name: name.into(), members: IndexSet::new() });
                self.zones.len() - 1
            }
            None => return None,
        };
        if known.is_none() {
            self.zones[index].name = name.into();
        }
        u8::try_from(index).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(had: u64, zone: &str) -> Report<'_> {
        Report { had, is_whole: had == 100, zone, is_dialable: true }
    }

    #[test]
    fn a_member_is_found_by_its_present_zone_and_by_what_it_has_now() {
        let mut swarm = Swarm::default();
        swarm.announce(1, report(0, "a"), 0);
        swarm.announce(2, report(100, "a"), 0);
        let again = swarm.announce(1, report(100, "b"), 50);
        assert_eq!((again.announces, again.joined_ms, again.progressed_ms), (2, 0, 50));
        assert_eq!((swarm.len(), swarm.whole(), swarm.whole_sources().len()), (2, 2, 2));
        assert_eq!((swarm.zone("a").unwrap().len(), swarm.zone("b").unwrap().len()), (1, 1));
        assert!(swarm.remove(1) && !swarm.remove(1));
        assert_eq!((swarm.len(), swarm.whole(), swarm.zone("b").unwrap().len()), (1, 1, 0));
        swarm.announce(3, Report { is_dialable: false, ..report(100, "") }, 0);
        assert_eq!((swarm.whole(), swarm.whole_sources().len(), swarm.zone("").is_none()), (2, 1, true));
    }

    #[test]
    fn the_number_of_zones_is_bounded_and_unused_ones_make_room() {
        let mut swarm = Swarm::default();
        for slot in 0..100 {
            swarm.announce(slot, report(0, &format!("z{slot}")), 0);
        }
        assert_eq!(swarm.zones.len(), ZONES_MAX);
        assert!(swarm.zone("z99").is_none());
        swarm.remove(5);
        swarm.announce(99, report(0, "z99"), 0);
        assert_eq!((swarm.zone("z99").unwrap().len(), swarm.zones.len()), (1, ZONES_MAX));
        assert!(swarm.zone("z5").is_none());
    }
}
