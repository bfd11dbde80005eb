//! Sends a document of the share, a range of it, or only its header.

use crate::transfer::{chunk::CHUNK_BYTES, throttle::Throttle};
use crate::{
    connections::admission::{Admission, Permit, Rejected},
    documents::share::{OpenDocument, OpenError, Share, SharedDocument},
};
use bytes::{Bytes, BytesMut};
use metrics::{Counter, Gauge};
use p2pdi::{
    content::Pieces,
    log_limit::{Line, LogLimit},
    metrics::Metrics,
    status::{Reason, internal},
    v1::{Chunk, GetRfcHeader, GetRfcResponse, Load, get_rfc_response::Part},
};
use std::{
    net::IpAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_stream::Stream;
use tonic::Status;

/// Bytes read from the disk at once. Two such reads are under way at most, which bounds a stream's memory whatever the file's size.
const READ_BYTES: usize = 4 * CHUNK_BYTES;
/// Documents sent at once. Each holds at most two reads and an open file: 256 MiB and 128 descriptors in all.
pub const UPLOADS_MAX: usize = 128;
/// Of those, for callers from one address: 64 fetches of one machine get a permit each, and it cannot keep all others out by reading slowly.
pub const UPLOADS_PER_ADDRESS: usize = UPLOADS_MAX / 4 * 3;
/// How long a stream waits for a permit before it is refused.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The sending side of a peer: its limits and counts.
pub(crate) struct Uploads {
    admission: Admission,
    throttle: Throttle,
    rate: Rate,
    active: Gauge,
    bytes: Counter,
    documents: Counter,
}

/// What to send.
pub(crate) struct Upload {
    /// Of which document.
    pub(crate) document: Arc<SharedDocument>,
    /// Which bytes; within the document.
    pub(crate) range: Range<u64>,
    /// Whether the header carries the piece hashes.
    pub(crate) with_piece_hashes: bool,
}

impl Uploads {
    /// No more than `limit` bytes per second, if given.
    pub(crate) fn new(limit: Option<u64>, metrics: &Metrics) -> Self {
        let now = Instant::now();
        Self {
            admission: Admission::new(UPLOADS_MAX, UPLOADS_PER_ADDRESS),
            throttle: Throttle::new(limit),
            rate: Rate::new(now),
            active: metrics.gauge("p2pdi_uploads_active", "Documents being sent", &[]),
            bytes: metrics.counter("p2pdi_upload_bytes_total", "Bytes of documents sent", &[]),
            documents: metrics.counter("p2pdi_uploads_total", "Documents or ranges whose sending began", &[]),
        }
    }

    /// The limit of the rate.
    pub(crate) fn bytes_per_second(&self) -> Option<u64> {
        self.throttle.bytes_per_second()
    }

    /// How busy the peer is sending.
    pub(crate) fn load(&self) -> Load {
        Load {
            uploads: u32::try_from(self.admission.taken()).unwrap_or(u32::MAX),
            upload_bytes_per_second: self.rate.per_second(Instant::now()),
            ..Default::default()
        }
    }

    /// The messages of one GetRFC answer to `caller`.
    ///
    /// # Errors
    /// When the document cannot be opened any more, or too many are being sent, at all or to that address.
    pub(crate) async fn send(
        self: Arc<Self>,
        share: Share,
        upload: Upload,
        caller: Option<IpAddr>,
    ) -> Result<impl Stream<Item = Result<GetRfcResponse, Status>> + use<>, Status> {
        let permit = self.admission.acquire(caller, PERMIT_TIMEOUT).await.map_err(|why| {
            let taken = match why {
                Rejected::Exhausted => format!("{UPLOADS_MAX} documents are being sent already"),
                Rejected::ExhaustedByAddress => {
                    format!("{UPLOADS_PER_ADDRESS} documents are sent to your address already, or waited for there")
                }
            };
            Reason::TooManyStreams.status(format!("{taken}; try again later or ask another holder"))
        })?;
        let Upload { document, range, with_piece_hashes } = upload;
        let first = read_range(&range, range.start);
        let header_range = range.clone();
        let (file, header, data) = spawn_blocking(move || {
            let file = share.open_document(&document).map_err(|error| refuse_open(&document, &error))?;
            let file = Arc::new(file);
            let header = header(&share, &document, &header_range, with_piece_hashes)?;
            let data = read(&file, first)?;
            Ok::<_, Status>((file, header, data))
        })
        .await
        .map_err(|error| internal("opening a document", &error))??;
        self.documents.increment(1);
        let guard = Active::new(&self, permit);
        Ok(async_stream::try_stream! {
            let guard = guard;
            yield GetRfcResponse { part: Some(Part::Header(header)) };
            let (mut at, mut data) = (range.start, data);
            while at < range.end {
                // The next bytes come from the disk while these go out.
                let ahead = ahead(&file, &range, at + data.len() as u64);
                while !data.is_empty() {
                    let chunk = data.split_to(guard.uploads.take(data.len().min(CHUNK_BYTES)).await);
                    let length = chunk.len() as u64;
                    yield GetRfcResponse { part: Some(Part::Chunk(Chunk { offset: at, data: chunk })) };
                    at += length;
                }
                if let Some(ahead) = ahead {
                    data = ahead.await.map_err(|error| internal("reading a document", &error))??;
                }
            }
        })
    }

    /// Waits until some of `most` bytes may be sent, and counts them.
    async fn take(&self, most: usize) -> usize {
        let bytes = self.throttle.take(most).await;
        self.bytes.increment(bytes as u64);
        self.rate.add(bytes as u64, Instant::now());
        bytes
    }
}

/// Counts a stream as active until it is dropped, however it ends.
struct Active {
    uploads: Arc<Uploads>,
    _permit: Permit,
}

impl Active {
    fn new(uploads: &Arc<Uploads>, permit: Permit) -> Self {
        uploads.active.increment(1);
        Self { uploads: Arc::clone(uploads), _permit: permit }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.uploads.active.decrement(1);
    }
}

fn header(share: &Share, document: &SharedDocument, range: &Range<u64>, with_piece_hashes: bool) -> Result<GetRfcHeader, Status> {
    let piece_hashes = if with_piece_hashes {
        let hashes = share.piece_hashes(document);
        hashes
            .ok_or_else(|| {
                Reason::DocumentUnreadable.status(format!("{} is being hashed again; ask another holder", document.name))
            })?
            .joined()
    } else {
        Bytes::new()
    };
    Ok(GetRfcHeader {
        document: Some(document.into()),
        piece_size: Pieces::of_size(document.size)?.piece_size(),
        piece_hashes,
        offset: range.start,
        served_length: range.end - range.start,
    })
}

fn read_range(range: &Range<u64>, at: u64) -> Range<u64> {
    at..range.end.min(at.saturating_add(READ_BYTES as u64))
}

fn ahead(file: &Arc<OpenDocument>, range: &Range<u64>, at: u64) -> Option<JoinHandle<Result<Bytes, Status>>> {
    (at < range.end).then(|| {
        let (file, next) = (Arc::clone(file), read_range(range, at));
        spawn_blocking(move || read(&file, next))
    })
}

/// Reads a range that was in the file when it was indexed, and makes sure that the file is still that one.
fn read(file: &OpenDocument, range: Range<u64>) -> Result<Bytes, Status> {
    let length = usize::try_from(range.end - range.start).unwrap_or(READ_BYTES);
    let mut data = BytesMut::zeroed(length);
    let read = file.read_at(&mut data, range.start);
    // Asked after the read: what was read before a change is of the old content.
    if !file.unchanged() {
        return Err(changed());
    }
    match read {
        Ok(()) => Ok(data.freeze()),
        Err(error) => {
            static LOG: LogLimit = LogLimit::new(1);
            if let Some(Line { suppressed }) = LOG.line() {
                tracing::warn!(%error, suppressed, "cannot read a document any more");
            }
            Err(Reason::DocumentUnreadable.status("the file cannot be read any more; ask another holder"))
        }
    }
}

fn changed() -> Status {
    Reason::DocumentChanged.status("the file changed while it was served; ask for the document again to get its new version")
}

fn refuse_open(document: &SharedDocument, error: &OpenError) -> Status {
    match error {
        OpenError::Changed | OpenError::Gone => changed(),
        OpenError::Unreadable(error) => {
            static LOG: LogLimit = LogLimit::new(1);
            if let Some(Line { suppressed }) = LOG.line() {
                tracing::warn!(name = %document.name, %error, suppressed, "cannot open a shared document");
            }
            Reason::DocumentUnreadable.status(format!("{} cannot be read now; ask another holder", document.name))
        }
    }
}

/// Bytes per second over the last one to two windows.
struct Rate {
    started: Instant,
    /// Number of the window being counted, its bytes, and those of the one before.
    window: AtomicU64,
    current: AtomicU64,
    previous: AtomicU64,
}

/// A window of [`Rate`]: long enough to smooth, short enough to follow.
const RATE_WINDOW: Duration = Duration::from_secs(5);

impl Rate {
    fn new(started: Instant) -> Self {
        Self { started, window: AtomicU64::new(0), current: AtomicU64::new(0), previous: AtomicU64::new(0) }
    }

    /// Counts race by a chunk at a window's edge, which an average forgives.
    fn roll(&self, now: Instant) {
        let window = now.duration_since(self.started).as_secs() / RATE_WINDOW.as_secs();
        // A thread that was delayed since it read the clock must not turn the window back.
        let last = self.window.fetch_max(window, Ordering::Relaxed);
        if last < window {
            let counted = self.current.swap(0, Ordering::Relaxed);
            self.previous.store(if window == last + 1 { counted } else { 0 }, Ordering::Relaxed);
        }
    }

    fn add(&self, bytes: u64, now: Instant) {
        self.roll(now);
        self.current.fetch_add(bytes, Ordering::Relaxed);
    }

    fn per_second(&self, now: Instant) -> u64 {
        self.roll(now);
        let full = self.previous.load(Ordering::Relaxed);
        let current = self.current.load(Ordering::Relaxed);
        full.max(current) / RATE_WINDOW.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_thread_does_not_discard_a_window() {
        let started = Instant::now();
        let rate = Rate::new(started);
        rate.add(5_000, started);
        rate.add(10_000, started + RATE_WINDOW);
        rate.add(500, started);
        assert_eq!(rate.per_second(started + RATE_WINDOW), 10_500 / RATE_WINDOW.as_secs());
    }
}
