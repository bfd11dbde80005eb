//! Parsers of values on the command line.

use bytesize::ByteSize;
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    endpoint::Endpoint,
    field::{InvalidField, Quoted},
    name::PeerName,
    selector::validate_labels,
};
use peerd::{
    Bootnode,
    documents::{pattern::DocumentPattern, selector::DocumentSelector, wanted::Wanted},
    mesh::check_wait,
    transfer::ZONE_LABEL,
};
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

/// A value of the label `zone`; empty: none.
pub(super) fn parse_zone(text: &str) -> Result<String, InvalidField> {
    let label = [(ZONE_LABEL.to_owned(), text.to_owned())];
    validate_labels(&label.into()).map_err(|error| error.in_field("zone"))?;
    Ok(text.to_owned())
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

/// Documents: as [`Wanted::parse`] reads them, and two forms more.
pub(super) fn parse_wanted(text: &str) -> Result<Wanted, InvalidField> {
    // As for a file of a shell: it makes a name of what would be a hash or a pattern.
    if let Some(name) = text.strip_prefix("./") {
        return DocumentName::parse(name).map(|name| Wanted::One(DocumentSelector::Name(name)));
    }
    // The form in which `b3sum` prints a hash.
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return text.parse().map(|hash| Wanted::One(DocumentSelector::Hash(hash)));
    }
    Wanted::parse(text)
}

/// One document.
pub(super) fn parse_document(text: &str) -> Result<DocumentSelector, InvalidField> {
    match parse_wanted(text)? {
        Wanted::One(document) => Ok(document),
        Wanted::Matching(pattern) => Err(InvalidField::new(
            "document",
            format!(
                "{} is a pattern; name one document, or write ./ before a name with such characters",
                Quoted(pattern.as_str())
            ),
        )),
    }
}

pub(super) fn parse_pattern(text: &str) -> Result<DocumentPattern, InvalidField> {
    DocumentPattern::parse(text)
}

/// Bytes a second, such as 10MiB or 10MiB/s.
pub(super) fn parse_rate(text: &str) -> Result<u64, String> {
    let size: Option<ByteSize> = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    match size.map(|size| size.as_u64()) {
        Some(0) => Err("is 0, which would move nothing; give a rate such as 1MiB".to_owned()),
        Some(rate) => Ok(rate),
        None => Err("write a rate such as 500KB, 10MiB or 1.5GiB, or a number of bytes a second".to_owned()),
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
    fn a_bare_hash_is_a_hash_and_a_dot_and_slash_make_a_name_of_anything() {
        let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        for text in [hash.to_owned(), format!("b3:{hash}")] {
            assert!(matches!(parse_document(&text), Ok(DocumentSelector::Hash(found)) if found.to_string() == hash), "{text}");
        }
        for name in [hash, "a[1].txt", "50%*.txt"] {
            let read = parse_document(&format!("./{name}"));
            assert!(matches!(&read, Ok(DocumentSelector::Name(read)) if read.as_str() == name), "{read:?}");
        }
        for text in [&hash[1..], "rfc48.txt"] {
            assert!(matches!(parse_document(text), Ok(DocumentSelector::Name(_))), "{text}");
        }
        assert!(matches!(parse_wanted("rfc*"), Ok(Wanted::Matching(_))));
        assert!(parse_document("rfc*").unwrap_err().to_string().contains("is a pattern"));
    }

    #[test]
    fn a_rate_is_a_size_a_second() {
        assert_eq!(parse_rate("10MiB"), Ok(10 << 20));
        assert_eq!(parse_rate("1KB/s"), Ok(1_000));
        for text in ["", "0", "fast", "-1", "10MiB/m"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
