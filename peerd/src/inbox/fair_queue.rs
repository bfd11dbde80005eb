//! A bounded queue of messages in which each sender has a share: past its bounds, the oldest message of the sender that has the most is
//! dropped. One sender alone may fill it; one that floods drops its own messages, not those of others.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
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
    entries: BTreeMap<u64, T>,
    bytes: usize,
    /// What each sender has of the queue.
    shares: BTreeMap<String, Share>,
}

#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    /// Number and bytes of each message, the oldest first.
    messages: VecDeque<(u64, usize)>,
}

impl Share {
    fn of(&self, measure: Measure) -> usize {
        match measure {
            Measure::Messages => self.messages.len(),
            Measure::Bytes => self.bytes,
        }
    }

    fn oldest(&self) -> u64 {
        self.messages.front().map_or(u64::MAX, |(number, _)| *number)
    }
}

impl<T> FairQueue<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: BTreeMap::new(), bytes: 0, shares: BTreeMap::new() }
    }

    /// Adds a message with a number above all before it, and drops what is past the bounds; returns what was dropped, with its numbers.
    pub(super) fn push(&mut self, number: u64, sender: &str, bytes: usize, message: T) -> Vec<(u64, T)> {
        if !self.shares.contains_key(sender) {
            self.shares.insert(sender.to_owned(), Share::default());
        }
        if let Some(share) = self.shares.get_mut(sender) {
            share.bytes += bytes;
            share.messages.push_back((number, bytes));
        }
        self.bytes += bytes;
        self.entries.insert(number, message);
        let mut dropped = Vec::new();
        loop {
            let measure = match (self.entries.len() > self.bounds.messages, self.bytes > self.bounds.bytes) {
                (true, _) => Measure::Messages,
                (_, true) => Measure::Bytes,
                _ => return dropped,
            };
            let Some(oldest) = self.drop_one(measure) else { return dropped };
            dropped.push(oldest);
        }
    }

    /// Drops the oldest message of the sender that has the most; where several have as much, the oldest of all of theirs.
    fn drop_one(&mut self, measure: Measure) -> Option<(u64, T)> {
        // All senders are looked at, as many as there are messages at most: some microseconds, and far less for few.
        let rank = |(_, share): &(&String, &mut Share)| (share.of(measure), Reverse(share.oldest()));
        let (sender, share) = self.shares.iter_mut().max_by_key(rank)?;
        let (number, bytes) = share.messages.pop_front()?;
        share.bytes -= bytes;
        if share.messages.is_empty() {
            let sender = sender.clone();
            self.shares.remove(&sender);
        }
        self.bytes -= bytes;
        self.entries.remove_entry(&number)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The messages, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &T> {
        self.entries.values().rev()
    }

    /// The messages with this number or a higher one, and their numbers.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        self.entries.range(number..).map(|(number, message)| (*number, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { messages: 10, bytes: 1_000 };

    /// The numbers of what was dropped.
    fn numbers<T>(dropped: Vec<(u64, T)>) -> Vec<u64> {
        dropped.into_iter().map(|(number, _)| number).collect()
    }

    fn senders(queue: &FairQueue<&'static str>) -> Vec<&'static str> {
        queue.entries.values().copied().collect()
    }

    #[test]
    fn a_sender_that_floods_drops_its_own_messages() {
        let mut queue = FairQueue::new(BOUNDS);
        for (number, sender) in ["a", "b", "b"].into_iter().enumerate() {
            assert!(queue.push(number as u64, sender, 1, sender).is_empty());
        }
        let dropped: Vec<_> = (3..100).flat_map(|number| numbers(queue.push(number, "flood", 1, "flood"))).collect();
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
        assert_eq!(numbers(queue.push(9, "huge", 2_000, "huge")).last(), Some(&9), "what never fits is dropped itself");
        assert_eq!(senders(&queue), ["small", "large", "large"]);
    }

    #[test]
    fn a_large_message_is_kept_by_a_queue_that_is_full_of_small_ones() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..10 {
            queue.push(number, &number.to_string(), 1, "small");
        }
        assert_eq!(numbers(queue.push(10, "large", 900, "large")), [0]);
        assert_eq!(numbers(queue.push(11, "large", 900, "large")), [10], "its own, once the bytes are too many");
    }

    #[test]
    fn among_senders_with_as_much_the_oldest_message_goes_and_senders_are_forgotten() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..1_000 {
            let sender = number.to_string();
            let dropped = numbers(queue.push(number, &sender, 1, "x"));
            assert_eq!(dropped, number.checked_sub(10).into_iter().collect::<Vec<_>>());
        }
        assert_eq!(queue.shares.len(), 10);
        assert_eq!(queue.from(0).next().unwrap().0, 990);
        assert_eq!(queue.from(995).next().unwrap().0, 995);
        assert!(queue.from(1_000).next().is_none());
    }
}
