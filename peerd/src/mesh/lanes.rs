//! A queue with a lane for each origin, read in turns: whoever sends much waits for itself, not others for it.
//!
//! Deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1995), in the form in which the last item of
//! a turn may go past what the turn allows, and the lane pays that back in its next turns.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::collections::{BTreeMap, VecDeque};

/// Bytes that a lane may send in one turn: one HTTP/2 frame.
const TURN_BYTES: usize = 16 * 1024;
/// Empty lanes whose memory is kept for the next: most lanes are empty again after each frame.
const SPARE_MAX: usize = 8;
/// Room of a lane that is kept, in items.
const SPARE_ITEMS_MAX: usize = 64;

/// Items and their sizes, by lane. `T`: an item.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: BTreeMap<u64, Lane<T>>,
    /// The lanes, the next one first.
    turns: VecDeque<u64>,
    /// Lanes with items.
    busy: usize,
    length: usize,
    bytes: usize,
    spare: Vec<VecDeque<(usize, T)>>,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
    /// Bytes that it may send before its turn is over; below zero: what it sent too much.
    credit: isize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), turns: VecDeque::new(), busy: 0, length: 0, bytes: 0, spare: Vec::new() }
    }
}

impl<T> Lanes<T> {
    /// Items of all lanes.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes of all lanes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a lane has more than its part of `length` items or of `bytes`, if each lane with items has the same.
    pub(super) fn is_over_share(&self, lane: u64, length: usize, bytes: usize) -> bool {
        // A lane without items has no more than its part.
        let Some(lane) = self.lanes.get(&lane).filter(|lane| !lane.items.is_empty()) else { return false };
        lane.items.len() > length / self.busy || lane.bytes > bytes / self.busy
    }

    /// Adds an item of so many bytes at the end of its lane.
    pub(super) fn push(&mut self, lane: u64, bytes: usize, item: T) {
        let entry = self.lanes.entry(lane).or_insert_with(|| {
            self.turns.push_back(lane);
            Lane { items: self.spare.pop().unwrap_or_default(), bytes: 0, credit: TURN_BYTES.cast_signed() }
        });
        self.busy += usize::from(entry.items.is_empty());
        entry.items.push_back((bytes, item));
        entry.bytes += bytes;
        self.length += 1;
        self.bytes += bytes;
    }

    /// Takes the next item.
    pub(super) fn pop(&mut self) -> Option<T> {
        while self.length > 0 {
            let turn = *self.turns.front()?;
            let lane = self.lanes.get_mut(&turn)?;
            if lane.credit > 0
                && let Some((bytes, item)) = lane.items.pop_front()
            {
                lane.credit = lane.credit.saturating_sub_unsigned(bytes);
                lane.bytes -= bytes;
                self.busy -= usize::from(lane.items.is_empty());
                self.length -= 1;
                self.bytes -= bytes;
                if self.length == 0 {
                    self.clear();
                }
                return Some(item);
            }
            self.turns.pop_front();
            lane.credit = lane.credit.saturating_add_unsigned(TURN_BYTES).min(TURN_BYTES.cast_signed());
            // A lane that owes stays until it has paid, so that it gains nothing from being empty in between.
            if lane.items.is_empty() && lane.credit > 0 {
                if let Some(lane) = self.lanes.remove(&turn) {
                    keep(&mut self.spare, lane.items);
                }
            } else {
                self.turns.push_back(turn);
            }
        }
        None
    }

    /// Forgets all lanes, which are empty: nobody waits, so nobody owes anything.
    fn clear(&mut self) {
        self.turns.clear();
        for lane in std::mem::take(&mut self.lanes).into_values() {
            keep(&mut self.spare, lane.items);
        }
    }
}

fn keep<T>(spare: &mut Vec<VecDeque<T>>, items: VecDeque<T>) {
    if spare.len() < SPARE_MAX && items.capacity() <= SPARE_ITEMS_MAX {
        spare.push(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(items: &[(u64, usize)]) -> Lanes<u64> {
        let mut lanes = Lanes::default();
        for (lane, bytes) in items {
            lanes.push(*lane, *bytes, *lane);
        }
        lanes
    }

    fn rest(lanes: &mut Lanes<u64>) -> Vec<u64> {
        std::iter::from_fn(|| lanes.pop()).collect()
    }

    #[test]
    fn whoever_sends_much_waits_for_itself() {
        let mut queue = lanes(&[(1, 1_000); 2_000]);
        for lane in [2, 3] {
            queue.push(lane, 1_000, lane);
        }
        let order = rest(&mut queue);
        assert_eq!(order.len(), 2_002);
        let turn = TURN_BYTES / 1_000 + 1;
        assert_eq!(order[turn..turn + 2], [2, 3], "after one turn of the first");
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    #[test]
    fn long_and_short_items_get_the_same_bytes() {
        let mut queue = Lanes::default();
        let sizes = [256 * 1024, 300, 20_000];
        for (lane, bytes) in (0..).zip(sizes) {
            for _ in 0..16 * 1024 * 1024 / bytes {
                queue.push(lane, bytes, (lane, bytes));
            }
        }
        let mut sent = [0; 3];
        for _ in 0..10_000 {
            let (lane, bytes) = queue.pop().unwrap();
            sent[usize::try_from(lane).unwrap()] += bytes;
            let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
            assert!(most - least <= sizes[0] + 2 * TURN_BYTES, "{sent:?}");
        }
    }

    #[test]
    fn a_lane_that_is_empty_in_between_still_owes() {
        let mut queue = lanes(&[(1, 10_000); 200]);
        let mut sent = [0; 2];
        // The second has one item at a time, each as long as many of the first.
        for _ in 0..150 {
            if queue.lanes.get(&2).is_none_or(|lane| lane.items.is_empty()) {
                queue.push(2, 200_000, 2);
            }
            match queue.pop() {
                Some(1) => sent[0] += 10_000,
                _ => sent[1] += 200_000,
            }
        }
        assert!(sent[1] <= sent[0] + 200_000 + 2 * TURN_BYTES, "{sent:?}");
    }

    #[test]
    fn items_of_a_lane_stay_in_order() {
        let mut queue = Lanes::default();
        for number in 0..1_000 {
            queue.push(number % 7, 100 + usize::try_from(number).unwrap() * 37 % 5_000, number);
        }
        let order = std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>();
        for lane in 0..7 {
            assert!(order.iter().filter(|number| *number % 7 == lane).is_sorted());
        }
        assert_eq!(order.len(), 1_000);
    }

    #[test]
    fn a_lane_is_over_its_share_when_it_has_more_than_its_part() {
        let queue = lanes(&[(1, 600), (2, 10), (2, 10)]);
        assert!(queue.is_over_share(1, 100, 1_000), "more than half of the bytes");
        assert!(
            !queue.is_over_share(1, 100, 1_200) && !queue.is_over_share(2, 100, 1_000) && !queue.is_over_share(3, 100, 1_000)
        );
        assert!(queue.is_over_share(2, 2, 1_000), "more than half of the items");
    }
}
