//! A registry: opened, served, drained.

use crate::{
    admin::{self, AdminService},
    ca::{Authority, CaError, CaSettings, News},
    clock::{Clock, millis},
    config::{Config, NAME_HOLD_MAX, State, TTL_MAX, TTL_MIN},
    enrolling::{Enrolling, require_certificate},
    expiry, http,
    leases::Leases,
    own_endpoint::OwnEndpoint,
    queue::{Job, QUEUE_MAX},
    replicas::{NoReplicaAddress, Replicas},
    service::{REQUEST_MAX_BYTES, RegistryService},
    shared_swarms::{self, SharedSwarms},
    shared_table::SharedTable,
    store::{Embedded, Loaded, Memory, Store, StoreError},
    store_health::StoreHealth,
    table::{Change, Kept, Settings, Table},
    timeouts::WriteTimeouts,
    writer::Writer,
};
use axum::middleware;
use p2pdi::{
    metrics::Metrics,
    network::NetworkName,
    server::{
        HostNames, HttpTokens, Limits, ServedTls, Shutdown, TaskEnded, Tasks, keep_certificate, report_health, report_open,
        serve_health,
    },
    tls::{Tls, TlsError},
    v1::{
        registry_admin_server::{self, RegistryAdminServer},
        registry_server::{self, RegistryServer},
    },
};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    io,
    net::SocketAddr,
    panic::resume_unwind,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Most names logged of changes that were not written at the stop.
const UNWRITTEN_NAMED: usize = 10;

/// Why a registry cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// [`Config::ttl`] is too short or too long.
    #[error("the ttl is {0:?}; it must be {min:?} to {max:?}", min = TTL_MIN, max = TTL_MAX)]
    Ttl(Duration),
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate authority cannot be opened.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The certificate is of another network.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no thread or no randomness.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The contract's descriptors cannot be served.
    #[error("cannot describe the service: {0}")]
    Contract(#[from] p2pdi::server::RouterError),
    /// The server failed.
    #[error("cannot serve: {0}")]
    Server(#[from] p2pdi::server::ServeError),
    /// The disk did not answer at the stop, and the registry went without it.
    #[error("the disk did not answer within {waited:?} of the stop; {unwritten} changes were not written")]
    StoreHangs {
        /// How long the stop waited.
        waited: Duration,
        /// Changes that may not be on disk. No caller got an acknowledgement for them.
        unwritten: usize,
    },
    /// A task ended that must run: without it, changes are not stored, or leases never end. This is a bug.
    #[error("a part of the registry failed: {0}")]
    Task(#[from] TaskEnded),
    /// Other replicas cannot reach this one.
    #[error(transparent)]
    ReplicaAddress(#[from] NoReplicaAddress),
}

impl RegistryError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => Some(error.hint()),
            Self::Authority(error) => error.hint(),
            Self::StoreHangs { .. } => Some("check the disk; what was acknowledged is on it".to_owned()),
            Self::Task(_) => Some("see the log, and start it again: what was acknowledged is on disk".to_owned()),
            Self::ReplicaAddress(_) | Self::Ttl(_) | Self::Tls(_) | Self::System(_) | Self::Contract(_) | Self::Server(_) => None,
        }
    }
}

/// A registry that has read its records and is ready to serve.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use registry::{Config, Registry, State};
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// let stop = tokio_util::sync::CancellationToken::new();
/// let registry = Registry::open(&Config { state: State::Memory, ..Config::default() })?;
/// let serving = tokio::spawn(registry.serve(listener, stop.clone()));
/// // … calls to `address` …
/// stop.cancel();
/// serving.await??;
/// # Ok(()) }
/// ```
pub struct Registry {
    pub(crate) leases: Leases,
    network: NetworkName,
    health: Arc<StoreHealth>,
    metrics: Metrics,
    hosts: HostNames,
    tokens: HttpTokens,
    health_listener: Option<TcpListener>,
    limits: Limits,
    tls: Option<Tls>,
    enrolling: Option<Enrolling>,
    own_endpoint: OwnEndpoint,
    replicas: Option<Replicas>,
    writer: JoinHandle<()>,
    writer_ended: CancellationToken,
}

/// Access to a registry that runs.
#[derive(Clone)]
pub struct RegistryHandle(Arc<SharedTable>);

impl RegistryHandle {
    /// Other values of [`Config::max_peers`], at most [`crate::PEERS_MAX`], and of [`Config::max_peers_per_address`] from now on. Leases that exist
    /// stay.
    pub fn set_limits(&self, max_peers: u32, max_peers_per_address: u32) {
        self.0.with(|table, _| table.set_limits(max_peers, max_peers_per_address));
        self.0.wake_expiry();
    }
}

/// Without TLS, a registry must not serve what its fellows serve to those with certificates only; nor could they call it.
fn check_none_shared(replicas: Option<&mut Replicas>) -> Result<(), CaError> {
    let Some(mut rows) = replicas.and_then(|replicas| replicas.ledger.take()) else { return Ok(()) };
    let (News::All(rows) | News::Changed(rows)) = rows.news().map_err(CaError::Shared)?;
    if rows.is_empty() { Ok(()) } else { Err(CaError::NotShared) }
}

impl Registry {
    /// Opens the store and reads it. Takes some seconds for a million peers; call it before the port is announced.
    ///
    /// # Errors
    /// When the ttl is out of bounds, or the state folder is in use, damaged or not accessible.
    pub fn open(config: &Config) -> Result<Self, RegistryError> {
        if !(TTL_MIN..=TTL_MAX).contains(&config.ttl) {
            return Err(RegistryError::Ttl(config.ttl));
        }
        let store: Box<dyn Store> = match &config.state {
            State::Memory => Box::new(Memory::default()),
            State::Folder(folder) => Box::new(Embedded::open(folder)?),
            State::Etcd(address) => {
                let (store, replicas) = Replicas::open(address, config)?;
                return Self::with_replicas(config, store, WriteTimeouts::default(), Some(replicas));
            }
        };
        Self::with_store(config, store, WriteTimeouts::default())
    }

    /// With a store of the caller's, such as one that fails.
    pub(crate) fn with_store(config: &Config, store: Box<dyn Store>, timeouts: WriteTimeouts) -> Result<Self, RegistryError> {
        Self::with_replicas(config, store, timeouts, None)
    }

    fn with_replicas(
        config: &Config,
        mut store: Box<dyn Store>,
        timeouts: WriteTimeouts,
        mut replicas: Option<Replicas>,
    ) -> Result<Self, RegistryError> {
        let started = Instant::now();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::from)?;
        // First: without its authority nobody could reach it.
        let enrolling = config.authority.as_ref().map(|authority| {
            let settings = CaSettings { network: config.network.clone(), ..authority.settings.clone() };
            let now = SystemTime::now();
            Enrolling::new(match replicas.as_mut().and_then(|replicas| replicas.ledger.take()) {
                Some(rows) => Authority::open_shared(&authority.folder, rows, settings, now)?,
                None => Authority::open(&authority.folder, settings, now)?,
            })
        });
        let enrolling = enrolling.transpose()?;
        if enrolling.is_none() && config.tls.is_none() {
            check_none_shared(replicas.as_mut())?;
        }
        let settings = Settings {
            ttl_ms: millis(config.ttl),
            max_peers: config.max_peers,
            max_peers_per_address: config.max_peers_per_address,
            name_hold_ms: millis(config.name_hold.min(NAME_HOLD_MAX)),
            replicated: replicas.is_some(),
        };
        let mut clock = Clock::start(settings.ttl_ms);
        let mut table = Table::new(settings, seed);
        let mut now = clock.now().0;
        if let Some(replicas) = &replicas {
            table.set_token_key(replicas.cluster.token_key());
            table.keep_shards(Kept::NONE, 0, now);
        }
        let Loaded { revision, complete_since, skipped } =
            store.load(&mut |peer, revision| table.apply(Change::put(peer, 0), revision, now))?;
        // Reading may have taken long.
        now = clock.now().0;
        table.loaded(revision, complete_since, now);
        let counts = table.counts();
        tracing::info!(active = counts.active, inactive = counts.inactive, state = %config.state, took = ?started.elapsed(), "records read");
        if skipped.count > 0 {
            let (count, first) = (skipped.count, &skipped.first);
            tracing::warn!(count, first, "this version refuses some records; they are skipped, and stay in the file as they are");
        }

        let metrics = Metrics::default();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::from)?;
        let mut token_key = [0; 32];
        getrandom::fill(&mut token_key).map_err(io::Error::from)?;
        let swarms = Arc::new(SharedSwarms::new(StdRng::from_seed(seed)));
        let table = Arc::new(SharedTable::new(table, clock));
        let health = Arc::new(StoreHealth::new(&timeouts, skipped));
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let applied = replicas.as_ref().map(|replicas| Arc::clone(&replicas.applied));
        let cluster = replicas.as_ref().map(|replicas| Arc::clone(&replicas.cluster));
        let (writer, writer_ended) =
            Writer::new(Arc::clone(&table), Arc::clone(&health), store, applied, queue, &metrics).spawn()?;
        let limits = Limits {
            connections: config.max_connections,
            connections_per_address: config.max_connections_per_address,
            grace: config.grace,
            calls: config.calls.clone(),
            ..Limits::default()
        };
        let own_endpoint = OwnEndpoint::new(config.allow_foreign_endpoints);
        let tls = enrolling.as_ref().map(|enrolling| enrolling.tls().clone()).or_else(|| config.tls.clone());
        if let Some(tls) = &tls {
            tls.set_network(&config.network)?;
        }
        Ok(Self {
            leases: Leases { table, swarms, jobs, timeouts, catch_ups: Arc::default(), cluster },
            network: config.network.clone(),
            health,
            metrics,
            hosts: HostNames::new(config.http_hosts.iter().cloned(), |_| false).with_certificate(tls.clone()),
            tokens: HttpTokens::new(config.http_token.as_ref(), token_key),
            health_listener: None,
            limits,
            tls,
            enrolling,
            own_endpoint,
            replicas,
            writer,
            writer_ended,
        })
    }

    /// Checks that the registry can serve where it listens, before anybody is told so.
    ///
    /// # Errors
    /// `ReplicaAddress` for a replica that others cannot reach at this address.
    pub fn check_address(&self, listening: SocketAddr) -> Result<(), RegistryError> {
        self.replicas.as_ref().map_or(Ok(()), |replicas| replicas.endpoint(listening).map(drop))?;
        Ok(())
    }

    /// Access to it while it runs.
    pub fn handle(&self) -> RegistryHandle {
        RegistryHandle(Arc::clone(&self.leases.table))
    }

    /// Serves health, readiness and metrics, and nothing else, on `listener` too, in plain HTTP.
    #[must_use]
    pub fn with_health(self, listener: TcpListener) -> Self {
        Self { health_listener: Some(listener), ..self }
    }

    /// Serves on `listener` until `stop`, then lets calls finish within the grace period and closes the store.
    ///
    /// # Errors
    /// When it cannot serve at all, one of its tasks ends early, or the disk hangs at the stop. The thread that waits for the disk is left
    /// behind then, and the state folder stays locked until it ends. A failing connection ends only itself.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<(), RegistryError> {
        let Self {
            leases,
            network,
            health: store,
            metrics,
            hosts,
            tokens,
            health_listener,
            limits,
            own_endpoint,
            tls,
            enrolling,
            replicas,
            writer,
            writer_ended,
        } = self;
        let mut tasks = Tasks::new(&stop);
        let stop = tasks.stop();
        let (health, _service) = tonic_health::server::health_reporter();
        health.set_serving::<RegistryServer<RegistryService>>().await;
        health.set_serving::<RegistryAdminServer<AdminService>>().await;
        let service = RegistryService {
            network: network.clone(),
            leases: leases.clone(),
            enrolling: enrolling.clone(),
            own_endpoint,
            certified: tls.is_some(),
        };
        let service = RegistryServer::new(service).max_decoding_message_size(REQUEST_MAX_BYTES);
        let admin = AdminService::new(enrolling.clone(), network.clone(), leases.clone(), Arc::clone(&store));
        let admin = RegistryAdminServer::new(admin).max_decoding_message_size(admin::REQUEST_MAX_BYTES);
        let page = http::Page::new(
            &leases,
            Arc::clone(&store),
            network,
            metrics.clone(),
            stop.clone(),
            ServedTls { tls: tls.clone(), address: listener.local_addr()? },
            tokens,
        );
        let http = http::routes(page.clone(), hosts.clone());
        let served = [registry_server::SERVICE_NAME, registry_admin_server::SERVICE_NAME];
        let mut services = Routes::new(service).add_service(admin);
        if let Some(replicas) = &replicas {
            services = services.add_service(replicas.service(&leases));
        }
        let router = p2pdi::server::router(services, &served, health.clone(), http, &limits, &metrics)?;

        let router = match &enrolling {
            Some(_) => router.layer(middleware::from_fn(require_certificate)),
            None => router,
        };
        if let Some(enrolling) = enrolling {
            tasks.spawn("certificate authority", enrolling.run(stop.clone()));
        }

        // Leases end, and changes are written, until the last call has been answered.
        let drained = CancellationToken::new();
        let (table, swarms) = (Arc::clone(&leases.table), Arc::clone(&leases.swarms));
        tasks.spawn("swarm expiry", shared_swarms::run(Arc::clone(&swarms), Arc::clone(&table), drained.clone()));
        tasks.spawn("lease expiry", expiry::run(table, swarms, leases.jobs.clone(), store, drained.clone()));
        let (clock_checked, until) = (Arc::clone(&leases.table), drained.clone());
        tasks.spawn("clock check", async move { clock_checked.check_clock(until).await });
        let (abandoned, ended) = (CancellationToken::new(), writer_ended.clone());
        let until_abandoned = abandoned.clone();
        tasks.spawn("store writer", async move {
            if until_abandoned.run_until_cancelled(ended.cancelled()).await.is_none() {
                return;
            }
            if let Err(panic) = writer.join() {
                resume_unwind(panic);
            }
        });
        let replica = match replicas {
            Some(replicas) => {
                let endpoint = replicas.endpoint(listener.local_addr()?)?;
                Some(replicas.start(&leases, endpoint, tls.clone(), &mut tasks, stop.clone()))
            }
            None => None,
        };
        report_open(tls.as_ref(), listener.local_addr()?);
        if let Some(tls) = tls.clone() {
            tasks.spawn("certificate", keep_certificate(tls, metrics.clone(), stop.clone()));
        }
        let ready = page.clone();
        tasks.spawn("readiness", report_health(health.clone(), move || ready.is_ready(), stop.clone()));
        if let Some(listener) = health_listener {
            tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
            let port = serve_health(listener, health.clone(), http::probes(page), hosts, drained.clone());
            tasks.spawn("health port", async move {
                if let Err(error) = port.await {
                    tracing::error!(%error, "cannot serve health and metrics");
                }
            });
        }
        let stopping = stop.clone();
        tasks.spawn("health reporter", async move {
            stopping.cancelled().await;
            health.set_not_serving::<RegistryServer<RegistryService>>().await;
            health.set_not_serving::<RegistryAdminServer<AdminService>>().await;
            health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        });
        let serving = async {
            let served = p2pdi::server::serve(listener, router, &limits, tls, &metrics, Shutdown::at(stop.clone())).await;
            // The tasks may end now.
            stop.cancel();
            drained.cancel();
            let waited = leases.timeouts.stop;
            let written = timeout(waited, async {
                // Fails when the thread has ended already.
                let _ended = leases.jobs.send(Job::Stop).await;
                writer_ended.cancelled().await;
            });
            let written = written.await;
            if let Some(replica) = replica {
                replica.end().await;
            }
            if written.is_err() {
                abandoned.cancel();
                return Err(hangs(&leases.table, waited));
            }
            Ok(served?)
        };
        tasks.run(serving).await?
    }
}

/// Logs what was not written.
fn hangs(table: &SharedTable, waited: Duration) -> RegistryError {
    let (unwritten, names) = table.with(|table, _| (table.counts().in_flight, table.unwritten(UNWRITTEN_NAMED).join(", ")));
    tracing::error!(
        unwritten,
        first = names,
        "the disk does not answer; stopping without it, changes of these peers may not be written"
    );
    RegistryError::StoreHangs { waited, unwritten }
}
