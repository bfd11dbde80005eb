//! How far a job is, for the program.

use p2pdi::v1;
use std::time::SystemTime;

/// Jobs of a higher priority go first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobPriority {
    /// After all others.
    Low,
    /// The usual one.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl JobPriority {
    fn of(from: v1::JobPriority) -> Self {
        match from {
            v1::JobPriority::Low => Self::Low,
            v1::JobPriority::Unspecified | v1::JobPriority::Normal => Self::Normal,
            v1::JobPriority::High => Self::High,
        }
    }

    pub(super) fn message(self) -> v1::JobPriority {
        match self {
            Self::Low => v1::JobPriority::Low,
            Self::Normal => v1::JobPriority::Normal,
            Self::High => v1::JobPriority::High,
        }
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Other jobs run first.
    Queued,
    /// It searches for documents or holders, or fetches.
    Running,
    /// Nobody it knows of can serve now, or the disk is full. It goes on by itself.
    Waiting,
    /// All of it is there.
    Done,
    /// It ended without all of it.
    Failed,
    /// It was ended by its user.
    Cancelled,
}

impl From<v1::JobState> for JobState {
    fn from(state: v1::JobState) -> Self {
        match state {
            v1::JobState::Unspecified | v1::JobState::Queued => Self::Queued,
            v1::JobState::Running => Self::Running,
            v1::JobState::Waiting => Self::Waiting,
            v1::JobState::Done => Self::Done,
            v1::JobState::Failed => Self::Failed,
            v1::JobState::Cancelled => Self::Cancelled,
        }
    }
}

/// A holder that a job used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobHolder {
    /// Its name, if it is known.
    pub name: Option<String>,
    /// Where it was dialled.
    pub endpoint: String,
    /// Verified bytes that it sent.
    pub bytes: u64,
    /// How often something went wrong with it: at most once for each try of a document.
    pub faults: u64,
    /// What went wrong the first time.
    pub first_fault: Option<String>,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// Its id, unique in the peer.
    pub id: String,
    /// What was asked for.
    pub wanted: Vec<String>,
    /// Its priority.
    pub priority: JobPriority,
    /// What it does.
    pub state: JobState,
    /// What it waits for, why it failed, or, of one that is done, why documents that match may be missing; empty: nothing to say.
    pub detail: String,
    /// When it was accepted.
    pub created_at: Option<SystemTime>,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<SystemTime>,
    /// Documents found so far.
    pub documents: u64,
    /// Those of them that are there.
    pub documents_done: u64,
    /// Bytes of the documents found.
    pub bytes: u64,
    /// Those of them that are verified.
    pub bytes_done: u64,
    /// Bytes a second over the last seconds.
    pub bytes_per_second: u64,
    /// Holders that it fetches from now.
    pub holders: u32,
    /// Names of the documents that failed, each with the reason; at most the first 100.
    pub failed: Vec<(String, String)>,
    /// Holders that sent something, or with which something went wrong, those that sent most first; at most 100.
    pub sources: Vec<JobHolder>,
}

impl From<v1::Job> for JobStatus {
    fn from(job: v1::Job) -> Self {
        let at = |at: Option<prost_types::Timestamp>| at.and_then(|at| SystemTime::try_from(at).ok());
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let holder = |source: v1::JobSource| JobHolder {
            name: text(source.peer_name),
            endpoint: source.endpoint,
            bytes: source.bytes,
            faults: source.faults,
            first_fault: text(source.first_fault),
        };
        Self {
            priority: JobPriority::of(job.priority()),
            state: job.state().into(),
            id: job.id,
            wanted: job.wanted,
            detail: job.detail,
            created_at: at(job.created_at),
            ended_at: at(job.ended_at),
            documents: job.documents,
            documents_done: job.documents_done,
            bytes: job.bytes,
            bytes_done: job.bytes_done,
            bytes_per_second: job.bytes_per_second,
            holders: job.holders,
            failed: job.failed.into_iter().map(|failed| (failed.name, failed.why)).collect(),
            sources: job.sources.into_iter().map(holder).collect(),
        }
    }
}
