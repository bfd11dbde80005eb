//! The first request of a fetch: it tells what the document is, and brings bytes that are of use whatever the plan turns out to be.
//!
//! Of a large document that is known by its hash it asks for one random piece: others who begin at the same time ask for other ones. If the
//! path is long, as the search has shown or as the answer shows by not coming, and nobody else is known to fetch or to have the document, the
//! pieces that follow are requested meanwhile: over a long path a round trip costs as much as a hundred MiB.

use super::{
    download::{self, Incoming, RangeRequest, SourceError, check_header},
    opened::{OpenedRun, OpenedStream},
    options::FetchOptions,
};
use crate::{
    connections::channels::ChannelPool,
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::source::Source,
    transfer::{
        plan::{LONG_DELAY, first_bytes},
        store::{blocking::off_runtime, piece_store::PieceStore},
        swarm::early::EarlyAnnounce,
    },
};
use p2pdi::{
    channel::STREAM_WINDOW,
    content::{ContentHash, PIECE_SIZE_MIN, PieceHashes, Pieces},
    field::InvalidField,
    status::Reason,
    v1::{GetRfcHeader, GetRfcRequest, get_rfc_request},
};
use rand::RngExt as _;
use std::{
    future::pending,
    ops::Range,
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// Asks a holder what a document is.
pub(super) struct Identify<'a> {
    pub(super) channels: &'a ChannelPool,
    pub(super) wanted: &'a DocumentSelector,
    pub(super) options: &'a FetchOptions,
    /// The tracker's answer says whether others fetch too.
    pub(super) early: Option<&'a EarlyAnnounce>,
    /// No other holder is known.
    pub(super) is_sole: bool,
}

/// What a holder said.
pub(super) struct Identified {
    pub(super) document: DocumentInfo,
    pub(super) hashes: PieceHashes,
    /// It has the whole document, as far as is known.
    pub(super) is_whole: bool,
    /// Requests whose bytes follow. Of a document of one piece, it is the first.
    pub(super) runs: Vec<OpenedRun>,
    /// How long the answer took.
    pub(super) delay: Duration,
}

impl Identify<'_> {
    /// Asks `source`.
    ///
    /// # Errors
    /// When it fails, or breaks the contract.
    pub(super) async fn ask(&self, source: &Source) -> Result<Identified, SourceError> {
        if let Some((hash, pieces)) = self.known() {
            let run = if self.is_new(&hash).await { random_piece(pieces) } else { 0..0 };
            let asked = match self.ask_for_run(source, hash, pieces, run).await {
                Err(SourceError::PiecesMissing(_)) => self.ask_for_run(source, hash, pieces, 0..0).await,
                asked => asked,
            };
            match asked {
                Ok(Some(identified)) => return Ok(identified),
                // The document has another size, which is not the fault of this holder.
                Ok(None) => {}
                Err(SourceError::Refused(status)) if Reason::of(&status) == Some(Reason::RangeBeyondEnd) => {}
                Err(error) => return Err(error),
            }
        }
        self.ask_for_all(source).await
    }

    /// Hash and pieces of a large document, if they are known.
    fn known(&self) -> Option<(ContentHash, Pieces)> {
        let DocumentSelector::Hash(hash) = self.wanted else { return None };
        let size = self.options.expected_size.filter(|size| *size > PIECE_SIZE_MIN)?;
        Some((*hash, Pieces::of_size(size).ok()?))
    }

    /// Whether nothing of the document is here yet.
    async fn is_new(&self, hash: &ContentHash) -> bool {
        let Some(name) = self.options.save_as.clone() else { return false };
        let (out, hash) = (self.options.out.clone(), *hash);
        off_runtime(move || Ok(!PieceStore::is_begun(&out, &name, &hash))).await.unwrap_or(false)
    }

    /// Asks for these pieces, or for the header only. `None`: the document has another size.
    async fn ask_for_run(
        &self,
        source: &Source,
        hash: ContentHash,
        pieces: Pieces,
        run: Range<usize>,
    ) -> Result<Option<Identified>, SourceError> {
        let range = if run.is_empty() { pieces.size()..pieces.size() } else { pieces.range(run.start) };
        let length = range.end - range.start;
        let request = GetRfcRequest {
            document: Some(get_rfc_request::Document::Blake3(hash.to_field())),
            offset: range.start,
            length,
            in_turn: !run.is_empty(),
            accepts_queued: true,
            from_peer: self.options.swarms.own_id().to_field(),
            ..Default::default()
        };
        let (sent, mut ahead) = (Instant::now(), Vec::new());
        let (header, incoming) = tokio::select! {
            biased;
            opened = download::open(self.channels, source, request, self.options.stall) => opened?,
            () = self.open_ahead(source, hash, pieces, &run, sent, &mut ahead) => return Ok(None),
        };
        let began = Instant::now();
        if header.document.as_ref().is_some_and(|document| document.size != pieces.size()) {
            return Ok(None);
        }
        let (document, hashes) = self.check(&header, range.start, Some(length))?;
        let is_whole = !run.is_empty();
        let first = OpenedRun { pieces: run, sent, stream: OpenedStream::Began(began, Box::new(incoming)) };
        let runs = Some(first).filter(|first| !first.pieces.is_empty()).into_iter().chain(ahead).collect();
        Ok(Some(Identified { document, hashes, is_whole, runs, delay: began - sent }))
    }

    /// Asks for the whole document.
    async fn ask_for_all(&self, source: &Source) -> Result<Identified, SourceError> {
        let wanted = match self.wanted {
            DocumentSelector::Number(number) => get_rfc_request::Document::Number(*number),
            DocumentSelector::Name(name) => get_rfc_request::Document::Name(name.to_string()),
            DocumentSelector::Hash(hash) => get_rfc_request::Document::Blake3(hash.to_field()),
        };
        let request = GetRfcRequest { document: Some(wanted), accepts_queued: true, ..Default::default() };
        let sent = Instant::now();
        let (header, incoming) = download::open(self.channels, source, request, self.options.stall).await?;
        let (document, hashes) = self.check(&header, 0, None)?;
        let pieces = 0..hashes.pieces().count();
        let began = Instant::now();
        let runs = vec![OpenedRun { pieces, sent, stream: OpenedStream::Began(began, Box::new(incoming)) }];
        Ok(Identified { document, hashes, is_whole: true, runs, delay: began - sent })
    }

    fn check(&self, header: &GetRfcHeader, offset: u64, length: Option<u64>) -> Result<(DocumentInfo, PieceHashes), SourceError> {
        let document = check_header(header, offset, length)?;
        if !self.wanted.selects(&document) {
            return Err(SourceError::Protocol(format!("answered with {} instead of {}", document.name, self.wanted)));
        }
        let hashes = PieceHashes::verified(document.pieces, &header.piece_hashes, &document.hash).map_err(InvalidField::from)?;
        Ok((document, hashes))
    }

    /// Requests the pieces but `first`, as many as the path carries in its delay or, if that is not known, by now, while the answer is awaited.
    /// Never ends.
    async fn open_ahead(
        &self,
        source: &Source,
        hash: ContentHash,
        pieces: Pieces,
        first: &Range<usize>,
        sent: Instant,
        ahead: &mut Vec<OpenedRun>,
    ) {
        let window = u64::from(STREAM_WINDOW);
        // Known from the search: the answer takes as long again.
        let delay = source.answered_in.filter(|delay| *delay >= LONG_DELAY);
        if delay.is_none() {
            sleep(LONG_DELAY).await;
        }
        let is_limited = self.options.limit.bytes_per_second().is_some();
        if first.is_empty() || is_limited || !self.is_alone(source).await {
            return pending().await;
        }
        let run_pieces = usize::try_from(window / pieces.piece_size()).unwrap_or(1).max(1);
        let (mut next, mut bytes) = (0, 0);
        loop {
            while bytes < first_bytes(sent.elapsed().max(delay.unwrap_or_default()), window) && next < pieces.count() {
                let end = pieces.count().min(next + run_pieces);
                let run = if (next..end).contains(&first.start) { next..first.start } else { next..end };
                // The piece that is requested already is left out.
                next = if run.end == first.start { first.end } else { run.end };
                if run.is_empty() {
                    continue;
                }
                bytes += pieces.range(run.end - 1).end - pieces.range(run.start).start;
                ahead.push(self.open_one(source, hash, pieces, run));
            }
            sleep(LONG_DELAY).await;
        }
    }

    /// Whether nobody else is known to have the document, or to fetch it.
    async fn is_alone(&self, source: &Source) -> bool {
        let others = match self.early {
            Some(early) => early.answer().await.map(|answer| answer.others).unwrap_or_default(),
            None => Vec::new(),
        };
        self.is_sole && others.iter().all(|other| other.complete && other.source == *source)
    }

    fn open_one(&self, source: &Source, hash: ContentHash, pieces: Pieces, run: Range<usize>) -> OpenedRun {
        let own_id = self.options.swarms.own_id();
        let wanted = RangeRequest { hash, pieces, run: run.clone(), in_turn: true, own_id };
        let (channels, source, stall) = (self.channels.clone(), source.clone(), self.options.stall);
        let opening: tokio::task::JoinHandle<Result<Incoming, SourceError>> =
            tokio::spawn(async move { download::open_range(&channels, &source, wanted, stall).await });
        OpenedRun { pieces: run, sent: Instant::now(), stream: OpenedStream::Opening(AbortOnDropHandle::new(opening)) }
    }
}

/// A run of one random piece.
fn random_piece(pieces: Pieces) -> Range<usize> {
    let piece = rand::rng().random_range(0..pieces.count());
    piece..piece + 1
}
