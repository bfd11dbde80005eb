//! Reads ranges of a document that other peers have, verified, into memory. Nothing is stored.
//!
//! Each piece is checked against its hash before a byte of it is returned. Who reads on from where the last read ended gets longer and longer
//! runs of pieces with one request.

use super::{
    download::{self, RangeRequest, Received, SourceError, check_header},
    source_selection::{SourceReport, SourceSelection},
};
use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::source::Source,
};
use bytes::{Bytes, BytesMut};
use p2pdi::{
    content::PieceHashes,
    field::InvalidField,
    id::PeerId,
    v1::{GetRfcRequest, get_rfc_request},
};
use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Most bytes of one request: enough that its round trip costs little beside the transfer.
const RUN_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most bytes of verified pieces kept, beside those of the last request: a reader that goes back a little asks nobody.
const KEPT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why a range cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("no holder could deliver {wanted}: {}", list(.sources))]
pub struct ReadError {
    /// The document.
    pub wanted: DocumentSelector,
    /// Each holder and why it was dropped.
    pub sources: Vec<SourceReport>,
}

fn list(sources: &[SourceReport]) -> String {
    let each = |report: &SourceReport| format!("{}: {}", report.source, report.dropped.as_deref().unwrap_or("not asked"));
    sources.iter().map(each).collect::<Vec<_>>().join("; ")
}

/// A document at other peers, open for reading.
pub struct PieceReader {
    channels: ChannelPool,
    document: DocumentInfo,
    hashes: PieceHashes,
    own_id: PeerId,
    stall: Duration,
    sources: SourceSelection,
    /// Verified pieces, the latest last.
    kept: VecDeque<(usize, Bytes)>,
    /// The piece after the last run, and how many pieces the next run has if it begins there.
    next: Option<(usize, usize)>,
}

impl PieceReader {
    /// Opens `document` at one of its holders, which names the hashes of its pieces. They merge to the hash of the document, so that no holder
    /// is trusted.
    ///
    /// # Errors
    /// When no holder names them.
    pub async fn open(
        channels: ChannelPool,
        document: DocumentInfo,
        holders: Vec<Source>,
        own_id: PeerId,
        stall: Duration,
    ) -> Result<Self, ReadError> {
        let mut sources = SourceSelection::new(holders);
        let hashes = loop {
            let index = next(&sources, &document).await?;
            match header(&channels, sources.get(index), &document, own_id, stall).await {
                Ok(hashes) => break hashes,
                Err(error) => failed(&mut sources, index, &error),
            }
        };
        Ok(Self { channels, document, hashes, own_id, stall, sources, kept: VecDeque::new(), next: None })
    }

    /// What is read.
    pub fn document(&self) -> &DocumentInfo {
        &self.document
    }

    /// How its holders did.
    pub fn sources(&self) -> Vec<SourceReport> {
        self.sources.reports()
    }

    /// Bytes from `offset` on, up to the end of a piece and at most `length`; empty at the end of the document.
    ///
    /// # Errors
    /// When no holder delivers them.
    pub async fn read_at(&mut self, offset: u64, length: usize) -> Result<Bytes, ReadError> {
        if offset >= self.document.size() || length == 0 {
            return Ok(Bytes::new());
        }
        let piece = self.document.pieces.index_at(offset);
        let data = match self.kept(piece) {
            Some(data) => data,
            None => self.fetch(piece).await?,
        };
        let begin = usize::try_from(offset - self.document.pieces.range(piece).start).unwrap_or(usize::MAX).min(data.len());
        let end = begin.saturating_add(length).min(data.len());
        Ok(data.slice(begin..end))
    }

    fn kept(&self, piece: usize) -> Option<Bytes> {
        self.kept.iter().find(|(kept, _)| *kept == piece).map(|(_, data)| data.clone())
    }

    /// Fetches a piece, and those after it of a reader that reads on; returns the piece.
    async fn fetch(&mut self, piece: usize) -> Result<Bytes, ReadError> {
        let pieces = self.document.pieces;
        let most = usize::try_from(RUN_BYTES_MAX / pieces.piece_size()).unwrap_or(1).max(1);
        let length = match self.next {
            Some((next, length)) if next == piece => length.min(most),
            _ => 1,
        };
        let run = piece..pieces.count().min(piece + length);
        loop {
            let index = next(&self.sources, &self.document).await?;
            let source = self.sources.get(index).clone();
            match self.fetch_run(&source, run.clone()).await {
                Ok(fetched) => {
                    self.sources.progressed(index, fetched.iter().map(|data| data.len() as u64).sum());
                    self.next = Some((run.end, length * 2));
                    let first = fetched.first().cloned().unwrap_or_default();
                    self.keep(run, fetched);
                    return Ok(first);
                }
                Err(error) => failed(&mut self.sources, index, &error),
            }
        }
    }

    /// Fetches these pieces from one holder, and checks them.
    async fn fetch_run(&self, source: &Source, run: Range<usize>) -> Result<Vec<Bytes>, SourceError> {
        let (hash, pieces) = (self.document.hash, self.document.pieces);
        let wanted = RangeRequest { hash, pieces, run: run.clone(), in_turn: false, own_id: self.own_id };
        let mut incoming = download::open_range(&self.channels, source, wanted, self.stall).await?;
        let range = pieces.range(run.start).start..pieces.range(run.end - 1).end;
        let mut received = BytesMut::with_capacity(usize::try_from(range.end - range.start).unwrap_or_default());
        loop {
            match incoming.next_chunk(range.start + received.len() as u64, &range).await? {
                Received::Chunk(_, data) => received.extend_from_slice(&data),
                Received::Queued => {}
                Received::End => break,
            }
        }
        let mut received = received.freeze();
        run.map(|piece| {
            let range = pieces.range(piece);
            let data = received.split_to(usize::try_from(range.end - range.start).unwrap_or_default());
            let mut hasher = pieces.hasher(piece);
            hasher.update(&data);
            if Some(hasher.finalize()) == self.hashes.get(piece) { Ok(data) } else { Err(SourceError::WrongBytes(piece)) }
        })
        .collect()
    }

    fn keep(&mut self, run: Range<usize>, fetched: Vec<Bytes>) {
        let room = KEPT_BYTES_MAX.max(fetched.iter().map(|data| data.len() as u64).sum());
        self.kept.extend(run.zip(fetched));
        let mut bytes: u64 = self.kept.iter().map(|(_, data)| data.len() as u64).sum();
        while bytes > room
            && let Some((_, oldest)) = self.kept.pop_front()
        {
            bytes -= oldest.len() as u64;
        }
    }
}

/// The holder to ask next, after a pause if it failed.
async fn next(sources: &SourceSelection, document: &DocumentInfo) -> Result<usize, ReadError> {
    let Some((index, pause)) = sources.next(Instant::now()) else {
        return Err(ReadError { wanted: DocumentSelector::Name(document.name.clone()), sources: sources.reports() });
    };
    sleep(pause).await;
    Ok(index)
}

fn failed(sources: &mut SourceSelection, index: usize, error: &SourceError) {
    tracing::debug!(holder = %sources.get(index), %error, "a holder failed");
    let failed_at = Instant::now() + error.retry_after().unwrap_or_default();
    sources.failed(index, error.fault(), error.to_string(), failed_at);
}

/// Asks for the hashes of the pieces, and no byte of them.
async fn header(
    channels: &ChannelPool,
    source: &Source,
    document: &DocumentInfo,
    own_id: PeerId,
    stall: Duration,
) -> Result<PieceHashes, SourceError> {
    let size = document.size();
    let request = GetRfcRequest {
        document: Some(get_rfc_request::Document::Blake3(document.hash.to_field())),
        offset: size,
        length: 0,
        accepts_queued: true,
        from_peer: own_id.to_field(),
        ..Default::default()
    };
    let (header, _incoming) = download::open(channels, source, request, stall).await?;
    let found = check_header(&header, size, Some(0))?;
    if found.hash != document.hash || found.size() != size {
        return Err(SourceError::Protocol("answered with another document".into()));
    }
    Ok(PieceHashes::verified(document.pieces, &header.piece_hashes, &document.hash).map_err(InvalidField::from)?)
}
