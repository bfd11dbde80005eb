//! Answers as text or JSON, and errors as HTTP status codes.

use crate::{
    json,
    status::{self, Reason},
};
use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// An outcome as JSON for clients that ask for it, else as the text that `text` makes of it.
pub fn respond<M: prost::Message + prost::Name>(
    outcome: Result<M, Status>,
    headers: &HeaderMap,
    text: impl FnOnce(&M) -> String,
) -> Response {
    match outcome {
        Ok(message) if wants_json(headers) => as_json(StatusCode::OK, &json::value(&message)),
        Ok(message) => text(&message).into_response(),
        Err(status) => refused(&status, headers),
    }
}

/// An error, as JSON for clients that ask for it, else as text.
pub fn refused(status: &Status, headers: &HeaderMap) -> Response {
    let code = http_code(status);
    if !wants_json(headers) {
        return (code, status::describe(status) + "\n").into_response();
    }
    let reason = Reason::of(status).map_or("", Reason::as_str);
    as_json(code, &json!({ "error": { "reason": reason, "message": status::describe(status) } }))
}

/// JSON with this status code.
pub fn as_json(code: StatusCode, value: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], value.to_string() + "\n").into_response()
}

/// Whether the client asks for JSON.
pub fn wants_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("application/json")))
}

fn http_code(status: &Status) -> StatusCode {
    match (Reason::of(status), status.code()) {
        (Some(Reason::MessageTooLarge), _) => StatusCode::PAYLOAD_TOO_LARGE,
        (Some(Reason::TooManyStreams | Reason::Overloaded), _) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Code::InvalidArgument) => StatusCode::BAD_REQUEST,
        (_, Code::NotFound) => StatusCode::NOT_FOUND,
        (_, Code::PermissionDenied) => StatusCode::FORBIDDEN,
        (_, Code::ResourceExhausted) => StatusCode::TOO_MANY_REQUESTS,
        (_, Code::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Code::DeadlineExceeded) => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
