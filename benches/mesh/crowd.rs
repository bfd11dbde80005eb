//! Peers in this process, linked over loopback.

use peerd::{
    Bootnode,
    config::NodeConfig,
    node::{Node, NodeHandle},
};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long the peers may take to form one network.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for the broadcast tree to settle: beacons are sent every two seconds.
const SETTLE: Duration = Duration::from_secs(6);

/// A network of peers. When dropped, they end without a goodbye.
pub(crate) struct Crowd {
    pub(crate) peers: Vec<NodeHandle>,
    running: JoinSet<()>,
    stop: CancellationToken,
    _state: TempDir,
}

impl Crowd {
    /// Starts `count` peers in one network; their bootnode is the first one, or `bootnode`.
    pub(crate) async fn start(count: usize, bootnode: Option<SocketAddr>) -> Self {
        let state = tempfile::tempdir().unwrap();
        let (stop, mut running, mut peers) = (CancellationToken::new(), JoinSet::new(), Vec::new());
        let mut first = bootnode;
        for index in 0..count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let bootnodes = first.iter().map(|first| first.to_string().parse::<Bootnode>().unwrap()).collect();
            first.get_or_insert(listener.local_addr().unwrap());
            let name = format!("p{index}").parse().unwrap();
            let config = NodeConfig { bootnodes, ..NodeConfig::new(name, state.path().join(index.to_string())) };
            let node = Node::open(config, listener).unwrap();
            peers.push(node.handle());
            let until = stop.clone();
            running.spawn(async move { node.run(until).await.unwrap() });
        }
        let begun = Instant::now();
        while !is_one_network(&peers) {
            assert!(begun.elapsed() < PATIENCE, "the peers do not find each other");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(SETTLE).await;
        Self { peers, running, stop, _state: state }
    }

    /// Stops all peers.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
    }
}

/// Whether every peer is reachable from every other along links.
fn is_one_network(peers: &[NodeHandle]) -> bool {
    let ids: Vec<_> = peers.iter().map(|peer| peer.identity().id()).collect();
    let (mut reached, mut next) = (BTreeSet::from([0]), vec![0]);
    while let Some(at) = next.pop() {
        for (contact, _) in &peers[at].mesh().view().neighbours {
            if let Some(index) = ids.iter().position(|id| *id == contact.id())
                && reached.insert(index)
            {
                next.push(index);
            }
        }
    }
    reached.len() == peers.len()
}
