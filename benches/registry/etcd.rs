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

/// A single etcd with its own data folder, killed when dropped.
pub(crate) struct Etcd {
    child: Child,
    uri: String,
    _data: TempDir,
}

impl Etcd {
    /// Starts it. The error says why it cannot.
    pub(crate) async fn start(data: TempDir) -> Result<Self, String> {
        let port = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let (uri, peers) = (format!("http://127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &uri, "--advertise-client-urls", &uri])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .args(["--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("etcd cannot be started: {error}"))?;
        let etcd = Self { child, uri, _data: data };
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if let Ok(channel) = tonic::transport::Endpoint::from_shared(etcd.uri.clone()).unwrap().connect().await
                && register(channel, "ready".into(), Vec::new()).await.is_ok()
            {
                return Ok(etcd);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("etcd does not answer".into())
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) async fn channels(&self, count: usize) -> Vec<Channel> {
        channels(&self.uri, count).await
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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
