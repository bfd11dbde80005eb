//! How a server serves: gRPC and plain HTTP on one port, with limits, until told to stop.

use crate::{
    channel::{CONNECTION_WINDOW, FRAME_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW},
    metrics::Metrics,
    v1::FILE_DESCRIPTOR_SET,
};
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    service::Routes,
    transport::{
        Server,
        server::{Connected, TcpConnectInfo},
    },
};
use tower::util::MapRequestLayer;

mod stop;
mod tasks;
pub use stop::{Stopped, until_stopped};
pub use tasks::{TaskEnded, Tasks};

/// What a server takes on at most.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; one more is closed at once.
    pub connections: usize,
    /// Streams (calls under way) of one connection.
    pub streams_per_connection: u32,
    /// How long a new connection may take to say what it wants.
    pub first_byte: Duration,
    /// How long the next message of an answer may wait for its caller to read; then the connection is closed.
    pub unread: Duration,
    /// How long calls may go on once the server stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A connection costs some 20 KiB idle; this many stay within 200 MiB and within usual descriptor limits.
            connections: 10_000,
            // gRPC's customary 100, with room for a fetcher of many small documents.
            streams_per_connection: 256,
            // A client sends its preface at once; three lost packets fit.
            first_byte: Duration::from_secs(10),
            // A chunk of 256 KiB at the speed of a bad telephone line; nginx's `send_timeout` is the same.
            unread: Duration::from_secs(60),
            // Kubernetes waits 30 s before it kills.
            grace: Duration::from_secs(10),
        }
    }
}

/// What every server serves beside its own services.
const ALWAYS_SERVED: [&str; 3] = [
    tonic_health::pb::health_server::SERVICE_NAME,
    tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME,
    tonic_reflection::pb::v1alpha::server_reflection_server::SERVICE_NAME,
];
/// Largest header block taken: the cookie, a trace context and a deadline fit many times.
const HEADER_LIST_MAX_BYTES: u32 = 16 * 1024;
/// Pause after a failed accept, such as "too many open files": without it the loop would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// How often measurements are folded into their histograms, so that an unscraped server does not grow.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long cut connections get to notice.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// The contract's descriptors cannot be read, which is our mistake.
#[derive(Debug, thiserror::Error)]
#[error("the contract's descriptors cannot be served: {0}")]
pub struct RouterError(#[from] tonic_reflection::server::Error);

/// Adds health, reflection and a fallback for unknown paths to a server's own services, whose names are `served`.
///
/// # Errors
/// When the contract's descriptors cannot be read, which is our mistake.
pub fn router(
    services: Routes,
    served: &[&str],
    health: tonic_health::server::HealthReporter,
    http: axum::Router,
) -> Result<axum::Router, RouterError> {
    let reflection = || {
        let described = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that grpcurl shows the reason of a refusal in words.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
        // The contract describes services of other servers too, which are not to be found here.
        served.iter().chain(&ALWAYS_SERVED).fold(described, |described, name| described.with_service_name(*name))
    };
    let grpc = services
        .add_service(tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(health),
        ))
        .add_service(reflection().build_v1()?)
        // Older tools, grpcurl 1.8 among them, ask for this one.
        .add_service(reflection().build_v1alpha()?);
    Ok(grpc.into_axum_router().route_layer(middleware::from_fn(only_grpc)).merge(http).fallback(unknown_path))
}

/// Refuses what is not gRPC as its clients speak it: over HTTP/2, with the content type of its own. What a page in a browser sends
/// to another site without asking first has neither (the Fetch standard's safelisted requests), so no page makes a call.
async fn only_grpc(request: Request, next: Next) -> Response {
    if request.version() == Version::HTTP_2 && is_grpc(request.headers()) {
        return next.run(request).await;
    }
    let words = "this is a gRPC method: call it over HTTP/2 with content-type application/grpc, as `grpcurl -plaintext` does\n";
    (axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], words).into_response()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Adds to an answer what keeps browsers from taking it for more than it is: never for another type, in another site's frame or code, or
/// as a page that may load anything. What the answer says of itself stays; `policy` is its content security policy otherwise.
pub fn security_headers(mut answer: Response, policy: &'static str) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

async fn unknown_path(uri: Uri, headers: HeaderMap) -> Response {
    if is_grpc(&headers) {
        tonic::Status::unimplemented("no such method here; list the services with `grpcurl -plaintext HOST:PORT list`")
            .into_http()
    } else {
        let words = format!("nothing at {}; see / for what is here\n", uri.path());
        (axum::http::StatusCode::NOT_FOUND, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], words).into_response()
    }
}

/// Serves `router` on `listener` until `stop`, then lets calls finish within the grace period and cuts what is left.
///
/// # Errors
/// When the server cannot run at all; a failing connection ends only itself.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    limits: &Limits,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    raise_descriptors(limits.connections);
    let cut = CancellationToken::new();
    let incoming = accept(listener, limits, metrics, &cut);
    let server = Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_max_header_list_size(HEADER_LIST_MAX_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(MapRequestLayer::new(with_address))
        .layer(metrics.rpc_layer())
        .serve_with_incoming_shutdown(router, incoming, stop.clone().cancelled_owned());
    let mut server = std::pin::pin!(server);
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            served = &mut server => return served,
            _ = upkeep.tick() => metrics.upkeep(),
            () = stop.cancelled() => break,
        }
    }
    if let Ok(served) = tokio::time::timeout(limits.grace, &mut server).await {
        return served;
    }
    tracing::warn!(grace = ?limits.grace, "calls still under way after the grace period; closing their connections");
    cut.cancel();
    tokio::time::timeout(CUT_TIMEOUT, &mut server).await.unwrap_or(Ok(()))
}

/// Descriptors beside connections: files under way, the store, the runtime.
const DESCRIPTORS_SPARE: u64 = 256;

/// Raises the soft limit of open files to the hard one, and warns when fewer connections fit than are allowed. The soft
/// limit is 1,024 on most systems, for the sake of programs that use `select`.
fn raise_descriptors(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
    // None: no limit.
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if descriptors < (connections as u64).saturating_add(DESCRIPTORS_SPARE) {
        tracing::warn!(descriptors, connections, "fewer files may be open than connections are allowed; raise `ulimit -Hn`");
    }
}

fn accept(
    listener: TcpListener,
    limits: &Limits,
    metrics: &Metrics,
    cut: &CancellationToken,
) -> impl tokio_stream::Stream<Item = io::Result<Connection>> + use<> {
    let cut = cut.clone();
    let places = Arc::new(Semaphore::new(limits.connections));
    let first_byte = limits.first_byte;
    let refused =
        metrics.counter("p2pdi_connections_refused_total", "Connections closed because as many were open as may be", &[]);
    let accepted = metrics.counter("p2pdi_connections_total", "Connections accepted", &[]);
    tokio_stream::StreamExt::filter_map(futures_accept(listener), move |accepted_stream| {
        match accepted_stream {
            Ok(stream) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    refused.increment(1);
                    return None;
                };
                accepted.increment(1);
                // Without it a small answer could wait for the other side's delayed acknowledgement.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection closed at once");
                    return None;
                }
                let cut = cut.child_token();
                Some(Ok(Connection {
                    silence: Some((Box::pin(sleep(first_byte)), PREFACE_BYTES)),
                    caller: Caller { tcp: stream.connect_info(), cut: cut.clone() },
                    stream,
                    cut: Box::pin(cut.cancelled_owned()),
                    _place: place,
                }))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                None
            }
        }
    })
}

/// All that `listener` accepts, with a pause after an error.
fn futures_accept(listener: TcpListener) -> impl tokio_stream::Stream<Item = io::Result<TcpStream>> {
    async_stream::stream! {
        loop {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            let failed = accepted.is_err();
            yield accepted;
            if failed {
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Who called, in the extensions of every call.
#[derive(Debug, Clone)]
pub struct Caller {
    tcp: TcpConnectInfo,
    cut: CancellationToken,
}

impl Caller {
    /// Closes the connection that the call came on, with all other calls on it.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}

/// tonic and the handlers look for the address under its own type.
fn with_address<B>(mut request: axum::http::Request<B>) -> axum::http::Request<B> {
    if let Some(tcp) = request.extensions().get::<Caller>().map(|caller| caller.tcp.clone()) {
        request.extensions_mut().insert(tcp);
    }
    request
}

/// Bytes that an HTTP/2 client sends first (RFC 9113, section 3.4). Fewer than these do not tell yet which HTTP it is, and
/// wait without a limit of the HTTP server's own; for a request of HTTP/1 it has one.
const PREFACE_BYTES: usize = 24;

/// An accepted connection: counted, closed when it says too little at first, and cut when the server's grace period ends or a
/// call asks for it.
struct Connection {
    stream: TcpStream,
    caller: Caller,
    /// Runs until that many more bytes came, or anything was answered.
    silence: Option<(Pin<Box<Sleep>>, usize)>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl Connection {
    /// An error once it is cut. Asked at reads and writes: while an answer waits to be read, and bytes of a next request are there,
    /// an HTTP/1 connection only writes.
    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(cx).is_ready() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check_cut(cx)?;
        let Some((silence, missing)) = &mut this.silence else { return Pin::new(&mut this.stream).poll_read(cx, buf) };
        if silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        *missing = missing.saturating_sub(buf.filled().len() - before);
        if *missing == 0 {
            this.silence = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.silence = None;
        self.check_cut(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.silence = None;
        self.check_cut(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
