//! Receives one GetRFC stream: checks its messages and passes its bytes to the disk.

use super::{progress::Progress, source_selection::Fault};
use crate::{
    connections::channels::ChannelPool,
    holders::source::Source,
    transfer::{
        chunk::CHUNK_BYTES,
        store::{
            blocking::off_runtime,
            error::WriteError,
            piece_store::PieceStore,
            piece_writer::{PieceWriter, WrongPiece},
        },
    },
};
use bytes::{Bytes, BytesMut};
use p2pdi::{
    content::PieceHashes,
    field::InvalidField,
    status,
    v1::{Chunk, GetRfcHeader, GetRfcRequest, GetRfcResponse, get_rfc_response::Part},
};
use std::{
    error::Error as _,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Status, Streaming};

/// Chunks queued between the network and the disk, 4 MiB at most: enough to absorb short delays of either.
const WRITE_QUEUE: usize = 16;

/// A source that sends fewer bytes than this within the stall timeout counts as stalled.
const DRIP_BYTES: u64 = 4 * 1024;

/// Why a source failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// It refused, or the call failed.
    #[error("{}", status::describe(.0))]
    Refused(Status),
    /// It sent too little for the length of the stall timeout.
    #[error("stalled: less than {DRIP_BYTES} bytes in {} s", .0.as_secs_f32())]
    Stalled(Duration),
    /// The stream ended before the range did.
    #[error("ended early: received {got} of {expected} bytes")]
    EndedEarly {
        /// Bytes received.
        got: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// It broke the contract.
    #[error("broke the protocol: {0}")]
    Protocol(String),
    /// Its header has an invalid field.
    #[error("sent an invalid header: {0}")]
    Header(#[from] InvalidField),
    /// It sent bytes that do not match the piece's hash.
    #[error("sent wrong bytes in piece {0}")]
    WrongBytes(usize),
}

impl SourceError {
    /// Whether the source may be asked again.
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Stalled(_) | Self::EndedEarly { .. } => Fault::Transient,
            Self::Refused(status) => match status.code() {
                Code::NotFound
                | Code::Aborted
                | Code::InvalidArgument
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::PermissionDenied
                | Code::Unauthenticated => Fault::Final,
                // A status that the server sent; one made of a broken connection has a source.
                Code::ResourceExhausted | Code::Unavailable if status.source().is_none() => Fault::Busy,
                _ => Fault::Transient,
            },
            Self::Protocol(_) | Self::Header(_) | Self::WrongBytes(_) => Fault::Final,
        }
    }

    /// Whether the source must be treated as malicious: nothing that it sent is trusted.
    pub(super) fn is_lie(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::Header(_) | Self::WrongBytes(_))
    }
}

/// A stream after its header.
pub(super) struct Incoming {
    stream: Streaming<GetRfcResponse>,
    stall: Duration,
    /// Start of the current window for [`DRIP_BYTES`], and the bytes received in it.
    window: (Instant, u64),
}

/// Sends `request` to `source` and waits for the header.
///
/// # Errors
/// When it cannot be reached, refuses, stalls, or sends something else first.
pub(super) async fn open(
    channels: &ChannelPool,
    source: &Source,
    request: GetRfcRequest,
    stall: Duration,
) -> Result<(GetRfcHeader, Incoming), SourceError> {
    let mut client = channels.peer_at(&source.addresses(), source.name.as_ref());
    let answer = timeout(stall, client.get_rfc(request)).await.map_err(|_| SourceError::Stalled(stall))?;
    let mut incoming =
        Incoming { stream: answer.map_err(SourceError::Refused)?.into_inner(), stall, window: (Instant::now(), 0) };
    match incoming.next().await? {
        Some(Part::Header(header)) => Ok((header, incoming)),
        Some(Part::Chunk(_) | Part::Queued(_)) => Err(SourceError::Protocol("a chunk before the header".into())),
        None => Err(SourceError::EndedEarly { got: 0, expected: 1 }),
    }
}

impl Incoming {
    async fn next(&mut self) -> Result<Option<Part>, SourceError> {
        loop {
            let message = timeout(self.stall, self.stream.message()).await.map_err(|_| SourceError::Stalled(self.stall))?;
            return match message.map_err(SourceError::Refused)? {
                // The stream waits in line at the source: not a stall.
                Some(GetRfcResponse { part: Some(Part::Queued(_)) }) => {
                    self.window = (Instant::now(), 0);
                    continue;
                }
                Some(GetRfcResponse { part: Some(part) }) => Ok(Some(part)),
                Some(GetRfcResponse { part: None }) => Err(SourceError::Protocol("an empty message".into())),
                None => Ok(None),
            };
        }
    }

    /// Receives `range` into `store`. Returns how many bytes were verified, and the source's error if it failed.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) async fn download(
        mut self,
        store: &Arc<PieceStore>,
        range: Range<u64>,
        progress: Arc<Progress>,
    ) -> Result<(u64, Result<(), SourceError>), WriteError> {
        let (to_disk, mut chunks) = mpsc::channel::<(u64, Bytes)>(WRITE_QUEUE);
        let mut writer = PieceWriter::new(store);
        let writing = off_runtime(move || {
            let mut verified = 0;
            while let Some((offset, data)) = chunks.blocking_recv() {
                progress.received(data.len() as u64, Instant::now());
                match writer.write(offset, &data)? {
                    Ok(bytes) => {
                        verified += bytes;
                        progress.advance(bytes);
                    }
                    Err(wrong) => return Ok((verified, Some(wrong))),
                }
            }
            Ok((verified, None))
        });
        let received = self.forward(&range, &to_disk).await;
        drop(to_disk);
        let (verified, wrong) = writing.await?;
        let source = match wrong {
            Some(WrongPiece { index }) => Err(SourceError::WrongBytes(index)),
            None => received,
        };
        Ok((verified, source))
    }

    /// Receives a small document into memory.
    ///
    /// # Errors
    /// When the source fails, or the bytes are not those of `hashes`.
    pub(super) async fn collect(mut self, hashes: &PieceHashes) -> Result<Bytes, SourceError> {
        let size = hashes.pieces().size();
        let mut whole = BytesMut::new();
        while let Some((_, data)) = self.next_chunk(whole.len() as u64, &(0..size)).await? {
            whole.extend_from_slice(&data);
        }
        let mut hasher = hashes.pieces().hasher(0);
        hasher.update(&whole);
        if Some(hasher.finalize()) == hashes.get(0) { Ok(whole.freeze()) } else { Err(SourceError::WrongBytes(0)) }
    }

    /// The next chunk of `range`, which begins at byte `at`; `None` at the end of a complete stream.
    async fn next_chunk(&mut self, at: u64, range: &Range<u64>) -> Result<Option<(u64, Bytes)>, SourceError> {
        let Some(part) = self.next().await? else {
            let (got, expected) = (at - range.start, range.end - range.start);
            return if got == expected { Ok(None) } else { Err(SourceError::EndedEarly { got, expected }) };
        };
        let Part::Chunk(Chunk { offset, data }) = part else {
            return Err(SourceError::Protocol("a second header".into()));
        };
        if offset != at || data.is_empty() {
            return Err(SourceError::Protocol(format!("a chunk of {} bytes at offset {offset}, expected {at}", data.len())));
        }
        if data.len() > CHUNK_BYTES {
            return Err(SourceError::Protocol(format!("a chunk of {} bytes; at most {CHUNK_BYTES} are allowed", data.len())));
        }
        self.window.1 += data.len() as u64;
        if self.window.0.elapsed() >= self.stall {
            if self.window.1 < DRIP_BYTES && at + (data.len() as u64) < range.end {
                return Err(SourceError::Stalled(self.stall));
            }
            self.window = (Instant::now(), 0);
        }
        if data.len() as u64 > range.end - at {
            return Err(SourceError::Protocol("more bytes than its header announces".into()));
        }
        Ok(Some((offset, data)))
    }

    async fn forward(&mut self, range: &Range<u64>, to_disk: &mpsc::Sender<(u64, Bytes)>) -> Result<(), SourceError> {
        let mut at = range.start;
        while let Some((offset, data)) = self.next_chunk(at, range).await? {
            at += data.len() as u64;
            if to_disk.send((offset, data)).await.is_err() {
                // The writer ended first and reports the error.
                return Ok(());
            }
        }
        Ok(())
    }
}
