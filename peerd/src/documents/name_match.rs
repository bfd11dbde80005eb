//! Compares document names: the one rule for shares, indexes, queries, searches and fetches.
//!
//! Two names are the same name if they are equal as a file system that ignores case compares them (APFS, NTFS): character by character, each
//! in lower case by Unicode's mapping for single characters, and whichever way letters with marks are written (macOS writes "é" as two
//! characters). Rules that look at more than one character are left out, since they would make different names equal or equal names different
//! by their place in a word: "ß" is not "ss", and both forms of the small sigma are one letter.
//!
//! A name that is written exactly as it was asked for comes before one that differs.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::cmp::Ordering;
use unicode_normalization::UnicodeNormalization as _;

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
    } else if compare_ignoring_case(wanted, name) == Ordering::Equal {
        Some(NameMatch::IgnoringCase)
    } else if wanted.is_ascii() && name.is_ascii() {
        None
    } else {
        (name_key(wanted) == name_key(name)).then_some(NameMatch::Normalized)
    }
}

/// The same for all names that match each other, and for no others: in lower case, and in normalization form C. Titles and patterns are
/// brought into the same form before they are compared.
pub fn name_key(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    // Decomposed first: equal for all ways to write a letter.
    name.nfd().flat_map(lower).nfc().collect()
}

/// The order of names without regard to case. Names that are equal here have the same [`name_key`].
pub(crate) fn compare_ignoring_case(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        return a.bytes().map(|c| c.to_ascii_lowercase()).cmp(b.bytes().map(|c| c.to_ascii_lowercase()));
    }
    a.chars().flat_map(lower).cmp(b.chars().flat_map(lower))
}

/// A character in lower case, wherever it stands in its word.
fn lower(c: char) -> impl Iterator<Item = char> {
    let c = if c == 'ς' { 'σ' } else { c };
    c.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn case_is_ignored_in_every_script_wherever_a_letter_stands() {
        for (a, b) in [("über.txt", "Über.txt"), ("ΟΔΟΣ.txt", "οδος.txt"), ("οδοσ", "οδος"), ("ДОМ", "дом"), ("\u{212a}", "k")]
        {
            assert_eq!(name_match(a, b), Some(NameMatch::IgnoringCase), "{a} {b}");
        }
        for (a, b) in [("straße", "STRASSE"), ("ı", "i"), ("ﬁ", "fi"), ("é", "e")] {
            assert_eq!(name_match(a, b), None, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn names_match_if_and_only_if_their_keys_are_equal(a in "[aAäÄéÉeEσςΣıIiİ\u{300}\u{301}\u{308}]{0,4}", b in "[aAäÄéÉeEσςΣıIiİ\u{300}\u{301}\u{308}]{0,4}") {
            prop_assert_eq!(name_match(&a, &b).is_some(), name_key(&a) == name_key(&b));
            prop_assert_eq!(name_match(&a, &b).is_some(), name_match(&b, &a).is_some());
        }

        #[test]
        fn a_name_matches_however_it_is_written(name in "\\PC{1,12}") {
            let (nfc, nfd): (String, String) = (name.nfc().collect(), name.nfd().collect());
            prop_assert!(name_match(&name, &nfc).is_some() && name_match(&nfc, &nfd).is_some());
        }
    }
}
