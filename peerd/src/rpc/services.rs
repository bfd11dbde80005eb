//! The state that all services of a peer share: gRPC and plain HTTP.

#[cfg(feature = "http")]
use crate::topology::Topology;
use crate::{
    config::ControlFrom,
    connections::{admission::Admission, channels::ChannelPool},
    documents::catalog::Catalog,
    holders::{network_peers::NetworkPeers, search::HolderSearch},
    identity::OwnContact,
    inbox::{Handlers, Inbox},
    mesh::Mesh,
    messages::MessageRouter,
    session::Session,
    transfer::{fetch::downloads::Downloads, jobs::Jobs, serve::uploads::Uploads, swarm::hub::Swarms, throttle::Throttle},
};
use p2pdi::{contact::Contact, network::NetworkName, server::ServedTls};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// The parts that answer calls.
pub(crate) struct Services {
    /// Name and id; the endpoint is that of the start.
    pub(crate) me: Contact,
    /// The name of its network.
    pub(crate) network_name: NetworkName,
    /// With the endpoint of now.
    pub(crate) own: OwnContact,
    pub(crate) catalog: Catalog,
    /// Limits listings under way.
    pub(crate) listings: Admission,
    /// Limits queries for one number, name or hash under way.
    pub(crate) lookups: Admission,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) downloads: Downloads,
    pub(crate) jobs: Jobs,
    /// Limits the rate of all downloads.
    pub(crate) download_limit: Throttle,
    /// The swarms of the documents that this peer fetches, or that others fetch from it.
    pub(crate) swarms: Swarms,
    pub(crate) session: Session,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) handlers: Handlers,
    pub(crate) router: MessageRouter,
    pub(crate) channels: ChannelPool,
    pub(crate) network: NetworkPeers,
    pub(crate) search: HolderSearch<NetworkPeers>,
    pub(crate) mesh: Mesh,
    #[cfg(feature = "http")]
    pub(crate) topology: Topology,
    pub(crate) tls: ServedTls,
    pub(crate) control: ControlFrom,
    pub(crate) started_at: SystemTime,
    /// Ends streams that would otherwise stay open.
    pub(crate) stop: CancellationToken,
    /// Ends the streams that fetches from this peer need, once it has nothing to send any more or the grace period is over.
    pub(crate) closing: CancellationToken,
    /// An operator wants the peer to end.
    pub(crate) drain: CancellationToken,
    /// See [`p2pdi::server::Limits::grace`].
    pub(crate) grace: Duration,
    /// See [`p2pdi::server::Limits::unread`].
    pub(crate) unread: Duration,
}
