//! The peer's share: a folder, the index of the documents in it, and opening them for serving.
//!
//! An [`Indexer`] looks at the folder, hashes what is new, keeps an eye on changes and publishes one immutable [`Index`] after
//! the other. It knows three things of a file: what the file system says of it ([`Fingerprint`]), what its bytes are (hash,
//! title), and how long it has been quiet. A document is offered only while all three agree, and what is served is checked
//! against the fingerprint again. Nothing outside the folder is ever opened, whatever links and renames say.

mod cache;
mod config;
mod document;
mod file_states;
mod hash;
mod index;
mod indexer;
mod open;
mod root;
mod scan;
mod state;
pub mod title;
mod watch;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use cache::check_any_entry;
pub use config::{KEEP_MISSING, QUIET, RESCAN_EVERY, ShareConfig, ShareError};
pub use document::{Fingerprint, SharedDocument};
pub use index::Index;
pub use indexer::Indexer;
pub use open::{OpenDocument, OpenError};
pub use state::ScanProgress;
pub use title::{HEAD_BYTES, TITLE_MAX_BYTES, title};

use cache::{Cache, CacheError};
use p2pdi::{content::PieceHashes, metrics::Metrics, v1};
use root::Root;
use state::{ShareMetrics, Shared};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use tokio::sync::watch::{Receiver, Sender};

/// A share. Clones are handles to the same one.
#[derive(Clone)]
pub struct Share {
    shared: Arc<Shared>,
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
        let metrics = ShareMetrics {
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
