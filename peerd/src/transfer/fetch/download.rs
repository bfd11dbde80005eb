//! Opens one GetRFC stream and checks its messages.

use super::source_selection::{Fault, WRONG_BYTES};
use crate::{
    connections::channels::ChannelPool, documents::info::DocumentInfo, holders::source::Source, transfer::chunk::CHUNK_BYTES,
};
use bytes::{Bytes, BytesMut};
use p2pdi::{
    backoff::pause_after,
    content::{ContentHash, PieceHashes, Pieces},
    field::InvalidField,
    id::PeerId,
    status::{self, Reason},
    v1::{Chunk, GetRfcHeader, GetRfcRequest, GetRfcResponse, get_rfc_request, get_rfc_response::Part},
};
use std::{
    error::Error as _,
    ops::Range,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

/// A source that sends fewer bytes than this within the stall timeout counts as stalled.
const DRIP_BYTES: u64 = 4 * 1024;

/// Why a source failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// It refused, or the call failed.
    #[error("{}", status::describe(.0))]
    Refused(Status),
    /// It does not have all pieces of the range (any more).
    #[error("{}", status::describe(.0))]
    PiecesMissing(Status),
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
    #[error("{WRONG_BYTES}{0}")]
    WrongBytes(usize),
}

impl SourceError {
    /// Whether the source may be asked again.
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Stalled(_) | Self::EndedEarly { .. } | Self::PiecesMissing(_) => Fault::Transient,
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

    /// Whether the source says that it does not have this content, or not any more.
    pub(super) fn is_gone(&self) -> bool {
        let Self::Refused(status) = self else { return false };
        matches!(Reason::of(status), Some(Reason::DocumentUnknown | Reason::DocumentChanged))
    }

    /// When the source may be asked again, if it said so: with jitter.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(status) => status::retry_after(status).map(|asked| pause_after(asked, rand::random())),
            _ => None,
        }
    }

    /// Whether the source must be treated as malicious: nothing that it sent is trusted.
    pub(super) fn is_lie(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::Header(_) | Self::WrongBytes(_))
    }
}

/// What a stream brings after its header.
pub(super) enum Received {
    /// The next bytes.
    Chunk(u64, Bytes),
    /// It waits in line at the holder.
    Queued,
    /// The range is complete.
    End,
}

/// A stream after its header.
pub(super) struct Incoming {
    stream: Streaming<GetRfcResponse>,
    stall: Duration,
    /// First byte of the document after what the header announces.
    end: u64,
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
    let stream = answer.map_err(refused)?.into_inner();
    let mut incoming = Incoming { stream, stall, end: 0, window: (Instant::now(), 0) };
    loop {
        match incoming.next().await? {
            Some(Part::Header(header)) => {
                incoming.end = header.offset.saturating_add(header.served_length);
                return Ok((header, incoming));
            }
            Some(Part::Queued(_)) => {}
            Some(Part::Chunk(_)) => return Err(SourceError::Protocol("a chunk before the header".into())),
            None => return Err(SourceError::EndedEarly { got: 0, expected: 1 }),
        }
    }
}

fn refused(status: Status) -> SourceError {
    match Reason::of(&status) {
        Some(Reason::PiecesMissing) => SourceError::PiecesMissing(status),
        _ => SourceError::Refused(status),
    }
}

/// A range of a known document, as a request for it.
pub(super) struct RangeRequest {
    pub(super) hash: ContentHash,
    pub(super) pieces: Pieces,
    /// Which pieces.
    pub(super) run: Range<usize>,
    /// See `GetRFCRequest.in_turn`.
    pub(super) in_turn: bool,
    /// This peer.
    pub(super) own_id: PeerId,
}

/// Asks `source` for a run of pieces and checks that the header is that of the range.
///
/// # Errors
/// As [`open`], and when the header is of another document or range.
pub(super) async fn open_range(
    channels: &ChannelPool,
    source: &Source,
    wanted: RangeRequest,
    stall: Duration,
) -> Result<Incoming, SourceError> {
    let RangeRequest { hash, pieces, run, in_turn, own_id } = wanted;
    let range = pieces.range(run.start).start..pieces.range(run.end - 1).end;
    let request = GetRfcRequest {
        document: Some(get_rfc_request::Document::Blake3(hash.to_field())),
        offset: range.start,
        length: range.end - range.start,
        without_piece_hashes: true,
        in_turn,
        accepts_queued: true,
        from_peer: own_id.to_field(),
    };
    let (header, incoming) = open(channels, source, request, stall).await?;
    let got = check_header(&header, range.start, Some(range.end - range.start))?;
    if got.hash != hash || got.size() != pieces.size() {
        return Err(SourceError::Protocol("answered with another document".into()));
    }
    Ok(incoming)
}

/// Checks all of a header but the piece hashes. `length`: bytes asked for from `offset`; `None`: all up to the end.
pub(super) fn check_header(header: &GetRfcHeader, offset: u64, length: Option<u64>) -> Result<DocumentInfo, SourceError> {
    let Some(document) = header.document.clone() else {
        return Err(SourceError::Protocol("a header without a document".into()));
    };
    let document = DocumentInfo::try_from(document)?;
    let length = length.unwrap_or(document.size().saturating_sub(offset));
    if header.piece_size != document.pieces.piece_size() || header.offset != offset || header.served_length != length {
        return Err(SourceError::Protocol(format!(
            "its header says {} bytes at {} in pieces of {}; requested were {length} bytes at {offset} in pieces of {}",
            header.served_length,
            header.offset,
            header.piece_size,
            document.pieces.piece_size()
        )));
    }
    Ok(document)
}

impl Incoming {
    /// First byte of the document after what the header announces.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    async fn next(&mut self) -> Result<Option<Part>, SourceError> {
        let message = timeout(self.stall, self.stream.message()).await.map_err(|_| SourceError::Stalled(self.stall))?;
        match message.map_err(refused)? {
            Some(GetRfcResponse { part: Some(part) }) => Ok(Some(part)),
            Some(GetRfcResponse { part: None }) => Err(SourceError::Protocol("an empty message".into())),
            None => Ok(None),
        }
    }

    /// Receives a small document into memory.
    ///
    /// # Errors
    /// When the source fails, or the bytes are not those of `hashes`.
    pub(super) async fn collect(mut self, hashes: &PieceHashes) -> Result<Bytes, SourceError> {
        let size = hashes.pieces().size();
        // Mostly there is one chunk, which is not copied: many documents arrive at the same time. Several are: a holder may send a byte in
        // each, and every chunk that is kept costs a handle, and keeps the buffer that it arrived in.
        let (mut only, mut several, mut received) = (Bytes::new(), BytesMut::new(), 0);
        loop {
            match self.next_chunk(received, &(0..size)).await? {
                Received::Chunk(_, data) => {
                    received += data.len() as u64;
                    if received == data.len() as u64 {
                        only = data;
                    } else {
                        several.extend_from_slice(&std::mem::take(&mut only));
                        several.extend_from_slice(&data);
                    }
                }
                Received::Queued => {}
                Received::End => break,
            }
        }
        let whole = if several.is_empty() { only } else { several.freeze() };
        let mut hasher = hashes.pieces().hasher(0);
        hasher.update(&whole);
        if Some(hasher.finalize()) == hashes.get(0) { Ok(whole) } else { Err(SourceError::WrongBytes(0)) }
    }

    /// What comes next of `range`, whose byte `at` is next.
    ///
    /// # Errors
    /// When the source fails, sends too little for the stall timeout, or breaks the contract.
    pub(super) async fn next_chunk(&mut self, at: u64, range: &Range<u64>) -> Result<Received, SourceError> {
        let Some(part) = self.next().await? else {
            let (got, expected) = (at - range.start, range.end - range.start);
            return if got == expected { Ok(Received::End) } else { Err(SourceError::EndedEarly { got, expected }) };
        };
        let Chunk { offset, data } = match part {
            Part::Chunk(chunk) => chunk,
            Part::Queued(_) => {
                // Not a stall.
                self.window = (Instant::now(), 0);
                return Ok(Received::Queued);
            }
            Part::Header(_) => return Err(SourceError::Protocol("a second header".into())),
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
        Ok(Received::Chunk(offset, data))
    }
}
