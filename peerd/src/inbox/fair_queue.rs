//! A bounded queue of messages in which each sender has a share: past its bounds, the oldest message of the sender that has the most is
//! dropped. One sender alone may fill it; one that floods drops its own messages, not those of others.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// The bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// What a queue has too much of, and what it is shared by.
#[derive(Debug, Clone, Copy)]
enum Measure {
    Messages,
    Bytes,
}

/// See the module. `T`: a message.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    bounds: Bounds,
    /// By number, which only grows.
    entries: VecDeque<Entry<T>>,
    bytes: usize,
    /// What each sender has of the queue.
    shares: BTreeMap<Arc<str>, Share>,
    by_messages: BTreeSet<(usize, Arc<str>)>,
    by_bytes: BTreeSet<(usize, Arc<str>)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Share {
    messages: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<T> {
    number: u64,
    sender: Arc<str>,
    bytes: usize,
    message: T,
}

impl<T> FairQueue<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: VecDeque::new(),
            bytes: 0,
            shares: BTreeMap::new(),
            by_messages: BTreeSet::new(),
            by_bytes: BTreeSet::new(),
        }
    }

    /// Adds a message with a number above all before it, and drops what is past the bounds; returns the numbers of what was dropped.
    pub(super) fn push(&mut self, number: u64, sender: &str, bytes: usize, message: T) -> Vec<u64> {
        let sender = match self.shares.get_key_value(sender) {
            Some((known, _)) => Arc::clone(known),
            None => sender.into(),
        };
        self.change(&sender, |share| {
            share.messages += 1;
            share.bytes += bytes;
        });
        self.bytes += bytes;
        self.entries.push_back(Entry { number, sender, bytes, message });
        let mut dropped = Vec::new();
        loop {
            let measure = match (self.entries.len() > self.bounds.messages, self.bytes > self.bounds.bytes) {
                (true, _) => Measure::Messages,
                (_, true) => Measure::Bytes,
                _ => return dropped,
            };
            let Some(number) = self.drop_one(measure) else { return dropped };
            dropped.push(number);
        }
    }

    fn change(&mut self, sender: &Arc<str>, change: impl FnOnce(&mut Share)) {
        let mut share = self.shares.remove(sender).unwrap_or_default();
        self.by_messages.remove(&(share.messages, Arc::clone(sender)));
        self.by_bytes.remove(&(share.bytes, Arc::clone(sender)));
        change(&mut share);
        if share.messages > 0 {
            self.by_messages.insert((share.messages, Arc::clone(sender)));
            self.by_bytes.insert((share.bytes, Arc::clone(sender)));
            self.shares.insert(Arc::clone(sender), share);
        }
    }

    /// Drops the oldest message of the sender that has the most; where several have as much, the oldest of all of theirs.
    fn drop_one(&mut self, measure: Measure) -> Option<u64> {
        let of = |share: &Share| match measure {
            Measure::Messages => share.messages,
            Measure::Bytes => share.bytes,
        };
        let most = match measure {
            Measure::Messages => self.by_messages.last()?.0,
            Measure::Bytes => self.by_bytes.last()?.0,
        };
        let has_most = |entry: &Entry<T>| self.shares.get(&entry.sender).is_some_and(|share| of(share) == most);
        let at = self.entries.iter().position(has_most)?;
        let entry = self.entries.remove(at)?;
        self.bytes -= entry.bytes;
        self.change(&entry.sender, |share| {
            share.messages -= 1;
            share.bytes -= entry.bytes;
        });
        Some(entry.number)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The messages, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().rev().map(|entry| &entry.message)
    }

    /// The first message with this number or a higher one.
    pub(super) fn first_from(&self, number: u64) -> Option<(u64, &T)> {
        let at = self.entries.partition_point(|entry| entry.number < number);
        self.entries.get(at).map(|entry| (entry.number, &entry.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { messages: 10, bytes: 1_000 };

    fn senders(queue: &FairQueue<&'static str>) -> Vec<&'static str> {
        queue.entries.iter().map(|entry| entry.message).collect()
    }

    #[test]
    fn a_sender_that_floods_drops_its_own_messages() {
        let mut queue = FairQueue::new(BOUNDS);
        for (number, sender) in ["a", "b", "b"].into_iter().enumerate() {
            assert!(queue.push(number as u64, sender, 1, sender).is_empty());
        }
        let dropped: Vec<_> = (3..100).flat_map(|number| queue.push(number, "flood", 1, "flood")).collect();
        assert_eq!(dropped, (3..93).collect::<Vec<_>>(), "the oldest of its own first");
        assert_eq!(senders(&queue)[..3], ["a", "b", "b"]);
        assert_eq!(queue.len(), 10);
    }

    #[test]
    fn large_messages_of_one_sender_do_not_drop_small_ones_of_another() {
        let mut queue = FairQueue::new(BOUNDS);
        queue.push(0, "small", 1, "small");
        for number in 1..9 {
            queue.push(number, "large", 400, "large");
        }
        assert_eq!(senders(&queue), ["small", "large", "large"]);
        assert!(queue.bytes <= BOUNDS.bytes);
        assert_eq!(queue.push(9, "huge", 2_000, "huge").last(), Some(&9), "what never fits is dropped itself");
        assert_eq!(senders(&queue), ["small", "large", "large"]);
    }

    #[test]
    fn a_large_message_is_kept_by_a_queue_that_is_full_of_small_ones() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..10 {
            queue.push(number, &number.to_string(), 1, "small");
        }
        assert_eq!(queue.push(10, "large", 900, "large"), [0]);
        assert_eq!(queue.push(11, "large", 900, "large"), [10], "its own, once the bytes are too many");
    }

    #[test]
    fn among_senders_with_as_much_the_oldest_message_goes_and_senders_are_forgotten() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..1_000 {
            let sender = number.to_string();
            let dropped = queue.push(number, &sender, 1, "x");
            assert_eq!(dropped, number.checked_sub(10).into_iter().collect::<Vec<_>>());
        }
        assert_eq!((queue.shares.len(), queue.by_messages.len(), queue.by_bytes.len()), (10, 10, 10));
        assert_eq!(queue.first_from(0).unwrap().0, 990);
        assert_eq!(queue.first_from(995).unwrap().0, 995);
        assert!(queue.first_from(1_000).is_none());
    }
}
