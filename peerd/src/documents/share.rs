//! The peer's share: a folder, the index of the documents in it, and opening them for serving.
//!
//! An [`Indexer`] looks at the folder, hashes what is new, keeps an eye on changes and publishes one immutable [`Index`] after
//! the other. It knows three things of a file: what the file system says of it ([`Fingerprint`]), what its bytes are (hash,
//! title), and how long it has been quiet. A document is offered only while all three agree, and what is served is checked
//! against the fingerprint again. Nothing outside the folder is ever opened, whatever links and renames say.

mod cache;
mod document;
mod file_states;
mod hash;
mod index;
mod indexer;
pub mod number;
mod open;
mod root;
pub mod title;
mod walk;
mod watch;

pub use document::{Fingerprint, SharedDocument};
pub use index::Index;
pub use indexer::Indexer;
pub use number::number;
pub use open::{OpenDocument, OpenError};
pub use title::{HEAD_BYTES, TITLE_MAX_BYTES, title};

use cache::{Cache, CacheError};
use file_states::Counts;
use metrics::{Counter, Gauge};
use p2pdi::{content::PieceHashes, metrics::Metrics, v1};
use root::Root;
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch::{Receiver, Sender};
use watch::Signal;

/// How long a file must not have changed before it is offered: longer than the pauses of a program that writes.
pub const QUIET: Duration = Duration::from_millis(500);
/// How often the whole folder is looked at, should the system have kept a change to itself (network file systems do).
pub const RESCAN_EVERY: Duration = Duration::from_secs(60);
/// How long the cache remembers files that are gone: a folder that is unmounted may be back after a weekend.
pub const KEEP_MISSING: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is shared, and how.
#[derive(Debug, Clone)]
pub struct ShareConfig {
    /// The folder; `None` shares nothing.
    pub folder: Option<PathBuf>,
    /// The peer's state folder, which exists. The cache is kept there.
    pub state: PathBuf,
    /// How long a file must not have changed before it is offered.
    pub quiet: Duration,
    /// How often the whole folder is looked at besides watching it.
    pub rescan: Duration,
    /// How long the cache remembers files that are gone.
    pub keep_missing: Duration,
    /// Whether the system is asked to tell of changes; otherwise the whole folder is looked at every second or, if that
    /// takes long, less often.
    pub watch: bool,
}

impl ShareConfig {
    /// `folder` shared in the usual way.
    pub fn new(folder: Option<PathBuf>, state: PathBuf) -> Self {
        Self { folder, state, quiet: QUIET, rescan: RESCAN_EVERY, keep_missing: KEEP_MISSING, watch: true }
    }
}

/// Why a folder cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// There is no such folder, or it may not be read.
    #[error("cannot share {path}: {source}")]
    Folder {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a file.
    #[error("cannot share {path}: it is not a folder; share the folder that it is in")]
    NotAFolder {
        /// What was asked for.
        path: PathBuf,
    },
    /// Another process has the state folder.
    #[error("the state folder {path} is used by another process; give each peer its own")]
    StateInUse {
        /// The state folder.
        path: PathBuf,
    },
    /// The cache cannot be kept in the state folder.
    #[error("cannot keep the share's cache in {path}: {problem}")]
    State {
        /// The state folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// How far looking and hashing are, for a progress line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanProgress {
    /// Files found that are offered or will be.
    pub files: u64,
    /// Those of them that wait to be hashed or are being hashed.
    pub pending: u64,
    /// Files hashed since the start.
    pub hashed_files: u64,
    /// Bytes hashed since the start.
    pub hashed_bytes: u64,
    /// Bytes hashed and to be hashed.
    pub total_bytes: u64,
    /// The first look is complete.
    pub settled: bool,
}

/// A share. Clones are handles to the same one.
#[derive(Clone)]
pub struct Share {
    shared: Arc<Shared>,
}

struct Shared {
    config: ShareConfig,
    root: Root,
    cache: Cache,
    signal: Arc<Signal>,
    index: RwLock<Arc<Index>>,
    versions: Sender<u64>,
    settled: Sender<bool>,
    progress: Sender<ScanProgress>,
    counts: Mutex<Counts>,
    detail: Mutex<String>,
    hashed_bytes: Arc<AtomicU64>,
    metrics: Instruments,
}

struct Instruments {
    documents: Gauge,
    bytes: Gauge,
    pending: Gauge,
    hashed_bytes: Counter,
}

impl Share {
    /// Prepares to share `config.folder`. Blocking, for some milliseconds: it reads the cache. Nothing is offered until the
    /// [`Indexer`] runs.
    ///
    /// # Errors
    /// When the folder is not there now (later it may go and come), or the state folder cannot be used.
    pub fn open(config: ShareConfig, metrics: &Metrics) -> Result<(Self, Indexer), ShareError> {
        let folder = config.folder.clone().unwrap_or_default();
        // An absolute path stays the same should the process change its folder.
        let root = Root::new(std::path::absolute(&folder).unwrap_or_else(|_| folder.clone()));
        if config.folder.is_some() {
            root.open().map_err(|source| match source.kind() {
                io::ErrorKind::NotADirectory => ShareError::NotAFolder { path: folder.clone() },
                _ => ShareError::Folder { path: folder.clone(), source },
            })?;
        }
        let path = config.state.clone();
        let cache = Cache::open(&config.state).map_err(|error| match error {
            CacheError::InUse => ShareError::StateInUse { path },
            CacheError::Io(_) | CacheError::Other(_) => ShareError::State { path, problem: error.to_string() },
        })?;
        let metrics = Instruments {
            documents: metrics.gauge("p2pdi_share_documents", "Documents shared", &[]),
            bytes: metrics.gauge("p2pdi_share_bytes", "Bytes of the documents shared", &[]),
            pending: metrics.gauge("p2pdi_share_pending", "Files waiting to be hashed or being hashed", &[]),
            hashed_bytes: metrics.counter("p2pdi_share_hashed_bytes_total", "Bytes read and hashed for the index", &[]),
        };
        let shared = Arc::new(Shared {
            config,
            root,
            cache,
            signal: Arc::default(),
            index: RwLock::default(),
            versions: Sender::new(0),
            settled: Sender::new(false),
            progress: Sender::new(ScanProgress::default()),
            counts: Mutex::default(),
            detail: Mutex::default(),
            hashed_bytes: Arc::default(),
            metrics,
        });
        Ok((Self { shared: Arc::clone(&shared) }, Indexer { shared }))
    }

    /// The peer's own documents now.
    pub fn index(&self) -> Arc<Index> {
        self.shared.index()
    }

    /// Version of the index, and when it changes.
    pub fn changes(&self) -> Receiver<u64> {
        self.shared.versions.subscribe()
    }

    /// Waits until everything that the first look at the folder found is offered or left out.
    pub async fn settled(&self) {
        // The sender lives as long as this handle.
        let _ = self.shared.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// How far looking and hashing are.
    pub fn progress(&self) -> Receiver<ScanProgress> {
        self.shared.progress.subscribe()
    }

    /// What is shared, and what is not and why. `learned_documents` is for the caller to fill in.
    pub fn status(&self) -> v1::ShareStatus {
        let counts = *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let index = self.index();
        v1::ShareStatus {
            documents: index.len() as u64,
            bytes: index.bytes(),
            version: index.version(),
            pending: counts.pending as u64,
            hidden: counts.hidden as u64,
            unreadable: counts.unreadable as u64,
            outside: counts.outside as u64,
            unsupported: counts.unsupported as u64,
            learned_documents: 0,
            detail: self.shared.detail.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Opens a document for serving. Blocking.
    ///
    /// # Errors
    /// When the file is gone, is not the one that was indexed, or cannot be read. The index takes note.
    pub fn open_document(&self, document: &SharedDocument) -> Result<OpenDocument, OpenError> {
        OpenDocument::open(&self.shared.root, document).inspect_err(|_| self.look_again(document))
    }

    /// Tells the indexer that the file of a document is not what it was, should it not have heard.
    pub fn look_again(&self, document: &SharedDocument) {
        if let Ok(root) = self.shared.root.path().canonicalize() {
            self.shared.signal.changed(root.join(document.name.to_relative_path()));
        }
    }

    /// The piece hashes of a document; they merge to its hash. Blocking: those of large documents are read from the cache.
    /// `None` when they are lost, and then the file is hashed again.
    pub fn piece_hashes(&self, document: &SharedDocument) -> Option<PieceHashes> {
        let hashes = self.shared.cache.piece_hashes(document.size, &document.hash);
        if hashes.is_none() {
            self.shared.signal.lost(document.name.as_str());
        }
        hashes
    }
}

impl Shared {
    fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, index: Arc<Index>) {
        let version = index.version();
        self.metrics.documents.set(index.len() as f64);
        self.metrics.bytes.set(index.bytes() as f64);
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
        self.versions.send_if_modified(|published| std::mem::replace(published, version) != version);
    }

    fn set_detail(&self, detail: String) {
        *self.detail.lock().unwrap_or_else(PoisonError::into_inner) = detail;
    }

    fn report(&self, counts: Counts, progress: impl FnOnce(u64) -> ScanProgress) {
        let hashed_bytes = self.hashed_bytes.load(Ordering::Relaxed);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        self.metrics.pending.set(counts.pending as f64);
        self.metrics.hashed_bytes.absolute(hashed_bytes);
        let progress = progress(hashed_bytes);
        self.progress.send_if_modified(|reported| std::mem::replace(reported, progress) != progress);
    }
}
