//! Labels of a peer in one allocation.

use std::{borrow::Cow, collections::BTreeMap};

/// Packed labels: for each the key's length, the key, the value's length, the value. No labels take no memory of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels<'a>(Cow<'a, [u8]>);

impl<'a> Labels<'a> {
    /// Packs validated labels: at most 16, none longer than 63 bytes.
    pub fn pack(labels: &BTreeMap<String, String>) -> Self {
        let mut packed = Vec::with_capacity(labels.iter().map(|(key, value)| key.len() + value.len() + 2).sum());
        for string in labels.iter().flat_map(|(key, value)| [key, value]) {
            packed.push(u8::try_from(string.len()).unwrap_or(u8::MAX));
            packed.extend_from_slice(&string.as_bytes()[..string.len().min(usize::from(u8::MAX))]);
        }
        Self(packed.into())
    }

    /// The packed form, as stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Labels from their packed form; `None` when it is malformed.
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (mut rest, mut strings) = (bytes, 0);
        while !rest.is_empty() {
            rest = next(rest)?.1;
            strings += 1;
        }
        (strings % 2 == 0).then_some(Self::trusted(bytes))
    }

    /// Labels from a packed form that [`Labels::from_bytes`] accepted before.
    pub(super) fn trusted(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }

    /// All labels, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (key, after) = next(rest)?;
            let (value, after) = next(after)?;
            rest = after;
            Some((key, value))
        })
    }

    /// Whether all of `wanted` are among these labels.
    pub fn contain(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(key, value)| self.iter().any(|(k, v)| k == key && v == value))
    }
}

/// The first string, and the bytes after it.
fn next(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_labels_unpack_to_the_same_labels() {
        let labels = BTreeMap::from([("zone".to_owned(), "eu-1".to_owned()), ("empty".to_owned(), String::new())]);
        let packed = Labels::pack(&labels);
        let again = Labels::from_bytes(packed.as_bytes()).unwrap();
        assert_eq!(again.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>(), labels);
        assert!(again.contain(&labels) && again.contain(&BTreeMap::new()));
        assert!(!again.contain(&BTreeMap::from([("zone".to_owned(), "eu-2".to_owned())])));
    }

    #[test]
    fn malformed_packed_labels_are_refused() {
        for bytes in [&[5, b'a'][..], &[1, b'a'], &[1, 0xff, 0]] {
            assert_eq!(Labels::from_bytes(bytes), None, "{bytes:?}");
        }
    }
}
