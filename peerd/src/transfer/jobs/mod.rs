//! Jobs and mirrors: what a running peer fetches into its share, and keeps there.
//!
//! A job is stored before it is accepted, and goes on after a restart; only its request is stored, and the share tells what is there
//! already. Names, numbers and patterns of a job are settled by asking the peers; a mirror goes by what the peer learned of them. Each document is fetched by a [`FetchJob`](super::fetch::job::FetchJob),
//! and offered from the moment its file appears, without being read again. What was fetched is recorded apart from what the user put into
//! the share: only fetched documents are replaced, removed to keep the limits, or removed by a mirror.

mod beyond;
mod driver;
mod eviction;
mod items;
mod job;
mod ledger;
mod look;
mod mirror;
mod offers;
mod peers;
mod queue;
mod request;
mod room;
mod service;
mod shared;
mod state_file;
mod worker;

pub use request::{FROM_MAX, JobRequest, WANTED_MAX};
pub(crate) use room::RoomLimits;
pub use service::{JobHandle, Jobs, JobsError};
pub(crate) use service::{JobsConfig, JobsParts};
