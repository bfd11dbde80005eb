//! The messages of a link stream, decoded such that an undecodable one does not end the stream.
//!
//! gRPC ends a stream at the first message that cannot be decoded, and its receiver does not learn who sent it. On a link such a message
//! is an invalid frame like others: the receiver drops it and counts it against the sender.

use crate::v1::LinkFrame;
use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};

/// `LinkRequest` and `LinkResponse` of the contract, which have the same fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkMessage {
    /// The frame; `None` when the message has none or could not be decoded.
    pub frame: Option<LinkFrame>,
    /// Why the message could not be decoded, and its length in bytes.
    pub unreadable: Option<(DecodeError, usize)>,
}

impl LinkMessage {
    /// A message with a frame.
    pub fn new(frame: LinkFrame) -> Self {
        Self { frame: Some(frame), unreadable: None }
    }
}

/// The same message as the contract declares it.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(message, optional, tag = "1")]
    frame: Option<LinkFrame>,
}

impl Message for LinkMessage {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if let Some(frame) = &self.frame {
            prost::encoding::message::encode(1, frame, buf);
        }
    }

    fn encoded_len(&self) -> usize {
        self.frame.as_ref().map_or(0, |frame| prost::encoding::message::encoded_len(1, frame))
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    fn merge_field(&mut self, tag: u32, wire_type: WireType, buf: &mut impl Buf, ctx: DecodeContext) -> Result<(), DecodeError> {
        let mut wire = Wire { frame: self.frame.take() };
        let merged = wire.merge_field(tag, wire_type, buf, ctx);
        self.frame = wire.frame;
        merged
    }

    /// Never fails: an undecodable message becomes one with `unreadable`.
    fn decode(mut buf: impl Buf) -> Result<Self, DecodeError> {
        let length = buf.remaining();
        Ok(match Wire::decode(buf.copy_to_bytes(length)) {
            Ok(Wire { frame }) => Self { frame, unreadable: None },
            Err(error) => Self { frame: None, unreadable: Some((error, length)) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{LinkPing, link_frame::Body};

    #[test]
    fn a_message_survives_a_round_trip_and_encodes_as_the_contract_declares() {
        let message = LinkMessage::new(LinkFrame { body: Some(Body::Ping(LinkPing { nonce: 7 })) });
        let bytes = message.encode_to_vec();
        assert_eq!(bytes.len(), message.encoded_len());
        assert_eq!(LinkMessage::decode(&bytes[..]), Ok(message.clone()));
        assert_eq!(Wire::decode(&bytes[..]).unwrap().frame, message.frame);
        assert_eq!(LinkMessage::decode(&b""[..]), Ok(LinkMessage::default()));
    }

    #[test]
    fn undecodable_bytes_are_reported_with_their_length() {
        // A frame that ends early, an invalid wire type, a length past the end.
        for bytes in [&b"\x0a\x05\x0a"[..], &b"\x0f"[..], &b"\x0a\xff\xff\xff\xff\x0f"[..], &[0xff; 40][..]] {
            let read = LinkMessage::decode(bytes).unwrap();
            assert_eq!(read.frame, None);
            assert_eq!(read.unreadable.unwrap().1, bytes.len());
        }
        // A field from a newer peer is ignored.
        assert_eq!(LinkMessage::decode(&b"\x10\x01"[..]), Ok(LinkMessage::default()));
    }
}
