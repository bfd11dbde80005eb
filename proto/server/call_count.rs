//! Counts the calls under way on a connection, so that a connection without one can be closed.

use super::{Caller, held_body::hold};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use metrics::Counter;

/// Counts a call of its connection from the request until the end of the answer. `resets` counts connections that are closed because their
/// client gives up too many calls.
pub(super) async fn count_call(State(resets): State<Counter>, request: Request, next: Next) -> Response {
    let mut call = Caller::of(request.extensions()).map(|caller| caller.connection().begin_call(resets));
    let answer = next.run(request).await;
    if let Some(call) = &mut call {
        call.answered();
    }
    answer.map(|body| hold(body, call))
}
