//! Keeps the list of the other peers: lists them once, then watches what changes; a registry that cannot be watched is asked again and again.

use super::{
    client::Client,
    handle::Session,
    known::{LISTED_MAX, Listing},
};
use p2pdi::{
    backoff::Backoff,
    status::Reason,
    v1::{PQueryRequest, PQueryResponse, PeerEvent, SessionState, peer_event::Change},
};
use std::{collections::BTreeMap, convert::Infallible, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

/// With up to this many peers, all are listed; with more, a random sample of [`KNOWN_SAMPLE`].
const KNOWN_ALL_MAX: u64 = 1_000;
/// See [`KNOWN_ALL_MAX`].
const KNOWN_SAMPLE: u32 = 256;
/// How long a sample is used. It need not be fresh: peers of it that left are noticed when they are called.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Most pages of one listing. A page may be short, or empty: one call scans a bounded number of records.
const PAGES_MAX: usize = 256;
/// A watch that says nothing for so long is begun anew: the registry gives a sign of life every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The list of the known peers, and how it is kept.
pub(super) struct PeerList {
    session: Session,
    /// Revision of the list; 0 before the first listing.
    revision: u64,
    /// By its last answer, the registry has more than [`KNOWN_ALL_MAX`] peers.
    sampling: bool,
    /// When the last sample was taken.
    sampled_at: Option<Instant>,
}

/// Why a watch ended.
enum Ended {
    /// The registry is of a version that cannot be watched.
    Unsupported,
    /// This peer is behind, or the registry has more peers than are listed: list them again.
    ListAgain,
    /// It broke off.
    Broken(Status),
}

impl PeerList {
    /// An empty list.
    pub(super) fn new(session: Session) -> Self {
        Self { session, revision: 0, sampling: false, sampled_at: None }
    }

    /// Keeps the list while the peer is registered. A failure is not fatal.
    pub(super) async fn follow(&mut self, client: Client) -> Infallible {
        // A registry that lost its records counts from 0 again; an old revision would hide its new records.
        self.revision = 0;
        let mut can_be_watched = true;
        let mut backoff = Backoff::default();
        loop {
            let listed = self.refresh(&client).await;
            if let Err(error) = &listed {
                tracing::debug!(error = error.message(), "cannot list the other peers");
            }
            // A sample has no revision: once there are few enough peers, they are listed first.
            let can_go_on = listed.is_ok() && !self.sampling && self.revision > 0;
            if !can_go_on || !can_be_watched {
                self.wait_for_keepalive().await;
                continue;
            }
            match self.watch(&client, &mut backoff).await {
                Ended::Unsupported => can_be_watched = false,
                Ended::ListAgain => {}
                Ended::Broken(error) => {
                    tracing::debug!(error = error.message(), "the watch of the other peers ended");
                    if matches!(Reason::of(&error), Some(Reason::CookieUnknown | Reason::LeaseExpired)) {
                        self.session.call_soon();
                    }
                    sleep(backoff.next(rand::random())).await;
                }
            }
            // Keepalives find out when the registry answers again.
            let mut state = self.session.state();
            let _registered = state.wait_for(|state| *state == SessionState::Registered).await;
        }
    }

    /// Waits for as long as between two keepalives.
    async fn wait_for_keepalive(&self) {
        let interval = *self.session.interval().borrow();
        sleep(interval).await;
    }

    /// Applies changes as they happen.
    async fn watch(&mut self, client: &Client, backoff: &mut Backoff) -> Ended {
        let mut stream = match client.watch(self.revision).await {
            Ok(stream) => stream,
            Err(error) if error.code() == Code::Unimplemented => return Ended::Unsupported,
            Err(error) => return Ended::Broken(error),
        };
        loop {
            let message = match timeout(SILENCE_MAX, stream.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return Ended::Broken(Status::unavailable("the registry ended it")),
                Ok(Err(error)) if error.code() == Code::Unimplemented => return Ended::Unsupported,
                Ok(Err(error)) if Reason::of(&error) == Some(Reason::Lagged) => return Ended::ListAgain,
                Ok(Err(error)) => return Ended::Broken(error),
                Err(_) => return Ended::Broken(Status::deadline_exceeded("the registry says nothing")),
            };
            if message.start_over {
                self.revision = 0;
                return Ended::Broken(Status::aborted("the registry does not know the revision that it gave"));
            }
            let events = match message.events() {
                Ok(events) => events,
                Err(error) => return Ended::Broken(Status::internal(format!("a change that cannot be read: {error}"))),
            };
            if message.caught_up {
                backoff.reset();
            }
            self.session.known().update(listing(events));
            self.revision = message.revision.max(self.revision);
            if self.session.known().len() as u64 >= KNOWN_ALL_MAX {
                return Ended::ListAgain;
            }
        }
    }

    /// Lists peers, and updates the keepalive interval from the answer.
    async fn query(&self, client: &Client, request: PQueryRequest) -> Result<PQueryResponse, Status> {
        let answer = client.query(request).await?;
        self.session.listed(&answer);
        Ok(answer)
    }

    /// Updates the list of known peers.
    async fn refresh(&mut self, client: &Client) -> Result<(), Status> {
        if self.sampling {
            let fresh = self.sampled_at.is_some_and(|at| at.elapsed() < SAMPLE_INTERVAL);
            return if fresh && !self.session.known().is_empty() { Ok(()) } else { self.refresh_sample(client).await };
        }
        // After a failure the next listing starts over.
        let since_revision = std::mem::take(&mut self.revision);
        let mut token = String::new();
        let mut listing = Listing::default();
        let mut first_revision = None;
        for _ in 0..PAGES_MAX {
            let request = PQueryRequest { since_revision, page_token: std::mem::take(&mut token), ..Default::default() };
            let page = self.query(client, request).await?;
            if page.active_peers > KNOWN_ALL_MAX {
                self.sampling = true;
                return self.refresh_sample(client).await;
            }
            let revision = *first_revision.get_or_insert(page.revision);
            listing.start_over |= page.start_over;
            listing.gone.extend(page.gone);
            listing.peers.extend(page.peers);
            if listing.gone.len() + listing.peers.len() > LISTED_MAX {
                return Err(Status::out_of_range(format!(
                    "the registry lists more than {LISTED_MAX} changes, but counts at most {KNOWN_ALL_MAX} peers"
                )));
            }
            token = page.next_page_token;
            if token.is_empty() {
                self.revision = revision;
                listing.start_over |= since_revision == 0;
                self.session.known().update(listing);
                return Ok(());
            }
        }
        Err(Status::out_of_range(format!("the registry's listing has more than {PAGES_MAX} pages")))
    }

    async fn refresh_sample(&mut self, client: &Client) -> Result<(), Status> {
        let request = PQueryRequest { sample: KNOWN_SAMPLE, ..Default::default() };
        let answer = self.query(client, request).await?;
        self.sampled_at = Some(Instant::now());
        self.sampling = answer.active_peers > KNOWN_ALL_MAX;
        let mut peers = answer.peers;
        peers.truncate(KNOWN_SAMPLE as usize);
        self.session.known().update(Listing { start_over: true, sample: true, peers, gone: Vec::new() });
        Ok(())
    }
}

/// What is left of these changes, the last one of each peer.
fn listing(events: Vec<PeerEvent>) -> Listing {
    let name = |change: &Change| match change {
        Change::Joined(peer) | Change::Changed(peer) => peer.name.to_ascii_lowercase(),
        Change::Left(gone) => gone.name.to_ascii_lowercase(),
    };
    let last: BTreeMap<String, Change> =
        events.into_iter().filter_map(|event| event.change).map(|change| (name(&change), change)).collect();
    let mut listing = Listing::default();
    for change in last.into_values() {
        match change {
            Change::Joined(peer) | Change::Changed(peer) => listing.peers.push(peer),
            Change::Left(gone) => listing.gone.push(gone),
        }
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::{PeerGone, PeerRecord};

    #[test]
    fn of_several_changes_of_one_peer_the_last_counts() {
        let record = |name: &str| PeerRecord { name: name.into(), ..PeerRecord::default() };
        let gone = |name: &str| PeerGone { name: name.into(), ..PeerGone::default() };
        let changes = [
            Change::Left(gone("a")),
            Change::Joined(record("A")),
            Change::Joined(record("b")),
            Change::Changed(record("b")),
            Change::Left(gone("B")),
        ];
        let Listing { peers, gone, .. } = listing(changes.map(|change| PeerEvent { change: Some(change) }).into());
        assert_eq!(peers.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["A"]);
        assert_eq!(gone.iter().map(|gone| gone.name.as_str()).collect::<Vec<_>>(), ["B"]);
    }
}
