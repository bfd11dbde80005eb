//! Reads one peer's answer to RFCQuery, within limits.

use crate::{connections::channels::ChannelPool, documents::info::DocumentInfo};
use p2pdi::{
    endpoint::Endpoint,
    name::PeerName,
    v1::{Holder, Holding, RfcQueryRequest},
};
use prost::Message as _;
use tonic::Status;

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
}

/// A document in an answer.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The document, validated.
    pub document: DocumentInfo,
    /// Its holders, as the peer sent them.
    pub holders: Vec<Holder>,
}

/// What was read of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Version of the peer's index.
    pub version: u64,
    /// The index still has the version that the request named; there are no documents.
    pub unchanged: bool,
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

    /// How many documents were read, valid or not.
    fn read(&self) -> usize {
        self.documents.len() + self.invalid
    }
}

/// Sends `request` to the peer at `endpoint`, called `name` if that is known, and reads its answer up to `limits`.
///
/// # Errors
/// When the peer cannot be reached, refuses, or breaks off.
pub async fn query(
    channels: &ChannelPool,
    endpoint: &Endpoint,
    name: Option<&PeerName>,
    request: RfcQueryRequest,
    limits: Limits,
) -> Result<Answer, Status> {
    let mut stream = channels.peer(endpoint, name).rfc_query(request).await?.into_inner();
    let (mut answer, mut bytes) = (Answer::default(), 0_usize);
    while let Some(message) = stream.message().await? {
        if bytes >= limits.bytes {
            answer.truncated = true;
            break;
        }
        bytes = bytes.saturating_add(message.encoded_len());
        answer.version = message.version;
        answer.unchanged = message.unchanged;
        for holding in message.holdings {
            if answer.read() >= limits.documents {
                answer.truncated = true;
                break;
            }
            answer.take(holding);
        }
        if answer.unchanged || answer.truncated {
            break;
        }
    }
    Ok(answer)
}
