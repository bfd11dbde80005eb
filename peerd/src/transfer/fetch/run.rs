//! Receives the pieces of one request: from the network to the disk, and tells the driver what happens.

use super::{
    download::{Incoming, Received, SourceError},
    payment::Payment,
};
use crate::transfer::{
    plan::RequestId,
    store::{
        blocking::off_runtime,
        error::WriteError,
        piece_store::PieceStore,
        piece_writer::{PieceWriter, WriterEnd, WrongPiece},
    },
    throttle::Throttle,
};
use bytes::Bytes;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Chunks queued between the network and the disk for each request, 1 MiB at most: enough to absorb short delays of either.
const WRITE_QUEUE: usize = 4;

/// What happens to a request.
#[derive(Debug)]
pub(super) enum RunEvent {
    /// Its header arrived.
    Began,
    /// It waits in line at the holder.
    Queued,
    /// Bytes arrived.
    Arrived(u64),
    /// A piece is verified.
    Verified(usize),
    /// It ended. The outer error is the disk's, the inner one the holder's.
    Ended(Result<Result<(), SourceError>, WriteError>),
}

/// A request under way, as the driver and its stream share it.
#[derive(Debug, Clone)]
pub(super) struct Control {
    /// First piece that is not wanted any more.
    end: Arc<AtomicUsize>,
    cancel: CancellationToken,
}

impl Control {
    pub(super) fn new(end: usize) -> Self {
        Self { end: Arc::new(AtomicUsize::new(end)), cancel: CancellationToken::new() }
    }

    /// Ends the request once all pieces before `end` arrived.
    pub(super) fn shorten(&self, end: usize) {
        self.end.fetch_min(end, Ordering::Relaxed);
    }

    /// Ends the request now.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    fn end(&self) -> usize {
        self.end.load(Ordering::Relaxed)
    }
}

/// One request: which pieces, and where its events go.
pub(super) struct Run {
    pub(super) request: RequestId,
    pub(super) pieces: Range<usize>,
    /// Its header arrived, and the driver knows.
    pub(super) has_begun: bool,
    pub(super) control: Control,
    pub(super) store: Arc<PieceStore>,
    pub(super) events: mpsc::Sender<(RequestId, RunEvent)>,
    pub(super) limit: Throttle,
}

impl Run {
    /// Receives the pieces from the stream that `opening` opens. Always ends with [`RunEvent::Ended`].
    pub(super) async fn receive(self, opening: impl Future<Output = Result<Incoming, SourceError>>) {
        let cancel = self.control.cancel.clone();
        let pieces = self.store.pieces();
        let bytes = pieces.range(self.pieces.end.max(1) - 1).end - pieces.range(self.pieces.start).start;
        let mut payment = Payment::new(&self.limit, bytes);
        let paid = async {
            payment.pay_ahead().await;
            opening.await
        };
        let ended = match cancel.run_until_cancelled(paid).await {
            Some(Ok(incoming)) => {
                if !self.has_begun {
                    self.tell(RunEvent::Began).await;
                }
                self.stream(incoming, payment).await
            }
            Some(Err(error)) => Ok(Err(error)),
            None => Ok(Ok(())),
        };
        self.tell(RunEvent::Ended(ended)).await;
    }

    async fn tell(&self, event: RunEvent) {
        // The driver that went away cancelled this request.
        let _ = self.events.send((self.request, event)).await;
    }

    async fn stream(&self, mut incoming: Incoming, mut payment: Payment) -> Result<Result<(), SourceError>, WriteError> {
        let (to_disk, mut chunks) = mpsc::channel::<(u64, Bytes)>(WRITE_QUEUE);
        let mut writer = PieceWriter::new(&self.store);
        let end = writer.end();
        let (store, events, request) = (Arc::clone(&self.store), self.events.clone(), self.request);
        let writing = off_runtime(move || {
            let pieces = store.pieces();
            while let Some((offset, data)) = chunks.blocking_recv() {
                let end = offset + data.len() as u64;
                if let Err(wrong) = writer.write(offset, &data)? {
                    return Ok(Some(wrong));
                }
                // The pieces that end within this chunk.
                for piece in pieces.index_at(offset)..pieces.count().min(pieces.index_at(end) + 1) {
                    let piece_end = pieces.range(piece).end;
                    let is_new = piece_end > offset && piece_end <= end && store.has_pieces(piece..piece + 1);
                    if is_new && events.blocking_send((request, RunEvent::Verified(piece))).is_err() {
                        return Ok(None);
                    }
                }
            }
            Ok(None)
        });
        let received = self.forward(&mut incoming, &mut payment, &to_disk, &end).await;
        drop(to_disk);
        drop(incoming);
        Ok(match writing.await? {
            Some(WrongPiece { index }) => Err(SourceError::WrongBytes(index)),
            None => received,
        })
    }

    async fn forward(
        &self,
        incoming: &mut Incoming,
        payment: &mut Payment,
        to_disk: &mpsc::Sender<(u64, Bytes)>,
        end: &WriterEnd,
    ) -> Result<(), SourceError> {
        let pieces = self.store.pieces();
        // The first stream of a fetch brings the whole document, of which only a part may be wanted from it.
        let range = pieces.range(self.pieces.start).start..incoming.end();
        let mut at = range.start;
        loop {
            let wanted_end = pieces.range(self.control.end().max(self.pieces.start + 1) - 1).end;
            if at >= wanted_end {
                return Ok(());
            }
            let next = self.control.cancel.run_until_cancelled(incoming.next_chunk(at, &range)).await;
            let Some(next) = next else { return Ok(()) };
            let (offset, mut data) = match next? {
                Received::Chunk(offset, data) => (offset, data),
                Received::Queued => {
                    self.tell(RunEvent::Queued).await;
                    continue;
                }
                Received::End => return Ok(()),
            };
            let length = data.len() as u64;
            // What is not read yet fills the stream's window, and the holder waits.
            payment.arrived(length).await;
            at += length;
            self.tell(RunEvent::Arrived(length)).await;
            // A chunk need not end where a piece does. What follows is requested elsewhere.
            data.truncate(usize::try_from(wanted_end - offset).unwrap_or(usize::MAX));
            // What is requested elsewhere by now is left to that stream.
            end.before(self.control.end());
            if to_disk.send((offset, data)).await.is_err() {
                // The writer ended first and reports the error.
                return Ok(());
            }
        }
    }
}
