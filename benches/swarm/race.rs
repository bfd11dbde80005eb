//! One run of one system: leechers begin, finish, are killed; the links are watched.

use crate::{
    janitor::Janitor,
    lab::Lab,
    links::Links,
    programs::{self, Process},
    scenario::Scenario,
};
use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How often leechers are looked at: the resolution of their times.
const LOOK: Duration = Duration::from_millis(10);
/// How often counters and memory are read.
const SAMPLE: Duration = Duration::from_millis(100);
/// A leecher that takes longer than this multiple of its bound, and `GRACE`, does not finish.
const PATIENCE: f64 = 20.0;
const GRACE: Duration = Duration::from_secs(30);

/// The machines of a lab: the seed, the leechers, then those that only help.
pub(crate) const SEED: usize = 0;

pub(crate) fn machine_of(leecher: usize) -> usize {
    leecher + 1
}

pub(crate) fn tracker(scenario: &Scenario) -> usize {
    scenario.peers + 1
}

pub(crate) fn liar(scenario: &Scenario) -> usize {
    scenario.peers + 2
}

pub(crate) enum Progress {
    Running,
    Done,
    Failed(String),
}

/// A system that exchanges the document. Its seed is ready when it is made.
pub(crate) trait System {
    fn begin(&mut self, lab: &Lab, leecher: usize);
    fn progress(&mut self, leecher: usize) -> Progress;
    fn kill(&mut self, leecher: usize);
    /// The seed's process and one of each leecher that runs.
    fn processes(&mut self) -> (&mut Process, Vec<&mut Process>);
    /// Ends all processes, so that what they received is in their files.
    fn end(&mut self);
    fn file(&self, leecher: usize) -> PathBuf;
    /// What else is worth printing, after the end.
    fn remarks(&self) -> Vec<String>;
}

pub(crate) enum Ended {
    After(Duration),
    Killed,
    Failed(String),
}

pub(crate) struct Outcome {
    pub(crate) leechers: Vec<Ended>,
    pub(crate) links: Links,
    pub(crate) seed_peak_kib: u64,
    pub(crate) leecher_peak_kib: u64,
    pub(crate) remarks: Vec<String>,
}

pub(crate) fn run<S: System>(scenario: &Scenario, janitor: &Janitor, content: &Path, start: impl FnOnce(&Lab) -> S) -> Outcome {
    let mut lab = Lab::new(janitor);
    lab.add(Some(scenario.rate_of_seed()));
    (0..scenario.peers).for_each(|leecher| assert_eq!(lab.add(Some(scenario.rate_of(leecher))), machine_of(leecher)));
    assert_eq!(lab.add(None), tracker(scenario));
    if scenario.liar {
        assert_eq!(lab.add(Some(scenario.rate)), liar(scenario));
    }
    let mut relays = Vec::new();
    if scenario.delay_ms > 0 {
        relays.extend((SEED..=machine_of(scenario.peers - 1)).map(|machine| Process(lab.delay(machine, scenario.delay_ms))));
    }
    let mut system = start(&lab);

    let bound = (0..scenario.peers).map(|leecher| scenario.bound(leecher)).fold(0.0, f64::max);
    let end = scenario.begins(scenario.peers) + Duration::from_secs_f64(bound * PATIENCE) + GRACE;
    let half = Duration::from_secs_f64(scenario.bound(0) / 2.0);
    let mut links = Links::new(&lab);
    let (mut seed_peak_kib, mut leecher_peak_kib) = (0, 0);
    let mut began: Vec<Option<Instant>> = vec![None; scenario.peers];
    let mut ended: Vec<Option<Ended>> = (0..scenario.peers).map(|_| None).collect();
    let begun = Instant::now();
    let mut next_sample = SAMPLE;
    while ended.iter().any(Option::is_none) {
        let elapsed = begun.elapsed();
        for leecher in 0..scenario.peers {
            if ended[leecher].is_some() || elapsed < scenario.begins(leecher) {
                continue;
            }
            let Some(since) = began[leecher] else {
                system.begin(&lab, leecher);
                began[leecher] = Some(Instant::now());
                continue;
            };
            if scenario.is_killed(leecher) && elapsed >= half {
                system.kill(leecher);
                ended[leecher] = Some(Ended::Killed);
                continue;
            }
            ended[leecher] = match system.progress(leecher) {
                Progress::Running if elapsed > end => Some(Ended::Failed("not finished in time".into())),
                Progress::Running => None,
                Progress::Done => Some(Ended::After(since.elapsed())),
                Progress::Failed(reason) => Some(Ended::Failed(reason)),
            };
        }
        if elapsed >= next_sample {
            links.sample(&lab);
            let (seed, leechers) = system.processes();
            seed_peak_kib = seed_peak_kib.max(seed.peak_kib());
            leecher_peak_kib = leechers.iter().map(|leecher| leecher.peak_kib()).fold(leecher_peak_kib, u64::max);
            next_sample = elapsed + SAMPLE;
        }
        thread::park_timeout(LOOK);
    }
    links.sample(&lab);
    system.end();
    let expected = programs::hash(content);
    for (leecher, outcome) in ended.iter_mut().enumerate() {
        if matches!(outcome, Some(Ended::After(_))) && programs::hash(&system.file(leecher)) != expected {
            *outcome = Some(Ended::Failed("its file is not the document".into()));
        }
    }
    let remarks = system.remarks();
    Outcome { leechers: ended.into_iter().flatten().collect(), links, seed_peak_kib, leecher_peak_kib, remarks }
}
