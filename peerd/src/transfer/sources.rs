//! Which holder to ask next. Pure.

use p2pdi::endpoint::Endpoint;
use std::{fmt, time::Duration};

/// How often in a row a holder may fail without a verified byte between before it is given up.
const FAILURES_MAX: u32 = 4;
/// Pause before the second try of the same holder; doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest pause.
const RETRY_MAX: Duration = Duration::from_secs(3);

/// A peer that says it has the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, or its endpoint where the name is not known.
    pub name: String,
    /// Where it is dialled.
    pub endpoint: Endpoint,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name == self.endpoint.as_str() { f.write_str(&self.name) } else { write!(f, "{} ({})", self.name, self.endpoint) }
    }
}

/// What became of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// Who.
    pub source: Source,
    /// Verified bytes it sent.
    pub bytes: u64,
    /// Why it is not asked any more, if so.
    pub dropped: Option<String>,
}

/// How a source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It may do better next time: a broken connection, a stall, a full server.
    Passing,
    /// It will not: it sent a wrong byte, broke the protocol, or does not have the document.
    Final,
}

/// All holders of one document and how they did.
#[derive(Debug)]
pub struct Sources {
    all: Vec<Candidate>,
    current: usize,
}

#[derive(Debug)]
struct Candidate {
    report: SourceReport,
    failures: u32,
    last_failure: String,
}

impl Sources {
    /// Holders in the order of preference.
    pub fn new(sources: Vec<Source>) -> Self {
        let mut new = Self { all: Vec::new(), current: 0 };
        new.add(sources);
        new
    }

    /// Takes more holders, those it knows left aside. Returns whether there were new ones.
    pub fn add(&mut self, sources: Vec<Source>) -> bool {
        let before = self.all.len();
        for source in sources {
            if !self.all.iter().any(|known| known.report.source.endpoint == source.endpoint) {
                let report = SourceReport { source, bytes: 0, dropped: None };
                self.all.push(Candidate { report, failures: 0, last_failure: String::new() });
            }
        }
        self.all.len() > before
    }

    /// The source to ask now and how long to wait before; `None` when all are dropped.
    pub fn next(&self) -> Option<(usize, Duration)> {
        let order = (0..self.all.len()).map(|step| (self.current + step) % self.all.len());
        let index =
            order.filter(|index| self.all[*index].report.dropped.is_none()).min_by_key(|index| self.all[*index].failures)?;
        let failures = self.all[index].failures;
        let pause = if failures == 0 { Duration::ZERO } else { (RETRY_FIRST * (1 << (failures - 1).min(8))).min(RETRY_MAX) };
        Some((index, pause))
    }

    /// The source of this index.
    pub fn get(&self, index: usize) -> &Source {
        &self.all[index].report.source
    }

    /// Verified bytes came from a source.
    pub fn progressed(&mut self, index: usize, bytes: u64) {
        if bytes > 0 {
            self.all[index].report.bytes += bytes;
            self.all[index].failures = 0;
            self.current = index;
        }
    }

    /// A source failed; the next one in line is preferred from now on.
    pub fn failed(&mut self, index: usize, fault: Fault, why: String) {
        let candidate = &mut self.all[index];
        candidate.failures += 1;
        if fault == Fault::Final || candidate.failures >= FAILURES_MAX {
            candidate.report.dropped = Some(why.clone());
        }
        candidate.last_failure = why;
        self.current = (index + 1) % self.all.len();
    }

    /// What became of each.
    pub fn reports(&self) -> Vec<SourceReport> {
        self.all.iter().map(|candidate| candidate.report.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(n: u16) -> Sources {
        Sources::new(
            (1..=n)
                .map(|port| Source { name: format!("p{port}"), endpoint: format!("127.0.0.1:{port}").parse().unwrap() })
                .collect(),
        )
    }

    #[test]
    fn a_source_with_a_final_fault_is_never_asked_again() {
        let mut sources = sources(2);
        assert_eq!(sources.next(), Some((0, Duration::ZERO)));
        sources.failed(0, Fault::Final, "wrong bytes".into());
        assert_eq!(sources.next(), Some((1, Duration::ZERO)));
        sources.failed(1, Fault::Final, "gone".into());
        assert_eq!(sources.next(), None);
        assert_eq!(sources.reports()[0].dropped.as_deref(), Some("wrong bytes"));
    }

    #[test]
    fn others_are_tried_before_a_failing_one_again_and_that_after_a_growing_pause() {
        let mut sources = sources(2);
        sources.failed(0, Fault::Passing, "broke".into());
        assert_eq!(sources.next(), Some((1, Duration::ZERO)));
        sources.failed(1, Fault::Passing, "broke".into());
        assert_eq!(sources.next(), Some((0, RETRY_FIRST)));
        sources.failed(0, Fault::Passing, "broke".into());
        sources.failed(1, Fault::Passing, "broke".into());
        assert_eq!(sources.next(), Some((0, RETRY_FIRST * 2)));
        for _ in 0..2 {
            sources.failed(0, Fault::Passing, "broke".into());
            sources.failed(1, Fault::Passing, "broke".into());
        }
        assert_eq!(sources.next(), None);
    }

    #[test]
    fn a_source_that_delivers_is_kept() {
        let mut sources = sources(2);
        for _ in 0..20 {
            sources.progressed(1, 1);
            assert_eq!(sources.next(), Some((1, Duration::ZERO)));
        }
        assert!(!sources.add(vec![sources.get(0).clone()]));
    }
}
