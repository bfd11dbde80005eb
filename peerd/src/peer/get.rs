//! Fetching documents, verified, into a folder, with progress.

use super::{
    error::PeerError,
    get_progress::{GetProgress, Shown},
    handle::PeerHandle,
    phase::Phase,
};
use crate::{
    documents::{info::DocumentInfo, selector::DocumentSelector, wanted::Wanted},
    holders::{
        listing::{ListingFilter, Offer},
        search::Found,
        settlement::{Settlement, settle},
        source::Source,
    },
    node::NodeError,
    transfer::{
        Arriving, ArrivingMax, FetchOptions, Fetched, SMALL_AT_ONCE, STALL_TIMEOUT, Throttle,
        fetch::job::{FetchJob, FetchRequest, JobError},
        is_small,
    },
};
use p2pdi::phrases::counted;
use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// What arrives at the same time: large documents enough to hide the pauses of each.
const AT_ONCE: ArrivingMax = ArrivingMax { large: 4, small: SMALL_AT_ONCE };
/// Documents whose bytes are here and that are synced and renamed, beside those that arrive. Each has two descriptors.
const FINISHING_MAX: usize = 128;

/// How documents are fetched.
#[derive(Debug, Clone)]
pub struct GetOptions {
    /// The folder that they go into, each under its name; created if missing.
    pub out: PathBuf,
    /// Names or addresses of the peers to fetch from; empty: whoever has them.
    pub from: Vec<String>,
    /// Most bytes a second, of all together.
    pub limit: Option<u64>,
    /// Replace files of the same name with other content.
    pub replace: bool,
    /// How long a holder may stay silent before another one is asked.
    pub stall: Duration,
    /// How long to wait for a holder when none is known.
    pub wait_for_holders: Duration,
}

impl GetOptions {
    /// Into this folder, from whoever has them, without limit.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self {
            out: out.into(),
            from: Vec::new(),
            limit: None,
            replace: false,
            stall: STALL_TIMEOUT,
            wait_for_holders: Duration::ZERO,
        }
    }
}

/// Documents being fetched. Dropped, the fetch is cancelled: verified pieces stay for the next one.
pub struct Get {
    task: AbortOnDropHandle<Result<Vec<Fetched>, PeerError>>,
    shown: Arc<Shown>,
    ended: watch::Receiver<bool>,
}

/// One document to fetch.
#[derive(Debug, Clone)]
struct Entry {
    selector: DocumentSelector,
    /// What is known of it.
    document: Option<DocumentInfo>,
    holders: Vec<Source>,
    /// The name that it was found by: searched for again, once, if its content changes meanwhile.
    found_by: Option<DocumentSelector>,
}

impl Entry {
    fn wanted(selector: DocumentSelector) -> Self {
        Self { selector, document: None, holders: Vec::new(), found_by: None }
    }

    fn found(name: &DocumentSelector, Found { document, holders, .. }: Found) -> Self {
        let selector = DocumentSelector::Hash(document.hash);
        Self { selector, document: Some(document), holders, found_by: Some(name.clone()) }
    }

    fn label(&self) -> String {
        self.document.as_ref().map_or_else(|| self.selector.to_string(), |document| document.name.to_string())
    }

    fn size(&self) -> u64 {
        self.document.as_ref().map_or(0, DocumentInfo::size)
    }

    /// The bytes that it counts with while it arrives; 0: not known.
    fn weight(&self) -> u64 {
        self.document.as_ref().map_or(0, |document| document.size().max(1))
    }

    fn is_small(&self) -> bool {
        is_small(self.weight())
    }
}

impl PeerHandle {
    /// Fetches documents from other peers into a folder: names, `rfc:NUMBER`, `b3:HASH` or patterns. Each is verified, and resumed where an
    /// earlier fetch stopped. Others can fetch from this peer what it has so far. The first that fails ends all; what is there stays.
    ///
    /// # Errors
    /// When a value is not valid, or this peer is not running.
    pub fn get(&self, wanted: impl IntoIterator<Item = impl AsRef<str>>, options: GetOptions) -> Result<Get, PeerError> {
        self.running()?;
        let wanted = wanted.into_iter().map(|text| Wanted::parse(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let shown = Arc::<Shown>::default();
        let fetching = Fetching { handle: self.clone(), options, shown: Arc::clone(&shown) };
        let (ending, ended) = watch::channel(false);
        let mut phase = self.phase();
        let task = self.runtime().spawn(async move {
            let result = tokio::select! {
                result = Box::pin(fetching.run(wanted)) => result,
                _ = phase.wait_for(|phase| *phase == Phase::Ended) => Err(PeerError::Stopped),
            };
            ending.send_replace(true);
            result
        });
        Ok(Get { task: AbortOnDropHandle::new(task), shown, ended })
    }
}

impl Get {
    /// How far it is.
    pub fn progress(&self) -> GetProgress {
        self.shown.progress(*self.ended.borrow())
    }

    /// Waits until it has ended, by itself or because the peer stopped.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            // Fails only when the task is gone: then it has ended as well.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Waits for the result: each document, by name.
    ///
    /// # Errors
    /// The failure of the first that failed: nobody has it, it is not clear which is meant, no holder delivers it, or the disk refuses.
    pub async fn result(self) -> Result<Vec<Fetched>, PeerError> {
        self.task.await.map_err(NodeError::from)?
    }
}

struct Fetching {
    handle: PeerHandle,
    options: GetOptions,
    shown: Arc<Shown>,
}

impl Fetching {
    async fn run(self, wanted: Vec<Wanted>) -> Result<Vec<Fetched>, PeerError> {
        let node = self.handle.node().clone();
        let _counted = node.downloads().begin();
        let from = self.handle.sources(&self.options.from).await?;
        let entries = self.select(wanted, &from).await?;
        self.shown.begin(entries.len(), entries.iter().map(Entry::size).sum());
        let (small, large): (VecDeque<_>, VecDeque<_>) = entries.into_iter().partition(Entry::is_small);
        let mut queue = Queue { small, large, arriving: Arriving::default() };
        let limit = Throttle::new(self.options.limit);
        let channels = match self.options.limit {
            Some(_) => node.channels().limited_to(self.options.limit),
            None => node.channels().clone(),
        };
        let peers = Arc::new(node.network().clone());
        let arrived = Arc::<Notify>::default();
        let (mut begun, mut running) = (0_u64, BTreeMap::new());
        let mut jobs = JoinSet::new();
        let mut fetched: Vec<Fetched> = Vec::new();
        loop {
            while let Some(entry) = queue.next(running.len()) {
                let options = FetchOptions {
                    save_as: entry.document.as_ref().map(|document| document.name.clone()),
                    replace: self.options.replace,
                    stall: self.options.stall,
                    wait_for_holders: self.options.wait_for_holders,
                    limit: limit.clone(),
                    arrived: Arc::clone(&arrived),
                    expected_size: entry.document.as_ref().map(DocumentInfo::size),
                    restricted: entry.document.as_ref().is_some_and(|document| document.restricted),
                    ..FetchOptions::new(&self.options.out, node.swarms().clone())
                };
                let from = if entry.holders.is_empty() { from.clone() } else { entry.holders.clone() };
                let request = FetchRequest { wanted: entry.selector.clone(), from, options };
                let (job, watch) = FetchJob::new(request, channels.clone(), Arc::clone(&peers));
                begun += 1;
                let number = begun;
                self.shown.add(number, entry.label(), entry.size(), watch);
                running.insert(number, (entry, true));
                jobs.spawn(async move { (number, job.run().await) });
            }
            let joined = tokio::select! {
                joined = jobs.join_next() => joined,
                () = arrived.notified() => {
                    for (number, (entry, arrives)) in &mut running {
                        if *arrives && self.shown.has_arrived(*number) {
                            *arrives = false;
                            queue.arriving.remove(entry.weight());
                        }
                    }
                    continue;
                }
            };
            let Some(joined) = joined else { break };
            let (number, result) = joined.map_err(NodeError::from)?;
            let Some((entry, arrives)) = running.remove(&number) else { continue };
            if arrives {
                queue.arriving.remove(entry.weight());
            }
            match (result, entry.found_by) {
                (Ok(done), _) => {
                    self.shown.done(number, done.document.size());
                    fetched.push(done);
                }
                (Err(JobError::Fetch(error)), Some(name)) if error.is_gone() => {
                    self.shown.put_back(number);
                    queue.large.push_back(Entry::wanted(name));
                }
                (Err(error), _) => return Err(error.into()),
            }
        }
        fetched.sort_by(|a, b| a.document.name.cmp(&b.document.name));
        Ok(fetched)
    }

    /// Which documents are meant, each name once.
    async fn select(&self, wanted: Vec<Wanted>, from: &[Source]) -> Result<Vec<Entry>, PeerError> {
        let mut entries = BTreeMap::new();
        for one in wanted {
            match &one {
                Wanted::One(selector) => {
                    let entry = Entry::wanted(selector.clone());
                    entries.insert(entry.label(), entry);
                }
                Wanted::Matching(pattern) => {
                    let filter = ListingFilter::of_pattern(Some(pattern.clone()));
                    let listed = self.handle.list(filter, from.to_vec()).await?;
                    if listed.offers.is_empty() {
                        let asked = if listed.answered == 1 { "peer was" } else { "peers were" };
                        let asked = format!("{} {asked} asked", listed.answered);
                        return Err(PeerError::NotFound(format!("no document matches {one}; {asked}")));
                    }
                    let mut by_name: BTreeMap<_, Vec<Found>> = BTreeMap::new();
                    for Offer { document, holders, held_by } in listed.offers {
                        let found = Found { confirmed: held_by, named_by: held_by, holders, document };
                        by_name.entry(found.document.name.clone()).or_default().push(found);
                    }
                    for (name, contents) in by_name {
                        let name = DocumentSelector::Name(name);
                        match settle(&name, contents) {
                            Settlement::Settled(settled) => {
                                let entry = Entry::found(&name, settled.found);
                                entries.insert(entry.label(), entry);
                            }
                            Settlement::Ambiguous(found) => return Err(PeerError::ambiguous(&name, &found)),
                            // Each has a holder.
                            Settlement::Nobody => {}
                        }
                    }
                }
            }
        }
        tracing::debug!("fetching {}", counted(entries.len() as u64, "document"));
        Ok(entries.into_values().collect())
    }
}

/// Documents that wait.
struct Queue {
    small: VecDeque<Entry>,
    large: VecDeque<Entry>,
    arriving: Arriving,
}

impl Queue {
    /// The next document to begin, beside those that run.
    fn next(&mut self, running: usize) -> Option<Entry> {
        if running.saturating_sub(self.arriving.count()) >= FINISHING_MAX {
            return None;
        }
        let fits = |entry: &&Entry| self.arriving.has_room(entry.weight(), &AT_ONCE);
        let next = match (self.small.front().filter(fits), self.large.front().filter(fits)) {
            (Some(_), _) => self.small.pop_front(),
            (None, Some(_)) => self.large.pop_front(),
            (None, None) => None,
        }?;
        self.arriving.add(next.weight());
        Some(next)
    }
}
