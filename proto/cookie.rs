//! The secret that a registry gives a peer.

use crate::hex;
use std::{fmt, str::FromStr};
use subtle::ConstantTimeEq as _;
use tonic::{Request, metadata::AsciiMetadataValue};

/// The metadata header that carries a cookie.
pub const COOKIE_HEADER: &str = "peer-cookie";
/// Characters of a cookie as text: 16 bytes in hexadecimal.
pub const COOKIE_CHARS: usize = 32;

/// A request that carries `cookie`, if there is one.
pub fn with_cookie<T>(message: T, cookie: Option<&Cookie>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(cookie) = cookie
        && let Ok(mut value) = AsciiMetadataValue::try_from(cookie.reveal())
    {
        value.set_sensitive(true);
        request.metadata_mut().insert(COOKIE_HEADER, value);
    }
    request
}

/// 128 random bits. Anyone who holds it can act as that peer, so it is never shown by `Debug` and has no `Display`.
#[derive(Clone)]
pub struct Cookie([u8; 16]);

/// The hash of a cookie, which is what a registry keeps: it is enough to recognise the cookie, and cannot be used in its place.
#[derive(Clone, Copy)]
pub struct CookieHash([u8; 16]);

/// The text is not a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cookie is 32 hexadecimal digits")]
pub struct MalformedCookie;

impl Cookie {
    /// A new cookie from the system's randomness.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The cookie with these bytes, for simulations with a seed.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// 32 lower-case hexadecimal digits, for metadata and the peer's own state file.
    pub fn reveal(&self) -> String {
        hex::encode(&self.0)
    }

    /// BLAKE3 in key derivation mode, cut to 128 bits. A cookie has 128 bits of entropy, so no slow hash is needed.
    pub fn hash(&self) -> CookieHash {
        let whole = blake3::derive_key("p2pdi 2026 registry cookie", &self.0);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&whole[..16]);
        CookieHash(bytes)
    }
}

impl FromStr for Cookie {
    type Err = MalformedCookie;

    fn from_str(text: &str) -> Result<Self, MalformedCookie> {
        hex::decode(text).map(Self).ok_or(MalformedCookie)
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(…)")
    }
}

impl CookieHash {
    /// The hash with these bytes, as a store kept them.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, for a store and as the key of a table.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// In constant time: the time an answer takes must not tell how many leading bytes of two hashes are equal.
impl PartialEq for CookieHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for CookieHash {}

impl fmt::Debug for CookieHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_survives_a_round_trip_as_text_with_its_hash() {
        let cookie = Cookie::generate().unwrap();
        let again: Cookie = cookie.reveal().to_uppercase().parse().unwrap();
        assert!(again.hash() == cookie.hash());
        assert!(Cookie::generate().unwrap().hash() != cookie.hash());
    }

    #[test]
    fn debug_output_does_not_show_the_cookie() {
        let cookie = Cookie::generate().unwrap();
        assert!(!format!("{cookie:?}{:?}", cookie.hash()).contains(&cookie.reveal()[..8]));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "0", &"0".repeat(31), &"g".repeat(32), &"+1".repeat(16), &"0".repeat(33), &"é".repeat(16)] {
            assert!(text.parse::<Cookie>().is_err(), "{text}");
        }
    }
}
