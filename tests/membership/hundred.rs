//! A hundred programs that want one document in the same moment, each with a server of its own: what each of them calls.

use super::{support::holder::Holder, *};
use p2pdi::{
    channel::{self, CountSent, Dial},
    contact::Contact,
    content::ContentHash,
    endpoint::Endpoint,
    id::PeerId,
    server::Limits,
    tls::Expected,
    v1::AnnounceRequest,
};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    fetcher::Fetcher,
    holders::{
        source::Source,
        tracker::{Announced, Announcement, Tracker},
    },
    session::AnnounceError,
    transfer::{
        FetchOptions, Swarms,
        fetch::job::{FetchJob, FetchRequest, FindPeers, PeerSample},
    },
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::task::JoinSet;

const PROGRAMS: usize = 100;
/// Of 256 KiB each: a small document, so that the calls that find holders are most of all.
const PIECES: usize = 4;
/// Most calls of one program by which it finds holders, on average: all but those that bring the document.
const CALLS_MAX: usize = 30;
/// The same of each: more than that only to dial some again that did not answer in time.
const CALLS_OF_ONE_MAX: usize = 40;
/// Until all have it: on a machine that is busy with something else. Otherwise it takes some seconds.
const PATIENCE: Duration = Duration::from_secs(300);
/// Most programs that search: one is told to, and another one if that takes long.
const SEARCHING_MAX: usize = 2;
/// After this long without a holder each of them searches, as it should: on a machine on which nothing else gets that far in that time.
const WAITED_MAX: Duration = Duration::from_secs(6);
/// Peers that have other documents: a search asks as many as it needs to.
const BYSTANDERS: usize = 40;

/// Calls by method.
#[derive(Debug, Default)]
struct Sent(Mutex<BTreeMap<String, usize>>);

impl CountSent for Sent {
    fn begins(&self, path: &str) {
        *self.0.lock().unwrap().entry(path.trim_start_matches("/p2pdi.v1.").to_owned()).or_default() += 1;
    }
}

/// The registry, for a program that is an observer there, as `p2pctl get` is.
struct Registered {
    client: RegistryClient<channel::Channel>,
    cookie: String,
    /// Where the program serves.
    endpoint: Endpoint,
}

impl Registered {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(COOKIE_HEADER, self.cookie.parse().unwrap());
        request
    }
}

#[tonic::async_trait]
impl Tracker for Registered {
    async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError> {
        let request: AnnounceRequest = announcement.into_request(self.endpoint.to_string());
        let answer = self.client.clone().announce(self.request(request)).await;
        answer.map(|answer| answer.into_inner().into()).map_err(|status| AnnounceError::of(&status))
    }
}

impl FindPeers for Registered {
    type Error = tonic::Status;

    async fn sample(&self, count: usize) -> Result<PeerSample, tonic::Status> {
        let query = PQueryRequest { sample: u32::try_from(count).unwrap(), ..Default::default() };
        let answer = self.client.clone().p_query(self.request(query)).await?.into_inner();
        let source = |peer: &PeerRecord| Source::new(peer.name.parse().ok(), peer.endpoint.parse().unwrap());
        Ok(PeerSample {
            are_all: answer.peers.len() as u64 >= answer.active_peers,
            peers: answer.peers.iter().map(source).collect(),
        })
    }
}

/// A program that fetches, and serves what it has.
struct Program {
    sent: Arc<Sent>,
    channels: ChannelPool,
    registry: Arc<Registered>,
    swarms: Swarms,
    out: tempfile::TempDir,
    _server: JoinSet<()>,
}

impl Program {
    async fn start(number: usize, registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::from(listener.local_addr().unwrap());
        let sent = Arc::<Sent>::default();
        let counting: Arc<dyn CountSent> = Arc::<Sent>::clone(&sent);
        let dial = Dial { sent: Some(counting), ..Dial::default() };
        let mut client = RegistryClient::new(dial.lazy(&[registry.into()], Expected::Anyone));
        let contact = Contact::new(PeerId::from_u128(number as u128 + 1), format!("p{number}").parse().unwrap(), endpoint);
        let (name, id) = (contact.name().to_string(), contact.id().to_field());
        let request = RegisterRequest { name, id, observer: true, ..Default::default() };
        let cookie = client.register(request).await.unwrap().into_inner().cookie;
        let registry = Arc::new(Registered { client, cookie, endpoint: contact.endpoint().clone() });
        let tracker: Arc<dyn Tracker> = Arc::<Registered>::clone(&registry);
        let fetcher = Fetcher::new(contact, String::new(), None, tracker);
        let (swarms, mut server) = (fetcher.swarms().clone(), JoinSet::new());
        server.spawn(async move { fetcher.serve(listener, Limits::default(), None, CancellationToken::new()).await.unwrap() });
        let channels = ChannelPool::dialling(dial);
        Self { sent, channels, registry, swarms, out: tempfile::tempdir().unwrap(), _server: server }
    }

    /// Fetches the document, and returns it with the calls that this took.
    async fn fetch(&self, hash: ContentHash) -> (Vec<u8>, BTreeMap<String, usize>) {
        self.sent.0.lock().unwrap().clear();
        // A machine that is busy with something else lets questions time out.
        let options = FetchOptions { wait_for_holders: PATIENCE, ..FetchOptions::new(self.out.path(), self.swarms.clone()) };
        let request = FetchRequest { wanted: DocumentSelector::Hash(hash), from: Vec::new(), options };
        let (job, watch) = FetchJob::new(request, self.channels.clone(), Arc::clone(&self.registry));
        let fetched = tokio::time::timeout(PATIENCE, job.run()).await;
        let calls = self.sent.0.lock().unwrap().clone();
        let fetched =
            fetched.unwrap_or_else(|_| panic!("not done: {:?}; calls: {calls:?}", watch.progress().snapshot())).unwrap();
        (fs::read(fetched.path).unwrap(), calls)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_that_begin_together_make_few_calls_each_and_one_or_two_of_them_search() {
    // Leases outlast the test on any machine.
    let registry = Running::start_with(Config { state: State::Memory, ttl: Duration::from_secs(600), ..Config::default() }).await;
    let data = support::bytes(PIECES * 256 * 1024);
    let hash = ContentHash::of(&data);
    let seed = member("seed", registry.address, &[("doc.bin", &data)]).await;
    until(&seed, SessionState::Registered).await;
    let mut bystanders = Vec::new();
    for number in 0..BYSTANDERS {
        let bystander = Holder::answering(Vec::new()).await;
        let (name, endpoint) = (format!("bystander{number}"), bystander.address.to_string());
        register(registry.address, RegisterRequest { name, endpoint, ..Default::default() }).await;
        bystanders.push(bystander);
    }
    let mut programs = Vec::new();
    for number in 0..PROGRAMS {
        programs.push(Program::start(number, registry.address).await);
    }
    let (begun, mut fetching) = (Instant::now(), JoinSet::new());
    for program in programs {
        fetching.spawn(async move {
            let (got, calls) = program.fetch(hash).await;
            (program, got, calls)
        });
    }
    let fetched = fetching.join_all().await;
    let took = begun.elapsed();
    let (mut all, mut most) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    let (mut searching, mut calls_all, mut calls_max) = (0, 0, 0);
    for (_, got, calls) in &fetched {
        assert!(*got == data);
        for (method, count) in calls {
            *all.entry(method.clone()).or_default() += count;
            let most = most.entry(method.clone()).or_default();
            *most = (*most).max(*count);
        }
        searching += usize::from(calls.contains_key("Peer/RFCQuery"));
        // The search is for all of them.
        let finds = |method: &str| !matches!(method, "Peer/RFCQuery" | "Peer/GetRFC");
        let own = calls.iter().filter(|(method, _)| finds(method)).map(|(_, count)| count).sum::<usize>();
        calls_all += own;
        calls_max = calls_max.max(own);
    }
    println!("{took:?}; calls of all: {all:?}; most of one: {most:?}, {calls_max} to find holders; {searching} searched");
    assert!(calls_all <= CALLS_MAX * PROGRAMS, "{calls_all} calls of {PROGRAMS}: {all:?}");
    assert!(calls_max <= CALLS_OF_ONE_MAX, "one made {calls_max} calls; most of one: {most:?}");
    assert!(searching <= SEARCHING_MAX || took > WAITED_MAX, "{searching} searched in {took:?}: {all:?}");
    assert!(all["Peer/RFCQuery"] <= searching * (BYSTANDERS + 1), "{all:?}");
}
