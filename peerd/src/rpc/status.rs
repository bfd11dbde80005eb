//! What a peer reports about itself.

use super::services::Services;
use crate::{documents::restrictions::Audience, mesh::View};
use p2pdi::{
    VERSION,
    content::ContentHash,
    v1::{KeepAliveRequest, ListPeersResponse, Load, PingResponse, SessionState, StatusResponse, Swarm},
};
use std::time::SystemTime;

impl Services {
    /// The whole status, for those who may control the peer.
    pub(crate) fn status(&self) -> StatusResponse {
        let mut share = self.catalog.share().status();
        share.learned_documents = self.catalog.remote_documents() as u64;
        share.learned_left_out = self.catalog.remote_left_out() as u64;
        StatusResponse {
            id: self.me.id().to_field(),
            name: self.me.name().to_string(),
            endpoint: self.own.get().endpoint().to_string(),
            version: VERSION.to_owned(),
            started_at: Some(self.started_at.into()),
            registry: Some(self.session.status()),
            share: Some(share),
            load: Some(self.load()),
            inbox: Some(self.inbox.status()),
            mesh: Some(self.mesh.view().status.clone()),
            upload_limit: self.uploads.bytes_per_second().unwrap_or(0),
            download_limit: self.download_limit.bytes_per_second().unwrap_or(0),
            mirrors: self.jobs.mirrors(),
            fetched: Some(self.jobs.fetched()),
            zone: self.swarms.zone().to_owned(),
            network: self.network_name.to_string(),
            tls: Some(self.tls.status(SystemTime::now())),
        }
    }

    /// Why the peer cannot do its work now; `None`: it can. Without a reachable registry a peer is still useful.
    pub(crate) fn unready(&self) -> Option<String> {
        if self.stop.is_cancelled() {
            return Some("stopping".to_owned());
        }
        if !self.catalog.share().progress().borrow().settled {
            return Some("the share is still being read".to_owned());
        }
        let session = self.session.status();
        matches!(session.state(), SessionState::Refused | SessionState::Registering).then_some(session.detail)
    }

    /// What every caller may know.
    pub(crate) fn ping(&self) -> PingResponse {
        let index = self.catalog.share().index();
        PingResponse {
            id: self.me.id().to_field(),
            name: self.me.name().to_string(),
            endpoint: self.own.get().endpoint().to_string(),
            version: VERSION.to_owned(),
            index_version: index.version(),
            documents: self.catalog.public_documents(),
            load: Some(self.load()),
        }
    }

    /// Whether `audience` may know of a swarm.
    pub(crate) fn may_know(&self, swarm: &Swarm, audience: &Audience) -> bool {
        let hash = ContentHash::from_field(&swarm.blake3);
        hash.is_ok_and(|hash| !self.hides(&hash, audience))
    }

    /// Whether the peer has the content, in its share or under way to it, only where `audience` may not know of it.
    pub(super) fn hides(&self, hash: &ContentHash, audience: &Audience) -> bool {
        let swarm = self.swarms.find(hash);
        self.catalog.hides(hash, audience) || swarm.is_some_and(|swarm| self.catalog.hides_fetched(hash, swarm.name(), audience))
    }

    /// Uploads, downloads and links.
    pub(crate) fn load(&self) -> Load {
        Load { links: self.mesh.view().status.links, downloads: self.downloads.count(), ..self.uploads.load() }
    }

    /// What a keepalive tells the registry.
    pub(crate) fn report(&self) -> KeepAliveRequest {
        let index = self.catalog.share().index();
        KeepAliveRequest { load: Some(self.load()), index_version: index.version(), documents: self.catalog.public_documents() }
    }

    /// This peer and its neighbours.
    pub(super) fn list_peers(&self, view: &View) -> ListPeersResponse {
        ListPeersResponse { load: Some(self.load()), documents: self.catalog.public_documents(), ..view.list() }
    }
}
