//! What a browser, curl and Prometheus see, on the same port as gRPC.

mod messages;

use crate::{mesh::View, messages::Message, overlay::membership::Direction, service::Services};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use p2pdi::{
    instruments::Metrics,
    json,
    v1::{SessionState, StatusResponse},
};
use std::{fmt::Write as _, sync::Arc, time::SystemTime};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpConnectInfo;

/// Messages shown on the status page.
const MESSAGES_SHOWN: usize = 10;
/// Characters of a message shown there.
const MESSAGE_SHOWN_CHARS: usize = 120;

#[derive(Clone)]
struct Page {
    services: Arc<Services>,
    metrics: Metrics,
    stop: CancellationToken,
}

/// The plain HTTP side of a peer.
pub(crate) fn router(services: Arc<Services>, metrics: Metrics, stop: CancellationToken) -> Router {
    Router::new()
        .route("/", get(status))
        .route("/whisper", get(messages::whisper).post(messages::whisper))
        .route("/broadcast", get(messages::broadcast).post(messages::broadcast))
        .route("/metrics", get(render_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Page { services, metrics, stop })
}

/// The whole status for those who may control the peer; others see what Ping tells everybody.
async fn status(State(page): State<Page>, headers: HeaderMap, request: Request) -> Response {
    let caller = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let (value, text) = if page.services.permit(caller).is_ok() {
        let status = page.services.status();
        (json::value(&status), text(&status, &page.services.mesh.view(), &page.services.inbox.latest(MESSAGES_SHOWN)))
    } else {
        let ping = page.services.ping();
        let text = format!("peer {} at {}, version {}, {} documents\n", ping.name, ping.endpoint, ping.version, ping.documents);
        (json::value(&ping), text)
    };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    if messages::wants_json(&headers) {
        ([(header::CONTENT_TYPE, "application/json")], value.to_string() + "\n").into_response()
    } else if accept.contains("text/html") {
        Html(html(page.services.me.name.as_str(), &text)).into_response()
    } else {
        text.into_response()
    }
}

async fn render_metrics(State(page): State<Page>) -> impl IntoResponse {
    let status = page.services.status();
    let registry = status.registry.unwrap_or_default();
    let registered = u64::from(registry.state() == SessionState::Registered);
    let mesh = status.mesh.unwrap_or_default();
    let gauges = [
        ("p2pdi_learned_documents", "Documents known from other peers", status.share.unwrap_or_default().learned_documents),
        ("p2pdi_known_peers", "Peers known through the registry", registry.known_peers),
        ("p2pdi_mesh_links", "Open links", mesh.links.into()),
        ("p2pdi_mesh_neighbours", "Neighbours in the mesh", mesh.neighbours.into()),
        ("p2pdi_mesh_broadcasts", "Broadcasts that arrived", mesh.broadcasts),
        ("p2pdi_mesh_duplicates", "Broadcasts that arrived again", mesh.duplicates),
        ("p2pdi_mesh_relayed", "Messages passed on for others", mesh.relayed),
        ("p2pdi_mesh_throttled", "Frames dropped since their sender sent more than its share", mesh.throttled),
        ("p2pdi_mesh_misbehaviour", "Frames that no peer should send", mesh.misbehaviour),
        ("p2pdi_mesh_paused", "Times a link was not read for a while since its sender sent more than its share", mesh.paused),
        ("p2pdi_mesh_namesakes", "Other peers that go by this peer's name", mesh.namesakes.len() as u64),
        ("p2pdi_registered", "1 while registered", registered),
    ];
    for (name, help, value) in gauges {
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
        page.metrics.gauge(name, help, &[]).set(value as f64);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.metrics.render())
}

/// Ready: the share is read, and the registry does not refuse this peer. A registry that is away does not make a peer useless.
async fn ready(State(page): State<Page>) -> (StatusCode, String) {
    if page.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let standing = page.services.session.status();
    if !page.services.catalog.share().progress().borrow().settled {
        return (StatusCode::SERVICE_UNAVAILABLE, "the share is still being read\n".to_owned());
    }
    match standing.state() {
        SessionState::Refused | SessionState::Registering => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", standing.detail)),
        _ => (StatusCode::OK, "ready\n".to_owned()),
    }
}

fn text(status: &StatusResponse, mesh: &View, messages: &[Message]) -> String {
    let mut out = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{label:<10} {value}");
    };
    let now = SystemTime::now();
    let uptime = status.started_at.and_then(|at| SystemTime::try_from(at).ok()).and_then(|at| now.duration_since(at).ok());
    line("peer", format!("{} at {}", status.name, status.endpoint));
    line("id", status.id.iter().map(|byte| format!("{byte:02x}")).collect());
    line("version", status.version.clone());
    line(
        "up",
        uptime
            .map_or_else(String::new, |up| humantime::format_duration(std::time::Duration::from_secs(up.as_secs())).to_string()),
    );
    if let Some(registry) = &status.registry {
        line("registry", registry.detail.clone());
        line("peers", format!("{} known", registry.known_peers));
    }
    for namesake in &mesh.namesakes {
        let goes_to = if mesh.yields_to().is_some() { "there" } else { "here" };
        let what = format!("another peer is called {}: {} at {}", namesake.name(), namesake.id(), namesake.endpoint());
        line("conflict", format!("{what}; messages for {} go {goes_to}", namesake.name()));
    }
    for (contact, direction) in &mesh.neighbours {
        let direction = if *direction == Direction::Outgoing { "to" } else { "from" };
        line("linked", format!("{direction} {} at {}", contact.name(), contact.endpoint()));
    }
    if !mesh.others.is_empty() {
        line("others", format!("{} to fall back on", mesh.others.len()));
    }
    if let Some(share) = &status.share {
        line("share", format!("{} documents, {}", share.documents, bytesize::ByteSize(share.bytes).display().iec()));
        let left_out = [
            ("hidden", share.hidden),
            ("unreadable", share.unreadable),
            ("leading outside", share.outside),
            ("unsupported", share.unsupported),
        ];
        let left_out: Vec<_> =
            left_out.iter().filter(|(_, count)| *count > 0).map(|(why, count)| format!("{count} {why}")).collect();
        if !left_out.is_empty() {
            line("left out", left_out.join(", "));
        }
        if share.pending > 0 {
            line("pending", format!("{} files being looked at", share.pending));
        }
        if !share.detail.is_empty() {
            line("note", share.detail.clone());
        }
        line("learned", format!("{} documents from other peers", share.learned_documents));
    }
    if let Some(load) = &status.load {
        line(
            "sending",
            format!("{} documents, {}/s", load.uploads, bytesize::ByteSize(load.upload_bytes_per_second).display().iec()),
        );
    }
    if let Some(inbox) = &status.inbox {
        line("messages", format!("{} received, {} kept, {} dropped", inbox.received, inbox.messages, inbox.dropped));
    }
    for message in messages {
        let body: String = String::from_utf8_lossy(&message.body)
            .chars()
            .take(MESSAGE_SHOWN_CHARS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let from = if message.from.is_empty() { "somebody" } else { &message.from };
        line("", format!("{from} ({}): {body}", message.kind));
    }
    out
}

fn html(name: &str, text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            c => escaped.push(c),
        }
    }
    // A name is letters, digits, hyphens and dots.
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name} - P2P-DI peer</title>\n<style>body{{font:16px/1.5 ui-monospace,monospace;margin:2rem auto;max-width:60rem;padding:0 1rem;\
         color-scheme:light dark}}pre{{white-space:pre-wrap;overflow-wrap:anywhere}}</style>\n<h1>{name}</h1>\n<pre>{escaped}</pre>\n\
         <p><a href=\"/metrics\">metrics</a> · <a href=\"/healthz\">health</a> · <a href=\"/readyz\">readiness</a></p>\n</html>\n"
    )
}
