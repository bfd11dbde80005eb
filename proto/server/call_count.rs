//! Counts the calls under way on a connection, so that a connection without one can be closed.

use super::{Caller, open_connections::Call};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use metrics::Counter;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// Counts a call of its connection from the request until the end of the answer. `resets` counts connections that are closed because their
/// client gives up too many calls.
pub(super) async fn count_call(State(resets): State<Counter>, request: Request, next: Next) -> Response {
    let mut call = Caller::of(request.extensions()).map(|caller| caller.connection().begin_call(resets));
    let answer = next.run(request).await;
    if let Some(call) = &mut call {
        call.answered();
    }
    answer.map(|body| Body::new(Counted { body, _call: call }))
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
