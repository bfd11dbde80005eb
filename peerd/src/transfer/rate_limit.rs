//! A limit on bytes per second, and whose bytes are next.
//!
//! Streams that want to move bytes stand in a line. The first gets a part of what it wants as soon as the limit allows it, and stands at the
//! end of the line again for its next part (round robin with equal parts, so every stream gets the same rate). The parts are the smaller,
//! the more streams wait: each stream gets its next part within about [`ROUND`], however many they are.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How much may move at once after a pause, as time at the limit's rate: short enough that the rate holds within a second,
/// long enough that timer resolution does not cost throughput.
const BURST: Duration = Duration::from_millis(100);
/// In which time each of the waiting streams gets a part. A receiver takes a holder that sends nothing for a second for a slow one.
const ROUND: Duration = Duration::from_millis(500);
/// Longest time that one part takes at the limit's rate. With [`BURST`] it bounds by how much ten seconds can exceed the limit: 2 %.
const PART_TIME: Duration = Duration::from_millis(100);
/// Smallest part: below it the frames around it would weigh more than the limit.
const PART_MIN_BYTES: usize = 2 * 1024;

/// A token bucket that may go into debt by one part (generic cell rate algorithm, ITU-T I.371), and the line of those who wait for it.
#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: u64,
    /// When the bytes moved so far are within the limit.
    paid_at: Instant,
    /// The next one first; nobody is in it twice.
    line: VecDeque<Waiting>,
}

/// A stream in the line.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    stream: u64,
    /// Most bytes it can move now.
    most: usize,
    /// It moves all of them at once, or none.
    whole: bool,
}

/// Who may move bytes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The stream, which left the line, may move this many bytes now. They are counted.
    Granted { stream: u64, bytes: usize },
    /// The first in the line gets its part at this time.
    At(Instant),
    /// Nobody waits.
    Nobody,
}

impl RateLimit {
    /// A limit of `bytes_per_second`, at least 1.
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: now, line: VecDeque::new() }
    }

    /// Bytes per second.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Another limit, at least 1, from now on, as after a pause. The line stays; the part that is paid off now counts no more.
    pub(super) fn set_bytes_per_second(&mut self, bytes_per_second: u64, now: Instant) {
        self.bytes_per_second = bytes_per_second.max(1);
        // At a lower limit it could take seconds.
        self.paid_at = self.paid_at.min(now.checked_sub(BURST).unwrap_or(now));
    }

    /// Puts a stream at the end of the line that wants to move at most `most` bytes, at least 1. One that is in the line stays where it is.
    pub(super) fn enter(&mut self, stream: u64, most: usize) {
        self.push(Waiting { stream, most: most.max(1), whole: false });
    }

    /// The same for a stream that moves all of `bytes` at once. The limit then goes into debt by them.
    pub(super) fn enter_whole(&mut self, stream: u64, bytes: usize) {
        self.push(Waiting { stream, most: bytes.max(1), whole: true });
    }

    fn push(&mut self, new: Waiting) {
        if !self.line.iter().any(|waiting| waiting.stream == new.stream) {
            self.line.push_back(new);
        }
    }

    /// Takes a stream out of the line; returns whether it was in it.
    pub(super) fn leave(&mut self, stream: u64) -> bool {
        let before = self.line.len();
        self.line.retain(|waiting| waiting.stream != stream);
        self.line.len() < before
    }

    /// The stream that gets the next part.
    pub(super) fn first(&self) -> Option<u64> {
        self.line.front().map(|waiting| waiting.stream)
    }

    /// Grants the next part, if its time has come.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let Some(Waiting { stream, most, whole }) = self.line.front().copied() else { return Next::Nobody };
        let begin = self.paid_at.max(now.checked_sub(BURST).unwrap_or(now));
        if begin > now {
            return Next::At(begin);
        }
        let bytes = if whole { most } else { most.min(self.part()) };
        self.line.pop_front();
        self.paid_at = begin + self.cost(bytes);
        Next::Granted { stream, bytes }
    }

    /// Uncounts bytes that were granted and not moved.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.paid_at = self.paid_at.checked_sub(self.cost(bytes)).unwrap_or(self.paid_at);
    }

    /// Bytes of one part, with the line as it is.
    fn part(&self) -> usize {
        let waiting = u32::try_from(self.line.len()).unwrap_or(u32::MAX).max(1);
        let time = (ROUND / waiting).min(PART_TIME);
        let bytes = u128::from(self.bytes_per_second) * time.as_nanos() / Duration::from_secs(1).as_nanos();
        usize::try_from(bytes).unwrap_or(usize::MAX).max(PART_MIN_BYTES)
    }

    fn cost(&self, bytes: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a nanosecond in a year of sending")]
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const KIB: u64 = 1024;

    /// What the streams got in `time`, and the longest time that each waited for a part. Timers ring up to `late_ms` late.
    fn run(rate: u64, streams: u64, most: usize, time: Duration, late_ms: u64) -> BTreeMap<u64, (u64, Duration)> {
        let start = Instant::now();
        let (mut limit, mut now, mut tick) = (RateLimit::new(rate, start), start, 0);
        let mut got = BTreeMap::new();
        let mut since = BTreeMap::new();
        for stream in 0..streams {
            limit.enter(stream, most);
            got.insert(stream, (0, Duration::ZERO));
            since.insert(stream, start);
        }
        while now - start < time {
            match limit.next(now) {
                Next::Granted { stream, bytes } => {
                    let (total, longest) = got.get_mut(&stream).unwrap();
                    *total += bytes as u64;
                    *longest = (*longest).max(now - since.insert(stream, now).unwrap());
                    limit.enter(stream, most);
                }
                Next::At(at) => {
                    tick += 1;
                    now = at + Duration::from_millis(tick * 7 % (late_ms + 1));
                }
                Next::Nobody => unreachable!(),
            }
        }
        got
    }

    #[test]
    fn the_rate_is_exact_and_shared_equally_however_many_streams() {
        for streams in [1, 8, 60, 128] {
            for rate in [64 * KIB, 256 * KIB, 10 << 20, 1 << 30] {
                let got = run(rate, streams, 256 * 1024, Duration::from_secs(10), 2);
                let total: u64 = got.values().map(|(bytes, _)| bytes).sum();
                let share = total as f64 / (rate as f64 * 10.0);
                assert!((0.95..=1.05).contains(&share), "{streams} streams at {rate}: {share}");
                let least = got.values().map(|(bytes, _)| *bytes).min().unwrap();
                let most = got.values().map(|(bytes, _)| *bytes).max().unwrap();
                // One part apart at most.
                assert!(most - least <= (rate / 10).max(PART_MIN_BYTES as u64), "{streams} streams at {rate}: {least} to {most}");
            }
        }
    }

    #[test]
    fn sixty_streams_at_256_kib_get_a_part_every_second() {
        let got = run(256 * KIB, 60, 256 * 1024, Duration::from_secs(10), 2);
        assert!(got.values().all(|(_, longest)| *longest < Duration::from_secs(1)), "{got:?}");
    }

    #[test]
    fn bytes_that_were_not_moved_do_not_count() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1_000_000, start);
        for _ in 0..1_000 {
            limit.enter(1, 256 * 1024);
            let Next::Granted { bytes, .. } = limit.next(start) else { panic!("not granted") };
            limit.give_back(bytes);
        }
        limit.enter(1, 1);
        assert_eq!(limit.next(start), Next::Granted { stream: 1, bytes: 1 });
    }

    #[test]
    fn another_limit_holds_from_now_on_for_those_in_the_line() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1_000, start);
        limit.enter(1, 256 * 1024);
        assert!(matches!(limit.next(start), Next::Granted { bytes: PART_MIN_BYTES, .. }));
        limit.enter(2, 256 * 1024);
        assert!(matches!(limit.next(start), Next::At(at) if at > start + Duration::from_secs(1)));
        limit.set_bytes_per_second(1_000_000, start);
        assert_eq!(limit.next(start), Next::Granted { stream: 2, bytes: 100_000 });
        // Without a limit everybody gets what it wants.
        limit.set_bytes_per_second(u64::MAX, start);
        for stream in 3..100 {
            limit.enter(stream, 1 << 40);
        }
        for stream in 3..100 {
            assert_eq!(limit.next(start), Next::Granted { stream, bytes: 1 << 40 });
        }
    }

    #[test]
    fn what_moves_as_a_whole_is_granted_at_once_and_the_next_waits_for_it() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1_000_000, start);
        limit.enter_whole(1, 500_000);
        limit.enter(2, 10);
        assert_eq!(limit.next(start), Next::Granted { stream: 1, bytes: 500_000 });
        assert!(matches!(limit.next(start), Next::At(at) if at >= start + Duration::from_millis(400)));
    }

    #[test]
    fn who_leaves_the_line_gets_nothing_and_the_next_moves_up() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1_000, start);
        for stream in 1..=3 {
            limit.enter(stream, 10);
        }
        assert!(limit.leave(1) && !limit.leave(1));
        assert_eq!(limit.first(), Some(2));
        assert_eq!(limit.next(start), Next::Granted { stream: 2, bytes: 10 });
        assert!(matches!(limit.next(start), Next::At(at) if at == start + Duration::from_millis(10)));
        assert!(limit.leave(3));
        assert_eq!((limit.next(start), limit.first()), (Next::Nobody, None));
    }

    proptest! {
        /// Whoever stands in the line gets its part after at most one part of each before it, whatever comes and goes.
        #[test]
        fn nobody_is_passed_over(
            rate in 1_000_u64..10_000_000,
            steps in proptest::collection::vec((0_u64..40, 1_usize..300_000, 0_u8..4), 1..400),
        ) {
            let start = Instant::now();
            let (mut limit, mut now) = (RateLimit::new(rate, start), start);
            let mut line: Vec<u64> = Vec::new();
            let mut moved = 0_u64;
            for (stream, most, step) in steps {
                match step {
                    0 | 1 => {
                        limit.enter(stream, most);
                        if !line.contains(&stream) { line.push(stream); }
                    }
                    2 => {
                        prop_assert_eq!(limit.leave(stream), line.contains(&stream));
                        line.retain(|other| *other != stream);
                    }
                    _ => match limit.next(now) {
                        Next::Granted { stream, bytes } => {
                            prop_assert_eq!(stream, line.remove(0));
                            moved += bytes as u64;
                        }
                        Next::At(at) => now = at,
                        Next::Nobody => prop_assert!(line.is_empty()),
                    },
                }
                prop_assert_eq!(limit.first(), line.first().copied());
            }
            let allowed = (now - start + BURST + PART_TIME).as_secs_f64() * rate as f64 + PART_MIN_BYTES as f64;
            prop_assert!(moved as f64 <= allowed, "{} of {}", moved, allowed);
        }
    }
}
