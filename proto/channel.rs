//! How a client connects: the same windows, limits and keepalives everywhere.

use crate::{endpoint::Endpoint, first_address::FirstAddress, trace_context::Propagate};
use std::{net::IpAddr, time::Duration};
use tonic::{
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
/// Flow-control window of one connection, in bytes: 32 ranges at once at full speed, which fill a path of 7 Gbit/s at 150 ms. It bounds
/// what arrived and was not read yet; those who read at once keep little of it, and whoever has few calls under way, a window of each.
pub const CONNECTION_WINDOW: u32 = 32 * STREAM_WINDOW;
/// Largest HTTP/2 frame accepted, in bytes. A whole chunk fits in one frame.
pub const FRAME_MAX: u32 = 512 * 1024;
/// Largest answer accepted, in bytes: a header with the most piece hashes (256 KiB), or a chunk (256 KiB), or a batch of
/// holdings, with room for what later versions add.
pub const RESPONSE_MAX_BYTES: usize = 1024 * 1024;
/// Largest answer of a registry, in bytes: a page of 1,000 peers with all their labels.
pub const REGISTRY_RESPONSE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// A connection whose calls carry the current trace context.
pub type Channel = InterceptedService<transport::Channel, Propagate>;

/// A connection to `endpoint` that is made at its first call, and again after it breaks.
pub fn lazy(endpoint: &Endpoint) -> Channel {
    lazy_from(endpoint, None)
}

/// The same, from the local address `from`; `None`: the one the system chooses.
pub fn lazy_from(endpoint: &Endpoint, from: Option<IpAddr>) -> Channel {
    InterceptedService::new(configured(endpoint).local_address(from).connect_lazy(), Propagate)
}

/// A connection to a peer with several addresses, which are tried in order, the next one when one fails or takes long. Without any it fails.
pub fn lazy_to_any(addresses: &[Endpoint], from: Option<IpAddr>) -> Channel {
    match addresses {
        [] => InterceptedService::new(
            with_limits(transport::Endpoint::from_static("http://localhost"))
                .connect_with_connector_lazy(FirstAddress::of(&[], from)),
            Propagate,
        ),
        [only] => lazy_from(only, from),
        [first, ..] => {
            InterceptedService::new(configured(first).connect_with_connector_lazy(FirstAddress::of(addresses, from)), Propagate)
        }
    }
}

/// A connection to `endpoint` that is made now, from the local address `from`; `None`: the one the system chooses.
///
/// # Errors
/// When nothing accepts the connection within [`CONNECT_TIMEOUT`].
pub async fn connect(endpoint: &Endpoint, from: Option<IpAddr>) -> Result<Channel, transport::Error> {
    Ok(InterceptedService::new(configured(endpoint).local_address(from).connect().await?, Propagate))
}

#[expect(clippy::expect_used, reason = "an endpoint was checked to be a host and a port")]
fn configured(endpoint: &Endpoint) -> transport::Endpoint {
    let uri = Uri::builder().scheme("http").authority(endpoint.as_str()).path_and_query("/").build();
    with_limits(transport::Channel::builder(uri.expect("a valid endpoint is a valid authority")))
}

fn with_limits(endpoint: transport::Endpoint) -> transport::Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        // No pings without a call: other servers close a connection for them (GOAWAY `too_many_pings`). An idle connection that breaks
        // is made again at its next call. Data of a call resets the count of those servers.
        .keep_alive_while_idle(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
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

    #[tokio::test]
    async fn a_connection_without_a_call_is_not_pinged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = transport::Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let often = with_limits(endpoint).http2_keep_alive_interval(Duration::from_millis(5));
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
