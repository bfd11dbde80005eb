//! Join tokens: one line with which a peer or a person gets its first certificate from a registry.
//!
//! A token is the prefix `p2pdi1` and then, in lower-case base32 (RFC 4648, no padding):
//!
//! ```text
//! 32 bytes   SHA-256 of the DER of a certificate authority of the registry
//! 16 bytes   the secret
//!  1 byte    length of the network's name, and the name
//!  1 byte    number of addresses, 1 to 8; for each: 2 bytes length (big-endian), `HOST:PORT`
//!  4 bytes   checksum: the first bytes of the BLAKE3 of the prefix and all bytes before
//! ```
//!
//! It is a single word of letters and digits, so a double click selects it, and no shell changes it. The checksum finds what was not copied
//! whole; it protects nothing.

use crate::{
    endpoint::Endpoint,
    field::{InvalidField, Quoted},
    hex,
    network::NetworkName,
};
use data_encoding::{BASE32_NOPAD, Encoding};
use std::{fmt, str::FromStr};
use subtle::ConstantTimeEq as _;

/// The first characters of every token; the digit is the version of the format.
pub const TOKEN_PREFIX: &str = "p2pdi1";
/// The same without the version.
const TOKEN_FAMILY: &str = "p2pdi";
/// Most addresses of a token: replicas of a registry.
pub const TOKEN_ADDRESSES_MAX: usize = 8;
/// Longest token, in characters: eight addresses of full length fit.
pub const TOKEN_MAX_CHARS: usize = 4096;
/// Bytes of a secret.
const SECRET_BYTES: usize = 16;
/// Bytes of the checksum.
const CHECKSUM_BYTES: usize = 4;

/// The crate has constants, and borrows are of statics.
static BASE32: Encoding = BASE32_NOPAD;

/// What a peer needs to get its first certificate: where the registry is, by what it is recognised, and the secret that lets it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Addresses of the registry, to be tried in order; at least one.
    pub registries: Vec<Endpoint>,
    /// A certificate authority of the registry.
    pub ca: CaHash,
    /// The network that is joined.
    pub network: NetworkName,
    /// The secret that the registry knows the hash of.
    pub secret: TokenSecret,
}

/// SHA-256 of the DER of a CA certificate, which is what `openssl x509 -fingerprint -sha256` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaHash(pub [u8; 32]);

/// 128 random bits. Whoever holds it can get a certificate, so it is never shown by `Debug` and has no `Display`.
#[derive(Clone)]
pub struct TokenSecret([u8; SECRET_BYTES]);

/// The hash of a secret, which is what a registry keeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenSecret {
    /// A new secret from the system's randomness.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The secret with these bytes.
    pub const fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// The secret of a message's field.
    ///
    /// # Errors
    /// When it has another length.
    pub fn from_field(field: &'static str, bytes: &[u8]) -> Result<Self, InvalidField> {
        let bytes = bytes.try_into();
        bytes.map(Self).map_err(|_| InvalidField::new(field, format!("must have {SECRET_BYTES} bytes")))
    }

    /// The bytes, for the call that enrols.
    pub fn reveal(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// BLAKE3 in key derivation mode. A secret has 128 bits of entropy, so no slow hash is needed.
    pub fn hash(&self) -> TokenHash {
        TokenHash(blake3::derive_key("p2pdi 2026 join token", &self.0))
    }
}

/// In constant time.
impl PartialEq for TokenSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenSecret {}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

impl CaHash {
    /// The hash of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        let hash = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        Self(bytes)
    }
}

impl TokenHash {
    /// Eight hexadecimal digits by which people name the token.
    pub fn id(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({}…)", self.id())
    }
}

impl fmt::Display for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::display(&self.0).fmt(f)
    }
}

impl fmt::Debug for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl JoinToken {
    /// The token as one line. It holds the secret.
    ///
    /// # Panics
    /// Never: a network's name has at most 63 bytes, and of addresses the first [`TOKEN_ADDRESSES_MAX`] are taken.
    pub fn reveal(&self) -> String {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(self.ca.0);
        bytes.extend(self.secret.0);
        let network = self.network.as_str().as_bytes();
        bytes.push(u8::try_from(network.len()).unwrap_or(u8::MAX));
        bytes.extend(network);
        let addresses = &self.registries[..self.registries.len().min(TOKEN_ADDRESSES_MAX)];
        bytes.push(u8::try_from(addresses.len()).unwrap_or(u8::MAX));
        for address in addresses {
            let text = address.as_str().as_bytes();
            bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(text);
        }
        bytes.extend(checksum(&bytes));
        format!("{TOKEN_PREFIX}{}", BASE32.encode(&bytes).to_ascii_lowercase())
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::Hasher::new().update(TOKEN_PREFIX.as_bytes()).update(bytes).finalize();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash.as_bytes()[..CHECKSUM_BYTES]);
    sum
}

impl FromStr for JoinToken {
    type Err = InvalidField;

    /// White space around it is ignored, and letters may be of either case.
    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: String| InvalidField::new("token", problem);
        let text = text.trim();
        if text.is_empty() {
            return Err(wrong("is empty; `p2pctl token create` prints one".into()));
        }
        if text.len() > TOKEN_MAX_CHARS {
            return Err(wrong(format!("has {} characters; at most {TOKEN_MAX_CHARS} fit", text.len())));
        }
        let lower = text.to_ascii_lowercase();
        let Some(code) = lower.strip_prefix(TOKEN_PREFIX) else {
            return Err(wrong(match lower.strip_prefix(TOKEN_FAMILY) {
                Some(_) => "is of another version than this program reads; use programs of one version".into(),
                // Not quoted: it may be a secret that was pasted in the wrong place.
                None => format!("does not begin with {TOKEN_PREFIX}; paste what `p2pctl token create` printed, whole"),
            }));
        };
        if let Some(c) = code.chars().find(|c| !matches!(c, 'a'..='z' | '2'..='7')) {
            return Err(wrong(format!(
                "contains {}, which no token does; paste it again, whole",
                Quoted(c.encode_utf8(&mut [0; 4]))
            )));
        }
        let damaged = || wrong("is not whole: characters are missing or wrong; paste it again".into());
        let bytes = BASE32.decode(code.to_ascii_uppercase().as_bytes()).map_err(|_| damaged())?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
        if *sum != checksum(body) {
            return Err(damaged());
        }
        // From here on the token is as its maker wrote it.
        read(body).ok_or_else(|| wrong("has another form than this program reads; use programs of one version".into()))
    }
}

/// The token with these bytes; `None` when they break a rule.
fn read(bytes: &[u8]) -> Option<JoinToken> {
    let (ca, rest) = bytes.split_first_chunk::<32>()?;
    let (secret, rest) = rest.split_first_chunk::<SECRET_BYTES>()?;
    let (length, rest) = rest.split_first()?;
    let (network, rest) = rest.split_at_checked(usize::from(*length))?;
    let name = std::str::from_utf8(network).ok()?;
    let network: NetworkName = name.parse().ok().filter(|network: &NetworkName| network.as_str() == name)?;
    let (count, mut rest) = rest.split_first()?;
    let mut registries = Vec::new();
    for _ in 0..*count {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (text, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let text = std::str::from_utf8(text).ok()?;
        registries.push(text.parse().ok().filter(|address: &Endpoint| address.as_str() == text)?);
        rest = after;
    }
    let is_whole = rest.is_empty() && (1..=TOKEN_ADDRESSES_MAX).contains(&registries.len());
    is_whole.then_some(JoinToken { registries, ca: CaHash(*ca), network, secret: TokenSecret(*secret) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(addresses: &[&str], network: &str) -> JoinToken {
        JoinToken {
            registries: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ca: CaHash([7; 32]),
            network: network.parse().unwrap(),
            secret: TokenSecret::from_bytes([9; 16]),
        }
    }

    proptest! {
        #[test]
        fn a_token_is_the_same_after_a_round_trip(
            ca: [u8; 32], secret: [u8; 16], network in "[a-z]{1,63}", hosts in proptest::collection::vec("[a-z]{1,30}", 1..=8), port in 1_u16..,
        ) {
            let registries = hosts.iter().map(|host| format!("{host}:{port}").parse().unwrap()).collect();
            let token = JoinToken {
                registries, ca: CaHash(ca), network: network.parse().unwrap(), secret: TokenSecret::from_bytes(secret),
            };
            let line = token.reveal();
            prop_assert!(line.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{line}");
            prop_assert_eq!(&line.parse::<JoinToken>().unwrap(), &token);
            prop_assert_eq!(&format!("\t{} \n", line.to_uppercase()).parse::<JoinToken>().unwrap(), &token);
        }

        #[test]
        fn any_text_is_a_token_or_refused(text in ".{0,200}", code in "[a-z2-7]{0,200}") {
            for text in [text, format!("{TOKEN_PREFIX}{code}")] {
                if let Err(error) = text.parse::<JoinToken>() {
                    prop_assert_eq!(error.field, "token");
                }
            }
        }

        #[test]
        fn a_token_with_one_character_changed_added_or_left_out_is_refused(at in 0_usize..200, letter in "[a-z2-7]") {
            let line = token(&["registry.example:7800"], "default").reveal();
            let at = at % line.len();
            let (before, after) = line.split_at(at);
            let (old, rest) = after.split_at(1);
            for changed in [format!("{before}{letter}{rest}"), format!("{before}{letter}{after}"), format!("{before}{rest}")] {
                prop_assert!(changed == line || changed.parse::<JoinToken>().is_err(), "{old} {letter} at {at}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        let line = token(&["127.0.0.1:7800", "[::1]:7800"], "lab").reveal();
        let long = "a".repeat(TOKEN_MAX_CHARS + 1);
        for (text, expected) in [
            ("", "is empty"),
            ("  \n", "is empty"),
            ("hello", "does not begin with p2pdi1"),
            (&line[..40], "not whole"),
            (&line[1..], "does not begin with p2pdi1"),
            (&line.replacen("p2pdi1", "p2pdi2", 1), "another version"),
            (&format!("{}0{}", &line[..20], &line[21..]), "contains \"0\""),
            (&format!("{} {}", &line[..20], &line[20..]), "contains \" \""),
            (&long, "at most"),
        ] {
            let error = text.parse::<JoinToken>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains(&line[10..30]), "an error does not show the secret");
        }
    }

    #[test]
    fn bytes_with_a_right_checksum_that_break_a_rule_are_refused() {
        let code = |body: &[u8]| {
            let bytes = [body, &checksum(body)].concat();
            format!("{TOKEN_PREFIX}{}", BASE32.encode(&bytes).to_ascii_lowercase()).parse::<JoinToken>()
        };
        let head = [[7; 48].as_slice(), &[1, b'n']].concat();
        let address = [&[0, 3], "h:1".as_bytes()].concat();
        let body = |count: u8, addresses: &[u8]| [&head, [count].as_slice(), addresses].concat();
        assert!(code(&body(1, &address)).is_ok());
        for wrong in [
            body(0, &[]),
            body(2, &address),
            body(1, &[&address, [0].as_slice()].concat()),
            body(9, &address.repeat(9)),
            body(1, &[0, 1, b'h']),
            body(1, &[0, 4, b'h', b':', b'0', b'1']),
            [[7; 48].as_slice(), &[1, b'N', 1], &address].concat(),
            [[7; 48].as_slice(), &[0, 1], &address].concat(),
            head[..40].to_vec(),
        ] {
            assert!(code(&wrong).unwrap_err().to_string().contains("another form"), "{wrong:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown_and_its_hash_is_another_value() {
        let (secret, line) = (TokenSecret::generate().unwrap(), token(&["h:1"], "n"));
        assert_eq!(format!("{secret:?}"), "TokenSecret(…)");
        assert!(!format!("{line:?}").contains("9, 9"));
        assert!(secret.hash() != TokenSecret::generate().unwrap().hash());
        assert_eq!(secret.hash().id().len(), 8);
    }
}
