//! etcd to compare with: as much of its gRPC API as a lease with a key needs.

use super::load::channels;
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(int64, tag = "3")]
    lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// A member of etcd with its own data folder, killed when dropped.
struct Member {
    child: Child,
    uri: String,
    _data: TempDir,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// etcd of one or several members.
pub(crate) struct Etcd {
    members: Vec<Member>,
}

impl Etcd {
    /// Starts one member. The error says why it cannot.
    pub(crate) async fn start(data: TempDir) -> Result<Self, String> {
        Self::cluster(vec![data]).await
    }

    /// Starts a member in each folder. The error says why it cannot.
    pub(crate) async fn cluster(folders: Vec<TempDir>) -> Result<Self, String> {
        let uri = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port())
        };
        let peers: Vec<String> = folders.iter().map(|_| uri()).collect();
        let cluster: Vec<String> = peers.iter().enumerate().map(|(number, peer)| format!("m{number}={peer}")).collect();
        let mut members = Vec::new();
        for (number, data) in folders.into_iter().enumerate() {
            let (uri, peer) = (uri(), &peers[number]);
            let child = Command::new("etcd")
                .args(["--name", &format!("m{number}"), "--data-dir"])
                .arg(data.path())
                .args(["--listen-client-urls", &uri, "--advertise-client-urls", &uri])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .args(["--initial-cluster", &cluster.join(",")])
                .args(["--log-level", "error"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("etcd cannot be started: {error}"))?;
            members.push(Member { child, uri, _data: data });
        }
        let until = Instant::now() + Duration::from_secs(20);
        for member in &members {
            loop {
                if let Ok(channel) = tonic::transport::Endpoint::from_shared(member.uri.clone()).unwrap().connect().await
                    && register(channel, "ready".into(), Vec::new()).await.is_ok()
                {
                    break;
                }
                if Instant::now() > until {
                    return Err("etcd does not answer".into());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(Self { members })
    }

    /// The members' addresses, as `--etcd-endpoints` takes them.
    pub(crate) fn endpoints(&self) -> String {
        self.members.iter().map(|member| member.uri.as_str()).collect::<Vec<_>>().join(",")
    }

    /// So many connections, to the members in turn.
    pub(crate) async fn channels(&self, count: usize) -> Vec<Channel> {
        let mut all = Vec::new();
        for number in 0..count {
            all.extend(channels(&self.members[number % self.members.len()].uri, 1).await);
        }
        all
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseKeepAliveResponse {
    #[prost(int64, tag = "3")]
    ttl: i64,
}

/// A lease, and the stream that renews it, as etcd's clients do.
pub(crate) struct Lease {
    id: i64,
    ask: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: tonic::Streaming<LeaseKeepAliveResponse>,
}

impl Lease {
    pub(crate) async fn grant(channel: Channel) -> Self {
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseGrant");
        let grant = tonic::Request::new(LeaseGrantRequest { ttl: 3600, id: 0 });
        let granted: LeaseGrantResponse = grpc.unary(grant, path, ProstCodec::default()).await.unwrap().into_inner();
        let (ask, asked) = mpsc::channel(1);
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
        let stream = tonic::Request::new(ReceiverStream::new(asked));
        ask.send(LeaseKeepAliveRequest { id: granted.id }).await.unwrap();
        let answers = grpc.streaming(stream, path, ProstCodec::default()).await.unwrap().into_inner();
        let mut lease = Self { id: granted.id, ask, answers };
        lease.answer().await;
        lease
    }

    pub(crate) async fn renew(&mut self) {
        self.ask.send(LeaseKeepAliveRequest { id: self.id }).await.unwrap();
        self.answer().await;
    }

    async fn answer(&mut self) {
        let answer = self.answers.message().await.unwrap().unwrap();
        assert!(answer.ttl > 0, "the lease is gone");
    }
}

/// The equivalent of a registration: a lease, then a key attached to it.
pub(crate) async fn register(channel: Channel, key: String, value: Vec<u8>) -> Result<(), tonic::Status> {
    let mut grpc = Grpc::new(channel);
    let ready = |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
    grpc.ready().await.map_err(ready)?;
    let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseGrant");
    let grant = tonic::Request::new(LeaseGrantRequest { ttl: 3600, id: 0 });
    let granted: LeaseGrantResponse = grpc.unary(grant, path, ProstCodec::default()).await?.into_inner();
    grpc.ready().await.map_err(ready)?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let put = tonic::Request::new(PutRequest { key: key.into_bytes(), value, lease: granted.id });
    let _: PutResponse = grpc.unary(put, path, ProstCodec::default()).await?.into_inner();
    Ok(())
}
