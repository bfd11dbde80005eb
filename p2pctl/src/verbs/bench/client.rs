//! One client of a task.

use crate::{
    call::{CALL_TIMEOUT, to_peer},
    failure::{Failure, Outcome},
    registry_client::{Leaving, RegistryAccess, RegistrySession},
};
use p2pdi::{
    channel::Dial, contact::Contact, endpoint::Endpoint, network::NetworkName, registries::RegistryChannel, v1::RfcQueryRequest,
};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::rfc_query::{Limits, query},
    transfer::{FetchOptions, NoMoreHolders, Progress, Swarms, fetch},
};
use std::{path::PathBuf, sync::Arc};
use tokio::task::JoinSet;
use tonic::Response;

/// Documents that one client fetches at once.
const AT_ONCE: usize = 4;

/// Work done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) calls: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.calls += other.calls;
    }
}

/// Queries the registry for peers and the peers for documents, and fetches all that `me` does not hold.
pub(super) async fn fetch_all(registry: Endpoint, me: Contact, out: PathBuf, wanted: usize) -> Outcome<Tally> {
    let folder = tempfile::tempdir()?;
    let (network, dial, leaving) = (NetworkName::default(), Dial::default(), Leaving::default());
    let registry = RegistryChannel::new(&[registry], dial.clone());
    let access = RegistryAccess { registry, network, dial, leaving };
    // An empty state folder has no cookie, so the client registers as an observer.
    let mut session = RegistrySession::connect(&access, Some(folder.path())).await?;
    let peers = session.sources().await;
    drop(session);
    access.leaving.finish().await;
    let peers: Vec<_> = peers?.into_iter().filter(|peer| peer.endpoint != *me.endpoint()).collect();
    // A separate pool: each client represents a process.
    let channels = ChannelPool::new(None);
    // Register, PQuery, Leave.
    let mut tally = Tally { calls: 3, ..Tally::default() };
    let mut fetches = JoinSet::new();
    let options =
        Arc::new(FetchOptions::new(out, Swarms::of_a_client(me.name().clone(), Arc::new(peerd::holders::tracker::NoTracker))));
    for peer in &peers {
        let request = RfcQueryRequest { own_only: true, ..Default::default() };
        let listing = async {
            Ok(Response::new(query(channels.peer(&peer.endpoint, peer.name.as_ref()), request, Limits::LISTING).await?))
        };
        let answer = to_peer(&peer.to_string(), &peer.endpoint, channels.dial(), CALL_TIMEOUT, listing).await?;
        tally.calls += 1;
        for listed in answer.documents {
            if fetches.len() >= AT_ONCE {
                take(&mut tally, fetches.join_next().await)?;
            }
            let (channels, options, holders) = (channels.clone(), Arc::clone(&options), vec![peer.clone()]);
            fetches.spawn(async move {
                let wanted = DocumentSelector::Hash(listed.document.hash);
                fetch(&channels, &wanted, holders, Arc::new(NoMoreHolders), &options, &Arc::new(Progress::default())).await
            });
        }
    }
    while !fetches.is_empty() {
        take(&mut tally, fetches.join_next().await)?;
    }
    if tally.files == wanted {
        Ok(tally)
    } else {
        Err(Failure::refused(format!("{} fetched {} of {wanted} files", me.name(), tally.files)))
    }
}

type Done = Option<Result<Result<peerd::transfer::Fetched, peerd::transfer::FetchError>, tokio::task::JoinError>>;

fn take(tally: &mut Tally, done: Done) -> Outcome {
    let Some(done) = done else { return Ok(()) };
    let fetched = done.map_err(|panicked| Failure::refused(panicked.to_string()))??;
    tally.files += 1;
    tally.calls += 1;
    tally.bytes += fetched.fetched_bytes;
    Ok(())
}
