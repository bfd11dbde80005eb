//! Settings of a share, and why it cannot be opened.

use crate::documents::restrictions::Restrictions;
use std::{io, path::PathBuf, time::Duration};

/// How long a file must not change before it is offered: longer than the pauses of a program that is writing it.
pub const QUIET: Duration = Duration::from_millis(500);
/// How often the whole folder is scanned, in case the system did not report a change (network file systems do not).
pub const RESCAN_EVERY: Duration = Duration::from_secs(60);
/// How long the cache keeps entries of missing files: an unmounted folder can be back after a weekend.
pub const KEEP_MISSING: Duration = Duration::from_secs(7 * 24 * 3600);

/// Settings of a share.
#[derive(Debug, Clone)]
pub struct ShareConfig {
    /// The folder; `None` shares nothing.
    pub folder: Option<PathBuf>,
    /// The peer's state folder, which must exist. The cache is kept there.
    pub state: PathBuf,
    /// The cache is of no use to a later start: it is not synced.
    pub temporary_state: bool,
    /// How long a file must not change before it is offered.
    pub quiet: Duration,
    /// How often the whole folder is scanned although it is watched.
    pub rescan: Duration,
    /// How long the cache keeps entries of missing files.
    pub keep_missing: Duration,
    /// Whether the operating system is asked to report changes. Otherwise the whole folder is scanned every second, or less often if a
    /// scan takes long.
    pub watch: bool,
    /// What is for some peers only. A link that leads to what is for others than its neighbours is left out.
    pub restrictions: Restrictions,
}

impl ShareConfig {
    /// `folder` with the default settings.
    pub fn new(folder: Option<PathBuf>, state: PathBuf) -> Self {
        Self {
            folder,
            state,
            temporary_state: false,
            quiet: QUIET,
            rescan: RESCAN_EVERY,
            keep_missing: KEEP_MISSING,
            watch: true,
            restrictions: Restrictions::default(),
        }
    }
}

/// Why a folder cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The folder does not exist or cannot be read.
    #[error("cannot share {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// It is not a folder.
    #[error("cannot share {path}: it is not a folder; share the folder that it is in")]
    NotAFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The peer shares another folder.
    #[error("cannot share {path}: this peer shares {shared}, and a peer shares one folder; start another peer for it")]
    OtherFolder {
        /// The folder.
        path: PathBuf,
        /// The one that is shared.
        shared: PathBuf,
    },
    /// Another process uses the state folder.
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
