//! graph: the network as its peers describe it, each asked for its links.

mod draw;

use crate::{
    args::{Graph, GraphFormat},
    failure::{Failure, Outcome},
    printer::Printer,
};
use p2pdi::{endpoint::Endpoint, v1::ListPeersRequest};
use peerd::dial::Dialer;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use tokio::{task::JoinSet, time::timeout};

/// Peers asked at once: enough to hide their latency.
const ASKED_AT_ONCE: usize = 32;
/// How long one peer may take to say whom it is linked to.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Peers drawn at most: more than anybody can look at.
const PEERS_MAX: usize = 10_000;

/// Peers by id, and links between them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Picture {
    peers: BTreeMap<Vec<u8>, Peer>,
    /// The lower id first.
    links: BTreeSet<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Peer {
    name: String,
    endpoint: String,
    /// It said whom it is linked to; otherwise others said so of it.
    answered: bool,
}

pub(super) async fn graph(args: Graph, printer: Printer) -> Outcome {
    let picture = look(&args.via.via).await?;
    if printer.is_json() {
        printer.json(&value(&picture))?;
        return Ok(());
    }
    let text = match args.format {
        GraphFormat::Text => draw::text(&picture),
        GraphFormat::Dot => draw::dot(&picture),
        GraphFormat::Mermaid => draw::mermaid(&picture),
        GraphFormat::Svg => draw::svg(&picture),
    };
    printer.text(text.trim_end())?;
    Ok(())
}

/// Asks the peer at `first`, then all it is linked to, and so on.
async fn look(first: &Endpoint) -> Outcome<Picture> {
    let dialer = Dialer::default();
    let mut picture = Picture::default();
    let mut waiting: VecDeque<Endpoint> = [first.clone()].into();
    let mut seen: BTreeSet<Endpoint> = BTreeSet::new();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < ASKED_AT_ONCE
            && let Some(endpoint) = waiting.pop_front()
        {
            if seen.insert(endpoint.clone()) {
                let mut client = dialer.peer(&endpoint);
                asking.spawn(async move {
                    let answer = timeout(ANSWER_TIMEOUT, client.list_peers(ListPeersRequest {})).await;
                    (endpoint, answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time"))))
                });
            }
        }
        let Some(Ok((endpoint, answer))) = asking.join_next().await else { break };
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) if endpoint == *first => {
                return Err(Failure::call(endpoint.as_str(), &status).hint("--via HOST:PORT names the peer to begin with"));
            }
            Err(_) => continue,
        };
        let Some(me) = answer.peer else { continue };
        let id = me.id.to_vec();
        picture.peers.insert(id.clone(), Peer { name: me.name, endpoint: me.endpoint, answered: true });
        for contact in answer.neighbours.into_iter().filter_map(|neighbour| neighbour.peer) {
            let other = contact.id.to_vec();
            if picture.peers.len() >= PEERS_MAX && !picture.peers.contains_key(&other) {
                continue;
            }
            if let Ok(endpoint) = contact.endpoint.parse() {
                waiting.push_back(endpoint);
            }
            let peer = Peer { name: contact.name, endpoint: contact.endpoint, answered: false };
            picture.peers.entry(other.clone()).or_insert(peer);
            picture.links.insert(if id < other { (id.clone(), other) } else { (other, id.clone()) });
        }
    }
    Ok(picture)
}

fn value(picture: &Picture) -> serde_json::Value {
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let peers: Vec<_> = picture
        .peers
        .iter()
        .map(|(id, peer)| json!({ "id": hex(id), "name": peer.name, "endpoint": peer.endpoint, "answered": peer.answered }))
        .collect();
    let links: Vec<_> = picture.links.iter().map(|(a, b)| json!([hex(a), hex(b)])).collect();
    json!({ "peers": peers, "links": links })
}
