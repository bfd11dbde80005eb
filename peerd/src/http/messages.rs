//! Messages by plain HTTP: `/whisper?name=foo&message=hello` and `/broadcast?message=…`.
//!
//! These change state by GET, as the `curl` lines they are for do; so who may call is checked with care: see `caller`.

use super::{Page, caller, fields::Fields};
use crate::inbox::MessageKind;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use p2pdi::phrases;
use p2pdi::{
    field::{InvalidField, is_terminal_control},
    json,
    name::PeerName,
    status::{self, Reason},
    v1::{BroadcastResponse, WhisperRequest, WhisperResponse},
};
use serde_json::json;
use std::time::Duration;
use tonic::{Code, Status};

/// How long `/broadcast` gathers acknowledgements when it is not told.
const WAIT_DEFAULT: Duration = Duration::from_secs(2);

pub(super) fn whisper() -> MethodRouter<Page> {
    // A HEAD says that nothing is to happen; axum would take it for a GET.
    get(send_whisper).post(send_whisper).head(wrong_method).fallback(wrong_method)
}

pub(super) fn broadcast() -> MethodRouter<Page> {
    get(send_broadcast).post(send_broadcast).head(wrong_method).fallback(wrong_method)
}

async fn wrong_method() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, POST")], "messages are sent by GET or POST\n").into_response()
}

async fn send_whisper(State(page): State<Page>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let sent = async {
        caller::may_act(&page.services, &parts)?;
        let fields = Fields::read(&parts, body, &["name", "message", "kind"]).await?;
        let example = "?name=foo&message=hello";
        let to: PeerName = fields.needed("name", example)?.parse()?;
        let request = WhisperRequest {
            to: to.to_string(),
            kind: fields.get("kind").unwrap_or_default().to_owned(),
            body: fields.needed("message", example)?.to_owned().into(),
            from: page.services.me.name().to_string(),
            ..Default::default()
        };
        page.services.router.deliver(request).await
    };
    answer(sent.await, &parts.headers, |delivered: &WhisperResponse| {
        // The first hop is this peer's own.
        let passed = match delivered.hops.saturating_sub(1) {
            0 => String::new(),
            others => format!(", passed on by {}", phrases::counted(others.into(), "other peer")),
        };
        let reply = String::from_utf8_lossy(&delivered.reply).replace(is_terminal_control, " ");
        let reply = if delivered.reply_kind.is_empty() { reply } else { format!("\n{} {reply}", delivered.reply_kind) };
        format!("delivered by {}{passed}{reply}\n", delivered.delivered_by)
    })
}

async fn send_broadcast(State(page): State<Page>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // Whether acknowledgements were asked for.
    let mut asked = true;
    let sent = async {
        caller::may_act(&page.services, &parts)?;
        let fields = Fields::read(&parts, body, &["message", "kind", "wait"]).await?;
        let kind: MessageKind = fields.get("kind").unwrap_or_default().parse()?;
        let wait = match fields.get("wait") {
            Some(text) => humantime::parse_duration(text)
                .map_err(|error| InvalidField::new("wait", format!("{error}; write a duration such as 2s")))?,
            None => WAIT_DEFAULT,
        };
        let body = fields.needed("message", "?message=hello")?.to_owned().into();
        asked = !wait.is_zero();
        page.services.mesh.broadcast(&kind, body, wait).await
    };
    let sent = sent.await;
    answer(sent, &parts.headers, |tally: &BroadcastResponse| phrases::heard(tally, asked) + "\n")
}

fn answer<M: prost::Message + prost::Name>(
    sent: Result<M, Status>,
    headers: &HeaderMap,
    text: impl FnOnce(&M) -> String,
) -> Response {
    match sent {
        Ok(message) if wants_json(headers) => as_json(StatusCode::OK, &json::value(&message)),
        Ok(message) => text(&message).into_response(),
        Err(status) => refused(&status, headers),
    }
}

/// Why not, as text or, on request, as JSON.
pub(super) fn refused(status: &Status, headers: &HeaderMap) -> Response {
    let code = http_code(status);
    if !wants_json(headers) {
        return (code, status::describe(status) + "\n").into_response();
    }
    let reason = Reason::of(status).map_or("", Reason::as_str);
    as_json(code, &json!({ "error": { "reason": reason, "message": status::describe(status) } }))
}

pub(super) fn as_json(code: StatusCode, value: &serde_json::Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], value.to_string() + "\n").into_response()
}

pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("application/json")))
}

fn http_code(status: &Status) -> StatusCode {
    match (Reason::of(status), status.code()) {
        (Some(Reason::MessageTooLarge), _) => StatusCode::PAYLOAD_TOO_LARGE,
        (Some(Reason::TooManyStreams), _) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Code::InvalidArgument) => StatusCode::BAD_REQUEST,
        (_, Code::NotFound) => StatusCode::NOT_FOUND,
        (_, Code::PermissionDenied) => StatusCode::FORBIDDEN,
        (_, Code::ResourceExhausted) => StatusCode::TOO_MANY_REQUESTS,
        (_, Code::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Code::DeadlineExceeded) => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
