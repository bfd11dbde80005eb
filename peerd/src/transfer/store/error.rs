//! Why a document cannot be written.

use p2pdi::document::DocumentName;
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Why a document cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}{}", path.display(), advice(.source))]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The disk lacks free space.
    #[error(
        "not enough space for {name}: {needed} bytes are still to be written under {}, {available} are free{}",
        folder.display(),
        RoomOfOthers(.others)
    )]
    NoSpace {
        /// The document.
        name: DocumentName,
        /// The target folder.
        folder: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free.
        available: u64,
        /// Partial files of other fetches there, and the bytes that each takes or has reserved.
        others: Vec<(PathBuf, u64)>,
    },
    /// The target exists with other content.
    #[error("{} exists with other content", path.display())]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// The target is a folder, which is never replaced.
    #[error("{} is a folder", path.display())]
    TargetIsFolder {
        /// The target.
        path: PathBuf,
    },
    /// Another fetch writes the same document.
    #[error("another fetch is writing {}", path.display())]
    Locked {
        /// The target.
        path: PathBuf,
    },
    /// A folder on the way to the target is a symbolic link, which could lead outside.
    #[error("{} is a symbolic link; the document's name would lead outside the folder", path.display())]
    LeadsOutside {
        /// The link.
        path: PathBuf,
    },
    /// Pieces of the document are missing.
    #[error("{} is not complete", path.display())]
    Incomplete {
        /// The partial file.
        path: PathBuf,
    },
}

impl WriteError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether the same can succeed once there is room on the disk, or in the user's quota. What is verified is kept.
    pub fn is_no_room(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn advice(error: &io::Error) -> &'static str {
    if is_full(error) { "; free some space: what is verified is kept" } else { "" }
}

/// The end of the message of [`WriteError::NoSpace`]: who else has room there.
struct RoomOfOthers<'a>(&'a [(PathBuf, u64)]);

impl fmt::Display for RoomOfOthers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (path, bytes)) in self.0.iter().enumerate() {
            let before = if index == 0 { "; other fetches take or have reserved room there: " } else { ", " };
            write!(f, "{before}{} ({bytes} bytes)", path.display())?;
        }
        Ok(())
    }
}
