//! broadcast, listen, join, peer-count and peers --of: calls to one peer about the mesh.

use super::rfc_query::resolve;
use crate::{
    args::{Broadcast, Global, Join, Listen, OptionalVia, PeerCount},
    call::{CALL_TIMEOUT, to_peer},
    failure::{Failure, Outcome},
    printer::Printer,
    via,
};
use alphanumeric_sort::compare_str;
use p2pdi::phrases::{acknowledgements, counted};
use p2pdi::{
    endpoint::Endpoint,
    hex, json,
    name::PeerName,
    status::Reason,
    v1::{
        BroadcastRequest, BroadcastResponse, Contact, InboxMessage, JoinRequest, ListPeersRequest, SubscribeRequest,
        control_client::ControlClient,
    },
};
use peerd::{connections::channels::ChannelPool, inbox::KIND_PING};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

pub(super) async fn broadcast(channels: &ChannelPool, args: Broadcast, printer: Printer) -> Outcome {
    let answer = send(channels, &args.via.via, args.kind, args.message, args.wait).await?;
    printer.message(&answer, || acknowledgements(&answer, !args.wait.is_zero()))?;
    Ok(())
}

pub(super) async fn peer_count(channels: &ChannelPool, args: PeerCount, printer: Printer) -> Outcome {
    // Every peer acknowledges a PING and does not show it.
    let answer = send(channels, &args.via.via, KIND_PING.to_owned(), String::new(), args.wait).await?;
    printer.message(&answer, || answer.acknowledged.to_string())?;
    Ok(())
}

async fn send(
    channels: &ChannelPool,
    via: &Endpoint,
    kind: String,
    message: String,
    wait: Duration,
) -> Outcome<BroadcastResponse> {
    let wait_field = prost_types::Duration::try_from(wait).map_err(|_| Failure::usage("--wait is too long"))?;
    let request = BroadcastRequest { kind, body: message.into_bytes().into(), wait: Some(wait_field) };
    call(channels, via, wait + CALL_TIMEOUT, async |mut client| client.broadcast(request).await).await
}

pub(super) async fn join(channels: &ChannelPool, args: Join, printer: Printer) -> Outcome {
    let mut failure = None;
    let mut joined = None;
    // A word may be a peer name or a host name; the first reading is the likely one, so its failure is reported.
    for endpoint in args.peer.endpoints() {
        let request = JoinRequest { endpoint: endpoint.to_string() };
        match call(channels, &args.via.via, CALL_TIMEOUT, async |mut client| client.join(request).await).await {
            Ok(answer) => {
                joined = Some(answer);
                break;
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let Some(answer) = joined else {
        let failure = failure.unwrap_or_else(|| Failure::usage(format!("{} has no address", args.peer)));
        return Err(match failure.is_reason(Reason::NoRoute) {
            true => failure.hint(format!(
                "{} dials that address itself: a peer must listen there, and be reached from there; `p2pctl peers` lists those of a registry",
                args.via.via
            )),
            false => failure,
        });
    };
    let peer = answer.peer.clone().unwrap_or_default();
    if let Some(name) = args.peer.name()
        && !peer.name.parse::<PeerName>().is_ok_and(|found| found == *name)
    {
        printer.note(&format!("the peer at {} has another name than {name}: {}", peer.endpoint, peer.name));
    }
    let already = if answer.already_linked { " already" } else { "" };
    printer.message(&answer, || format!("{} is{already} linked to {} at {}", args.via.via, peer.name, peer.endpoint))?;
    Ok(())
}

/// Prints messages until Ctrl-C, its normal end.
pub(super) async fn listen(channels: &ChannelPool, args: Listen, printer: Printer, stop: CancellationToken) -> Outcome {
    let via = args.via.via;
    let request = SubscribeRequest { kinds: args.kinds };
    let listening = async {
        let mut messages = call(channels, &via, CALL_TIMEOUT, async |mut client| client.subscribe(request).await).await?;
        while let Some(answer) = messages.message().await.map_err(|status| Failure::call(via.as_str(), &status))? {
            if answer.dropped > 0 {
                printer.note(&format!("this listener is too slow; dropped {}", counted(answer.dropped, "message")));
            }
            match answer.message {
                Some(message) => show(printer, &message)?,
                None => printer.note(&format!("listening to {via}; Ctrl-C ends it")),
            }
        }
        Err(Failure::refused(format!("{via} has stopped")))
    };
    tokio::select! {
        ended = listening => ended,
        () = stop.cancelled() => Ok(()),
    }
}

/// Prints a received message.
pub(super) fn show(printer: Printer, message: &InboxMessage) -> Outcome {
    let text = String::from_utf8_lossy(&message.body);
    if printer.is_json() {
        let mut value = json::value(message);
        value["text"] = json!(text);
        printer.json(&value)?;
    } else {
        let from = if message.from.is_empty() { "somebody" } else { &message.from };
        let to_all = if message.broadcast { " to all" } else { "" };
        printer.text(&format!("{from}{to_all} ({}): {}", message.kind, text.replace('\n', " ")))?;
    }
    Ok(())
}

/// Lists the neighbours of `peer` and the others it knows.
pub(super) async fn peers_of(
    global: &Global,
    channels: &ChannelPool,
    via: &OptionalVia,
    peer: &str,
    printer: Printer,
) -> Outcome {
    let peer = resolve(global, channels, via, peer).await?;
    let mut client = channels.peer_at(&peer.addresses(), peer.name.as_ref());
    let answer =
        to_peer(&peer.to_string(), &peer.endpoint, channels.dial(), CALL_TIMEOUT, client.list_peers(ListPeersRequest {})).await?;
    if printer.is_json() {
        printer.json(&json::value(&answer))?;
        return Ok(());
    }
    let row = |contact: &Contact, how: &str| {
        let id = hex::encode(contact.id.get(..4).unwrap_or(&contact.id));
        vec![contact.name.clone(), contact.endpoint.clone(), id, how.to_owned()]
    };
    let linked = answer.neighbours.iter().filter_map(|neighbour| {
        let how = if neighbour.outgoing { "linked, it dialled" } else { "linked, was dialled" };
        neighbour.peer.as_ref().map(|contact| row(contact, how))
    });
    let mut rows: Vec<_> = linked.chain(answer.others.iter().map(|contact| row(contact, "heard of"))).collect();
    rows.sort_by(|a, b| compare_str(&a[0], &b[0]));
    printer.table(&["NAME", "ENDPOINT", "ID", "HOW"], &rows)?;
    Ok(())
}

/// One call of Control on the peer at `via`.
pub(super) async fn call<T>(
    channels: &ChannelPool,
    via: &Endpoint,
    limit: Duration,
    call: impl AsyncFnOnce(ControlClient<p2pdi::channel::Channel>) -> Result<Response<T>, Status>,
) -> Outcome<T> {
    via::call(channels, via, limit, call(channels.control(via, None))).await
}
