//! A registry: opened, served, drained.

use crate::{
    clock::Clock,
    config::{Config, State},
    expiry, http,
    leases::{Leases, Shared},
    service::{REQUEST_MAX_BYTES, RegistryService},
    store::{Embedded, Memory, Store, StoreError, Write},
    table::{Settings, Table},
    writer::{Job, QUEUE_MAX, Writer},
};
use p2pdi::{
    metrics::Metrics,
    server::Limits,
    v1::registry_server::{self, RegistryServer},
};
use std::{io, sync::Arc, thread::JoinHandle, time::Instant};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Why a registry cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no thread, or no randomness, to give.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The contract's own descriptors.
    #[error("cannot describe the service: {0}")]
    Contract(#[from] p2pdi::server::RouterError),
    /// The server.
    #[error("cannot serve: {0}")]
    Server(#[from] tonic::transport::Error),
    /// A mistake of ours: without that part, acknowledged changes are not written, or leases never end.
    #[error("a part of the registry failed: {0}")]
    Part(&'static str),
}

impl RegistryError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => Some(error.hint()),
            Self::Part(_) => Some("the log says more; start it again: what was acknowledged is on disk".to_owned()),
            _ => None,
        }
    }
}

/// A registry with its records read, ready to serve.
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
    leases: Leases,
    metrics: Metrics,
    limits: Limits,
    writer: JoinHandle<()>,
    writer_ended: CancellationToken,
}

impl Registry {
    /// Opens the store and reads it. Takes some seconds for a million peers; call it before the port is announced.
    ///
    /// # Errors
    /// When the state folder is in use, damaged or out of reach.
    pub fn open(config: &Config) -> Result<Self, RegistryError> {
        let store: Box<dyn Store> = match &config.state {
            State::Memory => Box::new(Memory),
            State::Folder(folder) => Box::new(Embedded::open(folder)?),
        };
        Self::with_store(config, store)
    }

    fn with_store(config: &Config, mut store: Box<dyn Store>) -> Result<Self, RegistryError> {
        let started = Instant::now();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::from)?;
        let settings = Settings {
            ttl_ms: u64::try_from(config.ttl.as_millis()).unwrap_or(u64::MAX),
            max_peers: config.max_peers,
            max_peers_per_address: config.max_peers_per_address,
        };
        let clock = Clock::start();
        let mut table = Table::new(settings, seed);
        let ceiling = store.load(&mut |slot, peer| {
            let name = peer.strings.name().to_owned();
            let twice = || StoreError::Failed { doing: "read the state file", problem: format!("{name} is in it twice") };
            table.restore(slot, peer).then_some(()).ok_or_else(twice)
        })?;
        let now = clock.now();
        // No registry changes a million times a second, so one whose state was lost or put back from a copy still goes on
        // above all it ever gave out, and a client's `since_revision` from before is not taken for one of its own.
        table.restored(ceiling.max(now.wall_ms.saturating_mul(1_000)), now);
        if let Some(ceiling) = table.ceiling_wanted() {
            store.commit(&[Write::Ceiling(ceiling)])?;
            table.ceiling_written(ceiling);
        }
        let counts = table.counts();
        tracing::info!(active = counts.active, inactive = counts.inactive, state = %config.state, took = ?started.elapsed(), "records read");

        let metrics = Metrics::default();
        let shared = Arc::new(Shared::new(table, clock));
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (writer, writer_ended) = Writer::new(Arc::clone(&shared), store, queue, &metrics).spawn()?;
        let limits = Limits { connections: config.max_connections, grace: config.grace, ..Limits::default() };
        Ok(Self { leases: Leases { shared, jobs }, metrics, limits, writer, writer_ended })
    }

    /// Serves on `listener` until `stop`, then lets calls finish within the grace period and closes the store.
    ///
    /// # Errors
    /// When it cannot serve at all, or a part of it panics; a failing connection ends only itself.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<(), RegistryError> {
        let Self { leases, metrics, limits, writer, writer_ended } = self;
        // A part that ends by itself ends the registry.
        let stop = stop.child_token();
        let (health, _service) = tonic_health::server::health_reporter();
        health.set_serving::<RegistryServer<RegistryService>>().await;
        let calls = RegistryServer::new(RegistryService { leases: leases.clone() }).max_decoding_message_size(REQUEST_MAX_BYTES);
        let http = http::routes(leases.clone(), metrics.clone(), stop.clone());
        let router = p2pdi::server::router(Routes::new(calls), &[registry_server::SERVICE_NAME], health.clone(), http)?;

        let ended = CancellationToken::new();
        let mut expiry = tokio::spawn(expiry::drive(leases.clone(), ended.clone()));
        let draining = {
            let (stop, ended) = (stop.clone(), ended.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = ended.cancelled() => return,
                }
                health.set_not_serving::<RegistryServer<RegistryService>>().await;
                health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
            })
        };
        let mut serving = std::pin::pin!(p2pdi::server::serve(listener, router, &limits, &metrics, stop.clone()));
        let failed = tokio::select! {
            served = &mut serving => Ok(served),
            _ended = &mut expiry => Err("the one that ends leases"),
            () = writer_ended.cancelled() => Err("the one that writes"),
        };
        let served = match failed {
            Ok(served) => served.map_err(RegistryError::from),
            Err(part) => {
                tracing::error!(part, "a part of the registry failed; stopping");
                stop.cancel();
                // Whether calls under way came to a good end changes nothing any more.
                let _served = serving.await;
                Err(RegistryError::Part(part))
            }
        };
        ended.cancel();
        // Once it was seen to end it must not be asked again.
        if !expiry.is_finished()
            && let Err(error) = expiry.await
        {
            tracing::error!(%error, "the task that ends leases panicked");
        }
        if let Err(error) = draining.await {
            tracing::error!(%error, "a task of the registry ended with a panic");
        }
        // Fails only if the thread is gone already, which the join tells.
        let _gone = leases.jobs.send(Job::Stop).await;
        drop(leases);
        match tokio::task::spawn_blocking(|| writer.join()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => tracing::error!("the writing thread ended with a panic"),
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Peer;
    use p2pdi::{
        status::Reason,
        v1::{RegisterRequest, registry_client::RegistryClient},
    };
    use std::{sync::mpsc as channel, time::Duration};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn in_memory() -> Config {
        Config { state: State::Memory, ..Config::default() }
    }

    #[tokio::test]
    async fn a_registry_whose_writer_or_expiry_ends_does_not_go_on_without() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Registry::open(&in_memory()).unwrap();
        registry.leases.jobs.send(Job::Stop).await.unwrap();
        let outcome = tokio::time::timeout(Duration::from_secs(20), registry.serve(listener, CancellationToken::new()));
        let error = outcome.await.expect("it notices").unwrap_err();
        assert!(matches!(error, RegistryError::Part("the one that writes")), "{error}");
    }

    /// Its first write takes until it is let go.
    struct Hung(channel::Receiver<()>);

    impl Store for Hung {
        fn load(&mut self, _: &mut dyn FnMut(u32, Peer) -> Result<(), StoreError>) -> Result<u64, StoreError> {
            Ok(0)
        }

        fn commit(&mut self, batch: &[Write<'_>]) -> Result<(), StoreError> {
            if batch.iter().any(|write| matches!(write, Write::Put { .. })) {
                let _let_go = self.0.recv();
            }
            Ok(())
        }
    }

    async fn ready(address: std::net::SocketAddr) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_nobody_waiting_for_ever() {
        let (let_go, held) = channel::channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let registry = Registry::with_store(&in_memory(), Box::new(Hung(held))).unwrap();
        let serving = tokio::spawn(registry.serve(listener, stop.clone()));
        let mut client = RegistryClient::connect(format!("http://{address}")).await.unwrap();
        let ask = RegisterRequest { name: "a".into(), endpoint: "10.0.0.1:7801".into(), ..RegisterRequest::default() };
        let refused = tokio::time::timeout(Duration::from_secs(20), client.register(ask.clone()));
        let refused = refused.await.expect("an answer").unwrap_err();
        assert_eq!(Reason::of(&refused), Some(Reason::StoreUnavailable));
        assert!(refused.message().contains("may or may not"), "{refused:?}");
        assert!(ready(address).await.starts_with("HTTP/1.1 503"));
        drop(let_go);
        client.register(ask).await.expect("it goes on");
        assert!(ready(address).await.starts_with("HTTP/1.1 200"));
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}
