//! A share's index: what is offered, what is left out, and how it follows changes of the folder.

#![allow(clippy::panic, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers fail by panicking")]

mod adopted;
mod changes;
mod full_disk;
mod left_out;
#[path = "../support/mount.rs"]
#[allow(unreachable_pub, reason = "other test programs use it from a module of helpers")]
mod mount;
mod offered;
mod restart;

use p2pdi::metrics::Metrics;
use peerd::documents::share::{Index, Share, ShareConfig, SharedDocument};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for an event: far more than it takes, so that no test fails on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_millis(150);

/// A folder to share and a state folder.
struct Folders {
    outer: TempDir,
    config: ShareConfig,
}

impl Folders {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let (folder, state) = (outer.path().join("share"), outer.path().join("state"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&state).unwrap();
        let config = ShareConfig { quiet: QUIET, ..ShareConfig::new(Some(folder), state) };
        Self { outer, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join("share").join(name)
    }

    /// Writes a file and creates its parent folders.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn state(&self) -> &Path {
        &self.config.state
    }

    fn open(&self) -> Running {
        let (share, indexer) = Share::open(self.config.clone(), &Metrics::default()).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(indexer.run(stop.clone()));
        Running { share, stop, task }
    }

    async fn settled(&self) -> Running {
        let running = self.open();
        within("the first scan", running.share.settled()).await;
        running
    }
}

/// A share with its indexer.
struct Running {
    share: Share,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn index(&self) -> Arc<Index> {
        self.share.index()
    }

    fn names(&self) -> Vec<String> {
        self.index().documents().iter().map(|document| document.name.to_string()).collect()
    }

    fn document(&self, name: &str) -> Arc<SharedDocument> {
        Arc::clone(self.index().by_name(name).unwrap_or_else(|| panic!("{name} is not offered: {:?}", self.names())))
    }

    fn hashed_bytes(&self) -> u64 {
        self.share.progress().borrow().hashed_bytes
    }

    /// Waits until `wanted` is true.
    async fn until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let mut changes = self.share.changes();
        let wait = async {
            while !wanted(self) {
                // The status can change without a new version of the index.
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("timed out waiting for {what}: {:?} {:?}", self.names(), self.share.status());
        }
    }

    async fn until_offered(&self, names: &[&str]) {
        self.until(&format!("{names:?}"), |running| running.names() == names).await;
    }

    async fn stop(self) {
        self.stop.cancel();
        within("the end of the indexer", self.task).await.unwrap();
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("timed out waiting for {what}"))
}
