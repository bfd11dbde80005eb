//! Connects the parts of a peer; the only module that uses all of them.

mod error;
mod handle;
#[cfg(test)]
mod tests;

pub use error::NodeError;
pub use handle::NodeHandle;

#[cfg(feature = "mdns")]
use crate::discovery::{Lan, Load};
use crate::{
    config::NodeConfig,
    connections::admission::Admission,
    connections::channels::ChannelPool,
    discovery::LanEvents,
    documents::catalog::{Catalog, LISTINGS_MAX, LISTINGS_PER_ADDRESS, LOOKUPS_MAX, LOOKUPS_PER_ADDRESS},
    documents::confidential::Confidential,
    documents::share::{Indexer, Share, ShareConfig},
    holders::{
        self,
        network_peers::NetworkPeers,
        peer_directory::{self, PeerDirectory},
        search::HolderSearch,
        who_has::{Answering, KIND_HAS, KIND_WHO_HAS, Questions, SendWhisper},
    },
    identity::{OwnContact, StateFolder},
    inbox::{Handlers, Inbox, LocalDelivery, Message},
    mesh::{Mesh, MeshConfig, MeshDriver, Signatures},
    messages::MessageRouter,
    rpc::{ControlRpc, PeerRpc, Services},
    session::{Session, SessionConfig, SessionDriver},
    transfer::{
        fetch::downloads::Downloads,
        jobs::{Jobs, JobsConfig, JobsParts, RoomLimits},
        serve::uploads::Uploads,
        swarm::{
            hub::Swarms,
            me::{Me, ZONE_LABEL},
        },
        throttle::Throttle,
    },
};
#[cfg(feature = "http")]
use crate::{
    http,
    topology::{Topology, TopologyDriver},
};
use p2pdi::{
    channel::Dial,
    enrol::Trusted,
    id::PeerId,
    metrics::{Metrics, SentCalls},
    server::{self, HostNames, Shutdown, Tasks},
    v1::{
        WhisperRequest,
        control_server::{self, ControlServer},
        peer_server::{self, PeerServer},
        registry_server,
    },
};
use std::{sync::Arc, time::SystemTime};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::Routes};

/// A peer that is open and ready to run.
pub struct Node {
    listener: TcpListener,
    health_listener: Option<TcpListener>,
    config: NodeConfig,
    state: Arc<StateFolder>,
    services: Arc<Services>,
    indexer: Indexer,
    #[cfg(feature = "mdns")]
    lan: Option<Lan>,
    mesh: MeshDriver,
    questions: Questions,
    directory: watch::Sender<PeerDirectory>,
    #[cfg(feature = "http")]
    topology: TopologyDriver,
    metrics: Metrics,
    sent: Arc<SentCalls>,
}

impl Node {
    /// Opens the state folder and the share and connects the parts; nothing runs yet. Blocks while it reads the state folder.
    ///
    /// # Errors
    /// When the state folder is in use or damaged, the share cannot be read, or no address is known that others can dial.
    pub fn open(config: NodeConfig, listener: TcpListener) -> Result<Self, NodeError> {
        let metrics = Metrics::default();
        let bound = listener.local_addr()?;
        config.check_name()?;
        let state = StateFolder::open(&config.state)?;
        let state = Arc::new(if config.temporary_state { state.temporary() } else { state });
        let id = match &config.tls {
            Some(_) => PeerId::of_name(&config.name),
            None => state.id()?,
        };
        let own = config.own_contact(id, bound)?;
        let me = own.get();
        let restrictions = config.restrictions()?;
        let (share, indexer) = Share::open(
            ShareConfig {
                temporary_state: config.temporary_state,
                restrictions: restrictions.clone(),
                ..ShareConfig::new(config.share.clone(), state.path().to_owned())
            },
            &metrics,
        )?;
        let session = Session::new(&config.registries, config.tls.is_some());
        let sent = Arc::new(SentCalls::new(&metrics, &[peer_server::SERVICE_NAME, registry_server::SERVICE_NAME]));
        let channels = ChannelPool::dialling(Dial {
            from: config.dial_from,
            rate: config.download_limit,
            tls: config.tls.clone(),
            sent: Some(Arc::<SentCalls>::clone(&sent)),
        });
        let inbox = Arc::new(Inbox::new(&metrics));
        let delivery = LocalDelivery::new(own.clone(), Arc::clone(&inbox));
        #[cfg(feature = "mdns")]
        let (lan, lan_events) =
            config.lan.then(|| Lan::new(me.clone(), config.network.clone(), bound, config.advertise.clone())).unzip();
        #[cfg(not(feature = "mdns"))]
        let lan_events = match config.lan {
            true => {
                return Err(p2pdi::field::InvalidField::new(
                    "lan",
                    "this build has no LAN discovery; build with the feature mdns",
                )
                .into());
            }
            false => None,
        };
        let (incarnation, clock) = state.next_incarnation();
        let mesh_config = MeshConfig {
            me: me.clone(),
            network: config.network.clone(),
            incarnation,
            clock,
            delivery: delivery.clone(),
            session: session.clone(),
            bootnodes: config.bootnodes.clone(),
            channels: channels.clone(),
            signatures: config.tls.clone().map(|tls| Signatures::new(tls, config.network.as_str(), me.name().clone())),
        };
        let (mesh, mesh_driver) = Mesh::new(mesh_config, lan_events.unwrap_or_else(LanEvents::none), Arc::clone(&state));
        #[cfg(feature = "http")]
        let (topology, topology_driver) = Topology::new(mesh.clone(), session.clone(), &channels);
        let catalog = Catalog::new(share).restricted(restrictions);
        let confidential = Confidential::open(state.path())?.unless({
            // Without certificates nothing is for some only, and whoever says so hides what is public.
            let (catalog, has_certificates) = (catalog.clone(), config.tls.is_some());
            move |hash| !has_certificates || catalog.has_public(hash)
        });
        let confidential = Arc::new(confidential);
        let catalog = catalog.with_confidential(Arc::clone(&confidential));
        let downloads = Downloads::default();
        let questions = Questions::new(mesh.clone());
        let network = NetworkPeers::new(session.clone(), mesh.clone(), catalog.clone(), questions.clone());
        let zone = config.labels.get(ZONE_LABEL).cloned().unwrap_or_default();
        let swarms = Swarms::new(Me::serving(own.clone(), zone), Arc::new(session.clone()), &metrics);
        let swarms = swarms.with_confidential(confidential);
        let download_limit = Throttle::new(config.download_limit);
        let (directory, known_peers) = watch::channel(PeerDirectory::default());
        let jobs_config =
            JobsConfig { limits: RoomLimits { quota: config.quota, min_free: config.min_free }, mirrors: config.mirrors.clone() };
        let parts = JobsParts {
            catalog: catalog.clone(),
            channels: channels.clone(),
            downloads: downloads.clone(),
            network: network.clone(),
            swarms: swarms.clone(),
            download_limit: download_limit.clone(),
            directory: known_peers,
        };
        let jobs = Jobs::open(state.path(), jobs_config, parts, &metrics).map_err(NodeError::Jobs)?;
        let services = Services {
            search: HolderSearch::new(channels.clone(), Arc::new(network.clone())),
            network,
            catalog,
            jobs,
            listings: Admission::new(LISTINGS_MAX, LISTINGS_PER_ADDRESS),
            lookups: Admission::new(LOOKUPS_MAX, LOOKUPS_PER_ADDRESS),
            uploads: Arc::new(Uploads::new(config.upload_limit, config.upload_slots, &metrics)),
            downloads,
            download_limit,
            swarms,
            router: MessageRouter::new(me.clone(), delivery, session.clone(), channels.clone(), mesh.clone()),
            channels,
            mesh,
            #[cfg(feature = "http")]
            topology,
            me,
            network_name: config.network.clone(),
            own,
            session,
            handlers: Handlers::new(Arc::clone(&inbox)),
            inbox,
            tls: server::ServedTls { tls: config.tls.clone(), address: bound },
            control: config.control,
            started_at: SystemTime::now(),
            stop: CancellationToken::new(),
            closing: CancellationToken::new(),
            drain: CancellationToken::new(),
            grace: config.limits.grace,
            unread: config.limits.unread,
        };
        Ok(Self {
            listener,
            health_listener: None,
            config,
            state,
            services: Arc::new(services),
            indexer,
            #[cfg(feature = "mdns")]
            lan,
            mesh: mesh_driver,
            questions,
            directory,
            #[cfg(feature = "http")]
            topology: topology_driver,
            metrics,
            sent,
        })
    }

    /// Serves health, readiness and metrics, and nothing else, on `listener` too, in plain HTTP.
    #[must_use]
    pub fn with_health(self, listener: TcpListener) -> Self {
        Self { health_listener: Some(listener), ..self }
    }

    /// A handle to the parts.
    pub fn handle(&self) -> NodeHandle {
        NodeHandle { services: Arc::clone(&self.services), state: self.state.path().to_owned() }
    }

    /// Runs until `stop` is cancelled. Then the peer leaves the registry and the mesh, calls and fetches under way may finish within the
    /// grace period, and all tasks end.
    ///
    /// # Errors
    /// When the server cannot run, or when one of the peer's tasks returns early or panics.
    pub async fn run(self, stop: CancellationToken) -> Result<(), NodeError> {
        let (tasks, server) = self.start(&stop).await?;
        run_until_stopped(tasks, server).await
    }

    /// Starts the tasks; the future is the server.
    async fn start(self, stop: &CancellationToken) -> Result<(Tasks, impl Future<Output = Result<(), NodeError>>), NodeError> {
        let Self { listener, health_listener, config, state, services, indexer, mesh, questions, directory, metrics, .. } = self;
        let mut tasks = Tasks::new(stop);
        let stop = tasks.stop();
        let (health, _) = tonic_health::server::health_reporter();
        health.set_serving::<PeerServer<PeerRpc>>().await;
        health.set_serving::<ControlServer<ControlRpc>>().await;
        let grpc = Routes::new(PeerRpc::server(Arc::clone(&services))).add_service(ControlRpc::server(Arc::clone(&services)));
        let served = [peer_server::SERVICE_NAME, control_server::SERVICE_NAME];
        let hosts = {
            let own = services.own.clone();
            HostNames::new(config.http_hosts.clone(), move |name| own.get().endpoint().host().eq_ignore_ascii_case(name))
                .with_certificate(config.tls.clone())
        };
        #[cfg(feature = "http")]
        let pages = http::HttpState::new(
            Arc::clone(&services),
            metrics.clone(),
            stop.clone(),
            config.http_token.as_ref(),
            config.tls.is_some(),
        );
        #[cfg(feature = "http")]
        let http = http::router(pages.clone(), hosts.clone());
        #[cfg(not(feature = "http"))]
        let http = Default::default();
        let router = server::router(grpc, &served, health.clone(), http, &config.limits, &metrics)?;

        let ready = Arc::clone(&services);
        tasks.spawn("readiness", server::report_health(health.clone(), move || ready.unready().is_none(), stop.clone()));
        if let Some(listener) = health_listener {
            tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
            #[cfg(feature = "http")]
            let probes = http::probes(pages);
            #[cfg(not(feature = "http"))]
            let probes = Default::default();
            let port = server::serve_health(listener, health.clone(), probes, hosts, stop.clone());
            tasks.spawn("health port", async move {
                if let Err(error) = port.await {
                    tracing::error!(%error, "cannot serve health and metrics");
                }
            });
        }
        let (stopping, drain) = (stop.clone(), services.drain.clone());
        tasks.spawn("drain", async move {
            if stopping.run_until_cancelled(drain.cancelled()).await.is_some() {
                stopping.cancel();
            }
        });
        let (stopping, streams) = (stop.clone(), services.stop.clone());
        tasks.spawn("health", async move {
            stopping.cancelled().await;
            streams.cancel();
            health.set_not_serving::<PeerServer<PeerRpc>>().await;
            health.set_not_serving::<ControlServer<ControlRpc>>().await;
            health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        });
        server::report_open(config.tls.as_ref(), listener.local_addr()?);
        if let Some(tls) = config.tls.clone() {
            tasks.spawn("certificate", server::keep_certificate(tls, metrics.clone(), stop.clone()));
        }
        if let Some(enrolment) = config.enrolment.clone() {
            tasks.spawn("certificate renewal", enrolment.keep_renewed(stop.clone()));
        }
        tasks.spawn("indexer", indexer.run(stop.clone()));
        tasks.spawn("mesh", mesh.run(stop.clone()));
        #[cfg(feature = "http")]
        tasks.spawn("topology", self.topology.run(stop.clone()));
        tasks.spawn("own address", keep_own_address(services.own.clone(), services.mesh.clone(), stop.clone()));
        handle_questions(&services, questions)?;
        tasks.spawn("handlers", services.handlers.clone().run(stop.clone()));
        #[cfg(feature = "mdns")]
        if let Some(lan) = self.lan {
            let reporting = Arc::clone(&services);
            let load = move || {
                let load = reporting.load();
                Load { uploads: load.uploads, links: load.links }
            };
            tasks.spawn("LAN discovery", lan.run(load, stop.clone()));
        }
        let known_peers = directory.subscribe();
        let registered = (!config.registries.is_empty()).then(|| services.session.known().clone());
        tasks.spawn("peer directory", peer_directory::keep(directory, registered, services.mesh.clone(), stop.clone()));
        let (catalog, channels) = (services.catalog.clone(), services.channels.clone());
        tasks.spawn("idle connections", services.channels.clone().close_idle(stop.clone()));
        tasks.spawn("jobs", services.jobs.clone().run(stop.clone()));
        tasks.spawn("swarms", end_swarms(services.catalog.share().clone(), services.swarms.clone(), stop.clone()));
        tasks.spawn("remote indexes", holders::poll::poll(catalog, known_peers, channels, stop.clone()));
        if !config.registries.is_empty() {
            let session = SessionConfig {
                registries: config.registries,
                network: config.network,
                dial: Dial { sent: Some(self.sent), ..Dial::with(config.tls.clone()) },
                own: services.own.clone(),
                labels: config.labels,
                trusted: config.tls.clone().map(|tls| Trusted::new(tls, config.enrolment)),
            };
            let reporting = Arc::clone(&services);
            let driver = SessionDriver::new(services.session.clone(), session, state, move || reporting.report());
            tasks.spawn("registry session", driver.run(stop.clone()));
        }
        let draining = Arc::clone(&services);
        let shutdown = Shutdown::when_drained(stop, services.closing.clone(), async move { draining.uploads.drained().await });
        let server = async move { Ok(server::serve(listener, router, &config.limits, config.tls, &metrics, shutdown).await?) };
        Ok((tasks, server))
    }
}

/// Answers who has a document, and takes the answers to this peer's own questions.
fn handle_questions(services: &Arc<Services>, questions: Questions) -> Result<(), NodeError> {
    let answering = Answering::new(services.catalog.clone(), services.mesh.clone(), ByRouter(Arc::clone(services)));
    let asked = Arc::clone(services);
    let runtime = tokio::runtime::Handle::current();
    let answer = move |message: Message| {
        answering.take(&message, &asked.own.get(), asked.network.count());
        std::future::ready(())
    };
    let take = move |message: Message| {
        questions.take(&message);
        std::future::ready(())
    };
    services.handlers.on(KIND_WHO_HAS.parse()?, answer, &runtime)?;
    services.handlers.on(KIND_HAS.parse()?, take, &runtime)?;
    Ok(())
}

/// Sends messages by whatever way there is.
struct ByRouter(Arc<Services>);

impl SendWhisper for ByRouter {
    async fn send(&self, request: WhisperRequest) -> Result<(), Status> {
        self.0.router.deliver(request).await.map(drop)
    }
}

/// Ends the swarms of documents that are removed from the share, until `stop`.
async fn end_swarms(share: Share, swarms: Swarms, stop: CancellationToken) {
    let mut changes = share.changes();
    let watch = async {
        while changes.changed().await.is_ok() {
            changes.mark_unchanged();
            let index = share.index();
            swarms.share_changed(|hash| !index.by_hash(hash).is_empty());
        }
    };
    let _stopped: Option<()> = stop.run_until_cancelled(watch).await;
}

/// Works out the endpoint anew from time to time, and gives changes to the mesh, until `stop`.
async fn keep_own_address(own: OwnContact, mesh: Mesh, stop: CancellationToken) {
    let mut changes = own.changes();
    let publish = async {
        while changes.changed().await.is_ok() {
            let contact = changes.borrow_and_update().clone();
            mesh.set_contact(contact);
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = own.keep_fresh() => {}
        () = publish => {}
    }
}

async fn run_until_stopped(tasks: Tasks, server: impl Future<Output = Result<(), NodeError>>) -> Result<(), NodeError> {
    tasks.run(server).await?
}
