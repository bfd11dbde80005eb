//! Fetches one document, verified, into a folder: from one holder at a time, trying the next until it is complete.

use super::{
    download::{self, Incoming, SourceError},
    progress::{FetchPhase, HolderProgress, Progress},
    source_selection::{SourceReport, SourceSelection},
};
use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::source::Source,
    transfer::store::{
        blocking::off_runtime, destination::locate, error::WriteError, piece_store::PieceStore, piece_writer::PieceWriter,
    },
};
use bytes::Bytes;
use p2pdi::{
    content::{ContentHash, PieceHashes},
    document::DocumentName,
    field::InvalidField,
    v1::{GetRfcHeader, GetRfcRequest, get_rfc_request},
};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a source may stay silent before another one is asked.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for a locked partial file before the fetch is refused: a fetch that was just cancelled may still be writing or
/// syncing its last pieces.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two attempts to lock it.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How often further holders are searched for once all known ones failed.
const SEARCHES_MAX: u32 = 2;

/// Options of a fetch.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// The target folder; created if missing.
    pub out: PathBuf,
    /// The file's name there; by default the document's name. Holders may have the same content under other names.
    pub save_as: Option<DocumentName>,
    /// Replace a file of the same name with other content.
    pub replace: bool,
    /// How long a source may stay silent. Default: [`STALL_TIMEOUT`].
    pub stall: Duration,
}

/// Searches for holders of a document while it is fetched.
pub trait FindHolders: Sync {
    /// The holders of the document with this hash that can be found now.
    fn holders(&self, hash: ContentHash) -> impl Future<Output = Vec<Source>> + Send;
}

/// Finds no further holders: for a fetch whose holders are all given.
#[derive(Debug, Clone, Copy)]
pub struct NoMoreHolders;

impl FindHolders for NoMoreHolders {
    async fn holders(&self, _: ContentHash) -> Vec<Source> {
        Vec::new()
    }
}

/// A fetched document.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The document.
    pub document: DocumentInfo,
    /// The file.
    pub path: PathBuf,
    /// Whether the file existed already and nothing was fetched.
    pub already_there: bool,
    /// Bytes fetched by this fetch.
    pub fetched_bytes: u64,
    /// Bytes that an earlier, interrupted fetch had verified.
    pub resumed_bytes: u64,
    /// Time from the first request to the synced file.
    pub elapsed: Duration,
    /// Bytes from each source, and why sources were dropped.
    pub sources: Vec<SourceReport>,
}

/// Why a document could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The disk refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Every holder failed.
    #[error("no holder could deliver {wanted}: {}", list(.sources))]
    Sources {
        /// The document asked for.
        wanted: DocumentSelector,
        /// Each holder and why it was dropped.
        sources: Vec<SourceReport>,
        /// Verified bytes that the partial file keeps for the next fetch.
        kept_bytes: u64,
    },
}

fn list(sources: &[SourceReport]) -> String {
    if sources.is_empty() {
        return "there are no holders to ask".to_owned();
    }
    let each = |report: &SourceReport| format!("{}: {}", report.source, report.dropped.as_deref().unwrap_or("not asked"));
    sources.iter().map(each).collect::<Vec<_>>().join("; ")
}

/// Fetches `wanted` from `sources`, then from the holders that `finder` finds, into `options.out`.
///
/// The first valid header decides which document it is; later requests ask for its hash only.
///
/// # Errors
/// When the disk refuses, or every holder failed. Verified pieces stay in the partial file.
pub async fn fetch(
    channels: &ChannelPool,
    wanted: &DocumentSelector,
    sources: Vec<Source>,
    finder: &impl FindHolders,
    options: &FetchOptions,
    progress: &Arc<Progress>,
) -> Result<Fetched, FetchError> {
    let mut run = Run { channels, wanted, options, progress, sources: SourceSelection::new(sources), started: Instant::now() };
    let mut state = State::Unknown;
    let mut searches = 0;
    loop {
        let Some((index, pause)) = run.sources.next(Instant::now()) else {
            let hash = match (&state, wanted) {
                (State::Receiving { document, .. }, _) => Some(document.hash),
                (State::Unknown, DocumentSelector::Hash(hash)) => Some(*hash),
                (State::Unknown | State::Complete { .. }, _) => None,
            };
            searches += 1;
            if let Some(hash) = hash.filter(|_| searches <= SEARCHES_MAX)
                && run.sources.add(finder.holders(hash).await)
            {
                continue;
            }
            let kept_bytes = match &state {
                State::Receiving { store, .. } => store.size() - store.missing_bytes(),
                State::Unknown | State::Complete { .. } => 0,
            };
            return Err(FetchError::Sources { wanted: wanted.clone(), sources: run.sources.reports(), kept_bytes });
        };
        tokio::time::sleep(pause).await;
        let (next, tried) = run.ask(state, index).await?;
        state = next;
        if let Err(error) = tried {
            tracing::info!(source = %run.sources.get(index), %error, "a source failed");
            let fault = error.fault();
            run.sources.failed(index, fault, error.to_string(), Instant::now());
            if error.is_lie() {
                state = run.forget(state).await?;
            }
        }
        state = match state {
            State::Receiving { document, store, resumed } if store.is_complete() => {
                return run.finish(document, store, resumed).await;
            }
            State::Receiving { .. } | State::Unknown => state,
            State::Complete { document, path, already } => return Ok(run.complete(document, path, already)),
        };
    }
}

/// State of a fetch.
enum State {
    /// No valid header yet.
    Unknown,
    /// The document is known; some pieces may be verified.
    Receiving { document: DocumentInfo, store: Arc<PieceStore>, resumed: u64 },
    /// The target has the document's content; `already`: it had it before.
    Complete { document: DocumentInfo, path: PathBuf, already: bool },
}

struct Run<'a> {
    channels: &'a ChannelPool,
    wanted: &'a DocumentSelector,
    options: &'a FetchOptions,
    progress: &'a Arc<Progress>,
    sources: SourceSelection,
    started: Instant,
}

impl Run<'_> {
    /// Receives the missing pieces from source `index` until none is missing or it fails.
    async fn ask(&mut self, state: State, index: usize) -> Result<(State, Result<(), SourceError>), FetchError> {
        let source = self.sources.get(index).clone();
        self.progress.set_holders(vec![HolderProgress::new(source.clone())], self.sources.len());
        let (state, opened) = match state {
            State::Unknown => match self.identify(&source).await {
                Ok((document, hashes, incoming)) if hashes.pieces().count() == 1 => match incoming.collect(&hashes).await {
                    Ok(data) => {
                        let written = self.write_small(document, hashes, data).await?;
                        if let State::Complete { document, already: false, .. } = &written {
                            self.sources.progressed(index, document.size());
                        }
                        return Ok((written, Ok(())));
                    }
                    Err(error) => return Ok((State::Unknown, Err(error))),
                },
                Ok((document, hashes, incoming)) => (self.prepare(document, hashes).await?, Some(incoming)),
                Err(error) => return Ok((State::Unknown, Err(error))),
            },
            known => (known, None),
        };
        let State::Receiving { document, store, resumed } = state else { return Ok((state, Ok(()))) };
        let whole = 0..store.size();
        // The stream of this header continues with the whole document: useful only if all pieces are missing.
        let mut ready = opened.filter(|_| store.next_missing().as_ref() == Some(&whole));
        while let Some(range) = store.next_missing() {
            let incoming = match ready.take() {
                Some(incoming) => incoming,
                None => match self.resume(&source, &document, range.clone()).await {
                    Ok(incoming) => incoming,
                    Err(error) => return Ok((State::Receiving { document, store, resumed }, Err(error))),
                },
            };
            let (verified, received) = incoming.download(&store, range, Arc::clone(self.progress)).await?;
            self.sources.progressed(index, verified);
            if let Err(error) = received {
                return Ok((State::Receiving { document, store, resumed }, Err(error)));
            }
        }
        Ok((State::Receiving { document, store, resumed }, Ok(())))
    }

    /// Asks for the whole document and checks the header.
    async fn identify(&self, source: &Source) -> Result<(DocumentInfo, PieceHashes, Incoming), SourceError> {
        let wanted = match self.wanted {
            DocumentSelector::Number(number) => get_rfc_request::Document::Number(*number),
            DocumentSelector::Name(name) => get_rfc_request::Document::Name(name.to_string()),
            DocumentSelector::Hash(hash) => get_rfc_request::Document::Blake3(hash.to_field()),
        };
        let request = GetRfcRequest { document: Some(wanted), accepts_queued: true, ..Default::default() };
        let (header, incoming) = download::open(self.channels, source, request, self.options.stall).await?;
        let hashes = header.piece_hashes.clone();
        let document = check_header(&header, 0, None)?;
        if !self.wanted.selects(&document) {
            return Err(SourceError::Protocol(format!("answered with {} instead of {}", document.name, self.wanted)));
        }
        let hashes = PieceHashes::verified(document.pieces, &hashes, &document.hash).map_err(InvalidField::from)?;
        Ok((document, hashes, incoming))
    }

    /// Asks for a range of the known content.
    async fn resume(
        &self,
        source: &Source,
        document: &DocumentInfo,
        range: std::ops::Range<u64>,
    ) -> Result<Incoming, SourceError> {
        let request = GetRfcRequest {
            document: Some(get_rfc_request::Document::Blake3(document.hash.to_field())),
            offset: range.start,
            length: range.end - range.start,
            without_piece_hashes: true,
            in_turn: false,
            accepts_queued: true,
        };
        let (header, incoming) = download::open(self.channels, source, request, self.options.stall).await?;
        let got = check_header(&header, range.start, Some(range.end - range.start))?;
        if got.hash != document.hash || got.size() != document.size() {
            return Err(SourceError::Protocol("answered with another document".into()));
        }
        Ok(incoming)
    }

    /// Checks the target and opens the piece store.
    async fn prepare(&self, document: DocumentInfo, hashes: PieceHashes) -> Result<State, FetchError> {
        let (out, replace, name) = self.destination(&document);
        let mut hashed = None;
        let state = when_unlocked(move || {
            let (path, already) = locate(&out, &name, &document.hash, document.size(), replace, &mut hashed)?;
            if already {
                return Ok(State::Complete { document: document.clone(), path, already });
            }
            let store = PieceStore::open(&out, &name, hashes.clone(), replace)?;
            store.wait_checked();
            let resumed = store.verified_bytes();
            Ok(State::Receiving { document: document.clone(), store, resumed })
        })
        .await?;
        if let State::Receiving { document, resumed, .. } = &state {
            self.progress.begin(document.size(), *resumed);
        }
        Ok(state)
    }

    /// Forgets the document that a malicious source named for a number or a name, unless another source sent a piece of it: the next
    /// valid header decides again.
    async fn forget(&self, state: State) -> Result<State, FetchError> {
        match state {
            State::Receiving { store, .. }
                if !matches!(self.wanted, DocumentSelector::Hash(_)) && store.missing_bytes() == store.size() =>
            {
                off_runtime(move || store.discard()).await?;
                self.progress.begin(0, 0);
                Ok(State::Unknown)
            }
            known => Ok(known),
        }
    }

    async fn finish(self, document: DocumentInfo, store: Arc<PieceStore>, resumed_bytes: u64) -> Result<Fetched, FetchError> {
        self.progress.set_phase(FetchPhase::Finishing);
        let path = off_runtime(move || store.finish()).await?;
        self.progress.set_phase(FetchPhase::Ended);
        let fetched_bytes = document.size() - resumed_bytes;
        let (elapsed, sources) = (self.started.elapsed(), self.sources.reports());
        Ok(Fetched { document, path, already_there: false, fetched_bytes, resumed_bytes, elapsed, sources })
    }

    /// Writes a document of one piece, which was received into memory.
    async fn write_small(&mut self, document: DocumentInfo, hashes: PieceHashes, data: Bytes) -> Result<State, FetchError> {
        let (out, replace, name) = self.destination(&document);
        let mut hashed = None;
        let written = when_unlocked(move || {
            let document = document.clone();
            let (path, already) = locate(&out, &name, &document.hash, document.size(), replace, &mut hashed)?;
            if already {
                return Ok(State::Complete { document, path, already });
            }
            let store = PieceStore::open(&out, &name, hashes.clone(), replace)?;
            store.wait_checked();
            if !store.is_complete() {
                // Its hash was checked on receipt.
                let _checked = PieceWriter::new(&store).write(0, &data)?;
            }
            Ok(State::Complete { path: store.finish()?, document, already })
        });
        Ok(written.await?)
    }

    /// The target folder, whether a file there may be replaced, and the file's name.
    fn destination(&self, document: &DocumentInfo) -> (PathBuf, bool, DocumentName) {
        let name = self.options.save_as.as_ref().unwrap_or(&document.name);
        (self.options.out.clone(), self.options.replace, name.clone())
    }

    fn complete(self, document: DocumentInfo, path: PathBuf, already_there: bool) -> Fetched {
        self.progress.begin(document.size(), document.size());
        self.progress.set_phase(FetchPhase::Ended);
        let fetched_bytes = if already_there { 0 } else { document.size() };
        let (elapsed, sources) = (self.started.elapsed(), self.sources.reports());
        Fetched { document, path, already_there, fetched_bytes, resumed_bytes: 0, elapsed, sources }
    }
}

/// Checks all of a header but the piece hashes. `length`: bytes asked for from `offset`; `None`: all up to the end.
fn check_header(header: &GetRfcHeader, offset: u64, length: Option<u64>) -> Result<DocumentInfo, SourceError> {
    let Some(document) = header.document.clone() else {
        return Err(SourceError::Protocol("a header without a document".into()));
    };
    let document = DocumentInfo::try_from(document)?;
    let length = length.unwrap_or(document.size().saturating_sub(offset));
    if header.piece_size != document.pieces.piece_size() || header.offset != offset || header.served_length != length {
        return Err(SourceError::Protocol(format!(
            "its header says {} bytes at {} in pieces of {}; requested were {length} bytes at {offset} in pieces of {}",
            header.served_length,
            header.offset,
            header.piece_size,
            document.pieces.piece_size()
        )));
    }
    Ok(document)
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
