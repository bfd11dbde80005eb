//! Connects a client: finds an address that accepts, shakes hands, checks who answers.

use super::{
    Expected, Identity, Tls,
    loaded::ALPN_H2,
    loaded::no_name,
    stream::{MaybeTls, described},
};
use crate::{coalesced::Coalesced, first_address::FirstAddress};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{codegen::Service, transport::Uri};

/// Who answered the last connection of a channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remote(Arc<Mutex<Option<Arc<Identity>>>>);

impl Remote {
    /// `None` before the first connection, and without TLS.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, identity: Identity) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(identity));
    }
}

/// Makes the connections of one channel, with TLS. Each new one uses the certificates of its time.
#[derive(Clone)]
pub(crate) struct Secured {
    to: FirstAddress,
    tls: Tls,
    expected: Expected,
    remote: Remote,
}

impl Secured {
    pub(crate) fn new(to: FirstAddress, tls: Tls, expected: Expected, remote: Remote) -> Self {
        Self { to, tls, expected, remote }
    }

    async fn connect(self) -> io::Result<MaybeTls<TcpStream>> {
        let stream = self.to.connect().await?;
        // Only the registry is a host; a name that is sent before the handshake can be read by everyone on the way.
        let name = match &self.expected {
            Expected::Registry(endpoint) => {
                ServerName::try_from(endpoint.host()).map_or_else(|_| no_name(), |name| name.to_owned())
            }
            Expected::Anyone | Expected::Peer(_) => no_name(),
        };
        let config = Arc::new(self.tls.client_config(self.expected));
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| closed(described(error)))?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(ALPN_H2) {
            return Err(io::Error::other("it speaks TLS, but no HTTP/2 (ALPN h2), which gRPC needs"));
        }
        let chain = session.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
        let identity = Identity::of_chain(chain).map_err(io::Error::other)?;
        let secured = MaybeTls::secure(stream, &self.tls, Some(&identity));
        self.remote.set(identity);
        Ok(secured)
    }
}

/// A server without TLS that closes the connection for the unknown bytes, read or unread.
fn closed(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => io::Error::new(
            error.kind(),
            "it closed the connection during the TLS handshake; does it speak TLS there, and is it not overloaded?",
        ),
        _ => error,
    }
}

impl Service<Uri> for Secured {
    type Response = TokioIo<Coalesced<MaybeTls<TcpStream>>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = self.clone().connect();
        Box::pin(async move { Ok(TokioIo::new(Coalesced::new(connecting.await?))) })
    }
}
