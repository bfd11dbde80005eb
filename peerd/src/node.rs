//! The one place that knows all of a peer's parts and wires them.

use crate::{
    config::NodeConfig,
    connections::admission::Admission,
    connections::channels::ChannelPool,
    discovery::{Lan, LanEvents, Load},
    documents::catalog::{Catalog, LISTINGS_MAX, LISTINGS_PER_ADDRESS},
    documents::share::{Indexer, Share, ShareConfig, ShareError},
    holders::{
        self,
        peer_directory::{self, PeerDirectory},
    },
    http,
    identity::{StateError, StateFolder},
    inbox::{Handlers, Inbox, LocalDelivery},
    mesh::{Mesh, MeshDriver},
    messages::MessageRouter,
    rpc::{Calls, REQUEST_MAX_BYTES, Services},
    session::{Lookups, Session, SessionConfig, SessionDriver},
    topology::{Topology, TopologyDriver},
    transfer::serve::Uploads,
};
use p2pdi::{
    contact::Contact,
    field::InvalidField,
    metrics::Metrics,
    server,
    v1::{
        WhisperRequest, WhisperResponse,
        control_server::{self, ControlServer},
        peer_server::{self, PeerServer},
    },
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::Routes};

/// A peer, ready to run.
pub struct Node {
    listener: TcpListener,
    config: NodeConfig,
    state: Arc<StateFolder>,
    services: Arc<Services>,
    indexer: Indexer,
    lookups: Lookups,
    lan: Option<Lan>,
    mesh: MeshDriver,
    topology: TopologyDriver,
    metrics: Metrics,
}

/// What a running peer's parts can be asked in its own process.
#[derive(Clone)]
pub struct NodeHandle {
    services: Arc<Services>,
    state: PathBuf,
}

/// Why a peer cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its share.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// Its address.
    #[error(transparent)]
    Config(#[from] InvalidField),
    /// Its listener.
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// Its server.
    #[error("cannot serve: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// A mistake of ours.
    #[error(transparent)]
    Router(#[from] server::RouterError),
    /// A mistake of ours.
    #[error("a part of the peer failed: {0}")]
    Part(#[from] JoinError),
}

impl Node {
    /// Opens everything a peer needs; nothing runs yet. Blocks while it reads the state folder.
    ///
    /// # Errors
    /// When the state folder is in use or damaged, the share cannot be read, or there is no address others could dial.
    pub fn open(config: NodeConfig, listener: TcpListener) -> Result<Self, NodeError> {
        let metrics = Metrics::default();
        let bound = listener.local_addr()?;
        let endpoint = config.endpoint(bound)?;
        let state = Arc::new(StateFolder::open(&config.state)?);
        let me = Contact::new(state.id()?, config.name.clone(), endpoint);
        let (share, indexer) = Share::open(ShareConfig::new(config.share.clone(), state.path().to_owned()), &metrics)?;
        let (session, lookups) = Session::new(config.registry.as_ref());
        let inbox = Arc::new(Inbox::new(&metrics));
        let post = LocalDelivery::new(me.clone(), Arc::clone(&inbox));
        let (lan, sights) = match config.lan.then(|| Lan::new(me.clone(), bound, config.advertise.clone())) {
            Some((lan, sights)) => (Some(lan), sights),
            None => (None, LanEvents::none()),
        };
        let life = state.next_incarnation();
        let bootnodes = config.bootnodes.clone();
        let (mesh, driver) = Mesh::new((&me, &state, life), post.clone(), session.clone(), (bootnodes, sights), config.dial_from);
        let (topology, looking) = Topology::new(mesh.clone(), session.clone());
        let services = Services {
            catalog: Catalog::new(share),
            listings: Admission::new(LISTINGS_MAX, LISTINGS_PER_ADDRESS),
            uploads: Arc::new(Uploads::new(config.upload_limit, &metrics)),
            whispers: MessageRouter::new(me.clone(), post, session.clone(), ChannelPool::new(config.dial_from), mesh.clone()),
            mesh,
            topology,
            me,
            session,
            handlers: Handlers::new(Arc::clone(&inbox)),
            inbox,
            control: config.control,
            started_at: SystemTime::now(),
            stop: CancellationToken::new(),
            unread: config.limits.unread,
        };
        Ok(Self {
            listener,
            config,
            state,
            services: Arc::new(services),
            indexer,
            lookups,
            lan,
            mesh: driver,
            topology: looking,
            metrics,
        })
    }

    /// A handle that outlives [`Node::run`]'s consumption of the node.
    pub fn handle(&self) -> NodeHandle {
        NodeHandle { services: Arc::clone(&self.services), state: self.state.path().to_owned() }
    }

    /// Runs until `stop`: then the registry is left, calls under way may finish within the grace period, and all parts end.
    ///
    /// # Errors
    /// When the server cannot run, or a part panics.
    pub async fn run(self, stop: CancellationToken) -> Result<(), NodeError> {
        let Self { listener, config, state, services, indexer, lookups, lan, mesh, topology, metrics } = self;
        // A part that ends by itself ends the peer.
        let stop = stop.child_token();
        let (health, _) = tonic_health::server::health_reporter();
        health.set_serving::<PeerServer<Calls>>().await;
        health.set_serving::<ControlServer<Calls>>().await;
        let grpc = Routes::new(PeerServer::new(Calls(Arc::clone(&services))).max_decoding_message_size(REQUEST_MAX_BYTES))
            .add_service(ControlServer::new(Calls(Arc::clone(&services))).max_decoding_message_size(REQUEST_MAX_BYTES));
        let served = [peer_server::SERVICE_NAME, control_server::SERVICE_NAME];
        let router =
            server::router(grpc, &served, health.clone(), http::router(Arc::clone(&services), metrics.clone(), stop.clone()))?;

        let mut parts = JoinSet::new();
        let (stopping, streams) = (stop.clone(), services.stop.clone());
        parts.spawn(async move {
            stopping.cancelled().await;
            streams.cancel();
            health.set_not_serving::<PeerServer<Calls>>().await;
            health.set_not_serving::<ControlServer<Calls>>().await;
            health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        });
        parts.spawn(indexer.run(stop.clone()));
        parts.spawn(mesh.run(stop.clone()));
        parts.spawn(topology.run(stop.clone()));
        parts.spawn(services.handlers.clone().run(stop.clone()));
        if let Some(lan) = lan {
            let (uploads, mesh) = (Arc::clone(&services.uploads), services.mesh.clone());
            let busy = move || Load { load: uploads.load().uploads, links: mesh.view().status.links };
            parts.spawn(lan.run(busy, stop.clone()));
        }
        let catalog = services.catalog.clone();
        let (told, peer_directory) = watch::channel(PeerDirectory::default());
        let registered = config.registry.is_some().then(|| services.session.known().clone());
        parts.spawn(peer_directory::keep(told, registered, services.mesh.clone(), stop.clone()));
        parts.spawn(holders::poll::poll(catalog, peer_directory, ChannelPool::new(config.dial_from), stop.clone()));
        if let Some(registry) = config.registry {
            let session = SessionConfig { registry, me: services.me.clone(), labels: config.labels };
            let uploads = Arc::clone(&services.uploads);
            let version = services.catalog.share().changes();
            parts
                .spawn(SessionDriver::new(services.session.clone(), session, lookups, state, uploads, version).run(stop.clone()));
        }
        let mut serving = std::pin::pin!(server::serve(listener, router, &config.limits, &metrics, stop.clone()));
        let served = loop {
            tokio::select! {
                served = &mut serving => break served.map_err(NodeError::from),
                Some(ended) = parts.join_next() => if let Err(panicked) = ended {
                    stop.cancel();
                    tracing::error!(%panicked, "a part of the peer failed");
                    break Err(panicked.into());
                },
            }
        };
        stop.cancel();
        while let Some(ended) = parts.join_next().await {
            ended?;
        }
        served
    }
}

impl NodeHandle {
    /// Who the peer is.
    pub fn identity(&self) -> &Contact {
        &self.services.me
    }

    /// The folder of its id, the number of its life, its cookie and its index.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its share.
    pub fn share(&self) -> &Share {
        self.services.catalog.share()
    }

    /// Its standing with the registry.
    pub fn session(&self) -> &Session {
        &self.services.session
    }

    /// Its place in the mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.services.mesh
    }

    /// Sends a message to one peer, whichever way there is.
    ///
    /// # Errors
    /// When there is none, or a field is wrong.
    pub async fn whisper(&self, request: WhisperRequest) -> Result<WhisperResponse, Status> {
        self.services.whispers.deliver(request).await
    }

    /// The messages it received.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.services.inbox
    }

    /// What is done with them as they come.
    pub fn handlers(&self) -> &Handlers {
        &self.services.handlers
    }
}
