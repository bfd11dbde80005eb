//! What is shared, how, and why it cannot be.

use std::{io, path::PathBuf, time::Duration};

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
