//! Which fetched documents make room for others: the least recently used go first.
//!
//! Pure: no I/O, no clock, no randomness of its own.

/// A fetched document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: Box<str>,
    pub(super) bytes: u64,
    /// When it was served or fetched last, in seconds since 1970.
    pub(super) used_at_s: u64,
    /// It is pinned, or in use now.
    pub(super) kept: bool,
    /// A job or a mirror wants it: it would be fetched again.
    pub(super) wanted: bool,
}

/// The limits, and how much is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Most bytes that fetched documents may take.
    pub(super) quota: Option<u64>,
    /// Bytes of the disk that must stay free.
    pub(super) min_free: Option<u64>,
    /// Bytes of the disk that are free; `None` where that is not known.
    pub(super) free: Option<u64>,
    /// Bytes that fetched documents take, those under way included.
    pub(super) fetched: u64,
}

impl Usage {
    /// Bytes to be freed before `needed` more may be fetched.
    pub(super) fn lacking(&self, needed: u64) -> u64 {
        let by_quota = self.quota.map_or(0, |quota| self.fetched.saturating_add(needed).saturating_sub(quota));
        let by_disk = match (self.min_free, self.free) {
            (Some(min_free), Some(free)) => min_free.saturating_add(needed).saturating_sub(free),
            _ => 0,
        };
        by_quota.max(by_disk)
    }
}

/// What goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The least recently used first.
    pub(super) names: Vec<Box<str>>,
    /// Bytes that are lacking even then.
    pub(super) lacking: u64,
}

/// Chooses documents of at least `lacking` bytes in all, or all that may go. Those that jobs and mirrors want go last.
pub(super) fn choose(mut candidates: Vec<Candidate>, lacking: u64) -> Chosen {
    candidates.retain(|candidate| !candidate.kept && candidate.bytes > 0);
    candidates.sort_by(|a, b| (a.wanted, a.used_at_s, &a.name).cmp(&(b.wanted, b.used_at_s, &b.name)));
    let mut chosen = Chosen { names: Vec::new(), lacking };
    for candidate in candidates {
        if chosen.lacking == 0 {
            break;
        }
        chosen.lacking = chosen.lacking.saturating_sub(candidate.bytes);
        chosen.names.push(candidate.name);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    #[test]
    fn the_stricter_limit_counts() {
        let usage = Usage { quota: Some(100), min_free: Some(50), free: Some(60), fetched: 80 };
        assert_eq!((usage.lacking(5), usage.lacking(20), usage.lacking(40)), (0, 10, 30));
        let quota = Usage { min_free: None, ..usage };
        assert_eq!((quota.lacking(20), quota.lacking(40)), (0, 20));
        assert_eq!(Usage { fetched: 80, ..Usage::default() }.lacking(u64::MAX), 0);
    }

    proptest! {
        #[test]
        fn the_least_recently_used_go_and_no_more_than_needed(
            all in vec((0_u64..100, 0_u64..20, any::<bool>(), any::<bool>()), 0..30),
            lacking in 0_u64..1_000,
        ) {
            let candidate = |(index, (bytes, used_at_s, kept, wanted)): (usize, (u64, u64, bool, bool))|
                Candidate { name: format!("{index:02}").into(), bytes, used_at_s, kept, wanted };
            let candidates: Vec<_> = all.into_iter().enumerate().map(candidate).collect();
            let by_name: BTreeMap<_, _> = candidates.iter().map(|candidate| (candidate.name.clone(), candidate.clone())).collect();
            let chosen = choose(candidates.clone(), lacking);
            let gone: Vec<_> = chosen.names.iter().map(|name| &by_name[name]).collect();
            prop_assert!(gone.iter().all(|candidate| !candidate.kept));
            let rank = |candidate: &Candidate| (candidate.wanted, candidate.used_at_s);
            prop_assert!(gone.is_sorted_by_key(|candidate| rank(candidate)));
            // Nothing that stays could have gone before what goes.
            let newest = gone.last().map(|candidate| rank(candidate));
            let stays = candidates.iter().filter(|candidate| !candidate.kept && candidate.bytes > 0 && !chosen.names.contains(&candidate.name));
            for candidate in stays.clone() {
                prop_assert!(newest.is_none_or(|newest| rank(candidate) >= newest));
            }
            let freed: u64 = gone.iter().map(|candidate| candidate.bytes).sum();
            prop_assert_eq!(chosen.lacking, lacking.saturating_sub(freed));
            if chosen.lacking > 0 {
                prop_assert_eq!(stays.count(), 0);
            }
            // Without the last one it would not be enough.
            if let Some(last) = gone.last() {
                prop_assert!(freed - last.bytes < lacking);
            }
        }
    }
}
