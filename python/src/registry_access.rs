//! The connection to a registry, of a client and of its watches.

use crate::runtime::{Threads, threads};
use p2pdi::{
    channel::{Channel, Dial, REGISTRY_RESPONSE_MAX_BYTES},
    endpoint::Endpoint,
    tls::Expected,
    v1::{RegisterRequest, registry_client::RegistryClient},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use tonic::{Response, Status};

/// Time limit of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A registry, and the connection to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Access {
    endpoint: Endpoint,
    pub(crate) network: String,
    dial: Dial,
    connection: Arc<Mutex<Connection>>,
}

#[derive(Default)]
struct Connection {
    /// With the threads that it works on.
    client: Option<(RegistryClient<Channel>, Option<Threads>)>,
    /// From now on each call has a connection of its own.
    is_closed: bool,
}

impl Access {
    pub(crate) fn new(endpoint: Endpoint, network: String, dial: Dial) -> Self {
        Self { endpoint, network, dial, connection: Arc::default() }
    }

    /// The client; it connects at its first call, on the runtime.
    pub(crate) fn client(&self) -> RegistryClient<Channel> {
        let mut connection = self.connection();
        if let Some((client, _)) = &connection.client {
            return client.clone();
        }
        let channel = self.dial.lazy(std::slice::from_ref(&self.endpoint), Expected::Registry(self.endpoint.clone()));
        let client = RegistryClient::new(channel).max_decoding_message_size(REGISTRY_RESPONSE_MAX_BYTES);
        if !connection.is_closed {
            // They run, since this call does.
            connection.client = Some((client.clone(), threads().ok()));
        }
        client
    }

    /// Keeps no connection any more, and no threads.
    pub(crate) fn close(&self) {
        let closed = std::mem::replace(&mut *self.connection(), Connection { client: None, is_closed: true });
        // Without the lock.
        drop(closed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection().is_closed
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registration of an observer, whom nobody sees. Each has a name of its own: one that nobody waited for may have the last.
    pub(crate) fn observer(&self) -> RegisterRequest {
        let name = self.dial.observer_name(&format!("python-{:016x}", rand::random::<u64>()));
        RegisterRequest { name, observer: true, network: self.network.clone(), ..Default::default() }
    }

    /// For messages.
    pub(crate) fn describe(&self) -> String {
        format!("the registry at {}", self.endpoint)
    }

    /// The answer to a call, if it comes in time.
    pub(crate) async fn in_time<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
        match timeout(CALL_TIMEOUT, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
        }
    }
}
