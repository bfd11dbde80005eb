//! Serves until the stop.

use super::{
    Ending, Limits, Shutdown,
    accept::{Connection, accept},
    handshakes::Handshakes,
    held_body::hold,
};
use crate::{
    channel::{FRAME_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW},
    coalesced::Coalesced,
    metrics::Metrics,
    platform::descriptor_limit,
    tls::{Tls, TlsError},
};
use axum::extract::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout, timeout_at},
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

/// Largest header block of a request, in bytes: many times a cookie, a trace context and a deadline.
const HEADER_LIST_MAX_BYTES: u32 = 16 * 1024;
/// Streams of a connection that were reset before their request was handled; more end the connection. hyper's default, which its answer to
/// CVE-2023-44487 brought.
const PENDING_RESETS_MAX: usize = 20;
/// Streams of a connection that this server resets because of errors in them; more end the connection. A client with errors like these is
/// broken: less than hyper's 1,024.
const PROVOKED_RESETS_MAX: usize = 256;
/// Flow-control window for the requests of one connection, in bytes: the largest requests of many calls at once.
const REQUESTS_WINDOW: u32 = 4 * STREAM_WINDOW;
/// Most bytes of an answer that HTTP/2 keeps of one stream before it asks for more, beside one message. Little, since a stream that is not
/// read keeps them; enough that a frame is ready whenever the socket takes one.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// How often samples are folded into histograms: the exporter otherwise keeps them all until the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Descriptors that a server needs besides connections: open documents, the store, the runtime.
const DESCRIPTORS_SPARE: u64 = 256;
/// Connections whose clients are told of the stop at once; the next so many follow after [`SLICE_PAUSE`]. Their clients all go to other servers,
/// which meet a thousand a second, and not all in one moment.
const SLICE: usize = 100;
/// See [`SLICE`]. All are told within half of the grace period.
const SLICE_PAUSE: Duration = Duration::from_millis(100);
/// How long connections get to end after they were closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It has no certificate to show.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Serves `router` on `listener` until the stop of `shutdown`, then lets its callers and calls finish within the grace period and closes
/// the connections that are left. With `tls` every connection begins with a handshake. Every request carries its
/// [`Caller`](super::Caller).
///
/// # Errors
/// When the server cannot run at all; a connection that fails ends only itself.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    limits: &Limits,
    tls: Option<Tls>,
    metrics: &Metrics,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    if tls.as_ref().is_some_and(|tls| tls.identity().is_none()) {
        return Err(TlsError::NoCertificate.into());
    }
    let Shutdown { stop, closing, drained } = shutdown;
    let handshakes = tls.map(|tls| Arc::new(Handshakes::new(tls, limits.handshake, metrics)));
    let most = connections_max(limits.connections, descriptor_limit());
    let close_all = CancellationToken::new();
    // In a box, so that the listener can be closed before the connections end.
    let mut incoming = Box::pin(accept(listener, most, limits, metrics, &close_all));
    let http = http(limits);
    let resets = metrics.counter(
        "p2pdi_connections_reset_total",
        "Connections closed because their client reset calls as fast as it made them",
        &[],
    );
    let (idle, headers, age) = (limits.idle, limits.headers, limits.age);
    let serve_one = |connection: Connection, ending: CancellationToken| {
        let (http, router, handshakes, resets) = (http.clone(), router.clone(), handshakes.clone(), resets.clone());
        async move {
            let connection = match handshakes {
                Some(handshakes) => {
                    let secured = ending.run_until_cancelled(connection.secured(&handshakes)).await;
                    let Some(Some(secured)) = secured else { return };
                    secured
                }
                None => connection,
            };
            let (open, caller) = (Arc::clone(connection.open()), connection.caller().clone());
            let of_calls = Ending(ending.clone());
            // Each call counts from its request until the end of its answer.
            let service = service_fn(move |mut request: Request<Incoming>| {
                let mut call = caller.connection().begin_call(resets.clone());
                request.extensions_mut().insert(caller.clone());
                request.extensions_mut().insert(of_calls.clone());
                let answering = router.clone().call(request);
                async move {
                    let answer = answering.await;
                    call.answered();
                    answer.map(|answer| answer.map(|body| hold(body, call)))
                }
            });
            let io = TokioIo::new(Coalesced::new(connection));
            let mut served = pin!(http.serve_connection(io, service));
            tokio::select! {
                // An error ends this connection only.
                _ended = served.as_mut() => return,
                () = ending.cancelled() => {}
                () = open.unused(idle, headers) => {}
                () = sleep(jittered(age)) => {}
            }
            served.as_mut().graceful_shutdown();
            ending.cancel();
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
    let mut endings = HashMap::new();
    let mut upkeep = interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            Some(connection) = incoming.next() => {
                let ending = CancellationToken::new();
                let id = connections.spawn(serve_one(connection, ending.clone())).id();
                endings.insert(id, ending);
            }
            Some(ended) = connections.join_next_with_id() => {
                endings.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            _ = upkeep.tick() => metrics.upkeep(),
            () = stop.cancelled() => break,
        }
    }
    drop(incoming);
    let deadline = Instant::now() + limits.grace;
    // What is not drained in time is told so, and has ended or not below.
    let _drained = timeout_at(deadline, drained).await;
    closing.cancel();
    let ended = async {
        end_in_slices(endings.into_values().collect(), limits.grace / 2).await;
        all_ended(&mut connections).await;
    };
    if timeout_at(deadline, ended).await.is_ok() {
        return Ok(());
    }
    tracing::warn!(grace = ?limits.grace, "calls are still under way after the grace period; closing their connections");
    close_all.cancel();
    // What does not end in time is aborted.
    let _ended = timeout(CLOSE_TIMEOUT, all_ended(&mut connections)).await;
    Ok(())
}

/// A time limit give or take a tenth, so that connections made at the same time do not all end at the same time.
fn jittered(limit: Duration) -> Duration {
    // Without randomness from the system it is the limit itself.
    let random = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    limit.mul_f64(0.9 + random / 5.0)
}

/// How connections speak HTTP/1 and HTTP/2.
fn http(limits: &Limits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.headers);
    http.http2()
        // Streams that the client reset before their request was handled, and errors that it provokes: past so many the connection ends.
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(PROVOKED_RESETS_MAX)
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

/// Tells the clients of all connections to go on elsewhere, within this time.
async fn end_in_slices(endings: Vec<CancellationToken>, within: Duration) {
    let slices = u32::try_from(endings.len().div_ceil(SLICE)).unwrap_or(u32::MAX);
    let pause = SLICE_PAUSE.min(within / slices.max(1));
    for (index, slice) in endings.chunks(SLICE).enumerate() {
        if index > 0 {
            sleep(pause).await;
        }
        slice.iter().for_each(CancellationToken::cancel);
    }
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
        sync::Semaphore,
    };

    /// Longest wait for what happens at once.
    const PATIENCE: Duration = Duration::from_secs(20);
    const IDLE: Duration = Duration::from_millis(300);
    const REQUEST: &[u8] = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";

    /// A server that answers after three times [`IDLE`].
    async fn start(limits: Limits) -> (std::net::SocketAddr, CancellationToken) {
        let slow = || async {
            sleep(3 * IDLE).await;
            "done"
        };
        serving(limits, Router::new().route("/slow", get(slow))).await
    }

    async fn serving(limits: Limits, router: Router) -> (std::net::SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let stopped = stop.clone();
        tokio::spawn(async move { serve(listener, router, &limits, None, &Metrics::default(), Shutdown::at(stopped)).await });
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
        // A call that is answered: one that never makes any has less time, and is not told.
        stream.write_all(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a").await.unwrap();
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
        let (address, stop) = start(Limits { connections: 64, connections_per_address: Some(64), ..Limits::default() }).await;
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

    #[tokio::test]
    async fn one_address_has_its_share_of_connections_and_others_get_in() {
        let limits = Limits { connections: 64, connections_per_address: Some(8), ..Limits::default() };
        let (held, release) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let (begun, released) = (Arc::clone(&held), release.clone());
        let hold = || async move {
            begun.add_permits(1);
            released.cancelled().await;
        };
        let (address, stop) = serving(limits, Router::new().route("/slow", get(hold))).await;
        let from = |last| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, last], 0).into()).unwrap();
            socket.connect(address)
        };
        // All busy: none can be closed for another one.
        let mut busy = Vec::new();
        for _ in 0..8 {
            let mut stream = from(7).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            busy.push(stream);
            // With nearly its share open, those of a client that carry no call are closed.
            timeout(PATIENCE, held.acquire()).await.expect("it is called").unwrap().forget();
        }
        let mut ninth = from(7).await.unwrap();
        let mut answer = [0; 12];
        let refused = timeout(PATIENCE, async {
            let _written = ninth.write_all(REQUEST).await;
            ninth.read_exact(&mut answer).await
        });
        assert!(refused.await.expect("it is closed").is_err());
        let mut other = from(8).await.unwrap();
        other.write_all(REQUEST).await.unwrap();
        timeout(PATIENCE, held.acquire()).await.expect("it is called").unwrap().forget();
        release.cancel();
        for stream in busy.iter_mut().chain([&mut other]) {
            timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an answer").unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn a_connection_past_its_age_ends_after_its_call() {
        let age = IDLE;
        let (address, stop) = start(Limits { age, ..Limits::default() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let (mut answer, started) = (String::new(), Instant::now());
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
        assert!(answer.ends_with("done"), "the call goes on: {answer}");
        assert!(started.elapsed() >= 3 * IDLE);
        assert!((0..1_000).all(|_| (age.mul_f64(0.89)..age.mul_f64(1.11)).contains(&jittered(age))));
        stop.cancel();
    }

    #[tokio::test]
    async fn the_headers_of_the_first_request_have_a_time_limit_in_http2_too() {
        let (address, stop) = start(Limits { headers: IDLE, ..Limits::default() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The preface, and the beginning of the headers of a stream.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x40\x01\x04\0\0\0\x01").await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let dripping = tokio::spawn(async move {
            while write.write_all(b"\x83").await.is_ok() {
                sleep(IDLE / 10).await;
            }
        });
        let mut answer = Vec::new();
        let _reset = timeout(PATIENCE, read.read_to_end(&mut answer)).await.expect("it is closed");
        dripping.abort();
        stop.cancel();
    }

    #[tokio::test]
    async fn a_caller_makes_its_next_calls_after_the_stop_until_the_server_is_drained() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let [stop, closing, drained] = [(); 3].map(|()| CancellationToken::new());
        let done = drained.clone();
        let shutdown = Shutdown::when_drained(stop.clone(), closing.clone(), async move { done.cancelled().await });
        let router = Router::new().route("/", get(|| async { "done" }));
        let limits = Limits { grace: PATIENCE, ..Limits::default() };
        let server = tokio::spawn(async move { serve(listener, router, &limits, None, &Metrics::default(), shutdown).await });
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = [0; 1024];
        for stopped in [false, true, true] {
            if stopped && !stop.is_cancelled() {
                stop.cancel();
                let refused = async { while TcpStream::connect(address).await.is_ok() {} };
                timeout(PATIENCE, refused).await.expect("no more connections");
            }
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let read = timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer").unwrap();
            assert!(answer[..read].ends_with(b"done"), "{:?}", answer[..read].escape_ascii());
        }
        assert!(!closing.is_cancelled());
        drained.cancel();
        assert_eq!(timeout(PATIENCE, stream.read(&mut answer)).await.expect("it is closed").unwrap(), 0);
        timeout(PATIENCE, server).await.expect("it ends").unwrap().unwrap();
        assert!(closing.is_cancelled());
    }

    #[test]
    fn some_descriptors_are_left_for_other_work() {
        assert_eq!(connections_max(10_000, None), 10_000);
        assert_eq!(connections_max(10_000, Some(20_000)), 10_000);
        assert_eq!(connections_max(10_000, Some(1_024)), 768);
        assert_eq!(connections_max(10_000, Some(256)), 128);
    }

    #[tokio::test(start_paused = true)]
    async fn many_connections_end_in_slices_within_half_of_the_grace_period_and_few_at_once() {
        for (count, within, expected) in [
            (SLICE, Duration::from_secs(5), Duration::ZERO),
            (10 * SLICE, Duration::from_secs(5), 9 * SLICE_PAUSE),
            (1_000 * SLICE, Duration::from_secs(5), Duration::from_secs(5)),
        ] {
            let endings: Vec<_> = (0..count).map(|_| CancellationToken::new()).collect();
            let began = Instant::now();
            let ended = end_in_slices(endings.clone(), within);
            let first = async {
                endings[0].cancelled().await;
                began.elapsed()
            };
            let ((), first) = tokio::join!(ended, first);
            assert!(endings.iter().all(CancellationToken::is_cancelled) && first.is_zero());
            let took = began.elapsed();
            assert!(took <= expected + SLICE_PAUSE && took + SLICE_PAUSE >= expected, "{count}: {took:?}");
        }
    }
}
