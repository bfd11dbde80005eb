//! Shards: of registries that share a store, each keeps the leases of some.

/// How many shards there are: some ten for each of the few replicas that a registry has, so that they share the work evenly. The number
/// is part of the contract between replicas: all must compute the same.
pub const SHARDS: u8 = 32;

/// The shard of a name, compared without case.
pub fn shard_of_name(name: &str) -> u8 {
    shard_of(name.to_ascii_lowercase().as_bytes())
}

/// The shard of any other key, such as the hash of a document.
pub fn shard_of(key: &[u8]) -> u8 {
    blake3::hash(key).as_bytes()[0] % SHARDS
}

/// Some of the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardSet(u32);

impl ShardSet {
    /// All of them.
    pub const ALL: Self = Self(u32::MAX);
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Whether `shard` is one of them.
    pub fn contains(self, shard: u8) -> bool {
        self.0 & Self::bit(shard) != 0
    }

    /// Adds `shard`.
    pub fn insert(&mut self, shard: u8) {
        self.0 |= Self::bit(shard);
    }

    /// Takes `shard` out.
    pub fn remove(&mut self, shard: u8) {
        self.0 &= !Self::bit(shard);
    }

    /// How many.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..SHARDS).filter(move |shard| self.contains(*shard))
    }

    /// One bit for each shard.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// From one bit for each shard.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    fn bit(shard: u8) -> u32 {
        1_u32.checked_shl(shard.into()).unwrap_or(0)
    }
}

impl FromIterator<u8> for ShardSet {
    fn from_iter<I: IntoIterator<Item = u8>>(shards: I) -> Self {
        let mut set = Self::NONE;
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}

/// The shards that a registry keeps, each with its fence: what the store's key of the shard says about when it was taken. A shard that
/// was lost and taken again has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept([Option<i64>; SHARDS as usize]);

impl Kept {
    /// None of them.
    pub const NONE: Self = Self([None; SHARDS as usize]);
    /// All of them, of a registry that is alone.
    pub const ALL: Self = Self([Some(0); SHARDS as usize]);

    /// The fence of `shard`; `None`: it is not kept.
    pub fn fence(&self, shard: u8) -> Option<i64> {
        self.0.get(usize::from(shard)).copied().flatten()
    }

    /// Whether `shard` is kept.
    pub fn contains(&self, shard: u8) -> bool {
        self.fence(shard).is_some()
    }

    /// How many are.
    pub fn count(&self) -> u32 {
        (0..SHARDS).filter(|shard| self.contains(*shard)).map(|_| 1).sum()
    }
}

impl FromIterator<(u8, i64)> for Kept {
    fn from_iter<I: IntoIterator<Item = (u8, i64)>>(shards: I) -> Self {
        let mut kept = Self::NONE;
        for (shard, fence) in shards {
            if let Some(slot) = kept.0.get_mut(usize::from(shard)) {
                *slot = Some(fence);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_spread_over_all_shards_and_case_does_not_matter() {
        let shards: ShardSet = (0..1_000).map(|number| shard_of_name(&format!("peer-{number}"))).collect();
        assert_eq!((shards, shards.len()), (ShardSet::ALL, u32::from(SHARDS)));
        assert_eq!(shard_of_name("Fff-B"), shard_of_name("fff-b"));
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set: ShardSet = [0, 7, 31].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 7, 31]);
        set.remove(7);
        assert!(!set.contains(7) && set.contains(31) && !set.contains(200));
        assert_eq!(ShardSet::from_bits(set.bits()), set);
    }
}
