//! A document of the share, and the file metadata that shows whether its file changed.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::documents::info::{DocumentInfo, printable_title};
use p2pdi::{
    content::{ContentHash, HASH_BYTES, Pieces},
    document::DocumentName,
    field::InvalidField,
    platform::FileStat,
};
use std::time::{Duration, SystemTime};

/// File systems that store nanoseconds still advance their clock in ticks of the kernel's timer, at most 10 ms. This is five of them.
const TICK: Duration = Duration::from_millis(50);
/// FAT stores times in steps of two seconds, some network file systems in whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// Metadata that changes when a file's content changes. A write changes the size or both times. A program can set the modification
/// time back (`cp -p`, `touch -d`), but not the change time. Another file of the same name has another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Bytes.
    pub(super) size: u64,
    pub(super) inode: u64,
    /// Nanoseconds since 1970, of the content.
    pub(super) modified_ns: i64,
    /// Nanoseconds since 1970, of content or metadata.
    pub(super) changed_ns: i64,
}

impl Fingerprint {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            size: stat.size,
            inode: stat.id.map_or(0, |id| id.inode),
            modified_ns: stat.modified_ns,
            changed_ns: stat.changed_ns,
        }
    }

    /// Number of the file on its file system; 0 where there is none.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// When the content changed last, in nanoseconds since 1970.
    pub(crate) fn modified_ns(&self) -> i64 {
        self.modified_ns
    }

    /// How the file of this fingerprint differs from the one that now has `other`.
    pub(super) fn change_to(&self, other: &Self) -> Change {
        if self == other {
            Change::None
        } else if (self.size, self.inode) != (other.size, other.inode) {
            Change::Content
        } else if self.modified_ns == other.modified_ns {
            Change::Metadata
        } else {
            Change::Modified
        }
    }

    pub(super) fn modified(&self) -> SystemTime {
        let distance = Duration::from_nanos(self.modified_ns.unsigned_abs());
        let time = if self.modified_ns < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        };
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Longest time in which two writes can get the same timestamps. A file must be unchanged that long before it is read, or a write
    /// while it is read could go unnoticed (git calls such files "racily clean").
    pub(super) fn tick(&self) -> Duration {
        let whole_seconds = self.modified_ns % 1_000_000_000 == 0 && self.changed_ns % 1_000_000_000 == 0;
        if whole_seconds { COARSE_TICK } else { TICK }
    }
}

/// What the metadata of a file says about a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is as it was.
    None,
    /// Only the change time differs: `chmod`, `chown`, a new link, another name. The content is taken to be the same until the file is
    /// hashed again.
    Metadata,
    /// The modification time differs: the content may be another (a write) or the same (`touch`). Hashing it again shows which.
    Modified,
    /// The size differs, or it is another file.
    Content,
}

/// A document of the peer's own share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedDocument {
    /// Path below the share.
    pub name: DocumentName,
    /// RFC number, if the file name has one.
    pub number: Option<u32>,
    /// Title found in the text, else the file name.
    pub title: Box<str>,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the whole.
    pub hash: ContentHash,
    /// Modification time of the file.
    pub modified: SystemTime,
    /// Metadata of the file when it was hashed.
    pub fingerprint: Fingerprint,
}

impl SharedDocument {
    /// What other peers see of it.
    ///
    /// # Errors
    /// When it is larger than documents may be.
    pub fn info(&self) -> Result<DocumentInfo, InvalidField> {
        Ok(DocumentInfo {
            name: self.name.clone(),
            number: self.number,
            title: printable_title(&self.title),
            pieces: Pieces::of_size(self.size)?,
            hash: self.hash,
            modified: Some(self.modified),
            restricted: false,
        })
    }

    /// A digest of everything that other peers can see of the document. Equal sums of digests mean equal indexes.
    pub(super) fn digest(&self) -> u128 {
        let mut bytes = Vec::with_capacity(self.name.as_str().len() + self.title.len() + HASH_BYTES + 40);
        for text in [self.name.as_str(), &self.title] {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes.extend(self.hash.as_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.number.unwrap_or(0).to_le_bytes());
        bytes.extend(self.fingerprint.modified_ns.to_le_bytes());
        let hash = ContentHash::of(&bytes);
        hash.as_bytes().iter().take(size_of::<u128>()).fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}
