//! One peer's listing of its own documents, sorted for lookups. Immutable, so that it is built apart from the index that queries read.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::name_match::name_key;
use crate::documents::info::DocumentInfo;
use p2pdi::content::ContentHash;
use std::sync::Arc;

/// Most bytes kept for one peer, as [`cost`] counts them: three times the whole RFC series.
pub(crate) const PEER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Approximate bytes that a document takes besides its name and title: the record and its entries in three sorted lists.
pub(crate) const DOCUMENT_BYTES: usize = 400;

/// Bytes that a document takes. Its name and title are kept twice: as listed, and in lower case as search keys.
pub(crate) fn cost(document: &DocumentInfo) -> usize {
    DOCUMENT_BYTES + 2 * document.name.as_str().len() + 2 * document.title.len()
}

/// What a peer answered.
#[derive(Debug, Clone)]
pub struct RemoteListing {
    /// Version of that peer's index.
    pub version: u64,
    /// Its own documents.
    pub documents: Vec<DocumentInfo>,
}

/// A document with its search keys.
#[derive(Debug)]
pub(crate) struct RemoteDocument {
    pub(crate) info: DocumentInfo,
    pub(crate) title_key: Box<str>,
    pub(crate) name_key: Box<str>,
}

/// A listing within bounds, sorted by hash, number and name.
#[derive(Debug)]
pub(crate) struct SortedListing {
    version: u64,
    /// As the peer lists them.
    documents: Vec<Arc<RemoteDocument>>,
    by_hash: Vec<(ContentHash, u32)>,
    by_number: Vec<(u32, u32)>,
    /// Positions, sorted by `name_key`.
    by_name: Vec<u32>,
    bytes: usize,
    /// Some documents were dropped because the index was full.
    truncated: bool,
    /// Documents that the peer lists and that are not kept.
    left_out: usize,
}

impl SortedListing {
    /// The first documents of `listing`, as many as one peer may have. Takes some 10 ms for 40,000 documents.
    pub(crate) fn new(listing: RemoteListing) -> Self {
        let RemoteListing { version, documents } = listing;
        let mut bytes = 0;
        let listed = documents.len();
        let documents = documents.into_iter().take_while(|document| {
            bytes += cost(document);
            bytes <= PEER_BYTES_MAX
        });
        let with_keys = |info: DocumentInfo| {
            let (title_key, name_key) = (name_key(&info.title).into(), name_key(info.name.as_str()).into());
            Arc::new(RemoteDocument { info, title_key, name_key })
        };
        let documents: Vec<_> = documents.map(with_keys).collect();
        let left_out = listed - documents.len();
        Self::sorted(version, documents, false, left_out)
    }

    /// The first documents of this listing that take at most `bytes`.
    pub(crate) fn truncated_to(&self, bytes: usize) -> Self {
        let mut taken = 0;
        let documents = self.documents.iter().take_while(|document| {
            taken += cost(&document.info);
            taken <= bytes
        });
        let documents: Vec<_> = documents.cloned().collect();
        let dropped = self.documents.len() - documents.len();
        Self::sorted(self.version, documents, self.truncated || dropped > 0, self.left_out + dropped)
    }

    fn sorted(version: u64, documents: Vec<Arc<RemoteDocument>>, truncated: bool, left_out: usize) -> Self {
        let positions = || (0_u32..).zip(&documents);
        let mut by_hash: Vec<_> = positions().map(|(at, document)| (document.info.hash, at)).collect();
        by_hash.sort_unstable();
        let mut by_number: Vec<_> = positions().filter_map(|(at, document)| Some((document.info.number?, at))).collect();
        by_number.sort_unstable();
        let mut by_name: Vec<_> = positions().map(|(at, document)| (&*document.name_key, at)).collect();
        by_name.sort_unstable();
        let by_name = by_name.into_iter().map(|(_, at)| at).collect();
        let bytes = documents.iter().map(|document| cost(&document.info)).sum();
        Self { version, documents, by_hash, by_number, by_name, bytes, truncated, left_out }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Documents that the peer lists and that are not kept.
    pub(crate) fn left_out(&self) -> usize {
        self.left_out
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The document at a position of [`Self::hashes`].
    pub(crate) fn document(&self, at: u32) -> Option<&Arc<RemoteDocument>> {
        self.documents.get(at as usize)
    }

    /// All documents by hash, with their positions.
    pub(crate) fn hashes(&self) -> &[(ContentHash, u32)] {
        &self.by_hash
    }

    pub(crate) fn by_hash(&self, hash: ContentHash) -> impl Iterator<Item = &Arc<RemoteDocument>> {
        let start = self.by_hash.partition_point(|(other, _)| *other < hash);
        let equal = self.by_hash.iter().skip(start).take_while(move |(other, _)| *other == hash);
        equal.filter_map(|(_, at)| self.document(*at))
    }

    pub(crate) fn by_number(&self, number: u32) -> impl Iterator<Item = &Arc<RemoteDocument>> {
        let start = self.by_number.partition_point(|(other, _)| *other < number);
        let equal = self.by_number.iter().skip(start).take_while(move |(other, _)| *other == number);
        equal.filter_map(|(_, at)| self.document(*at))
    }

    /// The documents whose names have this key.
    pub(crate) fn by_name_key(&self, key: &str) -> impl Iterator<Item = &Arc<RemoteDocument>> {
        let key_at = |at: u32| self.document(at).map_or("", |document| &*document.name_key);
        let start = self.by_name.partition_point(|at| key_at(*at) < key);
        let end = self.by_name.partition_point(|at| key_at(*at) <= key);
        self.by_name.get(start..end).unwrap_or_default().iter().filter_map(|at| self.document(*at))
    }
}
