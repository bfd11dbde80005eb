//! What the handles of the jobs and their driver have in common.

use super::{ledger::Ledger, peers::KnownPeers, queue::Queue, room::Room, state_file::StateFile};
use crate::{
    connections::channels::ChannelPool,
    documents::catalog::Catalog,
    holders::network_peers::NetworkPeers,
    transfer::{
        fetch::{downloads::Downloads, source_totals::SourceTotals},
        swarm::hub::Swarms,
        throttle::Throttle,
    },
};
use metrics::{Counter, Gauge};
use p2pdi::{
    log_limit::{Line, LogLimit},
    v1,
};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
};

/// Jobs can be made at any rate.
static ENDED_LOG: LogLimit = LogLimit::new(20);

/// The jobs as they are stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct JobsRecord {
    #[prost(uint64, tag = "1")]
    pub(super) last_id: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) jobs: Vec<JobRecord>,
}

/// A job as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct JobRecord {
    /// Absent once it has ended.
    #[prost(message, optional, tag = "1")]
    pub(super) request: Option<v1::FetchRequest>,
    /// As it was last shown.
    #[prost(message, optional, tag = "2")]
    pub(super) job: Option<v1::Job>,
}

pub(super) struct Shared {
    pub(super) catalog: Catalog,
    pub(super) channels: ChannelPool,
    pub(super) downloads: Downloads,
    /// For the searches of fetches.
    pub(super) network: Arc<NetworkPeers>,
    pub(super) swarms: Swarms,
    /// Limits the rate of all downloads.
    pub(super) download_limit: Throttle,
    pub(super) peers: KnownPeers,
    pub(super) ledger: Arc<Ledger>,
    pub(super) room: Arc<Room>,
    pub(super) file: StateFile,
    /// Held while the jobs are written, so that an older state does not replace a newer one.
    pub(super) saving: tokio::sync::Mutex<()>,
    pub(super) queue: Mutex<Queue>,
    /// Counts the changes of the jobs.
    pub(super) changes: watch::Sender<u64>,
    /// Wakes the driver.
    pub(super) woken: Notify,
    /// Notified when all bytes of a document are here.
    pub(super) arrived: Arc<Notify>,
    /// Files of the state folder that could not be read.
    pub(super) problem: String,
    pub(super) metrics: JobsMetrics,
}

pub(super) struct JobsMetrics {
    pub(super) active: Gauge,
    pub(super) done: Counter,
    pub(super) failed: Counter,
    pub(super) cancelled: Counter,
}

impl Shared {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells watchers that jobs changed.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Writes all jobs to the state folder.
    pub(super) async fn save(self: &Arc<Self>) -> io::Result<()> {
        let _saving = self.saving.lock().await;
        let record = self.record();
        let shared = Arc::clone(self);
        spawn_blocking(move || shared.file.write(&record)).await.map_err(io::Error::other)?
    }

    fn record(&self) -> JobsRecord {
        let queue = self.queue();
        let ended = queue.ended.iter().map(|job| JobRecord { request: None, job: Some(job.clone()) });
        let active = queue.jobs.values().map(|job| JobRecord {
            request: Some(job.request.raw.clone()),
            job: Some(job.show(&[], SourceTotals::default(), Instant::now())),
        });
        JobsRecord { last_id: queue.last_id, jobs: ended.chain(active).collect() }
    }

    pub(super) fn count_ended(&self, job: &v1::Job) {
        if let Some(Line { suppressed }) = ENDED_LOG.line() {
            tracing::info!(
                job = job.id,
                wanted = job.wanted.join(" "),
                state = job.state().as_str_name(),
                detail = job.detail,
                suppressed,
                "a job ended"
            );
        }
        match job.state() {
            v1::JobState::Done => self.metrics.done.increment(1),
            v1::JobState::Cancelled => self.metrics.cancelled.increment(1),
            _ => self.metrics.failed.increment(1),
        }
    }
}
