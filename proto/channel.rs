//! How a client connects: the same windows, limits and keepalives everywhere.

use crate::{
    endpoint::Endpoint,
    first_address::FirstAddress,
    name::{NAME_MAX_BYTES, PeerName},
    tls::{Expected, Identity, Remote, Secured, Tls},
    trace_context::Propagate,
};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tonic::{
    body::Body,
    codegen::{Service, http},
    service::interceptor::InterceptedService,
    transport::{self, Uri},
};

/// Longest wait for a TCP connection: a peer on the same continent answers in a tenth of it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connection with a call under way sends an HTTP/2 ping. With [`KEEPALIVE_TIMEOUT`] it bounds how long a stream hangs when
/// the other machine loses its power.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a ping may stay unanswered before the connection is closed.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow-control window of one stream, in bytes: 1 Gbit/s at 32 ms, and enough for loopback at full speed.
pub const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// What a stream's window takes beside [`STREAM_WINDOW`] bytes of a document: the fields of its header and of its chunks. Without it, the last of them
/// would wait for a round trip.
const STREAM_FIELDS: u32 = 64 * 1024;
/// Flow-control window of one connection, in bytes: twice that of 32 ranges at once at full speed, which fill a path of 7 Gbit/s at 150 ms. What was
/// read is given back once it is half of the window, and a sender that has used all of it waits for that a round trip. It bounds what arrived and
/// was not read yet; those who read at once keep little of it, and whoever has few calls under way, a window of each.
pub const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
/// What may have arrived and not be taken, of a connection whose rate is limited: the rate's part of a second, as one over this. Otherwise a
/// limit would hold for what is taken only, and the windows would fill at the full speed of the path.
const LIMITED_WINDOW_PART: u64 = 8;
/// Smallest window of a limited connection, in bytes: HTTP/2's default, which every sender expects to have.
const LIMITED_WINDOW_MIN: u32 = 64 * 1024;
/// Largest HTTP/2 frame accepted, in bytes. A whole chunk fits in one frame.
pub const FRAME_MAX: u32 = 512 * 1024;
/// Largest answer accepted, in bytes: a header with the most piece hashes (256 KiB), or a chunk (256 KiB), or a batch of
/// holdings, with room for what later versions add.
pub const RESPONSE_MAX_BYTES: usize = 1024 * 1024;
/// Largest answer of a registry, in bytes: a page of 1,000 peers with all their labels.
pub const REGISTRY_RESPONSE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Flow-control window, in bytes, of a stream whose rate is limited to `rate` bytes per second.
pub fn limited_window(rate: u64) -> u32 {
    connection_window(rate).min(STREAM_WINDOW)
}

fn connection_window(rate: u64) -> u32 {
    u32::try_from(rate / LIMITED_WINDOW_PART).unwrap_or(u32::MAX).clamp(LIMITED_WINDOW_MIN, CONNECTION_WINDOW)
}

/// How a client dials: from where, and with which certificates.
#[derive(Debug, Clone, Default)]
pub struct Dial {
    /// Local address to dial from; `None`: the system chooses.
    pub from: Option<IpAddr>,
    /// The rate that the client takes answers at, in bytes per second, if it is limited.
    pub rate: Option<u64>,
    /// Certificates to show and to check; `None`: connections have no TLS, and nobody is who they say.
    pub tls: Option<Tls>,
    /// Counts the calls; `None`: they are not counted.
    pub sent: Option<Arc<dyn CountSent>>,
}

/// Counts the calls that a client makes.
pub trait CountSent: fmt::Debug + Send + Sync {
    /// A call begins; `path` of its URI: `/PACKAGE.SERVICE/METHOD`. It may still fail, also before it is sent.
    fn begins(&self, path: &str);
}

impl Dial {
    /// Dials with these certificates.
    pub fn with(tls: Option<Tls>) -> Self {
        Self { tls, ..Self::default() }
    }

    /// The name in the certificate that the client shows: a peer's, or an operator's. `None`: it has no certificate.
    pub fn certified_name(&self) -> Option<PeerName> {
        let identity = self.tls.as_ref()?.identity()?;
        identity.name().or_else(|| identity.operator()).cloned()
    }

    /// The name of an observer called `own`: with a certificate below the certificate's name, which a registry asks for.
    pub fn observer_name(&self, own: &str) -> String {
        match self.certified_name() {
            // A name of full length has no room before it.
            Some(name) if own.len() + 1 + name.as_str().len() <= NAME_MAX_BYTES => format!("{own}.{name}"),
            Some(name) => name.to_string(),
            None => own.to_owned(),
        }
    }

    /// A connection to `expected` at the first of `addresses` that accepts: they are tried in order, the next one when one fails or takes
    /// long; without any it fails. It is made at its first call, and again after it breaks.
    pub fn lazy(&self, addresses: &[Endpoint], expected: Expected) -> Channel {
        let remote = Remote::default();
        let channel = match (&self.tls, addresses) {
            (Some(tls), _) => {
                let connector = Secured::new(self.to(addresses), tls.clone(), expected, remote.clone());
                self.described(addresses.first()).connect_with_connector_lazy(connector)
            }
            (None, _) => self.described(addresses.first()).connect_with_connector_lazy(self.to(addresses)),
        };
        self.channel(channel, remote)
    }

    /// A connection to `expected` at `endpoint` that is made now.
    ///
    /// # Errors
    /// When nothing accepts the connection within [`CONNECT_TIMEOUT`], or who does is not whom the client expects.
    pub async fn connect(&self, endpoint: &Endpoint, expected: Expected) -> Result<Channel, transport::Error> {
        let remote = Remote::default();
        let (described, to) = (self.described(Some(endpoint)), self.to(std::slice::from_ref(endpoint)));
        let channel = match &self.tls {
            Some(tls) => described.connect_with_connector(Secured::new(to, tls.clone(), expected, remote.clone())).await?,
            None => described.connect_with_connector(to).await?,
        };
        Ok(self.channel(channel, remote))
    }

    /// A connection to the `registry` at one of its addresses, made now.
    ///
    /// # Errors
    /// When it is not accepted within [`CONNECT_TIMEOUT`], or who accepts it is not that registry.
    pub(crate) async fn connect_registry(&self, registry: &Endpoint, address: SocketAddr) -> Result<Channel, transport::Error> {
        let (remote, to) = (Remote::default(), FirstAddress::at(address, self.from));
        let described = self.described(Some(registry));
        let channel = match &self.tls {
            Some(tls) => {
                let expected = Expected::Registry(registry.clone());
                described.connect_with_connector(Secured::new(to, tls.clone(), expected, remote.clone())).await?
            }
            None => described.connect_with_connector(to).await?,
        };
        Ok(self.channel(channel, remote))
    }

    /// What is dialled. What a name resolves to is looked at first; an address was looked at before.
    fn to(&self, addresses: &[Endpoint]) -> FirstAddress {
        let only = match addresses {
            [only] => only.ip().map(|ip| SocketAddr::new(ip, only.port())),
            _ => None,
        };
        only.map_or_else(|| FirstAddress::of(addresses, self.from), |address| FirstAddress::at(address, self.from))
    }

    /// Flow-control windows of a stream and of its connection, in bytes.
    fn windows(&self) -> (u32, u32) {
        let Some(rate) = self.rate else { return (STREAM_WINDOW + STREAM_FIELDS, CONNECTION_WINDOW) };
        (limited_window(rate), connection_window(rate))
    }

    /// The settings of a connection to `endpoint`, whose requests name it; without one they name no server.
    #[expect(clippy::expect_used, reason = "an endpoint was checked to be a host and a port")]
    fn described(&self, endpoint: Option<&Endpoint>) -> transport::Endpoint {
        let authority = endpoint.map_or("localhost", Endpoint::as_str);
        let uri = |scheme| {
            let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
            uri.expect("a valid endpoint is a valid authority")
        };
        // The scheme of the endpoint is always http: with https the library would want to do TLS itself. Requests name the real one.
        let endpoint = self.limited(transport::Channel::builder(uri("http")));
        if self.tls.is_some() { endpoint.origin(uri("https")) } else { endpoint }
    }

    fn channel(&self, channel: transport::Channel, remote: Remote) -> Channel {
        Channel { calls: InterceptedService::new(channel, Propagate), remote, sent: self.sent.clone() }
    }

    fn limited(&self, endpoint: transport::Endpoint) -> transport::Endpoint {
        let (stream_window, connection_window) = self.windows();
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            // No pings without a call: other servers close a connection for them (GOAWAY `too_many_pings`). An idle connection that breaks
            // is made again at its next call. Data of a call resets the count of those servers.
            .keep_alive_while_idle(false)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .max_frame_size(FRAME_MAX)
    }
}

/// A connection whose calls carry the current trace context. Clones share it.
#[derive(Debug, Clone)]
pub struct Channel {
    calls: InterceptedService<transport::Channel, Propagate>,
    remote: Remote,
    sent: Option<Arc<dyn CountSent>>,
}

impl Channel {
    /// What the certificate of the other side says, which was checked when the last connection was made. `None`: there was no connection
    /// yet, or it has no TLS.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.remote.identity()
    }
}

type Intercepted = InterceptedService<transport::Channel, Propagate>;

impl Service<http::Request<Body>> for Channel {
    type Response = <Intercepted as Service<http::Request<Body>>>::Response;
    type Error = <Intercepted as Service<http::Request<Body>>>::Error;
    type Future = <Intercepted as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.calls, cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if let Some(sent) = &self.sent {
            sent.begins(request.uri().path());
        }
        self.calls.call(request)
    }
}

/// A connection without TLS to `endpoint` that is made at its first call, and again after it breaks.
pub fn lazy(endpoint: &Endpoint) -> Channel {
    Dial::default().lazy(std::slice::from_ref(endpoint), Expected::Anyone)
}

/// A connection without TLS to `endpoint` that is made now, from the local address `from`; `None`: the one the system chooses.
///
/// # Errors
/// When nothing accepts the connection within [`CONNECT_TIMEOUT`].
pub async fn connect(endpoint: &Endpoint, from: Option<IpAddr>) -> Result<Channel, transport::Error> {
    Dial { from, ..Dial::default() }.connect(endpoint, Expected::Anyone).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::timeout,
    };

    /// Of an HTTP/2 frame: length, type, flags and stream (RFC 9113, section 4.1).
    const FRAME_HEADER_BYTES: usize = 9;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    #[test]
    fn windows_of_a_limited_rate_hold_a_part_of_a_second() {
        let windows = |rate| Dial { rate, ..Dial::default() }.windows();
        assert_eq!(windows(None), (STREAM_WINDOW + STREAM_FIELDS, CONNECTION_WINDOW));
        assert_eq!(windows(Some(8 << 20)), (1 << 20, 1 << 20));
        assert_eq!(windows(Some(1)), (LIMITED_WINDOW_MIN, LIMITED_WINDOW_MIN));
        assert_eq!(windows(Some(u64::MAX)), (STREAM_WINDOW, CONNECTION_WINDOW));
    }

    #[tokio::test]
    async fn a_connection_without_a_call_is_not_pinged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = transport::Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let often = Dial::default().limited(endpoint).http2_keep_alive_interval(Duration::from_millis(5));
        let (channel, accepted) = tokio::join!(often.connect(), listener.accept());
        let (_channel, (mut stream, _)) = (channel.unwrap(), accepted.unwrap());
        stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
        // The preface of every client.
        stream.read_exact(&mut [0; 24]).await.unwrap();
        let mut kinds = Vec::new();
        let listening = async {
            loop {
                let mut header = [0; FRAME_HEADER_BYTES];
                stream.read_exact(&mut header).await.unwrap();
                let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
                stream.read_exact(&mut vec![0; length]).await.unwrap();
                kinds.push(header[3]);
            }
        };
        // Time for a hundred pings.
        assert!(timeout(Duration::from_millis(500), listening).await.is_err(), "listening never ends");
        assert!(kinds.contains(&SETTINGS) && !kinds.contains(&PING), "{kinds:?}");
    }
}
