//! Sending messages by plain HTTP: `/whisper?name=foo&message=hello` and `/broadcast?message=…`.
//!
//! A GET sends too, so that a plain `curl` line works. Because of that, who may call is checked with care: see `caller`.

use super::{
    caller,
    state::{FORM_MAX_BYTES, HttpState},
};
use crate::inbox::MessageKind;
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get},
};
use p2pdi::{
    field::{InvalidField, is_terminal_control},
    name::PeerName,
    phrases,
    server::{Fields, respond},
    v1::{BroadcastResponse, WhisperRequest, WhisperResponse},
};
use std::time::Duration;

/// Default of `wait`: how long `/broadcast` waits for acknowledgements.
const WAIT_DEFAULT: Duration = Duration::from_secs(2);

pub(super) fn whisper() -> MethodRouter<HttpState> {
    // axum answers HEAD with the handler of GET, but a HEAD must not send.
    get(send_whisper).post(send_whisper).head(wrong_method).fallback(wrong_method)
}

pub(super) fn broadcast() -> MethodRouter<HttpState> {
    get(send_broadcast).post(send_broadcast).head(wrong_method).fallback(wrong_method)
}

async fn wrong_method() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, POST")], "messages are sent by GET or POST\n").into_response()
}

async fn send_whisper(State(state): State<HttpState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let sent = async {
        caller::may_act(&state, &parts)?;
        let fields = Fields::read(&parts, body, &["name", "message", "kind"], FORM_MAX_BYTES).await?;
        let example = "?name=foo&message=hello";
        let to: PeerName = fields.required("name", example)?.parse()?;
        let request = WhisperRequest {
            to: to.to_string(),
            kind: fields.get("kind").unwrap_or_default().to_owned(),
            body: fields.required("message", example)?.to_owned().into(),
            from: state.services.me.name().to_string(),
            ..Default::default()
        };
        state.services.router.deliver(request).await
    };
    respond(sent.await, &parts.headers, delivered)
}

fn delivered(delivered: &WhisperResponse) -> String {
    // The first hop is this peer's own.
    let relays = match delivered.hops.saturating_sub(1) {
        0 => String::new(),
        others => format!(", relayed by {}", phrases::counted(others.into(), "other peer")),
    };
    let reply = String::from_utf8_lossy(&delivered.reply).replace(is_terminal_control, " ");
    let reply = if delivered.reply_kind.is_empty() { reply } else { format!("\n{} {reply}", delivered.reply_kind) };
    format!("delivered by {}{relays}{reply}\n", delivered.delivered_by)
}

async fn send_broadcast(State(state): State<HttpState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut with_acknowledgements = true;
    let sent = async {
        caller::may_act(&state, &parts)?;
        let fields = Fields::read(&parts, body, &["message", "kind", "wait"], FORM_MAX_BYTES).await?;
        let kind: MessageKind = fields.get("kind").unwrap_or_default().parse()?;
        let wait = match fields.get("wait") {
            Some(text) => humantime::parse_duration(text)
                .map_err(|error| InvalidField::new("wait", format!("{error}; write a duration such as 2s")))?,
            None => WAIT_DEFAULT,
        };
        let body = fields.required("message", "?message=hello")?.to_owned().into();
        with_acknowledgements = !wait.is_zero();
        state.services.mesh.broadcast(&kind, body, wait).await
    };
    let sent = sent.await;
    respond(sent, &parts.headers, |tally: &BroadcastResponse| phrases::acknowledgements(tally, with_acknowledgements) + "\n")
}
