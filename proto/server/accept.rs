//! Accepting connections, within limits.

use super::{
    Caller, Limits,
    handshakes::{self, Handshakes},
    open_connections::{ClientConnection, ClientConnections, OpenConnection, OpenConnections},
    socket::Socket,
};
use crate::{
    endpoint::client_network,
    log_limit::{Line, LogLimit},
    metrics::Metrics,
    platform::{is_shortage, limit_unsent},
    tls::MaybeTls,
};
use metrics::Counter;
use std::{
    io,
    net::{IpAddr, SocketAddr},
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
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Pause after a failed accept, such as "too many open files": without it the loop would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// When fewer than this part of the connections are left, that many idle ones are closed, so that a new caller always gets in. The same
/// holds for those of one client.
const RESERVE: usize = 16;
/// One client may have one in so many of the connections, unless told otherwise.
const ADDRESS_SHARE: usize = 4;
/// Most bytes that the kernel keeps of a connection and has not sent: enough that the link never runs dry while the server is woken, little
/// enough that a short message does not wait long behind them.
const UNSENT_MAX_BYTES: u32 = 128 * 1024;
/// Bytes that an HTTP/2 client sends first (RFC 9113, section 3.4). Until they are there the HTTP server does not know the version and
/// waits without a time limit; for the headers of an HTTP/1 request it has one.
const PREFACE_BYTES: usize = 24;

/// The connections of `listener`, at most `most` at once. `close_all` closes them.
pub(super) fn accept(
    listener: TcpListener,
    most: usize,
    limits: &Limits,
    metrics: &Metrics,
    close_all: &CancellationToken,
) -> impl Stream<Item = Connection> + use<> {
    let of_client = limits.connections_per_address.unwrap_or(most / ADDRESS_SHARE).clamp(1, most);
    let mut acceptor = Acceptor {
        clients: Arc::new(ClientConnections::new(of_client)),
        client_reserve: (of_client / RESERVE).max(1),
        permits: Arc::new(Semaphore::new(most)),
        reserve: most / RESERVE,
        open: OpenConnections::default(),
        eviction_log: LogLimit::new(1),
        client_log: LogLimit::new(1),
        failure_log: LogLimit::new(1),
        first_byte: limits.first_byte,
        close_all: close_all.clone(),
        refused: metrics.counter(
            "p2pdi_connections_refused_total",
            "Connections closed because as many were open as may be, in all or for one address",
            &[],
        ),
        evicted: metrics.counter(
            "p2pdi_connections_evicted_total",
            "Idle connections closed because the server ran out of connections or descriptors",
            &[],
        ),
        accepted: metrics.counter("p2pdi_connections_total", "Connections accepted", &[]),
    };
    async_stream::stream! {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    if let Some(connection) = acceptor.admit(stream, address) {
                        yield connection;
                    }
                }
                Err(error) => {
                    acceptor.failed(&error);
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

struct Acceptor {
    clients: Arc<ClientConnections>,
    /// With fewer further connections allowed to a client, idle ones of it are closed.
    client_reserve: usize,
    permits: Arc<Semaphore>,
    /// With fewer permits left, idle connections are closed.
    reserve: usize,
    open: OpenConnections,
    eviction_log: LogLimit,
    client_log: LogLimit,
    /// Callers that open many connections can repeat a failure.
    failure_log: LogLimit,
    first_byte: Duration,
    close_all: CancellationToken,
    refused: Counter,
    evicted: Counter,
    accepted: Counter,
}

impl Acceptor {
    /// `None`: the connection is closed, because the limit is reached, or because the other side has closed it already.
    fn admit(&mut self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        if self.permits.available_permits() < self.reserve {
            self.evict("nearly as many connections are open as may be");
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.refused.increment(1);
            self.evict("as many connections are open as may be");
            return None;
        };
        let network = client_network(address.ip());
        let Some((of_client, further)) = self.clients.begin(network) else {
            self.refused.increment(1);
            self.evict_of(network);
            return None;
        };
        if further < self.client_reserve {
            self.evict_of(network);
        }
        self.accepted.increment(1);
        // Without TCP_NODELAY a small answer could wait for the other side's delayed acknowledgement.
        let local_address = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
            Ok(local_address) => local_address,
            Err(error) => {
                tracing::debug!(%error, %address, "a connection was closed by the other side at once");
                return None;
            }
        };
        limit_unsent(&stream, UNSENT_MAX_BYTES);
        let close = self.close_all.child_token();
        let open = Arc::new(OpenConnection::new(network, close.clone()));
        self.open.add(&open);
        Some(Connection {
            first_bytes: Some((Box::pin(sleep(self.first_byte)), PREFACE_BYTES)),
            first_byte: self.first_byte,
            stream: MaybeTls::Plain(Socket::new(stream, Arc::clone(&open))),
            caller: Caller::new(address, local_address, open),
            close: Box::pin(close.cancelled_owned()),
            _permit: permit,
            _of_client: of_client,
        })
    }

    /// Handles a failed accept.
    fn failed(&mut self, error: &io::Error) {
        if is_shortage(error) {
            self.evict("too many open files; raise `ulimit -n`");
        } else if let Some(Line { suppressed }) = self.failure_log.line() {
            tracing::warn!(%error, suppressed, "cannot accept a connection");
        }
    }

    /// Makes room for new callers: closes the connections that have carried no call for longest.
    fn evict(&mut self, reason: &str) {
        let evicted = self.open.evict(self.reserve.max(1), None);
        self.evicted.increment(evicted as u64);
        if let Some(Line { suppressed }) = self.eviction_log.line() {
            tracing::warn!(suppressed, "{reason}: closing the connections that carry no call, those idle longest first");
        }
    }

    /// Makes room for further connections of one client, among those it has.
    fn evict_of(&mut self, network: IpAddr) {
        let evicted = self.open.evict(self.client_reserve, Some(network));
        self.evicted.increment(evicted as u64);
        if let Some(Line { suppressed }) = self.client_log.line() {
            tracing::warn!(client = %network, suppressed, "one address has nearly its share of the connections open, or all of it: closing those that carry no call");
        }
    }
}

/// An accepted connection: counted, closed when its first bytes take too long, when the server's grace period ends, or when a call asks
/// for it ([`Caller::disconnect`]).
pub(super) struct Connection {
    stream: MaybeTls<Socket>,
    caller: Caller,
    first_byte: Duration,
    /// The time limit, and how many bytes are still to arrive within it. `None` once they have, or anything was answered.
    first_bytes: Option<(Pin<Box<Sleep>>, usize)>,
    close: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
    _of_client: ClientConnection,
}

impl Connection {
    /// The calls it carries.
    pub(super) fn open(&self) -> &Arc<OpenConnection> {
        self.caller.connection()
    }

    /// The caller of its calls.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The same with TLS. `None`: the handshake failed, or the connection was to be closed meanwhile.
    pub(super) async fn secured(mut self, handshakes: &Handshakes) -> Option<Self> {
        let MaybeTls::Plain(socket) = self.stream else { return Some(self) };
        let (open, address) = (Arc::clone(self.caller.connection()), self.caller.address());
        let (stream, identity) = tokio::select! {
            shaken = handshakes.shake(socket, address) => shaken?,
            () = open.evicted() => return None,
            () = self.close.as_mut() => return None,
        };
        let first_bytes = Some((Box::pin(sleep(self.first_byte)), PREFACE_BYTES));
        Some(Self { stream, caller: self.caller.with_identity(identity), first_bytes, ..self })
    }

    /// An error once the connection is to be closed. Checked at reads and at writes: an HTTP/1 connection whose answer waits to be
    /// read, while bytes of the next request are there already, only writes.
    fn check_close(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.close.as_mut().poll(cx).is_ready() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check_close(cx)?;
        let Some((limit, missing)) = &mut this.first_bytes else { return Pin::new(&mut this.stream).poll_read(cx, buf) };
        if limit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if *missing == PREFACE_BYTES && matches!(this.stream, MaybeTls::Plain(_)) {
            handshakes::notice(read, this.caller.address());
        }
        *missing = missing.saturating_sub(read.len());
        if *missing == 0 {
            this.first_bytes = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.first_bytes = None;
        self.check_close(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_close(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.first_bytes = None;
        self.check_close(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
