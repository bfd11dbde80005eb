//! Connections to other peers, kept for reuse.

use p2pdi::{
    channel::{Channel, Dial, RESPONSE_MAX_BYTES},
    endpoint::Endpoint,
    name::PeerName,
    tls::Expected,
    v1::{control_client::ControlClient, peer_client::PeerClient},
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;
use tonic::transport;

/// Connections kept; the least recently used one is closed first. Each costs some 40 KiB.
const CONNECTIONS_MAX: usize = 128;
/// How long a connection is kept after its last use: long enough for the next message of a conversation, short enough that many peers
/// do not keep a connection to each other.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often idle connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Dials peers and keeps the connections. Clones share them.
///
/// A connection belongs to an endpoint and to the name of the peer expected there, if the caller knows it: callers that expect
/// different peers at one endpoint do not share a connection. With TLS, the peer's certificate must be for that name.
#[derive(Clone)]
pub struct ChannelPool {
    dial: Dial,
    connections: Arc<Mutex<Connections>>,
}

/// Addresses, and expected name.
type Key = (Vec<Endpoint>, Option<PeerName>);

#[derive(Default)]
struct Connections {
    open: BTreeMap<Key, Pooled>,
    uses: u64,
}

struct Pooled {
    channel: Channel,
    /// The count of all uses at its last use.
    use_number: u64,
    last_used: Instant,
}

impl ChannelPool {
    /// An empty pool that dials from the local address `from`; `None`: from the one the system chooses.
    pub fn new(from: Option<IpAddr>) -> Self {
        Self::dialling(Dial { from, ..Dial::default() })
    }

    /// An empty pool that dials like this.
    pub fn dialling(dial: Dial) -> Self {
        Self { dial, connections: Arc::default() }
    }

    /// How it dials.
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// An empty pool that dials as this one does, for a client that takes answers at a limited rate, in bytes per second: as little more arrives
    /// as that takes. `None`: not limited.
    #[must_use]
    pub fn limited_to(&self, rate: Option<u64>) -> Self {
        Self::dialling(Dial { rate, ..self.dial.clone() })
    }

    /// An empty pool that dials as this one does and keeps separate connections. For work that opens many connections at once and
    /// closes them all at its end.
    #[must_use]
    pub fn separate(&self) -> Self {
        Self::dialling(self.dial.clone())
    }

    /// A client for the peer called `name` at `endpoint`; `None` where only its address is known. It connects when first used, and
    /// again after a failure.
    pub fn peer(&self, endpoint: &Endpoint, name: Option<&PeerName>) -> PeerClient<Channel> {
        self.peer_at(std::slice::from_ref(endpoint), name)
    }

    /// A client for the peer called `name` that has these addresses: the first one that accepts a connection is used.
    pub fn peer_at(&self, addresses: &[Endpoint], name: Option<&PeerName>) -> PeerClient<Channel> {
        PeerClient::new(self.channel(addresses, name)).max_decoding_message_size(RESPONSE_MAX_BYTES)
    }

    /// A client for the control service of that peer.
    pub fn control(&self, endpoint: &Endpoint, name: Option<&PeerName>) -> ControlClient<Channel> {
        ControlClient::new(self.channel(std::slice::from_ref(endpoint), name)).max_decoding_message_size(RESPONSE_MAX_BYTES)
    }

    /// Connects now to the peer called `name` at `endpoint`; `None` where only its address is known: [`Channel::identity`] says who it is
    /// then. The connection is the caller's own: the pool neither keeps nor closes it.
    ///
    /// # Errors
    /// When nothing accepts the connection within [`p2pdi::channel::CONNECT_TIMEOUT`], or, with TLS, who does has another name.
    pub async fn connect(&self, endpoint: &Endpoint, name: Option<&PeerName>) -> Result<Channel, transport::Error> {
        self.dial.connect(endpoint, expected(name)).await
    }

    /// A client for a single call, to peers that are called rarely. It uses the connection that the pool has, if it has one; a new one
    /// is closed with the client and its call.
    pub fn peer_once(&self, endpoint: &Endpoint, name: Option<&PeerName>) -> PeerClient<Channel> {
        let key = (vec![endpoint.clone()], name.cloned());
        let pooled = self.lock().open.get(&key).map(|pooled| pooled.channel.clone());
        let channel = pooled.unwrap_or_else(|| self.dial.lazy(&key.0, expected(name)));
        PeerClient::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES)
    }

    /// Closes connections that were not used for half a minute, until `stop`. A call under way keeps its connection to its end.
    pub async fn close_idle(self, stop: CancellationToken) {
        let mut sweeps = interval(SWEEP_INTERVAL);
        while let Some(now) = stop.run_until_cancelled(sweeps.tick()).await {
            self.lock().close_idle(now);
        }
    }

    fn channel(&self, addresses: &[Endpoint], name: Option<&PeerName>) -> Channel {
        let key = (addresses.to_vec(), name.cloned());
        self.lock().get(key, &self.dial)
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn expected(name: Option<&PeerName>) -> Expected {
    name.map_or(Expected::Anyone, |name| Expected::Peer(name.clone()))
}

impl Connections {
    fn get(&mut self, key: Key, dial: &Dial) -> Channel {
        self.uses += 1;
        let (use_number, last_used) = (self.uses, Instant::now());
        if let Some(pooled) = self.open.get_mut(&key) {
            (pooled.use_number, pooled.last_used) = (use_number, last_used);
            return pooled.channel.clone();
        }
        if self.open.len() >= CONNECTIONS_MAX {
            let oldest = self.open.iter().min_by_key(|(_, pooled)| pooled.use_number).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.open.remove(&key));
        }
        let channel = dial.lazy(&key.0, expected(key.1.as_ref()));
        self.open.insert(key, Pooled { channel: channel.clone(), use_number, last_used });
        channel
    }

    /// Drops the channels whose last use is too long ago.
    fn close_idle(&mut self, now: Instant) {
        self.open.retain(|_, pooled| now.saturating_duration_since(pooled.last_used) < IDLE_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: usize) -> Endpoint {
        format!("127.0.0.1:{port}").parse().unwrap()
    }

    fn open(pool: &ChannelPool) -> usize {
        pool.lock().open.len()
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
        let kept = |port| pool.lock().open.contains_key(&(vec![endpoint(port)], None));
        assert!(kept(1) && !kept(2));
    }
    #[tokio::test]
    async fn idle_connections_are_closed_and_those_in_use_are_kept() {
        let pool = ChannelPool::new(None);
        pool.peer(&endpoint(1), None);
        pool.peer(&endpoint(2), None);
        let later = Instant::now() + IDLE_TIMEOUT / 2;
        pool.lock().close_idle(later);
        assert_eq!(open(&pool), 2);
        pool.lock().open.get_mut(&(vec![endpoint(2)], None)).unwrap().last_used = later;
        pool.lock().close_idle(Instant::now() + IDLE_TIMEOUT);
        assert_eq!(pool.lock().open.keys().map(|(addresses, _)| addresses[0].port()).collect::<Vec<_>>(), [2]);
    }

    #[tokio::test]
    async fn a_client_for_one_call_adds_no_connection() {
        let pool = ChannelPool::new(None);
        pool.peer_once(&endpoint(1), None);
        assert_eq!(open(&pool), 0);
    }
}
