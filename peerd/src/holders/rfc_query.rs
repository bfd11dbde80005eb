//! Reads one peer's answer to RFCQuery, within limits.

use crate::documents::info::DocumentInfo;
use p2pdi::{
    channel::Channel,
    v1::{Holding, RfcQueryRequest, RfcQueryResponse, peer_client::PeerClient},
};
use prost::Message as _;
use tonic::Status;

pub use super::listed::Listed;

/// How much of one peer's answer is read. The peer chooses what it sends, so invalid documents count too.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most documents.
    pub documents: usize,
    /// Most encoded bytes of all messages. The message that passes this is still read.
    pub bytes: usize,
}

impl Limits {
    /// For a whole listing: 100,000 documents with names and titles of ordinary length, and one holder each.
    pub const LISTING: Self = Self { documents: 100_000, bytes: 64 * 1024 * 1024 };
    /// For one document: some hundred files of that number or name, with 64 holders each. Of many peers asked at once, each may send that
    /// much.
    pub const DOCUMENT: Self = Self { documents: 1_000, bytes: 2 * 1024 * 1024 };

    /// Those for `request`.
    pub fn of(request: &RfcQueryRequest) -> Self {
        let is_listing = request.number == 0 && request.name.is_empty() && request.blake3.is_empty();
        if is_listing { Self::LISTING } else { Self::DOCUMENT }
    }
}

/// What was read of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Version of the peer's index.
    pub version: u64,
    /// The index still has the version that the request named; there are no documents.
    pub unchanged: bool,
    /// The peer lists every file of its own share: a document that is missing is not there any more.
    pub complete: bool,
    /// The peer asked its mesh, too.
    pub asked_mesh: bool,
    /// The valid documents.
    pub documents: Vec<Listed>,
    /// How many documents were invalid.
    pub invalid: usize,
    /// A limit was reached and the rest was not read.
    pub truncated: bool,
}

impl Answer {
    fn take(&mut self, holding: Holding) {
        let document = holding.document.map(DocumentInfo::try_from);
        match document {
            Some(Ok(document)) => self.documents.push(Listed { document, holders: holding.holders }),
            Some(Err(_)) | None => self.invalid += 1,
        }
    }

    /// Takes a message, after `bytes` of messages before it. Returns whether to go on.
    fn take_message(&mut self, message: RfcQueryResponse, bytes: usize, limits: Limits) -> bool {
        if bytes >= limits.bytes {
            self.truncated = true;
            return false;
        }
        self.version = message.version;
        self.unchanged = message.unchanged;
        self.complete = message.complete;
        self.asked_mesh = message.asked_mesh;
        for holding in message.holdings {
            if self.read() >= limits.documents {
                self.truncated = true;
                return false;
            }
            self.take(holding);
        }
        !self.unchanged
    }

    /// How many documents were read, valid or not.
    fn read(&self) -> usize {
        self.documents.len() + self.invalid
    }
}

/// Sends `request` to the peer of `client` and reads its answer up to `limits`.
///
/// # Errors
/// When the peer cannot be reached, refuses, or breaks off.
pub async fn query(mut client: PeerClient<Channel>, request: RfcQueryRequest, limits: Limits) -> Result<Answer, Status> {
    let mut stream = client.rfc_query(request).await?.into_inner();
    let (mut answer, mut bytes) = (Answer::default(), 0_usize);
    while let Some(message) = stream.message().await? {
        let length = message.encoded_len();
        if !answer.take_message(message, bytes, limits) {
            break;
        }
        bytes = bytes.saturating_add(length);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::{content::ContentHash, v1::Document};

    fn holding(name: &str) -> Holding {
        let document = Document { name: name.into(), size: 1, blake3: ContentHash::of(b"x").to_field(), ..Default::default() };
        Holding { document: Some(document), holders: Vec::new() }
    }

    fn message(names: &[&str]) -> RfcQueryResponse {
        RfcQueryResponse { version: 7, holdings: names.iter().map(|name| holding(name)).collect(), ..Default::default() }
    }

    #[test]
    fn invalid_documents_count_towards_the_limit_of_documents() {
        let limits = Limits { documents: 5, bytes: usize::MAX };
        let mut answer = Answer::default();
        assert!(answer.take_message(message(&["a", "../b", ""]), 0, limits));
        assert_eq!((answer.documents.len(), answer.invalid, answer.truncated), (1, 2, false));
        assert!(!answer.take_message(message(&["", "", "c", "d"]), 100, limits));
        assert_eq!((answer.documents.len(), answer.invalid, answer.truncated), (1, 4, true));
    }

    #[test]
    fn nothing_is_read_after_the_limit_of_bytes() {
        let limits = Limits { documents: 5, bytes: 100 };
        let mut answer = Answer::default();
        assert!(answer.take_message(message(&["a"]), 99, limits));
        assert!(!answer.take_message(message(&["b"]), 100, limits));
        assert_eq!((answer.documents.len(), answer.truncated), (1, true));
    }

    #[test]
    fn a_query_for_one_document_reads_less_than_a_listing() {
        let request = RfcQueryRequest { number: 48, ..Default::default() };
        assert_eq!(Limits::of(&request).bytes, Limits::DOCUMENT.bytes);
        assert_eq!(Limits::of(&RfcQueryRequest { own_only: true, ..Default::default() }).bytes, Limits::LISTING.bytes);
    }
}
