//! The servers under load, each in its own process: a registry, and an empty tonic service.

use p2pdi::v1::{
    AnnounceRequest, AnnounceResponse, EnrollRequest, EnrollResponse, FreeNameRequest, FreeNameResponse, GetTrustRequest,
    GetTrustResponse, KeepAliveRequest, KeepAliveResponse, LeaveRequest, LeaveResponse, PQueryRequest, PQueryResponse,
    RegisterRequest, RegisterResponse, WatchPeersRequest, WatchPeersResponse,
    registry_client::RegistryClient,
    registry_server::{Registry, RegistryServer},
};
use registry::{
    Config, State,
    store::{EtcdAddress, EtcdFiles},
};
use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Channel};

/// First argument of a server process.
pub(crate) const FLAG: &str = "--serve";
const ECHO: &str = "echo";
const REPLICA: &str = "etcd=";

/// Answers every call with an empty message: the least that a call costs.
struct Echo;

#[tonic::async_trait]
impl Registry for Echo {
    type WatchPeersStream = tonic::Streaming<WatchPeersResponse>;

    async fn register(&self, _: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
    async fn keep_alive(&self, _: Request<KeepAliveRequest>) -> Result<Response<KeepAliveResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
    async fn p_query(&self, _: Request<PQueryRequest>) -> Result<Response<PQueryResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
    async fn watch_peers(&self, _: Request<WatchPeersRequest>) -> Result<Response<Self::WatchPeersStream>, Status> {
        Err(Status::unimplemented("as of an earlier version"))
    }
    async fn free_name(&self, _: Request<FreeNameRequest>) -> Result<Response<FreeNameResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
    async fn announce(&self, _: Request<AnnounceRequest>) -> Result<Response<AnnounceResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
    async fn enroll(&self, _: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
    async fn get_trust(&self, _: Request<GetTrustRequest>) -> Result<Response<GetTrustResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

/// `--serve echo`, `--serve STATE`, or `--serve etcd=URL`.
pub(crate) fn main(arguments: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        if arguments[0] == ECHO {
            println!("{address}");
            let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
            let server = tonic::transport::Server::builder().add_service(RegistryServer::new(Echo));
            server.serve_with_incoming(incoming).await.unwrap();
        } else {
            let state = match arguments[0].strip_prefix(REPLICA) {
                Some(endpoint) => State::Etcd(EtcdAddress {
                    endpoints: endpoint.split(',').map(str::to_owned).collect(),
                    prefix: "/p2pdi".into(),
                    files: EtcdFiles::default(),
                    user: None,
                }),
                None => arguments[0].parse().unwrap(),
            };
            // No lease expires during a measurement.
            let config = Config { state, ttl: std::time::Duration::from_secs(3600), ..Config::default() };
            let registry = registry::Registry::open(&config).unwrap();
            println!("{address}");
            registry.serve(listener, CancellationToken::new()).await.unwrap();
        }
    });
}

/// A server in its own process, killed when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn echo() -> Self {
        Self::start(ECHO)
    }

    pub(crate) fn registry(state: &str) -> Self {
        Self::start(state)
    }

    /// A replica over the etcd at `endpoints`, with commas between them.
    pub(crate) fn replica(endpoints: &str) -> Self {
        Self::start(&format!("{REPLICA}{endpoints}"))
    }

    fn start(what: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args([FLAG, what]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { address: line.trim().parse().expect("its address"), child }
    }

    pub(crate) async fn clients(&self, count: usize) -> Vec<RegistryClient<Channel>> {
        let mut clients = Vec::new();
        for channel in super::load::channels(&format!("http://{}", self.address), count).await {
            clients.push(RegistryClient::new(channel));
        }
        clients
    }

    /// CPU time used so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Fields 14 and 15 (proc(5)), counted after the name in parentheses; in hundredths on every Linux in use.
        let after = stat.rsplit_once(')').unwrap().1;
        after.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
    }

    /// Resident memory in bytes, as Linux counts it.
    pub(crate) fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
