//! A connection with TLS or without.

use super::{Serial, Tls, text};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

/// A connection with TLS or without. Bytes without TLS pass through untouched.
pub(crate) enum MaybeTls<S> {
    /// Without.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only servers take connections of both kinds"))]
    Plain(S),
    /// With. In a box: its buffers and keys are ten times as large as a socket.
    Tls(Box<Secure<S>>),
}

/// A connection with TLS, which ends when the certificate of the other side is revoked.
pub(crate) struct Secure<S> {
    stream: TlsStream<S>,
    /// Completes then. `None` once it has, and for a client without a certificate.
    revoked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_revoked: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> MaybeTls<S> {
    /// With TLS; `serial`: that of the other side's certificate, if it showed one.
    pub(crate) fn secure(stream: impl Into<TlsStream<S>>, tls: &Tls, serial: Option<&Serial>) -> Self {
        let revoked = serial.map(|serial| Box::pin(tls.until_revoked(serial)) as Pin<Box<dyn Future<Output = ()> + Send>>);
        Self::Tls(Box::new(Secure { stream: stream.into(), revoked, is_revoked: false }))
    }
}

impl<S> Secure<S> {
    /// The stream, as long as the certificate is not revoked. Checked at reads and at writes: a connection that only writes ends, too.
    fn unrevoked(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TlsStream<S>>>
    where
        S: Unpin,
    {
        if let Some(revoked) = &mut self.revoked
            && revoked.as_mut().poll(cx).is_ready()
        {
            (self.revoked, self.is_revoked) = (None, true);
        }
        if self.is_revoked {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the certificate of the other side was revoked"));
        }
        Ok(Pin::new(&mut self.stream))
    }
}

/// A failure of TLS as an error of the connection, with a text for people.
pub(crate) fn described(error: io::Error) -> io::Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) => io::Error::new(error.kind(), text::describe(tls)),
        None => error,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MaybeTls<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            // The answer to a client's certificate arrives after the handshake (RFC 8446, section 4.4.2.4).
            Self::Tls(secure) => secure.unrevoked(cx)?.poll_read(cx, buf).map_err(described),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(secure) => secure.unrevoked(cx)?.poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(secure) => secure.unrevoked(cx)?.poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(secure) => secure.stream.is_write_vectored(),
        }
    }
}
