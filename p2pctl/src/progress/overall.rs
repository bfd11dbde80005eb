//! The state of all fetches of a verb at one moment.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use p2pdi::v1::{Job, JobState};
use peerd::transfer::{FetchPhase, ProgressSnapshot};
use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// How far back the rate of several documents looks.
const RATE_WINDOW: Duration = Duration::from_secs(4);

/// The state of all fetches of a verb at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overall {
    pub(crate) phase: FetchPhase,
    pub(crate) documents: u64,
    pub(crate) documents_done: u64,
    pub(crate) documents_failed: u64,
    /// Of all documents; 0: not known yet.
    pub(crate) bytes: u64,
    /// Verified, those that were there before included.
    pub(crate) bytes_done: u64,
    /// Received a second.
    pub(crate) bytes_per_second: u64,
    /// How many holders are in use now.
    pub(crate) holders: u64,
    /// Their names, as far as they are known.
    pub(crate) holder_names: Vec<String>,
    /// Sent to others.
    pub(crate) sent: u64,
    pub(crate) sent_per_second: u64,
    /// Why nothing moves; `None` if something does.
    pub(crate) waiting: Option<String>,
    /// The documents under way.
    pub(crate) current: Vec<Current>,
}

/// One document under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) name: String,
    /// 0: not known yet.
    pub(crate) bytes: u64,
    pub(crate) bytes_done: u64,
    pub(crate) bytes_per_second: u64,
}

impl Default for Overall {
    fn default() -> Self {
        Self {
            phase: FetchPhase::Searching,
            documents: 0,
            documents_done: 0,
            documents_failed: 0,
            bytes: 0,
            bytes_done: 0,
            bytes_per_second: 0,
            holders: 0,
            holder_names: Vec::new(),
            sent: 0,
            sent_per_second: 0,
            waiting: None,
            current: Vec::new(),
        }
    }
}

impl Overall {
    /// Adds the documents under way to what is done: their bytes, holders and reasons for waiting.
    pub(crate) fn with_running<'a>(mut self, running: impl Iterator<Item = (&'a str, ProgressSnapshot)>) -> Self {
        let mut holders = BTreeSet::new();
        let (mut reasons, mut moving) = (Vec::new(), false);
        let mut phases = Vec::new();
        for (name, seen) in running {
            self.bytes_done += seen.verified;
            self.bytes_per_second += seen.bytes_per_second;
            holders.extend(seen.holders.iter().map(|holder| holder.source.label().to_owned()));
            match seen.why_idle() {
                Some(why) => reasons.push((name, why)),
                None => moving = true,
            }
            phases.push(seen.phase);
            let (bytes, bytes_done, bytes_per_second) = (seen.size, seen.verified, seen.bytes_per_second);
            self.current.push(Current { name: name.to_owned(), bytes, bytes_done, bytes_per_second });
        }
        self.holders = holders.len() as u64;
        self.holder_names = holders.into_iter().collect();
        self.waiting = match reasons.as_slice() {
            _ if moving => None,
            [] => None,
            [(_, why)] => Some(why.clone()),
            [(name, why), others @ ..] => Some(format!("{name}: {why}; {} others wait, too", others.len())),
        };
        // The phase of the one that is the least far: most of the work is before it.
        let order = [FetchPhase::Fetching, FetchPhase::Searching, FetchPhase::Finishing];
        self.phase = order.into_iter().find(|phase| phases.contains(phase)).unwrap_or(FetchPhase::Ended);
        self
    }

    /// With what was sent to others: bytes, and bytes a second.
    pub(crate) fn with_sent(self, (sent, sent_per_second): (u64, u64)) -> Self {
        Self { sent, sent_per_second, ..self }
    }

    /// A job of a peer.
    pub(crate) fn of_job(job: &Job) -> Self {
        let waiting = (job.state() == JobState::Waiting).then(|| match job.detail.as_str() {
            "" => "nobody that it knows of can serve now".to_owned(),
            detail => detail.to_owned(),
        });
        Self {
            phase: match job.state() {
                JobState::Done | JobState::Failed | JobState::Cancelled => FetchPhase::Ended,
                _ if job.documents == 0 => FetchPhase::Searching,
                _ => FetchPhase::Fetching,
            },
            documents: job.documents,
            documents_done: job.documents_done,
            documents_failed: job.failed.len() as u64,
            bytes: job.bytes,
            bytes_done: job.bytes_done,
            bytes_per_second: job.bytes_per_second,
            holders: job.holders.into(),
            waiting,
            ..Self::default()
        }
    }

    /// Time until all is there at the present rate; `None` if nothing moves or the size is not known.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let missing = self.bytes.saturating_sub(self.bytes_done);
        (self.bytes > 0 && self.bytes_per_second > 0).then(|| Duration::from_secs(missing.div_ceil(self.bytes_per_second)))
    }

    /// 0 to 100; 100 only if all is there.
    pub(crate) fn percent(&self) -> u64 {
        percent(self.bytes_done, self.bytes)
    }
}

impl Current {
    /// 0 to 100.
    pub(crate) fn percent(&self) -> u64 {
        percent(self.bytes_done, self.bytes)
    }
}

fn percent(done: u64, all: u64) -> u64 {
    match all {
        0 => 0,
        all => u64::try_from(u128::from(done.min(all)) * 100 / u128::from(all)).unwrap_or(100),
    }
}

/// The rate of many documents, each too short for a rate of its own.
#[derive(Debug, Default)]
pub(crate) struct Window(VecDeque<(Instant, u64)>);

impl Window {
    /// Bytes a second over the last seconds, after `bytes` in all have moved.
    pub(crate) fn rate(&mut self, bytes: u64, now: Instant) -> u64 {
        self.0.push_back((now, bytes));
        while self.0.len() > 2 && self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATE_WINDOW) {
            self.0.pop_front();
        }
        let Some((at, before)) = self.0.front() else { return 0 };
        let millis = u64::try_from(now.saturating_duration_since(*at).as_millis()).unwrap_or(u64::MAX);
        bytes.saturating_sub(*before).saturating_mul(1000).checked_div(millis).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_many_documents_is_that_of_the_last_seconds() {
        let (mut window, start) = (Window::default(), Instant::now());
        assert_eq!(window.rate(0, start), 0);
        for second in 1..=10 {
            assert_eq!(window.rate(second * 1_000, start + Duration::from_secs(second)), 1_000);
        }
        assert_eq!(window.rate(10_000, start + Duration::from_secs(20)), 0);
    }

    #[test]
    fn all_is_there_only_at_the_last_byte() {
        assert_eq!([percent(0, 0), percent(999, 1_000), percent(1_000, 1_000)], [0, 99, 100]);
    }
}
