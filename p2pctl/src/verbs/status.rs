//! status: shows the state of the registry, or of a peer.

use super::rfc_query::resolve;
use crate::{
    args::{Global, Status},
    call::{CALL_TIMEOUT, server_time, to_peer},
    failure::{Failure, Outcome},
    printer::{Printer, ago, bytes, proto_span},
    registry_client::RegistrySession,
};
use p2pdi::phrases::counted;
use p2pdi::v1::{PQueryRequest, StatusRequest, StatusResponse};
use peerd::connections::channels::ChannelPool;
use serde_json::json;
use std::time::SystemTime;

pub(super) async fn status(global: &Global, channels: &ChannelPool, args: Status, printer: Printer) -> Outcome {
    // --via without a peer name means the peer of --via itself.
    let peer = args.peer.clone().or_else(|| args.via.via.as_ref().map(ToString::to_string));
    match &peer {
        Some(peer) => of_peer(global, channels, &args, peer, printer).await,
        None if args.left_out => Err(Failure::usage("--left-out is about the share of a peer; name the peer")),
        None => of_registry(global, printer).await,
    }
}

async fn of_peer(global: &Global, channels: &ChannelPool, args: &Status, peer: &str, printer: Printer) -> Outcome {
    let peer = resolve(global, channels, &args.via, peer).await?;
    let mut client = channels.control(&peer.endpoint, peer.name.as_ref());
    let request = StatusRequest { left_out: args.left_out };
    let mut time = SystemTime::now();
    let dated = async {
        let answer = client.status(request).await?;
        time = server_time(answer.metadata());
        Ok(answer)
    };
    let answer = to_peer(&peer.to_string(), &peer.endpoint, channels.dial(), CALL_TIMEOUT, dated).await?;
    printer.message(&answer, || text(&answer, time))?;
    Ok(())
}

/// `time`: now, by the peer's clock.
fn text(status: &StatusResponse, time: SystemTime) -> String {
    let ago = |at| ago(at, time);
    let registry = status.registry.clone().unwrap_or_default();
    let share = status.share.clone().unwrap_or_default();
    let inbox = status.inbox.unwrap_or_default();
    let left_out = share.hidden + share.unreadable + share.outside + share.unsupported;
    let mesh = status.mesh.clone().unwrap_or_default();
    let contact = match registry.last_contact_at {
        Some(at) => format!("since {}, last contact {}", ago(registry.since), ago(Some(at))),
        None => format!("since {}", ago(registry.since)),
    };
    let known = match registry.registry.as_str() {
        "" => String::new(),
        _ => format!("; {} known through it", counted(registry.known_peers, "peer")),
    };
    let mut lines = vec![
        format!("{} at {}, version {}, started {}", status.name, status.endpoint, status.version, ago(status.started_at)),
        format!("registry   {} ({contact}){known}", registry.detail),
        format!(
            "mesh       {}, {}, {} to fall back on",
            counted(mesh.neighbours.into(), "neighbour"),
            counted(mesh.links.into(), "link"),
            counted(mesh.others.into(), "other")
        ),
        format!(
            "share      {}, {}; {} left out, {} pending",
            counted(share.documents, "document"),
            bytes(share.bytes),
            counted(left_out, "file"),
            share.pending
        ),
        format!("learned    {} from other peers", counted(share.learned_documents, "document")),
        format!("sending    {}", status.load.unwrap_or_default().uploads),
        format!("messages   {} received, {} dropped", inbox.received, inbox.dropped),
    ];
    lines.extend(fetched(status));
    if mesh.misbehaviour + mesh.throttled > 0 {
        let (wrong, late) = (counted(mesh.misbehaviour, "wrong frame"), counted(mesh.throttled, "frame"));
        lines.push(format!("faults     {wrong} from other peers (see the peer's log), {late} dropped by rate limits"));
    }
    let tls = status.tls.clone().unwrap_or_default();
    if tls.enabled {
        let ends = tls.certificate_ends_at.map(|at| format!(", until {at}")).unwrap_or_default();
        lines.push(format!("tls        certificate for {}{ends}", tls.certificate_for));
    }
    if !tls.problem.is_empty() {
        lines.push(format!("problem    {}", tls.problem));
    }
    for namesake in &mesh.namesakes {
        lines.push(format!("conflict   another peer has this name: {}", namesake.endpoint));
    }
    if !share.detail.is_empty() {
        lines.push(format!("note       {}", share.detail));
    }
    lines.extend(share.problems.iter().map(|problem| format!("problem    {problem}")));
    lines.extend(share.left_out.iter().map(|left_out| format!("left out   {:?}: {}", left_out.name, left_out.rule)));
    let unnamed = left_out.saturating_sub(share.left_out.len() as u64);
    if unnamed > 0 && !share.left_out.is_empty() {
        lines.push(format!("           and {unnamed} more"));
    }
    lines.join("\n")
}

/// What the peer fetched for its share, its limits, and its mirrors.
fn fetched(status: &StatusResponse) -> Vec<String> {
    let fetched = status.fetched.clone().unwrap_or_default();
    let mut lines = Vec::new();
    let limits = [
        (status.upload_limit, "sends at most", "/s"),
        (status.download_limit, "receives at most", "/s"),
        (fetched.quota, "fetched documents take at most", ""),
        (fetched.min_free, "leaves free", ""),
    ];
    let limits: Vec<_> = limits
        .iter()
        .filter(|(limit, ..)| *limit > 0)
        .map(|(limit, what, unit)| format!("{what} {}{unit}", bytes(*limit)))
        .collect();
    if !limits.is_empty() {
        lines.push(format!("limits     {}", limits.join("; ")));
    }
    if fetched.documents + fetched.evicted > 0 {
        lines.push(format!(
            "fetched    {}, {}; {} pinned, {} removed to make room",
            counted(fetched.documents, "document"),
            bytes(fetched.bytes),
            fetched.pinned,
            fetched.evicted
        ));
    }
    if !fetched.detail.is_empty() {
        lines.push(format!("room       {}", fetched.detail));
    }
    for mirror in &status.mirrors {
        let from = if mirror.from.is_empty() { String::new() } else { format!(" of {}", mirror.from) };
        let detail = if mirror.detail.is_empty() { String::new() } else { format!("; {}", mirror.detail) };
        lines.push(format!(
            "mirror     {}{from}: {} present, {} missing, {} failed{detail}",
            mirror.pattern,
            mirror.present,
            mirror.missing,
            mirror.failed.len()
        ));
        lines.extend(mirror.failed.iter().map(|failed| format!("           {}: {}", failed.name, failed.why)));
    }
    lines
}

async fn of_registry(global: &Global, printer: Printer) -> Outcome {
    let mut session = RegistrySession::connect(&global.access(), global.state.as_deref()).await?;
    let asked = session.p_query(&PQueryRequest { page_size: 1, ..Default::default() }).await;
    let name = session.name().cloned();
    let answer = asked?;
    if printer.is_json() {
        printer.json(&json!({
            "registry": global.url(),
            "active_peers": answer.active_peers,
            "revision": answer.revision,
            "ttl": proto_span(answer.ttl),
            "registered_as": name.map(|name| name.to_string()),
        }))?;
        return Ok(());
    }
    let me = name.map_or_else(|| "not registered here".to_owned(), |name| format!("registered as {name}"));
    printer.text(&format!(
        "registry {}: {}, revision {}, leases of {}; {me}",
        global.channel(),
        counted(answer.active_peers, "active peer"),
        answer.revision,
        proto_span(answer.ttl)
    ))?;
    Ok(())
}
