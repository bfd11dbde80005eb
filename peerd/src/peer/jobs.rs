//! Jobs: what a peer fetches into the folder that it shares, also after a restart.

use super::{
    error::PeerError,
    handle::PeerHandle,
    job_status::{JobPriority, JobStatus},
};
use crate::transfer::jobs::{JobHandle, JobRequest};
use p2pdi::v1;
use std::{fmt, time::Duration};

/// How the documents of a job are chosen and fetched. The default: all that is wanted, from whoever has it, waiting for ever for a holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobOptions {
    /// Of what patterns match, only names that match one of these patterns; empty: all.
    pub include: Vec<String>,
    /// Of those, no names that match one of these.
    pub exclude: Vec<String>,
    /// Names or addresses of the peers to fetch from; empty: whoever has them.
    pub from: Vec<String>,
    /// Which of several jobs goes first.
    pub priority: JobPriority,
    /// How long to wait for a holder before the job fails; `None`: for ever.
    pub wait_for_holders: Option<Duration>,
}

/// One job. Dropping it does not end the job.
#[derive(Clone)]
pub struct Job {
    handle: JobHandle,
}

impl PeerHandle {
    /// Makes the peer fetch documents into the folder that it shares: names, `rfc:NUMBER`, `b3:HASH` or patterns. The job is stored when this
    /// returns; it goes on when the result is dropped, and after a restart of a peer that keeps its state folder.
    ///
    /// # Errors
    /// When a value is not valid, the peer shares no folder or is not running, or its state folder cannot be written.
    pub async fn fetch(
        &self,
        wanted: impl IntoIterator<Item = impl Into<String>>,
        options: JobOptions,
    ) -> Result<Job, PeerError> {
        self.running()?;
        let JobOptions { include, exclude, from, priority, wait_for_holders } = options;
        let wait_for_holders = wait_for_holders.map(|wait| {
            // Longer than a message can say is for ever, as far as anybody can tell.
            prost_types::Duration::try_from(wait).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
        });
        let request = v1::FetchRequest {
            wanted: wanted.into_iter().map(Into::into).collect(),
            include,
            exclude,
            from,
            priority: priority.message().into(),
            wait_for_holders,
            ..Default::default()
        };
        Ok(Job { handle: self.node().jobs().submit(JobRequest::try_from(request)?).await? })
    }

    /// All jobs that have not ended, and the last that have, the oldest first.
    pub fn jobs(&self) -> Vec<JobStatus> {
        self.node().jobs().list().into_iter().map(JobStatus::from).collect()
    }

    /// Ends a job by its id. Verified pieces stay for a later fetch. A job that has ended stays as it is.
    ///
    /// # Errors
    /// When there is no such job, the state folder cannot be written, or this peer is not running.
    pub async fn cancel_job(&self, id: &str) -> Result<JobStatus, PeerError> {
        self.running()?;
        Ok(self.node().jobs().cancel(id).await?.into())
    }
}

impl Job {
    /// Its id, unique in the peer.
    pub fn id(&self) -> String {
        self.handle.id()
    }

    /// How far it is; `None` once it is not listed any more.
    pub fn status(&self) -> Option<JobStatus> {
        self.handle.status().map(JobStatus::from)
    }

    /// Waits until it may have changed, and returns how far it is; `None` once it is not listed any more.
    pub async fn changed(&mut self) -> Option<JobStatus> {
        self.handle.changed().await.map(JobStatus::from)
    }

    /// Waits until it has ended; `None` if it is not listed any more.
    pub async fn ended(&mut self) -> Option<JobStatus> {
        self.handle.ended().await.map(JobStatus::from)
    }

    /// Ends it. Verified pieces stay for a later fetch.
    ///
    /// # Errors
    /// When it is not listed any more, or the state folder cannot be written.
    pub async fn cancel(&self) -> Result<JobStatus, PeerError> {
        Ok(self.handle.cancel().await?.into())
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.handle)
    }
}
