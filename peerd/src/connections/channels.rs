//! Connections to other peers, kept for reuse.

use p2pdi::{
    channel::{self, Channel, RESPONSE_MAX_BYTES, lazy_from},
    endpoint::Endpoint,
    name::PeerName,
    v1::{control_client::ControlClient, peer_client::PeerClient},
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tonic::transport;

/// Connections kept; the least recently used one is closed first. Each costs some 40 KiB.
const CONNECTIONS_MAX: usize = 128;

/// Dials peers and keeps the connections. Clones share them.
///
/// A connection belongs to an endpoint and to the name of the peer expected there, if the caller knows it: callers that expect
/// different peers at one endpoint do not share a connection.
#[derive(Clone)]
pub struct ChannelPool {
    /// Local address to dial from; `None`: the system chooses.
    from: Option<IpAddr>,
    connections: Arc<Mutex<Connections>>,
}

/// Endpoint and expected name.
type Key = (Endpoint, Option<PeerName>);

#[derive(Default)]
struct Connections {
    /// Each with the count of uses at its last use.
    open: BTreeMap<Key, (Channel, u64)>,
    uses: u64,
}

impl ChannelPool {
    /// An empty pool that dials from the local address `from`; `None`: from the one the system chooses.
    pub fn new(from: Option<IpAddr>) -> Self {
        Self { from, connections: Arc::default() }
    }

    /// An empty pool that dials as this one does and keeps separate connections. For work that opens many connections at once and
    /// closes them all at its end.
    #[must_use]
    pub fn separate(&self) -> Self {
        Self::new(self.from)
    }

    /// A client for the peer called `name` at `endpoint`; `None` where only its address is known. It connects when first used, and
    /// again after a failure.
    pub fn peer(&self, endpoint: &Endpoint, name: Option<&PeerName>) -> PeerClient<Channel> {
        PeerClient::new(self.channel(endpoint, name)).max_decoding_message_size(RESPONSE_MAX_BYTES)
    }

    /// A client for the control service of that peer.
    pub fn control(&self, endpoint: &Endpoint, name: Option<&PeerName>) -> ControlClient<Channel> {
        ControlClient::new(self.channel(endpoint, name)).max_decoding_message_size(RESPONSE_MAX_BYTES)
    }

    /// Connects now to the peer called `_name` at `endpoint`; `None` where only its address is known. The connection is the caller's own:
    /// the pool neither keeps nor closes it.
    ///
    /// # Errors
    /// When nothing accepts the connection within [`channel::CONNECT_TIMEOUT`].
    // The name is not compared yet: peers prove no name when they are dialled.
    pub async fn connect(&self, endpoint: &Endpoint, _name: Option<&PeerName>) -> Result<Channel, transport::Error> {
        channel::connect(endpoint, self.from).await
    }

    fn channel(&self, endpoint: &Endpoint, name: Option<&PeerName>) -> Channel {
        let key = (endpoint.clone(), name.cloned());
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).get(key, self.from)
    }
}

impl Connections {
    fn get(&mut self, key: Key, from: Option<IpAddr>) -> Channel {
        self.uses += 1;
        if let Some((channel, used)) = self.open.get_mut(&key) {
            *used = self.uses;
            return channel.clone();
        }
        if self.open.len() >= CONNECTIONS_MAX {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.open.remove(&key));
        }
        let channel = lazy_from(&key.0, from);
        self.open.insert(key, (channel.clone(), self.uses));
        channel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: usize) -> Endpoint {
        format!("127.0.0.1:{port}").parse().unwrap()
    }

    fn open(pool: &ChannelPool) -> usize {
        pool.connections.lock().unwrap().open.len()
    }

    #[tokio::test]
    async fn connections_are_shared_by_endpoint_and_expected_name() {
        let pool = ChannelPool::new(None);
        let [a, b]: [PeerName; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        for name in [None, Some(&a), Some(&b), Some(&a), None] {
            pool.clone().peer(&endpoint(1), name);
        }
        assert_eq!(open(&pool), 3);
        assert_eq!(open(&pool.separate()), 0);
    }

    #[tokio::test]
    async fn the_least_recently_used_connection_is_closed_first() {
        let pool = ChannelPool::new(None);
        for port in 1..=CONNECTIONS_MAX {
            pool.peer(&endpoint(port), None);
        }
        pool.peer(&endpoint(1), None);
        pool.peer(&endpoint(CONNECTIONS_MAX + 1), None);
        assert_eq!(open(&pool), CONNECTIONS_MAX);
        let kept = |port| pool.connections.lock().unwrap().open.contains_key(&(endpoint(port), None));
        assert!(kept(1) && !kept(2));
    }
}
