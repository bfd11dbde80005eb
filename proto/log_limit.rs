//! Limits log lines about what others can repeat at will, so that they cannot fill a log.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Length of the window that lines are counted in. A guess: an operator notices within a minute, and a day of one kind is 1,440 lines.
const WINDOW: Duration = Duration::from_secs(60);

/// Lines of this process that were left out since its start.
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// How many lines of this process were left out since its start, of all kinds.
pub fn suppressed_total() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

/// Counts the lines of one kind: at most so many in a minute. Those past it are counted, and the next line says how many they were.
#[derive(Debug)]
pub struct LogLimit {
    lines_max: u32,
    window: Mutex<Window>,
}

/// One log line that may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Lines of this kind that were left out since the line before this one; `None`: none.
    pub suppressed: Option<u64>,
}

#[derive(Debug)]
struct Window {
    /// When its first line was written; `None` before the first line of all.
    started: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// At most `lines_max` lines a minute.
    pub const fn new(lines_max: u32) -> Self {
        Self { lines_max, window: Mutex::new(Window { started: None, lines: 0, suppressed: 0 }) }
    }

    /// The line to write now; `None`: the limit is reached, and the line is only counted.
    pub fn line(&self) -> Option<Line> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).line(self.lines_max, Instant::now())
    }
}

impl Window {
    fn line(&mut self, lines_max: u32, now: Instant) -> Option<Line> {
        if self.started.is_none_or(|started| now.saturating_duration_since(started) >= WINDOW) {
            (self.started, self.lines) = (Some(now), 0);
        }
        if self.lines >= lines_max {
            self.suppressed = self.suppressed.saturating_add(1);
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.lines += 1;
        let suppressed = std::mem::take(&mut self.suppressed);
        Some(Line { suppressed: (suppressed > 0).then_some(suppressed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_limit_are_counted_and_the_next_line_says_how_many() {
        let (limit, start) = (LogLimit::new(2), Instant::now());
        let line = |after: Duration| limit.window.lock().unwrap().line(limit.lines_max, start + after);
        let first = Some(Line { suppressed: None });
        assert_eq!([line(Duration::ZERO), line(Duration::from_secs(1)), line(Duration::from_secs(2))], [first, first, None]);
        assert!((0..1_000).all(|_| line(Duration::from_secs(59)).is_none()));
        assert_eq!(line(WINDOW), Some(Line { suppressed: Some(1_001) }));
        assert_eq!(line(WINDOW), first);
        assert_eq!(line(WINDOW), None);
    }
}
