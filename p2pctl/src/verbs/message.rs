//! whisper and ping.

use super::rfc_query::resolve;
use crate::{
    args::{Global, Ping, Through, Whisper},
    failure::{Failure, Outcome},
    membership::Kept,
    printer::{Printer, span},
};
use p2pdi::phrases::counted;
use p2pdi::{
    json,
    status::Reason,
    v1::{PingRequest, WhisperRequest},
};
use peerd::{connections::channels::ChannelPool, holders::source::Source, inbox::KIND_UNCLAIMED};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a message or a ping may take, there and back.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn whisper(global: &Global, args: Whisper, printer: Printer) -> Outcome {
    let receiver = match args.via {
        Some(endpoint) => Source { name: endpoint.to_string(), endpoint },
        None => match resolve(global, &Through { via: None }, args.name.as_str()).await {
            Ok(receiver) => receiver,
            Err(failure) if failure.is_refused() => {
                return Err(Failure::refused(format!("request cannot be fulfilled: no route to {}", args.name)).because(failure));
            }
            Err(failure) => return Err(failure),
        },
    };
    let sender = match args.sender {
        Some(sender) => Some(sender),
        None => Kept::read(global.state.as_deref(), &global.registry)?.map(|kept| kept.name),
    };
    let request = WhisperRequest {
        to: args.name.to_string(),
        kind: args.kind.clone(),
        body: args.message.into_bytes().into(),
        from: sender.map(|sender| sender.to_string()).unwrap_or_default(),
        ..Default::default()
    };
    let begun = Instant::now();
    let answer = call(&receiver, ChannelPool::default().peer(&receiver.endpoint).whisper(request)).await?;
    printer.message(&answer, || {
        let unclaimed = match answer.reply_kind.as_str() {
            KIND_UNCLAIMED => format!("; nobody there listens for {}", args.kind),
            _ => String::new(),
        };
        let hops = if answer.hops == 1 { "hop" } else { "hops" };
        format!("delivered by {} after {} {hops} in {}{unclaimed}", answer.delivered_by, answer.hops, span(begun.elapsed()))
    })?;
    Ok(())
}

pub(super) async fn ping(global: &Global, args: Ping, printer: Printer) -> Outcome {
    let receiver = resolve(global, &args.through, &args.peer).await?;
    let mut client = ChannelPool::default().peer(&receiver.endpoint);
    // The first call connects, which is not what a ping measures.
    call(&receiver, client.ping(PingRequest {})).await?;
    let begun = Instant::now();
    let answer = call(&receiver, client.ping(PingRequest {})).await?;
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

async fn call<T>(receiver: &Source, call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Outcome<T> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if Reason::of(&status) == Some(Reason::NoRoute) => Err(Failure::refused(status.message())),
        Ok(Err(status)) => Err(Failure::call(&receiver.to_string(), &status)),
        Err(_) => Err(Failure::refused(format!("{receiver} did not answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}
