//! Live status: Server-Sent Events (HTML Standard, section 9.2) for the page, and one snapshot of the network for programs.

use super::{caller, state::HttpState, transfers};
use crate::{
    connections::slow_reader::SlowReaderGuard,
    documents::restrictions::Audience,
    inbox::Message,
    overlay::PeerId,
    rpc::Services,
    topology::{Event as TopologyEvent, PAUSE, Reachability, TopologyState},
};
use axum::{
    extract::{Request, State},
    http::{StatusCode, request::Parts},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use p2pdi::{
    json,
    server::{Caller, as_json, refused},
    status::Reason,
    v1::Load,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tonic::Status;

/// How often a stream checks whether counts or messages changed. A guess: a person takes it as immediate.
const TICK: Duration = Duration::from_millis(500);
/// How often a stream checks whether transfers changed: each check counts the pieces of all swarms shown.
const TRANSFERS_TICK: Duration = Duration::from_secs(1);
/// A stream sends at least this often, so that both ends notice when the other is gone. The HTML Standard suggests it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Most messages shown, the latest ones.
const MESSAGES_SHOWN: usize = 50;
/// Most characters shown of a message: one screen.
const MESSAGE_SHOWN_CHARS: usize = 2_000;
/// How long `/network` waits for a first snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);

/// A permit to watch, if the request may see the status.
fn admit(state: &HttpState, parts: &Parts) -> Result<OwnedSemaphorePermit, Status> {
    caller::may_see(state, parts)?;
    state.admit_stream()
}

/// `/live`: events `status`, `network`, `messages`, `swarms` and `jobs`. Each carries the complete value, at the start and whenever it changed.
pub(super) async fn events(State(state): State<HttpState>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let permit = match admit(&state, &parts) {
        Ok(permit) => permit,
        Err(status) => return refused(&status, &parts.headers),
    };
    let services = Arc::clone(&state.services);
    let unread = services.unread;
    let stream = async_stream::stream! {
        let _permit = permit;
        let mut topology = services.topology.watch();
        topology.mark_changed();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sent, mut received, mut sent_at) = (BTreeMap::new(), None, Instant::now());
        let mut transfers_due = Instant::now();
        loop {
            let topology_changed = tokio::select! {
                // An open page would delay the stop.
                () = state.stop.cancelled() => return,
                _ = tick.tick() => topology.has_changed().unwrap_or(false),
                Ok(()) = topology.changed() => true,
            };
            let mut values = vec![("status", json::value(&services.status()))];
            if topology_changed {
                let snapshot = Arc::clone(&topology.borrow_and_update());
                values.push(("network", as_value(&services, &snapshot)));
            }
            let status = services.inbox.status();
            if received.replace(status.received) != Some(status.received) {
                let latest = services.inbox.latest(MESSAGES_SHOWN);
                values.push(("messages", latest.iter().map(message_value).collect()));
            }
            if transfers_due <= Instant::now() {
                transfers_due = Instant::now() + TRANSFERS_TICK;
                values.push(("swarms", transfers::swarms(&services, &Audience::owner()).event()));
                values.push(("jobs", transfers::jobs(&services).event()));
            }
            for (name, value) in values {
                let text = value.to_string();
                if sent.get(name) != Some(&text) {
                    sent_at = Instant::now();
                    yield Ok::<_, Infallible>(Event::default().event(name).data(&text));
                    sent.insert(name, text);
                }
            }
            if sent_at.elapsed() >= KEEPALIVE_INTERVAL {
                sent_at = Instant::now();
                yield Ok(Event::default().comment(""));
            }
        }
    };
    Sse::new(SlowReaderGuard::new(stream, Caller::of(&parts.extensions).cloned(), unread, || None)).into_response()
}

/// `/network`: the network once, no older than the page shows it.
pub(super) async fn topology(State(state): State<HttpState>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let _permit = match admit(&state, &parts) {
        Ok(permit) => permit,
        Err(status) => return refused(&status, &parts.headers),
    };
    let mut observations = state.services.topology.watch();
    let is_fresh = |snapshot: &Arc<TopologyState>| {
        let age = snapshot.asked_at.and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age <= 2 * PAUSE)
    };
    // After the timeout the last snapshot is sent; `asked` is false in one that is not complete.
    tokio::select! {
        () = state.stop.cancelled() => return refused(&Reason::ShuttingDown.status("this peer is stopping; ask another"), &parts.headers),
        _ = timeout(SNAPSHOT_TIMEOUT, observations.wait_for(is_fresh)) => {}
    }
    let snapshot = Arc::clone(&observations.borrow());
    as_json(StatusCode::OK, &as_value(&state.services, &snapshot))
}

/// Links name peers by their index in the list.
fn as_value(services: &Services, observed: &TopologyState) -> Value {
    let snapshot = &observed.snapshot;
    let degrees = snapshot.degrees();
    let positions: BTreeMap<&PeerId, usize> = snapshot.peers().keys().enumerate().map(|(position, id)| (id, position)).collect();
    let peers: Vec<_> = snapshot
        .peers()
        .iter()
        .map(|(id, seen)| {
            let me = *id == services.me.id();
            let (reachability, load, documents) = match &seen.reachability {
                // This peer knows its own state better than the snapshot.
                _ if me => ("answers", services.load(), services.catalog.share().index().len() as u64),
                Reachability::Answers { load, documents } => ("answers", *load, *documents),
                Reachability::Silent => ("silent", Load::default(), 0),
                Reachability::Named => ("named", Load::default(), 0),
            };
            json!({
                "id": id.to_string(),
                "name": seen.contact.name().as_str(),
                "endpoint": seen.contact.endpoint().as_str(),
                "self": me,
                "standing": reachability,
                "hops": seen.hops,
                "links": degrees.get(id).copied().unwrap_or(0),
                "load": json::value(&load),
                "documents": documents,
            })
        })
        .collect();
    let links: Vec<_> =
        snapshot.links().iter().filter_map(|(a, b)| Some(json!([positions.get(a)?, positions.get(b)?]))).collect();
    json!({
        "peers": peers,
        "links": links,
        "beyond": snapshot.beyond(),
        "asked": observed.asked_at.is_some(),
        "events": observed.events.iter().map(event_value).collect::<Vec<_>>(),
    })
}

fn event_value(event: &TopologyEvent) -> Value {
    json!({ "at": time(event.at), "what": event.kind.as_str(), "peer": event.peer.as_str() })
}

fn message_value(message: &Message) -> Value {
    let whole = String::from_utf8_lossy(&message.body);
    let body: String = whole.chars().take(MESSAGE_SHOWN_CHARS).collect();
    json!({
        "at": time(message.received_at),
        "from": message.from,
        "kind": message.kind.as_str(),
        "broadcast": message.broadcast,
        "body": body,
        "bytes": message.body.len(),
        "cut": body.len() < whole.len(),
    })
}

/// In the format of RFC 3339.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| String::new(), |at| at.to_string())
}
