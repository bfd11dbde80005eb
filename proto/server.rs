//! How a server serves: gRPC and plain HTTP on one port, with limits, until the stop.

use std::time::Duration;

mod accept;
mod call_limits;
mod caller;
mod certificate;
mod console;
mod fields;
mod handshakes;
mod health;
mod held_body;
mod hosts;
mod http_token;
mod listen;
mod login;
mod open_connections;
mod origin;
mod outgoing;
pub mod page;
#[cfg(all(feature = "configuration", feature = "telemetry"))]
mod program;
mod request_body;
mod response;
mod response_headers;
mod router;
mod serve;
mod shutdown;
mod socket;
mod stop;
mod tasks;
mod tokens;
pub use call_limits::{Admitted, CallClass, CallLimits, Permit};
pub use caller::{Caller, EndedUnread};
pub use certificate::{ServedTls, keep_certificate, report_open};
#[cfg(feature = "configuration")]
pub use console::report_usage;
pub use console::{announce, print, report_failure};
pub use fields::Fields;
#[cfg(any(test, feature = "fuzzing"))]
pub use fields::check_any_form;
pub use health::{LIVE, READY, report as report_health, serve_health};
pub use hosts::{HostNames, check_host};
pub use http_token::HttpToken;
pub use listen::{ListenError, listen};
pub use login::login;
pub use origin::Origin;
#[cfg(all(feature = "configuration", feature = "telemetry"))]
pub use program::{Judgement, ServerProgram};
pub use request_body::{HeldMemory, RequestMemory};
pub use response::{as_json, refused, respond, wants_json};
pub use response_headers::security_headers;
pub use router::{RouterError, router};
pub use serve::{ServeError, serve};
pub use shutdown::{Ending, Shutdown};
pub use stop::{Stopped, until_stopped};
pub use tasks::{TaskEnded, Tasks};
pub use tokens::{HttpTokens, Shown};

/// The limits of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections at once; one more is closed as soon as it is accepted.
    pub connections: usize,
    /// Most connections of one address (one /64 of IPv6); `None`: a quarter of all. Loopback counts like any other address.
    pub connections_per_address: Option<usize>,
    /// Most streams (calls under way) of one connection.
    pub streams_per_connection: u32,
    /// How long the TLS handshake of a new connection may take.
    pub handshake: Duration,
    /// How long a new connection may take to send its first bytes.
    pub first_byte: Duration,
    /// How long a new connection may take to send the headers of its first request, and how long those of a further HTTP/1 request may take.
    pub headers: Duration,
    /// How long a request of one message may take to arrive; streams of messages have no limit.
    pub request_body: Duration,
    /// Calls under way and calls per second, for each caller and in all.
    pub calls: CallLimits,
    /// Most memory for requests that are arriving or being answered, in bytes; one more is refused with `OVERLOADED`.
    pub request_memory: usize,
    /// How long a connection is kept that carries no call. Then the client is told so (HTTP/2 GOAWAY), and the connection is closed.
    pub idle: Duration,
    /// After this time, give or take a tenth, the client is told to use another connection (HTTP/2 GOAWAY), and this one is closed after
    /// its last call: so that callers spread again over the servers behind one name, and nobody keeps a connection for ever.
    pub age: Duration,
    /// How long the next message of a streamed answer may wait for the caller to read; then the answer is ended, and the connection closed
    /// unless other calls on it make progress.
    pub unread: Duration,
    /// How long calls may continue after the stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // An idle connection costs about 20 KiB; this many stay within 200 MiB and within usual descriptor limits.
            connections: 10_000,
            connections_per_address: None,
            // gRPC's customary 100, and more for a client that fetches many small documents.
            streams_per_connection: 256,
            // Two round trips and some milliseconds of work; there is time for three lost packets.
            handshake: Duration::from_secs(10),
            // A client sends its preface at once; there is time for three lost packets.
            first_byte: Duration::from_secs(10),
            // Twice as long: of 16 KiB at most. nginx has 60 s for the headers.
            headers: Duration::from_secs(20),
            // The largest request, a message of 256 KiB, over a 56 kbit/s line takes 37 s.
            request_body: Duration::from_secs(60),
            calls: CallLimits::default(),
            // 250 of the largest requests, or 4,000 of the registry's largest, at once.
            request_memory: 64 * 1024 * 1024,
            // Our clients close theirs after 30 to 35 s; one that does not meets this.
            idle: Duration::from_secs(40),
            // nginx's `keepalive_time`. Calls under way go on, so it costs a client one connection an hour.
            age: Duration::from_secs(60 * 60),
            // A chunk of 256 KiB over a 56 kbit/s line takes 37 s; nginx's `send_timeout` is the same.
            unread: Duration::from_secs(60),
            // Kubernetes waits 30 s before it kills.
            grace: Duration::from_secs(10),
        }
    }
}
