//! Accepting connections, within limits.

use super::{Caller, Limits};
use crate::{
    log_limit::{Line, LogLimit},
    metrics::Metrics,
};
use metrics::Counter;
use std::{
    io,
    net::SocketAddr,
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
use tonic::transport::server::Connected;

/// Pause after a failed accept, such as "too many open files": without it the loop would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Bytes that an HTTP/2 client sends first (RFC 9113, section 3.4). Until they are there the HTTP server does not know the version and
/// waits without a time limit; for the headers of an HTTP/1 request it has one.
const PREFACE_BYTES: usize = 24;

/// The connections of `listener`, no more at once than the limit. `close_all` closes them.
pub(super) fn accept(
    listener: TcpListener,
    limits: &Limits,
    metrics: &Metrics,
    close_all: &CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let acceptor = Acceptor {
        permits: Arc::new(Semaphore::new(limits.connections)),
        first_byte: limits.first_byte,
        close_all: close_all.clone(),
        refused: metrics.counter(
            "p2pdi_connections_refused_total",
            "Connections closed because as many were open as may be",
            &[],
        ),
        accepted: metrics.counter("p2pdi_connections_total", "Connections accepted", &[]),
    };
    let log = LogLimit::new(1);
    async_stream::stream! {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    if let Some(connection) = acceptor.admit(stream, address) {
                        yield Ok(connection);
                    }
                }
                Err(error) => {
                    // Callers that open many connections can repeat it.
                    if let Some(Line { suppressed }) = log.line() {
                        tracing::warn!(%error, suppressed, "cannot accept a connection");
                    }
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

struct Acceptor {
    permits: Arc<Semaphore>,
    first_byte: Duration,
    close_all: CancellationToken,
    refused: Counter,
    accepted: Counter,
}

impl Acceptor {
    /// `None`: the connection is closed, because the limit is reached, or because the other side has closed it already.
    fn admit(&self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.refused.increment(1);
            return None;
        };
        self.accepted.increment(1);
        // Without TCP_NODELAY a small answer could wait for the other side's delayed acknowledgement.
        let local_address = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
            Ok(local_address) => local_address,
            Err(error) => {
                tracing::debug!(%error, %address, "a connection was closed by the other side at once");
                return None;
            }
        };
        let close = self.close_all.child_token();
        Some(Connection {
            first_bytes: Some((Box::pin(sleep(self.first_byte)), PREFACE_BYTES)),
            caller: Caller::new(address, local_address, close.clone()),
            stream,
            close: Box::pin(close.cancelled_owned()),
            _permit: permit,
        })
    }
}

/// An accepted connection: counted, closed when its first bytes take too long, when the server's grace period ends, or when a call asks
/// for it ([`Caller::disconnect`]).
pub(super) struct Connection {
    stream: TcpStream,
    caller: Caller,
    /// The time limit, and how many bytes are still to arrive within it. `None` once they have, or anything was answered.
    first_bytes: Option<(Pin<Box<Sleep>>, usize)>,
    close: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl Connection {
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
        *missing = missing.saturating_sub(buf.filled().len() - before);
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
