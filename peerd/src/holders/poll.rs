//! Polls other peers for the documents they hold, and keeps the remote index up to date.

use super::{
    peer_directory::PeerDirectory,
    rfc_query::{Limits, query},
};
use crate::{
    connections::channels::ChannelPool,
    documents::{
        catalog::Catalog,
        remote_index::PEERS_MAX,
        remote_listing::{DOCUMENT_BYTES, PEER_BYTES_MAX, RemoteListing},
    },
};
use p2pdi::{contact::Contact, fan_out::FanOut, name::PeerName, status::internal, v1::RfcQueryRequest};
use rand::seq::IndexedRandom as _;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Shortest pause between two rounds. Other peers can make the directory change at any rate.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// How often each selected peer is polled. An "unchanged" answer costs it about a hundred bytes.
const POLL_INTERVAL: Duration = Duration::from_secs(20);
/// Peers polled at the same time, so that a slow one does not delay the others.
const POLLED_AT_ONCE: usize = 8;
/// Time limit of one peer's whole listing.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// How many rounds a peer is skipped after it passed that time limit.
const SKIPPED_ROUNDS: u32 = 6;
/// After how many failures in a row another peer takes a peer's place.
const FAILURES_MAX: u32 = 4;
/// What is read of one peer's answer: what the remote index keeps of one peer.
const LIMITS: Limits = Limits { documents: PEER_BYTES_MAX / DOCUMENT_BYTES, bytes: PEER_BYTES_MAX };

/// The peers that are polled.
#[derive(Debug, Default)]
struct Selection(BTreeMap<PeerName, Selected>);

#[derive(Debug)]
struct Selected {
    peer: Contact,
    /// In a row.
    failures: u32,
    /// Rounds in which it is still skipped.
    skip: u32,
    /// Its last listing had invalid documents, which is logged already.
    has_invalid: bool,
}

impl Selection {
    /// Follows the directory; returns the names of the peers that are not polled any more.
    fn update(&mut self, PeerDirectory { peers, is_complete }: PeerDirectory) -> Vec<PeerName> {
        // There are others to take the place of a peer that fails.
        let has_others = !is_complete || peers.len() > PEERS_MAX;
        let is_removed = |name: &PeerName, selected: &Selected| {
            (is_complete && !peers.contains_key(name)) || (has_others && selected.failures >= FAILURES_MAX)
        };
        let removed: Vec<_> =
            self.0.iter().filter(|(name, selected)| is_removed(name, selected)).map(|(name, _)| name.clone()).collect();
        self.0.retain(|name, _| !removed.contains(name));
        for (name, selected) in &mut self.0 {
            if let Some(peer) = peers.get(name) {
                selected.peer = peer.clone();
            }
        }
        let others: Vec<_> =
            peers.into_iter().filter(|(name, _)| !self.0.contains_key(name) && !removed.contains(name)).collect();
        let free = PEERS_MAX.saturating_sub(self.0.len());
        for (name, peer) in others.sample(&mut rand::rng(), free) {
            self.0.insert(name.clone(), Selected { peer: peer.clone(), failures: 0, skip: 0, has_invalid: false });
        }
        removed
    }

    /// The peers to poll in this round.
    fn round(&mut self) -> Vec<Contact> {
        let mut polled = Vec::new();
        for selected in self.0.values_mut() {
            match selected.skip {
                0 => polled.push(selected.peer.clone()),
                rounds => selected.skip = rounds - 1,
            }
        }
        polled
    }

    /// Records how polling a peer ended: with the number of invalid documents in a new listing (`None`: unchanged), or an error.
    fn record(&mut self, name: &PeerName, result: &Result<Option<usize>, Status>) {
        let Some(selected) = self.0.get_mut(name) else { return };
        match result {
            Ok(invalid) => {
                selected.failures = 0;
                let Some(invalid) = *invalid else { return };
                // Once until the peer sends a valid listing: its index can change at any rate.
                if invalid > 0 && !selected.has_invalid {
                    tracing::warn!(peer = %name, invalid, "a peer lists invalid documents; they are ignored");
                }
                selected.has_invalid = invalid > 0;
            }
            Err(error) => {
                selected.failures += 1;
                if error.code() == Code::DeadlineExceeded {
                    selected.skip = SKIPPED_ROUNDS;
                }
            }
        }
    }
}

/// Polls until `stop`.
pub(crate) async fn poll(
    catalog: Catalog,
    mut directory: watch::Receiver<PeerDirectory>,
    channels: ChannelPool,
    stop: CancellationToken,
) {
    let mut selection = Selection::default();
    while !stop.is_cancelled() {
        let round = async {
            let latest = directory.borrow_and_update().clone();
            for removed in selection.update(latest) {
                catalog.update_remote(|index| index.remove(&removed, SystemTime::now()));
            }
            let mut calls = selection.round().into_iter().map(|peer| {
                let (catalog, channels) = (catalog.clone(), channels.clone());
                async move { (peer.name().clone(), poll_peer(&catalog, &channels, peer).await) }
            });
            let mut fan_out = FanOut::new(POLLED_AT_ONCE);
            while let Some((name, result)) = fan_out.next(&mut calls).await {
                if let Err(error) = &result {
                    tracing::debug!(peer = %name, error = error.message(), "cannot list a peer's documents");
                }
                selection.record(&name, &result);
            }
            // The next round comes soon after the directory changed, and regularly.
            sleep(PAUSE_MIN).await;
            tokio::select! {
                () = sleep(POLL_INTERVAL) => {}
                Ok(()) = directory.changed() => {}
            }
        };
        tokio::select! {
            () = round => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Lists a peer's own documents if they changed; returns how many of them are invalid, `None` if they did not change.
async fn poll_peer(catalog: &Catalog, channels: &ChannelPool, peer: Contact) -> Result<Option<usize>, Status> {
    let if_version = catalog.remote(Instant::now()).version_of(peer.name()).unwrap_or(0);
    let request = RfcQueryRequest { own_only: true, if_version, ..Default::default() };
    let answer = timeout(LISTING_TIMEOUT, query(channels, peer.endpoint(), Some(peer.name()), request, LIMITS));
    let answer = answer.await.map_err(|_| Status::deadline_exceeded("its listing took too long"))??;
    let now = Instant::now();
    if answer.unchanged {
        catalog.update_remote(|index| index.confirm(peer, now, SystemTime::now()));
        return Ok(None);
    }
    let documents = answer.documents.into_iter().map(|listed| listed.document).collect();
    let listing = RemoteListing { version: answer.version, documents };
    let catalog = catalog.clone();
    let replaced = spawn_blocking(move || catalog.replace_listing(peer, listing, now)).await;
    replaced.map_err(|error| internal("replacing a listing", &error))?;
    Ok(Some(answer.invalid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::id::PeerId;

    fn directory(numbers: std::ops::Range<usize>, is_complete: bool) -> PeerDirectory {
        let peer =
            |n| Contact::new(PeerId::from_bytes([1; 16]), format!("p{n}").parse().unwrap(), "127.0.0.1:7801".parse().unwrap());
        PeerDirectory { peers: numbers.map(peer).map(|peer| (peer.name().clone(), peer)).collect(), is_complete }
    }

    #[test]
    fn a_peer_stays_selected_if_a_new_sample_lacks_it_and_not_if_the_complete_list_lacks_it() {
        let mut selection = Selection::default();
        assert!(selection.update(directory(0..3, false)).is_empty());
        assert!(selection.update(directory(3..6, false)).is_empty());
        assert_eq!(selection.0.len(), 6);
        assert_eq!(selection.update(directory(3..6, true)).len(), 3);
        assert_eq!(selection.round().len(), 3);
    }

    #[test]
    fn a_silent_peer_is_skipped_for_some_rounds_and_one_that_keeps_failing_is_replaced() {
        let mut selection = Selection::default();
        selection.update(directory(0..1, false));
        let name: PeerName = "p0".parse().unwrap();
        selection.record(&name, &Err(Status::deadline_exceeded("silent")));
        for _ in 0..SKIPPED_ROUNDS {
            assert!(selection.round().is_empty());
        }
        assert_eq!(selection.round().len(), 1);
        for _ in 1..FAILURES_MAX {
            selection.record(&name, &Err(Status::unavailable("gone")));
        }
        assert_eq!(selection.update(directory(1..2, false)), [name]);
    }
}
