//! A document's metadata, validated when it comes from another peer.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::documents::rfc_number::rfc_number;
use p2pdi::{
    content::{ContentHash, Pieces},
    document::{DocumentName, TITLE_MAX_BYTES},
    field::{InvalidField, is_terminal_control},
    v1,
};
use std::time::SystemTime;

/// Metadata of a document, as an index lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentInfo {
    /// Path below the share.
    pub name: DocumentName,
    /// RFC number, if the file name has one.
    pub number: Option<u32>,
    /// Its title.
    pub title: String,
    /// Size, and how the document is cut into pieces.
    pub pieces: Pieces,
    /// BLAKE3 of the whole.
    pub hash: ContentHash,
    /// When the file was last changed.
    pub modified: Option<SystemTime>,
    /// Whoever said this has it for some peers only, and it is not to be passed on.
    pub restricted: bool,
}

impl DocumentInfo {
    /// Bytes of the document.
    pub fn size(&self) -> u64 {
        self.pieces.size()
    }
}

/// A title without what could steer a terminal.
pub(super) fn printable_title(title: &str) -> String {
    title.chars().map(|c| if is_terminal_control(c) { ' ' } else { c }).collect()
}

impl TryFrom<v1::Document> for DocumentInfo {
    type Error = InvalidField;

    fn try_from(from: v1::Document) -> Result<Self, InvalidField> {
        if from.title.len() > TITLE_MAX_BYTES {
            return Err(InvalidField::new("title", format!("{} bytes long; at most {TITLE_MAX_BYTES} fit", from.title.len())));
        }
        let name = DocumentName::parse(&from.name)?;
        if from.number != 0 && rfc_number(name.file_name()) != Some(from.number) {
            return Err(InvalidField::new("number", format!("{} is not the number in the file name {name}", from.number)));
        }
        Ok(Self {
            name,
            number: (from.number != 0).then_some(from.number),
            title: printable_title(&from.title),
            pieces: Pieces::of_size(from.size)?,
            hash: ContentHash::from_field(&from.blake3)?,
            modified: from
                .modified_at
                .filter(|at| (0..1_000_000_000).contains(&at.nanos))
                .and_then(|at| SystemTime::try_from(at).ok()),
            restricted: from.restricted,
        })
    }
}

impl From<&DocumentInfo> for v1::Document {
    fn from(info: &DocumentInfo) -> Self {
        Self {
            name: info.name.to_string(),
            number: info.number.unwrap_or(0),
            title: info.title.clone(),
            size: info.size(),
            blake3: info.hash.to_field(),
            modified_at: info.modified.map(Into::into),
            restricted: info.restricted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_from_the_network_cannot_steer_a_terminal() {
        let document = v1::Document {
            name: "a.txt".into(),
            title: "A\u{1b}[31m \u{202e}title\u{2066}".into(),
            size: 1,
            blake3: ContentHash::of(b"a").to_field(),
            ..Default::default()
        };
        assert_eq!(DocumentInfo::try_from(document).unwrap().title, "A [31m  title ");
    }
}
