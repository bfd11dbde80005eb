//! The body of a request with a stream of messages: what has arrived of a message that is not whole waits in memory, as a body of one message
//! does, and so is limited as one.

use super::memory::Charge;
use crate::status::Reason;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// Bytes before each message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// Where in a stream of messages one is.
#[derive(Debug, Default)]
struct Position {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that are there.
    prefixed: usize,
    /// Bytes of the message that are there, and that are missing, once its prefix is whole.
    read: usize,
    missing: usize,
}

impl Position {
    /// Goes on by `data`.
    fn advance(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(data.len());
                (self.read, self.missing, data) = (self.read + taken, self.missing - taken, &data[taken..]);
            } else {
                let taken = (PREFIX_BYTES - self.prefixed).min(data.len());
                self.prefix[self.prefixed..self.prefixed + taken].copy_from_slice(&data[..taken]);
                (self.prefixed, data) = (self.prefixed + taken, &data[taken..]);
                if self.prefixed < PREFIX_BYTES {
                    return;
                }
                let [_, length @ ..] = self.prefix;
                self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            }
            if self.missing == 0 {
                *self = Self::default();
            }
        }
    }

    /// Bytes that are there of a message that is not whole.
    fn unfinished(&self) -> usize {
        self.prefixed + self.read
    }
}

/// Why a request ends that does not arrive within `timeout`.
pub(super) fn too_slow(timeout: Duration) -> Status {
    Reason::RequestTimeout.status(format!("the request did not arrive within {timeout:?}; send it at once"))
}

/// A body that ends with an error when a message of it takes too long, or when unfinished ones of all take too much memory.
pub(super) struct StreamBody {
    inner: Body,
    position: Position,
    timeout: Duration,
    /// Made when the rest of a message is first waited for.
    expired: Option<Pin<Box<Sleep>>>,
    charge: Charge,
}

impl StreamBody {
    pub(super) fn new(inner: Body, timeout: Duration, charge: Charge) -> Self {
        Self { inner, position: Position::default(), timeout, expired: None, charge }
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            let Some(frame) = frame else { return Poll::Ready(None) };
            let charged = frame.map_err(Into::into).and_then(|frame| {
                let before = this.position.unfinished();
                let data = frame.data_ref().map_or(&[][..], |data| data);
                this.position.advance(data);
                let after = this.position.unfinished();
                if after < before || data.len() > after {
                    // Another message than before, or none.
                    this.expired = None;
                    this.charge.give_back();
                }
                this.charge.grow_to(after)?;
                Ok(frame)
            });
            return Poll::Ready(Some(charged));
        }
        if this.position.unfinished() > 0 {
            let deadline = || Box::pin(sleep_until(Instant::now() + this.timeout));
            if this.expired.get_or_insert_with(deadline).as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(too_slow(this.timeout).into())));
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_followed_however_it_is_cut() {
        let message = |length: u32| [&[0][..], &length.to_be_bytes(), &vec![7; length as usize]].concat();
        let stream = [message(0), message(3), message(300), message(0), message(1)].concat();
        for size in 1..stream.len() {
            let mut position = Position::default();
            for part in stream.chunks(size) {
                position.advance(part);
            }
            assert_eq!((position.unfinished(), position.missing), (0, 0), "in parts of {size}");
        }
        let mut position = Position::default();
        position.advance(&[message(3), message(300)[..100].to_vec()].concat());
        assert_eq!((position.unfinished(), position.missing), (100, 205));
    }
}
