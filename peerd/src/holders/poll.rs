//! Polls other peers for the documents they hold, and keeps the remote index up to date.

use super::{
    peer_directory::PeerDirectory,
    rfc_query::{Limits, query},
};
use crate::{
    connections::channels::ChannelPool,
    documents::{
        catalog::Catalog,
        remote_index::{AGE_MAX, PEERS_MAX},
        remote_listing::{DOCUMENT_BYTES, PEER_BYTES_MAX, RemoteListing},
    },
};
use p2pdi::{contact::Contact, fan_out::FanOut, log_limit::LogLimit, name::PeerName, status::internal, v1::RfcQueryRequest};
use rand::seq::IndexedRandom as _;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Shortest pause between two rounds. Other peers can make the directory change at any rate.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// How often a selected peer is polled whose documents change. An "unchanged" answer costs it a connection and some hundred bytes.
const POLL_INTERVAL: Duration = Duration::from_secs(20);
/// After how many "unchanged" answers in a row a peer is polled less often: the interval doubles with each further one.
const UNCHANGED_MAX: u32 = 1;
/// Longest interval: several polls can fail before a listing is dropped for its age.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(80);
const _: () = assert!(AGE_MAX.as_secs() > 3 * POLL_INTERVAL_MAX.as_secs());
/// Peers polled at the same time, so that a slow one does not delay the others.
const POLLED_AT_ONCE: usize = 8;
/// Time limit of one peer's whole listing.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer that passed that time limit is not polled.
const TIMEOUT_PAUSE: Duration = Duration::from_secs(140);
/// After how many failures in a row another peer takes a peer's place.
const FAILURES_MAX: u32 = 4;
/// What is read of one peer's answer: what the remote index keeps of one peer.
const LIMITS: Limits = Limits { documents: PEER_BYTES_MAX / DOCUMENT_BYTES, bytes: PEER_BYTES_MAX };

/// A peer's index can change at any rate.
static LEFT_OUT_LOG: LogLimit = LogLimit::new(1);
/// So can the validity of what it lists.
static INVALID_LOG: LogLimit = LogLimit::new(1);

/// The peers that are polled.
#[derive(Debug, Default)]
struct Selection(BTreeMap<PeerName, Selected>);

#[derive(Debug)]
struct Selected {
    peer: Contact,
    /// In a row.
    failures: u32,
    /// "Unchanged" answers in a row.
    unchanged: u32,
    /// When it is polled next.
    due: Instant,
    /// Its last listing had invalid documents, which is logged already.
    has_invalid: bool,
}

impl Selection {
    /// Follows the directory; returns the names of the peers that are not polled any more.
    fn update(&mut self, PeerDirectory { peers, is_complete }: PeerDirectory, now: Instant) -> Vec<PeerName> {
        // There are others to take the place of a peer that fails.
        let has_others = !is_complete || peers.len() > PEERS_MAX;
        let is_removed = |name: &PeerName, selected: &Selected| {
            (is_complete && !peers.contains_key(name)) || (has_others && selected.failures >= FAILURES_MAX)
        };
        let removed: Vec<_> =
            self.0.iter().filter(|(name, selected)| is_removed(name, selected)).map(|(name, _)| name.clone()).collect();
        self.0.retain(|name, _| !removed.contains(name));
        for (name, selected) in &mut self.0 {
            if let Some(peer) = peers.get(name).filter(|peer| **peer != selected.peer) {
                selected.peer = peer.clone();
                selected.due = now;
            }
        }
        let others: Vec<_> =
            peers.into_iter().filter(|(name, _)| !self.0.contains_key(name) && !removed.contains(name)).collect();
        let free = PEERS_MAX.saturating_sub(self.0.len());
        for (name, peer) in others.sample(&mut rand::rng(), free) {
            let selected = Selected { peer: peer.clone(), failures: 0, unchanged: 0, due: now, has_invalid: false };
            self.0.insert(name.clone(), selected);
        }
        removed
    }

    /// The peers to poll now.
    fn due(&self, now: Instant) -> Vec<Contact> {
        self.0.values().filter(|selected| selected.due <= now).map(|selected| selected.peer.clone()).collect()
    }

    /// When the next peer is due; `None` without any.
    fn next_due(&self) -> Option<Instant> {
        self.0.values().map(|selected| selected.due).min()
    }

    /// Records how polling a peer ended: with the number of invalid documents in a new listing (`None`: unchanged), or an error.
    fn record(&mut self, name: &PeerName, result: &Result<Option<usize>, Status>, now: Instant) {
        let Some(selected) = self.0.get_mut(name) else { return };
        selected.due = now + POLL_INTERVAL;
        match result {
            Ok(None) => {
                selected.failures = 0;
                selected.unchanged = selected.unchanged.saturating_add(1);
                let doublings = selected.unchanged.saturating_sub(UNCHANGED_MAX).min(31);
                selected.due = now + POLL_INTERVAL.saturating_mul(1 << doublings).min(POLL_INTERVAL_MAX);
            }
            Ok(Some(invalid)) => {
                (selected.failures, selected.unchanged) = (0, 0);
                // Once until the peer sends a valid listing: its index can change at any rate.
                if *invalid > 0
                    && !selected.has_invalid
                    && let Some(line) = INVALID_LOG.line()
                {
                    tracing::warn!(peer = %name, invalid, suppressed = line.suppressed, "a peer lists invalid documents; they are ignored");
                }
                selected.has_invalid = *invalid > 0;
            }
            Err(error) => {
                selected.failures += 1;
                if error.code() == Code::DeadlineExceeded {
                    selected.due = now + TIMEOUT_PAUSE;
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
            for removed in selection.update(latest, Instant::now()) {
                catalog.update_remote(|index| index.remove(&removed, SystemTime::now()));
            }
            let mut calls = selection.due(Instant::now()).into_iter().map(|peer| {
                let (catalog, channels) = (catalog.clone(), channels.clone());
                async move { (peer.name().clone(), poll_peer(&catalog, &channels, peer).await) }
            });
            let mut fan_out = FanOut::new(POLLED_AT_ONCE);
            while let Some((name, result)) = fan_out.next(&mut calls).await {
                if let Err(error) = &result {
                    tracing::debug!(peer = %name, error = error.message(), "cannot list a peer's documents");
                }
                selection.record(&name, &result, Instant::now());
            }
            // The next round comes soon after the directory changed, and when a peer is due.
            sleep(PAUSE_MIN).await;
            let due = selection.next_due().unwrap_or_else(|| Instant::now() + POLL_INTERVAL);
            tokio::select! {
                () = sleep_until(due.into()) => {}
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
    let request = RfcQueryRequest { own_only: true, public_only: true, if_version, ..Default::default() };
    // Kept connections to all polled peers would be most of a peer's connections.
    let client = channels.peer_once(peer.endpoint(), Some(peer.name()));
    let answer = timeout(LISTING_TIMEOUT, query(client, request, LIMITS));
    let answer = answer.await.map_err(|_| Status::deadline_exceeded("its listing took too long"))??;
    let now = Instant::now();
    if answer.unchanged {
        catalog.update_remote(|index| index.confirm(peer, now, SystemTime::now()));
        return Ok(None);
    }
    let documents = answer.documents.into_iter().map(|listed| listed.document).collect();
    let listing = RemoteListing { version: answer.version, documents };
    let (name, replacing) = (peer.name().clone(), catalog.clone());
    let replaced = spawn_blocking(move || replacing.replace_listing(peer, listing, now)).await;
    replaced.map_err(|error| internal("replacing a listing", &error))?;
    let left_out = catalog.remote(now).left_out_of(&name);
    if (left_out > 0 || answer.truncated)
        && let Some(line) = LEFT_OUT_LOG.line()
    {
        let (peer, suppressed) = (name, line.suppressed);
        tracing::warn!(%peer, left_out, suppressed, "a peer lists more documents than are kept; `status` counts them");
    }
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
        let (mut selection, now) = (Selection::default(), Instant::now());
        assert!(selection.update(directory(0..3, false), now).is_empty());
        assert!(selection.update(directory(3..6, false), now).is_empty());
        assert_eq!(selection.0.len(), 6);
        assert_eq!(selection.update(directory(3..6, true), now).len(), 3);
        assert_eq!(selection.due(now).len(), 3);
    }

    #[test]
    fn a_silent_peer_is_not_polled_for_a_while_and_one_that_keeps_failing_is_replaced() {
        let (mut selection, now) = (Selection::default(), Instant::now());
        selection.update(directory(0..1, false), now);
        let name: PeerName = "p0".parse().unwrap();
        selection.record(&name, &Err(Status::deadline_exceeded("silent")), now);
        assert!(selection.due(now + TIMEOUT_PAUSE - Duration::from_secs(1)).is_empty());
        assert_eq!(selection.due(now + TIMEOUT_PAUSE).len(), 1);
        for _ in 1..FAILURES_MAX {
            selection.record(&name, &Err(Status::unavailable("gone")), now);
        }
        assert_eq!(selection.update(directory(1..2, false), now), [name]);
    }

    #[test]
    fn a_peer_whose_documents_do_not_change_is_polled_ever_more_rarely() {
        let (mut selection, now) = (Selection::default(), Instant::now());
        selection.update(directory(0..1, true), now);
        let name: PeerName = "p0".parse().unwrap();
        let mut interval_after = |result: Result<Option<usize>, Status>| {
            selection.record(&name, &result, now);
            (selection.next_due().unwrap() - now).as_secs()
        };
        assert_eq!(interval_after(Ok(Some(0))), 20);
        assert_eq!([(); 4].map(|()| interval_after(Ok(None))), [20, 40, 80, 80]);
        assert_eq!(interval_after(Err(Status::unavailable("gone"))), 20);
        assert_eq!(interval_after(Ok(None)), 80);
        assert_eq!(interval_after(Ok(Some(0))), 20);
        assert_eq!(interval_after(Ok(None)), 20);
    }
}
