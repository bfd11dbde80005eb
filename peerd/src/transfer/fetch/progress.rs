//! How far a fetch is and what it does now, shared by the fetch, which writes it, and its displays, which read it.

use super::{source_selection::SourceReport, source_totals::SourceTotals};
use crate::{holders::source::Source, transfer::rate_meter::RateMeter};
use p2pdi::phrases::first_of;
use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// After this long without a byte, nothing moves: longer than a slow round trip and a rate limit's pauses.
const IDLE_MIN: Duration = Duration::from_secs(2);
/// Holders named in the reason why nothing moves; of more, the count is given.
const NAMED_MAX: usize = 3;

/// What a fetch does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchPhase {
    /// It finds out which document it is and who has it.
    #[default]
    Searching,
    /// It receives pieces.
    Fetching,
    /// All pieces are there; it syncs the file and renames it.
    Finishing,
    /// The document is there, and is shared on. A fetch itself ends before; this is of who goes on after it.
    Seeding,
    /// It ended.
    Ended,
}

/// What a fetch waits for while nothing arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// No peer is known that has what is missing.
    Holders,
    /// These holders were asked and send nothing.
    Data {
        /// Their names.
        from: Vec<String>,
    },
    /// These holders are full; they are asked again.
    Turn {
        /// Their names.
        at: Vec<String>,
    },
    /// These holders cannot be reached; they are tried again.
    Connection {
        /// Their names.
        to: Vec<String>,
    },
    /// The partial file of an earlier fetch is being checked.
    Check,
}

/// One holder that a fetch uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderProgress {
    /// The holder.
    pub source: Source,
    /// Verified bytes that it sent.
    pub bytes: u64,
    /// Bytes a second from it, over the last seconds.
    pub bytes_per_second: u64,
    /// Requests to it that are not answered in full.
    pub requests: u32,
    /// Since its last byte; `None` before the first.
    pub idle: Option<Duration>,
}

impl HolderProgress {
    /// A holder that sent nothing yet.
    pub fn new(source: Source) -> Self {
        Self { source, bytes: 0, bytes_per_second: 0, requests: 0, idle: None }
    }
}

/// How far a fetch is, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// What it does.
    pub phase: FetchPhase,
    /// Bytes of the document; 0 until the first valid header.
    pub size: u64,
    /// Verified bytes, including those of an earlier fetch.
    pub verified: u64,
    /// Verified bytes of an earlier fetch.
    pub resumed: u64,
    /// Bytes that arrived, verified or not.
    pub received: u64,
    /// Bytes that arrived a second, over the last seconds.
    pub bytes_per_second: u64,
    /// Since the last byte arrived, or since the fetch began.
    pub idle: Duration,
    /// Bytes of this document that were sent to others.
    pub sent: u64,
    /// Bytes sent a second, over the last seconds.
    pub sent_per_second: u64,
    /// Holders in use: those that send, or are asked.
    pub holders: Vec<HolderProgress>,
    /// Holders and other members of the swarm that are known, in use or not.
    pub known_holders: usize,
    /// Further holders are being searched for.
    pub searching: bool,
    /// What it waits for, if it waits.
    pub waiting: Option<Waiting>,
}

/// Progress of one fetch.
///
/// The fetch writes it, from any number of tasks and threads. Readers call [`Self::snapshot`]; the counts of one snapshot may be a moment apart.
#[derive(Debug)]
pub struct Progress {
    size: AtomicU64,
    verified: AtomicU64,
    has_room: AtomicBool,
    details: Mutex<Details>,
}

#[derive(Debug)]
struct Details {
    phase: FetchPhase,
    resumed: u64,
    received: RateMeter,
    /// Bytes, and bytes a second.
    sent: (u64, u64),
    /// When the last byte arrived; at first, when the fetch began.
    last_byte: Instant,
    holders: Vec<HolderProgress>,
    known_holders: usize,
    searching: bool,
    waiting: Option<Waiting>,
    /// What the sources of this try did so far, and those of tries that ended.
    sources: Vec<SourceReport>,
    sources_before: SourceTotals,
}

impl Default for Progress {
    fn default() -> Self {
        let details = Details {
            phase: FetchPhase::default(),
            resumed: 0,
            received: RateMeter::default(),
            sent: (0, 0),
            last_byte: Instant::now(),
            holders: Vec::new(),
            known_holders: 0,
            searching: false,
            waiting: None,
            sources: Vec::new(),
            sources_before: SourceTotals::default(),
        };
        Self {
            size: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            has_room: AtomicBool::new(false),
            details: Mutex::new(details),
        }
    }
}

impl Progress {
    /// Bytes of the document; 0 until the first valid header.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Verified bytes, including those of an earlier fetch.
    pub fn verified(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    /// Whether the file system set room aside for all of it, so that it takes no more of what is free.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    /// Whether all bytes are here, and only the disk is awaited.
    pub fn has_arrived(&self) -> bool {
        !matches!(self.details().phase, FetchPhase::Searching | FetchPhase::Fetching)
    }

    /// All of it, now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        self.snapshot_at(Instant::now())
    }

    /// Since the last byte arrived, or since the fetch began.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.details().last_byte)
    }

    fn snapshot_at(&self, now: Instant) -> ProgressSnapshot {
        let mut details = self.details();
        let Details { phase, resumed, last_byte, known_holders, searching, .. } = *details;
        ProgressSnapshot {
            phase,
            size: self.size(),
            verified: self.verified(),
            resumed,
            received: details.received.total(),
            bytes_per_second: details.received.rate(now),
            idle: now.saturating_duration_since(last_byte),
            sent: details.sent.0,
            sent_per_second: details.sent.1,
            holders: details.holders.clone(),
            known_holders,
            searching,
            waiting: details.waiting.clone(),
        }
    }

    /// The document is known: its size, and what of it an earlier fetch had verified.
    pub(crate) fn begin(&self, size: u64, verified: u64) {
        self.has_room.store(false, Ordering::Relaxed);
        self.verified.store(verified, Ordering::Relaxed);
        self.size.store(size, Ordering::Relaxed);
        let mut details = self.details();
        details.resumed = verified;
        details.phase = if size == 0 { FetchPhase::Searching } else { FetchPhase::Fetching };
    }

    /// The file system set room aside for all of it, after [`Self::begin`].
    pub(crate) fn set_room(&self) {
        self.has_room.store(true, Ordering::Relaxed);
    }

    /// Bytes that arrived were verified.
    pub(crate) fn advance(&self, bytes: u64) {
        self.verified.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of an earlier fetch were verified, after [`Self::begin`].
    pub(crate) fn resume(&self, bytes: u64) {
        self.details().resumed += bytes;
        self.advance(bytes);
    }

    /// Bytes arrived, verified or not.
    pub(crate) fn received(&self, bytes: u64, now: Instant) {
        let mut details = self.details();
        details.received.add(bytes, now);
        details.last_byte = now;
    }

    /// When which bytes arrived.
    pub(crate) fn received_meter(&self) -> RateMeter {
        self.details().received.clone()
    }

    /// Bytes of this document that were sent to others so far, and the rate of that.
    pub(crate) fn set_sent(&self, bytes: u64, bytes_per_second: u64) {
        self.details().sent = (bytes, bytes_per_second);
    }

    /// What the fetch does from now on.
    pub(crate) fn set_phase(&self, phase: FetchPhase) {
        self.details().phase = phase;
    }

    /// The holders in use, and how many others are known.
    pub(crate) fn set_holders(&self, holders: Vec<HolderProgress>, known: usize) {
        let mut details = self.details();
        details.holders = holders;
        details.known_holders = known;
    }

    /// What each source did so far, also those that are not in use any more.
    pub fn sources(&self) -> SourceTotals {
        let details = self.details();
        let mut totals = details.sources_before.clone();
        totals.add(&details.sources);
        totals
    }

    /// What the sources did so far in this try.
    pub(crate) fn set_sources(&self, sources: Vec<SourceReport>) {
        self.details().sources = sources;
    }

    /// A try ended. `sources`: what they did in it; `None`: what was said last.
    pub(crate) fn end_sources(&self, sources: Option<&[SourceReport]>) {
        let mut details = self.details();
        let last = std::mem::take(&mut details.sources);
        details.sources_before.add(sources.unwrap_or(&last));
    }

    /// Whether further holders are being searched for.
    pub(crate) fn set_searching(&self, searching: bool) {
        self.details().searching = searching;
    }

    /// What the fetch waits for; `None`: for nothing.
    pub(crate) fn set_waiting(&self, waiting: Option<Waiting>) {
        self.details().waiting = waiting;
    }

    fn details(&self) -> MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProgressSnapshot {
    /// Time until all is verified at the present rate; `None` if nothing moves or the size is not known.
    pub fn time_left(&self) -> Option<Duration> {
        let missing = self.size.saturating_sub(self.verified);
        (self.size > 0 && self.bytes_per_second > 0).then(|| Duration::from_secs(missing.div_ceil(self.bytes_per_second)))
    }

    /// Why nothing moves, as text; `None` if something does, or nothing has to.
    pub fn why_idle(&self) -> Option<String> {
        if !matches!(self.phase, FetchPhase::Searching | FetchPhase::Fetching) || self.idle < IDLE_MIN {
            return None;
        }
        let waiting = match (&self.waiting, self.phase) {
            (Some(waiting), _) => waiting.clone(),
            (None, FetchPhase::Searching) => Waiting::Holders,
            (None, _) if self.holders.is_empty() => Waiting::Holders,
            (None, _) => Waiting::Data { from: self.holders.iter().map(|holder| holder.source.label().to_owned()).collect() },
        };
        let mut text = waiting.to_string();
        if self.received > 0 {
            text += &format!(", last byte {} s ago", self.idle.as_secs());
        }
        if self.searching {
            text += "; asking for more holders";
        }
        Some(text)
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holders => write!(f, "waiting for a peer that has what is missing"),
            Self::Data { from } => write!(f, "waiting for {}", list(from)),
            Self::Turn { at } => write!(f, "waiting for a free upload of {}", list(at)),
            Self::Connection { to } => write!(f, "cannot reach {}, trying again", list(to)),
            Self::Check => write!(f, "checking what an earlier fetch left"),
        }
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "holders".to_owned(),
        some => first_of(some.iter(), NAMED_MAX, ", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> HolderProgress {
        HolderProgress::new(Source::new(name.parse().ok(), "127.0.0.1:7801".parse().unwrap()))
    }

    #[test]
    fn a_snapshot_has_the_rate_the_time_left_and_what_was_resumed() {
        let (progress, start) = (Progress::default(), Instant::now());
        assert_eq!((progress.snapshot().phase, progress.snapshot().time_left()), (FetchPhase::Searching, None));
        progress.begin(10_000, 1_000);
        progress.resume(1_000);
        for _ in 0..2 {
            progress.received(1_000, start);
        }
        progress.advance(2_000);
        let seen = progress.snapshot_at(start + Duration::from_secs(1));
        assert_eq!((seen.phase, seen.size, seen.verified, seen.resumed), (FetchPhase::Fetching, 10_000, 4_000, 2_000));
        assert_eq!((seen.received, seen.bytes_per_second, seen.idle), (2_000, 2_000, Duration::from_secs(1)));
        assert_eq!((seen.time_left(), seen.why_idle()), (Some(Duration::from_secs(3)), None));
    }

    #[test]
    fn why_nothing_moves_names_the_holders_the_last_byte_and_the_search() {
        let (progress, start) = (Progress::default(), Instant::now());
        let later = start + Duration::from_secs(60);
        assert_eq!(progress.snapshot_at(later).why_idle().unwrap(), "waiting for a peer that has what is missing");
        progress.begin(10_000, 0);
        progress.received(1_000, start);
        progress.set_holders(vec![holder("fff-b")], 1);
        let at = |seconds| progress.snapshot_at(start + Duration::from_secs(seconds)).why_idle();
        assert_eq!(at(1), None);
        progress.set_searching(true);
        assert_eq!(at(3).unwrap(), "waiting for fff-b, last byte 3 s ago; asking for more holders");
        progress.set_searching(false);
        progress.set_waiting(Some(Waiting::Turn { at: ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec() }));
        assert_eq!(at(5).unwrap(), "waiting for a free upload of a, b, c and 2 more, last byte 5 s ago");
        progress.set_phase(FetchPhase::Finishing);
        assert_eq!(at(60), None);
    }
}
