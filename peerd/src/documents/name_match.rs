//! Compares document names: exactly, ignoring case, and ignoring how letters with marks are written (macOS writes "é" as two characters).
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

/// How closely a name matches the one that was asked for; the closest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameMatch {
    /// The same bytes.
    Exact,
    /// They differ in case.
    IgnoringCase,
    /// They differ in how letters with marks are written, and perhaps in case.
    Normalized,
}

/// How `name` matches `wanted`; `None` if it is another name.
pub fn name_match(wanted: &str, name: &str) -> Option<NameMatch> {
    if wanted == name {
        Some(NameMatch::Exact)
    } else if wanted.eq_ignore_ascii_case(name) || (!(wanted.is_ascii() && name.is_ascii()) && lower(wanted) == lower(name)) {
        Some(NameMatch::IgnoringCase)
    } else if wanted.is_ascii() && name.is_ascii() {
        None
    } else {
        (name_key(wanted) == name_key(name)).then_some(NameMatch::Normalized)
    }
}

/// The same for all names that match each other: in lower case, and in normalization form C.
pub(crate) fn name_key(name: &str) -> String {
    if name.is_ascii() { name.to_ascii_lowercase() } else { composed(&lower(name)).into_owned() }
}

fn lower(name: &str) -> String {
    name.to_lowercase()
}

fn composed(name: &str) -> Cow<'_, str> {
    match is_nfc_quick(name.chars()) {
        IsNormalized::Yes => Cow::Borrowed(name),
        _ => Cow::Owned(name.nfc().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_is_closer_than_case_and_case_closer_than_normalized() {
        let (nfc, nfd) = ("R\u{e9}sum\u{e9}.txt", "Re\u{301}sume\u{301}.txt");
        assert_eq!(name_match(nfc, nfc), Some(NameMatch::Exact));
        assert_eq!(name_match(nfc, "r\u{c9}SUM\u{e9}.TXT"), Some(NameMatch::IgnoringCase));
        assert_eq!(name_match(nfc, nfd), Some(NameMatch::Normalized));
        assert_eq!(name_match(nfd, "R\u{c9}SUM\u{c9}.txt"), Some(NameMatch::Normalized));
        assert_eq!(name_match(nfc, "Resume.txt"), None);
        assert_eq!(name_match("a", "b"), None);
        assert!(NameMatch::Exact < NameMatch::IgnoringCase && NameMatch::IgnoringCase < NameMatch::Normalized);
    }
}
