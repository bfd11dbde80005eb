//! graph: asks every peer for its links and draws the network.

mod draw;

use crate::{
    args::{Graph, GraphFormat},
    failure::{Failure, Outcome},
    printer::Printer,
};
use p2pdi::{endpoint::Endpoint, json};
use peerd::{
    connections::channels::ChannelPool,
    topology::{Limits, Reachability, Snapshot, ask, explore},
};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};

/// Limits of the walk through the network.
const LIMITS: Limits = Limits {
    // Enough to hide the latency of each.
    at_once: 32,
    // A busy peer answers within a second; one that takes longer is shown as silent.
    answer: Duration::from_secs(3),
    // Enough for the largest network, most of it unreachable.
    all: Duration::from_secs(60),
};
/// Most peers drawn. A guess: a larger drawing is unreadable.
const PEERS_MAX: usize = 10_000;

pub(super) async fn graph(channels: &ChannelPool, args: Graph, printer: Printer) -> Outcome {
    let snapshot = walk(channels, &args.via.via).await?;
    if printer.is_json() {
        printer.json(&value(&snapshot))?;
        return Ok(());
    }
    let text = match args.format {
        GraphFormat::Text => draw::text(&snapshot),
        GraphFormat::Dot => draw::dot(&snapshot),
        GraphFormat::Mermaid => draw::mermaid(&snapshot),
        GraphFormat::Svg => draw::svg(&snapshot),
    };
    printer.text(text.trim_end())?;
    Ok(())
}

/// Breadth-first walk from the peer at `first` along links.
async fn walk(channels: &ChannelPool, first: &Endpoint) -> Outcome<Snapshot> {
    let answer = ask(channels, first, None, LIMITS.answer)
        .await
        .map_err(|status| Failure::call(first.as_str(), &status).hint("--via HOST:PORT names the first peer to ask"))?;
    let mut snapshot = Snapshot::with_capacity(PEERS_MAX);
    let named = snapshot.add_answer(answer);
    explore(channels, &mut snapshot, named, &BTreeSet::new(), LIMITS).await;
    Ok(snapshot)
}

fn value(snapshot: &Snapshot) -> serde_json::Value {
    let peers: Vec<_> = snapshot
        .peers()
        .iter()
        .map(|(id, seen)| {
            let (name, endpoint) = (seen.contact.name().as_str(), seen.contact.endpoint().as_str());
            let mut peer = json!({ "id": id.to_string(), "name": name, "endpoint": endpoint, "answered": false });
            if let Reachability::Answers { load, documents } = &seen.reachability {
                peer["answered"] = true.into();
                peer["load"] = json::value(load);
                peer["documents"] = (*documents).into();
            }
            peer
        })
        .collect();
    let links: Vec<_> = snapshot.links().iter().map(|(a, b)| json!([a.to_string(), b.to_string()])).collect();
    json!({ "peers": peers, "links": links })
}
