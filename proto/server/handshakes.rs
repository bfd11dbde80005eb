//! TLS handshakes of accepted connections. Each runs in the task of its connection, so that none holds up the next accept.

use super::socket::Socket;
use crate::{
    log_limit::{Line, LogLimit},
    metrics::Metrics,
    tls::{Identity, MaybeTls, Tls, described},
};
use metrics::Counter;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// First byte of a TLS connection: a record of the handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// What every HTTP/2 connection begins with (RFC 9113, section 3.4), and no method of HTTP/1 does.
const HTTP2_PREFACE: &[u8] = b"PRI";
/// How long a client that is refused may take to read why. One on the same continent needs a tenth of it.
const LINGER: Duration = Duration::from_secs(1);
/// Most bytes read of a client that is refused, so that the system does not discard the answer for the sake of unread bytes.
const LINGER_MAX_BYTES: u64 = 64 * 1024;
/// Lines a minute about failed handshakes, which anyone can repeat.
const FAILURES_LOGGED: u32 = 10;
/// What a client without TLS is told.
const SPEAKS_TLS: &str = "this port speaks TLS: use https:// and a certificate of the network (p2pctl and peerd: --tls-cert, --tls-key and --tls-ca; curl: --cert, --key and --cacert)";

/// Makes the TLS of a server's connections.
pub(super) struct Handshakes {
    tls: Tls,
    limit: Duration,
    log: LogLimit,
    done: Counter,
    failed: Counter,
}

impl Handshakes {
    /// Handshakes with the certificate of `tls`, which may take `limit` each.
    pub(super) fn new(tls: Tls, limit: Duration, metrics: &Metrics) -> Self {
        let counter = |outcome| {
            metrics.counter("p2pdi_tls_handshakes_total", "TLS handshakes of clients, by their outcome", &[("outcome", outcome)])
        };
        let (done, failed) = (counter("done"), counter("failed"));
        Self { tls, limit, log: LogLimit::new(FAILURES_LOGGED), done, failed }
    }

    /// The connection with TLS, and who the client is. `None`: it failed, which is logged, and the client was told if it reads.
    pub(super) async fn shake(&self, socket: Socket, address: SocketAddr) -> Option<(MaybeTls<Socket>, Option<Arc<Identity>>)> {
        match timeout(self.limit, self.accept(socket)).await {
            Ok(Ok(secured)) => {
                self.done.increment(1);
                Some(secured)
            }
            Ok(Err((error, socket))) => {
                self.report(address, &error);
                let _told = timeout(LINGER, linger(socket)).await;
                None
            }
            Err(_) => {
                self.report(address, &io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {:?}", self.limit)));
                None
            }
        }
    }

    async fn accept(&self, mut socket: Socket) -> Result<(MaybeTls<Socket>, Option<Arc<Identity>>), (io::Error, Socket)> {
        let mut first = [0; HTTP2_PREFACE.len()];
        match socket.tcp().peek(&mut first).await {
            Ok(0) => return Err((io::ErrorKind::UnexpectedEof.into(), socket)),
            Ok(_) if first[0] == HANDSHAKE_RECORD => {}
            Ok(read) => {
                let answer = refusal(HTTP2_PREFACE.starts_with(&first[..read]) && read > 1);
                let _told = socket.write_all(&answer).await;
                return Err((io::Error::new(io::ErrorKind::InvalidData, "it speaks no TLS"), socket));
            }
            Err(error) => return Err((error, socket)),
        }
        let Some(config) = self.tls.server_config() else {
            return Err((io::Error::other("this server has no certificate"), socket));
        };
        let accepted = TlsAcceptor::from(config).accept(socket).into_fallible().await;
        let stream = accepted.map_err(|(error, socket)| (described(error), socket))?;
        let chain =
            stream.get_ref().1.peer_certificates().map(|chain| chain.iter().map(|der| der.clone().into_owned()).collect());
        let identity = match chain.map(Identity::of_chain).transpose() {
            Ok(identity) => identity.map(Arc::new),
            // It was read before, by the check of the certificate.
            Err(error) => return Err((io::Error::other(error), stream.into_inner().0)),
        };
        Ok((MaybeTls::secure(stream, &self.tls, identity.as_deref()), identity))
    }

    /// Handshakes fail for reasons that the operator must know, such as an expired certificate, and at every scan of ports.
    fn report(&self, address: SocketAddr, error: &io::Error) {
        self.failed.increment(1);
        if let Some(Line { suppressed }) = self.log.line() {
            tracing::warn!(%address, %error, suppressed, "the TLS handshake with a client failed");
        }
    }
}

/// Logs a client that begins with TLS on a port without. It gets the answer 400 of HTTP/1.1.
pub(super) fn notice(first_bytes: &[u8], address: SocketAddr) {
    static LOG: LogLimit = LogLimit::new(1);
    if first_bytes.first() == Some(&HANDSHAKE_RECORD)
        && let Some(Line { suppressed }) = LOG.line()
    {
        tracing::warn!(%address, suppressed, "a client speaks TLS on this port, which has none; start this program with --tls-cert, --tls-key and --tls-ca, or the client without");
    }
}

/// What a client without TLS gets: an answer of HTTP/1.1, or a GOAWAY frame of HTTP/2 with the text as debug data (RFC 9113, sections
/// 6.5 and 6.8, error code INADEQUATE_SECURITY).
fn refusal(http2: bool) -> Vec<u8> {
    if !http2 {
        let length = SPEAKS_TLS.len() + 1;
        return format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{SPEAKS_TLS}\n"
        )
        .into_bytes();
    }
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: u8 = 7;
    const INADEQUATE_SECURITY: u32 = 0xc;
    let length = u32::try_from(SPEAKS_TLS.len() + 8).unwrap_or(0).to_be_bytes();
    let mut frames = SETTINGS.to_vec();
    frames.extend([length[1], length[2], length[3], GOAWAY, 0, 0, 0, 0, 0]);
    frames.extend(0_u32.to_be_bytes());
    frames.extend(INADEQUATE_SECURITY.to_be_bytes());
    frames.extend(SPEAKS_TLS.as_bytes());
    frames
}

/// Ends the connection so that the client can read what it was told: closing a socket with unread bytes resets it.
async fn linger(mut socket: Socket) -> io::Result<()> {
    socket.shutdown().await?;
    let mut rest = socket.take(LINGER_MAX_BYTES);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map(drop)
}
