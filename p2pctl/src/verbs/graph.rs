//! graph: the network as its peers describe it, each asked for its links.

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

/// What is asked of the network at most.
const LIMITS: Limits = Limits {
    // Enough to hide their latency.
    at_once: 32,
    // A busy peer answers within a moment; one that takes longer is shown as silent.
    answer: Duration::from_secs(3),
    // The largest network drawn, most of it dead: nobody waits longer for a picture.
    all: Duration::from_secs(60),
};
/// Peers drawn at most: more than anybody can look at.
const PEERS_MAX: usize = 10_000;

pub(super) async fn graph(args: Graph, printer: Printer) -> Outcome {
    let snapshot = look(&args.via.via).await?;
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

/// Asks the peer at `first`, then all it is linked to, and so on.
async fn look(first: &Endpoint) -> Outcome<Snapshot> {
    let channels = ChannelPool::default();
    let answer = ask(&channels, first, LIMITS.answer)
        .await
        .map_err(|status| Failure::call(first.as_str(), &status).hint("--via HOST:PORT names the peer to begin with"))?;
    let mut snapshot = Snapshot::with_room_for(PEERS_MAX);
    let named = snapshot.answer(answer);
    explore(&channels, &mut snapshot, named, &BTreeSet::new(), LIMITS).await;
    Ok(snapshot)
}

fn value(snapshot: &Snapshot) -> serde_json::Value {
    let peers: Vec<_> = snapshot
        .peers()
        .iter()
        .map(|(id, seen)| {
            let (name, endpoint) = (seen.contact.name().as_str(), seen.contact.endpoint().as_str());
            let mut peer = json!({ "id": id.to_string(), "name": name, "endpoint": endpoint, "answered": false });
            if let Reachability::Answers { load, documents } = &seen.standing {
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
