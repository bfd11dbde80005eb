//! The peer's share: a folder, the index of the documents in it, and opening them for serving.
//!
//! An [`Indexer`] scans the folder, hashes new files, watches for changes and publishes immutable [`Index`]es. It knows three things
//! about a file: its metadata ([`Fingerprint`]), its content (hash, title), and how long it has not changed. A document is offered once
//! the content belongs to the metadata and the file is quiet. A file whose times changed, and neither its size nor its inode, stays in the
//! index until it is hashed again: it was probably only touched. The code that serves it checks the fingerprint: with another change time
//! it goes on, with another modification time it waits. Nothing outside the folder is ever opened, whatever links and renames lead there.

mod adopt;
mod cache;
mod cache_database;
mod cache_entry;
mod config;
mod document;
mod file_states;
mod hash;
mod index;
mod indexer;
mod left_out;
mod open;
mod root;
mod scan;
mod state;
pub mod title;
mod watch;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use cache_entry::check_any_entry;
pub use config::{KEEP_MISSING, QUIET, RESCAN_EVERY, ShareConfig, ShareError};
pub(crate) use document::Change;
pub use document::{Fingerprint, SharedDocument};
pub use index::Index;
pub use indexer::Indexer;
pub use open::{OpenDocument, OpenError};
pub use state::ScanProgress;
pub use title::{HEAD_BYTES, TITLE_MAX_BYTES, title};

use cache::{Cache, CacheError};
use p2pdi::{content::PieceHashes, document::DocumentName, metrics::Metrics, platform::Folder, v1};
use root::Root;
use state::{ShareMetrics, Shared};
use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch::{Receiver, Sender};

/// Sets the path of `root`, if there is a folder.
fn set_root(root: &Root, folder: &Path) -> Result<(), ShareError> {
    // Absolute, in case the process changes its working directory.
    let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    Folder::open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotADirectory => ShareError::NotAFolder { path: folder.to_owned() },
        _ => ShareError::Folder { path: folder.to_owned(), source },
    })?;
    if !root.set(path) {
        let shared = root.path().unwrap_or(folder).to_owned();
        return Err(ShareError::OtherFolder { path: folder.to_owned(), shared });
    }
    Ok(())
}

/// What is known of a document whose file changed, or may have.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// Its file was not hashed again yet.
    Pending,
    /// Its content is in the share, in this file as it is now.
    Same(Arc<SharedDocument>),
    /// Its content is not in the share any more.
    Changed,
}

/// A share. Clones are handles to the same share.
#[derive(Clone)]
pub struct Share {
    shared: Arc<Shared>,
}

impl Share {
    /// Prepares to share `config.folder`. Blocks for some milliseconds to read the cache. Nothing is offered until the [`Indexer`] runs.
    ///
    /// # Errors
    /// When the folder does not exist (later it can vanish and come back), or the state folder cannot be used.
    pub fn open(config: ShareConfig, metrics: &Metrics) -> Result<(Self, Indexer), ShareError> {
        let root = Root::default();
        if let Some(folder) = &config.folder {
            set_root(&root, folder)?;
        }
        let path = config.state.clone();
        let cache = Cache::open(&config.state, config.temporary_state).map_err(|error| match error {
            CacheError::InUse => ShareError::StateInUse { path },
            CacheError::Io(_) | CacheError::Other(_) => ShareError::State { path, problem: error.to_string() },
        })?;
        let metrics = ShareMetrics {
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
            scans_asked: AtomicU64::new(0),
            progress: Sender::new(ScanProgress::default()),
            counts: Mutex::default(),
            detail: Mutex::default(),
            problems: Mutex::default(),
            left_out: Mutex::default(),
            hashed_bytes: Arc::default(),
            metrics,
        });
        Ok((Self { shared: Arc::clone(&shared) }, Indexer { shared }))
    }

    /// Begins to share a folder, of a share without one. If it is the folder that is shared already, it is scanned again. In both cases
    /// [`Self::settled`] then waits for what is in it now. Blocking.
    ///
    /// # Errors
    /// When the folder does not exist, or another one is shared already.
    pub fn set_folder(&self, folder: &Path) -> Result<(), ShareError> {
        set_root(&self.shared.root, folder)?;
        // In this order: the indexer says that all is settled only if no scan was asked for since.
        self.shared.scans_asked.fetch_add(1, Ordering::SeqCst);
        self.shared.settled.send_replace(false);
        self.shared.signal.changed_somewhere();
        Ok(())
    }

    /// The latest index of the peer's own documents.
    pub fn index(&self) -> Arc<Index> {
        self.shared.index()
    }

    /// The version of the latest index.
    pub fn changes(&self) -> Receiver<u64> {
        self.shared.versions.subscribe()
    }

    /// Waits until every file that was there at the start, or when [`Self::set_folder`] was called last, is offered or left out.
    pub async fn settled(&self) {
        // No error: this handle keeps the sender.
        let _ = self.shared.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// Progress of scanning and hashing.
    pub fn progress(&self) -> Receiver<ScanProgress> {
        self.shared.progress.subscribe()
    }

    /// Counts of what is shared and what is left out, by reason. The caller fills in `learned_documents`, and `left_out` from
    /// [`Self::left_out`].
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
            learned_left_out: 0,
            detail: self.shared.detail.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            problems: self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            left_out: Vec::new(),
        }
    }

    /// The files that are left out, by name; at most the first 1,000.
    pub fn left_out(&self) -> Vec<v1::LeftOut> {
        self.shared.left_out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a document for serving. Blocking.
    ///
    /// # Errors
    /// When the file is gone, is not the one that was indexed, or cannot be read. The indexer then scans it again, unless the process is
    /// short of descriptors or memory, which says nothing about the file.
    pub fn open_document(&self, document: &SharedDocument) -> Result<OpenDocument, OpenError> {
        OpenDocument::open(&self.shared.root, document).inspect_err(|error| {
            if !error.is_shortage() {
                self.rescan(document);
            }
        })
    }

    /// What is known of a document whose file changed after it was indexed, or may have. Asks the indexer to look at the file.
    pub(crate) fn verdict(&self, document: &SharedDocument) -> Verdict {
        let index = self.index();
        let same = index.by_hash(&document.hash);
        match same.iter().find(|known| known.name == document.name) {
            Some(known) if known.fingerprint == document.fingerprint => {
                self.rescan(document);
                Verdict::Pending
            }
            Some(known) => Verdict::Same(Arc::clone(known)),
            // Its file has another name now.
            None => same.first().map_or(Verdict::Changed, |known| Verdict::Same(Arc::clone(known))),
        }
    }

    /// Makes the indexer scan a document's file again, in case the operating system did not report its change.
    pub fn rescan(&self, document: &SharedDocument) {
        self.rescan_name(&document.name);
    }

    fn rescan_name(&self, name: &DocumentName) {
        if let Some(Ok(root)) = self.shared.root.path().map(Path::canonicalize) {
            self.shared.signal.changed(root.join(name.to_relative_path()));
        }
    }

    /// The piece hashes of a document; they merge to its hash. Blocking: those of large documents are read from the cache.
    /// `None` when the cache has lost them; the file is then hashed again.
    pub fn piece_hashes(&self, document: &SharedDocument) -> Option<PieceHashes> {
        let hashes = self.shared.cache.piece_hashes(document.size, &document.hash);
        if hashes.is_none() {
            self.shared.signal.hashes_lost(document.name.as_str());
        }
        hashes
    }
}
