//! All jobs and mirrors: which document is fetched next, and what becomes of each job.

use super::{
    items::{Items, Key, Outcome, Target},
    job::Job,
    mirror::Mirror,
};
use crate::{
    documents::name_match::name_key,
    transfer::{
        arriving::{Arriving, ArrivingMax, SMALL_AT_ONCE},
        fetch::{job::FetchWatch, progress::ProgressSnapshot, source_totals::SourceTotals},
    },
};
use p2pdi::{document::DocumentName, v1, v1::JobState};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// Large documents fetched at once. A guess: enough that a slow one does not hold up all others.
const LARGE_AT_ONCE: usize = 4;
const AT_ONCE: ArrivingMax = ArrivingMax { large: LARGE_AT_ONCE, small: SMALL_AT_ONCE };
/// Documents that have arrived and are synced, renamed and indexed at once: as many as are synced together. Each has two open files.
const FINISHING_AT_ONCE: usize = 256;
/// Most jobs that have not ended. More than people queue; a program gives one job many documents.
pub(super) const JOBS_MAX: usize = 1_000;
/// Ended jobs that stay listed.
const ENDED_MAX: usize = 100;
/// How long they do.
const ENDED_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whose document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Job(u64),
    /// By its place in the configuration.
    Mirror(usize),
}

/// A document under way.
pub(super) struct Running {
    watch: Arc<FetchWatch>,
    /// As it was when the fetch began.
    size: u64,
    /// Its bytes are not all here.
    arrives: bool,
    /// Ends the fetch.
    pub(super) stop: CancellationToken,
}

/// All jobs and mirrors.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) last_id: u64,
    pub(super) jobs: BTreeMap<u64, Job>,
    /// The oldest first.
    pub(super) ended: VecDeque<v1::Job>,
    pub(super) mirrors: Vec<Mirror>,
    running: BTreeMap<(Owner, Key), Running>,
    /// Keys of the documents under way, without regard to case, whoever's they are: two fetches must not write one file, also where the file
    /// system ignores case.
    busy: BTreeSet<String>,
    arriving: Arriving,
}

impl Queue {
    /// The next document to fetch, with its owner; `None` while all places are taken, or nothing is ready.
    pub(super) fn start(&mut self) -> Option<(Owner, Key, Target)> {
        let (busy, arriving) = (&self.busy, &self.arriving);
        let has_room = |size| arriving.has_room(size, &AT_ONCE);
        let finishing = self.running.len() - arriving.count();
        // Documents of unknown size are large ones.
        if finishing >= FINISHING_AT_ONCE || !(has_room(1) || has_room(0)) {
            return None;
        }
        let fits = |key: &Key, size: u64| has_room(size) && !busy.contains(&name_key(key));
        let mut order: Vec<_> = self.jobs.values().map(|job| (Reverse(job.request.priority as i32), job.id)).collect();
        order.sort_unstable();
        for (_, id) in order {
            if let Some(job) = self.jobs.get_mut(&id)
                && let Some((key, target)) = job.items.start(fits)
            {
                job.begin();
                return Some((Owner::Job(id), key, target));
            }
        }
        let mirrors = self.mirrors.iter_mut().enumerate();
        let started = |(place, mirror): (usize, &mut Mirror)| {
            mirror.items.start(fits).map(|(key, target)| (Owner::Mirror(place), key, target))
        };
        mirrors.filter_map(started).next()
    }

    /// Records that the fetch of a document began.
    pub(super) fn started(&mut self, owner: Owner, key: Key, size: u64, watch: Arc<FetchWatch>, stop: CancellationToken) {
        self.arriving.add(size);
        self.busy.insert(name_key(&key));
        self.running.insert((owner, key), Running { watch, size, arrives: true, stop });
    }

    /// Looks which documents have arrived: others may begin.
    pub(super) fn look(&mut self) {
        for running in self.running.values_mut().filter(|running| running.arrives && running.watch.progress().has_arrived()) {
            running.arrives = false;
            self.arriving.remove(running.size);
        }
    }

    /// Records the end of a fetch; `None`: it was stopped.
    pub(super) fn finished(&mut self, owner: Owner, key: &Key, outcome: Option<Outcome>, now: Instant) {
        if let Some(running) = self.running.remove(&(owner, key.clone())) {
            if running.arrives {
                self.arriving.remove(running.size);
            }
            self.busy.remove(&name_key(key));
            if let Owner::Job(id) = owner
                && let Some(job) = self.jobs.get_mut(&id)
            {
                job.sources.merge(running.watch.progress().sources());
                job.received.merge(&running.watch.progress().received_meter());
            }
        }
        let patience = match owner {
            Owner::Job(id) => self.jobs.get(&id).and_then(|job| job.request.wait_for_holders),
            Owner::Mirror(_) => None,
        };
        // A job without items was cancelled.
        let Some(items) = self.items_mut(owner) else { return };
        match outcome {
            // A mirror compares again in a moment.
            Some(Outcome::Gone { why, .. }) if matches!(owner, Owner::Mirror(_)) => {
                items.finish(key, Outcome::NoHolder(why), now, patience);
            }
            Some(outcome) => items.finish(key, outcome, now, patience),
            None => items.put_back(key),
        }
    }

    /// Ends the jobs that have nothing left to do; returns whether there was one.
    pub(super) fn end_jobs(&mut self, now: Instant, wall: SystemTime) -> Vec<v1::Job> {
        let ended: Vec<_> = self.jobs.values_mut().filter_map(|job| job.end(now).map(|end| (job.id, end))).collect();
        ended.into_iter().filter_map(|(id, (state, detail))| self.end(id, state, detail, now, wall)).collect()
    }

    /// Ends a job now; its fetches are stopped. `None` if it has ended before, or there is none.
    pub(super) fn end(&mut self, id: u64, state: JobState, detail: String, now: Instant, wall: SystemTime) -> Option<v1::Job> {
        let shown = self.show(id, now).filter(|_| self.jobs.contains_key(&id))?;
        self.jobs.remove(&id);
        for running in self.running.iter().filter(|((owner, _), _)| *owner == Owner::Job(id)).map(|(_, running)| running) {
            running.stop.cancel();
        }
        let job = v1::Job { state: state.into(), detail, ended_at: Some(wall.into()), bytes_per_second: 0, holders: 0, ..shown };
        self.ended.push_back(job.clone());
        self.forget_old(wall);
        Some(job)
    }

    /// Drops ended jobs beyond their limits.
    pub(super) fn forget_old(&mut self, wall: SystemTime) {
        let oldest = wall.checked_sub(ENDED_AGE_MAX).unwrap_or(SystemTime::UNIX_EPOCH);
        let is_old = |job: &v1::Job| job.ended_at.and_then(|at| SystemTime::try_from(at).ok()).is_some_and(|at| at < oldest);
        while self.ended.len() > ENDED_MAX || self.ended.front().is_some_and(is_old) {
            self.ended.pop_front();
        }
    }

    /// One job as others see it.
    pub(super) fn show(&self, id: u64, now: Instant) -> Option<v1::Job> {
        match self.jobs.get(&id) {
            Some(job) => {
                let (progress, sources) = self.progress(Owner::Job(id));
                Some(job.show(&progress, sources, now))
            }
            None => self.ended.iter().find(|job| job.id == id.to_string()).cloned(),
        }
    }

    /// All jobs, the oldest first.
    pub(super) fn list(&self, now: Instant) -> Vec<v1::Job> {
        let active = self.jobs.keys().filter_map(|id| self.show(*id, now));
        let mut all: Vec<_> = self.ended.iter().cloned().chain(active).collect();
        all.sort_by_key(|job| job.id.parse::<u64>().unwrap_or(u64::MAX));
        all
    }

    /// The progress of the documents under way of one owner, and what their sources did.
    fn progress(&self, owner: Owner) -> (Vec<ProgressSnapshot>, SourceTotals) {
        let mut sources = SourceTotals::default();
        let of_owner = self.running.range((owner, Key::default())..).take_while(|((other, _), _)| *other == owner);
        let snapshot = |(_, running): (_, &Running)| {
            sources.merge(running.watch.progress().sources());
            running.watch.progress().snapshot()
        };
        (of_owner.map(snapshot).collect(), sources)
    }

    /// Takes over the sizes that became known.
    pub(super) fn learn_sizes(&mut self) {
        let sizes = self.running.iter().map(|(of, running)| (of.clone(), running.watch.progress().snapshot().size));
        let known: Vec<_> = sizes.filter(|(_, size)| *size > 0).collect();
        for ((owner, key), size) in known {
            if let Some(items) = self.items_mut(owner) {
                items.learn_size(&key, size);
            }
        }
    }

    /// The name that a document got in the share.
    pub(super) fn learn_name(&mut self, owner: Owner, key: &Key, name: &DocumentName) {
        if let Some(items) = self.items_mut(owner) {
            items.learn_name(key, name);
        }
    }

    /// The names of the share that unfinished jobs and mirrors want.
    pub(super) fn wanted_names(&self) -> BTreeSet<Box<str>> {
        let jobs = self.jobs.values().map(|job| &job.items);
        jobs.chain(self.mirrors.iter().map(|mirror| &mirror.items)).flat_map(Items::names).collect()
    }

    /// Bytes of all documents of a job whose sizes are known; `None`: it is a mirror, which keeps what there is room for.
    pub(super) fn job_bytes(&self, owner: Owner) -> Option<u64> {
        match owner {
            Owner::Job(id) => self.jobs.get(&id).map(|job| job.items.bytes()),
            Owner::Mirror(_) => None,
        }
    }

    fn items_mut(&mut self, owner: Owner) -> Option<&mut Items> {
        match owner {
            Owner::Job(id) => self.jobs.get_mut(&id).map(|job| &mut job.items),
            Owner::Mirror(place) => self.mirrors.get_mut(place).map(|mirror| &mut mirror.items),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Ends the pauses that are over; with `early`, all.
    pub(super) fn wake(&mut self, now: Instant, early: bool) {
        if early {
            self.jobs.values_mut().for_each(|job| job.look_early(now));
        }
        let jobs = self.jobs.values_mut().map(|job| &mut job.items);
        for items in jobs.chain(self.mirrors.iter_mut().map(|mirror| &mut mirror.items)) {
            if early {
                items.wake_early(false, now);
            }
            items.wake(now);
        }
    }

    /// Whether a document waits for room.
    pub(super) fn waits_for_room(&self) -> bool {
        let jobs = self.jobs.values().map(|job| &job.items);
        jobs.chain(self.mirrors.iter().map(|mirror| &mirror.items)).any(Items::wait_for_room)
    }

    /// There is more room: ends the pauses of what waits for it.
    pub(super) fn wake_for_room(&mut self, now: Instant) {
        let jobs = self.jobs.values_mut().map(|job| &mut job.items);
        jobs.chain(self.mirrors.iter_mut().map(|mirror| &mut mirror.items)).for_each(|items| items.wake_early(true, now));
    }

    /// When the next pause is over.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let jobs = self.jobs.values().map(|job| &job.items);
        jobs.chain(self.mirrors.iter().map(|mirror| &mirror.items)).filter_map(|items| items.next_wake()).min()
    }
}
