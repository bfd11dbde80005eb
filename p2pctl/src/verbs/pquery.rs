//! pquery: lists the active peers.

use crate::{
    args::{Global, Pquery},
    failure::Outcome,
    printer::{Printer, ago, proto_span},
    registry_client::RegistrySession,
};
use alphanumeric_sort::compare_str;
use p2pdi::v1::{PQueryRequest, PeerRecord};
use std::time::SystemTime;

pub(super) async fn pquery(global: &Global, args: Pquery, printer: Printer) -> Outcome {
    let mut session = RegistrySession::connect(&global.access(), global.state.as_deref()).await?;
    let query = PQueryRequest {
        name: args.name.unwrap_or_default(),
        labels: args.labels.into_iter().collect(),
        sample: args.sample.unwrap_or(0),
        since_revision: args.since_revision.unwrap_or(0),
        ..Default::default()
    };
    let is_sample = query.sample > 0;
    let listed = session.all(query).await;
    let mut listed = listed?;
    // The registry lists in slot order; a sample stays in random order. peer-2 comes before peer-10.
    if !is_sample {
        listed.peers.sort_by(|a, b| compare_str(a.name.to_lowercase(), b.name.to_lowercase()));
    }
    if printer.is_json() {
        printer.message(&listed, String::new)?;
        return Ok(());
    }
    let time = session.time();
    let rows: Vec<_> = listed.peers.iter().map(|peer| row(peer, time)).collect();
    printer.table(&["NAME", "ENDPOINT", "LEASE", "ACTIVE", "REGISTERED", "SENDING", "LABELS"], &rows)?;
    for gone in &listed.gone {
        printer.text(&format!("{} is gone", gone.name))?;
    }
    if printer.is_watched() {
        printer.note(&format!("{} active peers at revision {}", listed.active_peers, listed.revision));
    }
    if listed.start_over {
        printer.note("note: that revision is older than what the registry remembers; this is the whole list");
    }
    Ok(())
}

/// `time`: now, by the registry's clock.
fn row(peer: &PeerRecord, time: SystemTime) -> Vec<String> {
    let labels: Vec<_> = peer.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        peer.name.clone(),
        peer.endpoint.clone(),
        proto_span(peer.lease_remaining),
        ago(peer.last_active_at, time),
        format!("{}x", peer.registration_count),
        peer.load.as_ref().map_or_else(|| "-".to_owned(), |load| load.uploads.to_string()),
        labels.join(","),
    ]
}
