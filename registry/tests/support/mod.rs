//! Registries under test: in this process, and as the real program.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use p2pdi::{
    cookie::COOKIE_HEADER,
    status::Reason,
    v1::{
        KeepAliveRequest, LeaveRequest, PQueryRequest, PQueryResponse, PeerRecord, RegisterRequest, RegisterResponse,
        registry_client::RegistryClient,
    },
};
use registry::{Config, Registry, RegistryError, State};
use std::{
    future::Future,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

pub type Client = RegistryClient<Channel>;

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn in_memory() -> Config {
    Config { state: State::Memory, ..Config::default() }
}

pub fn in_folder(folder: &Path) -> Config {
    Config { state: State::Folder(folder.to_owned()), ..Config::default() }
}

/// A registry in this process.
pub struct Running {
    pub address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), RegistryError>>,
}

impl Running {
    pub async fn start(config: Config) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), config).await
    }

    #[expect(clippy::unused_async, reason = "it spawns")]
    pub async fn start_on(listener: TcpListener, config: Config) -> Self {
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let registry = Registry::open(&config).unwrap();
        let serving = tokio::spawn(registry.serve(listener, stop.clone()));
        Self { address, stop, serving }
    }

    pub fn client(&self) -> Client {
        client(self.address)
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap().unwrap();
    }
}

pub fn client(address: SocketAddr) -> Client {
    RegistryClient::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy())
}

pub fn with_cookie<T>(message: T, cookie: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(COOKIE_HEADER, cookie.parse().unwrap());
    request
}

pub fn asking(name: &str, endpoint: &str) -> RegisterRequest {
    RegisterRequest { name: name.into(), endpoint: endpoint.into(), ..RegisterRequest::default() }
}

pub async fn register(client: &mut Client, name: &str, endpoint: &str) -> RegisterResponse {
    client.register(asking(name, endpoint)).await.unwrap().into_inner()
}

pub async fn observe(client: &mut Client, name: &str) -> RegisterResponse {
    let ask = RegisterRequest { name: name.into(), observer: true, ..RegisterRequest::default() };
    client.register(ask).await.unwrap().into_inner()
}

pub async fn keep_alive(client: &mut Client, cookie: &str) -> Result<PeerRecord, Status> {
    Ok(client.keep_alive(with_cookie(KeepAliveRequest::default(), cookie)).await?.into_inner().peer.unwrap())
}

pub async fn leave(client: &mut Client, cookie: &str) -> Result<u64, Status> {
    Ok(client.leave(with_cookie(LeaveRequest {}, cookie)).await?.into_inner().revision)
}

pub async fn query(client: &mut Client, cookie: &str, query: PQueryRequest) -> Result<PQueryResponse, Status> {
    Ok(client.p_query(with_cookie(query, cookie)).await?.into_inner())
}

pub fn names(peers: &[PeerRecord]) -> Vec<&str> {
    let mut names: Vec<_> = peers.iter().map(|peer| peer.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// Asserts that a call was refused for this reason, with its code.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Status>, reason: Reason) -> Status {
    let status = outcome.expect_err("a refusal");
    assert_eq!((Reason::of(&status), status.code()), (Some(reason), reason.code()), "{status:?}");
    status
}

/// Repeats `check` until it gives a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < until, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The real program. Killed when dropped.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
}

pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
    command.env_clear().args(["--listen", "127.0.0.1:0", "--state"]).arg(folder);
    command
}

impl Program {
    pub fn start(folder: &Path) -> Self {
        Self::spawn(command(folder))
    }

    pub fn spawn(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        Self::spawn_as_is(command)
    }

    /// Without a pipe for standard error.
    pub fn spawn_as_is(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(address) = line.strip_prefix("listening on ") else {
            let mut stderr = String::new();
            child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut stderr));
            panic!("it printed {line:?} and {stderr:?}");
        };
        Self { address: address.trim().parse().unwrap(), child }
    }

    pub fn client(&self) -> Client {
        client(self.address)
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end. Gives its exit status and its standard error.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status, stderr)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
