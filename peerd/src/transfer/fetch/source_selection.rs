//! Which holder to ask next.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::holders::source::Source;
use p2pdi::backoff::Policy;
use std::time::{Duration, Instant};

/// Failures in a row, without a verified byte between them, before a holder is dropped.
const FAILURES_MIN: u32 = 4;
/// How long a holder may fail before it is dropped: one that cannot be reached is probably gone.
const MAX_FAILING: Duration = Duration::from_secs(3);
/// The same for a holder that answers that it is busy or restarting: its uploads end, and it comes back.
const MAX_FAILING_BUSY: Duration = Duration::from_secs(30);
/// Pause before the second try of the same holder; doubles with each further try.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest pause.
const RETRY_MAX: Duration = Duration::from_secs(3);
const RETRY: Policy = Policy { first: RETRY_FIRST, longest: RETRY_MAX };

/// The result of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// The source.
    pub source: Source,
    /// Verified bytes it sent.
    pub bytes: u64,
    /// Why it is not asked any more, if so.
    pub dropped: Option<String>,
    /// It said that it does not have this content, or not any more.
    pub gone: bool,
}

/// How the reason begins for which a source is dropped that sent wrong bytes; the number of the piece follows.
pub(super) const WRONG_BYTES: &str = "sent wrong bytes in piece ";

impl SourceReport {
    /// The piece that it sent wrong bytes of, if it is not asked any more for that.
    pub fn wrong_piece(&self) -> Option<usize> {
        self.dropped.as_deref()?.strip_prefix(WRONG_BYTES)?.parse().ok()
    }
}

/// How a source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Transient: a broken connection, a stall.
    Transient,
    /// The holder answers that it cannot serve now: a full server, or one that stops.
    Busy,
    /// Permanent: a wrong byte, a protocol violation, or a holder without the document.
    Final,
}

/// All holders of one document and how they did.
#[derive(Debug)]
pub(super) struct SourceSelection {
    all: Vec<Candidate>,
    current: usize,
}

#[derive(Debug)]
struct Candidate {
    report: SourceReport,
    failures: u32,
    /// Since when it fails, and when it last did.
    failing: Option<(Instant, Instant)>,
    max_failing: Duration,
    /// Never to be asked again.
    done: bool,
}

impl Candidate {
    fn new(source: Source) -> Self {
        let report = SourceReport { source, bytes: 0, dropped: None, gone: false };
        Self { report, failures: 0, failing: None, max_failing: MAX_FAILING, done: false }
    }

    fn reset(&mut self) {
        (self.failures, self.failing, self.max_failing) = (0, None, MAX_FAILING);
    }

    fn pause(&self, now: Instant) -> Duration {
        let Some((_, last)) = self.failing else { return Duration::ZERO };
        let pause = RETRY.pause(self.failures.saturating_sub(1));
        (last + pause).saturating_duration_since(now)
    }
}

impl SourceSelection {
    /// Holders in the order of preference.
    pub(super) fn new(sources: Vec<Source>) -> Self {
        let mut new = Self { all: Vec::new(), current: 0 };
        new.add(sources);
        new
    }

    /// Takes more holders. Known ones (by endpoint and name) are ignored, but one that was dropped for transient faults gets another chance.
    /// Returns whether there is a holder to ask that there was not before.
    pub(super) fn add(&mut self, sources: Vec<Source>) -> bool {
        let mut more = false;
        for source in sources {
            match self.all.iter_mut().find(|known| known.report.source == source) {
                None => self.all.push(Candidate::new(source)),
                Some(known) if known.report.dropped.is_some() && !known.done => {
                    known.report.dropped = None;
                    known.reset();
                }
                Some(_) => continue,
            }
            more = true;
        }
        more
    }

    /// Takes those that are not known yet.
    pub(super) fn add_new(&mut self, sources: Vec<Source>) {
        for source in sources {
            if !self.all.iter().any(|known| known.report.source == source) {
                self.all.push(Candidate::new(source));
            }
        }
    }

    /// The names of those that were dropped for transient faults.
    pub(super) fn unreachable(&self) -> Vec<String> {
        let away = self.all.iter().filter(|known| known.report.dropped.is_some() && !known.done);
        away.map(|known| known.report.source.label().to_owned()).collect()
    }

    /// Gives those another chance that were dropped for transient faults.
    pub(super) fn revive(&mut self) {
        for known in self.all.iter_mut().filter(|known| known.report.dropped.is_some() && !known.done) {
            known.report.dropped = None;
            known.reset();
        }
    }

    /// The source to ask and how long to wait before; `None` when all are dropped.
    pub(super) fn next(&self, now: Instant) -> Option<(usize, Duration)> {
        let order = (0..self.all.len()).map(|step| (self.current + step) % self.all.len());
        let index = order
            .filter(|index| self.all[*index].report.dropped.is_none())
            .min_by_key(|index| (self.all[*index].pause(now), self.all[*index].failures))?;
        Some((index, self.all[index].pause(now)))
    }

    /// How many holders are known, dropped ones included.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The source of this index.
    pub(super) fn get(&self, index: usize) -> &Source {
        &self.all[index].report.source
    }

    /// Verified bytes came from a source.
    pub(super) fn progressed(&mut self, index: usize, bytes: u64) {
        if bytes > 0 {
            self.all[index].report.bytes += bytes;
            self.all[index].reset();
            self.current = index;
        }
    }

    /// A source failed; the next one in line is preferred from now on.
    pub(super) fn failed(&mut self, index: usize, fault: Fault, why: String, now: Instant) {
        let candidate = &mut self.all[index];
        candidate.failures += 1;
        let since = candidate.failing.map_or(now, |(since, _)| since);
        candidate.failing = Some((since, now));
        match fault {
            Fault::Final => candidate.done = true,
            Fault::Busy => candidate.max_failing = MAX_FAILING_BUSY,
            Fault::Transient => {}
        }
        let enough = candidate.failures >= FAILURES_MIN && now.saturating_duration_since(since) >= candidate.max_failing;
        if candidate.done || enough {
            candidate.report.dropped = Some(why);
        }
        self.current = (index + 1) % self.all.len();
    }

    /// A source says that it does not have the content, or not any more.
    pub(super) fn says_gone(&mut self, index: usize) {
        self.all[index].report.gone = true;
    }

    /// The sources that may be asked, but this one.
    pub(super) fn others(&self, but: &Source) -> Vec<Source> {
        let left = self.all.iter().filter(|candidate| candidate.report.dropped.is_none() && candidate.report.source != *but);
        left.map(|candidate| candidate.report.source.clone()).collect()
    }

    /// How all sources did: those that were asked what the document is, and `reports` of those that it was then fetched from.
    pub(super) fn merged(&self, reports: Vec<SourceReport>) -> Vec<SourceReport> {
        let is_new = |own: &SourceReport| !reports.iter().any(|report| report.source == own.source);
        let mut merged: Vec<_> = self.reports().into_iter().filter(is_new).collect();
        let said = |source: &Source| self.all.iter().any(|known| known.report.gone && known.report.source == *source);
        merged.extend(reports.into_iter().map(|report| SourceReport { gone: report.gone || said(&report.source), ..report }));
        merged
    }

    /// Nobody has the document that a source named: it is not asked again. `reports`: how a fetch of that document ended.
    pub(super) fn misled(&mut self, index: usize, reports: &[SourceReport]) {
        let candidate = &mut self.all[index];
        let known = reports.iter().find(|report| report.source == candidate.report.source);
        candidate.report.gone |= known.is_some_and(|report| report.gone);
        let why = known.and_then(|report| report.dropped.clone());
        candidate.report.dropped = Some(why.unwrap_or_else(|| "names a document that nobody delivers".to_owned()));
        candidate.done = true;
        self.current = (index + 1) % self.all.len();
    }

    /// The result of each.
    pub(super) fn reports(&self) -> Vec<SourceReport> {
        self.all.iter().map(|candidate| candidate.report.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(n: u16) -> SourceSelection {
        SourceSelection::new(
            (1..=n)
                .map(|port| Source::new(format!("p{port}").parse().ok(), format!("127.0.0.1:{port}").parse().unwrap()))
                .collect(),
        )
    }

    /// Fails one source with each try until it is dropped; returns how long that took, and how often it was tried.
    fn given_up_after(sources: &mut SourceSelection, fault: Fault) -> (Duration, u32) {
        let begun = Instant::now();
        let (mut now, mut tries) = (begun, 0);
        while let Some((index, pause)) = sources.next(now) {
            assert!(pause <= RETRY_MAX);
            now += pause;
            tries += 1;
            sources.failed(index, fault, "broke".into(), now);
        }
        (now - begun, tries)
    }

    #[test]
    fn a_busy_source_is_retried_longer_than_an_unreachable_one() {
        let (absent, tries) = given_up_after(&mut sources(1), Fault::Transient);
        assert!(absent >= MAX_FAILING && absent <= MAX_FAILING + RETRY_MAX && tries >= FAILURES_MIN, "{absent:?}, {tries} tries");
        let (busy, tries) = given_up_after(&mut sources(1), Fault::Busy);
        assert!(busy >= MAX_FAILING_BUSY && busy <= MAX_FAILING_BUSY + RETRY_MAX && tries < 20, "{busy:?}, {tries} tries");
    }

    #[test]
    fn a_later_search_revives_a_dropped_source_but_not_a_malicious_one() {
        let mut sources = sources(2);
        let known = vec![sources.get(0).clone(), sources.get(1).clone()];
        sources.failed(1, Fault::Final, "wrong bytes".into(), Instant::now());
        given_up_after(&mut sources, Fault::Transient);
        assert!(sources.add(known.clone()));
        assert_eq!(sources.next(Instant::now()), Some((0, Duration::ZERO)));
        assert_eq!(sources.reports()[1].dropped.as_deref(), Some("wrong bytes"));
        assert!(!sources.add(known));
    }

    #[test]
    fn a_wrong_name_for_an_endpoint_does_not_hide_the_right_one() {
        let right = sources(1).get(0).clone();
        let wrong = Source::new("wrong".parse().ok(), right.endpoint.clone());
        let mut sources = SourceSelection::new(vec![wrong]);
        let now = Instant::now();
        sources.failed(0, Fault::Final, "another peer answers there".into(), now);
        assert!(sources.add(vec![right.clone()]));
        let (index, _) = sources.next(now).unwrap();
        assert_eq!(*sources.get(index), right);
    }

    #[test]
    fn a_source_with_a_final_fault_is_never_asked_again() {
        let mut sources = sources(2);
        let now = Instant::now();
        assert_eq!(sources.next(now), Some((0, Duration::ZERO)));
        sources.failed(0, Fault::Final, "wrong bytes".into(), now);
        assert_eq!(sources.next(now), Some((1, Duration::ZERO)));
        sources.failed(1, Fault::Final, "gone".into(), now);
        assert_eq!(sources.next(now), None);
        assert_eq!(sources.reports()[0].dropped.as_deref(), Some("wrong bytes"));
    }

    #[test]
    fn others_are_tried_before_a_failing_one_again_and_that_after_a_growing_pause() {
        let mut sources = sources(2);
        let now = Instant::now();
        sources.failed(0, Fault::Transient, "broke".into(), now);
        assert_eq!(sources.next(now), Some((1, Duration::ZERO)));
        sources.failed(1, Fault::Transient, "broke".into(), now);
        assert_eq!(sources.next(now), Some((0, RETRY_FIRST)));
        sources.failed(0, Fault::Transient, "broke".into(), now);
        sources.failed(1, Fault::Transient, "broke".into(), now);
        assert_eq!(sources.next(now), Some((0, RETRY_FIRST * 2)));
        let later = now + RETRY_FIRST;
        assert_eq!(sources.next(later), Some((0, RETRY_FIRST)), "waiting for others counts");
    }

    #[test]
    fn a_source_that_delivers_is_kept() {
        let mut sources = sources(2);
        let now = Instant::now();
        for _ in 0..20 {
            sources.progressed(1, 1);
            assert_eq!(sources.next(now), Some((1, Duration::ZERO)));
        }
        assert!(!sources.add(vec![sources.get(0).clone()]));
    }
}
