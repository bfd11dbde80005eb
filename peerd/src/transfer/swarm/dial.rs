//! Exchanges availability with a peer that this one dials.

use super::{
    exchange::{ExchangeError, SEND_QUEUE, START_TIMEOUT, Streams, exchange, read_start},
    state::SharedSwarm,
};
use crate::{connections::channels::ChannelPool, holders::source::Source};
use p2pdi::{field::InvalidField, v1::AvailabilityRequest};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Status};

/// Exchanges availability with the peer at `source` until one side ends it.
///
/// # Errors
/// When it cannot be reached, refuses, breaks the contract, or the stream breaks.
pub(crate) async fn dial(swarm: SharedSwarm, channels: ChannelPool, source: Source) -> Result<(), ExchangeError> {
    let (outgoing, requests) = mpsc::channel(SEND_QUEUE);
    let (start, told) = swarm.start();
    let wrap = |update| AvailabilityRequest { update: Some(update) };
    // The queue is empty.
    let _ = outgoing.try_send(wrap(start.write()));
    let mut client = channels.peer_at(&source.addresses(), source.name.as_ref());
    let answer = timeout(START_TIMEOUT, client.availability(ReceiverStream::new(requests))).await;
    let answer = answer.map_err(|_| ExchangeError::Silent)?.map_err(ExchangeError::Stream)?;
    let mut incoming = answer.into_inner().map(|message| message.map(|message| message.update.unwrap_or_default()));
    let start = read_start(&mut incoming).await?;
    if channels.dial().tls.is_some() && source.name.as_ref().is_some_and(|name| *name != start.member.name) {
        return Err(InvalidField::new("peer.name", "is not that of its certificate").into());
    }
    exchange(&swarm, true, start, Some(told), Streams { incoming, outgoing }, wrap).await
}

/// Whether the other side does not know the method: an older peer, which serves whole documents only.
pub(crate) fn is_unknown_method(error: &ExchangeError) -> bool {
    matches!(error, ExchangeError::Stream(status) if status.code() == Code::Unimplemented)
}

/// Whether the other side says that it does not have the document.
pub(crate) fn is_no_holder(error: &ExchangeError) -> bool {
    matches!(error, ExchangeError::Stream(status) if status.code() == Code::NotFound)
}

/// The status that ends the stream of a caller.
pub(crate) fn refusal(error: ExchangeError) -> Option<Status> {
    use super::state::NotJoined;
    use p2pdi::status::Reason;
    match error {
        // The caller went away.
        ExchangeError::Stream(_) => None,
        ExchangeError::Silent => Some(Reason::RequestTimeout.status("no first message arrived; send `start` at once")),
        ExchangeError::Protocol(field) => Some(field.into()),
        ExchangeError::OtherDocument => {
            Some(Reason::DocumentUnknown.status("the document with this hash has another size here; ask another holder"))
        }
        // The caller has another stream with this peer, or is this peer.
        ExchangeError::NotJoined(NotJoined::Connected | NotJoined::Itself) => None,
        ExchangeError::NotJoined(NotJoined::Full) => Some(Reason::TooManyStreams.status(NotJoined::Full.to_string())),
    }
}
