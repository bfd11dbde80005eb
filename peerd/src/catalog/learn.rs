//! Asks other peers now and then what they hold.

use super::{Catalog, LearnedDocuments, LearnedPeer};
use crate::{
    dial::Dialer,
    document::DocumentInfo,
    session::{KnownPeer, KnownPeers},
};
use p2pdi::v1::RfcQueryRequest;
use rand::seq::IndexedRandom as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How often each peer in view is asked; "unchanged" costs it a hundred bytes.
const LEARN_INTERVAL: Duration = Duration::from_secs(20);
/// Most peers in view. Beyond, a random choice, kept while they live: knowledge of everybody's documents is not needed, only a fair part.
const LEARN_PEERS_MAX: usize = 64;
/// Peers asked at once.
const ASKED_AT_ONCE: usize = 8;
/// How long one peer may take for its whole listing.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// Most documents taken from one peer.
const LISTING_DOCUMENTS_MAX: usize = 50_000;

impl From<KnownPeer> for LearnedPeer {
    fn from(KnownPeer { id, name, endpoint }: KnownPeer) -> Self {
        Self { id, name, endpoint }
    }
}

/// Learns until `stop`.
pub async fn learn(catalog: Catalog, peers: KnownPeers, dialer: Dialer, stop: CancellationToken) {
    let mut in_view: BTreeSet<_> = BTreeSet::new();
    let mut changes = peers.changes();
    while !stop.is_cancelled() {
        let round = async {
            let known: BTreeMap<_, _> = peers.all().into_iter().map(LearnedPeer::from).map(|peer| (peer.key(), peer)).collect();
            for gone in in_view.iter().filter(|key| !known.contains_key(key)) {
                catalog.learned().remove(gone, SystemTime::now());
            }
            in_view.retain(|key| known.contains_key(key));
            let others: Vec<_> = known.keys().filter(|key| !in_view.contains(key)).copied().collect();
            let room = LEARN_PEERS_MAX.saturating_sub(in_view.len());
            in_view.extend(others.sample(&mut rand::rng(), room).copied());
            let mut asking = JoinSet::new();
            for (_, peer) in known.into_iter().filter(|(key, _)| in_view.contains(key)) {
                // A silent peer keeps one of these places, not the others' answers.
                if asking.len() >= ASKED_AT_ONCE {
                    asking.join_next().await;
                }
                let (catalog, dialer) = (catalog.clone(), dialer.clone());
                asking.spawn(async move {
                    let name = peer.name.clone();
                    if let Err(error) = ask(&catalog, &dialer, peer).await {
                        tracing::debug!(peer = %name, error = error.message(), "could not learn what a peer holds");
                    }
                });
            }
            while asking.join_next().await.is_some() {}
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
    let known = catalog.learned().version_of(&peer.key()).unwrap_or(0);
    let request = RfcQueryRequest { own_only: true, if_version: known, ..Default::default() };
    let listing = timeout(LISTING_TIMEOUT, async {
        let mut stream = dialer.peer(&peer.endpoint).rfc_query(request).await?.into_inner();
        let mut listing = LearnedDocuments { version: 0, documents: Vec::new() };
        let mut refused = 0_u64;
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
                    // The first one only: a stranger does not fill the log.
                    Err(error) if refused == 0 => {
                        refused += 1;
                        tracing::warn!(peer = %peer.name, %error, "a peer lists a document that cannot be");
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        if refused > 1 {
            tracing::warn!(peer = %peer.name, refused, "a peer lists documents that cannot be");
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
