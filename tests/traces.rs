//! One command is one trace through the command line, the registry and a peer, as an OTLP endpoint receives it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use support::{
    network::ready,
    process::{Running, Server},
    world::World,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span as received.
#[derive(Debug, Clone)]
struct Span {
    service: String,
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
}

/// An OTLP collector.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource_spans in request.into_inner().resource_spans {
            let attributes = resource_spans.resource.unwrap_or_default().attributes;
            let service = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let Some(Value::StringValue(service)) = service.and_then(|service| service.value?.value) else {
                return Err(Status::invalid_argument("a resource without service.name"));
            };
            for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let (name, trace, id, parent) = (span.name, span.trace_id, span.span_id, span.parent_span_id);
                self.0.lock().unwrap().push(Span { service: service.clone(), name, trace, id, parent });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    async fn start() -> (Self, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (receiver, address) = (Self::default(), listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(receiver.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (receiver, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }
}

fn traced(mut command: Command, receiver: SocketAddr) -> Command {
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{receiver}"));
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_is_one_trace_through_all_three_programs() {
    let (receiver, address) = Receiver::start().await;
    let world = World::new();
    world.share("share", &[48]);
    let registry = Server::start(traced(world.registry_command("127.0.0.1:0", &[]), address));
    let peer = Server::start(traced(world.peer_command("fff-c", &registry.url(), &["--share", "share"]), address));
    ready(&peer);
    Running::run_to_end(traced(world.p2pctl_command(&registry, &["get-rfc", "48"]), address)).exits(0);
    // Each program exports its last spans when it ends.
    for server in [peer, registry] {
        server.signal(Signal::TERM);
        let ended = server.ended().exits(0);
        assert!(!ended.stderr.contains("traces could not be sent"), "{ended:#?}");
    }

    let spans = receiver.spans();
    let root = spans.iter().find(|span| span.name == "p2pctl get-rfc").unwrap_or_else(|| panic!("no root: {spans:#?}"));
    assert_eq!((root.service.as_str(), root.parent.as_slice()), ("p2pctl", [].as_slice()));
    let trace: Vec<_> = spans.iter().filter(|span| span.trace == root.trace).collect();
    let services: BTreeSet<_> = trace.iter().map(|span| span.service.as_str()).collect();
    assert_eq!(services, BTreeSet::from(["p2pctl", "peerd", "registry"]), "{trace:#?}");
    let of_p2pctl: BTreeSet<_> = trace.iter().filter(|span| span.service == "p2pctl").map(|span| span.id.as_slice()).collect();
    for (service, call) in [
        ("registry", "p2pdi.v1.Registry/Register"),
        ("registry", "p2pdi.v1.Registry/PQuery"),
        ("peerd", "p2pdi.v1.Peer/RFCQuery"),
        ("peerd", "p2pdi.v1.Peer/GetRFC"),
        ("registry", "p2pdi.v1.Registry/Leave"),
    ] {
        let served: Vec<_> = trace.iter().filter(|span| span.service == service && span.name == call).collect();
        assert_eq!(served.len(), 1, "{service} {call}: {spans:#?}");
        assert!(
            of_p2pctl.contains(served[0].parent.as_slice()),
            "{service} {call} is not a child of a span of p2pctl: {trace:#?}"
        );
    }
}

/// Peers that get a message as soon as they have started. One in some seven is linked by then.
const NEWCOMERS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whisper_is_one_trace_from_peer_to_peer() {
    let (receiver, address) = Receiver::start().await;
    let world = World::new();
    let registry = world.registry(&[]);
    let start = |name: &str| {
        let peer = Server::start(traced(world.peer_command(name, &registry.url(), &[]), address));
        ready(&peer);
        peer
    };
    let mut peers = vec![start("fff-a")];
    let via = peers[0].address.to_string();
    // To one that has just started: once two peers are linked, a message is no call any more, and some are linked before the first.
    for number in 0..NEWCOMERS {
        let name = format!("fff-c{number}");
        peers.push(start(&name));
        let whisper = world.p2pctl_command(&registry, &["whisper", &name, "hello", "--via", &via]);
        Running::run_to_end(traced(whisper, address)).exits(0);
    }
    for peer in peers {
        peer.signal(Signal::TERM);
        peer.ended().exits(0);
    }
    let spans = receiver.spans();
    let roots: Vec<_> = spans.iter().filter(|span| span.name == "p2pctl whisper").collect();
    assert_eq!(roots.len(), NEWCOMERS, "{spans:#?}");
    let mut through_both = 0;
    for root in roots {
        let hops: Vec<_> = spans.iter().filter(|span| span.trace == root.trace && span.name == "p2pdi.v1.Peer/Whisper").collect();
        assert!(hops.iter().any(|hop| hop.parent == root.id), "{spans:#?}");
        if hops.len() == 2 {
            assert!(hops.iter().any(|hop| hops.iter().any(|first| hop.parent == first.id)), "{spans:#?}");
            through_both += 1;
        }
    }
    assert!(through_both > 0, "{spans:#?}");
}

#[test]
fn a_collector_that_does_not_answer_fails_no_command() {
    let world = World::new();
    let registry = world.registry(&[]);
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    Running::run_to_end(traced(world.p2pctl_command(&registry, &["peers"]), nobody)).exits(0).stdout_has(&["NAME"]);
    let mut refused = world.p2pctl_command(&registry, &["peers"]);
    refused.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json");
    Running::run_to_end(refused).exits(2).stdout_is_empty().stderr_has(&["OTEL_EXPORTER_OTLP_PROTOCOL=grpc"]);
}

#[test]
fn a_collector_that_accepts_and_never_answers_delays_a_command_by_a_fraction_of_a_second() {
    let world = World::new();
    let registry = world.registry(&[]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    // What a command takes anyway, on this machine and under this load.
    let took = |command: Command| {
        let started = Instant::now();
        Running::run_to_end(command).exits(0).stdout_has(&["NAME"]);
        started.elapsed()
    };
    let command = || world.p2pctl_command(&registry, &["peers"]);
    let (plain, delayed) = (took(command()), took(traced(command(), silent)));
    // The time limit is 250 ms; the exporter's own is 5 s or more.
    assert!(delayed < 2 * plain + Duration::from_secs(2), "{plain:?} without, {delayed:?} with");
    let peer = Server::start(traced(world.peer_command("fff-c", &registry.url(), &[]), silent));
    ready(&peer);
    let started = Instant::now();
    peer.signal(Signal::TERM);
    peer.ended().exits(0);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}
