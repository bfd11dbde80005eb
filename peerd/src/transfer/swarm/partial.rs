//! A document that is being fetched, as the sending side serves it.

use crate::transfer::{serve::source::PartialDocument, store::piece_store::PieceStore};
use bytes::Bytes;
use p2pdi::{content::ContentHash, v1};
use std::{io, ops::Range, sync::Arc};

/// The verified pieces of a store.
#[derive(Debug)]
pub(super) struct Partial {
    document: v1::Document,
    store: Arc<PieceStore>,
}

impl Partial {
    /// `restricted`: its holders have it for some only.
    pub(super) fn new(store: Arc<PieceStore>, restricted: bool) -> Self {
        let document = v1::Document {
            name: store.name().to_string(),
            size: store.size(),
            blake3: store.hash().to_field(),
            restricted,
            ..Default::default()
        };
        Self { document, store }
    }
}

impl PartialDocument for Partial {
    fn document(&self) -> &v1::Document {
        &self.document
    }

    fn hash(&self) -> ContentHash {
        *self.store.hash()
    }

    fn joined_hashes(&self) -> Bytes {
        self.store.hashes().joined()
    }

    fn is_verified(&self, range: &Range<u64>) -> bool {
        self.store.is_verified(range)
    }

    fn read_verified_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.store.read_verified_at(buffer, offset)
    }
}
