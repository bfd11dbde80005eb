//! Answers GetRFC, and tells the document's swarm what goes out.

use super::{claims::check_id, hub::Swarms, outgoing::Outgoing};
use crate::transfer::serve::{
    source::Source,
    uploads::{Upload, Uploads},
};
use p2pdi::{
    id::PeerId,
    server::Caller,
    status::Reason,
    v1::{GetRfcRequest, GetRfcResponse, get_rfc_response::Part},
};
use std::{ops::Range, sync::Arc, time::Instant};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

/// The messages of one GetRFC answer to `caller`, which asked for `source`.
///
/// # Errors
/// When the range is not within the document, a piece of it is missing, the document cannot be read, or too many are being sent.
pub(crate) async fn answer(
    swarms: &Swarms,
    uploads: &Uploads,
    source: Source,
    request: GetRfcRequest,
    caller: Option<Caller>,
) -> Result<impl Stream<Item = Result<GetRfcResponse, Status>> + Send + use<>, Status> {
    let GetRfcRequest { document: _, offset, length, without_piece_hashes, in_turn, accepts_queued, from_peer } = request;
    let from = if from_peer.is_empty() { None } else { Some(PeerId::from_field("from_peer", &from_peer)?) };
    if let Some(from) = from
        && let Some(identity) = caller.as_ref().and_then(Caller::identity)
    {
        check_id(from, identity)?;
    }
    let range = range(offset, length, source.size())?;
    let (swarms, hash) = (swarms.clone(), source.hash());
    let mut swarm = swarms.find(&hash);
    let upload = Upload { source, range: range.clone(), with_piece_hashes: !without_piece_hashes, in_turn, accepts_queued };
    let stream = uploads.send(upload, caller).await?;
    let mut outgoing = swarm.as_ref().and_then(|swarm| Outgoing::new(Arc::clone(swarm), from?, &range));
    Ok(stream.map(move |message| {
        if let Ok(GetRfcResponse { part: Some(Part::Chunk(chunk)) }) = &message {
            let (bytes, now) = (chunk.data.len() as u64, Instant::now());
            swarms.count_sent(bytes, now);
            // The first request of a peer may come before the stream by which it joins: the swarm begins while it is answered.
            swarm = swarm.take().or_else(|| swarms.find(&hash));
            if let Some(swarm) = &swarm {
                swarm.sent(from, bytes, now);
            }
            if let Some(outgoing) = &mut outgoing {
                outgoing.sent(bytes);
            }
        }
        message
    }))
}

/// The bytes of a document that a request asks for; length 0 means up to the end.
fn range(offset: u64, length: u64, size: u64) -> Result<Range<u64>, Status> {
    let beyond = |what: &str| {
        Reason::RangeBeyondEnd
            .status_with(format!("the range {what} beyond the end: the document has {size} bytes"), [("size", size.to_string())])
    };
    if offset > size {
        return Err(beyond("begins"));
    }
    let end = match length {
        0 => size,
        length => offset.checked_add(length).filter(|end| *end <= size).ok_or_else(|| beyond("ends"))?,
    };
    Ok(offset..end)
}
