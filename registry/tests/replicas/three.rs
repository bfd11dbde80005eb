//! Registries that share an etcd.

use crate::{etcd::Etcd, support::*};
use p2pdi::v1::{PQueryRequest, PQueryResponse};
use registry::{
    Config, State,
    store::{EtcdAddress, EtcdFiles},
};
use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Status;

/// How a replica below `prefix` is started.
pub(crate) fn over(etcd: &Etcd, prefix: &str, ttl: Duration) -> Config {
    let address = EtcdAddress { endpoints: etcd.endpoints(), prefix: prefix.to_owned(), files: EtcdFiles::default(), user: None };
    Config { state: State::Etcd(address), ttl, ..Config::default() }
}

/// Starts replicas, and waits until they have shared the shards.
pub(crate) async fn start(etcd: &Etcd, prefix: &str, count: usize, ttl: Duration) -> Vec<Running> {
    let mut replicas = Vec::new();
    for _ in 0..count {
        replicas.push(Running::start(over(etcd, prefix, ttl)).await);
    }
    settled(&replicas).await;
    replicas
}

/// The real program as a replica. `reached_at`: what it calls itself at the others; `None`: where it listens.
pub(crate) fn program(etcd: &[String], prefix: &str, ttl: Duration, reached_at: Option<SocketAddr>) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
    command.env_clear().args(["--listen", "127.0.0.1:0", "--store", "etcd", "--etcd-prefix", prefix, "--state", "memory"]);
    command.args(["--etcd-endpoints", &etcd.join(","), "--ttl", &format!("{}s", ttl.as_secs())]);
    command.args(reached_at.iter().flat_map(|address| ["--replica-address".to_owned(), address.to_string()]));
    // Nobody reads a pipe for its log while it runs, and a full one would stop it.
    command.stderr(Stdio::null());
    Program::spawn_as_is(command)
}

/// Waits until these replicas know of each other, and keep all shards.
pub(crate) async fn settled(replicas: &[Running]) {
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    all_settled(&addresses).await;
}

/// The same of replicas at these addresses.
pub(crate) async fn all_settled(replicas: &[SocketAddr]) {
    eventually("all shards are kept", async || {
        let mut kept = 0;
        for replica in replicas {
            let status = status_at(*replica).await?;
            if status["replica"]["replicas"].as_u64()? != u64::try_from(replicas.len()).ok()? || status["store"] != "ok" {
                return None;
            }
            kept += status["replica"]["shards"].as_u64()?;
        }
        (kept == 32).then_some(())
    })
    .await;
}

/// The status page as JSON.
pub(crate) async fn status_of(replica: &Running) -> Option<serde_json::Value> {
    status_at(replica.address).await
}

async fn status_at(address: SocketAddr) -> Option<serde_json::Value> {
    serde_json::from_str(&page_at(address, "/").await?).ok()
}

/// The names that a replica lists.
pub(crate) async fn listed(client: &mut Client, cookie: &str) -> Vec<String> {
    let answer = all(client, cookie, PQueryRequest::default()).await.unwrap();
    let mut listed: Vec<_> = answer.peers.iter().map(|peer| peer.name.clone()).collect();
    listed.sort_unstable();
    listed
}

/// All pages of a query as one answer, with the revision of the first one.
pub(crate) async fn all(client: &mut Client, cookie: &str, ask: PQueryRequest) -> Result<PQueryResponse, Status> {
    let mut whole = query(client, cookie, ask.clone()).await?;
    let mut token = whole.next_page_token.clone();
    while !token.is_empty() {
        let page = query(client, cookie, PQueryRequest { page_token: token, ..ask.clone() }).await?;
        whole.peers.extend(page.peers);
        whole.gone.extend(page.gone);
        token = page.next_page_token;
    }
    Ok(whole)
}

/// The page at `path`, as JSON where there is a choice; `None` while nothing answers.
pub(crate) async fn page_at(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
