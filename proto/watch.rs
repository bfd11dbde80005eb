//! The messages of `WatchPeers`. The registry encodes a change once, and all watchers share the bytes.

use crate::v1::PeerEvent;
use bytes::Bytes;
use prost::{DecodeError, Message, Name};

/// `WatchPeersResponse` of the contract, with its events encoded.
#[derive(Clone, PartialEq, Message)]
pub struct WatchPeersResponse {
    /// Encoded [`PeerEvent`]s.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub events: Vec<Bytes>,
    /// All changes up to this revision have been told; 0: not even the whole list.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// What follows is new.
    #[prost(bool, tag = "3")]
    pub caught_up: bool,
    /// The caller forgets all peers: the whole list follows.
    #[prost(bool, tag = "4")]
    pub start_over: bool,
}

impl WatchPeersResponse {
    /// The events.
    ///
    /// # Errors
    /// When one of them is no message of the contract.
    pub fn events(&self) -> Result<Vec<PeerEvent>, DecodeError> {
        self.events.iter().map(|event| PeerEvent::decode(event.clone())).collect()
    }
}

impl Name for WatchPeersResponse {
    const NAME: &'static str = "WatchPeersResponse";
    const PACKAGE: &'static str = "p2pdi.v1";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{FILE_DESCRIPTOR_SET, PeerGone, PeerRecord, peer_event::Change};
    use prost_reflect::{DescriptorPool, DynamicMessage};

    #[test]
    fn it_is_encoded_as_the_contract_declares() {
        let events = [
            Change::Joined(PeerRecord { name: "a".into(), revision: 7, ..PeerRecord::default() }),
            Change::Left(PeerGone { name: "b".into(), revision: 8, ..PeerGone::default() }),
        ]
        .map(|change| PeerEvent { change: Some(change) });
        let message = WatchPeersResponse {
            events: events.iter().map(|event| event.encode_to_vec().into()).collect(),
            revision: 8,
            caught_up: true,
            start_over: true,
        };
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        let declared = pool.get_message_by_name(&WatchPeersResponse::full_name()).unwrap();
        let bytes = message.encode_to_vec();
        let read = DynamicMessage::decode(declared.clone(), &bytes[..]).unwrap();
        assert_eq!(read.unknown_fields().count(), 0);
        assert_eq!(read.fields().count(), declared.fields().count(), "each field is set");
        assert_eq!(read.encode_to_vec(), bytes);
        assert_eq!(WatchPeersResponse::decode(&bytes[..]).unwrap().events().unwrap(), events);
    }

    #[test]
    fn an_event_that_is_none_is_an_error_and_not_a_panic() {
        let message = WatchPeersResponse { events: vec![Bytes::from_static(b"\x0a\xff")], ..WatchPeersResponse::default() };
        assert!(message.events().is_err());
    }
}
