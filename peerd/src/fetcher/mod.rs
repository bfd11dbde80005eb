//! A program that fetches without being a peer: while it runs, others fetch from it what it has.
//!
//! It answers GetRFC and Availability for the documents that it fetches, and says who it is; it has no index, no mesh and no share.

mod service;

use crate::{
    holders::tracker::Tracker,
    identity::OwnContact,
    transfer::{
        serve::uploads::Uploads,
        swarm::{hub::Swarms, me::Me},
    },
};
use p2pdi::{
    contact::Contact,
    metrics::Metrics,
    server::{self, Limits, RouterError, Shutdown},
    tls::Tls,
    v1::peer_server,
};
use service::FetcherService;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Why a fetcher cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum FetcherError {
    /// The reflection service cannot be built: a bug.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The server does not work.
    #[error("cannot serve: {0}")]
    Serve(#[from] server::ServeError),
}

/// Serves what a program fetches.
pub struct Fetcher {
    contact: Contact,
    swarms: Swarms,
    uploads: Uploads,
    metrics: Metrics,
}

impl Fetcher {
    /// A fetcher that others dial at the endpoint of `contact`, in `zone` (empty: none), and that announces itself to `tracker`. It sends no
    /// more than `upload_limit` bytes a second, if that is given.
    pub fn new(contact: Contact, zone: String, upload_limit: Option<u64>, tracker: Arc<dyn Tracker>) -> Self {
        let metrics = Metrics::default();
        let swarms = Swarms::without_share(Me::serving(OwnContact::fixed(contact.clone()), zone), tracker, &metrics);
        let uploads = Uploads::new(upload_limit, None, &metrics);
        Self { contact, swarms, uploads, metrics }
    }

    /// Its swarms, for the options of its fetches.
    pub fn swarms(&self) -> &Swarms {
        &self.swarms
    }

    /// Serves on `listener`, with `tls` if that is given, from the first document that is fetched in a swarm until `stop`.
    ///
    /// # Errors
    /// When the server cannot run.
    pub async fn serve(
        self,
        listener: TcpListener,
        limits: Limits,
        tls: Option<Tls>,
        stop: CancellationToken,
    ) -> Result<(), FetcherError> {
        let Self { contact, swarms, uploads, metrics } = self;
        // Until then nobody was told of this address. Small documents are fetched without a swarm, and a server costs time.
        if stop.run_until_cancelled(swarms.begun()).await.is_none() {
            return Ok(());
        }
        let (health, _) = tonic_health::server::health_reporter();
        let service = FetcherService::new(contact, swarms, Arc::new(uploads), limits.unread, stop.clone());
        let routes = Routes::new(peer_server::PeerServer::new(service));
        let router = server::router(routes, &[peer_server::SERVICE_NAME], health, Default::default(), &limits, &metrics)?;
        Ok(server::serve(listener, router, &limits, tls, &metrics, Shutdown::at(stop)).await?)
    }
}
