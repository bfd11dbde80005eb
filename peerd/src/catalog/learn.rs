//! Asks other peers now and then what they hold.

use super::{Catalog, LearnedDocuments, LearnedPeer};
use crate::{dial::Dialer, document::DocumentInfo, session::KnownPeers};
use p2pdi::v1::RfcQueryRequest;
use rand::seq::IndexedRandom as _;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How often each peer in view is asked; "unchanged" costs it a hundred bytes.
const LEARN_INTERVAL: Duration = Duration::from_secs(20);
/// Most peers in view. Beyond, a random choice, kept while they live: knowledge of everybody's documents is not needed, only a fair part.
const LEARN_PEERS_MAX: usize = 64;
/// How long one peer may take for its whole listing.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// Most documents taken from one peer.
const LISTING_DOCUMENTS_MAX: usize = 50_000;

/// Learns until `stop`.
pub async fn learn(catalog: Catalog, peers: KnownPeers, dialer: Dialer, stop: CancellationToken) {
    let mut in_view: BTreeSet<_> = BTreeSet::new();
    let mut changes = peers.changes();
    while !stop.is_cancelled() {
        let round = async {
            let known = peers.all();
            let all: BTreeSet<_> = known.iter().map(|peer| peer.id).collect();
            for gone in in_view.iter().filter(|id| !all.contains(id)) {
                catalog.learned().remove(gone, SystemTime::now());
            }
            in_view.retain(|id| all.contains(id));
            let others: Vec<_> = all.difference(&in_view).copied().collect();
            let room = LEARN_PEERS_MAX.saturating_sub(in_view.len());
            in_view.extend(others.sample(&mut rand::rng(), room).copied());
            for peer in known.iter().filter(|peer| in_view.contains(&peer.id)) {
                let peer = LearnedPeer { id: peer.id, name: peer.name.clone(), endpoint: peer.endpoint.clone() };
                if let Err(error) = ask(&catalog, &dialer, peer.clone()).await {
                    tracing::debug!(peer = %peer.name, error = error.message(), "could not learn what a peer holds");
                }
            }
            // Soon after somebody came or left, and regularly.
            tokio::select! {
                () = sleep(LEARN_INTERVAL) => {}
                _ = changes.changed() => {}
            }
        };
        tokio::select! {
            () = round => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn ask(catalog: &Catalog, dialer: &Dialer, peer: LearnedPeer) -> Result<(), Status> {
    let known = catalog.learned().version_of(&peer.id).unwrap_or(0);
    let request = RfcQueryRequest { own_only: true, if_version: known, ..Default::default() };
    let listing = timeout(LISTING_TIMEOUT, async {
        let mut stream = dialer.peer(&peer.endpoint).rfc_query(request).await?.into_inner();
        let mut listing = LearnedDocuments { version: 0, documents: Vec::new() };
        while let Some(message) = stream.message().await? {
            if message.unchanged {
                return Ok(None);
            }
            listing.version = message.version;
            let documents = message.holdings.into_iter().filter_map(|holding| holding.document);
            for document in documents {
                match DocumentInfo::try_from(document) {
                    Ok(document) if listing.documents.len() < LISTING_DOCUMENTS_MAX => listing.documents.push(document),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(peer = %peer.name, %error, "a peer lists a document that cannot be"),
                }
            }
        }
        Ok::<_, Status>(Some(listing))
    })
    .await
    .map_err(|_| Status::deadline_exceeded("its listing took too long"))??;
    let now = Instant::now();
    match listing {
        Some(listing) => catalog.learned().replace(peer, listing, now, SystemTime::now()),
        None => catalog.learned().confirm(peer, now),
    }
    Ok(())
}
