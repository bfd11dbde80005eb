//! A peer's server against callers that ask for the impossible, speak other languages, or do not listen.
//!
//! Every case ends with the peer serving somebody else.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests are tests"
)]

mod changes;
mod connections;
mod listeners;
mod program;
mod queries;
mod requests;
mod slow_readers;
#[path = "../support/mod.rs"]
mod support;
mod whispers;

use p2pdi::status::{self, Reason};
use tonic::Status;

const SMALL: (&str, &[u8]) = ("rfc48.txt", b"RFC 48: a possible protocol plateau\n");

/// Asserts that a call was refused for this reason, with its code and words that say what to do.
#[track_caller]
fn refused<T>(outcome: Result<T, Status>, reason: Reason) -> Status {
    let Err(status) = outcome else { panic!("not refused, {reason:?} expected") };
    assert_eq!((Reason::of(&status), status.code()), (Some(reason), reason.code()), "{status:?}");
    assert!(!status.message().contains("/tmp"), "tells a path of this machine: {}", status.message());
    status
}

/// The same, for a field that breaks a rule.
#[track_caller]
fn invalid<T>(outcome: Result<T, Status>, field: &str) -> Status {
    let status = refused(outcome, Reason::InvalidField);
    assert_eq!(status::metadata(&status, "field").as_deref(), Some(field), "{status:?}");
    assert!(status.message().len() < 500 && !status.message().contains('\0'), "{}", status.message());
    status
}
