//! Sends documents, ranges of them, or only their headers, within limits.

use super::{
    capacity::Capacity,
    sending::{self, Sending},
    slots::TURNS_MAX,
    source::Source,
};
use crate::connections::admission::{Admission, Permit, Rejected};
use p2pdi::{
    metrics::Metrics,
    server::Caller,
    status::{Reason, internal},
    v1::{GetRfcResponse, Load},
};
use std::{
    net::IpAddr,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_stream::Stream;
use tonic::Status;

/// Streams open at once, those that wait in line included. Each holds a descriptor and up to two reads only while it is sent.
pub const UPLOADS_MAX: usize = 256;
/// Of those, for callers from one address: 128 fetches of one machine are admitted, and it cannot keep all others out by reading slowly.
pub const UPLOADS_PER_ADDRESS: usize = UPLOADS_MAX / 4 * 3;
/// Rate, in bytes per second, that a stream gets at least which cannot be told to wait: its other side takes less than 4 KiB in 10 s for a
/// stall.
const RATE_MIN: u64 = 1024;
/// How long a call waits for a permit before it is refused.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long nothing is sent or waits to be sent before the fetches of a peer that stops count as done: some round trips of a long path.
const LULL: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LULL_POLL: Duration = Duration::from_millis(50);

/// The sending side of a peer.
pub(crate) struct Uploads {
    admission: Admission,
    /// For streams that cannot be told to wait.
    impatient: Mutex<Arc<Impatient>>,
    capacity: Arc<Capacity>,
}

/// Permits for streams that cannot be told to wait.
struct Impatient {
    admission: Admission,
    max: usize,
}

impl Impatient {
    /// So many that each has its least rate within `limit`.
    fn new(limit: Option<u64>) -> Arc<Self> {
        let most = limit.map_or(UPLOADS_MAX, |limit| usize::try_from(limit / RATE_MIN).unwrap_or(usize::MAX));
        let max = most.clamp(1, UPLOADS_MAX);
        Arc::new(Self { admission: Admission::new(max, max), max })
    }
}

/// What to send.
pub(crate) struct Upload {
    /// Of which document.
    pub(crate) source: Source,
    /// Which bytes; within the document.
    pub(crate) range: Range<u64>,
    /// Whether the header carries the piece hashes.
    pub(crate) with_piece_hashes: bool,
    /// Only after earlier requests of the same connection for the same document.
    pub(crate) in_turn: bool,
    /// Whether the caller may be told that the stream waits.
    pub(crate) accepts_queued: bool,
}

impl Uploads {
    /// No more than `limit` bytes per second, if given, and `slots` streams at the same time; `None`: as many as suit the limit.
    pub(crate) fn new(limit: Option<u64>, slots: Option<usize>, metrics: &Metrics) -> Self {
        Self {
            admission: Admission::new(UPLOADS_MAX, UPLOADS_PER_ADDRESS),
            impatient: Mutex::new(Impatient::new(limit)),
            capacity: Arc::new(Capacity::new(limit, slots, metrics)),
        }
    }

    /// Other limits from now on, as in [`Self::new`]. Streams under way go on.
    pub(crate) fn set_limits(&self, limit: Option<u64>, slots: Option<usize>) {
        self.capacity.set_limits(limit, slots);
        *self.impatient.lock().unwrap_or_else(PoisonError::into_inner) = Impatient::new(limit);
    }

    /// The limit of the rate.
    pub(crate) fn bytes_per_second(&self) -> Option<u64> {
        self.capacity.bytes_per_second_max()
    }

    /// How busy the peer is sending.
    pub(crate) fn load(&self) -> Load {
        Load {
            uploads: u32::try_from(self.admission.taken()).unwrap_or(u32::MAX),
            upload_bytes_per_second: self.capacity.bytes_per_second(),
            ..Default::default()
        }
    }

    /// Waits until the fetches under way are done: a fetch is many streams, one after the other. At once if nothing was sent lately.
    pub(crate) async fn drained(&self) {
        if self.admission.taken() == 0 && self.capacity.bytes_per_second() == 0 {
            return;
        }
        let mut last_sent = Instant::now();
        while last_sent.elapsed() < LULL {
            sleep(LULL_POLL).await;
            if self.admission.taken() > 0 {
                last_sent = Instant::now();
            }
        }
    }

    /// The messages of one GetRFC answer to `caller`.
    ///
    /// # Errors
    /// When the document cannot be opened any more, a piece of the range is missing, or too many are being sent, at all or to that address.
    pub(crate) async fn send(
        &self,
        upload: Upload,
        caller: Option<Caller>,
    ) -> Result<impl Stream<Item = Result<GetRfcResponse, Status>> + Send + use<>, Status> {
        let begun = self.begin(upload, caller).await;
        begun.map(Sending::messages).inspect_err(|status| self.capacity.count_refused(status))
    }

    async fn begin(&self, upload: Upload, caller: Option<Caller>) -> Result<Sending, Status> {
        let address = caller.as_ref().map(|caller| caller.address().ip());
        let Upload { source, range, with_piece_hashes, in_turn, accepts_queued } = upload;
        let mut permits = vec![admit(&self.admission, address, UPLOADS_MAX).await?];
        let turn = caller.as_ref().filter(|_| in_turn).map(|caller| (caller.connection_id(), source.hash()));
        // One that cannot be told to wait is sent small parts at once.
        let place = if accepts_queued || turn.is_some() {
            let too_many = || {
                let text = format!("{TURNS_MAX} requests of your connection wait for their turn already; send fewer ahead");
                Reason::TooManyStreams.status(text)
            };
            Some(self.capacity.enter(source.hash(), turn).ok_or_else(too_many)?)
        } else {
            let impatient = Arc::clone(&*self.impatient.lock().unwrap_or_else(PoisonError::into_inner));
            permits.push(admit(&impatient.admission, address, impatient.max).await?);
            None
        };
        let at_once = place.as_ref().is_none_or(|place| place.has_slot());
        let (kind, first) = (source.kind(), sending::next_read(&range, range.start, self.capacity.read_bytes()));
        let header_range = range.clone();
        // A stream that waits opens its file when it has a slot.
        let opening = move || {
            let header = source.header(&header_range, with_piece_hashes)?;
            let opened = if at_once { Some(sending::open(source.clone(), first)?) } else { None };
            Ok::<_, Status>((source, header, opened))
        };
        let (source, header, opened) =
            spawn_blocking(opening).await.map_err(|error| internal("opening a document", &error))??;
        self.capacity.count_document();
        let capacity = Arc::clone(&self.capacity);
        Ok(Sending { header, source, opened, range, place, kind, caller, in_turn, accepts_queued, capacity, permits })
    }
}

/// A permit of `admission`, which has `most` in all.
async fn admit(admission: &Admission, address: Option<IpAddr>, most: usize) -> Result<Permit, Status> {
    admission.acquire(address, PERMIT_TIMEOUT).await.map_err(|why| {
        let taken = match why {
            Rejected::ExhaustedByAddress if most == UPLOADS_MAX => {
                format!("{UPLOADS_PER_ADDRESS} documents are sent to your address already, or waited for there")
            }
            Rejected::Exhausted | Rejected::ExhaustedByAddress => format!("{most} documents are being sent already"),
        };
        Reason::TooManyStreams.status(format!("{taken}; try again later or ask another holder"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::serve::source::PartialDocument;
    use bytes::Bytes;
    use p2pdi::{
        content::{ContentHash, PIECE_SIZE_MIN},
        v1::{Document, get_rfc_response::Part},
    };
    use std::io;
    use tokio_stream::StreamExt as _;

    /// The first piece is verified.
    #[derive(Debug)]
    struct Half(Document, Vec<u8>);

    impl PartialDocument for Half {
        fn document(&self) -> &Document {
            &self.0
        }

        fn hash(&self) -> ContentHash {
            ContentHash::of(&self.1)
        }

        fn joined_hashes(&self) -> Bytes {
            Bytes::from_static(b"hashes")
        }

        fn is_verified(&self, range: &Range<u64>) -> bool {
            range.end <= PIECE_SIZE_MIN
        }

        fn read_verified_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let offset = usize::try_from(offset).unwrap();
            if !self.is_verified(&(0..(offset + buffer.len()) as u64)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            buffer.copy_from_slice(&self.1[offset..offset + buffer.len()]);
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_drained_once_no_fetch_asks_any_more() {
        let uploads = Uploads::new(None, None, &Metrics::default());
        let began = Instant::now();
        uploads.drained().await;
        assert_eq!(began.elapsed(), Duration::ZERO, "nothing is under way");
        let fetch = async {
            // One stream after the other, with a round trip between them.
            for _ in 0..10 {
                let permit = admit(&uploads.admission, None, UPLOADS_MAX).await.unwrap();
                sleep(LULL).await;
                drop(permit);
                sleep(LULL / 2).await;
            }
        };
        let between = async {
            sleep(LULL / 2).await;
            uploads.drained().await;
        };
        tokio::join!(fetch, between);
        assert!(began.elapsed() > 15 * LULL && began.elapsed() < 16 * LULL, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn verified_pieces_of_a_document_under_way_are_sent_and_missing_ones_refused() {
        let data: Vec<_> = (0..2 * PIECE_SIZE_MIN).map(|at| at.to_le_bytes()[0]).collect();
        let size = data.len() as u64;
        let half = Half(Document { name: "doc".into(), size, ..Default::default() }, data.clone());
        let (uploads, half) = (Uploads::new(None, None, &Metrics::default()), Arc::new(half));
        let send = |range: Range<u64>| {
            let upload = Upload {
                source: Source::Partial(Arc::clone(&half) as Arc<dyn PartialDocument>),
                range,
                with_piece_hashes: true,
                in_turn: false,
                accepts_queued: true,
            };
            uploads.send(upload, None)
        };
        let messages: Vec<_> = send(1_000..PIECE_SIZE_MIN).await.unwrap().collect().await;
        let mut got = Vec::new();
        for (number, message) in messages.into_iter().enumerate() {
            match message.unwrap().part.unwrap() {
                Part::Header(header) => assert_eq!((number, header.piece_hashes.as_ref()), (0, &b"hashes"[..])),
                Part::Chunk(chunk) => got.extend_from_slice(&chunk.data),
                Part::Queued(_) => panic!("there is a slot"),
            }
        }
        assert!(got == data[1_000..usize::try_from(PIECE_SIZE_MIN).unwrap()]);
        assert_eq!(uploads.load().uploads, 0);
        let status = send(0..size).await.err().unwrap();
        assert_eq!(Reason::of(&status), Some(Reason::PiecesMissing));
        assert!(status.message().contains("Availability"), "{status:?}");
    }
}
