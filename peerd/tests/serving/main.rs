//! A peer's server against callers with invalid requests, callers of other protocols, and callers that do not read.
//!
//! Every test ends with the peer serving another caller.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "test helpers fail by panicking"
)]

mod address;
mod changes;
mod connections;
mod hostile;
mod limits;
mod listeners;
mod program;
mod queries;
mod requests;
mod shortage;
mod slow_readers;
#[path = "../support/mod.rs"]
mod support;
mod whisper_streams;
mod whispers;

use p2pdi::status::{self, Reason};
use tonic::Status;

const SMALL: (&str, &[u8]) = ("rfc48.txt", b"RFC 48: a possible protocol plateau\n");

/// Asserts that a call was refused for this reason, with the reason's status code, and without paths of this machine in the message.
#[track_caller]
fn refused<T>(outcome: Result<T, Status>, reason: Reason) -> Status {
    let Err(status) = outcome else { panic!("not refused, {reason:?} expected") };
    assert_eq!((Reason::of(&status), status.code()), (Some(reason), reason.code()), "{status:?}");
    assert!(!status.message().contains("/tmp"), "contains a path of this machine: {}", status.message());
    status
}

/// Asserts that a call was refused because of this field.
#[track_caller]
fn invalid<T>(outcome: Result<T, Status>, field: &str) -> Status {
    let status = refused(outcome, Reason::InvalidField);
    assert_eq!(status::metadata(&status, "field").as_deref(), Some(field), "{status:?}");
    assert!(status.message().len() < 500 && !status.message().contains('\0'), "{}", status.message());
    status
}
