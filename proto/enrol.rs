//! Getting a certificate from the registry with a token, keeping it, and renewing it for ever.
//!
//! The key is made on this machine and never leaves its folder. `schedule` says when to renew, `folder` keeps the files, `client` calls
//! the registry; [`Enrolment`] puts them together. [`Trusted`] holds whom the registry trusts: its authorities, and not the certificates
//! that it revoked.

mod client;
mod enrolment;
mod error;
mod folder;
mod schedule;
mod trusted;

pub use client::authority_at;
pub use enrolment::{Enrolment, Joining};
pub use error::EnrolError;
pub use schedule::{renewal_at, retries};
pub use trusted::Trusted;
