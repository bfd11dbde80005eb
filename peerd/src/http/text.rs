//! The peer's status as text, for curl and for browsers without scripts.

use crate::{inbox::Message, mesh::View, overlay::membership::Direction};
use p2pdi::{field::is_terminal_control, hex, phrases::counted, v1::StatusResponse};
use std::{fmt::Write as _, time::SystemTime};

/// Most messages shown, the latest ones.
pub(super) const MESSAGES_SHOWN: usize = 10;
/// Most characters shown of a message.
const MESSAGE_SHOWN_CHARS: usize = 120;

/// `known`: the number of other peers known through the registry or from the mesh.
pub(super) fn text(status: &StatusResponse, mesh: &View, known: usize, messages: &[Message]) -> String {
    let mut out = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{label:<10} {value}");
    };
    let now = SystemTime::now();
    let uptime = status.started_at.and_then(|at| SystemTime::try_from(at).ok()).and_then(|at| now.duration_since(at).ok());
    line("peer", format!("{} at {}", status.name, status.endpoint));
    line("id", hex::encode(&status.id));
    line("version", status.version.clone());
    line("network", status.network.clone());
    line(
        "up",
        uptime
            .map_or_else(String::new, |up| humantime::format_duration(std::time::Duration::from_secs(up.as_secs())).to_string()),
    );
    if let Some(registry) = &status.registry {
        line("registry", registry.detail.clone());
    }
    if let Some(tls) = &status.tls {
        let ends = tls.certificate_ends_at.map(|at| format!(", until {at}")).unwrap_or_default();
        if tls.enabled {
            line("tls", format!("certificate for {}{ends}", tls.certificate_for));
        }
        if !tls.problem.is_empty() {
            line("problem", tls.problem.clone());
        }
    }
    line("peers", format!("{known} known"));
    for other in &mesh.name_conflicts {
        let goes_to = if mesh.yields_to().is_some() { "there" } else { "here" };
        let what = format!("another peer is called {}: {} at {}", other.name(), other.id(), other.endpoint());
        line("conflict", format!("{what}; messages for {} go {goes_to}", other.name()));
    }
    for (contact, direction) in &mesh.neighbours {
        let direction = if *direction == Direction::Outgoing { "to" } else { "from" };
        line("linked", format!("{direction} {} at {}", contact.name(), contact.endpoint()));
    }
    if !mesh.others.is_empty() {
        line("others", format!("{} to fall back on", mesh.others.len()));
    }
    if let Some(share) = &status.share {
        line("share", format!("{}, {}", counted(share.documents, "document"), bytesize::ByteSize(share.bytes).display().iec()));
        let left_out = [
            ("hidden", share.hidden),
            ("unreadable", share.unreadable),
            ("links leading outside", share.outside),
            ("unsupported", share.unsupported),
        ];
        let left_out: Vec<_> =
            left_out.iter().filter(|(_, count)| *count > 0).map(|(why, count)| format!("{count} {why}")).collect();
        if !left_out.is_empty() {
            line("left out", left_out.join(", "));
        }
        if share.pending > 0 {
            line("pending", format!("{} being read", counted(share.pending, "file")));
        }
        if !share.detail.is_empty() {
            line("note", share.detail.clone());
        }
        for problem in &share.problems {
            line("problem", problem.clone());
        }
        line("learned", format!("{} from other peers", counted(share.learned_documents, "document")));
    }
    if let Some(load) = &status.load {
        line(
            "sending",
            format!(
                "{}, {}/s",
                counted(load.uploads.into(), "document"),
                bytesize::ByteSize(load.upload_bytes_per_second).display().iec()
            ),
        );
    }
    if let Some(inbox) = &status.inbox {
        line("messages", format!("{} received, {} kept, {} dropped", inbox.received, inbox.messages, inbox.dropped));
    }
    for message in messages {
        let body: String = String::from_utf8_lossy(&message.body)
            .chars()
            .take(MESSAGE_SHOWN_CHARS)
            .map(|c| if is_terminal_control(c) { ' ' } else { c })
            .collect();
        let from = if message.from.is_empty() { "somebody" } else { &message.from };
        line("", format!("{from} ({}): {body}", message.kind));
    }
    out
}
