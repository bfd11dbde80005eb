//! Fetches one document verified into a folder, from one holder after the other until it is whole.

use super::{
    download::{self, Incoming, SourceError},
    partial::{self, Partial, WriteError},
    progress::Progress,
    source_selection::{SourceReport, SourceSelection},
};
use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::source::Source,
};
use bytes::Bytes;
use p2pdi::{
    content::{ContentHash, PieceHashes},
    document::DocumentName,
    field::InvalidField,
    v1::{GetRfcHeader, GetRfcRequest, get_rfc_request},
};
use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::spawn_blocking;

/// How long a source may stay silent before another one is asked.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a partial file may stay locked before the fetch is refused: one that was just given up may still be writing its last
/// pieces, or the system be syncing them.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often the lock is tried meanwhile.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How often the network is asked for further holders once all known ones failed.
const SEARCHES_MAX: u32 = 2;

/// How to fetch.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// The target folder; made when missing.
    pub out: PathBuf,
    /// The name it gets there; that of the document where none is given. Holders may have the same content under other names.
    pub save_as: Option<DocumentName>,
    /// Replace a file of the same name with other content.
    pub replace: bool,
    /// See [`STALL_TIMEOUT`].
    pub stall: Duration,
}

/// Finds holders of a document while it is fetched.
pub trait FindHolders: Sync {
    /// Who has the document with this hash, as far as can be found out now.
    fn holders(&self, hash: ContentHash) -> impl Future<Output = Vec<Source>> + Send;
}

/// Finds nobody: for a fetch whose holders are all named already.
#[derive(Debug, Clone, Copy)]
pub struct NobodyElse;

impl FindHolders for NobodyElse {
    async fn holders(&self, _: ContentHash) -> Vec<Source> {
        Vec::new()
    }
}

/// A document that is there.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Which.
    pub document: DocumentInfo,
    /// Where.
    pub path: PathBuf,
    /// It was there before; nothing was fetched.
    pub already_there: bool,
    /// Bytes fetched now.
    pub fetched_bytes: u64,
    /// Bytes that an earlier, interrupted fetch had verified.
    pub resumed_bytes: u64,
    /// From the first request to the synced file.
    pub elapsed: Duration,
    /// Who sent what, and who was dropped why.
    pub sources: Vec<SourceReport>,
}

/// Why a document could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The disk.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// No holder was left.
    #[error("no holder could deliver {wanted}: {}", list(.sources))]
    Sources {
        /// What was wanted.
        wanted: DocumentSelector,
        /// Each holder and its fault.
        sources: Vec<SourceReport>,
        /// Bytes that are verified and kept for the next try.
        kept_bytes: u64,
    },
}

fn list(sources: &[SourceReport]) -> String {
    if sources.is_empty() {
        return "nobody to ask".to_owned();
    }
    let each = |report: &SourceReport| format!("{}: {}", report.source, report.dropped.as_deref().unwrap_or("not asked"));
    sources.iter().map(each).collect::<Vec<_>>().join("; ")
}

/// Fetches `wanted` from `sources`, then from whom `finder` names, into `options.out`.
///
/// The document's identity is settled by the first valid header; from then on only its hash is asked for.
///
/// # Errors
/// When the disk refuses, or every holder failed. What is verified stays in the partial file.
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
                State::Receiving { partial, .. } => partial.size() - partial.missing_bytes(),
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
            State::Receiving { document, partial, resumed } if partial.is_whole() => {
                return run.finish(document, *partial, resumed).await;
            }
            State::Receiving { .. } | State::Unknown => state,
            State::Complete { document, path, already } => return Ok(run.there(document, path, already)),
        };
    }
}

/// What is known so far.
enum State {
    /// No valid header came yet.
    Unknown,
    /// The document is known and some of it may be there.
    Receiving { document: DocumentInfo, partial: Box<Partial>, resumed: u64 },
    /// The target has this content; already before, or now.
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
    /// Lets source `index` send what is missing until it is done or fails.
    async fn ask(&mut self, state: State, index: usize) -> Result<(State, Result<(), SourceError>), FetchError> {
        let source = self.sources.get(index).clone();
        let (state, opened) = match state {
            State::Unknown => match self.identify(&source).await {
                Ok((document, hashes, incoming)) if hashes.pieces().count() == 1 => match incoming.collect(&hashes).await {
                    Ok(data) => {
                        let taken = self.take_small(document, hashes, data).await?;
                        if let State::Complete { document, already: false, .. } = &taken {
                            self.sources.progressed(index, document.size());
                        }
                        return Ok((taken, Ok(())));
                    }
                    Err(error) => return Ok((State::Unknown, Err(error))),
                },
                Ok((document, hashes, incoming)) => (self.prepare(document, hashes).await?, Some(incoming)),
                Err(error) => return Ok((State::Unknown, Err(error))),
            },
            known => (known, None),
        };
        let State::Receiving { document, mut partial, resumed } = state else { return Ok((state, Ok(()))) };
        let whole = 0..partial.size();
        // The stream that brought the header goes on with the whole document; of use only if all of it is missing.
        let mut ready = opened.filter(|_| partial.next_missing().as_ref() == Some(&whole));
        while let Some(range) = partial.next_missing() {
            let incoming = match ready.take() {
                Some(incoming) => incoming,
                None => match self.resume(&source, &document, range.clone()).await {
                    Ok(incoming) => incoming,
                    Err(error) => return Ok((State::Receiving { document, partial, resumed }, Err(error))),
                },
            };
            let (back, verified, received) = incoming.download(*partial, range, Arc::clone(self.progress)).await?;
            partial = Box::new(back);
            self.sources.progressed(index, verified);
            if let Err(error) = received {
                return Ok((State::Receiving { document, partial, resumed }, Err(error)));
            }
        }
        Ok((State::Receiving { document, partial, resumed }, Ok(())))
    }

    /// Asks for the whole of what is wanted and checks the header.
    async fn identify(&self, source: &Source) -> Result<(DocumentInfo, PieceHashes, Incoming), SourceError> {
        let wanted = match self.wanted {
            DocumentSelector::Number(number) => get_rfc_request::Document::Number(*number),
            DocumentSelector::Name(name) => get_rfc_request::Document::Name(name.to_string()),
            DocumentSelector::Hash(hash) => get_rfc_request::Document::Blake3(hash.to_field()),
        };
        let request = GetRfcRequest { document: Some(wanted), ..Default::default() };
        let (header, incoming) = download::open(self.channels, source, request, self.options.stall).await?;
        let hashes = header.piece_hashes.clone();
        let document = check_header(&header, 0, None)?;
        let right = match self.wanted {
            DocumentSelector::Number(number) => document.number == Some(*number),
            DocumentSelector::Name(name) => document.name.as_str().eq_ignore_ascii_case(name.as_str()),
            DocumentSelector::Hash(hash) => document.hash == *hash,
        };
        if !right {
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
        };
        let (header, incoming) = download::open(self.channels, source, request, self.options.stall).await?;
        let got = check_header(&header, range.start, Some(range.end - range.start))?;
        if got.hash != document.hash || got.size() != document.size() {
            return Err(SourceError::Protocol("answered with another document".into()));
        }
        Ok(incoming)
    }

    /// Looks at the target and opens the partial file.
    async fn prepare(&self, document: DocumentInfo, hashes: PieceHashes) -> Result<State, FetchError> {
        let (out, replace, name) = self.destination(&document);
        let state = when_unlocked(move || {
            let (path, there) = partial::target(&out, &name, &document.hash, document.size(), replace)?;
            if there {
                return Ok(State::Complete { document: document.clone(), path, already: true });
            }
            let partial = Partial::open(&out, path, &name, hashes.clone(), replace)?;
            let resumed = partial.size() - partial.missing_bytes();
            Ok(State::Receiving { document: document.clone(), partial: Box::new(partial), resumed })
        })
        .await?;
        if let State::Receiving { document, resumed, .. } = &state {
            self.progress.begin(document.size(), *resumed);
        }
        Ok(state)
    }

    /// Where a number or a name was asked for, the document is what its first holder says it is. One whose bytes are not that
    /// document said nothing, as long as nobody else sent a piece of it.
    async fn forget(&self, state: State) -> Result<State, FetchError> {
        match state {
            State::Receiving { partial, .. }
                if !matches!(self.wanted, DocumentSelector::Hash(_)) && partial.missing_bytes() == partial.size() =>
            {
                off_runtime(move || partial.discard()).await?;
                self.progress.begin(0, 0);
                Ok(State::Unknown)
            }
            known => Ok(known),
        }
    }

    async fn finish(self, document: DocumentInfo, partial: Partial, resumed_bytes: u64) -> Result<Fetched, FetchError> {
        let path = off_runtime(move || partial.finish()).await?;
        let fetched_bytes = document.size() - resumed_bytes;
        let (elapsed, sources) = (self.started.elapsed(), self.sources.reports());
        Ok(Fetched { document, path, already_there: false, fetched_bytes, resumed_bytes, elapsed, sources })
    }

    /// Takes a document of one piece: it fits in memory, and goes to the disk in one step.
    async fn take_small(&mut self, document: DocumentInfo, hashes: PieceHashes, data: Bytes) -> Result<State, FetchError> {
        let (out, replace, name) = self.destination(&document);
        let taken = when_unlocked(move || {
            let document = document.clone();
            let (path, already) = partial::target(&out, &name, &document.hash, document.size(), replace)?;
            if already {
                return Ok(State::Complete { document, path, already });
            }
            let mut partial = Partial::open(&out, path, &name, hashes.clone(), replace)?;
            if !partial.is_whole() {
                // Its bytes were checked when they came.
                let _checked = partial.write(0, &data)?;
            }
            Ok(State::Complete { path: partial.finish()?, document, already })
        });
        Ok(taken.await?)
    }

    /// The folder, whether a file may be replaced, and the name there.
    fn destination(&self, document: &DocumentInfo) -> (PathBuf, bool, DocumentName) {
        let name = self.options.save_as.as_ref().unwrap_or(&document.name);
        (self.options.out.clone(), self.options.replace, name.clone())
    }

    fn there(self, document: DocumentInfo, path: PathBuf, already_there: bool) -> Fetched {
        self.progress.begin(document.size(), document.size());
        let fetched_bytes = if already_there { 0 } else { document.size() };
        let (elapsed, sources) = (self.started.elapsed(), self.sources.reports());
        Fetched { document, path, already_there, fetched_bytes, resumed_bytes: 0, elapsed, sources }
    }
}

/// Checks everything in a header but the piece hashes. `length`: the range asked for, `None` for all from `offset` on.
fn check_header(header: &GetRfcHeader, offset: u64, length: Option<u64>) -> Result<DocumentInfo, SourceError> {
    let Some(document) = header.document.clone() else {
        return Err(SourceError::Protocol("a header without a document".into()));
    };
    let document = DocumentInfo::try_from(document)?;
    let length = length.unwrap_or(document.size().saturating_sub(offset));
    if header.piece_size != document.pieces.piece_size() || header.offset != offset || header.served_length != length {
        return Err(SourceError::Protocol(format!(
            "a header for {} bytes at {} in pieces of {}, where {length} bytes at {offset} in pieces of {} were asked for",
            header.served_length,
            header.offset,
            header.piece_size,
            document.pieces.piece_size()
        )));
    }
    Ok(document)
}

/// Runs blocking work on a partial file, again while another fetch holds that file and [`LOCK_PATIENCE`] lasts.
async fn when_unlocked<T: Send + 'static>(
    work: impl Fn() -> Result<T, WriteError> + Clone + Send + 'static,
) -> Result<T, WriteError> {
    let begun = Instant::now();
    loop {
        match off_runtime(work.clone()).await {
            Err(WriteError::Busy { .. }) if begun.elapsed() < LOCK_PATIENCE => tokio::time::sleep(LOCK_RETRY).await,
            done => return done,
        }
    }
}

/// Runs blocking work; a panic in it goes on here.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> Result<T, WriteError> + Send + 'static) -> Result<T, WriteError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(WriteError::Io { doing: "finish", path: PathBuf::new(), source: io::ErrorKind::Interrupted.into() }),
    }
}
