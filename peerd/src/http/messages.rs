//! Messages by plain HTTP: `/whisper?name=foo&message=hello` and `/broadcast?message=…`.
//!
//! These change state by GET, as the `curl` lines they are for do; so who may call is checked with care: loopback only
//! (unless told otherwise), and never a page of another site in a browser on this machine.

use super::Page;
use crate::{
    dial::in_words,
    messages::MessageKind,
    service::{ControlFrom, Services},
};
use axum::{
    extract::{Query, State},
    http::{Extensions, HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use p2pdi::{
    field::InvalidField,
    json,
    status::Reason,
    v1::{BroadcastResponse, WhisperRequest, WhisperResponse},
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use tonic::{Code, Status, transport::server::TcpConnectInfo};

/// How long `/broadcast` gathers acknowledgements when it is not told.
const WAIT_DEFAULT: Duration = Duration::from_secs(2);

type Fields = Query<BTreeMap<String, String>>;

pub(super) async fn whisper(
    State(page): State<Page>,
    Query(fields): Fields,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response {
    let sent = async {
        permit(&page.services, &headers, &extensions)?;
        let request = WhisperRequest {
            to: needed(&fields, "name")?.to_owned(),
            kind: fields.get("kind").cloned().unwrap_or_default(),
            body: needed(&fields, "message")?.to_owned().into(),
            from: page.services.me.name.to_string(),
            ..Default::default()
        };
        page.services.whispers.deliver(request).await
    };
    answer(sent.await, &headers, |delivered: &WhisperResponse| {
        let passed = match delivered.hops {
            0 => String::new(),
            1 => ", passed on by 1 peer".to_owned(),
            hops => format!(", passed on by {hops} peers"),
        };
        let reply = String::from_utf8_lossy(&delivered.reply).replace(char::is_control, " ");
        let reply = if delivered.reply_kind.is_empty() { reply } else { format!("\n{} {reply}", delivered.reply_kind) };
        format!("delivered by {}{passed}{reply}\n", delivered.delivered_by)
    })
}

pub(super) async fn broadcast(
    State(page): State<Page>,
    Query(fields): Fields,
    headers: HeaderMap,
    extensions: Extensions,
) -> Response {
    let sent = async {
        permit(&page.services, &headers, &extensions)?;
        let kind: MessageKind = fields.get("kind").map_or("", String::as_str).parse()?;
        let wait = match fields.get("wait") {
            Some(text) => humantime::parse_duration(text).map_err(|error| InvalidField::new("wait", error.to_string()))?,
            None => WAIT_DEFAULT,
        };
        page.services.mesh.broadcast(&kind, needed(&fields, "message")?.to_owned().into(), wait).await
    };
    answer(sent.await, &headers, |tally: &BroadcastResponse| {
        let missing = if tally.missing.is_empty() { String::new() } else { format!("; missing: {}", tally.missing.join(", ")) };
        format!("{} of {} known peers have it{missing}\n", tally.acknowledged, tally.known)
    })
}

fn needed<'a>(fields: &'a BTreeMap<String, String>, name: &'static str) -> Result<&'a str, InvalidField> {
    fields.get(name).map(String::as_str).ok_or_else(|| InvalidField::new(name, "is missing; write ?name=foo&message=hello"))
}

fn answer<M: prost::Message + prost::Name>(
    sent: Result<M, Status>,
    headers: &HeaderMap,
    text: impl FnOnce(&M) -> String,
) -> Response {
    match sent {
        Ok(message) if wants_json(headers) => {
            ([(header::CONTENT_TYPE, "application/json")], json::value(&message).to_string() + "\n").into_response()
        }
        Ok(message) => text(&message).into_response(),
        Err(status) => (http_code(&status), in_words(&status) + "\n").into_response(),
    }
}

pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("application/json")))
}

fn http_code(status: &Status) -> StatusCode {
    match (Reason::of(status), status.code()) {
        (Some(Reason::MessageTooLarge), _) => StatusCode::PAYLOAD_TOO_LARGE,
        (_, Code::InvalidArgument) => StatusCode::BAD_REQUEST,
        (_, Code::NotFound) => StatusCode::NOT_FOUND,
        (_, Code::PermissionDenied) => StatusCode::FORBIDDEN,
        (_, Code::ResourceExhausted) => StatusCode::TOO_MANY_REQUESTS,
        (_, Code::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Code::DeadlineExceeded) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn permit(services: &Services, headers: &HeaderMap, extensions: &Extensions) -> Result<(), Status> {
    services.permit(extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr))?;
    let loopback_only = services.control == ControlFrom::Loopback;
    if is_foreign(headers, loopback_only.then(|| services.me.endpoint.host())) {
        return Err(
            Reason::LoopbackOnly.status("a page of another site may not make this peer talk; call it yourself, with curl")
        );
    }
    Ok(())
}

/// Whether a browser asks on behalf of another site. `own_host`: only this and the names of this machine may be in `Host`, so
/// that a site whose name was made to point here (DNS rebinding) is foreign too.
fn is_foreign(headers: &HeaderMap, own_host: Option<&str>) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST);
    // Fetch Metadata (W3C): what browsers say of who asks. `none` is a person typing.
    if text(header::HeaderName::from_static("sec-fetch-site")).is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    if let Some(origin) = text(header::ORIGIN)
        && host.is_none_or(|host| origin != format!("http://{host}") && origin != format!("https://{host}"))
    {
        return true;
    }
    let (Some(own), Some(host)) = (own_host, host) else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    !(name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case(own) || name.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), header::HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn curl_and_the_peers_own_page_may_and_other_sites_may_not() {
        for ours in [
            &[("host", "localhost:8003")][..],
            &[("host", "127.0.0.1:8003")],
            &[("host", "[::1]:8003")],
            &[("host", "[::1]")],
            &[("host", "peer-0.peers:8003")],
            &[("host", "localhost:8003"), ("origin", "http://localhost:8003"), ("sec-fetch-site", "same-origin")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "none")],
            &[],
        ] {
            assert!(!is_foreign(&headers(ours), Some("peer-0.peers")), "{ours:?}");
        }
        for foreign in [
            &[("host", "localhost:8003"), ("origin", "http://evil.example")][..],
            &[("host", "localhost:8003"), ("origin", "null")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "same-site")],
            &[("host", "localhost:8003"), ("origin", "http://localhost:9000")],
            // A name that was made to point at this machine.
            &[("host", "evil.example:8003"), ("origin", "http://evil.example:8003"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(is_foreign(&headers(foreign), Some("peer-0.peers")), "{foreign:?}");
        }
    }
}
