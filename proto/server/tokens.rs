//! The token of `--http-token`: as a bearer token, or as a cookie after the form at `/login`.

use super::HttpToken;
use crate::{endpoint::client_network, hex, status::Reason};
use axum::http::{HeaderMap, header};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tonic::Status;

/// The cookie that the form sets.
pub(super) const COOKIE: &str = "p2pdi-http";
/// How long a browser keeps it: a working day.
pub(super) const COOKIE_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
/// Wrong tokens that one address may send in [`WINDOW`]; then all are refused, right or wrong. Far too few to guess one of 64 bits.
const WRONG_MAX: u32 = 10;
/// See [`WRONG_MAX`].
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose wrong tokens are counted. Past it the one that began first is forgotten.
const ADDRESSES_MAX: usize = 1_024;

/// What a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// No token, or none is set up.
    Nothing,
    /// The right token.
    Right,
    /// A wrong one.
    Wrong,
    /// Something, from an address that sent too many wrong ones.
    TooMany,
}

impl Shown {
    /// Whether it suffices.
    ///
    /// # Errors
    /// When it does not; the text says what to send.
    pub fn judge(self) -> Result<(), Status> {
        match self {
            Self::Right => Ok(()),
            Self::TooMany => Err(Status::resource_exhausted("too many wrong tokens from your address; wait a minute")),
            Self::Wrong => Err(Reason::LoopbackOnly.status("the token is wrong, or its login has ended; log in at /login")),
            Self::Nothing => {
                Err(Reason::LoopbackOnly.status("send the token as `Authorization: Bearer TOKEN`, or log in at /login"))
            }
        }
    }
}

/// Checks tokens.
pub struct HttpTokens {
    /// Random for each process: what it hashes cannot be compared with anything elsewhere, and cookies end with the process.
    key: [u8; 32],
    /// `None`: there is no token.
    expected: Option<Expected>,
    /// By address: when the window began, by the caller's clock, and wrong tokens since.
    wrong: Mutex<BTreeMap<IpAddr, (Duration, u32)>>,
}

struct Expected {
    token: blake3::Hash,
    cookie: String,
    cookie_hash: blake3::Hash,
}

impl HttpTokens {
    /// Those of `token`; `None`: none is right. `key` is random.
    pub fn new(token: Option<&HttpToken>, key: [u8; 32]) -> Self {
        let expected = token.map(|token| {
            let token = blake3::keyed_hash(&key, token.reveal().as_bytes());
            // Not the token: who reads the cookie cannot use it elsewhere.
            let cookie = hex::encode(blake3::keyed_hash(token.as_bytes(), COOKIE.as_bytes()).as_bytes());
            let cookie_hash = blake3::keyed_hash(&key, cookie.as_bytes());
            Expected { token, cookie, cookie_hash }
        });
        Self { key, expected, wrong: Mutex::default() }
    }

    /// Whether there is a token.
    pub fn are_used(&self) -> bool {
        self.expected.is_some()
    }

    /// The cookie for who has the token.
    pub(super) fn cookie(&self) -> Option<&str> {
        self.expected.as_ref().map(|expected| expected.cookie.as_str())
    }

    /// What the headers of a request from `address` show.
    pub fn shown(&self, headers: &HeaderMap, address: Option<IpAddr>, now: Duration) -> Shown {
        let Some(expected) = &self.expected else { return Shown::Nothing };
        let (shown, expected) = match (bearer(headers), cookie(headers)) {
            (Some(bearer), _) => (bearer, &expected.token),
            (None, Some(cookie)) => (cookie, &expected.cookie_hash),
            (None, None) => return Shown::Nothing,
        };
        self.check(shown, expected, address, now)
    }

    /// Whether `token`, which a form from `address` has, is right.
    pub fn given(&self, token: &str, address: Option<IpAddr>, now: Duration) -> Shown {
        let Some(expected) = &self.expected else { return Shown::Nothing };
        self.check(token, &expected.token, address, now)
    }

    fn check(&self, shown: &str, expected: &blake3::Hash, address: Option<IpAddr>, now: Duration) -> Shown {
        let address = address.map(client_network);
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.retain(|_, (since, _)| now < *since + WINDOW);
        if address.is_some_and(|address| wrong.get(&address).is_some_and(|(_, count)| *count >= WRONG_MAX)) {
            return Shown::TooMany;
        }
        // Hashes are compared in constant time.
        if blake3::keyed_hash(&self.key, shown.as_bytes()) == *expected {
            return Shown::Right;
        }
        if let Some(address) = address {
            if wrong.len() >= ADDRESSES_MAX && !wrong.contains_key(&address) {
                let oldest = wrong.iter().min_by_key(|(_, (since, _))| *since).map(|(address, _)| *address);
                oldest.map(|oldest| wrong.remove(&oldest));
            }
            wrong.entry(address).or_insert((now, 0)).1 += 1;
        }
        Shown::Wrong
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = all.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    const SECRET: &str = "correct horse battery";
    const TOKEN: &str = "0123456789abcdef0123";
    const NOW: Duration = Duration::from_secs(1_000);

    fn tokens() -> HttpTokens {
        HttpTokens::new(Some(&HttpToken::parse(TOKEN).unwrap()), [7; 32])
    }

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn from(last: u8) -> Option<IpAddr> {
        Some([10, 0, 0, last].into())
    }

    #[test]
    fn the_right_token_is_known_as_bearer_and_as_cookie() {
        let tokens = tokens();
        let shown = |headers: &HeaderMap| tokens.shown(headers, from(1), NOW);
        assert_eq!(shown(&HeaderMap::new()), Shown::Nothing);
        assert_eq!(shown(&headers(header::AUTHORIZATION, &format!("bearer {TOKEN}"))), Shown::Right);
        let cookie = tokens.cookie().unwrap();
        assert!(!cookie.contains(TOKEN));
        assert_eq!(shown(&headers(header::COOKIE, &format!("a=b; {COOKIE}={cookie}; c=d"))), Shown::Right);
        // Each only in its place.
        for wrong in [
            headers(header::AUTHORIZATION, &format!("Bearer {cookie}")),
            headers(header::AUTHORIZATION, &format!("Bearer {SECRET}")),
            headers(header::AUTHORIZATION, "Bearer "),
            headers(header::COOKIE, &format!("{COOKIE}={TOKEN}")),
            headers(header::COOKIE, &format!("{COOKIE}=")),
        ] {
            assert_eq!(shown(&wrong), Shown::Wrong, "{wrong:?}");
        }
        for nothing in [headers(header::AUTHORIZATION, &format!("Basic {TOKEN}")), headers(header::COOKIE, "x=y")] {
            assert_eq!(shown(&nothing), Shown::Nothing);
        }
        // The cookies of another process are of no use here.
        let other = HttpTokens::new(Some(&HttpToken::parse(TOKEN).unwrap()), [8; 32]);
        assert_eq!(other.shown(&headers(header::COOKIE, &format!("{COOKIE}={cookie}")), from(1), NOW), Shown::Wrong);
        let none = HttpTokens::new(None, [7; 32]);
        assert_eq!(none.given(TOKEN, from(1), NOW), Shown::Nothing);
    }

    #[test]
    fn one_address_may_be_wrong_a_few_times_a_minute_and_others_are_not_affected() {
        let tokens = tokens();
        for _ in 0..WRONG_MAX {
            assert_eq!(tokens.given("wrong", from(1), NOW), Shown::Wrong);
        }
        assert_eq!(tokens.given(TOKEN, from(1), NOW), Shown::TooMany);
        assert_eq!(tokens.given(TOKEN, from(2), NOW), Shown::Right);
        assert_eq!(tokens.given(TOKEN, from(1), NOW + WINDOW), Shown::Right);
        for number in 0..2 * ADDRESSES_MAX {
            let address = IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
            assert_eq!(tokens.given("wrong", Some(address), NOW), Shown::Wrong);
        }
        assert_eq!(tokens.wrong.lock().unwrap().len(), ADDRESSES_MAX);
    }
}
