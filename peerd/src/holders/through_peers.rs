//! One question to all peers of a mesh, of a client that is no peer of it: a peer asks for it.

use super::{
    listed::Listed,
    rfc_query::{Limits, query},
    round::query_for,
    source::Source,
};
use crate::{connections::channels::ChannelPool, documents::selector::DocumentSelector};
use p2pdi::v1::RfcQueryRequest;
use std::time::Duration;
use tokio::time::timeout;

/// Peers that are asked to ask, one after the other: each asks for others a few times a minute only, and one of an earlier version never does.
const ASKED_TO_ASK_MAX: usize = 3;
/// Time limit of one of them: it waits up to three seconds for the answers of its mesh.
const TIMEOUT: Duration = Duration::from_secs(6);

/// What the mesh answers about `wanted`, and through which of `peers`: the first one that asks it. Nothing if none does, or nobody has it.
pub async fn ask_mesh_through(channels: &ChannelPool, peers: &[Source], wanted: &DocumentSelector) -> Vec<(Source, Vec<Listed>)> {
    for peer in peers.iter().take(ASKED_TO_ASK_MAX) {
        let request = RfcQueryRequest { ask_mesh: true, ..query_for(wanted) };
        let limits = Limits::of(&request);
        let client = channels.peer_at(&peer.addresses(), peer.name.as_ref());
        match timeout(TIMEOUT, query(client, request, limits)).await {
            Ok(Ok(answer)) if answer.asked_mesh || !answer.documents.is_empty() => {
                tracing::debug!(%peer, %wanted, documents = answer.documents.len(), "asked the mesh through a peer");
                return vec![(peer.clone(), answer.documents)];
            }
            Ok(Ok(_)) => tracing::debug!(%peer, %wanted, "a peer does not ask its mesh now"),
            Ok(Err(error)) => tracing::debug!(%peer, %wanted, error = error.message(), "cannot ask the mesh through a peer"),
            Err(_) => tracing::debug!(%peer, %wanted, "a peer that should ask its mesh does not answer in time"),
        }
    }
    Vec::new()
}
