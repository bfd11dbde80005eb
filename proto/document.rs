//! Names of documents, from a share or from the network.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::field::{InvalidField, Quoted, is_terminal_control};
use std::{fmt, path::PathBuf, sync::Arc};

/// Longest document name, in bytes: fits every usual file system's path limit with room for the folder it goes to.
pub const DOCUMENT_NAME_MAX_BYTES: usize = 1024;
/// Longest part of a document name, in bytes: less than the 255 that file systems allow, so that a temporary file's name, which
/// is longer than the document's, fits too.
pub const DOCUMENT_NAME_PART_MAX_BYTES: usize = 200;
/// Most parts of a document name: deeper trees exist, but people do not make them.
pub const DOCUMENT_NAME_PARTS_MAX: usize = 32;
/// Longest title, in bytes; longer ones are cut when they are made and refused when they come from others.
pub const TITLE_MAX_BYTES: usize = 512;

/// A document's name: a relative path with `/` between its parts that cannot lead outside a folder. No part is empty,
/// `.`, `..`, hidden, or has a backslash, a colon or a control character.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentName(Arc<str>);

impl DocumentName {
    /// Checks a name of a file below a share, or from another peer's listing.
    ///
    /// # Errors
    /// Names the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: &str| Err(InvalidField::new("name", format!("document name {} {problem}", Quoted(text))));
        if text.is_empty() {
            return wrong("is empty");
        }
        if text.len() > DOCUMENT_NAME_MAX_BYTES {
            return wrong("is too long (1,024 bytes at most)");
        }
        if text.starts_with('/') {
            return wrong("is an absolute path; names are relative to the share");
        }
        if text.chars().any(is_terminal_control) {
            return wrong("has control characters");
        }
        if text.contains(['\\', ':']) {
            return wrong("has a backslash or a colon, which some systems take for a path of their own");
        }
        for (index, part) in text.split('/').enumerate() {
            if part.is_empty() {
                return wrong("has an empty part");
            }
            if part == "." || part == ".." {
                return wrong("has a . or .. part, which could lead outside the folder");
            }
            if part.starts_with('.') {
                return wrong("has a hidden part; hidden files are not shared");
            }
            if part.len() > DOCUMENT_NAME_PART_MAX_BYTES {
                return wrong("has a part of more than 200 bytes");
            }
            if index >= DOCUMENT_NAME_PARTS_MAX {
                return wrong("has more than 32 parts");
            }
        }
        Ok(Self(text.into()))
    }

    /// The name, `/` between its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The name as a relative path of this system, for joining to a folder.
    pub fn to_relative_path(&self) -> PathBuf {
        self.0.split('/').collect()
    }
}

impl fmt::Display for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_paths_are_document_names() {
        for text in ["rfc48.txt", "a/b/c.bin", "Übersicht 2026.pdf", "weird ~ but fine"] {
            let name = DocumentName::parse(text).unwrap();
            assert_eq!(name.as_str(), text);
        }
        assert_eq!(DocumentName::parse("a/b.txt").unwrap().file_name(), "b.txt");
    }

    #[test]
    fn names_that_could_lead_outside_the_share_are_refused() {
        for text in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "./a",
            "a/.",
            "..\\x",
            "C:x",
            "a\0b",
            "a\nb",
            "a\u{202e}b",
            ".ssh/id",
            "a/.git/x",
            "a/",
            &"x".repeat(201),
            &"x/".repeat(600),
            &"a/".repeat(40),
        ] {
            assert!(DocumentName::parse(text).is_err(), "{text:?}");
        }
    }
}
