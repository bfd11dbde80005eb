//! Asks other peers now and then what they hold.

use crate::{
    connections::channels::ChannelPool,
    documents::{
        catalog::Catalog,
        info::DocumentInfo,
        remote_index::{LEARN_PEERS_MAX, LEARNED_PEER_BYTES_MAX, RemoteListing, cost},
    },
    holders::peer_directory::PeerDirectory,
};
use p2pdi::{contact::Contact, fan_out::FanOut, name::PeerName, v1::RfcQueryRequest};
use rand::seq::IndexedRandom as _;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Between two rounds, however often the acquaintances change: strangers have a say in those.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// How often each peer in view is asked; "unchanged" costs it a hundred bytes.
const LEARN_INTERVAL: Duration = Duration::from_secs(20);
/// Peers asked at once: one that is slow does not hold up the others.
const ASKED_AT_ONCE: usize = 8;
/// How long one peer may take for its whole listing.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);
/// For how many rounds a peer that let that time pass is not asked.
const BENCH_ROUNDS: u32 = 6;
/// After how many failures in a row a peer makes place for another.
const FAILURES_MAX: u32 = 4;

/// The peers that are asked.
#[derive(Debug, Default)]
struct View(BTreeMap<PeerName, Viewed>);

#[derive(Debug)]
struct Viewed {
    peer: Contact,
    failures: u32,
    /// Rounds left on the bench.
    bench: u32,
}

impl View {
    /// Brings the view up to date with the peers that are `known`; returns those that left it. Where these are not all there are,
    /// a peer that is not among them may well live.
    fn update(&mut self, PeerDirectory { peers: known, are_all }: PeerDirectory) -> Vec<PeerName> {
        let crowded = !are_all || known.len() > LEARN_PEERS_MAX;
        let leaves = |name: &PeerName, viewed: &Viewed| {
            (are_all && !known.contains_key(name)) || (crowded && viewed.failures >= FAILURES_MAX)
        };
        let gone: Vec<_> = self.0.iter().filter(|(name, viewed)| leaves(name, viewed)).map(|(name, _)| name.clone()).collect();
        self.0.retain(|name, _| !gone.contains(name));
        for (name, viewed) in &mut self.0 {
            if let Some(peer) = known.get(name) {
                viewed.peer = peer.clone();
            }
        }
        let others: Vec<_> = known.into_iter().filter(|(name, _)| !self.0.contains_key(name) && !gone.contains(name)).collect();
        let room = LEARN_PEERS_MAX.saturating_sub(self.0.len());
        for (name, peer) in others.sample(&mut rand::rng(), room) {
            self.0.insert(name.clone(), Viewed { peer: peer.clone(), failures: 0, bench: 0 });
        }
        gone
    }

    /// Whom to ask in this round.
    fn round(&mut self) -> Vec<Contact> {
        let mut asked = Vec::new();
        for viewed in self.0.values_mut() {
            match viewed.bench {
                0 => asked.push(viewed.peer.clone()),
                rounds => viewed.bench = rounds - 1,
            }
        }
        asked
    }

    fn note(&mut self, name: &PeerName, answer: &Result<(), Status>) {
        let Some(viewed) = self.0.get_mut(name) else { return };
        match answer {
            Ok(()) => viewed.failures = 0,
            Err(error) => {
                viewed.failures += 1;
                if error.code() == Code::DeadlineExceeded {
                    viewed.bench = BENCH_ROUNDS;
                }
            }
        }
    }
}

/// Learns until `stop`.
pub async fn poll(catalog: Catalog, mut peers: watch::Receiver<PeerDirectory>, channels: ChannelPool, stop: CancellationToken) {
    let mut view = View::default();
    while !stop.is_cancelled() {
        let round = async {
            let now = peers.borrow_and_update().clone();
            for gone in view.update(now) {
                catalog.learned().remove(&gone, SystemTime::now());
            }
            let mut calls = view.round().into_iter().map(|peer| {
                let (catalog, channels) = (catalog.clone(), channels.clone());
                async move { (peer.name().clone(), ask(&catalog, &channels, peer).await) }
            });
            let mut fan_out = FanOut::new(ASKED_AT_ONCE);
            while let Some((name, answer)) = fan_out.next(&mut calls).await {
                if let Err(error) = &answer {
                    tracing::debug!(peer = %name, error = error.message(), "could not learn what a peer holds");
                }
                view.note(&name, &answer);
            }
            // Soon after somebody came or left, and regularly.
            sleep(PAUSE_MIN).await;
            tokio::select! {
                () = sleep(LEARN_INTERVAL) => {}
                Ok(()) = peers.changed() => {}
            }
        };
        tokio::select! {
            () = round => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn ask(catalog: &Catalog, channels: &ChannelPool, peer: Contact) -> Result<(), Status> {
    let known = catalog.learned().version_of(peer.name()).unwrap_or(0);
    let request = RfcQueryRequest { own_only: true, if_version: known, ..Default::default() };
    let listing = timeout(LISTING_TIMEOUT, async {
        let mut stream = channels.peer(peer.endpoint()).rfc_query(request).await?.into_inner();
        let mut listing = RemoteListing { version: 0, documents: Vec::new() };
        let mut bytes = 0;
        while bytes <= LEARNED_PEER_BYTES_MAX
            && let Some(message) = stream.message().await?
        {
            if message.unchanged {
                return Ok(None);
            }
            listing.version = message.version;
            let documents = message.holdings.into_iter().filter_map(|holding| holding.document);
            for document in documents {
                match DocumentInfo::try_from(document) {
                    Ok(document) => {
                        bytes += cost(&document);
                        listing.documents.push(document);
                    }
                    Err(error) => tracing::warn!(peer = %peer.name(), %error, "a peer lists a document that cannot be"),
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
        None => catalog.learned().confirm(peer, now, SystemTime::now()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::id::PeerId;

    fn known(names: std::ops::Range<usize>, are_all: bool) -> PeerDirectory {
        let peer =
            |n| Contact::new(PeerId::from_bytes([1; 16]), format!("p{n}").parse().unwrap(), "127.0.0.1:7801".parse().unwrap());
        PeerDirectory { peers: names.map(peer).map(|peer| (peer.name().clone(), peer)).collect(), are_all }
    }

    #[test]
    fn a_peer_outside_a_new_sample_is_kept_and_one_outside_the_whole_list_is_not() {
        let mut view = View::default();
        assert!(view.update(known(0..3, false)).is_empty());
        assert!(view.update(known(3..6, false)).is_empty());
        assert_eq!(view.0.len(), 6);
        assert_eq!(view.update(known(3..6, true)).len(), 3);
        assert_eq!(view.round().len(), 3);
    }

    #[test]
    fn a_silent_peer_sits_out_some_rounds_and_one_that_fails_on_makes_place() {
        let mut view = View::default();
        view.update(known(0..1, false));
        let name: PeerName = "p0".parse().unwrap();
        view.note(&name, &Err(Status::deadline_exceeded("silent")));
        for _ in 0..BENCH_ROUNDS {
            assert!(view.round().is_empty());
        }
        assert_eq!(view.round().len(), 1);
        for _ in 1..FAILURES_MAX {
            view.note(&name, &Err(Status::unavailable("gone")));
        }
        assert_eq!(view.update(known(1..2, false)), [name]);
    }
}
