//! A connection with TLS or without.

use super::{Identity, Serial, Tls, text};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};
use tokio_rustls::TlsStream;

/// How long after the end of the other side's certificate its connection ends. Whoever renewed the certificate makes a new one; clocks
/// differ by less, or connections could not be made either.
const AFTER_END: Duration = Duration::from_secs(5 * 60);
/// Longest sleep until then: sleeps stand still while the machine is suspended.
const SLEEP_MAX: Duration = Duration::from_secs(5 * 60);

/// A connection with TLS or without. Bytes without TLS pass through untouched.
pub(crate) enum MaybeTls<S> {
    /// Without.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only servers take connections of both kinds"))]
    Plain(S),
    /// With. In a box: its buffers and keys are ten times as large as a socket.
    Tls(Box<Secure<S>>),
}

/// A connection with TLS, which ends when the certificate of the other side is revoked, or some minutes after its end.
pub(crate) struct Secure<S> {
    stream: TlsStream<S>,
    /// Completes then, with why. `None` once it has, and for a client without a certificate.
    refused: Option<Pin<Box<dyn Future<Output = &'static str> + Send>>>,
    refused_for: Option<&'static str>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> MaybeTls<S> {
    /// With TLS; `identity`: what the other side's certificate says, if it showed one.
    pub(crate) fn secure(stream: impl Into<TlsStream<S>>, tls: &Tls, identity: Option<&Identity>) -> Self {
        let refused = identity.map(|identity| {
            let refused = until_refused(tls, identity.serial(), identity.not_after());
            Box::pin(refused) as Pin<Box<dyn Future<Output = &'static str> + Send>>
        });
        Self::Tls(Box::new(Secure { stream: stream.into(), refused, refused_for: None }))
    }
}

/// Completes once an open connection with the holder of this certificate ends. Says why.
fn until_refused(tls: &Tls, serial: &Serial, not_after: SystemTime) -> impl Future<Output = &'static str> + Send + use<> {
    let revoked = tls.until_revoked(serial);
    async move {
        tokio::select! {
            () = revoked => "the certificate of the other side was revoked",
            () = until_after(not_after) => "the certificate of the other side has ended",
        }
    }
}

/// Completes [`AFTER_END`] after `time`. Looks at the clock again and again: it can be set, or the machine be suspended.
async fn until_after(time: SystemTime) {
    loop {
        let since = SystemTime::now().duration_since(time);
        let left = match since {
            Ok(since) => AFTER_END.saturating_sub(since),
            Err(before) => before.duration().saturating_add(AFTER_END),
        };
        if left.is_zero() {
            return;
        }
        sleep(left.min(SLEEP_MAX)).await;
    }
}

impl<S> Secure<S> {
    /// The stream, as long as the certificate is accepted. Checked at reads and at writes: a connection that only writes ends, too.
    fn accepted(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TlsStream<S>>>
    where
        S: Unpin,
    {
        if let Some(refused) = &mut self.refused
            && let Poll::Ready(why) = refused.as_mut().poll(cx)
        {
            (self.refused, self.refused_for) = (None, Some(why));
        }
        match self.refused_for {
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)),
            None => Ok(Pin::new(&mut self.stream)),
        }
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
            Self::Tls(secure) => secure.accepted(cx)?.poll_read(cx, buf).map_err(described),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(secure) => secure.accepted(cx)?.poll_write(cx, buf),
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
            Self::Tls(secure) => secure.accepted(cx)?.poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(secure) => secure.stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{ClientAuth, Pem};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use tokio::time::timeout;

    fn tls() -> Tls {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem().into_bytes();
        Tls::from_pem(Pem { cert: None, key: None, ca }, ClientAuth::Required).unwrap()
    }

    #[tokio::test]
    async fn a_connection_ends_some_minutes_after_the_certificate_and_at_its_revocation() {
        let (tls, serial, patience) = (tls(), Serial::new(&[7; 16]), Duration::from_secs(20));
        let now = SystemTime::now();
        let ended = until_refused(&tls, &serial, now - AFTER_END + Duration::from_millis(20));
        assert!(timeout(patience, ended).await.unwrap().contains("has ended"));
        let mut valid = Box::pin(until_refused(&tls, &serial, now));
        assert!(timeout(Duration::from_millis(50), &mut valid).await.is_err(), "clocks differ by minutes");
        tls.set_revoked([serial.clone()]);
        assert!(timeout(patience, valid).await.unwrap().contains("revoked"));
    }
}
