//! Counts the calls under way on a connection, so that a connection without one can be closed.

use super::{Caller, open_connections::Call};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http::Method;
use http_body::{Body as HttpBody, Frame, SizeHint};
use metrics::Counter;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Counts a call of its connection from the request until the end of the answer. `resets` counts connections that are closed because their
/// client gives up too many calls.
pub(super) async fn count_call(State(resets): State<Counter>, request: Request, next: Next) -> Response {
    let call = Caller::of(request.extensions()).map(|caller| caller.connection().begin_call(resets));
    let is_head = request.method() == Method::HEAD;
    next.run(request).await.map(|body| {
        let mut counted = Counted { body, call };
        // An answer without a body, or one whose body is not sent (RFC 9110, section 9.3.2), is never asked for its end.
        if is_head || counted.body.is_end_stream() {
            counted.ended();
        }
        Body::new(counted)
    })
}

/// The body of an answer.
struct Counted {
    body: Body,
    call: Option<Call>,
}

impl Counted {
    fn ended(&mut self) {
        if let Some(call) = &mut self.call {
            call.answered();
        }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // After trailers, and after the last bytes of a body of known length, nothing asks for the end.
        let is_last = frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers));
        if is_last || self.body.is_end_stream() {
            self.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
