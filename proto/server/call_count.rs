//! Counts the calls under way on a connection, so that a connection without one can be closed.

use super::{Caller, open_connections::Call};
use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// Counts a call of its connection from the request until the end of the answer.
pub(super) async fn count_call(request: Request, next: Next) -> Response {
    let call = Caller::of(request.extensions()).map(|caller| caller.connection().begin_call());
    next.run(request).await.map(|body| Body::new(Counted { body, _call: call }))
}

/// The body of an answer.
struct Counted {
    body: Body,
    _call: Option<Call>,
}

impl HttpBody for Counted {
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
