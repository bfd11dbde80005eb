//! A registry whose parts or store fail.

use crate::{
    Config, Registry, RegistryError, State, TTL_MAX, TTL_MIN,
    backup::BackupWriter,
    queue::Job,
    store::{Embedded, Loaded, Skipped, Store, StoreError, WriteError},
    table::{Change, Labels, PackedStrings, Peer, Registrations},
    timeouts::WriteTimeouts,
};
use p2pdi::{
    cookie::{COOKIE_HEADER, CookieHash},
    id::PeerId,
    network::NetworkName,
    status::Reason,
    v1::{
        GetRegistryStatusRequest, KeepAliveRequest, LeaveRequest, PQueryRequest, RegisterRequest, RestoreRequest,
        registry_admin_client::RegistryAdminClient, registry_client::RegistryClient,
    },
};
use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc as channel,
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, codegen::tokio_stream, transport::Channel};

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(20);

type Client = RegistryClient<Channel>;

fn in_memory() -> Config {
    Config { state: State::Memory, ..Config::default() }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), RegistryError>>,
}

impl Running {
    async fn start(store: impl Store + 'static, timeouts: WriteTimeouts) -> (Self, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let registry = Registry::with_store(&in_memory(), Box::new(store), timeouts).unwrap();
        let serving = tokio::spawn(registry.serve(listener, stop.clone()));
        let client = RegistryClient::connect(format!("http://{address}")).await.unwrap();
        (Self { address, stop, serving }, client)
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.serving).await.expect("it ends").unwrap().unwrap();
    }
}

fn named(name: &str) -> RegisterRequest {
    RegisterRequest { name: name.into(), endpoint: "10.0.0.1:7801".into(), ..RegisterRequest::default() }
}

fn with_cookie<T>(message: T, cookie: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(COOKIE_HEADER, cookie.parse().unwrap());
    request
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(outcome: Result<T, Status>, expected: &str) {
    let refused = outcome.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::StoreUnavailable), "{refused:?}");
    assert!(refused.message().contains(expected), "{refused:?}");
}

#[tokio::test]
async fn a_registry_whose_writer_ends_stops_with_its_name_in_the_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = Registry::open(&in_memory()).unwrap();
    registry.leases.jobs.send(Job::Stop).await.unwrap();
    let outcome = timeout(PATIENCE, registry.serve(listener, CancellationToken::new())).await.expect("it ends");
    let Err(RegistryError::Task(ended)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((ended.name, ended.panic), ("store writer", None));
}

#[test]
fn a_ttl_out_of_bounds_is_refused_with_the_bounds() {
    let open = |ttl| Registry::open(&Config { ttl, ..in_memory() });
    for ttl in [Duration::ZERO, TTL_MIN - Duration::from_millis(1), TTL_MAX + Duration::from_millis(1), Duration::MAX] {
        let error = open(ttl).err().expect("a refusal");
        assert!(matches!(error, RegistryError::Ttl(refused) if refused == ttl));
        assert!(error.to_string().ends_with("it must be 1s to 86400s"), "{error}");
    }
    for ttl in [TTL_MIN, TTL_MAX] {
        assert!(open(ttl).is_ok());
    }
}

#[tokio::test]
async fn a_registry_whose_table_was_left_half_changed_by_a_panic_stops_with_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = Registry::open(&in_memory()).unwrap();
    let table = Arc::clone(&registry.leases.table);
    let serving = tokio::spawn(registry.serve(listener, CancellationToken::new()));
    let call = tokio::spawn(async move { table.with::<()>(|_, _| panic!("in mid-change")) });
    assert!(call.await.unwrap_err().is_panic());
    let outcome = timeout(PATIENCE, serving).await.expect("it ends").unwrap();
    let Err(RegistryError::Task(ended)) = outcome else { panic!("{outcome:?}") };
    assert!(ended.panic.is_some_and(|said| said.contains("inconsistent")));
}

/// A store without records, whose commits have these outcomes.
struct Committing<C>(C);

impl<C: FnMut(&[Change]) -> Vec<Result<u64, WriteError>> + Send> Store for Committing<C> {
    fn load(&mut self, _: &mut dyn FnMut(Peer, u64)) -> Result<Loaded, StoreError> {
        Ok(Loaded { revision: 1, complete_since: 1, skipped: Skipped::default() })
    }

    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>> {
        (self.0)(batch)
    }

    fn latest(&mut self) -> Result<u64, StoreError> {
        Ok(1)
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Its commits wait until the channel is closed.
fn hanging(held: channel::Receiver<()>) -> impl Store {
    Committing(move |batch: &[Change]| {
        let _closed = held.recv();
        (2..).take(batch.len()).map(Ok).collect()
    })
}

#[tokio::test]
async fn a_store_that_hangs_makes_the_registry_unready_and_keeps_no_caller_waiting() {
    let (release, held) = channel::channel();
    let timeouts =
        WriteTimeouts { commit: Duration::from_millis(500), slow_commit: Duration::from_millis(100), ..WriteTimeouts::default() };
    let (registry, mut client) = Running::start(hanging(held), timeouts).await;
    // Whoever proposes its cookie can repeat the call.
    let ask = || with_cookie(named("a"), &"5a".repeat(16));
    let outcome = timeout(PATIENCE, client.register(ask())).await.expect("an answer");
    assert_unavailable(outcome, "may or may not");
    assert!(registry.get("/readyz").await.starts_with("HTTP/1.1 503"));
    drop(release);
    client.register(ask()).await.expect("the registry works again");
    assert!(registry.get("/readyz").await.starts_with("HTTP/1.1 200"));
    registry.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_disk_that_hangs() {
    let (release, held) = channel::channel::<()>();
    let timeouts =
        WriteTimeouts { commit: Duration::from_millis(100), stop: Duration::from_millis(100), ..WriteTimeouts::default() };
    let (registry, mut client) = Running::start(hanging(held), timeouts).await;
    for name in ["a", "b"] {
        assert_unavailable(client.register(named(name)).await, "may or may not");
    }
    registry.stop.cancel();
    let outcome = timeout(PATIENCE, registry.serving).await.expect("it ends").unwrap();
    let Err(error @ RegistryError::StoreHangs { unwritten: 2, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(error.hint().is_some());
    drop(release);
}

#[tokio::test]
async fn a_call_that_wrote_in_vain_does_not_say_that_nothing_was_changed() {
    // The answer to a first try may be lost: then the try after it finds a record that the first one wrote, or that came after it.
    let timeouts = WriteTimeouts { queue: Duration::from_millis(100), ..WriteTimeouts::default() };
    let contended = Committing(|batch: &[Change]| batch.iter().map(|_| Err(WriteError::Conflict { stored: 1 })).collect());
    let (registry, mut client) = Running::start(contended, timeouts).await;
    let outcome = timeout(PATIENCE, client.register(named("a"))).await.expect("an answer");
    assert_unavailable(outcome, "may or may not");
    registry.stop().await;
}

/// A store whose commits fail while `failing` is set.
struct Failing {
    store: Embedded,
    failing: Arc<AtomicBool>,
}

impl Failing {
    fn check(&self) -> Result<(), StoreError> {
        let error = || StoreError::Failed { doing: "write", problem: "the test makes it fail".into() };
        if self.failing.load(Ordering::Relaxed) { Err(error()) } else { Ok(()) }
    }
}

impl Store for Failing {
    fn load(&mut self, each: &mut dyn FnMut(Peer, u64)) -> Result<Loaded, StoreError> {
        self.store.load(each)
    }

    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>> {
        match self.check() {
            Ok(()) => self.store.commit(batch),
            Err(error) => {
                let error = Arc::new(error);
                batch.iter().map(|_| Err(WriteError::Failed(Arc::clone(&error)))).collect()
            }
        }
    }

    fn latest(&mut self) -> Result<u64, StoreError> {
        self.store.latest()
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        self.check()?;
        self.store.recover()
    }
}

async fn start_failing(folder: &Path) -> (Running, Client, Arc<AtomicBool>) {
    let failing = Arc::new(AtomicBool::new(false));
    let store = Failing { store: Embedded::open(folder).unwrap(), failing: Arc::clone(&failing) };
    let (registry, client) = Running::start(store, WriteTimeouts::default()).await;
    (registry, client, failing)
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_never_shown_and_the_registry_recovers_with_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, mut client, failing) = start_failing(folder.path()).await;
    let kept = client.register(named("kept")).await.unwrap().into_inner();
    failing.store(true, Ordering::Relaxed);

    assert_unavailable(client.register(named("refused")).await, "nothing was changed");
    let moved = RegisterRequest { endpoint: "10.0.0.9:7801".into(), ..named("kept") };
    assert_unavailable(client.register(with_cookie(moved, &kept.cookie)).await, "nothing was changed");
    assert_unavailable(client.leave(with_cookie(LeaveRequest {}, &kept.cookie)).await, "nothing was changed");

    let observer = RegisterRequest { observer: true, ..named("observer") };
    let observer = client.register(observer).await.expect("observers are not stored").into_inner();
    assert_eq!(observer.revision, kept.revision);
    let seen = client.p_query(with_cookie(PQueryRequest::default(), &observer.cookie)).await.unwrap().into_inner();
    let listed: Vec<_> = seen.peers.iter().map(|peer| (peer.name.as_str(), peer.endpoint.as_str())).collect();
    assert_eq!(listed, [("kept", "10.0.0.1:7801")]);
    client.keep_alive(with_cookie(KeepAliveRequest::default(), &kept.cookie)).await.expect("leases continue");
    assert!(registry.get("/").await.contains("registrations are refused"));
    let mut admin = RegistryAdminClient::connect(format!("http://{}", registry.address)).await.unwrap();
    let status = admin.get_registry_status(GetRegistryStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.store, "failing");
    assert!(status.store_problem.contains("the test makes it fail"), "{status:?}");

    failing.store(false, Ordering::Relaxed);
    let recovered = async {
        // The registry detects it without a call.
        while registry.get("/").await.contains("registrations are refused") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, recovered).await.expect("it recovers");
    client.register(named("later")).await.expect("the registry works again");
    let status = admin.get_registry_status(GetRegistryStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.store.as_str(), status.store_problem.as_str()), ("ok", ""));
    registry.stop().await;

    let (registry, mut client, _) = start_failing(folder.path()).await;
    client.keep_alive(with_cookie(KeepAliveRequest::default(), &kept.cookie)).await.expect("it was acknowledged");
    let query = client.p_query(with_cookie(PQueryRequest::default(), &kept.cookie)).await.unwrap().into_inner();
    assert_eq!(query.peers.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["later"]);
    registry.stop().await;
}

/// Commits so many changes, then fails; removals it always accepts.
struct Filling {
    room: usize,
    kept: Arc<Mutex<BTreeSet<String>>>,
    revision: u64,
}

impl Store for Filling {
    fn load(&mut self, _: &mut dyn FnMut(Peer, u64)) -> Result<Loaded, StoreError> {
        Ok(Loaded { revision: 1, complete_since: 1, skipped: Skipped::default() })
    }

    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>> {
        let mut kept = self.kept.lock().unwrap();
        let mut one = |change: &Change| {
            if change.peer.is_none() {
                kept.remove(&*change.key);
            } else if kept.len() >= self.room {
                let error = StoreError::Failed { doing: "write", problem: "the test makes it fail".into() };
                return Err(WriteError::Failed(Arc::new(error)));
            } else {
                kept.insert(change.key.to_string());
            }
            self.revision += 1;
            Ok(self.revision)
        };
        batch.iter().map(&mut one).collect()
    }

    fn latest(&mut self) -> Result<u64, StoreError> {
        Ok(self.revision)
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_restore_that_fails_half_way_leaves_nothing() {
    let peers: Vec<Peer> = (0..3_000)
        .map(|number: u32| Peer {
            strings: PackedStrings::new(&format!("p{number}"), "10.0.0.1:7801", &Labels::default()),
            id: PeerId::from_bytes([1; 16]),
            cookie: CookieHash::from_bytes(u128::from(number).to_be_bytes()),
            address: Ipv6Addr::LOCALHOST,
            first_registered_ms: 1,
            last_registered_ms: 1,
            last_active_ms: 1,
            registrations: Registrations::default(),
            active: true,
        })
        .collect();
    let parts: Vec<_> = BackupWriter::new(&NetworkName::default(), 1, peers).collect();
    for room in [1, 1_500, 2_999, 3_000] {
        let kept = Arc::new(Mutex::new(BTreeSet::new()));
        let store = Filling { room, kept: Arc::clone(&kept), revision: 1 };
        let (registry, _) = Running::start(store, WriteTimeouts::default()).await;
        let mut admin = RegistryAdminClient::connect(format!("http://{}", registry.address)).await.unwrap();
        let requests: Vec<_> = parts.iter().map(|part| RestoreRequest { part: Some(part.clone()) }).collect();
        let restored = admin.restore(tokio_stream::iter(requests)).await;
        let status = admin.get_registry_status(GetRegistryStatusRequest {}).await.unwrap().into_inner();
        let expected = if room == 3_000 { 3_000 } else { 0 };
        assert_eq!((kept.lock().unwrap().len(), status.active_peers), (expected, expected as u64), "{room}");
        match restored {
            Ok(_) => assert_eq!(room, 3_000),
            Err(_) => assert_unavailable(restored, "nothing was changed"),
        }
        registry.stop().await;
    }
}
