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
use p2pdi::{phrases::counted, platform::descriptor_limit};
use peerd::{
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::settlement::Settled,
    transfer::{
        Arriving, ArrivingMax, FetchOptions, FetchPhase, ProgressSnapshot, SMALL_AT_ONCE,
        fetch::job::{FetchEvent, FetchJob, FetchRequest, FetchWatch, JobError},
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Smaller documents that arrive at the same time, for each of --jobs, as long as their bytes are few: each takes round trips, and hardly any
/// bandwidth.
const SMALL_FOR_EACH: usize = 32;
/// Documents whose bytes are here and that are synced and renamed, beside those that arrive: two groups, one that is synced and one that
/// comes together meanwhile.
const FINISHING_MAX: usize = 512;
/// Of the descriptors that this program may have, one in so many is used for them: each has two.
const DESCRIPTORS_SHARE: u64 = 8;

/// Documents that wait: those that may take long apart from smaller ones.
struct Queue {
    large: VecDeque<Entry>,
    small: VecDeque<Entry>,
    most: ArrivingMax,
    finishing_max: usize,
    /// Bytes of the documents that wait.
    bytes: u64,
}

/// What is under way.
#[derive(Default)]
struct UnderWay {
    running: BTreeMap<u64, Running>,
    begun: u64,
    arriving: Arriving,
}

/// A fetch under way.
struct Running {
    entry: Entry,
    watch: FetchWatch,
    /// Its bytes are not all here.
    arrives: bool,
}

impl Queue {
    fn new(entries: Vec<Entry>, jobs: u16) -> Self {
        let bytes = entries.iter().map(Entry::size).sum();
        let large = usize::from(jobs);
        let most = ArrivingMax { large, small: (large * SMALL_FOR_EACH).min(SMALL_AT_ONCE) };
        let (small, large): (Vec<_>, Vec<_>) = entries.into_iter().partition(Entry::is_small);
        let descriptors = descriptor_limit().map(|limit| usize::try_from(limit / DESCRIPTORS_SHARE).unwrap_or(usize::MAX));
        Self {
            large: large.into(),
            small: small.into(),
            most,
            finishing_max: FINISHING_MAX.min(descriptors.unwrap_or(usize::MAX)),
            bytes,
        }
    }

    /// The next document to begin, beside those that arrive, and those that have arrived and are being finished.
    fn next(&mut self, arriving: &Arriving, finishing: usize) -> Option<Entry> {
        if finishing >= self.finishing_max {
            return None;
        }
        let fits = |entry: &&Entry| arriving.has_room(entry.weight(), &self.most);
        let next = match self.small.front().filter(fits) {
            Some(_) => self.small.pop_front(),
            None if self.large.front().filter(fits).is_some() => self.large.pop_front(),
            None => None,
        };
        self.bytes -= next.as_ref().map_or(0, Entry::size);
        next
    }

    fn put_back(&mut self, entry: Entry) {
        self.large.push_back(entry);
    }

    fn len(&self) -> usize {
        self.large.len() + self.small.len()
    }
}

impl UnderWay {
    /// A fetch began; returns its number.
    fn begin(&mut self, entry: Entry, watch: FetchWatch) -> u64 {
        self.arriving.add(entry.weight());
        self.begun += 1;
        self.running.insert(self.begun, Running { entry, watch, arrives: true });
        self.begun
    }

    /// Looks which of them have arrived.
    fn look(&mut self) {
        for one in self.running.values_mut().filter(|one| one.arrives && one.watch.progress().has_arrived()) {
            one.arrives = false;
            self.arriving.remove(one.entry.weight());
        }
    }

    /// A fetch ended.
    fn end(&mut self, number: u64) -> Option<Running> {
        let ended = self.running.remove(&number)?;
        if ended.arrives {
            self.arriving.remove(ended.entry.weight());
        }
        Some(ended)
    }

    /// How many have arrived and are being finished.
    fn finishing(&self) -> usize {
        self.running.len() - self.arriving.count()
    }
}

/// Fetches all entries. Ends early when one fails and --keep-going is not given, or at `stop`. Returns the last state, too.
pub(super) async fn run(
    entries: Vec<Entry>,
    mut room: Room,
    setting: &Setting,
    display: &mut Display,
    report: &mut Report,
    stop: &CancellationToken,
) -> (Ended, Overall) {
    let mut queue = Queue::new(entries, setting.fetching.jobs);
    let (mut under_way, arrived) = (UnderWay::default(), Arc::<Notify>::default());
    let mut jobs = JoinSet::new();
    let (mut window, mut ended) = (Window::default(), Ended::default());
    let mut tick = interval(display.interval());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while let Some(entry) = queue.next(&under_way.arriving, under_way.finishing()) {
            room.give_back(entry.missing);
            let request = request(&entry, setting, &arrived);
            let (job, watch) = FetchJob::new(request, setting.channels.clone(), Arc::clone(&setting.peers));
            let number = under_way.begin(entry, watch);
            jobs.spawn(async move { (number, job.run().await) }.in_current_span());
        }
        if under_way.running.is_empty() {
            break;
        }
        tokio::select! {
            Some(joined) = jobs.join_next() => match joined {
                Ok((number, result)) => {
                    let Some(mut one) = under_way.end(number) else { continue };
                    show_events(&mut one, display).await;
                    match result {
                        Ok(fetched) => report.done(fetched, display),
                        Err(JobError::Fetch(error)) if error.is_gone() && one.entry.found_by.is_some() => {
                            let label = one.entry.label();
                            display.above(|printer| printer.note(&format!("note: {label} changed; searching for what it is now")));
                            one.entry.search_again().into_iter().for_each(|again| queue.put_back(again));
                        }
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
            () = arrived.notified() => under_way.look(),
            _ = tick.tick() => {
                for one in under_way.running.values_mut() {
                    show_events(one, display).await;
                }
                let overall = overall(&queue, &under_way.running, report, &mut window).with_sent(setting.sharing.swarms().sent());
                display.update(&overall);
            }
            () = stop.cancelled() => {
                ended.interrupted = true;
                break;
            }
        }
    }
    let running = under_way.running;
    let last = overall(&queue, &running, report, &mut window);
    let last = Overall { phase: FetchPhase::Ended, waiting: None, current: Vec::new(), ..last };
    ended.keeps_pieces = running.values().map(|one| one.watch.progress()).any(|progress| progress.verified() > 0);
    ended.not_tried = (running.len() + queue.len()) as u64;
    // Waits for them: the registry session ends with the last of them.
    jobs.shutdown().await;
    (ended, last.with_sent(setting.sharing.swarms().sent()))
}

fn request(entry: &Entry, setting: &Setting, arrived: &Arc<Notify>) -> FetchRequest {
    let fetching = &setting.fetching;
    let options = FetchOptions {
        save_as: entry.document.as_ref().map(|document| document.name.clone()),
        replace: fetching.force,
        stall: fetching.stall_timeout,
        wait_for_holders: fetching.wait_for_holders,
        limit: setting.limit.clone(),
        arrived: Arc::clone(arrived),
        expected_size: entry.document.as_ref().map(DocumentInfo::size),
        restricted: entry.document.as_ref().is_some_and(|document| document.restricted),
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
        bytes: report.bytes() + bytes + queue.bytes,
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

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::{content::ContentHash, v1::Document};
    use peerd::holders::search::Found;

    fn entry(number: usize, size: u64) -> Entry {
        let blake3 = ContentHash::of(&number.to_le_bytes()).to_field();
        let document = Document { name: format!("{number}.txt"), size, blake3, ..Default::default() };
        Entry::found(
            &DocumentSelector::Number(1),
            Found { document: document.try_into().unwrap(), holders: Vec::new(), confirmed: 1, named_by: 1 },
        )
    }

    /// How many documents begin before one has arrived, and how many wait.
    fn begun(sizes: &[u64], jobs: u16) -> (usize, usize) {
        let mut queue = Queue::new(sizes.iter().enumerate().map(|(number, size)| entry(number, *size)).collect(), jobs);
        let (mut arriving, mut begun) = (Arriving::default(), 0);
        while let Some(entry) = queue.next(&arriving, 0) {
            arriving.add(entry.weight());
            begun += 1;
        }
        assert_eq!(queue.bytes, queue.small.iter().chain(&queue.large).map(Entry::size).sum::<u64>());
        (begun, queue.len())
    }

    #[test]
    fn many_small_documents_arrive_at_the_same_time_within_their_bytes_and_few_large_ones() {
        assert_eq!(begun(&[1_000; 1_000], 4), (SMALL_AT_ONCE, 1_000 - SMALL_AT_ONCE));
        assert_eq!(begun(&[1_000; 1_000], 1), (SMALL_FOR_EACH, 1_000 - SMALL_FOR_EACH));
        // 16 MiB, whatever --jobs.
        assert_eq!(begun(&[1 << 20; 100], 4), (16, 84));
        assert_eq!(begun(&[1 << 20; 100], 1), (16, 84));
        assert_eq!(begun(&[1 << 30; 10], 4), (4, 6));
    }
}
