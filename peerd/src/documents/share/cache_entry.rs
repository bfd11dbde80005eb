//! How the cache stores one file: its fingerprint, hash and title, with a checksum.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::document::{Fingerprint, SharedDocument};
use p2pdi::content::{ContentHash, HASH_BYTES};

/// Raise it when the `title` module gives other titles than before. Cached titles are then extracted again, without hashing.
const TITLE_RULES: u32 = 1;

/// A cached file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CachedFile {
    pub(super) hash: ContentHash,
    /// `None` if it was extracted under other [`TITLE_RULES`].
    pub(super) title: Option<Box<str>>,
}

const CHECKSUM_BYTES: usize = 8;

/// Layout of an entry: checksum, fingerprint, hash, title rules, title.
pub(super) fn encode(document: &SharedDocument) -> Vec<u8> {
    let mut value = vec![0; CHECKSUM_BYTES];
    let fingerprint = &document.fingerprint;
    value.extend(fingerprint.size.to_le_bytes());
    value.extend(fingerprint.inode.to_le_bytes());
    value.extend(fingerprint.modified_ns.to_le_bytes());
    value.extend(fingerprint.changed_ns.to_le_bytes());
    value.extend(document.hash.as_bytes());
    value.extend(TITLE_RULES.to_le_bytes());
    value.extend(document.title.as_bytes());
    let checksum = checksum(document.name.as_str(), value.get(CHECKSUM_BYTES..).unwrap_or_default());
    value.splice(..CHECKSUM_BYTES, checksum);
    value
}

pub(super) fn decode(name: &str, value: &[u8]) -> Option<(Fingerprint, CachedFile)> {
    let (stored, value) = value.split_first_chunk::<CHECKSUM_BYTES>()?;
    if *stored != checksum(name, value) {
        return None;
    }
    let (size, value) = value.split_first_chunk()?;
    let (inode, value) = value.split_first_chunk()?;
    let (modified, value) = value.split_first_chunk()?;
    let (changed, value) = value.split_first_chunk()?;
    let (hash, value) = value.split_first_chunk::<HASH_BYTES>()?;
    let (rules, title) = value.split_first_chunk()?;
    let fingerprint = Fingerprint {
        size: u64::from_le_bytes(*size),
        inode: u64::from_le_bytes(*inode),
        modified_ns: i64::from_le_bytes(*modified),
        changed_ns: i64::from_le_bytes(*changed),
    };
    let title = (u32::from_le_bytes(*rules) == TITLE_RULES).then(|| std::str::from_utf8(title).map(Box::from).ok()).flatten();
    Some((fingerprint, CachedFile { hash: ContentHash::from_bytes(*hash), title }))
}

fn checksum(name: &str, value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut bytes = Vec::with_capacity(name.len() + 1 + value.len());
    bytes.extend(name.as_bytes());
    bytes.push(0);
    bytes.extend(value);
    ContentHash::of(&bytes).as_bytes().first_chunk().copied().unwrap_or_default()
}

/// For any bytes in place of an entry: reading them does not panic, with the right checksum or a wrong one, and what is read is
/// written again as the same bytes. For tests and fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::expect_used, reason = "what it finds is a fault")]
pub fn check_any_entry(bytes: &[u8]) {
    const NAME: &str = "a/document.txt";
    let _refused = decode(NAME, bytes);
    let value = [checksum(NAME, bytes).as_slice(), bytes].concat();
    let Some((fingerprint, CachedFile { hash, title })) = decode(NAME, &value) else { return };
    if let Some(title) = title {
        let name = p2pdi::document::DocumentName::parse(NAME).expect("a valid name");
        let document = SharedDocument {
            name,
            number: None,
            title,
            size: fingerprint.size,
            hash,
            modified: fingerprint.modified(),
            fingerprint,
        };
        assert_eq!(encode(&document), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn any_bytes_are_read_as_an_entry_or_refused(bytes in vec(any::<u8>(), 0..120)) {
            check_any_entry(&bytes);
        }

        #[test]
        fn any_title_is_read_or_made_again(fixed in vec(any::<u8>(), 64), title in vec(any::<u8>(), 0..6)) {
            check_any_entry(&[fixed.as_slice(), &TITLE_RULES.to_le_bytes(), &title].concat());
        }
    }
}
