//! What is sent: a document of the share, or the verified pieces of one that is under way.

use bytes::{Bytes, BytesMut};
use p2pdi::{
    content::{ContentHash, Pieces},
    log_limit::{Line, LogLimit},
    status::Reason,
    v1::{Document, GetRfcHeader},
};
use std::{fmt, io, ops::Range, sync::Arc};
use tonic::Status;

use crate::documents::share::{Change, OpenDocument, OpenError, Share, SharedDocument, Verdict};

/// A document that is not whole. Its verified pieces are served. All methods but the first two block.
pub(crate) trait PartialDocument: Send + Sync + fmt::Debug {
    /// Its metadata, as an index would list it.
    fn document(&self) -> &Document;

    /// BLAKE3 of the whole.
    fn hash(&self) -> ContentHash;

    /// The piece hashes, joined, as GetRFC's header carries them.
    fn joined_hashes(&self) -> Bytes;

    /// Whether every piece that has a byte in `range` is verified.
    fn is_verified(&self, range: &Range<u64>) -> bool;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When the file cannot be read, or a piece of the range is not verified.
    fn read_verified_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Where the bytes come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// A document of the share; whether it is for some only.
    Shared { share: Share, document: Arc<SharedDocument>, restricted: bool },
    /// One that is under way.
    Partial(Arc<dyn PartialDocument>),
}

impl Source {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Shared { document, .. } => document.size,
            Self::Partial(partial) => partial.document().size,
        }
    }

    pub(crate) fn hash(&self) -> ContentHash {
        match self {
            Self::Shared { document, .. } => document.hash,
            Self::Partial(partial) => partial.hash(),
        }
    }

    /// The label of its bytes in metrics.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Shared { .. } => Kind::Whole,
            Self::Partial(_) => Kind::Partial,
        }
    }

    /// The header of an answer with `range`. Blocking.
    ///
    /// # Errors
    /// When the piece hashes are wanted and not known now, or a piece of the range is missing.
    pub(super) fn header(&self, range: &Range<u64>, with_piece_hashes: bool) -> Result<GetRfcHeader, Status> {
        let (document, hashes) = match self {
            Self::Shared { share, document, restricted } => {
                let hashes = || share.piece_hashes(document).ok_or_else(|| hashed_again(&document.name));
                let shown = Document { restricted: *restricted, ..Document::from(document.as_ref()) };
                (shown, with_piece_hashes.then(hashes).transpose()?.map(|hashes| hashes.joined()))
            }
            Self::Partial(partial) => {
                check_verified(partial.as_ref(), range)?;
                (partial.document().clone(), with_piece_hashes.then(|| partial.joined_hashes()))
            }
        };
        Ok(GetRfcHeader {
            piece_size: Pieces::of_size(document.size)?.piece_size(),
            document: Some(document),
            piece_hashes: hashes.unwrap_or_default(),
            offset: range.start,
            served_length: range.end - range.start,
        })
    }

    /// Opens it for reading. Blocking.
    ///
    /// # Errors
    /// When the file cannot be opened, or is not the document any more.
    pub(super) fn open(self) -> Result<Readable, Status> {
        match self {
            Self::Shared { share, document, .. } => {
                let file = share.open_document(&document).map_err(|error| refuse_open(&document, &error))?;
                Ok(Readable::Shared(Box::new(Shared { share, document, file })))
            }
            Self::Partial(partial) => Ok(Readable::Partial(partial)),
        }
    }
}

/// How much of the document is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All.
    Whole,
    /// Some pieces.
    Partial,
}

/// An opened [`Source`].
pub(super) enum Readable {
    Shared(Box<Shared>),
    Partial(Arc<dyn PartialDocument>),
}

/// The open file of a document of the share.
pub(super) struct Shared {
    share: Share,
    document: Arc<SharedDocument>,
    file: OpenDocument,
}

/// What a read gave.
pub(super) enum Read {
    /// The document's bytes.
    Bytes(Bytes),
    /// The file was modified and is being hashed again: read again later.
    HashedAgain,
}

impl Readable {
    /// Reads `range`. Blocking.
    ///
    /// # Errors
    /// When the file is not the document any more, or cannot be read.
    pub(super) fn read(&mut self, range: &Range<u64>) -> Result<Read, Status> {
        let length = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut data = BytesMut::zeroed(length);
        match self {
            Self::Shared(shared) => return shared.read(data, range.start),
            Self::Partial(partial) => {
                if let Err(error) = partial.read_verified_at(&mut data, range.start) {
                    check_verified(partial.as_ref(), range)?;
                    return Err(unreadable(&error));
                }
            }
        }
        Ok(Read::Bytes(data.freeze()))
    }

    /// The name of the document, for messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Shared(shared) => shared.document.name.as_str(),
            Self::Partial(partial) => &partial.document().name,
        }
    }
}

impl Shared {
    fn read(&mut self, mut data: BytesMut, offset: u64) -> Result<Read, Status> {
        // Twice only if the file was hashed again in the meantime.
        for _ in 0..2 {
            let read = self.file.read_at(&mut data, offset);
            // Asked after the read: what was read before a change is of the old content.
            let change = self.file.change();
            let verdict = match change {
                Change::None => Verdict::Pending,
                Change::Metadata | Change::Modified => self.share.verdict(&self.document),
                Change::Content => Verdict::Changed,
            };
            match verdict {
                Verdict::Pending if change == Change::Modified => return Ok(Read::HashedAgain),
                Verdict::Pending => return read.map(|()| Read::Bytes(data.freeze())).map_err(|error| unreadable(&error)),
                Verdict::Same(document) => match self.share.open_document(&document) {
                    Ok(file) => (self.file, self.document) = (file, document),
                    Err(OpenError::Modified) => return Ok(Read::HashedAgain),
                    Err(error) => return Err(refuse_open(&document, &error)),
                },
                Verdict::Changed => return Err(changed()),
            }
        }
        Ok(Read::HashedAgain)
    }
}

fn check_verified(partial: &dyn PartialDocument, range: &Range<u64>) -> Result<(), Status> {
    if partial.is_verified(range) {
        return Ok(());
    }
    Err(Reason::PiecesMissing.status(format!(
        "{} is not whole here, and pieces of bytes {} to {} are missing; ask for pieces that Availability names, or another holder",
        partial.document().name,
        range.start,
        range.end
    )))
}

/// A refusal while a file is hashed again.
pub(super) fn hashed_again(name: &impl fmt::Display) -> Status {
    Reason::DocumentUnreadable.status(format!("{name} is being hashed again; try again in a moment, or ask another holder"))
}

fn changed() -> Status {
    Reason::DocumentChanged.status("the file changed while it was served; ask for the document again to get its new version")
}

fn unreadable(error: &io::Error) -> Status {
    static LOG: LogLimit = LogLimit::new(1);
    if let Some(Line { suppressed }) = LOG.line() {
        tracing::warn!(%error, suppressed, "cannot read a document any more");
    }
    Reason::DocumentUnreadable.status("the file cannot be read any more; ask another holder")
}

fn refuse_open(document: &SharedDocument, error: &OpenError) -> Status {
    match error {
        OpenError::Changed | OpenError::Gone => changed(),
        OpenError::Modified => hashed_again(&document.name),
        OpenError::Unreadable(error) => {
            static LOG: LogLimit = LogLimit::new(1);
            if let Some(Line { suppressed }) = LOG.line() {
                tracing::warn!(name = %document.name, %error, suppressed, "cannot open a shared document");
            }
            Reason::DocumentUnreadable.status(format!("{} cannot be read now; ask another holder", document.name))
        }
    }
}
