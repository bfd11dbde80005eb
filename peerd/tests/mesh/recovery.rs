//! A peer that lost all its links finds others again: through its bootnodes, or through a sample from the registry.

use crate::{
    crowd::is_one_network,
    support::{Setup, TestPeer, until},
};
use p2pdi::v1::{
    AnnounceRequest, AnnounceResponse, EnrollRequest, EnrollResponse, FreeNameRequest, FreeNameResponse, GetTrustRequest,
    GetTrustResponse, KeepAliveRequest, KeepAliveResponse, LeaveRequest, LeaveResponse, PQueryRequest, PQueryResponse,
    PeerRecord, RegisterRequest, RegisterResponse, WatchPeersRequest, WatchPeersResponse,
    registry_server::{Registry, RegistryServer},
};
use peerd::overlay::membership::Config;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// How long nothing may happen: twice the pause after which a peer without links would ask again.
const STEADY: Duration = Duration::from_secs(4);
/// Sample size that a peer without links asks the registry for; a probe for partitions is smaller.
const RESCUE_SAMPLE: u32 = 32;

/// An address that forwards to a peer that the test chooses, or to none.
struct Forwarder {
    address: SocketAddr,
    leads_to: Arc<Mutex<Option<SocketAddr>>>,
    dialled: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Forwarder {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (leads_to, dialled) = (Arc::<Mutex<Option<SocketAddr>>>::default(), Arc::<AtomicUsize>::default());
        let (there, count) = (Arc::clone(&leads_to), Arc::clone(&dialled));
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let there = *there.lock().unwrap();
                tokio::spawn(async move {
                    if let Some(there) = there
                        && let Ok(mut other) = TcpStream::connect(there).await
                    {
                        // Fails when one side is killed, which the test intends.
                        let _ended = copy_bidirectional(&mut stream, &mut other).await;
                    }
                });
            }
        });
        Self { address, leads_to, dialled, serving }
    }

    fn leads_to(&self, peer: Option<&TestPeer>) {
        *self.leads_to.lock().unwrap() = peer.map(|peer| peer.address);
    }

    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A registry that registers every peer, lists none, and answers only queries for a sample.
struct SampleRegistry {
    address: SocketAddr,
    sample: Arc<Mutex<Vec<PeerRecord>>>,
    rescues: Arc<AtomicUsize>,
    samples: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl SampleRegistry {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sample, rescues, samples) =
            (Arc::<Mutex<Vec<PeerRecord>>>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let calls = Calls { sample: Arc::clone(&sample), rescues: Arc::clone(&rescues), samples: Arc::clone(&samples) };
        let server = Server::builder().add_service(RegistryServer::new(calls));
        let serving = tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
        Self { address, sample, rescues, samples, serving }
    }

    fn knows<'a>(&self, peers: impl IntoIterator<Item = &'a TestPeer>) {
        let record = |peer: &TestPeer| {
            let identity = peer.handle.identity();
            let (name, endpoint) = (identity.name().to_string(), identity.endpoint().to_string());
            PeerRecord { id: identity.id().to_field(), name, endpoint, ..Default::default() }
        };
        *self.sample.lock().unwrap() = peers.into_iter().map(record).collect();
    }

    /// Queries for any sample: for help, or a probe for partitions.
    fn samples(&self) -> usize {
        self.samples.load(Ordering::SeqCst)
    }

    fn rescues(&self) -> usize {
        self.rescues.load(Ordering::SeqCst)
    }
}

impl Drop for SampleRegistry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Calls {
    sample: Arc<Mutex<Vec<PeerRecord>>>,
    rescues: Arc<AtomicUsize>,
    samples: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Registry for Calls {
    type WatchPeersStream = tonic::Streaming<WatchPeersResponse>;

    async fn register(&self, _: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        Ok(Response::new(RegisterResponse { cookie: "0123456789abcdef".repeat(2), ..Default::default() }))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        Ok(Response::new(LeaveResponse::default()))
    }

    async fn keep_alive(&self, _: Request<KeepAliveRequest>) -> Result<Response<KeepAliveResponse>, Status> {
        Ok(Response::new(KeepAliveResponse::default()))
    }

    async fn p_query(&self, request: Request<PQueryRequest>) -> Result<Response<PQueryResponse>, Status> {
        let asked = request.into_inner().sample;
        if asked == RESCUE_SAMPLE {
            self.rescues.fetch_add(1, Ordering::SeqCst);
        }
        self.samples.fetch_add(usize::from(asked > 0), Ordering::SeqCst);
        let peers = if asked > 0 { self.sample.lock().unwrap().clone() } else { Vec::new() };
        Ok(Response::new(PQueryResponse { peers, ..Default::default() }))
    }

    async fn watch_peers(&self, _: Request<WatchPeersRequest>) -> Result<Response<Self::WatchPeersStream>, Status> {
        Err(Status::unimplemented("as of an earlier version"))
    }

    async fn free_name(&self, _: Request<FreeNameRequest>) -> Result<Response<FreeNameResponse>, Status> {
        Ok(Response::new(FreeNameResponse::default()))
    }

    async fn announce(&self, _: Request<AnnounceRequest>) -> Result<Response<AnnounceResponse>, Status> {
        Ok(Response::new(AnnounceResponse::default()))
    }

    async fn enroll(&self, _: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_trust(&self, _: Request<GetTrustRequest>) -> Result<Response<GetTrustResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

fn neighbours(peer: &TestPeer) -> usize {
    peer.handle.mesh().view().neighbours.len()
}

/// Whether a peer has all the links it wants (perhaps one more that merged two partitions), or accepts no more.
fn has_enough(peer: &TestPeer) -> bool {
    let config = Config::default();
    let neighbours = peer.handle.mesh().view().list().neighbours;
    let outgoing = neighbours.iter().filter(|neighbour| neighbour.outgoing).count();
    outgoing >= config.outgoing || neighbours.len() == config.max_active()
}

/// Checks for [`STEADY`] that a condition stays true.
async fn stays(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    until(what, async || {
        assert!(condition(), "{what}");
        begun.elapsed() > STEADY
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_lost_all_links_returns_through_its_bootnode_and_then_stops_dialling_it() {
    let bootnode = Forwarder::new().await;
    let first = Setup::named("first").start().await;
    bootnode.leads_to(Some(&first));
    let mut setup = Setup::named("lonely");
    setup.bootnodes = vec![bootnode.address.to_string().parse().unwrap()];
    let lonely = setup.start().await;
    until("they are linked", async || lonely.is_linked_to(&first)).await;

    bootnode.leads_to(None);
    drop(first);
    until("the loss is detected", async || neighbours(&lonely) == 0).await;
    let before = bootnode.dialled();
    until("the bootnode is tried again and again", async || bootnode.dialled() > before + 2).await;
    let second = Setup::named("second").start().await;
    bootnode.leads_to(Some(&second));
    until("they are linked", async || lonely.is_linked_to(&second) && second.is_linked_to(&lonely)).await;

    let dialled = bootnode.dialled();
    stays("nothing more is dialled and the link stays", || bootnode.dialled() == dialled && lonely.is_linked_to(&second)).await;
}

/// The bootnode is in every peer's configuration, and knows no peer after its restart.
#[tokio::test]
async fn a_bootnode_that_restarts_with_another_id_is_linked_again_by_the_peers_that_lost_it() {
    let place = Forwarder::new().await;
    let bootnode = || Setup { advertise: Some(place.address.into()), ..Setup::named("bootnode") };
    let first = bootnode().start().await;
    place.leads_to(Some(&first));
    let mut others = Vec::new();
    for number in 0..12 {
        others.push(Setup::named(&format!("other-{number}")).with_bootnodes([&first]).start().await);
    }
    until("they have all the links they want", async || others.iter().all(has_enough) && is_one_network(&others)).await;
    until("some are linked to the bootnode", async || others.iter().any(|other| other.is_linked_to(&first))).await;

    place.leads_to(None);
    drop(first);
    let misses = |other: &TestPeer| other.handle.mesh().view().linked.iter().all(|peer| peer.name().as_str() != "bootnode");
    until("the loss is detected and the link replaced", async || others.iter().all(|other| misses(other) && has_enough(other)))
        .await;
    // It knows no peer, and has no bootnode itself.
    let again = bootnode().start().await;
    place.leads_to(Some(&again));
    others.push(again);
    until("it is part of the network", async || is_one_network(&others)).await;
}

#[tokio::test]
async fn a_peer_that_lost_all_links_returns_through_a_sample_from_the_registry_and_then_stops_asking() {
    let registry = SampleRegistry::start().await;
    let first = Setup::named("first").start().await;
    registry.knows([&first]);
    let mut setup = Setup::named("lonely");
    setup.registry = Some(registry.address.into());
    let lonely = setup.start().await;
    until("they are linked", async || lonely.is_linked_to(&first)).await;

    // Many more than it will be linked to, so that some accept it.
    let mut others = vec![Setup::named("other-0").start().await];
    for number in 1..24 {
        let setup = Setup::named(&format!("other-{number}")).with_bootnodes([&others[0]]);
        others.push(setup.start().await);
    }
    // With all the links they want, so that none of them drops a neighbour for another any more.
    until("the others are linked", async || others.iter().all(has_enough)).await;
    let before = registry.samples();
    registry.knows(&others);
    drop(first);
    until("it has all the links it wants", async || has_enough(&lonely)).await;
    // A probe for partitions may have been first.
    assert!(registry.samples() > before);

    until("all calls for help are answered", async || {
        let asked = registry.rescues();
        let begun = Instant::now();
        until("a moment has passed", async || begun.elapsed() > Duration::from_millis(500)).await;
        registry.rescues() == asked
    })
    .await;
    let asked = registry.rescues();
    stays("it stops asking and the links stay", || registry.rescues() == asked && has_enough(&lonely)).await;
}
