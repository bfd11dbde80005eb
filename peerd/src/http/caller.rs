//! Who makes a request: a program such as curl, or a browser, and then on behalf of which site.
//!
//! A browser on this machine makes requests for every site it shows, and they come from loopback. Headers say for which site:
//! Fetch Metadata (W3C), which browsers send to addresses they trust (`localhost` and `127.0.0.1`, not `0.0.0.0` or a name), or else
//! `Origin`, which every POST has. A site whose name resolves to this machine (DNS rebinding) is recognised by `Host`.
//! A browser's request without these headers can come from anywhere: an image, a link in a mail, a redirect after a typed address.
//! Such requests may read and must not change anything.

use crate::{config::ControlFrom, rpc::Services};
use axum::http::{
    HeaderMap, Method,
    header::{self, HeaderName},
    request::Parts,
    uri::Authority,
};
use p2pdi::{server::Caller, status::Reason};
use std::net::IpAddr;
use tonic::Status;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Not a browser: its user decides what it sends.
    Program,
    /// The peer's own page.
    OwnPage,
    /// A browser without headers that name a site, or one that a person or another program opened at this address.
    Browser,
    /// A page of another site.
    Foreign,
}

/// Whether the request may see what only the operator may see. Other sites cannot read an answer, except through a rebound name.
pub(super) fn may_see(services: &Services, request: &Parts) -> Result<(), Status> {
    permit(services, request, |_| true)
}

/// Whether the request may make the peer send messages.
pub(super) fn may_act(services: &Services, request: &Parts) -> Result<(), Status> {
    permit(services, request, |origin| match origin {
        Origin::Program => true,
        // Links, images and redirects cause GETs, so a browser's GET never sends, whatever its headers.
        Origin::OwnPage => request.method == Method::POST,
        Origin::Browser | Origin::Foreign => false,
    })
}

/// Whether a page of another site makes the request, which could read the answer through a rebound name.
pub(super) fn is_foreign(services: &Services, request: &Parts) -> bool {
    origin_of(services, request) == Origin::Foreign
}

fn origin_of(services: &Services, request: &Parts) -> Origin {
    let authority = request.uri.authority().map(Authority::as_str);
    origin(&request.headers, authority, services.own.get().endpoint().host(), services.control)
}

fn permit(services: &Services, request: &Parts, allowed: impl FnOnce(Origin) -> bool) -> Result<(), Status> {
    services.check_control(Caller::of(&request.extensions))?;
    let refuse = |why: &str| Err(Reason::LoopbackOnly.status(why));
    match origin_of(services, request) {
        Origin::Foreign => refuse(
            "this request comes from a page of another site, or names a host that is not this peer; use http://localhost, the peer's address, or curl",
        ),
        origin if !allowed(origin) => refuse(
            "a link or the address bar of a browser cannot make this peer send, because any site can open such a link; send from the peer's page at /, or with curl",
        ),
        _ => Ok(()),
    }
}

fn origin(headers: &HeaderMap, authority: Option<&str>, own_host: &str, control: ControlFrom) -> Origin {
    // A header that is not text matches nothing.
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).or(authority);
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let origin = text(header::ORIGIN);
    // All browsers send this, and no page can change it without a preflight request to this server.
    let is_mozilla = text(header::USER_AGENT).is_some_and(|agent| agent.starts_with("Mozilla/"));
    let is_browser = is_mozilla || site.is_some() || origin.is_some() || headers.contains_key(header::REFERER);
    if (is_browser || control == ControlFrom::Loopback) && host.map_or(is_browser, |host| !is_own_host(host, own_host)) {
        return Origin::Foreign;
    }
    if !is_browser {
        return Origin::Program;
    }
    let is_same =
        |origin: &str| origin.split_once("://").is_some_and(|(_, from)| host.is_some_and(|host| from.eq_ignore_ascii_case(host)));
    match (site, origin.map(is_same)) {
        (_, Some(false)) => Origin::Foreign,
        (Some("same-origin"), _) | (None, Some(true)) => Origin::OwnPage,
        (Some("none") | None, _) => Origin::Browser,
        (Some(_), _) => Origin::Foreign,
    }
}

/// Whether a `Host` names this machine in a way that does not depend on other people's DNS.
fn is_own_host(host: &str, own: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    address.eq_ignore_ascii_case(own)
        || is("localhost")
        || address.parse::<IpAddr>().is_ok()
        || gethostname::gethostname().to_str().is_some_and(is)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn of(pairs: &[(&'static str, &'static str)]) -> Origin {
        origin(&headers(pairs), None, "peer-0.peers", ControlFrom::Loopback)
    }

    const MOZILLA: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36");

    #[test]
    fn programs_may_use_every_name_of_this_machine() {
        for host in ["localhost:8003", "LOCALHOST", "127.0.0.1:8003", "[::1]:8003", "[::1]", "0.0.0.0:8003", "peer-0.peers:8003"]
        {
            assert_eq!(of(&[("host", host), ("user-agent", "curl/8.5.0")]), Origin::Program, "{host}");
        }
        assert_eq!(of(&[]), Origin::Program, "HTTP/1.0");
        let over_http2 = |authority| origin(&headers(&[]), Some(authority), "peer-0.peers", ControlFrom::Loopback);
        assert_eq!((over_http2("localhost:8003"), over_http2("evil.example:8003")), (Origin::Program, Origin::Foreign));
        for host in ["evil.example", "evil.example:8003", "localhost.evil.example", "127.0.0.1.evil.example", "", "?", "[::1"] {
            assert_eq!(of(&[("host", host)]), Origin::Foreign, "{host}");
        }
        // A peer with --control any accepts every host name.
        assert_eq!(origin(&headers(&[("host", "peers.example")]), None, "10.0.0.1", ControlFrom::Any), Origin::Program);
    }

    #[test]
    fn the_own_page_is_recognised_with_and_without_fetch_metadata() {
        for ours in [
            &[MOZILLA, ("host", "localhost:8003"), ("sec-fetch-site", "same-origin")][..],
            &[MOZILLA, ("host", "localhost:8003"), ("origin", "http://localhost:8003"), ("sec-fetch-site", "same-origin")],
            &[MOZILLA, ("host", "192.0.2.7:8003"), ("origin", "http://192.0.2.7:8003")],
        ] {
            assert_eq!(of(ours), Origin::OwnPage, "{ours:?}");
        }
    }

    #[test]
    fn browser_requests_without_a_site_are_not_the_own_page() {
        for browser in [
            &[MOZILLA, ("host", "localhost:8003")][..],
            // Typed, or a link in a mail; redirects after it keep this value.
            &[MOZILLA, ("host", "localhost:8003"), ("sec-fetch-site", "none")],
            // An address that browsers do not trust, so they send no Fetch Metadata; it reaches this machine on Linux and macOS.
            &[MOZILLA, ("host", "0.0.0.0:8003")],
            &[("host", "localhost:8003"), ("referer", "http://localhost:8003/")],
        ] {
            assert_eq!(of(browser), Origin::Browser, "{browser:?}");
        }
    }

    #[test]
    fn other_sites_other_ports_and_rebound_names_are_foreign() {
        for foreign in [
            &[("host", "localhost:8003"), ("origin", "http://evil.example")][..],
            &[("host", "localhost:8003"), ("origin", "null")],
            &[("host", "localhost:8003"), ("origin", "http://localhost:9000")],
            &[("host", "localhost:8003"), ("origin", "http://localhost:9000"), ("sec-fetch-site", "same-site")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "same-site")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "none"), ("origin", "http://evil.example")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "of-the-future")],
            &[("host", "evil.example:8003"), ("origin", "http://evil.example:8003"), ("sec-fetch-site", "same-origin")],
            &[MOZILLA, ("host", "evil.example:8003")],
            &[MOZILLA],
        ] {
            assert_eq!(of(foreign), Origin::Foreign, "{foreign:?}");
            assert_eq!(origin(&headers(foreign), None, "10.0.0.1", ControlFrom::Any), Origin::Foreign, "{foreign:?}");
        }
    }
}
