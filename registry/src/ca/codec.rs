//! Tokens and certificates as bytes: protobuf, so that a later version can add fields and still read what this one wrote.

use super::ledger::{Certificate, Subject, Token};
use p2pdi::{selector::NamePattern, token::TokenHash};
use prost::Message;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Message)]
struct StoredToken {
    #[prost(bytes = "vec", tag = "1")]
    hash: Vec<u8>,
    #[prost(string, tag = "2")]
    names: String,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: BTreeMap<String, String>,
    #[prost(bool, tag = "4")]
    operator: bool,
    #[prost(uint64, tag = "5")]
    created_at: u64,
    #[prost(uint64, tag = "6")]
    expires_at: u64,
    #[prost(uint32, tag = "7")]
    uses: u32,
    #[prost(uint32, tag = "8")]
    used: u32,
    #[prost(bool, tag = "9")]
    revoked: bool,
    #[prost(string, repeated, tag = "10")]
    hosts: Vec<String>,
    #[prost(bool, tag = "11")]
    rejoin: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StoredCertificate {
    #[prost(bytes = "vec", tag = "1")]
    serial: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: BTreeMap<String, String>,
    #[prost(bool, tag = "5")]
    operator: bool,
    #[prost(bytes = "vec", tag = "6")]
    token: Vec<u8>,
    #[prost(uint64, tag = "7")]
    not_after: u64,
    #[prost(uint64, tag = "8")]
    revoked_at: u64,
}

pub(super) fn encode_token(token: &Token) -> Vec<u8> {
    let Token { hash, names, labels, operator, created_at, expires_at, uses, used, revoked, rejoin, hosts } = token.clone();
    let (hash, names) = (hash.0.into(), names.to_string());
    StoredToken { hash, names, labels, operator, created_at, expires_at, uses, used, revoked, rejoin, hosts }.encode_to_vec()
}

/// `None`: these bytes are no token.
pub(super) fn decode_token(bytes: &[u8]) -> Option<Token> {
    let StoredToken { hash, names, labels, operator, created_at, expires_at, uses, used, revoked, rejoin, hosts } =
        StoredToken::decode(bytes).ok()?;
    let names = NamePattern::parse(&names).ok()??;
    let hash = TokenHash(hash.try_into().ok()?);
    Some(Token { hash, names, labels, operator, created_at, expires_at, uses, used, revoked, rejoin, hosts })
}

pub(super) fn encode_certificate(certificate: &Certificate) -> Vec<u8> {
    let Certificate { serial, key, subject, token, not_after, revoked_at } = certificate.clone();
    let Subject { name, labels, operator } = subject;
    let token = token.map(|hash| hash.0.to_vec()).unwrap_or_default();
    let (serial, key, name) = (serial.into(), key.into(), name.to_string());
    StoredCertificate { serial, key, name, labels, operator, token, not_after, revoked_at }.encode_to_vec()
}

/// `None`: these bytes are no certificate's.
pub(super) fn decode_certificate(bytes: &[u8]) -> Option<Certificate> {
    let StoredCertificate { serial, key, name, labels, operator, token, not_after, revoked_at } =
        StoredCertificate::decode(bytes).ok()?;
    let token = if token.is_empty() { None } else { Some(TokenHash(token.try_into().ok()?)) };
    let subject = Subject { name: name.parse().ok()?, labels, operator };
    Some(Certificate { serial: serial.try_into().ok()?, key: key.try_into().ok()?, subject, token, not_after, revoked_at })
}

/// For the fuzz target: what is read is the same after a round trip, and a certificate request is read or refused.
///
/// # Panics
/// When it is not.
#[cfg(feature = "fuzzing")]
pub fn check_any_bytes(bytes: &[u8]) {
    // Its signature is checked, so hardly any is right.
    drop(super::certificates::Request::read(bytes));
    if let Some(token) = decode_token(bytes) {
        assert!(decode_token(&encode_token(&token)).as_ref() == Some(&token), "{token:?}");
    }
    if let Some(certificate) = decode_certificate(bytes) {
        assert!(decode_certificate(&encode_certificate(&certificate)).as_ref() == Some(&certificate), "{certificate:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_certificates_are_the_same_after_a_round_trip() {
        let labels: BTreeMap<_, _> = [("zone".to_owned(), "a".to_owned())].into();
        let token = Token {
            hash: TokenHash([1; 32]),
            names: NamePattern::parse("fff-*").unwrap().unwrap(),
            labels: labels.clone(),
            operator: false,
            created_at: 1,
            expires_at: 2,
            uses: 3,
            used: 2,
            revoked: true,
            rejoin: true,
            hosts: vec!["registry.example".to_owned()],
        };
        assert_eq!(decode_token(&encode_token(&token)), Some(token));
        for token in [None, Some(TokenHash([5; 32]))] {
            let subject = Subject { name: "fff-c".parse().unwrap(), labels: labels.clone(), operator: true };
            let certificate = Certificate { serial: [1; 16], key: [2; 32], subject, token, not_after: 9, revoked_at: 4 };
            assert_eq!(decode_certificate(&encode_certificate(&certificate)), Some(certificate));
        }
        assert!(decode_token(b"\xff").is_none() && decode_certificate(b"").is_none());
    }
}
