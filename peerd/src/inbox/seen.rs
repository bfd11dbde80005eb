//! Recognises messages that arrive twice, by their ids.
//!
//! A sender that tries again does so within seconds. Somebody who passes a signed message on could repeat it for as long as its signature is
//! accepted, so the latest signed ids of each sender are kept with their times, and what was signed before them counts as seen, as in the
//! anti-replay window of IPsec (RFC 4303, section 3.4.3).
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Ids remembered, 100 bytes each: a sender retries within seconds.
const SEEN_MAX: usize = 4_096;
/// Signed ids remembered of all senders together, 80 bytes each; past it, the sender with the most of them loses its earliest.
const SIGNED_MAX: usize = 32_768;
/// Signed ids remembered of one sender: far more than messages overtake each other.
const SIGNED_MAX_EACH: usize = 2_048;
/// Senders whose signed ids are remembered. With more, messages of the one that was silent for longest could be repeated for as long as their
/// signatures are accepted.
const SENDERS_MAX: usize = 4_096;

/// Of a message.
pub(super) type Id = [u8; 16];

/// The latest message ids.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: BTreeSet<(String, Id)>,
    order: VecDeque<(String, Id)>,
    signed: BTreeMap<String, Signed>,
    /// Signed ids remembered.
    count: usize,
}

/// The latest signed ids of one sender.
#[derive(Debug, Default)]
struct Signed {
    /// With the times of their signatures, in milliseconds since 1970.
    by_time: BTreeSet<(u64, Id)>,
    ids: BTreeSet<Id>,
    /// The latest one that was forgotten: all that were signed before it count as seen.
    forgotten: Option<(u64, Id)>,
}

impl Seen {
    /// Remembers an id of `sender`, and when it signed the message, in milliseconds since 1970, if it did; returns whether it is new. An id
    /// that is not 16 bytes long always is.
    pub(super) fn insert(&mut self, sender: &str, id: &[u8], signed_at_ms: Option<u64>) -> bool {
        let Ok(id) = Id::try_from(id) else { return true };
        let sender = sender.to_ascii_lowercase();
        let is_new = signed_at_ms.is_none_or(|at| self.insert_signed(&sender, id, at));
        let entry = (sender, id);
        if !self.ids.insert(entry.clone()) {
            return false;
        }
        self.order.push_back(entry);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        is_new
    }

    fn insert_signed(&mut self, sender: &str, id: Id, at: u64) -> bool {
        if !self.signed.contains_key(sender) && self.signed.len() >= SENDERS_MAX {
            let latest = |(_, signed): &(&String, &Signed)| signed.by_time.last().map(|(at, _)| *at);
            let silent = self.signed.iter().min_by_key(latest).map(|(sender, _)| sender.clone());
            let gone = silent.and_then(|sender| self.signed.remove(&sender));
            self.count -= gone.map_or(0, |gone| gone.by_time.len());
        }
        let signed = self.signed.entry(sender.to_owned()).or_default();
        if signed.forgotten.is_some_and(|forgotten| (at, id) <= forgotten) || !signed.ids.insert(id) {
            return false;
        }
        signed.by_time.insert((at, id));
        self.count += 1;
        if signed.by_time.len() > SIGNED_MAX_EACH {
            self.count -= signed.forget_earliest();
        } else if self.count > SIGNED_MAX {
            let most = self.signed.values_mut().max_by_key(|signed| signed.by_time.len());
            self.count -= most.map_or(0, Signed::forget_earliest);
        }
        true
    }
}

impl Signed {
    /// Forgets the id that was signed first; returns how many it forgot.
    fn forget_earliest(&mut self) -> usize {
        let Some(earliest) = self.by_time.pop_first() else { return 0 };
        self.ids.remove(&earliest.1);
        self.forgotten = Some(earliest);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Id {
        n.to_be_bytes()
    }

    #[test]
    fn an_id_is_new_until_it_is_remembered_and_after_it_is_forgotten() {
        let mut seen = Seen::default();
        assert!(seen.insert("a", &id(0), None) && !seen.insert("A", &id(0), None));
        assert!(seen.insert("b", &id(0), None), "of another sender");
        assert!(seen.insert("a", &[], None) && seen.insert("a", &[], None));
        for n in 1..=SEEN_MAX as u128 {
            assert!(seen.insert("a", &id(n), None));
        }
        assert!(seen.insert("a", &id(0), None));
        assert_eq!(seen.ids.len(), SEEN_MAX);
    }

    #[test]
    fn a_signed_id_never_becomes_new_again() {
        let mut seen = Seen::default();
        for n in 0..10_000 {
            assert!(seen.insert("a", &id(n), Some(1_000 + n as u64)), "{n}");
        }
        for n in (0..10_000).step_by(7) {
            assert!(!seen.insert("a", &id(n), Some(1_000 + n as u64)), "{n}");
        }
        // Neither do other senders, nor those who overtake each other.
        assert!(seen.insert("b", &id(5), Some(1_005)));
        assert!(seen.insert("a", &id(20_000), Some(1_000 + 9_000)));
        // One that tries again with a new signature.
        assert!(!seen.insert("a", &id(9_999), Some(20_000)));
    }

    #[test]
    fn memory_is_bounded_and_a_sender_of_many_pushes_out_none_of_the_others() {
        let mut seen = Seen::default();
        for n in 0..50_000_u128 {
            seen.insert(&format!("s{}", n % 100), &id(n), Some(n as u64));
            assert!(seen.count <= SIGNED_MAX);
        }
        seen.insert("quiet", &id(1), Some(50_000));
        for n in 50_000..60_000_u128 {
            seen.insert("loud", &id(n), Some(n as u64));
        }
        assert!(!seen.insert("quiet", &id(1), Some(50_000)));
        for n in 60_000..70_000_u128 {
            seen.insert(&format!("s{n}"), &id(n), Some(n as u64));
        }
        assert_eq!(seen.count, seen.signed.values().map(|signed| signed.by_time.len()).sum::<usize>());
        assert!(seen.count <= SIGNED_MAX && seen.signed.len() <= SENDERS_MAX && seen.ids.len() <= SEEN_MAX);
    }
}
