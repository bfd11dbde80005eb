//! A running peer, as the program around it sees it.

use crate::{
    config::TransferLimits,
    connections::channels::ChannelPool,
    documents::share::Share,
    holders::{network_peers::NetworkPeers, search::HolderSearch},
    inbox::{Handlers, Inbox},
    mesh::Mesh,
    rpc::Services,
    session::Session,
    transfer::{
        fetch::downloads::Downloads,
        jobs::{Jobs, RoomLimits},
        swarm::hub::Swarms,
    },
};
use p2pdi::{
    contact::Contact,
    v1::{WhisperRequest, WhisperResponse},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tonic::Status;

/// Access to the parts of a peer in the same process. Stays valid while [`Node::run`](super::Node::run) runs and after.
#[derive(Clone)]
pub struct NodeHandle {
    pub(super) services: Arc<Services>,
    pub(super) state: PathBuf,
}

impl NodeHandle {
    /// Its name and id, and its endpoint when it was opened.
    pub fn identity(&self) -> &Contact {
        &self.services.me
    }

    /// Its contact as it is now: the endpoint of a peer that listens on a wildcard address changes with the machine's address.
    pub fn contact(&self) -> Contact {
        self.services.own.get()
    }

    /// Other limits from now on, also for transfers under way.
    pub fn set_limits(&self, limits: TransferLimits) {
        let TransferLimits { upload, download, upload_slots, quota, min_free } = limits;
        self.services.uploads.set_limits(upload, upload_slots);
        self.services.download_limit.set_bytes_per_second(download);
        self.services.jobs.set_limits(RoomLimits { quota, min_free });
    }

    /// The folder of its id, incarnation, cookie and index.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its share.
    pub fn share(&self) -> &Share {
        self.services.catalog.share()
    }

    /// Its session with the registry.
    pub fn session(&self) -> &Session {
        &self.services.session
    }

    /// Its links to other peers.
    pub fn mesh(&self) -> &Mesh {
        &self.services.mesh
    }

    /// Sends a message to one peer by whatever route there is.
    ///
    /// # Errors
    /// When there is no route, or a field is not valid.
    pub async fn whisper(&self, request: WhisperRequest) -> Result<WhisperResponse, Status> {
        self.services.router.deliver(request).await
    }

    /// Searches for holders of documents in its network.
    pub fn holders(&self) -> &HolderSearch<NetworkPeers> {
        &self.services.search
    }

    /// Its network, as its searches see it.
    pub fn network(&self) -> &NetworkPeers {
        &self.services.network
    }

    /// Its connections to other peers.
    pub fn channels(&self) -> &ChannelPool {
        &self.services.channels
    }

    /// Its swarms: others fetch from it what it has of the documents that are fetched with them.
    pub fn swarms(&self) -> &Swarms {
        &self.services.swarms
    }

    /// Its fetches in progress: a program that fetches for this peer counts its fetches here, and others see it in the peer's load.
    pub fn downloads(&self) -> &Downloads {
        &self.services.downloads
    }

    /// Its jobs: documents that it fetches into its share, also after a restart.
    pub fn jobs(&self) -> &Jobs {
        &self.services.jobs
    }

    /// The messages it received.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.services.inbox
    }

    /// The handlers of messages by kind.
    pub fn handlers(&self) -> &Handlers {
        &self.services.handlers
    }
}
