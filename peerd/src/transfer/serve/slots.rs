//! Upload slots: which of the open streams are sent now, and which wait in line.
//!
//! A few streams at a time get a useful rate; the others wait. A stream loses its slot to the next in line when its reader does not read
//! ([`IDLE`]), and after a while in any case ([`TURN`]); then it waits in line again. Streams of one connection that are to be sent in turn
//! wait for each other first.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::content::ContentHash;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// How long a message may wait for its reader before somebody else gets the slot.
const IDLE: Duration = Duration::from_secs(1);
/// How long a stream keeps its slot while others wait for one: a request for a whole document must not hold up everybody else, and a piece at
/// 64 KiB/s takes less.
const TURN: Duration = Duration::from_secs(5);
/// Most streams of one connection that wait for their turn to send the same document: a path of 1 Gbit/s and 300 ms wants 150 pieces of
/// 256 KiB ahead, which is more than a stream each would be used for.
pub(super) const TURNS_MAX: usize = 64;

/// How many streams have a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// In all.
    pub(super) all: usize,
    /// Of one document.
    pub(super) per_document: usize,
}

/// Streams that are to be sent in turn: of one connection, and one document.
pub(super) type Turn = (u64, ContentHash);

/// The slots, and who waits for them.
#[derive(Debug)]
pub(super) struct Slots {
    limits: Limits,
    last_stream: u64,
    streams: BTreeMap<u64, Stream>,
    /// Those that wait for a slot, the next one first.
    line: VecDeque<u64>,
    /// The first of each sends or waits for a slot, the others wait for it.
    turns: BTreeMap<Turn, VecDeque<u64>>,
}

#[derive(Debug)]
struct Stream {
    document: ContentHash,
    turn: Option<Turn>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Earlier streams of its turn come first.
    Behind,
    /// In the line.
    Waiting,
    /// It has a slot.
    Sending {
        since: Instant,
        /// Since when a message waits for its reader.
        unread_since: Option<Instant>,
    },
    /// It lost its slot because its reader does not read.
    Unread,
}

impl Slots {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, last_stream: 0, streams: BTreeMap::new(), line: VecDeque::new(), turns: BTreeMap::new() }
    }

    /// Other limits from now on. Streams that have a slot keep it.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Adds a stream, at the end of its turn if it has one, and of the line. `None` if [`TURNS_MAX`] are in its turn.
    pub(super) fn enter(&mut self, document: ContentHash, turn: Option<Turn>) -> Option<u64> {
        let stream = self.last_stream + 1;
        let mut state = State::Waiting;
        if let Some(turn) = turn {
            let turn = self.turns.entry(turn).or_default();
            if turn.len() >= TURNS_MAX {
                return None;
            }
            if !turn.is_empty() {
                state = State::Behind;
            }
            turn.push_back(stream);
        }
        if state == State::Waiting {
            self.line.push_back(stream);
        }
        self.last_stream = stream;
        self.streams.insert(stream, Stream { document, turn, state });
        Some(stream)
    }

    /// Removes a stream.
    pub(super) fn leave(&mut self, stream: u64) {
        self.line.retain(|waiting| *waiting != stream);
        let Some(turn) = self.streams.remove(&stream).and_then(|removed| removed.turn) else { return };
        let Some(others) = self.turns.get_mut(&turn) else { return };
        others.retain(|other| *other != stream);
        match others.front().copied() {
            None => drop(self.turns.remove(&turn)),
            Some(next) => {
                if let Some(next_stream) = self.streams.get_mut(&next)
                    && next_stream.state == State::Behind
                {
                    next_stream.state = State::Waiting;
                    self.line.push_back(next);
                }
            }
        }
    }

    /// Gives free slots, and those of streams that are not read, to those who wait; returns who got one.
    pub(super) fn assign(&mut self, now: Instant) -> Vec<u64> {
        let mut given = Vec::new();
        while let Some(at) = self.next_in_line() {
            if self.sending() >= self.limits.all && !self.reclaim(now) {
                break;
            }
            let Some(stream) = self.line.remove(at) else { break };
            self.set(stream, State::Sending { since: now, unread_since: None });
            given.push(stream);
        }
        given
    }

    /// The position in the line of the first stream whose document has a slot free.
    fn next_in_line(&self) -> Option<usize> {
        if self.line.is_empty() {
            return None;
        }
        let mut by_document: BTreeMap<ContentHash, usize> = BTreeMap::new();
        for stream in self.streams.values().filter(|stream| matches!(stream.state, State::Sending { .. })) {
            *by_document.entry(stream.document).or_default() += 1;
        }
        self.line.iter().position(|waiting| {
            let document = self.streams.get(waiting).map(|stream| stream.document);
            document.is_some_and(|document| by_document.get(&document).copied().unwrap_or(0) < self.limits.per_document)
        })
    }

    /// Takes the slot of the stream that has not been read for longest; returns whether there is one.
    fn reclaim(&mut self, now: Instant) -> bool {
        let unread = self.streams.iter().filter_map(|(stream, Stream { state, .. })| match state {
            State::Sending { unread_since: Some(since), .. } if now.saturating_duration_since(*since) >= IDLE => {
                Some((*since, *stream))
            }
            _ => None,
        });
        let Some((_, stream)) = unread.min() else { return false };
        self.set(stream, State::Unread);
        true
    }

    /// The stream's message waits for its reader from now on.
    pub(super) fn handed_over(&mut self, stream: u64, now: Instant) {
        if let Some(Stream { state: State::Sending { unread_since, .. }, .. }) = self.streams.get_mut(&stream) {
            *unread_since = Some(now);
        }
    }

    /// The stream's reader has read on. Whether the stream still has its slot; if not, it is in the line.
    pub(super) fn resume(&mut self, stream: u64, now: Instant) -> bool {
        let is_over =
            |state: &State| matches!(state, State::Sending { since, .. } if now.saturating_duration_since(*since) >= TURN);
        let yields = self.streams.get(&stream).is_some_and(|stream| is_over(&stream.state)) && self.next_in_line().is_some();
        let Some(Stream { state, .. }) = self.streams.get_mut(&stream) else { return false };
        match state {
            State::Sending { unread_since, .. } if !yields => {
                *unread_since = None;
                true
            }
            State::Sending { .. } | State::Unread => {
                *state = State::Waiting;
                self.line.push_back(stream);
                false
            }
            State::Waiting | State::Behind => false,
        }
    }

    /// Whether the stream has a slot.
    pub(super) fn has_slot(&self, stream: u64) -> bool {
        matches!(self.streams.get(&stream), Some(Stream { state: State::Sending { .. }, .. }))
    }

    /// How many streams are before it, in its turn or in the line.
    pub(super) fn ahead(&self, stream: u64) -> usize {
        let turn = self.streams.get(&stream).and_then(|stream| self.turns.get(&stream.turn?));
        let in_turn = turn.and_then(|turn| turn.iter().position(|other| *other == stream)).unwrap_or(0);
        let in_line = self.line.iter().position(|other| *other == stream).unwrap_or(0);
        in_turn.max(in_line)
    }

    /// How many streams have a slot.
    pub(super) fn sending(&self) -> usize {
        self.streams.values().filter(|stream| matches!(stream.state, State::Sending { .. })).count()
    }

    /// How many streams have none.
    pub(super) fn waiting(&self) -> usize {
        self.streams.len() - self.sending()
    }

    fn set(&mut self, stream: u64, state: State) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const LIMITS: Limits = Limits { all: 3, per_document: 2 };

    fn hash(document: u8) -> ContentHash {
        ContentHash::of(&[document])
    }

    #[test]
    fn a_popular_document_leaves_a_slot_for_others() {
        let (mut slots, now) = (Slots::new(LIMITS), Instant::now());
        let popular: Vec<_> = (0..5).map(|_| slots.enter(hash(1), None).unwrap()).collect();
        assert_eq!(slots.assign(now), popular[..2]);
        let other = slots.enter(hash(2), None).unwrap();
        assert_eq!(slots.assign(now), [other]);
        assert_eq!((slots.sending(), slots.waiting(), slots.ahead(popular[4])), (3, 3, 2));
        slots.leave(other);
        assert!(slots.assign(now).is_empty(), "the popular one has its part");
        slots.leave(popular[0]);
        assert_eq!(slots.assign(now), [popular[2]]);
    }

    #[test]
    fn a_reader_that_does_not_read_loses_its_slot_and_waits_again_when_it_reads() {
        let (mut slots, now) = (Slots::new(Limits { all: 1, per_document: 1 }), Instant::now());
        let [a, b] = [(); 2].map(|()| slots.enter(hash(1), None).unwrap());
        assert_eq!(slots.assign(now), [a]);
        slots.handed_over(a, now);
        assert!(slots.assign(now + IDLE / 2).is_empty());
        // The document's part is the only one.
        slots.limits.per_document = 2;
        assert_eq!(slots.assign(now + IDLE), [b]);
        assert!(!slots.has_slot(a) && !slots.resume(a, now + IDLE));
        slots.leave(b);
        assert_eq!(slots.assign(now + IDLE), [a]);
        assert!(slots.resume(a, now + IDLE));
    }

    #[test]
    fn a_stream_gives_its_slot_away_after_a_while_if_somebody_waits() {
        let (mut slots, now) = (Slots::new(Limits { all: 1, per_document: 1 }), Instant::now());
        let a = slots.enter(hash(1), None).unwrap();
        slots.assign(now);
        assert!(slots.resume(a, now + 2 * TURN), "nobody waits");
        let b = slots.enter(hash(2), None).unwrap();
        assert!(!slots.resume(a, now + 2 * TURN));
        assert_eq!(slots.assign(now + 2 * TURN), [b]);
        assert_eq!(slots.ahead(a), 0);
    }

    #[test]
    fn streams_in_turn_are_sent_one_after_the_other_in_order_of_arrival() {
        let (mut slots, now) = (Slots::new(LIMITS), Instant::now());
        let turn = |connection| Some((connection, hash(1)));
        let [a, b, c] = [(); 3].map(|()| slots.enter(hash(1), turn(1)).unwrap());
        let other = slots.enter(hash(1), turn(2)).unwrap();
        assert_eq!(slots.assign(now), [a, other]);
        assert_eq!((slots.ahead(b), slots.ahead(c)), (1, 2));
        // One that was dropped while it waited frees the next as well.
        slots.leave(b);
        assert!(slots.assign(now).is_empty());
        slots.leave(a);
        assert_eq!(slots.assign(now), [c]);
        let more = (0..TURNS_MAX).filter_map(|_| slots.enter(hash(1), turn(1))).count();
        assert_eq!(more, TURNS_MAX - 1, "one is in it");
    }

    proptest! {
        /// Slots are never exceeded, nobody is lost, and each turn sends one at a time; once everybody leaves, nothing is left.
        #[test]
        fn everybody_gets_a_slot_in_the_end(steps in proptest::collection::vec((0_u8..6, 0_u64..4, 0_u8..3), 1..200)) {
            let start = Instant::now();
            let mut slots = Slots::new(LIMITS);
            let (mut open, mut now) = (Vec::new(), start);
            for (step, connection, document) in steps {
                now += Duration::from_millis(400);
                match step {
                    0 | 1 => open.extend(slots.enter(hash(document), (step == 0).then(|| (connection, hash(document))))),
                    2 if !open.is_empty() => slots.leave(open.remove(usize::from(document) % open.len())),
                    3 => open.iter().for_each(|stream| slots.handed_over(*stream, now)),
                    4 => open.iter().for_each(|stream| {
                        slots.resume(*stream, now);
                    }),
                    _ => drop(slots.assign(now)),
                }
                prop_assert!(slots.sending() <= LIMITS.all);
                prop_assert_eq!(slots.sending() + slots.waiting(), open.len());
            }
            // Whoever has a slot is done and leaves.
            let mut served = BTreeSet::new();
            for _ in 0..2 * open.len() + 1 {
                for stream in &open {
                    slots.resume(*stream, now);
                }
                slots.assign(now);
                let (done, rest): (Vec<u64>, Vec<u64>) = open.iter().partition(|stream| slots.has_slot(**stream));
                done.iter().for_each(|stream| slots.leave(*stream));
                served.extend(done);
                open = rest;
            }
            prop_assert!(open.is_empty(), "{:?} never got a slot; {:?} did", open, served);
            prop_assert!(slots.line.is_empty() && slots.turns.is_empty() && slots.streams.is_empty());
        }
    }
}
