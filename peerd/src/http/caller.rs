//! Whether whoever makes a request may: by where it comes from, and by the token.

use super::state::HttpState;
use axum::http::{Method, request::Parts};
use p2pdi::{
    platform::uptime,
    server::{Caller, Origin},
    status::Reason,
};
use tonic::Status;

/// Whether the request may see what only the operator may see. Other sites cannot read an answer.
pub(super) fn may_see(state: &HttpState, request: &Parts) -> Result<(), Status> {
    permit(state, request, |_| true)
}

/// Whether the request may make the peer send messages.
pub(super) fn may_act(state: &HttpState, request: &Parts) -> Result<(), Status> {
    permit(state, request, |origin| match origin {
        Origin::Program => true,
        // Links, images and redirects cause GETs, so a browser's GET never sends, whatever its headers.
        Origin::OwnPage => request.method == Method::POST,
        Origin::Browser | Origin::Foreign => false,
    })
}

/// The machine's own operator, or who has the token.
fn check_operator(state: &HttpState, request: &Parts) -> Result<(), Status> {
    let Err(refusal) = state.services.check_control(Caller::of(&request.extensions)) else { return Ok(()) };
    if !state.tokens.are_used() {
        return Err(refusal);
    }
    let address = Caller::of(&request.extensions).map(|caller| caller.address().ip());
    state.tokens.shown(&request.headers, address, uptime()).judge()
}

fn permit(state: &HttpState, request: &Parts, allowed: impl FnOnce(Origin) -> bool) -> Result<(), Status> {
    check_operator(state, request)?;
    let refuse = |why: &str| Err(Reason::LoopbackOnly.status(why));
    match Origin::of(request) {
        Origin::Foreign => {
            refuse("this request comes from a page of another site; use http://localhost, the peer's address, or curl")
        }
        origin if !allowed(origin) => refuse(
            "a link or the address bar of a browser cannot make this peer send, because any site can open such a link; send from the peer's page at /, or with curl",
        ),
        _ => Ok(()),
    }
}
