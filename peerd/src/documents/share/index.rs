//! An immutable index of the peer's own documents.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::document::SharedDocument;
use crate::documents::name_match::{compare_ignoring_case, name_key, name_match};
use p2pdi::content::ContentHash;
use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

/// Documents to add or replace, or to withdraw (`None`), by name.
pub(super) type Changes = BTreeMap<Box<str>, Option<Arc<SharedDocument>>>;

/// A snapshot of the peer's own documents. [`super::Share::index`] returns the latest one.
#[derive(Debug, Clone, Default)]
pub struct Index {
    version: u64,
    complete: bool,
    bytes: u64,
    /// Sum of all documents' digests, so that a change costs only its own size.
    digest: u128,
    /// Sorted by name ignoring case, then by exact name.
    by_name: Vec<Arc<SharedDocument>>,
    /// Those with a number; sorted by number, then as `by_name`.
    by_number: Vec<Arc<SharedDocument>>,
    /// Sorted by hash, then as `by_name`.
    by_hash: Vec<Arc<SharedDocument>>,
    /// Those whose names are not ASCII, by [`name_key`], then as `by_name`.
    by_key: Vec<(Box<str>, Arc<SharedDocument>)>,
}

impl Index {
    /// Grows with every change, also across restarts. 0 until the first scan; a request with `if_version` 0 asks for everything, so no
    /// peer keeps the empty index of a peer that has just started.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether every file of the share is in it: a document that is missing is not there any more.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// All documents, sorted by name ignoring case.
    pub fn documents(&self) -> &[Arc<SharedDocument>] {
        &self.by_name
    }

    /// How many documents.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Bytes of all documents.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All documents with this RFC number, by name.
    pub fn by_number(&self, number: u32) -> &[Arc<SharedDocument>] {
        equal_range(&self.by_number, |document| document.number.cmp(&Some(number)))
    }

    /// All documents with this content, by name.
    pub fn by_hash(&self, hash: &ContentHash) -> &[Arc<SharedDocument>] {
        equal_range(&self.by_hash, |document| document.hash.cmp(hash))
    }

    /// The document with this name: the closest match, and of several the first.
    pub fn by_name(&self, name: &str) -> Option<&Arc<SharedDocument>> {
        let same_case = equal_range(&self.by_name, |document| compare_ignoring_case(document.name.as_str(), name));
        let candidates = same_case.iter().chain(self.by_key(name));
        candidates.min_by_key(|document| {
            let closeness = name_match(name, document.name.as_str());
            (closeness.is_none(), closeness)
        })
    }

    /// The documents whose names have the same key, of those whose names are not ASCII.
    fn by_key(&self, name: &str) -> impl Iterator<Item = &Arc<SharedDocument>> {
        let key = name_key(name);
        let start = self.by_key.partition_point(|(other, _)| **other < *key);
        let rest = self.by_key.get(start..).unwrap_or_default();
        rest.iter().take_while(move |(other, _)| **other == *key).map(|(_, document)| document)
    }

    pub(super) fn digest(&self) -> u128 {
        self.digest
    }

    /// The index after `changes`, with the same version. Costs little more than copying three lists of pointers.
    pub(super) fn with(&self, changes: &Changes) -> Self {
        let mut added: Vec<_> = changes.values().flatten().cloned().collect();
        added.sort_by(|a, b| in_name_order(a, b));
        let by_name = merged(&self.by_name, &added, changes, in_name_order);
        added.sort_by(|a, b| in_hash_order(a, b));
        let by_hash = merged(&self.by_hash, &added, changes, in_hash_order);
        added.retain(|document| document.number.is_some());
        added.sort_by(|a, b| in_number_order(a, b));
        let by_number = merged(&self.by_number, &added, changes, in_number_order);

        let by_key = if changes.keys().all(|name| name.is_ascii()) { self.by_key.clone() } else { keyed(&by_name) };
        let mut next = Self {
            version: self.version,
            complete: self.complete,
            bytes: self.bytes,
            digest: self.digest,
            by_name,
            by_number,
            by_hash,
            by_key,
        };
        for name in changes.keys() {
            let found = self.by_name.binary_search_by(|document| name_order(document.name.as_str(), name));
            if let Some(old) = found.ok().and_then(|index| self.by_name.get(index)) {
                next.bytes -= old.size;
                next.digest = next.digest.wrapping_sub(old.digest());
            }
        }
        for new in changes.values().flatten() {
            next.bytes += new.size;
            next.digest = next.digest.wrapping_add(new.digest());
        }
        next
    }

    pub(super) fn at_version(self, version: u64, complete: bool) -> Self {
        Self { version, complete, ..self }
    }
}

fn keyed(by_name: &[Arc<SharedDocument>]) -> Vec<(Box<str>, Arc<SharedDocument>)> {
    let others = by_name.iter().filter(|document| !document.name.as_str().is_ascii());
    let mut keyed: Vec<_> =
        others.map(|document| (name_key(document.name.as_str()).into_boxed_str(), Arc::clone(document))).collect();
    // Stable, so that equal keys stay in the order of names.
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    keyed
}

fn in_name_order(a: &SharedDocument, b: &SharedDocument) -> Ordering {
    name_order(a.name.as_str(), b.name.as_str())
}

fn in_number_order(a: &SharedDocument, b: &SharedDocument) -> Ordering {
    a.number.cmp(&b.number).then_with(|| in_name_order(a, b))
}

fn in_hash_order(a: &SharedDocument, b: &SharedDocument) -> Ordering {
    a.hash.cmp(&b.hash).then_with(|| in_name_order(a, b))
}

fn name_order(a: &str, b: &str) -> Ordering {
    compare_ignoring_case(a, b).then_with(|| a.cmp(b))
}

fn equal_range(sorted: &[Arc<SharedDocument>], order: impl Fn(&SharedDocument) -> Ordering) -> &[Arc<SharedDocument>] {
    let start = sorted.partition_point(|document| order(document) == Ordering::Less);
    let rest = sorted.get(start..).unwrap_or_default();
    let end = rest.partition_point(|document| order(document) == Ordering::Equal);
    rest.get(..end).unwrap_or_default()
}

/// Merges `added` into `old` without the documents that `changes` names. Both are sorted by `order`.
fn merged(
    old: &[Arc<SharedDocument>],
    added: &[Arc<SharedDocument>],
    changes: &Changes,
    order: fn(&SharedDocument, &SharedDocument) -> Ordering,
) -> Vec<Arc<SharedDocument>> {
    let mut all = Vec::with_capacity(old.len() + added.len());
    let mut added = added.iter().peekable();
    for kept in old.iter().filter(|document| !changes.contains_key(document.name.as_str())) {
        while let Some(new) = added.next_if(|new| order(new, kept) == Ordering::Less) {
            all.push(Arc::clone(new));
        }
        all.push(Arc::clone(kept));
    }
    all.extend(added.cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::share::document::Fingerprint;
    use p2pdi::document::DocumentName;

    fn document(name: &str, number: Option<u32>, content: &[u8]) -> Arc<SharedDocument> {
        let fingerprint = Fingerprint { size: content.len() as u64, inode: 1, modified_ns: 5, changed_ns: 6 };
        Arc::new(SharedDocument {
            name: DocumentName::parse(name).unwrap(),
            number,
            title: name.into(),
            size: content.len() as u64,
            hash: ContentHash::of(content),
            modified: fingerprint.modified(),
            fingerprint,
        })
    }

    fn adding(documents: &[Arc<SharedDocument>]) -> Changes {
        documents.iter().map(|document| (document.name.as_str().into(), Some(Arc::clone(document)))).collect()
    }

    fn names(documents: &[Arc<SharedDocument>]) -> Vec<&str> {
        documents.iter().map(|document| document.name.as_str()).collect()
    }

    #[test]
    fn documents_are_found_by_name_number_and_hash() {
        let all = [
            document("b.txt", None, b"b"),
            document("RFC1.txt", Some(1), b"one"),
            document("rfc1.html", Some(1), b"<one>"),
            document("rfc2.txt", Some(2), b"two"),
            document("copy/of/rfc2.txt", Some(2), b"two"),
            document("Ärger.txt", None, b""),
        ];
        let index = Index::default().with(&adding(&all));
        assert_eq!(names(index.documents()), ["b.txt", "copy/of/rfc2.txt", "rfc1.html", "RFC1.txt", "rfc2.txt", "Ärger.txt"]);
        assert_eq!(names(index.by_number(1)), ["rfc1.html", "RFC1.txt"]);
        assert_eq!(names(index.by_hash(&ContentHash::of(b"two"))), ["copy/of/rfc2.txt", "rfc2.txt"]);
        assert_eq!(index.by_name("rfc1.TXT").unwrap().name.as_str(), "RFC1.txt");
        assert_eq!(index.by_name("ärger.TXT").unwrap().name.as_str(), "Ärger.txt");
        assert!(index.by_name("rfc3.txt").is_none() && index.by_number(3).is_empty());
        assert_eq!((index.len(), index.bytes()), (6, 1 + 3 + 5 + 3 + 3));
    }

    #[test]
    fn a_composed_name_finds_the_decomposed_file_and_an_exact_name_wins() {
        let (nfc, nfd) = ("r\u{e9}sum\u{e9}.txt", "re\u{301}sume\u{301}.txt");
        let index = Index::default().with(&adding(&[document(nfd, None, b"1"), document("resume.txt", None, b"2")]));
        assert_eq!(index.by_name(nfc).unwrap().name.as_str(), nfd);
        assert_eq!(index.by_name("R\u{c9}SUM\u{c9}.TXT").unwrap().name.as_str(), nfd);
        let both = index.with(&adding(&[document(nfc, None, b"3")]));
        for name in [nfc, nfd] {
            assert_eq!(both.by_name(name).unwrap().name.as_str(), name);
        }
        let neither = both.with(&Changes::from([(nfc.into(), None), (nfd.into(), None)]));
        assert!(neither.by_name(nfc).is_none());
    }

    #[test]
    fn an_exact_name_wins_over_one_that_differs_in_case() {
        let index = Index::default().with(&adding(&[document("Read.me", None, b"1"), document("read.me", None, b"2")]));
        for exact in ["Read.me", "read.me"] {
            assert_eq!(index.by_name(exact).unwrap().name.as_str(), exact);
        }
        assert_eq!(index.by_name("READ.ME").unwrap().name.as_str(), "Read.me");
    }

    #[test]
    fn the_digest_depends_on_the_documents_and_not_on_their_history() {
        let (a, b) = (document("a", Some(1), b"a"), document("b", None, b"b"));
        let both = Index::default().with(&adding(&[a.clone(), b.clone()]));
        let one = both.with(&Changes::from([("a".into(), None)]));
        assert_eq!((names(one.documents()), one.bytes(), one.by_number(1).len()), (vec!["b"], 1, 0));
        assert_ne!(one.digest(), both.digest());
        let again = one.with(&adding(&[a]));
        assert_eq!((again.digest(), again.bytes()), (both.digest(), both.bytes()));
        let changed = again.with(&adding(&[document("b", None, b"B!")]));
        assert_ne!(changed.digest(), both.digest());
        assert_eq!((changed.len(), changed.bytes()), (2, 3));
        assert_eq!(changed.with(&adding(&[b])).digest(), both.digest());
    }
}
