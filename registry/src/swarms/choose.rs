//! Whom to name to a member: near and far, the less loaded first, newcomers and holders of the whole among them.

use super::{
    callers::Callers,
    limits::{NEWCOMER_MS, SAMPLE_FACTOR},
    swarm::Swarm,
};
use indexmap::IndexSet;
use rand::{
    Rng,
    seq::{SliceRandom as _, index},
};

/// For whom members are chosen.
pub(super) struct Asker<'a> {
    /// Its slot; `None`: it is not a member.
    pub(super) slot: Option<u32>,
    pub(super) name: &'a str,
    pub(super) zone: &'a str,
    pub(super) is_whole: bool,
}

/// The choice of members for one answer.
struct Choice<'a> {
    swarm: &'a Swarm,
    callers: &'a Callers,
    asker: &'a Asker<'a>,
    now_ms: u64,
    /// Load and slot of those chosen.
    chosen: Vec<(u32, u32)>,
}

/// Slots of up to `want` members, the less loaded first.
pub(super) fn choose(
    swarm: &Swarm,
    callers: &Callers,
    asker: &Asker<'_>,
    want: usize,
    now_ms: u64,
    rng: &mut impl Rng,
) -> Vec<u32> {
    let mut choice = Choice { swarm, callers, asker, now_ms, chosen: Vec::with_capacity(want) };
    let near = swarm.zone(asker.zone);
    let is_near = |slot: u32| near.is_some_and(|near| near.contains(&slot));
    choice.add(sample(swarm.whole_sources(), want, rng), want / 4);
    let mut newest: Vec<u32> = swarm.newest().collect();
    newest.shuffle(rng);
    choice.add(newest.into_iter(), want / 5);
    if let Some(near) = near {
        let have = choice.chosen.iter().filter(|(_, slot)| is_near(*slot)).count();
        choice.add(sample(near, want * SAMPLE_FACTOR, rng), (want / 2).saturating_sub(have));
    }
    let all = swarm.members();
    let mut drawn = |count: usize| {
        let drawn = index::sample(rng, all.len(), count.min(all.len())).into_iter();
        drawn.filter_map(|at| all.get_index(at)).map(|(slot, _)| *slot).collect::<Vec<_>>()
    };
    let room = want.saturating_sub(choice.chosen.len());
    let candidates = drawn(want * SAMPLE_FACTOR);
    choice.add(candidates.iter().copied().filter(|slot| !is_near(*slot)), room);
    // Whoever there is, if there are not enough of other zones.
    let room = want.saturating_sub(choice.chosen.len());
    choice.add(candidates.into_iter(), room);
    let mut chosen = choice.chosen;
    chosen.shuffle(rng);
    chosen.sort_by_key(|(load, _)| *load);
    chosen.into_iter().map(|(_, slot)| slot).collect()
}

/// Up to `count` random ones, in random order.
fn sample(from: &IndexSet<u32>, count: usize, rng: &mut impl Rng) -> impl Iterator<Item = u32> {
    let drawn = index::sample(rng, from.len(), count.min(from.len()));
    drawn.into_iter().filter_map(|at| from.get_index(at).copied())
}

impl Choice<'_> {
    /// Adds the `count` least loaded of the usable ones; of equal ones the first.
    fn add(&mut self, candidates: impl Iterator<Item = u32>, count: usize) {
        if count == 0 {
            return;
        }
        let mut usable: Vec<(u32, u32)> = candidates
            .filter(|slot| !self.chosen.iter().any(|(_, chosen)| chosen == slot))
            .filter_map(|slot| Some((self.load(slot)?, slot)))
            .collect();
        usable.sort_by_key(|(load, _)| *load);
        usable.truncate(count);
        self.chosen.append(&mut usable);
    }

    /// The load of a member that can be named; `None`: it cannot.
    fn load(&self, slot: u32) -> Option<u32> {
        let member = self.swarm.get(slot).filter(|member| member.until_ms > self.now_ms)?;
        if self.asker.slot == Some(slot) || (self.asker.is_whole && member.is_whole) {
            return None;
        }
        let caller = &self.callers.get(slot)?.caller;
        // A peer that registered again with another cookie may be here twice for a while.
        if caller.endpoint.is_empty() || caller.name.eq_ignore_ascii_case(self.asker.name) {
            return None;
        }
        Some(if self.now_ms < member.joined_ms + NEWCOMER_MS { 0 } else { caller.uploads })
    }
}
