//! Parsers of values on the command line.

use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    endpoint::Endpoint,
    field::{InvalidField, Quoted},
    name::PeerName,
};
use peerd::{Bootnode, mesh::check_wait};
use std::time::Duration;

pub(super) fn parse_peer(text: &str) -> Result<Bootnode, InvalidField> {
    text.parse().map_err(|error: InvalidField| error.in_field("peer"))
}

pub(super) fn parse_wait(text: &str) -> Result<Duration, String> {
    match parse_wait_or_none(text) {
        Ok(Duration::ZERO) => Err("no peer can answer within 0s; give a longer wait such as 2s".to_owned()),
        parsed => parsed,
    }
}

pub(super) fn parse_wait_or_none(text: &str) -> Result<Duration, String> {
    if text.trim_start().starts_with('-') {
        return Err("a wait cannot be negative; give a duration such as 2s".to_owned());
    }
    let wait = humantime::parse_duration(text).map_err(|error| format!("{error}; give a duration such as 2s"))?;
    check_wait(wait).map_err(|error| error.problem)?;
    Ok(wait)
}

/// A document by name or by hash.
#[derive(Debug, Clone)]
pub(crate) enum DocumentRef {
    Name(DocumentName),
    Hash(ContentHash),
}

/// Parses an RFC's number as people write it: 48, rfc48, RFC0048, rfc48.txt.
pub(super) fn parse_rfc(text: &str) -> Result<u32, String> {
    let rest = match text.get(..3) {
        Some(prefix) if prefix.eq_ignore_ascii_case("rfc") => text[3..].strip_suffix(".txt").unwrap_or(&text[3..]),
        _ => text,
    };
    let number = if rest.bytes().all(|b| b.is_ascii_digit()) { rest.parse().ok() } else { None };
    number.filter(|number| *number > 0).ok_or_else(|| "write an RFC's number, 1 or more, such as 48 or rfc48".to_owned())
}

/// A peer by its name or its address; what can be neither is refused.
pub(super) fn parse_source(text: &str) -> Result<String, InvalidField> {
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err(InvalidField::new(
            "from",
            format!("{} is a URL; name a peer, or its address alone: {}", Quoted(text), Quoted(rest)),
        ));
    }
    match text.contains(':') {
        true => text.parse::<Endpoint>().map(drop),
        false => text.parse::<PeerName>().map(drop),
    }
    .map_err(|error| error.in_field("from"))?;
    Ok(text.to_owned())
}

pub(super) fn parse_document(text: &str) -> Result<DocumentRef, InvalidField> {
    // The form in which `b3sum` prints a hash.
    let bare = Some(text).filter(|text| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()));
    match text.strip_prefix("b3:").or(bare) {
        Some(hash) => hash.parse().map(DocumentRef::Hash),
        // As for a file of a shell: it makes a name of what would be a hash.
        None => DocumentName::parse(text.strip_prefix("./").unwrap_or(text)).map(DocumentRef::Name),
    }
}

pub(super) fn parse_hash(text: &str) -> Result<ContentHash, InvalidField> {
    text.strip_prefix("b3:").unwrap_or(text).parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rfc_is_written_as_people_write_it() {
        for text in ["48", "rfc48", "RFC0048", "rfc48.txt", "Rfc48"] {
            assert_eq!(parse_rfc(text), Ok(48), "{text}");
        }
        for text in ["", "0", "rfc", "rfc0", "-1", "+48", "48.txt", "rfc 48", "rfcé", "bcp9", "99999999999"] {
            assert!(parse_rfc(text).unwrap_err().contains("such as 48 or rfc48"), "{text}");
        }
    }

    #[test]
    fn a_bare_hash_is_a_hash() {
        let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        for text in [hash.to_owned(), format!("b3:{hash}")] {
            assert!(matches!(parse_document(&text), Ok(DocumentRef::Hash(found)) if found.to_string() == hash), "{text}");
        }
        let named = format!("./{hash}");
        assert!(matches!(parse_document(&named), Ok(DocumentRef::Name(name)) if name.as_str() == hash));
        for text in [&hash[1..], "rfc48.txt"] {
            assert!(matches!(parse_document(text), Ok(DocumentRef::Name(_))), "{text}");
        }
    }
}
