//! Words that select documents by name and title.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::name_match::name_key;
use p2pdi::field::InvalidField;

/// Longest text of words, in bytes: every title that this peer extracts fits.
pub const WORDS_MAX_BYTES: usize = 256;

/// Words that a text must contain, all of them, anywhere and in any order. They are compared as [`name_key`] does.
#[derive(Debug, Clone, Default)]
pub struct SearchWords(Vec<String>);

impl SearchWords {
    /// The words of `text`, which is the value of `field`. Without any, every text has them.
    ///
    /// # Errors
    /// When it is too long.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, InvalidField> {
        if text.len() > WORDS_MAX_BYTES {
            return Err(InvalidField::new(field, format!("{} bytes long; at most {WORDS_MAX_BYTES} fit", text.len())));
        }
        Ok(Self(text.split_whitespace().map(name_key).collect()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether each is in one of `texts`.
    pub fn are_in(&self, texts: &[&str]) -> bool {
        let keys: Vec<_> = texts.iter().map(|text| name_key(text)).collect();
        self.are_in_keys(&keys.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same for texts that are keys already.
    pub(crate) fn are_in_keys(&self, keys: &[&str]) -> bool {
        self.0.iter().all(|word| keys.iter().any(|key| key.contains(word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_in_the_name_or_in_the_title() {
        let words = SearchWords::parse("words", " Übung  RFC").unwrap();
        assert!(words.are_in(&["rfc1.txt", "eine übung"]) && words.are_in(&["u\u{308}bung/rfc"]));
        assert!(!words.are_in(&["rfc1.txt", "a title"]));
        assert!(SearchWords::parse("words", " ").unwrap().are_in(&[]));
        assert!(SearchWords::parse("words", &"x".repeat(257)).unwrap_err().to_string().contains("at most 256"));
    }
}
