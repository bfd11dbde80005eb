//! The front page `/`: text for curl, JSON for programs, the live page for browsers.

use super::{caller, response, state::HttpState, text};
use axum::{
    extract::{Request, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use p2pdi::{json, phrases::counted};
use std::collections::BTreeSet;

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const DRAWING: &str = include_str!("page/graph.js");
const ICON: &str = include_str!("page/icon.svg");

/// Content security policy of the page: it loads its own files only, and no text may become markup or code (`trusted-types`).
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The whole status for those who may control the peer; others see what Ping answers.
pub(super) async fn front(State(state): State<HttpState>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let services = &state.services;
    let accept = parts.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let (as_json, as_page) = (response::wants_json(&parts.headers), accept.contains("text/html"));
    match caller::may_see(services, &parts) {
        Ok(()) if as_json => response::as_json(StatusCode::OK, &json::value(&services.status())),
        Ok(()) => {
            let view = services.mesh.view();
            // Known through the registry or from the mesh.
            let registered = services.session.known().all().into_iter().map(|peer| peer.name().clone());
            let known: BTreeSet<_> = view.known().map(|contact| contact.name().clone()).chain(registered).collect();
            let known = known.iter().filter(|name| *name != services.me.name()).count();
            let text = text::text(&services.status(), &view, known, &services.inbox.latest(text::MESSAGES_SHOWN));
            if as_page { html(services.me.name().as_str(), &text) } else { text.into_response() }
        }
        Err(_) if as_json => response::as_json(StatusCode::OK, &json::value(&services.ping())),
        Err(refused) => {
            let ping = services.ping();
            let text = format!(
                "peer {} at {}, version {}, {}\n",
                ping.name,
                ping.endpoint,
                ping.version,
                counted(ping.documents, "document")
            );
            // Also for a person who followed a link from another site.
            if as_page { html(&ping.name, &(text + "\n" + refused.message() + "\n")) } else { text.into_response() }
        }
    }
}

/// The page; `text` is shown where scripts are off.
fn html(name: &str, text: &str) -> Response {
    // A name needs no escaping: it is letters, digits, hyphens and dots.
    let page = PAGE.replacen("{{name}}", name, 1).replacen("{{text}}", &escaped(text), 1);
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], page).into_response()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            c => escaped.push(c),
        }
    }
    escaped
}

pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn drawing() -> Response {
    file("text/javascript; charset=utf-8", DRAWING)
}

pub(super) async fn icon() -> Response {
    file("image/svg+xml", ICON)
}

/// Browsers revalidate it with each page, so that a file of an older version is never used.
fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (HeaderName::from_static("cache-control"), "no-cache")], text).into_response()
}
