//! whisper and ping.

use super::rfc_query::resolve;
use crate::{
    args::{Global, OptionalVia, Ping, Whisper},
    call::{CALL_TIMEOUT, RETRY_LIMIT, to_peer},
    failure::{Failure, Outcome},
    printer::{Printer, span},
    registry_client::SavedCookie,
    via::signed,
};
use p2pdi::{
    json,
    v1::{PingRequest, WhisperRequest},
};
use p2pdi::{phrases::counted, retry::when_told};
use peerd::{connections::channels::ChannelPool, holders::source::Source, inbox::KIND_UNCLAIMED};
use serde_json::json;
use std::time::Instant;

pub(super) async fn whisper(global: &Global, channels: &ChannelPool, args: Whisper, printer: Printer) -> Outcome {
    let receiver = match args.via {
        Some(endpoint) => Source::new(None, endpoint),
        None => match resolve(global, channels, &OptionalVia { via: None }, args.name.as_str()).await {
            Ok(receiver) => receiver,
            Err(failure) if failure.is_refused() => {
                return Err(Failure::refused(format!("request cannot be fulfilled: no route to {}", args.name)).because(failure));
            }
            Err(failure) => return Err(failure),
        },
    };
    let sender = match args.sender {
        Some(sender) => Some(sender),
        // The certificate says who it is from.
        None if channels.dial().tls.is_some() => None,
        None => SavedCookie::read(global.state.as_deref(), &global.registries())?.map(|kept| kept.name),
    };
    let request = WhisperRequest {
        to: args.name.to_string(),
        kind: args.kind.clone(),
        body: args.message.into_bytes().into(),
        from: sender.map(|sender| sender.to_string()).unwrap_or_default(),
        ..Default::default()
    };
    // A peer passes on what is signed only.
    let request = if request.from.is_empty() { signed(channels.dial(), &global.network, request) } else { request };
    let begun = Instant::now();
    let client = channels.peer_at(&receiver.addresses(), receiver.name.as_ref());
    let whisper = when_told(RETRY_LIMIT, || {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.whisper(request).await }
    });
    let answer = to_peer(&receiver.to_string(), &receiver.endpoint, channels.dial(), CALL_TIMEOUT, whisper).await?;
    let took = begun.elapsed();
    if printer.is_json() {
        // As measured here, the way to the first peer included.
        let mut value = json::value(&answer);
        value["round_trip"] = json!(format!("{:.6}s", took.as_secs_f64()));
        printer.json(&value)?;
        return Ok(());
    }
    printer.message(&answer, || {
        let unclaimed = match answer.reply_kind.as_str() {
            KIND_UNCLAIMED => format!("; it has no subscriber for {}", args.kind),
            _ => String::new(),
        };
        let hops = if answer.hops == 1 { "hop" } else { "hops" };
        format!("delivered by {} after {} {hops} in {}{unclaimed}", answer.delivered_by, answer.hops, span(took))
    })?;
    Ok(())
}

pub(super) async fn ping(global: &Global, channels: &ChannelPool, args: Ping, printer: Printer) -> Outcome {
    let receiver = resolve(global, channels, &args.via, &args.peer).await?;
    let mut client = channels.peer_at(&receiver.addresses(), receiver.name.as_ref());
    // The first call connects; the second measures the round trip alone.
    to_peer(&receiver.to_string(), &receiver.endpoint, channels.dial(), CALL_TIMEOUT, client.ping(PingRequest {})).await?;
    let begun = Instant::now();
    let answer =
        to_peer(&receiver.to_string(), &receiver.endpoint, channels.dial(), CALL_TIMEOUT, client.ping(PingRequest {})).await?;
    let took = begun.elapsed();
    if printer.is_json() {
        let mut value = json::value(&answer);
        value["round_trip"] = json!(format!("{:.6}s", took.as_secs_f64()));
        printer.json(&value)?;
    } else {
        printer.text(&format!(
            "{} at {} answered in {}: version {}, {}, sending {}",
            answer.name,
            answer.endpoint,
            span(took),
            answer.version,
            counted(answer.documents, "document"),
            answer.load.unwrap_or_default().uploads
        ))?;
    }
    Ok(())
}
