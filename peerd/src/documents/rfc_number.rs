//! The RFC number in a file name.
//!
//! RFCs are published under many file names (`rfc48.txt`, `RFC0048.txt`, `rfc-48.html`,
//! `rfc1119.txt.pdf`, and mirrors add `.gz`), and users ask for them by number. A name counts only if it
//! has nothing but the number, so that notes *about* RFC 48 (`rfc48bis-notes.txt`,
//! `rfc48-comments.txt`, `rfc48 (1).txt`) are never served as RFC 48.
//!
//! Pure: no I/O, no clock, no randomness of its own.

/// RFC numbers have four digits today. A run of more than six digits is a date or a serial number.
const DIGITS_MAX: usize = 6;

/// Extensions that can follow another one: a compressed file, or a PDF that the RFC Editor made from the text (`rfc1119.txt.pdf`).
const SECOND_EXTENSIONS: [&str; 8] = ["gz", "bz2", "xz", "zst", "z", "lz", "zip", "pdf"];

/// The RFC number in `file_name`, which can be a relative path.
///
/// Format: `rfc` in any case, at most one of `-`, `_` and space, one to six digits, then nothing or
/// an extension such as `.txt` or `.txt.gz`. 0 is not an RFC number.
pub fn rfc_number(file_name: &str) -> Option<u32> {
    let name = file_name.rsplit('/').next()?;
    let (prefix, rest) = name.split_at_checked(3)?;
    if !prefix.eq_ignore_ascii_case("rfc") {
        return None;
    }
    let rest = rest.strip_prefix(['-', '_', ' ']).unwrap_or(rest);
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, extensions) = rest.split_at_checked(digits)?;
    if digits.len() > DIGITS_MAX || !are_extensions(extensions) {
        return None;
    }
    digits.parse().ok().filter(|&number| number != 0)
}

/// Whether `rest` is empty or only file extensions.
fn are_extensions(rest: &str) -> bool {
    if rest.is_empty() {
        return true;
    }
    let Some(extensions) = rest.strip_prefix('.') else {
        return false;
    };
    let is_extension = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    match extensions.split_once('.') {
        None => is_extension(extensions),
        Some((first, second)) => is_extension(first) && SECOND_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(second)),
    }
}

#[cfg(test)]
mod tests {
    use super::rfc_number;

    #[test]
    fn a_name_with_only_a_number_gives_that_number() {
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
    fn a_name_with_more_than_a_number_gives_none() {
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
    fn a_name_without_a_valid_number_gives_none() {
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
