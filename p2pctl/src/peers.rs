//! The peers that a verb asks: those of the registry, or those that the peer of --via knows.

use crate::{
    args::{Global, OptionalVia},
    failure::Outcome,
    registry_client::{Leaving, RegistrySession, direct},
    via,
};
use p2pdi::endpoint::Endpoint;
use peerd::{connections::channels::ChannelPool, holders::source::Source, transfer::fetch::job::FindPeers};
use std::path::PathBuf;
use tokio::sync::Mutex;

/// The peers to ask. The registry is joined when it is first needed.
pub(crate) struct Peers {
    session: Mutex<Option<RegistrySession>>,
    registry: Endpoint,
    state: Option<PathBuf>,
    leaving: Leaving,
    via: Option<Endpoint>,
    channels: ChannelPool,
}

impl Peers {
    pub(crate) fn new(global: &Global, channels: &ChannelPool, via: &OptionalVia) -> Self {
        Self {
            session: Mutex::default(),
            registry: global.registry.clone(),
            state: global.state.clone(),
            leaving: global.leaving.clone(),
            via: via.via.clone(),
            channels: channels.clone(),
        }
    }

    /// The registry that is asked without --via.
    pub(crate) fn registry(&self) -> &Endpoint {
        &self.registry
    }

    /// The peer with this name or address.
    pub(crate) async fn find(&self, peer: &str) -> Outcome<Source> {
        match (direct(peer), &self.via) {
            (Some(direct), _) => Ok(direct),
            (None, Some(via)) => via::find(&self.channels, via, peer).await,
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

    async fn with_session<T>(&self, call: impl AsyncFnOnce(&mut RegistrySession) -> Outcome<T>) -> Outcome<T> {
        let mut session = self.session.lock().await;
        let session = match &mut *session {
            Some(session) => session,
            none => none.insert(RegistrySession::connect(&self.registry, self.state.as_deref(), &self.leaving).await?),
        };
        call(session).await
    }
}

impl FindPeers for Peers {
    type Error = crate::failure::Failure;

    async fn peers(&self) -> Outcome<Vec<Source>> {
        match &self.via {
            Some(via) => via::sources(&self.channels, via).await,
            None => self.with_session(async |session| session.sources().await).await,
        }
    }
}
