//! The body of an answer that keeps something until its end, such as the count of its call.

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// A body, and what is dropped with it: at the end of the answer, or when the client goes away.
pub(super) struct HeldBody<G> {
    body: Body,
    _held: G,
}

/// `body`, which keeps `held`.
pub(super) fn hold<G>(body: Body, held: G) -> HeldBody<G> {
    HeldBody { body, _held: held }
}

impl<G: Unpin> HttpBody for HeldBody<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
