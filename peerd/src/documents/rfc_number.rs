//! The RFC number that a document's file name claims.
//!
//! The series publishes one memo under many names (`rfc48.txt`, `RFC0048.txt`, `rfc-48.html`,
//! `rfc1119.txt.pdf`, and mirrors add `.gz`), and people ask for it by number. A name counts when
//! it says nothing but the number, so that notes *about* RFC 48 (`rfc48bis-notes.txt`,
//! `rfc48-comments.txt`, `rfc48 (1).txt`) are never served as RFC 48.
//!
//! Pure: no I/O, no clock, no randomness of its own.

/// The series has four digits so far and will not pass six; a longer run is a date or a serial.
const DIGITS_MAX: usize = 6;

/// Endings that may follow another one: a rendering that was compressed, or the PDF that the RFC
/// Editor made of a text (`rfc1119.txt.pdf`).
const SECOND_ENDINGS: [&str; 8] = ["gz", "bz2", "xz", "zst", "z", "lz", "zip", "pdf"];

/// The RFC number in `file_name`, which may be a relative path.
///
/// Shape: `rfc` in any case, at most one of `-`, `_` and space, one to six digits, then the end or
/// an ending such as `.txt` or `.txt.gz`. Number 0 is no number.
pub fn rfc_number(file_name: &str) -> Option<u32> {
    let name = file_name.rsplit('/').next()?;
    let (prefix, rest) = name.split_at_checked(3)?;
    if !prefix.eq_ignore_ascii_case("rfc") {
        return None;
    }
    let rest = rest.strip_prefix(['-', '_', ' ']).unwrap_or(rest);
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, endings) = rest.split_at_checked(digits)?;
    if digits.len() > DIGITS_MAX || !are_endings(endings) {
        return None;
    }
    digits.parse().ok().filter(|&number| number != 0)
}

/// Whether what follows the number only says how the memo is rendered.
fn are_endings(rest: &str) -> bool {
    if rest.is_empty() {
        return true;
    }
    let Some(endings) = rest.strip_prefix('.') else {
        return false;
    };
    let is_ending = |ending: &str| !ending.is_empty() && ending.bytes().all(|b| b.is_ascii_alphanumeric());
    match endings.split_once('.') {
        None => is_ending(endings),
        Some((first, second)) => is_ending(first) && SECOND_ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(second)),
    }
}

#[cfg(test)]
mod tests {
    use super::rfc_number;

    #[test]
    fn a_name_that_says_nothing_but_the_number_has_it() {
        for name in [
            "rfc48.txt",
            "RFC0048.txt",
            "Rfc48",
            "rfc-48.html",
            "rfc_48.pdf",
            "rfc 48.txt",
            "rfc48.txt.gz",
            "rfc48.txt.pdf",
            "rfc000048.xml",
            "old/series/rfc48.txt",
        ] {
            assert_eq!(rfc_number(name), Some(48), "{name}");
        }
        assert_eq!(rfc_number("rfc9110.txt"), Some(9110));
        assert_eq!(rfc_number("rfc999999.txt"), Some(999_999));
    }

    #[test]
    fn a_name_that_says_more_than_the_number_has_none() {
        for name in [
            "rfc48bis-notes.txt",
            "rfc48-notes.txt",
            "rfc48 (1).txt",
            "rfc48.txt~",
            "rfc48.v2.txt",
            "rfc48.",
            "myrfc48.txt",
            "std13.txt",
            "draft-ietf-quic-transport-34.txt",
            "rfc48.txt/notes.txt",
        ] {
            assert_eq!(rfc_number(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_without_a_possible_number_has_none() {
        for name in [
            "",
            "rf",
            "rfc",
            "rfc.txt",
            "rfc-.txt",
            "rfc0.txt",
            "rfc0000.txt",
            "rfc1234567.txt",
            "rfc--48.txt",
            "rfc-index.txt",
            "rfc٤٨.txt",
            "ŕfc48.txt",
        ] {
            assert_eq!(rfc_number(name), None, "{name}");
        }
    }
}
