//! Serves until the stop.

use super::{
    Limits,
    accept::{Connection, accept},
    call_count::count_call,
    handshakes::Handshakes,
};
use crate::{
    channel::{FRAME_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW},
    metrics::Metrics,
    platform::descriptor_limit,
    tls::{Tls, TlsError},
};
use axum::{body::Body, extract::Request, middleware};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use std::{io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Largest header block of a request, in bytes: many times a cookie, a trace context and a deadline.
const HEADER_LIST_MAX_BYTES: u32 = 16 * 1024;
/// Flow-control window for the requests of one connection, in bytes: the largest requests of many calls at once.
const REQUESTS_WINDOW: u32 = 4 * STREAM_WINDOW;
/// Most bytes of an answer that HTTP/2 keeps of one stream before it asks for more, beside one message. Little, since a stream that is not
/// read keeps them; enough that a frame is ready whenever the socket takes one.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// How often samples are folded into histograms: the exporter otherwise keeps them all until the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Descriptors that a server needs besides connections: open documents, the store, the runtime.
const DESCRIPTORS_SPARE: u64 = 256;
/// How long connections get to end after they were closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its listener does not work.
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// It has no certificate to show.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is said of a server without TLS that others than its own machine can reach.
pub const OPEN_WITHOUT_TLS: &str =
    "no TLS: whoever reaches this port can read every message, and take every name; give --tls-cert, --tls-key and --tls-ca";

/// Serves `router` on `listener` until `stop`, then lets calls finish within the grace period and closes the connections that are
/// left. With `tls` every connection begins with a handshake. Every request carries its [`Caller`](super::Caller).
///
/// # Errors
/// When the server cannot run at all; a connection that fails ends only itself.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    limits: &Limits,
    tls: Option<Tls>,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    match &tls {
        Some(tls) if tls.identity().is_none() => return Err(TlsError::NoCertificate.into()),
        None if !address.ip().to_canonical().is_loopback() => {
            tracing::warn!(%address, "{OPEN_WITHOUT_TLS}");
        }
        _ => {}
    }
    let handshakes = tls.map(|tls| Arc::new(Handshakes::new(tls, limits.handshake, metrics)));
    let most = connections_max(limits.connections, descriptor_limit());
    let close_all = CancellationToken::new();
    // In a box, so that the listener can be closed before the connections end.
    let mut incoming = Box::pin(accept(listener, most, limits, metrics, &close_all));
    let http = http(limits);
    let router = router.layer(middleware::from_fn(count_call));
    let idle = limits.idle;
    let serve_one = |connection: Connection| {
        let (http, router, stop, handshakes) = (http.clone(), router.clone(), stop.clone(), handshakes.clone());
        async move {
            let connection = match handshakes {
                Some(handshakes) => {
                    let secured = stop.run_until_cancelled(connection.secured(&handshakes)).await;
                    let Some(Some(secured)) = secured else { return };
                    secured
                }
                None => connection,
            };
            let (open, caller) = (Arc::clone(connection.open()), connection.caller().clone());
            let service = router.map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(caller.clone());
                request.map(Body::new)
            });
            let mut served = pin!(http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service)));
            tokio::select! {
                // An error ends this connection only.
                _ended = served.as_mut() => return,
                () = stop.cancelled() => {}
                () = open.unused(idle) => {}
            }
            served.as_mut().graceful_shutdown();
            tokio::select! {
                _ended = served.as_mut() => return,
                () = open.evicted() => {}
            }
            if timeout(CLOSE_TIMEOUT, served.as_mut()).await.is_ok() {
                return;
            }
            // The client does not answer.
            if open.idle_since().is_some() {
                open.close();
            }
            let _ended = served.await;
        }
    };
    let mut connections = JoinSet::new();
    let mut upkeep = interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            Some(connection) = incoming.next() => drop(connections.spawn(serve_one(connection))),
            Some(_ended) = connections.join_next() => {}
            _ = upkeep.tick() => metrics.upkeep(),
            () = stop.cancelled() => break,
        }
    }
    drop(incoming);
    if timeout(limits.grace, all_ended(&mut connections)).await.is_ok() {
        return Ok(());
    }
    tracing::warn!(grace = ?limits.grace, "calls are still under way after the grace period; closing their connections");
    close_all.cancel();
    // What does not end in time is aborted.
    let _ended = timeout(CLOSE_TIMEOUT, all_ended(&mut connections)).await;
    Ok(())
}

/// How connections speak HTTP/1 and HTTP/2.
fn http(limits: &Limits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    // With a timer the headers of a request have a time limit (30 s).
    http.http1().timer(TokioTimer::new());
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(REQUESTS_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(HEADER_LIST_MAX_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    http
}

async fn all_ended<T: 'static>(connections: &mut JoinSet<T>) {
    while connections.join_next().await.is_some() {}
}

/// Most connections at once: as many as are allowed, and no more than leaves descriptors for everything else. The program's `main`
/// raises the limit of descriptors; a library does not.
fn connections_max(allowed: usize, descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return allowed };
    let usable = descriptors - DESCRIPTORS_SPARE.min(descriptors / 2);
    let most = usize::try_from(usable).unwrap_or(usize::MAX).min(allowed);
    if most < allowed {
        tracing::warn!(descriptors, allowed, most, "fewer files may be open than connections are allowed; raise `ulimit -Hn`");
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::{Instant, sleep},
    };

    /// Longest wait for what happens at once.
    const PATIENCE: Duration = Duration::from_secs(20);
    const IDLE: Duration = Duration::from_millis(300);
    const REQUEST: &[u8] = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";

    /// A server that answers after three times [`IDLE`].
    async fn start(limits: Limits) -> (std::net::SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let slow = || async {
            sleep(3 * IDLE).await;
            "done"
        };
        let (router, stopped) = (Router::new().route("/slow", get(slow)), stop.clone());
        tokio::spawn(async move { serve(listener, router, &limits, None, &Metrics::default(), stopped).await });
        (address, stop)
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_and_one_with_a_call_is_kept() {
        let (address, stop) = start(Limits { idle: IDLE, ..Limits::default() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let (mut answer, started) = (String::new(), Instant::now());
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
        assert!(answer.ends_with("done"), "{answer}");
        assert!(started.elapsed() >= 4 * IDLE, "it is idle only from the end of its call on");
        stop.cancel();
    }

    #[tokio::test]
    async fn an_idle_http2_client_is_told_before_its_connection_is_closed() {
        const GOAWAY: u8 = 7;
        let (address, stop) = start(Limits { idle: IDLE, ..Limits::default() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let goaway = async {
            loop {
                // Length, type, flags and stream (RFC 9113, section 4.1).
                let mut header = [0; 9];
                stream.read_exact(&mut header).await.unwrap();
                if header[3] == GOAWAY {
                    return;
                }
                let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
                stream.read_exact(&mut vec![0; length]).await.unwrap();
            }
        };
        timeout(PATIENCE, goaway).await.expect("a GOAWAY frame");
        stop.cancel();
    }

    #[tokio::test]
    async fn a_new_caller_gets_in_while_others_hold_more_idle_connections_than_are_allowed() {
        let (address, stop) = start(Limits { connections: 64, ..Limits::default() }).await;
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(REQUEST).await.unwrap();
        let mut held = Vec::new();
        let mut refused = 0;
        for _ in 0..300 {
            held.push(TcpStream::connect(address).await.unwrap());
            if held.len() % 4 == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        let mut answer = String::new();
        let called = async {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = [REQUEST.trim_ascii_end(), b"\r\nconnection: close\r\n\r\n"].concat();
                if stream.write_all(&request).await.is_ok() && stream.read_to_string(&mut answer).await.is_ok_and(|read| read > 0)
                {
                    return;
                }
                refused += 1;
            }
        };
        timeout(PATIENCE, called).await.expect("an answer");
        assert!(answer.ends_with("done"), "{answer}");
        let mut first = [0; 12];
        timeout(PATIENCE, busy.read_exact(&mut first)).await.expect("an answer").unwrap();
        assert_eq!(&first, b"HTTP/1.1 200", "a connection with a call is not closed");
        assert!(refused < 20, "{refused}");
        stop.cancel();
    }

    #[test]
    fn some_descriptors_are_left_for_other_work() {
        assert_eq!(connections_max(10_000, None), 10_000);
        assert_eq!(connections_max(10_000, Some(20_000)), 10_000);
        assert_eq!(connections_max(10_000, Some(1_024)), 768);
        assert_eq!(connections_max(10_000, Some(256)), 128);
    }
}
