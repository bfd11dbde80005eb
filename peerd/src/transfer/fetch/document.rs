//! Fetches one document, verified, into a folder: learns from one holder what it is, then fills its store from all of them.

use super::{
    download::SourceError,
    driver::{Driver, Setting, Unfilled},
    fault_log,
    fetch_metrics::Stalls,
    identify::{Identified, Identify},
    leads,
    opened::Opened,
    options::FetchOptions,
    outcome::{FetchError, Fetched},
    payment::Payment,
    progress::{FetchPhase, HolderProgress, Progress, Waiting},
    source_selection::{SourceReport, SourceSelection},
};
use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::{
        announcer::ANNOUNCED_SIZE_MIN,
        search::{Freshness, SearchHolders},
        source::Source,
        tracker::REPORTED_MAX,
    },
    transfer::{
        arriving::is_small,
        store::{
            blocking::off_runtime, destination::locate, error::WriteError, piece_store::PieceStore, piece_writer::PieceWriter,
        },
        swarm::early::EarlyAnnounce,
    },
};
use bytes::Bytes;
use p2pdi::{
    backoff::Policy,
    content::{ContentHash, PIECE_SIZE_MIN, PieceHashes},
    document::DocumentName,
};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long to wait for a locked partial file before the fetch is refused: a fetch that was just cancelled may still be writing or
/// syncing its last pieces.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two attempts to lock it.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How often further holders are searched for once all known ones failed.
const SEARCHES_MAX: u32 = 2;
/// Pauses before those that failed are asked again, while a fetch that nobody can serve waits: one that restarts is back within seconds.
const ASK_AGAIN: Policy = Policy { first: Duration::from_millis(200), longest: Duration::from_secs(5) };

/// Finds no further holders: for a fetch whose holders are all given.
#[derive(Debug, Clone, Copy)]
pub struct NoMoreHolders;

impl SearchHolders for NoMoreHolders {
    async fn search(&self, _: ContentHash, _: Freshness) -> Vec<Source> {
        Vec::new()
    }
}

/// Fetches `wanted` from `sources`, and from the holders that `finder` finds and that members of the swarm name, into `options.out`.
///
/// The first valid header decides which document it is; later requests ask for its hash only.
///
/// # Errors
/// When the disk refuses, or every holder failed. Verified pieces stay in the partial file.
pub async fn fetch(
    channels: &ChannelPool,
    wanted: &DocumentSelector,
    sources: Vec<Source>,
    finder: Arc<impl SearchHolders>,
    options: &FetchOptions,
    progress: &Arc<Progress>,
) -> Result<Fetched, FetchError> {
    fetch_announced(channels, wanted, sources, finder, options, progress, None).await
}

/// The same for a document that is announced already.
pub(super) async fn fetch_announced(
    channels: &ChannelPool,
    wanted: &DocumentSelector,
    sources: Vec<Source>,
    finder: Arc<impl SearchHolders>,
    options: &FetchOptions,
    progress: &Arc<Progress>,
    early: Option<EarlyAnnounce>,
) -> Result<Fetched, FetchError> {
    let fetched = fetch_once(channels, wanted, sources, finder, options, progress, early).await;
    progress.end_sources(match &fetched {
        Ok(Fetched { sources, .. }) | Err(FetchError::Sources { sources, .. }) => Some(sources),
        Err(FetchError::Write(_)) => None,
    });
    fetched
}

async fn fetch_once(
    channels: &ChannelPool,
    wanted: &DocumentSelector,
    sources: Vec<Source>,
    finder: Arc<impl SearchHolders>,
    options: &FetchOptions,
    progress: &Arc<Progress>,
    early: Option<EarlyAnnounce>,
) -> Result<Fetched, FetchError> {
    let started = Instant::now();
    let early = early.or_else(|| match (wanted, options.expected_size) {
        // While a holder is asked what the document is, the tracker says who else there is.
        (DocumentSelector::Hash(hash), Some(size)) if size >= ANNOUNCED_SIZE_MIN && !options.restricted => {
            Some(options.swarms.announce_early(*hash, size, sources.iter().take(REPORTED_MAX).cloned().collect()))
        }
        _ => None,
    });
    let (sources, stalls) = (SourceSelection::new(sources), Stalls::default());
    let mut run = Run { channels, wanted, options, progress, sources, early, started, stalls };
    let mut searches = 0;
    // Since when nobody can say what the document is.
    let (mut alone_since, mut pauses) = (None, ASK_AGAIN.start());
    loop {
        let Some((index, pause)) = run.sources.next(Instant::now()) else {
            searches += 1;
            let freshness = if run.sources.reports().is_empty() { Freshness::Learned } else { Freshness::Asked };
            if let DocumentSelector::Hash(hash) = wanted
                && searches <= SEARCHES_MAX
                && run.sources.add(finder.search(*hash, freshness).await)
            {
                continue;
            }
            let since: Instant = *alone_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= options.wait_for_holders || !run.may_wait() {
                return Err(FetchError::Sources { wanted: wanted.clone(), sources: run.sources.reports(), kept_bytes: 0 });
            }
            let left = options.wait_for_holders.saturating_sub(since.elapsed());
            tokio::time::sleep(pauses.next(rand::random()).min(left)).await;
            run.ask_again().await;
            searches = 0;
            continue;
        };
        tokio::time::sleep(pause).await;
        match run.learn(index).await? {
            Ok(Learned::Done(document, path, already_there)) => return Ok(run.complete(document, path, already_there)),
            Ok(Learned::Pieces { document, store, opened }) => {
                match run.fill(document, store, opened, Arc::clone(&finder)).await? {
                    Ok(fetched) => return Ok(fetched),
                    // Nobody else has what this source called by that number or name: the next header decides again.
                    Err(reports) => run.sources.misled(index, &reports),
                }
            }
            Err(error) => {
                options.swarms.metrics().failed(&error);
                fault_log::source_failed(run.sources.get(index), &error);
                if error.is_gone() {
                    run.sources.says_gone(index);
                }
                // A source that says when to ask again fails until then.
                let failed_at = Instant::now() + error.retry_after().unwrap_or_default();
                run.sources.failed(index, error.fault(), error.to_string(), failed_at);
            }
        }
    }
}

/// What the first header of a source said.
enum Learned {
    /// The document is at its target; whether it was there before.
    Done(DocumentInfo, PathBuf, bool),
    /// The document has several pieces.
    Pieces { document: DocumentInfo, store: Arc<PieceStore>, opened: Opened },
}

struct Run<'a> {
    channels: &'a ChannelPool,
    wanted: &'a DocumentSelector,
    options: &'a FetchOptions,
    progress: &'a Arc<Progress>,
    sources: SourceSelection,
    /// Until the swarm of the document exists.
    early: Option<EarlyAnnounce>,
    started: Instant,
    stalls: Stalls,
}

impl Run<'_> {
    /// Whether somebody may come who can say what the document is; displays are told who is waited for.
    fn may_wait(&mut self) -> bool {
        let reports = self.sources.reports();
        // A name may mean other content by now, which whoever settled it finds out.
        let is_of_name = !matches!(self.wanted, DocumentSelector::Hash(_)) || self.options.save_as.is_some();
        if is_of_name && reports.iter().any(|report| report.gone) {
            return false;
        }
        let to = self.sources.unreachable();
        let may_come = !to.is_empty() || matches!(self.wanted, DocumentSelector::Hash(_));
        let waiting = if to.is_empty() { Waiting::Holders } else { Waiting::Connection { to } };
        self.stalls.look(self.options.swarms.metrics(), self.progress.idle(Instant::now()), Some(&waiting));
        self.progress.set_waiting(Some(waiting));
        may_come
    }

    /// Those that could not be reached may be asked again, and those that the tracker names by now.
    async fn ask_again(&mut self) {
        self.sources.revive();
        if let Some(early) = self.early.take() {
            let early = early.again();
            if let Ok(answer) = early.answer().await {
                let others = answer.others.into_iter().filter(|other| other.complete || other.had > 0);
                self.sources.add_new(others.map(|other| other.source).collect());
            }
            self.early = Some(early);
        }
    }

    /// Asks source `index` what the document is. One of a single piece is fetched with that.
    async fn learn(&mut self, index: usize) -> Result<Result<Learned, SourceError>, FetchError> {
        let source = self.sources.get(index).clone();
        self.progress.set_holders(vec![HolderProgress::new(source.clone())], self.sources.len());
        // Of a document of one piece all arrives with the answer.
        let expected = self.options.expected_size.filter(|size| *size <= PIECE_SIZE_MIN).unwrap_or(0);
        let mut payment = Payment::new(&self.options.limit, expected);
        payment.pay_ahead().await;
        let identify = Identify {
            channels: self.channels,
            wanted: self.wanted,
            options: self.options,
            early: self.early.as_ref(),
            is_sole: self.sources.len() == 1,
        };
        // Boxed: it holds several calls.
        let identified = match Box::pin(identify.ask(&source)).await {
            Ok(identified) => identified,
            Err(error) => return Ok(Err(error)),
        };
        self.progress.set_waiting(None);
        let Identified { document, hashes, is_whole, mut runs, delay } = identified;
        if document.restricted {
            // Nothing of it is passed on, and what announced it ends.
            let (swarms, hash) = (self.options.swarms.clone(), document.hash);
            off_runtime(move || swarms.keep_confidential(hash)).await?;
            self.early = None;
        }
        if hashes.pieces().count() > 1 {
            return Ok(Ok(match self.prepare(document, hashes).await? {
                Prepared::AlreadyThere(document, path) => Learned::Done(document, path, true),
                Prepared::Store(document, store) => {
                    Learned::Pieces { document, store, opened: Opened { source, is_whole, runs, delay } }
                }
            }));
        }
        payment.arrived(document.size()).await;
        let Some(first) = runs.pop() else {
            return Ok(Err(SourceError::EndedEarly { got: 0, expected: document.size() }));
        };
        let data = match first.stream.open().await {
            Ok(incoming) => incoming.collect(&hashes).await,
            Err(error) => Err(error),
        };
        // All of it is received at once, and counts at once: there is no plan that counts each message.
        let metrics = self.options.swarms.metrics();
        if matches!(data, Ok(_) | Err(SourceError::WrongBytes(_))) {
            self.progress.received(document.size(), Instant::now());
            metrics.received(document.size());
        }
        let data = match data {
            Ok(data) => data,
            Err(error) => return Ok(Err(error)),
        };
        let (document, path, already_there) = self.write_small(document, hashes, data).await?;
        metrics.piece(!already_there);
        if !already_there {
            self.sources.progressed(index, document.size());
        }
        Ok(Ok(Learned::Done(document, path, already_there)))
    }

    /// All bytes are in the file.
    fn arrived(&self) {
        self.progress.set_phase(FetchPhase::Finishing);
        self.options.arrived.notify_one();
    }

    /// Checks the target and opens the piece store.
    async fn prepare(&self, document: DocumentInfo, hashes: PieceHashes) -> Result<Prepared, FetchError> {
        let (out, replace, name) = self.destination(&document);
        let mut hashed = None;
        let prepared = when_unlocked(move || {
            let (path, already) = locate(&out, &name, &document.hash, document.size(), replace, &mut hashed)?;
            if already {
                return Ok(Prepared::AlreadyThere(document.clone(), path));
            }
            let store = PieceStore::open(&out, &name, hashes.clone(), replace)?;
            Ok(Prepared::Store(document.clone(), store))
        });
        Ok(prepared.await?)
    }

    /// Fetches the missing pieces. The inner error: nothing of the document could be fetched, and another source may name another one.
    async fn fill(
        &mut self,
        document: DocumentInfo,
        store: Arc<PieceStore>,
        opened: Opened,
        finder: Arc<impl SearchHolders>,
    ) -> Result<Result<Fetched, Vec<SourceReport>>, FetchError> {
        let kept = store.verified_bytes();
        self.progress.begin(document.size(), kept);
        if store.has_room() {
            self.progress.set_room();
        }
        let (_, _, name) = self.destination(&document);
        // Those named with a holder of a part have parts, too; the tracker names them to the swarm.
        let others = if opened.is_whole { self.sources.others(&opened.source) } else { Vec::new() };
        let (search, leads) = leads::search(finder, [std::slice::from_ref(&opened.source), others.as_slice()].concat());
        let (swarm, candidates) = self.options.swarms.fetching(name, &store, search, self.early.take());
        let setting = Setting {
            channels: self.channels,
            swarm: Arc::clone(&swarm),
            store: Arc::clone(&store),
            progress: Arc::clone(self.progress),
            metrics: self.options.swarms.metrics().clone(),
            stall: self.options.stall,
            limit: self.options.limit.clone(),
            patience: self.options.wait_for_holders,
        };
        let driver = Driver::new(setting, leads(candidates), rand::random());
        // Boxed: the driver holds all of its streams.
        let (filled, filled_by) = Box::pin(driver.fill(Some(opened), others)).await;
        let sources = self.sources.merged(filled_by);
        match filled {
            Ok(()) => {}
            Err(Unfilled::Disk(error)) => return Err(error.into()),
            Err(Unfilled::NoHolders) => {
                let kept_bytes = store.verified_bytes();
                if kept_bytes == 0 && !matches!(self.wanted, DocumentSelector::Hash(_)) {
                    off_runtime(move || store.discard()).await?;
                    self.progress.begin(0, 0);
                    return Ok(Err(sources));
                }
                return Err(FetchError::Sources { wanted: self.wanted.clone(), sources, kept_bytes });
            }
        }
        let fetched_bytes: u64 = sources.iter().map(|report| report.bytes).sum();
        self.arrived();
        let piece_hashes = Some(PieceHashes::clone(store.hashes()));
        let finished = Arc::clone(&store);
        let path = match is_small(store.size()) {
            // Of those there may be many at once.
            true => self.options.swarms.finisher().finish(finished).await?,
            false => off_runtime(move || finished.finish()).await?,
        };
        self.options.swarms.fetched(swarm, store);
        self.progress.set_phase(FetchPhase::Ended);
        let resumed_bytes = document.size().saturating_sub(fetched_bytes);
        let elapsed = self.started.elapsed();
        Ok(Ok(Fetched { document, path, already_there: false, piece_hashes, fetched_bytes, resumed_bytes, elapsed, sources }))
    }

    /// Writes a document of one piece, which was received into memory. The flag: it was there before.
    async fn write_small(
        &mut self,
        document: DocumentInfo,
        hashes: PieceHashes,
        data: Bytes,
    ) -> Result<(DocumentInfo, PathBuf, bool), FetchError> {
        let (out, replace, name) = self.destination(&document);
        let mut hashed = None;
        let written = when_unlocked(move || {
            let document = document.clone();
            let (path, already) = locate(&out, &name, &document.hash, document.size(), replace, &mut hashed)?;
            if already {
                return Ok(Prepared::AlreadyThere(document, path));
            }
            let store = PieceStore::open(&out, &name, hashes.clone(), replace)?;
            store.wait_checked();
            if !store.is_complete() {
                // Its hash was checked on receipt.
                let _checked = PieceWriter::new(&store).write(0, &data)?;
            }
            Ok(Prepared::Store(document, store))
        });
        match written.await? {
            Prepared::AlreadyThere(document, path) => Ok((document, path, true)),
            Prepared::Store(document, store) => {
                // Not before: until it is written it is in memory, and the next document should not be, too.
                self.arrived();
                Ok((document, self.options.swarms.finisher().finish(store).await?, false))
            }
        }
    }

    /// The target folder, whether a file there may be replaced, and the file's name.
    fn destination(&self, document: &DocumentInfo) -> (PathBuf, bool, DocumentName) {
        let name = self.options.save_as.as_ref().unwrap_or(&document.name);
        (self.options.out.clone(), self.options.replace, name.clone())
    }

    fn complete(self, document: DocumentInfo, path: PathBuf, already_there: bool) -> Fetched {
        let resumed = if already_there { document.size() } else { 0 };
        self.progress.begin(document.size(), resumed);
        self.progress.advance(document.size() - resumed);
        self.progress.set_phase(FetchPhase::Ended);
        let fetched_bytes = if already_there { 0 } else { document.size() };
        let (elapsed, sources) = (self.started.elapsed(), self.sources.reports());
        // What is complete without a store has one piece.
        let hash = document.hash;
        let piece_hashes = PieceHashes::verified(document.pieces, hash.as_bytes(), &hash).ok().filter(|_| !already_there);
        Fetched { document, path, already_there, piece_hashes, fetched_bytes, resumed_bytes: 0, elapsed, sources }
    }
}

/// The target of a document.
enum Prepared {
    /// It has the document's content.
    AlreadyThere(DocumentInfo, PathBuf),
    /// Its pieces go to this store.
    Store(DocumentInfo, Arc<PieceStore>),
}

/// Runs blocking work on a partial file; retries for up to [`LOCK_TIMEOUT`] while another fetch has it locked.
async fn when_unlocked<T: Send + 'static>(
    mut work: impl FnMut() -> Result<T, WriteError> + Send + 'static,
) -> Result<T, WriteError> {
    let started = Instant::now();
    loop {
        let (again, done) = off_runtime(move || {
            let done = work();
            Ok((work, done))
        })
        .await?;
        match done {
            Err(WriteError::Locked { .. }) if started.elapsed() < LOCK_TIMEOUT => tokio::time::sleep(LOCK_RETRY).await,
            done => return done,
        }
        work = again;
    }
}
