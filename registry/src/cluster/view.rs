//! Who keeps which shard, and for which leases this replica can vouch.
//!
//! Pure: no I/O, no clock, no randomness of its own.
//!
//! Times are milliseconds of one monotonic clock. A replica answers a KeepAlive only if the lease is safe: either it keeps the lease itself and nobody else can have taken it over, or the
//! replica that keeps it confirmed a short time ago what was passed on to it. Otherwise it refuses, so that the peer goes to another
//! replica long before its lease ends. A replica whose own lease in the store may have run out keeps its shards still if no other replica
//! can reach the store: nobody can take them over then.

use super::replica_id::ReplicaId;
use crate::table::{Kept, SHARDS, ShardSet};
use p2pdi::endpoint::Endpoint;
use std::collections::BTreeMap;

/// Who keeps a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The replica.
    pub(crate) replica: ReplicaId,
    /// Revision at which the store's key of the shard was written. A change that only the keeper may make is made only while the key still
    /// has it, so a replica that was paused, and lost the shard meanwhile, ends no lease.
    pub(crate) fence: i64,
}

/// What another replica last answered.
#[derive(Debug, Clone, Copy, Default)]
struct Answer {
    /// When the batch was sent that it answered; `None`: it has not answered yet.
    sent_ms: Option<u64>,
    /// Whether it reached the store.
    store_reachable: bool,
}

/// What this replica knows of all of them.
#[derive(Debug)]
pub(crate) struct View {
    me: ReplicaId,
    replicas: BTreeMap<ReplicaId, Endpoint>,
    owners: [Option<Owner>; SHARDS as usize],
    /// Until when this replica's lease in the store has surely not run out.
    lease_until_ms: u64,
    answers: BTreeMap<ReplicaId, Answer>,
    /// Of each shard: everything that was passed on until then has reached whoever keeps it.
    confirmed_ms: [u64; SHARDS as usize],
    /// Whether it gives its shards away, because it stops.
    leaving: bool,
    /// Whether it is none any more, as far as it could tell the store.
    gone: bool,
}

impl View {
    /// Of a replica that knows nothing yet.
    pub(crate) fn new(me: ReplicaId) -> Self {
        Self {
            me,
            replicas: BTreeMap::new(),
            owners: [None; SHARDS as usize],
            lease_until_ms: 0,
            answers: BTreeMap::new(),
            confirmed_ms: [0; SHARDS as usize],
            leaving: false,
            gone: false,
        }
    }

    /// This replica's id.
    pub(crate) fn me(&self) -> ReplicaId {
        self.me
    }

    /// All that are alive by the store, this one among them.
    pub(crate) fn replicas(&self) -> &BTreeMap<ReplicaId, Endpoint> {
        &self.replicas
    }

    /// The others that are alive.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&ReplicaId, &Endpoint)> {
        self.replicas.iter().filter(|(id, _)| **id != self.me)
    }

    /// The store says that a replica is alive and where.
    pub(crate) fn joined(&mut self, replica: ReplicaId, endpoint: Endpoint) {
        self.replicas.insert(replica, endpoint);
    }

    /// The store says that a replica is gone.
    pub(crate) fn left(&mut self, replica: ReplicaId) {
        self.replicas.remove(&replica);
        self.answers.remove(&replica);
    }

    /// The store says who keeps `shard`.
    pub(crate) fn owned(&mut self, shard: u8, owner: Option<Owner>, now_ms: u64) {
        let Some(slot) = self.owners.get_mut(usize::from(shard)) else { return };
        if slot.map(|owner| owner.replica) != owner.map(|owner| owner.replica) {
            // Whoever takes it over gives everybody a whole ttl from now on.
            self.confirmed_ms[usize::from(shard)] = now_ms;
        }
        *slot = owner;
    }

    /// Everything that the store said is void: it will be said again.
    pub(crate) fn forget_store(&mut self) {
        self.replicas.clear();
        self.owners = [None; SHARDS as usize];
    }

    /// This replica's lease in the store is good until `until_ms`; 0: it has none.
    pub(crate) fn lease(&mut self, until_ms: u64) {
        self.lease_until_ms = until_ms;
    }

    /// This replica's lease ran out, and its key and its shards went with it, whether the watch has said so or not.
    pub(crate) fn lease_lost(&mut self) {
        let me = self.me;
        self.lease_until_ms = 0;
        self.replicas.remove(&me);
        self.owners.iter_mut().for_each(|owner| *owner = owner.filter(|owner| owner.replica != me));
    }

    /// Whether the store has said that this replica is alive: what it said of the others is as new, or newer.
    fn is_known(&self) -> bool {
        self.replicas.contains_key(&self.me)
    }

    /// Whether it has a lease in the store, which may have run out.
    pub(crate) fn has_lease(&self) -> bool {
        self.lease_until_ms > 0
    }

    /// The replica stops: it wants no shards any more.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
    }

    /// The replica has left, whether the store knows or cannot be told.
    pub(crate) fn go(&mut self) {
        self.gone = true;
    }

    /// Whether others have to do without it.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Another replica answered a batch that was sent at `sent_ms`: it reaches the store or not, and keeps these shards.
    pub(crate) fn answered(&mut self, replica: ReplicaId, sent_ms: u64, store_reachable: bool, kept: ShardSet) {
        self.answers.insert(replica, Answer { sent_ms: Some(sent_ms), store_reachable });
        for shard in kept.iter() {
            if self.owner(shard).is_some_and(|owner| owner.replica == replica) {
                let confirmed = &mut self.confirmed_ms[usize::from(shard)];
                *confirmed = sent_ms.max(*confirmed);
            }
        }
    }

    /// Whether this replica's lease is good, so that it reached the store a short time ago.
    pub(crate) fn store_reachable(&self, now_ms: u64) -> bool {
        self.is_known() && now_ms < self.lease_until_ms
    }

    /// Who keeps `shard`, by the store.
    pub(crate) fn owner(&self, shard: u8) -> Option<Owner> {
        self.owners.get(usize::from(shard)).copied().flatten()
    }

    /// Shards that this replica keeps.
    pub(crate) fn kept(&self) -> ShardSet {
        (0..SHARDS).filter(|shard| self.owner(*shard).is_some_and(|owner| owner.replica == self.me)).collect()
    }

    /// The same, with their fences.
    pub(crate) fn fences(&self) -> Kept {
        (0..SHARDS).filter_map(|shard| Some((shard, self.fence(shard)?))).collect()
    }

    /// Kept shards for which this replica can vouch.
    pub(crate) fn vouched(&self, patience_ms: u64, now_ms: u64) -> ShardSet {
        self.kept().iter().filter(|shard| self.vouches(*shard, patience_ms, now_ms)).collect()
    }

    /// The fence of a shard that this replica keeps.
    pub(crate) fn fence(&self, shard: u8) -> Option<i64> {
        self.owner(shard).filter(|owner| owner.replica == self.me).map(|owner| owner.fence)
    }

    /// Whether a lease of `shard` that is extended here now is safe. `patience_ms`: how long a lease may go without a confirmation, some
    /// part of the ttl that is less than the time between two KeepAlives.
    pub(crate) fn vouches(&self, shard: u8, patience_ms: u64, now_ms: u64) -> bool {
        match self.owner(shard) {
            Some(owner) if owner.replica != self.me => {
                let confirmed_ms = self.confirmed_ms.get(usize::from(shard)).copied().unwrap_or(0);
                now_ms.saturating_sub(confirmed_ms) <= patience_ms
            }
            _ => self.store_reachable(now_ms) || self.nobody_reaches_the_store(patience_ms, now_ms),
        }
    }

    /// Whether every other replica said a short time ago that it does not reach the store either.
    fn nobody_reaches_the_store(&self, patience_ms: u64, now_ms: u64) -> bool {
        self.is_known()
            && self.others().all(|(id, _)| {
                let answer = self.answers.get(id).copied().unwrap_or_default();
                let recent = answer.sent_ms.is_some_and(|sent_ms| now_ms.saturating_sub(sent_ms) <= patience_ms);
                recent && !answer.store_reachable
            })
    }

    /// Who should keep `shard`: by rendezvous hashing, so that a replica that comes or goes moves only its own share.
    fn preferred(&self, shard: u8) -> Option<ReplicaId> {
        let weight = |id: &ReplicaId| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(id.as_bytes()).update(&[shard]);
            *hasher.finalize().as_bytes()
        };
        let candidates = self.replicas.keys().filter(|id| !(self.leaving && **id == self.me));
        candidates.copied().max_by_key(weight)
    }

    /// Shards that this replica should take, because nobody keeps them.
    pub(crate) fn to_take(&self) -> ShardSet {
        (0..SHARDS).filter(|shard| self.owner(*shard).is_none() && self.preferred(*shard) == Some(self.me)).collect()
    }

    /// Shards that this replica keeps and another one should, with their fences.
    pub(crate) fn to_give(&self) -> Vec<(u8, i64)> {
        let given = |shard: u8| {
            let fence = self.fence(shard)?;
            self.preferred(shard).is_some_and(|preferred| preferred != self.me).then_some((shard, fence))
        };
        (0..SHARDS).filter_map(given).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE_MS: u64 = 7_500;

    fn id(number: u8) -> ReplicaId {
        ReplicaId::from_bytes([number; 8])
    }

    /// A view of replica 1 of `count`, with a lease until 6,000.
    fn view(count: u8) -> View {
        let mut view = View::new(id(1));
        for number in 1..=count {
            view.joined(id(number), format!("127.0.0.1:{}", 7_000 + u16::from(number)).parse().unwrap());
        }
        view.lease(6_000);
        view
    }

    fn owner(number: u8) -> Option<Owner> {
        Some(Owner { replica: id(number), fence: 5 })
    }

    #[test]
    fn every_shard_has_one_replica_that_should_keep_it() {
        let views: Vec<View> = (1..=3).map(|number| View { me: id(number), ..view(3) }).collect();
        let mut taken = ShardSet::NONE;
        for view in &views {
            for shard in view.to_take().iter() {
                assert!(!taken.contains(shard), "{shard} twice");
                taken.insert(shard);
            }
        }
        assert_eq!(taken, ShardSet::ALL);
    }

    #[test]
    fn one_that_leaves_gives_its_shards_and_takes_none() {
        let mut view = view(2);
        for shard in 0..SHARDS {
            view.owned(shard, owner(1), 0);
        }
        let given = view.to_give().len();
        assert!((1..32).contains(&given), "{given}");
        view.leave();
        assert_eq!(view.to_give().len(), 32);
        view.owned(0, None, 0);
        assert!(view.to_take().is_empty());
    }

    #[test]
    fn what_it_keeps_itself_is_safe_while_nobody_can_take_it_over() {
        let mut view = view(2);
        view.owned(0, owner(1), 0);
        assert!(view.vouches(0, PATIENCE_MS, 5_999));
        // Its lease may have run out, and the other one was not heard.
        assert!(!view.vouches(0, PATIENCE_MS, 6_000));
        view.answered(id(2), 5_000, true, ShardSet::NONE);
        assert!(!view.vouches(0, PATIENCE_MS, 6_000));
        view.answered(id(2), 6_500, false, ShardSet::NONE);
        assert!(view.vouches(0, PATIENCE_MS, 7_000));
        assert!(!view.vouches(0, PATIENCE_MS, 7_000 + PATIENCE_MS));
        // The other one left before: it cannot take anything.
        view.left(id(2));
        assert!(view.vouches(0, PATIENCE_MS, 1_000_000));
    }

    #[test]
    fn what_another_one_keeps_is_safe_for_a_while_after_it_was_confirmed() {
        let mut view = view(2);
        view.owned(0, owner(2), 1_000);
        assert!(view.vouches(0, PATIENCE_MS, 1_000 + PATIENCE_MS));
        assert!(!view.vouches(0, PATIENCE_MS, 1_001 + PATIENCE_MS));
        // It answers, but does not keep the shard.
        view.answered(id(2), 9_000, true, ShardSet::NONE);
        assert!(!view.vouches(0, PATIENCE_MS, 9_000));
        view.answered(id(2), 9_000, true, [0].into_iter().collect());
        assert!(view.vouches(0, PATIENCE_MS, 9_000 + PATIENCE_MS));
        // Taken over: a whole ttl for everybody.
        view.owned(0, owner(3), 20_000);
        assert!(view.vouches(0, PATIENCE_MS, 20_000));
        // An answer of one that does not keep it says nothing.
        view.answered(id(2), 50_000, true, [0].into_iter().collect());
        assert!(!view.vouches(0, PATIENCE_MS, 50_000));
    }

    #[test]
    fn one_that_the_store_does_not_name_as_alive_vouches_for_nothing() {
        // Nobody is known at the start.
        let mut view = View::new(id(1));
        assert!(!view.vouches(0, PATIENCE_MS, 0));
        view.lease(6_000);
        assert!(!view.store_reachable(1_000) && !view.vouches(0, PATIENCE_MS, 1_000));
        view.joined(id(1), "127.0.0.1:7001".parse().unwrap());
        view.owned(0, owner(1), 1_000);
        assert!(view.store_reachable(1_000) && view.vouches(0, PATIENCE_MS, 1_000));
        // With its lease it lost its shards, though the store has not said so.
        view.lease_lost();
        view.lease(20_000);
        assert!(!view.vouches(0, PATIENCE_MS, 10_000));
        assert_eq!((view.fence(0), view.kept()), (None, ShardSet::NONE));
    }

    #[test]
    fn a_shard_that_nobody_keeps_is_safe_while_the_store_is_reached() {
        let view = view(2);
        assert!(view.vouches(3, PATIENCE_MS, 5_000) && !view.vouches(3, PATIENCE_MS, 6_001));
        assert_eq!((view.fence(3), view.kept()), (None, ShardSet::NONE));
    }
}
