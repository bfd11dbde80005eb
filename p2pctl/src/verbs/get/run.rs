//! Runs the fetches, several at the same time.

use super::{
    entry::Entry,
    report::{Ended, Report},
    room::Room,
    setting::Setting,
};
use crate::{
    failure::Failure,
    peers::Peers,
    progress::{Display, Overall, Window},
};
use p2pdi::phrases::counted;
use peerd::{
    documents::selector::DocumentSelector,
    holders::settlement::Settled,
    transfer::{
        FetchOptions, FetchPhase, ProgressSnapshot,
        fetch::job::{FetchEvent, FetchJob, FetchRequest, FetchWatch, JobError},
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Documents of one piece at the same time, for each of --jobs: each takes a round trip or two, and hardly any bandwidth.
const SMALL_FOR_EACH: usize = 8;
/// Most of them: fewer than a holder serves to one address.
const SMALL_MAX: usize = 64;

/// Documents that wait: those that may take long apart from those of one piece.
struct Queue {
    large: VecDeque<Entry>,
    small: VecDeque<Entry>,
    large_max: usize,
    small_max: usize,
}

/// A fetch under way.
struct Running {
    entry: Entry,
    watch: FetchWatch,
}

impl Queue {
    fn new(entries: Vec<Entry>, jobs: u16) -> Self {
        let (small, large): (Vec<_>, Vec<_>) = entries.into_iter().partition(Entry::is_small);
        let large_max = usize::from(jobs);
        Self { large: large.into(), small: small.into(), large_max, small_max: (large_max * SMALL_FOR_EACH).min(SMALL_MAX) }
    }

    /// The next document to begin while `running` are under way.
    fn next<'a>(&mut self, running: impl Iterator<Item = &'a Running>) -> Option<Entry> {
        let (mut small, mut large) = (0, 0);
        for one in running {
            if one.entry.is_small() { small += 1 } else { large += 1 }
        }
        let next = if small < self.small_max { self.small.pop_front() } else { None };
        next.or_else(|| if large < self.large_max { self.large.pop_front() } else { None })
    }

    fn len(&self) -> usize {
        self.large.len() + self.small.len()
    }

    fn bytes(&self) -> u64 {
        self.large.iter().chain(&self.small).map(Entry::size).sum()
    }
}

/// Fetches all entries. Ends early when one fails and --keep-going is not given, or at `stop`.
pub(super) async fn run(
    entries: Vec<Entry>,
    mut room: Room,
    setting: &Setting,
    display: &mut Display,
    report: &mut Report,
    stop: &CancellationToken,
) -> Ended {
    let mut queue = Queue::new(entries, setting.fetching.jobs);
    let mut running: BTreeMap<u64, Running> = BTreeMap::new();
    let mut jobs = JoinSet::new();
    let mut begun = 0_u64;
    let (mut window, mut ended) = (Window::default(), Ended::default());
    let mut tick = interval(display.interval());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while let Some(entry) = queue.next(running.values()) {
            room.give_back(entry.missing);
            let (job, watch) = FetchJob::new(request(&entry, setting), setting.channels.clone(), Arc::clone(&setting.peers));
            running.insert(begun, Running { entry, watch });
            let id = begun;
            jobs.spawn(async move { (id, job.run().await) }.in_current_span());
            begun += 1;
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            Some(joined) = jobs.join_next() => match joined {
                Ok((id, result)) => {
                    let Some(mut one) = running.remove(&id) else { continue };
                    show_events(&mut one, display).await;
                    match result {
                        Ok(fetched) => report.done(fetched, display),
                        Err(error) => {
                            report.failed(one.entry.label(), failure(error, &setting.peers), display);
                            if !setting.fetching.keep_going {
                                break;
                            }
                        }
                    }
                }
                Err(error) => {
                    // It cannot be told which one it was.
                    report.failed("a fetch".to_owned(), Failure::refused(format!("a fault of this program: {error}")), display);
                    break;
                }
            },
            _ = tick.tick() => {
                for one in running.values_mut() {
                    show_events(one, display).await;
                }
                let overall = overall(&queue, &running, report, &mut window);
                display.update(&overall);
            }
            () = stop.cancelled() => {
                ended.interrupted = true;
                break;
            }
        }
    }
    let last = overall(&queue, &running, report, &mut window);
    display.finish(&Overall { phase: FetchPhase::Ended, waiting: None, current: Vec::new(), ..last });
    ended.keeps_pieces = running.values().map(|one| one.watch.progress()).any(|progress| progress.verified() > 0);
    ended.not_tried = (running.len() + queue.len()) as u64;
    // Waits for them: the registry session ends with the last of them.
    jobs.shutdown().await;
    ended
}

fn request(entry: &Entry, setting: &Setting) -> FetchRequest {
    let fetching = &setting.fetching;
    let options = FetchOptions {
        save_as: entry.document.as_ref().map(|document| document.name.clone()),
        replace: fetching.force,
        stall: fetching.stall_timeout,
        wait_for_holders: fetching.wait_for_holders,
        limit: setting.limit.clone(),
        ..FetchOptions::new(&fetching.out, setting.sharing.swarms().clone())
    };
    let from = if entry.holders.is_empty() { setting.from.clone() } else { entry.holders.clone() };
    FetchRequest { wanted: entry.selector.clone(), from, options }
}

/// The state of all documents.
fn overall(queue: &Queue, running: &BTreeMap<u64, Running>, report: &Report, window: &mut Window) -> Overall {
    let seen: Vec<(String, ProgressSnapshot, u64)> =
        running.values().map(|one| (one.entry.label(), one.watch.progress().snapshot(), one.entry.size())).collect();
    let bytes: u64 = seen.iter().map(|(_, seen, size)| (*size).max(seen.size)).sum();
    let moved: u64 = seen.iter().map(|(_, seen, _)| seen.received.max(seen.verified.saturating_sub(seen.resumed))).sum();
    let overall = Overall {
        documents: report.documents() + report.failures() + (running.len() + queue.len()) as u64,
        documents_done: report.documents(),
        documents_failed: report.failures(),
        bytes: report.bytes() + bytes + queue.bytes(),
        bytes_done: report.bytes(),
        ..Overall::default()
    };
    let overall = overall.with_running(seen.iter().map(|(label, seen, _)| (label.as_str(), seen.clone())));
    let rate = window.rate(report.fetched_bytes() + moved, Instant::now());
    if overall.documents > 1 { Overall { bytes_per_second: rate, ..overall } } else { overall }
}

/// Prints the decisions of a fetch so far.
async fn show_events(one: &mut Running, display: &Display) {
    loop {
        let event = tokio::select! {
            biased;
            event = one.watch.event() => event,
            () = std::future::ready(()) => None,
        };
        let wanted = &one.entry.selector;
        match event {
            Some(FetchEvent::Chosen { chosen }) => display.above(|printer| printer.note(&chosen_note(wanted, &chosen))),
            Some(FetchEvent::Changed { now, .. }) => display.above(|printer| {
                printer
                    .note(&format!("note: {wanted} changed since it was searched for; fetching what it is now, b3:{}", now.hash));
            }),
            Some(_) => {}
            None => return,
        }
    }
}

/// Several contents have the name, and one of them is clearly meant.
pub(super) fn chosen_note(wanted: &DocumentSelector, chosen: &Settled) -> String {
    format!(
        "note: {} different documents are called {wanted}; fetching the one that {} of {} have, {} b3:{}",
        chosen.contents,
        chosen.votes,
        counted(chosen.all_votes as u64, "peer"),
        chosen.found.document.name,
        chosen.found.document.hash
    )
}

fn failure(error: JobError<Failure>, peers: &Peers) -> Failure {
    match error {
        JobError::Search(error) => peers.not_found(error),
        JobError::Fetch(error) => error.into(),
    }
}
