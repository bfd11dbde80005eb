//! A document as a correct holder sends it, for holders that change it.

use bytes::Bytes;
use p2pdi::{
    content::{ContentHash, PieceHashes, Pieces},
    v1::{Chunk, Document, GetRfcHeader, GetRfcRequest, GetRfcResponse, get_rfc_response::Part},
};
use std::ops::Range;

/// Bytes of the smallest piece, and of a chunk.
pub const PIECE: u64 = 256 * 1024;

/// Name, number and content of a document.
#[derive(Clone)]
pub struct Sample {
    pub name: String,
    pub number: u32,
    pub data: Bytes,
    pub hashes: PieceHashes,
}

impl Sample {
    pub fn new(name: &str, number: u32, data: Vec<u8>) -> Self {
        let pieces = Pieces::of_size(data.len() as u64).unwrap();
        let hash = |index: usize| {
            let range = pieces.range(index);
            let mut hasher = pieces.hasher(index);
            hasher.update(&data[range.start as usize..range.end as usize]);
            hasher.finalize()
        };
        let hashes = PieceHashes::new(pieces, (0..pieces.count()).map(hash).collect()).unwrap();
        Self { name: name.to_owned(), number, data: data.into(), hashes }
    }

    /// RFC 48 with `pieces` pieces, the last of them short.
    pub fn rfc48(pieces: u64) -> Self {
        Self::new("rfc48.txt", 48, super::bytes((pieces * PIECE - PIECE / 2) as usize))
    }

    pub fn size(&self) -> u64 {
        self.data.len() as u64
    }

    pub fn hash(&self) -> ContentHash {
        self.hashes.merge()
    }

    pub fn document(&self) -> Document {
        Document {
            name: self.name.clone(),
            number: self.number,
            title: "A title".into(),
            size: self.size(),
            blake3: self.hash().to_field(),
            modified_at: None,
            restricted: false,
        }
    }

    /// The range that a request asks for.
    pub fn range(&self, request: &GetRfcRequest) -> Range<u64> {
        let end = if request.length == 0 { self.size() } else { request.offset + request.length };
        request.offset..end
    }

    pub fn header(&self, request: &GetRfcRequest) -> GetRfcHeader {
        let range = self.range(request);
        GetRfcHeader {
            document: Some(self.document()),
            piece_size: self.hashes.pieces().piece_size(),
            piece_hashes: if request.without_piece_hashes { Bytes::new() } else { self.hashes.joined() },
            offset: range.start,
            served_length: range.end - range.start,
        }
    }

    /// The chunks of a range.
    pub fn chunks(&self, range: Range<u64>) -> Vec<GetRfcResponse> {
        let starts = (range.start..range.end).step_by(PIECE as usize);
        starts.map(|start| chunk(start, self.data.slice(start as usize..(start + PIECE).min(range.end) as usize))).collect()
    }

    /// The complete answer of a correct holder.
    pub fn answer(&self, request: &GetRfcRequest) -> Vec<GetRfcResponse> {
        let mut messages = vec![header(self.header(request))];
        messages.extend(self.chunks(self.range(request)));
        messages
    }
}

pub fn header(header: GetRfcHeader) -> GetRfcResponse {
    GetRfcResponse { part: Some(Part::Header(header)) }
}

pub fn chunk(offset: u64, data: impl Into<Bytes>) -> GetRfcResponse {
    GetRfcResponse { part: Some(Part::Chunk(Chunk { offset, data: data.into() })) }
}
