//! A peer inside a program: build it, start it, use it, stop it. Users of this crate begin here.

mod builder;
mod documents;
mod error;
mod get;
mod get_progress;
mod handle;
mod info;
mod job_status;
mod jobs;
mod lifecycle;
mod messages;
mod phase;

pub use builder::PeerBuilder;
pub use error::PeerError;
pub use get::{Get, GetOptions};
pub use get_progress::GetProgress;
pub use handle::PeerHandle;
pub use info::{Delivery, MessageCounts, PeerInfo, Registration, RegistrationState, Tally};
pub use job_status::{JobHolder, JobPriority, JobState, JobStatus};
pub use jobs::{Job, JobOptions};
pub use lifecycle::Peer;
pub use messages::Messages;
