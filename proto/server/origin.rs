//! Who makes a request: a program such as curl, or a browser, and then on behalf of which site.
//!
//! A browser on this machine makes requests for every site it shows, and they come from loopback. Headers say for which site:
//! Fetch Metadata (W3C), which browsers send to addresses they trust (`localhost` and `127.0.0.1`, not `0.0.0.0` or a name), or else
//! `Origin`, which every POST has. A site whose name resolves to this machine (DNS rebinding) is refused before, by `Host`.
//! A browser's request without these headers can come from anywhere: an image, a link in a mail, a redirect after a typed address.
//! Such requests may read and must not change anything.

use axum::http::{
    HeaderMap,
    header::{self, HeaderName},
    request::Parts,
    uri::Authority,
};

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Not a browser: its user decides what it sends.
    Program,
    /// The server's own page.
    OwnPage,
    /// A browser without headers that name a site, or one that a person or another program opened at this address.
    Browser,
    /// A page of another site.
    Foreign,
}

impl Origin {
    /// Where this request comes from.
    pub fn of(request: &Parts) -> Self {
        origin(&request.headers, request.uri.authority().map(Authority::as_str))
    }
}

fn origin(headers: &HeaderMap, authority: Option<&str>) -> Origin {
    // A header that is not text matches nothing.
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).or(authority);
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let origin = text(header::ORIGIN);
    // All browsers send this, and no page can change it without a preflight request to this server.
    let is_mozilla = text(header::USER_AGENT).is_some_and(|agent| agent.starts_with("Mozilla/"));
    let is_browser = is_mozilla || site.is_some() || origin.is_some() || headers.contains_key(header::REFERER);
    if !is_browser {
        return Origin::Program;
    }
    if host.is_none() {
        return Origin::Foreign;
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn of(pairs: &[(&'static str, &'static str)]) -> Origin {
        origin(&headers(pairs), None)
    }

    const MOZILLA: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36");

    #[test]
    fn what_no_browser_sends_comes_from_a_program() {
        for host in ["localhost:8003", "127.0.0.1:8003", "peer-0.peers:8003"] {
            assert_eq!(of(&[("host", host), ("user-agent", "curl/8.5.0")]), Origin::Program, "{host}");
        }
        assert_eq!(of(&[]), Origin::Program, "HTTP/1.0");
        assert_eq!(origin(&headers(&[MOZILLA]), Some("localhost:8003")), Origin::Browser, "HTTP/2");
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
    fn other_sites_and_other_ports_are_foreign() {
        for foreign in [
            &[("host", "localhost:8003"), ("origin", "http://evil.example")][..],
            &[("host", "localhost:8003"), ("origin", "null")],
            &[("host", "localhost:8003"), ("origin", "http://localhost:9000")],
            &[("host", "localhost:8003"), ("origin", "http://localhost:9000"), ("sec-fetch-site", "same-site")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "same-site")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "none"), ("origin", "http://evil.example")],
            &[("host", "localhost:8003"), ("sec-fetch-site", "of-the-future")],
            &[MOZILLA],
        ] {
            assert_eq!(of(foreign), Origin::Foreign, "{foreign:?}");
        }
    }
}
