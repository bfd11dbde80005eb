//! The peers that a verb asks: those of the registry, or those that the peer of --via knows.

use crate::{
    args::{Global, OptionalVia},
    failure::{Failure, Outcome},
    registry_client::{RegistryAccess, RegistrySession, direct},
    via,
};
use p2pdi::endpoint::Endpoint;
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::{
        find_peers::{Asked, FindPeers, PeerSample},
        rfc_query::Listed,
        search::SearchError,
        source::Source,
        through_peers::ask_mesh_through,
    },
};
use std::path::PathBuf;
use tokio::sync::Mutex;

/// Most peers asked for all that they share. Of more, a random sample of this size is asked: what a registry samples at once.
const ALL_MAX: usize = 1_000;

/// The peers to ask. The registry is joined when it is first needed.
pub(crate) struct Peers {
    session: Mutex<Option<RegistrySession>>,
    access: RegistryAccess,
    state: Option<PathBuf>,
    via: Option<Endpoint>,
    channels: ChannelPool,
}

impl Peers {
    pub(crate) fn new(global: &Global, channels: &ChannelPool, via: &OptionalVia) -> Self {
        Self {
            session: Mutex::default(),
            access: global.access(),
            state: global.state.clone(),
            via: via.via.clone(),
            channels: channels.clone(),
        }
    }

    /// The peer with this name or address.
    pub(crate) async fn find(&self, peer: &str) -> Outcome<Source> {
        match (direct(peer), &self.via) {
            (Some(direct), _) => Ok(direct),
            (None, Some(via)) => via::find(&self.channels, &self.access.network, via, peer).await,
            (None, None) => self.with_session(async |session| session.find(peer).await).await,
        }
    }

    /// The peers with these names or addresses.
    pub(crate) async fn find_all(&self, peers: &[String]) -> Outcome<Vec<Source>> {
        let mut found = Vec::new();
        for peer in peers {
            found.push(self.find(peer).await?);
        }
        Ok(found)
    }

    /// All peers that there are to ask, or [`ALL_MAX`] random ones of more; see [`PeerSample::missing`].
    ///
    /// # Errors
    /// When they cannot be listed, or there are none.
    pub(crate) async fn all(&self) -> Outcome<PeerSample> {
        let sample = self.sample(ALL_MAX).await?;
        if sample.peers.is_empty() {
            return Err(self.nobody("no peer shares any document"));
        }
        Ok(sample)
    }

    /// There is nobody to ask. `so`: what follows from it.
    pub(crate) fn nobody(&self, so: &str) -> Failure {
        Failure::refused(format!("{so}: no peers are registered with {}", self.access.registry))
            .hint("start one with `peerd --share DIR`")
    }

    /// Why a search found nothing.
    pub(crate) fn not_found(&self, error: SearchError<Failure>) -> Failure {
        match error {
            SearchError::Peers(failure) => failure,
            SearchError::NoPeers { wanted } => self.nobody(&format!("nobody has {wanted}")),
            SearchError::NotFound { .. } => Failure::no_document(error.to_string()),
            SearchError::Ambiguous { wanted, found } => Failure::ambiguous(&wanted, &found),
        }
    }

    async fn with_session<T>(&self, call: impl AsyncFnOnce(&mut RegistrySession) -> Outcome<T>) -> Outcome<T> {
        let mut session = self.session.lock().await;
        let session = match &mut *session {
            Some(session) => session,
            none => none.insert(RegistrySession::connect(&self.access, self.state.as_deref()).await?),
        };
        call(session).await
    }
}

impl FindPeers for Peers {
    type Error = Failure;

    fn may_pass(error: &Failure) -> bool {
        error.is_unanswered()
    }

    async fn sample(&self, count: usize) -> Outcome<PeerSample> {
        match &self.via {
            Some(via) => via::sample(&self.channels, via, count).await,
            None => self.with_session(async |session| session.sample(count).await).await,
        }
    }

    /// Through a peer that answered, since this program is in no mesh. Not if the registry listed all peers: then nobody is left.
    async fn ask_all(&self, wanted: &DocumentSelector, asked: Asked) -> Vec<(Source, Vec<Listed>)> {
        match asked.all && self.via.is_none() {
            true => Vec::new(),
            false => ask_mesh_through(&self.channels, &asked.answered, wanted).await,
        }
    }
}
