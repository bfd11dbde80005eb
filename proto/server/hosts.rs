//! Which host names a server answers to in plain HTTP, so that DNS rebinding does not work: a site whose name suddenly resolves to this
//! server has its scripts read the answers as its own. The browser still says that name in `Host` (or `:authority`).

use crate::{field::Quoted, tls::Tls};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use std::{fmt, net::IpAddr, sync::Arc};

/// The names of a server. An IP address and `localhost` are always names of it: other people's DNS has no say in them.
#[derive(Clone)]
pub struct HostNames {
    given: Arc<[String]>,
    tls: Option<Tls>,
    others: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl HostNames {
    /// The names `given` by the operator (`--http-host`), the name of this machine, and those that `is_other` says yes to, such as the
    /// host that a peer advertises.
    pub fn new(given: impl IntoIterator<Item = String>, is_other: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let machine = gethostname::gethostname().into_string().ok();
        Self { given: given.into_iter().chain(machine).collect(), tls: None, others: Arc::new(is_other) }
    }

    /// Also the names in the certificate of `tls`: who calls by one of them checks that it is this server's.
    #[must_use]
    pub fn with_certificate(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Whether `host`, a host with or without a port, names this server.
    pub fn contain(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        let name = name.strip_suffix('.').unwrap_or(name);
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.given.iter().any(|given| name.eq_ignore_ascii_case(given))
            || self.tls.as_ref().and_then(Tls::identity).is_some_and(|identity| identity.is_for_host(name))
            || (self.others)(name)
    }
}

impl fmt::Debug for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostNames").field("given", &self.given).finish_non_exhaustive()
    }
}

/// Refuses a request that names another host. One that names none is answered: no browser sends that.
pub async fn check_host(State(names): State<HostNames>, request: Request, next: Next) -> Response {
    match other_host(&names, request.uri(), request.headers()) {
        None => next.run(request).await,
        Some(host) => {
            let text = format!(
                "this server is not called {0}; use http://localhost or its address, in a browser or with curl, \
                 or start it with --http-host and that name\n",
                Quoted(&host)
            );
            (StatusCode::FORBIDDEN, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text).into_response()
        }
    }
}

/// The host that a request names, if it is not this server.
fn other_host(names: &HostNames, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    // A header that is not text matches nothing.
    let said = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
    let mut hosts = said.chain(uri.authority().map(Authority::as_str));
    hosts.find(|host| !names.contain(host)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn names() -> HostNames {
        HostNames::new(["peers.example".to_owned()], |name| name == "peer-0.peers")
    }

    #[test]
    fn addresses_localhost_and_given_names_are_names_of_the_server() {
        for host in [
            "localhost:8003",
            "LOCALHOST.",
            "127.0.0.1:8003",
            "[::1]:8003",
            "[::1]",
            "0.0.0.0:8003",
            "203.0.113.7",
            "Peers.Example:80",
            "peer-0.peers:8003",
        ] {
            assert!(names().contain(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8003", "localhost.evil.example", "127.0.0.1.evil.example", "", "?", "[::1"] {
            assert!(!names().contain(host), "{host}");
        }
    }

    #[test]
    fn each_host_that_a_request_names_must_be_the_server() {
        let other = |uri: &'static str, hosts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            other_host(&names(), &Uri::from_static(uri), &headers)
        };
        assert_eq!(other("/", &[]), None, "HTTP/1.0");
        assert_eq!(other("/", &["localhost:1"]), None);
        assert_eq!(other("http://localhost:1/", &[]), None, "HTTP/2");
        for (uri, hosts) in [
            ("/", &["evil.example"] as &[_]),
            ("/", &["localhost", "evil.example"]),
            ("http://evil.example/", &[]),
            ("http://evil.example/", &["localhost"]),
        ] {
            assert_eq!(other(uri, hosts).as_deref(), Some("evil.example"), "{uri} {hosts:?}");
        }
    }
}
