//! The jobs of a peer: handles to submit, list, watch and cancel them, and to pin what was fetched.

use super::{
    driver::Driver,
    job::Job,
    ledger::{InUse, Ledger},
    mirror::Mirror,
    peers::KnownPeers,
    queue::{JOBS_MAX, Queue},
    request::JobRequest,
    room::{Room, RoomLimits},
    shared::{JobsMetrics, JobsRecord, Shared},
    state_file::StateFile,
};
use crate::{
    config,
    connections::channels::ChannelPool,
    documents::catalog::Catalog,
    holders::{network_peers::NetworkPeers, peer_directory::PeerDirectory},
    transfer::{fetch::downloads::Downloads, swarm::hub::Swarms, throttle::Throttle},
};
use p2pdi::{
    document::DocumentName,
    field::InvalidField,
    metrics::Metrics,
    v1::{self, FetchedStatus, JobState, MirrorStatus},
};
use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

const FILE_NAME: &str = "jobs";
const FORMAT: &str = "p2pdi jobs 1";
/// Least time between two looks of a watcher at its job.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// The jobs of a peer. Clones are handles to the same jobs.
#[derive(Clone)]
pub struct Jobs {
    shared: Arc<Shared>,
}

/// The settings of the jobs.
pub(crate) struct JobsConfig {
    pub(crate) limits: RoomLimits,
    pub(crate) mirrors: Vec<config::Mirror>,
}

/// The parts of the peer that the jobs use.
pub(crate) struct JobsParts {
    pub(crate) catalog: Catalog,
    pub(crate) channels: ChannelPool,
    pub(crate) downloads: Downloads,
    pub(crate) network: NetworkPeers,
    pub(crate) swarms: Swarms,
    pub(crate) download_limit: Throttle,
    pub(crate) directory: watch::Receiver<PeerDirectory>,
}

/// Why a job or a pin was refused.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// Nothing is shared, so there is no folder to fetch into.
    #[error("this peer shares no folder to fetch into; start it with --share DIR")]
    NoShare,
    /// Too many jobs have not ended.
    #[error("{} jobs have not ended; wait, cancel some, or give one job several documents", JOBS_MAX)]
    TooMany,
    /// There is no such job.
    #[error("there is no job {id}; list the jobs to see which there are")]
    Unknown {
        /// The id asked for.
        id: String,
    },
    /// The share has no such document.
    #[error("the share has no document {name}")]
    NoDocument {
        /// The name asked for.
        name: String,
    },
    /// A value is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The state folder cannot be written.
    #[error("the state folder cannot be written, so nothing was changed: {0}")]
    State(#[from] io::Error),
}

impl Jobs {
    /// Reads the jobs of the state folder. Blocking. Nothing is fetched until [`Self::run`].
    ///
    /// # Errors
    /// When a file of the state folder can be neither read nor put aside.
    pub(crate) fn open(state: &Path, config: JobsConfig, parts: JobsParts, metrics: &Metrics) -> io::Result<Self> {
        let JobsParts { catalog, channels, downloads, network, swarms, download_limit, directory } = parts;
        let (ledger, ledger_problem) = Ledger::open(state)?;
        let file = StateFile::new(state, FILE_NAME, FORMAT);
        let stored = file.read::<JobsRecord>()?;
        let problem =
            [stored.problem, ledger_problem].into_iter().filter(|problem| !problem.is_empty()).collect::<Vec<_>>().join("; ");
        let mut queue = read_queue(stored.message);
        queue.mirrors = config.mirrors.into_iter().map(Mirror::new).collect();
        let ended = |state| metrics.counter("p2pdi_jobs_ended_total", "Jobs that ended", &[("state", state)]);
        let metrics_of_jobs = JobsMetrics {
            active: metrics.gauge("p2pdi_jobs", "Jobs that have not ended", &[]),
            done: ended("done"),
            failed: ended("failed"),
            cancelled: ended("cancelled"),
        };
        let room = Room::new(config.limits, catalog.share().clone(), Arc::clone(&ledger), metrics);
        let shared = Shared {
            catalog,
            channels,
            downloads,
            network: Arc::new(network),
            swarms,
            download_limit,
            peers: KnownPeers::new(directory),
            ledger,
            room,
            file,
            saving: tokio::sync::Mutex::default(),
            queue: Mutex::new(queue),
            changes: watch::Sender::new(0),
            woken: Notify::new(),
            arrived: Arc::default(),
            problem,
            metrics: metrics_of_jobs,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Fetches until `stop`. Jobs that have not ended go on with the next start.
    pub(crate) async fn run(self, stop: CancellationToken) {
        Driver::new(self.shared).run(stop).await;
    }

    /// Other limits of what is fetched from now on. What waits for room is tried again.
    pub(crate) fn set_limits(&self, limits: RoomLimits) {
        self.shared.room.set_limits(limits);
        self.shared.queue().wake(Instant::now(), true);
        self.shared.woken.notify_one();
    }

    /// Accepts a job; it is on disk when this returns.
    ///
    /// # Errors
    /// When nothing is shared, too many jobs have not ended, or the state folder cannot be written.
    pub async fn submit(&self, request: JobRequest) -> Result<JobHandle, JobsError> {
        if self.shared.catalog.share().folder().is_none() {
            return Err(JobsError::NoShare);
        }
        let id = {
            let mut queue = self.shared.queue();
            if queue.jobs.len() >= JOBS_MAX {
                return Err(JobsError::TooMany);
            }
            queue.last_id += 1;
            let id = queue.last_id;
            queue.jobs.insert(id, Job::new(id, request, SystemTime::now(), Instant::now()));
            id
        };
        if let Err(error) = self.shared.save().await {
            self.shared.queue().jobs.remove(&id);
            return Err(error.into());
        }
        self.shared.woken.notify_one();
        Ok(JobHandle { jobs: self.clone(), id, changes: self.shared.changes.subscribe() })
    }

    /// All jobs, the oldest first.
    pub fn list(&self) -> Vec<v1::Job> {
        self.shared.queue().list(Instant::now())
    }

    /// Ends a job. Verified pieces stay for a later fetch. A job that has ended stays as it is.
    ///
    /// # Errors
    /// When there is no such job, or the state folder cannot be written: then the job is cancelled until the next start.
    pub async fn cancel(&self, id: &str) -> Result<v1::Job, JobsError> {
        let unknown = || JobsError::Unknown { id: id.chars().take(40).collect() };
        let number: u64 = id.parse().map_err(|_| unknown())?;
        let (job, ended) = {
            let mut queue = self.shared.queue();
            match queue.end(number, JobState::Cancelled, String::new(), Instant::now(), SystemTime::now()) {
                Some(job) => (job, true),
                None => (queue.show(number, Instant::now()).ok_or_else(unknown)?, false),
            }
        };
        if ended {
            self.shared.count_ended(&job);
            self.shared.changed();
            self.shared.woken.notify_one();
            self.shared.save().await?;
        }
        Ok(job)
    }

    /// Keeps a document of the share whatever the limits, or releases it. Returns whether it was so before.
    ///
    /// # Errors
    /// When the share has no such document, or the state folder cannot be written.
    pub async fn pin(&self, name: &str, pin: bool) -> Result<bool, JobsError> {
        let name = DocumentName::parse(name)?;
        let own = self.shared.catalog.share().index().by_name(name.as_str()).map(|own| own.name.clone());
        // What was pinned and is gone can be released.
        let name = match own {
            Some(own) => own,
            None if !pin && self.shared.ledger.is_pinned(name.as_str()) => name,
            None => return Err(JobsError::NoDocument { name: name.to_string() }),
        };
        let unchanged = self.shared.ledger.pin(name.as_str(), pin);
        let ledger = Arc::clone(&self.shared.ledger);
        let saved = spawn_blocking(move || ledger.save(false)).await.map_err(io::Error::other)?;
        if let Err(error) = saved {
            if !unchanged {
                self.shared.ledger.pin(name.as_str(), !pin);
            }
            return Err(error.into());
        }
        if !pin {
            // What waits for room may have it now.
            self.shared.queue().wake(Instant::now(), true);
            self.shared.woken.notify_one();
        }
        Ok(unchanged)
    }

    /// Marks a document as used and in use, until the result is dropped.
    pub(crate) fn begin_use(&self, name: &DocumentName) -> InUse {
        self.shared.ledger.begin_use(name.as_str())
    }

    /// The mirrors, and how far their documents are.
    pub fn mirrors(&self) -> Vec<MirrorStatus> {
        self.shared.queue().mirrors.iter().map(Mirror::status).collect()
    }

    /// What was fetched, and the limits of it.
    pub fn fetched(&self) -> FetchedStatus {
        let status = self.shared.room.status();
        let parts = [self.shared.problem.clone(), status.detail.clone()];
        let detail = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        FetchedStatus { detail, ..status }
    }
}

/// Restores the jobs. One whose request is not valid any more has failed.
fn read_queue(record: JobsRecord) -> Queue {
    let mut queue = Queue::default();
    queue.last_id = record.last_id;
    for stored in record.jobs {
        let Some(mut job) = stored.job else { continue };
        let Ok(id) = job.id.parse::<u64>() else { continue };
        queue.last_id = queue.last_id.max(id);
        match stored.request.map(JobRequest::try_from) {
            None => queue.ended.push_back(job),
            Some(Ok(request)) => {
                let created_at = job.created_at.and_then(|at| SystemTime::try_from(at).ok()).unwrap_or(SystemTime::UNIX_EPOCH);
                let mut restored = Job::new(id, request, created_at, Instant::now());
                restored.restore_sources(job.sources);
                queue.jobs.insert(id, restored);
            }
            Some(Err(error)) => {
                job.set_state(JobState::Failed);
                job.detail = format!("this version cannot read its request: {error}");
                job.ended_at = Some(SystemTime::now().into());
                queue.ended.push_back(job);
            }
        }
    }
    queue.forget_old(SystemTime::now());
    queue
}

/// One job. Dropping it does not end the job.
#[derive(Clone)]
pub struct JobHandle {
    jobs: Jobs,
    id: u64,
    changes: watch::Receiver<u64>,
}

impl JobHandle {
    /// Its id, unique in the peer.
    pub fn id(&self) -> String {
        self.id.to_string()
    }

    /// How far it is; `None` once it is not listed any more.
    pub fn status(&self) -> Option<v1::Job> {
        self.jobs.shared.queue().show(self.id, Instant::now())
    }

    /// Waits until it may have changed, and returns how far it is; `None` once it is not listed any more.
    pub async fn changed(&mut self) -> Option<v1::Job> {
        // Fails only when the jobs are gone, and this keeps them.
        let _ = self.changes.changed().await;
        sleep(WATCH_EVERY).await;
        self.changes.mark_unchanged();
        self.status()
    }

    /// Waits until it has ended; `None` if it is not listed any more.
    pub async fn ended(&mut self) -> Option<v1::Job> {
        loop {
            let job = self.status()?;
            if job.ended_at.is_some() {
                return Some(job);
            }
            let _ = self.changes.changed().await;
        }
    }

    /// Ends it, see [`Jobs::cancel`].
    ///
    /// # Errors
    /// When it is not listed any more, or the state folder cannot be written.
    pub async fn cancel(&self) -> Result<v1::Job, JobsError> {
        self.jobs.cancel(&self.id()).await
    }
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.id)
    }
}
