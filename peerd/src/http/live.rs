//! What happens, as it happens: Server-Sent Events (HTML standard, section 9.2) for the page, and one look for programs.

use super::{
    Page, STREAMS_MAX, caller,
    messages::{as_json, refused},
};
use crate::{
    connections::unread::SlowReaderGuard,
    inbox::Message,
    overlay::PeerId,
    rpc::Services,
    topology::{Event as Happening, Observation, PAUSE, Reachability},
};
use axum::{
    extract::{Request, State},
    http::{StatusCode, request::Parts},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use p2pdi::{json, server::Caller, status::Reason, v1::Load};
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

/// How often a stream looks whether counts or messages changed. A guess: what a person takes for at once.
const TICK: Duration = Duration::from_millis(500);
/// A stream says something at least so often, so that both ends notice when the other is gone. What the HTML standard suggests.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// Latest messages shown.
const MESSAGES_SHOWN: usize = 50;
/// Characters of a message shown: a screenful.
const MESSAGE_SHOWN_CHARS: usize = 2_000;
/// How long `/network` waits for a first look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// A place among those who watch, if the request may have one.
fn admit(page: &Page, parts: &Parts) -> Result<OwnedSemaphorePermit, Status> {
    caller::may_see(&page.services, parts)?;
    Arc::clone(&page.places).try_acquire_owned().map_err(|_| {
        Reason::TooManyStreams
            .status(format!("{STREAMS_MAX} pages watch this peer already; close one of them, or try again later"))
    })
}

/// Events `status`, `network` and `messages`: each the whole of what it tells of, at first and whenever that changed.
pub(super) async fn events(State(page): State<Page>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let place = match admit(&page, &parts) {
        Ok(place) => place,
        Err(status) => return refused(&status, &parts.headers),
    };
    let services = Arc::clone(&page.services);
    let unread = services.unread;
    let stream = async_stream::stream! {
        let _place = place;
        let mut topology = services.topology.watch();
        topology.mark_changed();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut received, mut spoke) = (BTreeMap::new(), None, Instant::now());
        loop {
            let looked = tokio::select! {
                // Pages that stay would hold up the stop.
                () = page.stop.cancelled() => return,
                _ = tick.tick() => topology.has_changed().unwrap_or(false),
                Ok(()) = topology.changed() => true,
            };
            let mut news = vec![("status", json::value(&services.status()))];
            if looked {
                let snapshot = Arc::clone(&topology.borrow_and_update());
                news.push(("network", as_value(&services, &snapshot)));
            }
            let status = services.inbox.status();
            if received.replace(status.received) != Some(status.received) {
                let latest = services.inbox.latest(MESSAGES_SHOWN);
                news.push(("messages", latest.iter().map(message_value).collect()));
            }
            for (name, value) in news {
                let text = value.to_string();
                if told.get(name) != Some(&text) {
                    spoke = Instant::now();
                    yield Ok::<_, Infallible>(Event::default().event(name).data(&text));
                    told.insert(name, text);
                }
            }
            if spoke.elapsed() >= QUIET_MAX {
                spoke = Instant::now();
                yield Ok(Event::default().comment(""));
            }
        }
    };
    Sse::new(SlowReaderGuard::new(stream, parts.extensions.get::<Caller>().cloned(), unread)).into_response()
}

/// The same of the network alone, once: no older than the page would show it.
pub(super) async fn topology(State(page): State<Page>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let _place = match admit(&page, &parts) {
        Ok(place) => place,
        Err(status) => return refused(&status, &parts.headers),
    };
    let mut watching = page.services.topology.watch();
    let is_fresh = |snapshot: &Arc<Observation>| {
        let age = snapshot.asked_at.and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age <= 2 * PAUSE)
    };
    // Without a look in time the last one is shown; it says that it is not complete.
    let stopped = page.stop.cancelled();
    tokio::select! {
        () = stopped => return refused(&Reason::ShuttingDown.status("this peer is stopping; ask another"), &parts.headers),
        _ = timeout(LOOK_TIMEOUT, watching.wait_for(is_fresh)) => {}
    }
    let snapshot = Arc::clone(&watching.borrow());
    as_json(StatusCode::OK, &as_value(&page.services, &snapshot))
}

/// Links name peers by their place in the list.
fn as_value(services: &Services, observed: &Observation) -> Value {
    let snapshot = &observed.snapshot;
    let degrees = snapshot.degrees();
    let places: BTreeMap<&PeerId, usize> = snapshot.peers().keys().enumerate().map(|(place, id)| (id, place)).collect();
    let peers: Vec<_> = snapshot
        .peers()
        .iter()
        .map(|(id, seen)| {
            let me = *id == services.me.id();
            let (standing, load, documents) = match &seen.standing {
                // Known better here than any picture has it.
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
                "standing": standing,
                "hops": seen.hops,
                "links": degrees.get(id).copied().unwrap_or(0),
                "load": json::value(&load),
                "documents": documents,
            })
        })
        .collect();
    let links: Vec<_> = snapshot.links().iter().filter_map(|(a, b)| Some(json!([places.get(a)?, places.get(b)?]))).collect();
    json!({
        "peers": peers,
        "links": links,
        "beyond": snapshot.beyond(),
        "asked": observed.asked_at.is_some(),
        "events": observed.events.iter().map(event_value).collect::<Vec<_>>(),
    })
}

fn event_value(event: &Happening) -> Value {
    json!({ "at": time(event.at), "what": event.what.as_str(), "peer": event.peer.as_str() })
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

/// As RFC 3339 says it.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| String::new(), |at| at.to_string())
}
