//! A registry in this process.

use crate::{
    call::Call,
    failure::Failure,
    peer::{TlsPaths, read_tls},
    runtime::{Process, threads},
};
use pyo3::prelude::*;
use registry::{Config, Registry, RegistryError, State};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

/// The task that serves, until it was waited for.
type Serving = Arc<Mutex<Option<JoinHandle<Result<(), RegistryError>>>>>;

/// A registry that serves.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct NativeRegistry {
    address: SocketAddr,
    stop: CancellationToken,
    serving: Serving,
    process: Process,
}

#[pymethods]
impl NativeRegistry {
    /// Opens one and serves.
    #[staticmethod]
    #[pyo3(signature = (*, listen, state, ttl, name_hold, network, tls))]
    fn open(
        listen: String,
        state: Option<PathBuf>,
        ttl: f64,
        name_hold: f64,
        network: String,
        tls: Option<TlsPaths>,
    ) -> PyResult<Call> {
        let config = Config {
            state: state.map_or(State::Memory, State::Folder),
            ttl: duration("ttl", ttl)?,
            name_hold: duration("name_hold", name_hold)?,
            network: network.parse().map_err(Failure::from)?,
            tls: tls.map(read_tls).transpose()?,
            ..Config::default()
        };
        let threads = threads()?;
        let work = async move {
            let listener = TcpListener::bind(&listen).await;
            let listener = listener.map_err(|error| Failure::os(format!("cannot listen on {listen}: {error}"), &error))?;
            let address =
                listener.local_addr().map_err(|error| Failure::os(format!("cannot listen on {listen}: {error}"), &error))?;
            let opened = spawn_blocking(move || Registry::open(&config)).await;
            let registry = opened.map_err(|error| Failure::error(error.to_string()))??;
            let stop = CancellationToken::new();
            let (serve, used) = (registry.serve(listener, stop.clone()), threads.clone());
            let serving = threads.spawn(async move {
                let served = serve.await;
                drop(used);
                served
            });
            let serving = Arc::new(Mutex::new(Some(serving)));
            Ok(Self { address, stop, serving, process: Process::current() })
        };
        Ok(Call::of(work))
    }

    #[getter]
    fn address(&self) -> String {
        self.address.to_string()
    }

    /// Stops it, and waits until it has.
    fn close(&self) -> PyResult<Call> {
        self.process.check()?;
        self.stop.cancel();
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Call::of(async move {
            match serving {
                Some(serving) => Ok(serving.await.map_err(|error| Failure::error(error.to_string()))??),
                None => Ok(()),
            }
        }))
    }
}

impl Drop for NativeRegistry {
    fn drop(&mut self) {
        if self.process.is_current() {
            self.stop.cancel();
            return;
        }
        self.process.leak_elsewhere(&self.stop);
        self.process.leak_elsewhere(&self.serving);
    }
}

/// A duration in seconds.
pub(crate) fn duration(what: &str, seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds).map_err(|error| Failure::invalid(format!("{what} is not valid: {error}")))
}
