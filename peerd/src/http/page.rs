//! The front page `/`: text for curl, JSON for programs, the live page for browsers.

use super::{caller, state::HttpState, text, transfers};
use crate::{documents::restrictions::Audience, rpc::audience};
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use p2pdi::{
    json,
    phrases::counted,
    server::{self, Caller, Origin, page as shared},
};
use serde_json::Value;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/peer.css");
const SCRIPT: &str = include_str!("page/peer.js");
const DRAWING: &str = include_str!("page/graph.js");
const TRANSFERS: &str = include_str!("page/transfers.js");

/// The whole status, with transfers, for those who may control the peer; others see what Ping and Swarm answer, and pages of other sites what
/// Ping answers.
pub(super) async fn front(State(state): State<HttpState>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let services = &state.services;
    let accept = parts.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let (as_json, as_page) = (server::wants_json(&parts.headers), accept.contains("text/html"));
    let is_foreign = Origin::of(&parts) == Origin::Foreign;
    let asks = audience(Caller::of(&parts.extensions));
    match caller::may_see(&state, &parts) {
        Ok(()) if as_json => {
            let mut status = json::value(&services.status());
            if let Value::Object(fields) = &mut status {
                transfers::swarms(services, &Audience::owner()).add_to(fields);
                transfers::jobs(services).add_to(fields);
            }
            server::as_json(StatusCode::OK, &status)
        }
        Ok(()) => {
            let view = services.mesh.view();
            // Known through the registry or from the mesh.
            let registered = services.session.known().all().into_iter().map(|peer| peer.name().clone());
            let known: BTreeSet<_> = view.known().map(|contact| contact.name().clone()).chain(registered).collect();
            let known = known.iter().filter(|name| *name != services.me.name()).count();
            let status = services.status();
            let text = text::text(&status, &view, known, &services.inbox.latest(text::MESSAGES_SHOWN))
                + &transfers::swarms(services, &Audience::owner()).text()
                + &transfers::jobs(services).text()
                + &transfers::mirrors_text(&status.mirrors);
            if as_page { shared::html(PAGE, services.me.name().as_str(), &text) } else { text.into_response() }
        }
        Err(_) if as_json => {
            let mut ping = json::value(&services.ping());
            if let (Value::Object(fields), false) = (&mut ping, is_foreign) {
                transfers::swarms(services, &asks).add_to(fields);
            }
            server::as_json(StatusCode::OK, &ping)
        }
        Err(refused) => {
            let ping = services.ping();
            let text = format!(
                "peer {} at {}, version {}, {}\n{}",
                ping.name,
                ping.endpoint,
                ping.version,
                counted(ping.documents, "document"),
                if is_foreign { String::new() } else { transfers::swarms(services, &asks).text() }
            );
            // Also for a person who followed a link from another site.
            if as_page { shared::html(PAGE, &ping.name, &(text + "\n" + refused.message() + "\n")) } else { text.into_response() }
        }
    }
}

pub(super) async fn style() -> Response {
    shared::file("text/css; charset=utf-8", STYLE)
}

pub(super) async fn script() -> Response {
    shared::file("text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn drawing() -> Response {
    shared::file("text/javascript; charset=utf-8", DRAWING)
}

pub(super) async fn transfers() -> Response {
    shared::file("text/javascript; charset=utf-8", TRANSFERS)
}
