//! Who calls: the other end of the connection that a call came on.

use super::open_connections::OpenConnection;
use crate::{status::Reason, tls::Identity};
use http::Extensions;
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock, atomic::Ordering},
};
use tokio::time::Instant;

/// The other end of a connection. Each accepted connection has one, and every call on it carries a clone in the extensions of its
/// request. This is the only type that knows who calls: handlers of gRPC and HTTP calls read it with [`Caller::of`], and what a
/// connection proves about its caller later, such as the name in a certificate, is added here.
#[derive(Debug, Clone)]
pub struct Caller {
    address: SocketAddr,
    local_address: SocketAddr,
    connection: Arc<OpenConnection>,
    identity: Option<Arc<Identity>>,
    /// Why the answer of this call ended early.
    ended_for: Arc<OnceLock<Reason>>,
}

impl Caller {
    pub(super) fn new(address: SocketAddr, local_address: SocketAddr, connection: Arc<OpenConnection>) -> Self {
        Self { address, local_address, connection, identity: None, ended_for: Arc::default() }
    }

    /// The caller, of whom its checked certificate says this.
    pub(super) fn with_identity(self, identity: Option<Arc<Identity>>) -> Self {
        Self { identity, ..self }
    }

    pub(super) fn connection(&self) -> &Arc<OpenConnection> {
        &self.connection
    }

    /// The caller of a request, by [`tonic::Request::extensions`], [`http::Request::extensions`] or the `extensions` of
    /// [`http::request::Parts`]. `None`: the request did not come over a connection of [`serve`](super::serve()), but from inside the
    /// process.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The address and port the caller connects from: the host itself, or a proxy or NAT before it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address and port of this server that the caller connected to, never a wildcard.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Whether the caller is on this machine: it connects over loopback, or from the same address that it connects to, as when a
    /// server listens on the address of its network only.
    pub fn is_local_machine(&self) -> bool {
        let (from, to) = (self.address.ip().to_canonical(), self.local_address.ip().to_canonical());
        from.is_loopback() || from == to
    }

    /// What the caller's certificate says, which was checked when the connection was made. `None`: it showed none, or this port has no
    /// TLS.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// Identifies the connection; unique in the process. Calls with the same number share their connection.
    pub fn connection_id(&self) -> u64 {
        self.connection.id()
    }

    /// Waits until fewer than `most` bytes that calls gave to the connection are unwritten, and counts `bytes` more, which the caller gives
    /// to it next. For answers of many bytes: without it each stream of the connection has a buffer of its own.
    pub async fn room(&self, bytes: usize, most: usize) {
        self.connection.outgoing().room(bytes, most).await;
    }

    /// The answer of this call ends early for this reason. Metrics count it, also when the caller is not there to be told.
    pub fn ends_for(&self, reason: Reason) {
        // The first reason is the one.
        let _kept = self.ended_for.set(reason);
    }

    /// This is the caller of one more call; returns what [`Self::ends_for`] sets.
    pub(crate) fn begin_call(&mut self) -> Arc<OnceLock<Reason>> {
        self.ended_for = Arc::default();
        Arc::clone(&self.ended_for)
    }

    /// A message of an answer was read at this time.
    pub fn progressed(&self, now: Instant) {
        self.connection.progressed(now);
    }

    /// When a call of the connection began or ended last, or a message was read for which [`Self::progressed`] was called.
    pub fn progressed_at(&self) -> Instant {
        self.connection.progressed_at()
    }

    /// Counts an answer of the connection that was ended because it was not read, and whose last message HTTP/2 still keeps.
    pub fn count_ended_unread(&self) -> EndedUnread {
        self.connection.ended_unread().fetch_add(1, Ordering::Relaxed);
        EndedUnread(Arc::clone(&self.connection))
    }

    /// How many are counted.
    pub fn ended_unread(&self) -> usize {
        self.connection.ended_unread().load(Ordering::Relaxed)
    }

    /// Closes the connection, with all calls on it.
    pub fn disconnect(&self) {
        self.connection.close();
    }
}

/// Counts an answer that was ended unread until this is dropped.
#[derive(Debug)]
pub struct EndedUnread(Arc<OpenConnection>);

impl Drop for EndedUnread {
    fn drop(&mut self) {
        self.0.ended_unread().fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    fn caller(from: &str, to: &str) -> Caller {
        let from: SocketAddr = from.parse().unwrap();
        Caller::new(from, to.parse().unwrap(), Arc::new(OpenConnection::new(from.ip(), CancellationToken::new())))
    }

    #[test]
    fn loopback_and_the_servers_own_address_are_the_local_machine() {
        for (from, to) in [
            ("127.0.0.1:1", "127.0.0.1:80"),
            ("[::1]:1", "[::1]:80"),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:80"),
            ("192.0.2.7:1", "192.0.2.7:80"),
            ("[::ffff:192.0.2.7]:1", "192.0.2.7:80"),
        ] {
            assert!(caller(from, to).is_local_machine(), "{from} {to}");
        }
        for (from, to) in [("192.0.2.8:1", "192.0.2.7:80"), ("[2001:db8::1]:1", "[2001:db8::2]:80")] {
            assert!(!caller(from, to).is_local_machine(), "{from} {to}");
        }
    }

    #[test]
    fn a_request_from_inside_the_process_has_no_caller() {
        let mut request = tonic::Request::new(());
        assert!(Caller::of(request.extensions()).is_none());
        request.extensions_mut().insert(caller("192.0.2.8:1", "192.0.2.7:80"));
        assert_eq!(Caller::of(request.extensions()).unwrap().address(), "192.0.2.8:1".parse().unwrap());
    }
}
