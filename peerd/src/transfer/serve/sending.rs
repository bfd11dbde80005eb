//! The messages of one answer.

use super::{
    capacity::Capacity,
    line::Place,
    source::{Kind, Read, Readable, Source, hashed_again},
};
use crate::{connections::admission::Permit, transfer::chunk::CHUNK_BYTES};
use bytes::Bytes;
use p2pdi::{
    server::Caller,
    status::internal,
    v1::{Chunk, GetRfcHeader, GetRfcResponse, Queued, get_rfc_response::Part},
};
use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};
use tokio_stream::Stream;
use tonic::Status;

/// How often a stream that waits says so. The other side takes ten seconds without a message for a stall.
const QUEUED_EVERY: Duration = Duration::from_secs(2);
/// Largest chunk of a short range that is sent in turn: little of it is in the connection's buffers when the next one begins, or it is
/// cancelled.
const IN_TURN_CHUNK_BYTES: usize = 64 * 1024;
/// Longer ranges are sent in large chunks in any case: what is in the buffers is little of them, and each chunk costs time on both sides.
const SHORT_RANGE_BYTES: u64 = 1024 * 1024;
/// Bytes that a connection may have unwritten before the next chunk is added: of short ranges in turn, whose order counts, and of others.
const UNWRITTEN_IN_TURN: usize = 128 * 1024;
const UNWRITTEN: usize = 512 * 1024;
/// How often a stream looks whether its file was hashed again.
const HASHED_AGAIN_EVERY: Duration = Duration::from_millis(200);
/// How long it waits for that, if the other side cannot be told so: less than it takes for a stall.
const HASHED_AGAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// The same, if it can: a minute hashes tens of gigabytes.
const HASHED_AGAIN_TIMEOUT_QUEUED: Duration = Duration::from_secs(60);

/// An answer that is about to be sent.
pub(super) struct Sending {
    pub(super) header: GetRfcHeader,
    pub(super) source: Source,
    /// The file and the first bytes, if the stream had a slot at once.
    pub(super) opened: Option<(Readable, Read)>,
    pub(super) range: Range<u64>,
    /// `None` for a stream that is sent without a slot.
    pub(super) place: Option<Place>,
    pub(super) kind: Kind,
    pub(super) caller: Option<Caller>,
    pub(super) in_turn: bool,
    pub(super) accepts_queued: bool,
    pub(super) capacity: Arc<Capacity>,
    /// Released at the end of the stream.
    pub(super) permits: Vec<Permit>,
}

/// A read under way, which has the file.
type Ahead = JoinHandle<(Readable, Result<Read, Status>)>;

/// The file and the bytes of `range`. Blocking.
pub(super) fn open(source: Source, range: Range<u64>) -> Result<(Readable, Read), Status> {
    let mut readable = source.open()?;
    let read = readable.read(&range)?;
    Ok((readable, read))
}

/// The bytes to read next of `range`, from byte `at` on.
pub(super) fn next_read(range: &Range<u64>, at: u64, bytes: usize) -> Range<u64> {
    at..range.end.min(at.saturating_add(bytes as u64))
}

fn message(part: Part) -> GetRfcResponse {
    GetRfcResponse { part: Some(part) }
}

fn queued(ahead: usize) -> GetRfcResponse {
    message(Part::Queued(Queued { ahead: u32::try_from(ahead).unwrap_or(u32::MAX) }))
}

fn read_ahead(mut readable: Readable, range: Range<u64>) -> Ahead {
    spawn_blocking(move || {
        let read = readable.read(&range);
        (readable, read)
    })
}

impl Sending {
    /// The messages: the header, then chunks, and in between signs that the stream waits.
    pub(super) fn messages(self) -> impl Stream<Item = Result<GetRfcResponse, Status>> + Send + use<> {
        let Self { header, source, mut opened, range, place, kind, caller, in_turn, accepts_queued, capacity, permits } = self;
        async_stream::try_stream! {
            let _permits = permits;
            if let Some(place) = &place {
                place.handed_over();
            }
            yield message(Part::Header(header));
            if let Some(place) = &place {
                // Whether it still has a slot shows below.
                place.resume();
            }
            let is_fine = in_turn && range.end - range.start <= SHORT_RANGE_BYTES;
            let mut at = range.start;
            while at < range.end {
                // Without a slot: waits, and says so.
                if let Some(place) = &place {
                    capacity.show_waiting();
                    while !place.wait(QUEUED_EVERY).await {
                        if accepts_queued {
                            yield queued(place.ahead());
                        }
                    }
                }
                let _active = capacity.count_sending();
                let (mut readable, mut read) = match opened.take() {
                    Some(opened) => opened,
                    None => {
                        let (source, first) = (source.clone(), next_read(&range, at, capacity.read_bytes()));
                        let opening = spawn_blocking(move || open(source, first)).await;
                        opening.map_err(|error| internal("opening a document", &error))??
                    }
                };
                let mut has_slot = true;
                while has_slot && at < range.end {
                    let mut waiting_since: Option<Instant> = None;
                    let mut said = Instant::now();
                    let mut data = loop {
                        match read {
                            Read::Bytes(data) => break data,
                            Read::HashedAgain => {
                                let most = if accepts_queued { HASHED_AGAIN_TIMEOUT_QUEUED } else { HASHED_AGAIN_TIMEOUT };
                                if waiting_since.get_or_insert_with(Instant::now).elapsed() >= most {
                                    Err::<(), Status>(hashed_again(&readable.name()))?;
                                }
                                if accepts_queued && said.elapsed() >= QUEUED_EVERY {
                                    said = Instant::now();
                                    yield queued(0);
                                }
                                sleep(HASHED_AGAIN_EVERY).await;
                                let again = next_read(&range, at, capacity.read_bytes());
                                let (back, result) = finished(read_ahead(readable, again)).await?;
                                readable = back;
                                read = result?;
                            }
                        }
                    };
                    // The next bytes come from the disk while these go out.
                    let next = at + data.len() as u64;
                    let mut ahead = None;
                    let mut kept = Some(readable);
                    if next < range.end
                        && let Some(readable) = kept.take()
                    {
                        ahead = Some(read_ahead(readable, next_read(&range, next, capacity.read_bytes())));
                    }
                    while has_slot && !data.is_empty() {
                        let chunk = next_chunk(&capacity, caller.as_ref(), &mut data, is_fine, kind).await;
                        let length = chunk.len() as u64;
                        if let Some(place) = &place {
                            place.handed_over();
                        }
                        yield message(Part::Chunk(Chunk { offset: at, data: chunk }));
                        at += length;
                        has_slot = at == range.end || place.as_ref().is_none_or(Place::resume);
                    }
                    let Some(ahead) = ahead.filter(|_| has_slot) else { break };
                    let (back, result) = finished(ahead).await?;
                    readable = back;
                    read = result?;
                }
            }
        }
    }
}

async fn finished(ahead: Ahead) -> Result<(Readable, Result<Read, Status>), Status> {
    ahead.await.map_err(|error| internal("reading a document", &error))
}

/// Waits for the rate limit and for room in the connection, and takes the next chunk of `data`.
async fn next_chunk(capacity: &Capacity, caller: Option<&Caller>, data: &mut Bytes, is_fine: bool, kind: Kind) -> Bytes {
    let (most, unwritten) = if is_fine { (IN_TURN_CHUNK_BYTES, UNWRITTEN_IN_TURN) } else { (CHUNK_BYTES, UNWRITTEN) };
    let bytes = capacity.take(data.len().min(most), kind).await;
    if let Some(caller) = caller {
        caller.room(bytes, unwritten).await;
    }
    data.split_to(bytes)
}
