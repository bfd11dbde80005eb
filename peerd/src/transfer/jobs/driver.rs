//! Runs the jobs and mirrors: looks for documents, starts fetches, and records how they end.

use super::{
    items::{Key, Outcome, Target},
    look::{Found, Look, look_for_job, look_for_mirror},
    mirror::{Compared, Seen},
    queue::Owner,
    shared::Shared,
    worker::{self, Work},
};
use crate::transfer::fetch::{
    job::{FetchJob, FetchRequest},
    options::FetchOptions,
};
use p2pdi::log_limit::{Line, LogLimit};
use std::{
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    task::{JoinError, JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How often progress is published, mirrors are compared, and what changed is written.
const TICK: Duration = Duration::from_secs(1);
/// How often what the limits forbid is removed.
const LIMITS_EVERY: Duration = Duration::from_secs(30);
/// What waits for room is tried again when there is so much more: free space changes all the time by a little.
const ROOM_STEP: u64 = 1024 * 1024;
/// How often times of use are written.
const USES_EVERY: Duration = Duration::from_secs(60);
/// Writing the ledger takes at most about one part in this many of the time.
const DUTY: u32 = 20;
/// Least time between two early wakes, however often the known peers change.
const WAKE_EVERY: Duration = Duration::from_secs(1);

/// A mirrored peer can remove any number of documents at once.
static REMOVED_LOG: LogLimit = LogLimit::new(10);
static NOT_REMOVED_LOG: LogLimit = LogLimit::new(1);

/// The task of the jobs.
pub(super) struct Driver {
    shared: Arc<Shared>,
    workers: JoinSet<(Owner, Key, Option<Outcome>)>,
    looks: JoinSet<(Owner, Look)>,
    /// Jobs and mirrors that are being looked for.
    looking: Vec<Owner>,
    /// Jobs whose named documents are in their items.
    planned: Vec<u64>,
    mirrors_due: Vec<Instant>,
    next_limits: Instant,
    next_uses: Instant,
    next_ledger: Instant,
    next_early_wake: Instant,
    /// The version of the remote index when waiting documents were woken last.
    seen_remote: u64,
    /// The least room since something waits for it; `None`: nothing does.
    seen_room: Option<u64>,
    /// The jobs must be written.
    unsaved: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let mirrors = shared.queue().mirrors.len();
        Self {
            shared,
            workers: JoinSet::new(),
            looks: JoinSet::new(),
            looking: Vec::new(),
            planned: Vec::new(),
            mirrors_due: vec![now; mirrors],
            next_limits: now,
            next_uses: now + USES_EVERY,
            next_ledger: now,
            next_early_wake: now,
            seen_remote: 0,
            seen_room: None,
            unsaved: false,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let settled = self.shared.catalog.share().clone();
        // What the share has already is not fetched again.
        tokio::select! {
            () = stop.cancelled() => return,
            () = settled.settled() => {}
        }
        let shared = Arc::clone(&self.shared);
        let mut peers = shared.peers.clone();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            self.step();
            self.save_jobs().await;
            let wake = self.shared.queue().next_wake().unwrap_or_else(|| Instant::now() + TICK);
            tokio::select! {
                () = stop.cancelled() => break,
                () = shared.woken.notified() => {}
                () = shared.arrived.notified() => shared.queue().look(),
                () = sleep_until(wake.into()) => {}
                Some(ended) = self.workers.join_next() => self.take_finished(ended),
                Some(ended) = self.looks.join_next() => self.take_look(ended),
                () = peers.changed() => self.wake_early(),
                _ = ticks.tick() => self.tick().await,
            }
        }
        self.stop().await;
    }

    /// Ends the fetches under way, and writes what must not be lost.
    async fn stop(mut self) {
        self.workers.shutdown().await;
        self.looks.shutdown().await;
        let ledger = Arc::clone(&self.shared.ledger);
        if let Ok(Err(error)) = spawn_blocking(move || ledger.save(true)).await {
            tracing::warn!(%error, "cannot write which documents were fetched");
        }
    }

    /// Everything that can be done now without waiting.
    fn step(&mut self) {
        let now = Instant::now();
        self.shared.queue().wake(now, false);
        self.plan(now);
        self.look(now);
        loop {
            let started = self.shared.queue().start();
            let Some((owner, key, target)) = started else { break };
            self.start(owner, key, target);
        }
        let ended = self.shared.queue().end_jobs(now, SystemTime::now());
        if !ended.is_empty() {
            self.unsaved = true;
            ended.iter().for_each(|job| self.shared.count_ended(job));
            self.shared.changed();
        }
        let queue = self.shared.queue();
        self.planned.retain(|id| queue.jobs.contains_key(id));
        self.shared.metrics.active.set(queue.jobs.len() as f64);
    }

    /// Adds the documents that new jobs name.
    fn plan(&mut self, now: Instant) {
        let (index, remote) = (self.shared.catalog.share().index(), self.shared.catalog.remote(now));
        let mut queue = self.shared.queue();
        for (id, job) in &mut queue.jobs {
            if self.planned.contains(id) {
                continue;
            }
            self.planned.push(*id);
            let known = |selector: &_| super::look::known(&remote, selector, now);
            job.add_named(&index, known, now);
        }
    }

    /// Looks for what matches patterns, where it is time.
    fn look(&mut self, now: Instant) {
        let mut due = Vec::new();
        {
            let queue = self.shared.queue();
            due.extend(queue.jobs.values().filter(|job| job.must_look(now)).map(|job| Owner::Job(job.id)));
            let mirrors = self.mirrors_due.iter().enumerate().filter(|(_, at)| **at <= now);
            due.extend(mirrors.map(|(place, _)| Owner::Mirror(place)));
        }
        for owner in due {
            if self.looking.contains(&owner) {
                continue;
            }
            let shared = Arc::clone(&self.shared);
            match owner {
                Owner::Job(id) => {
                    let Some(request) = shared.queue().jobs.get(&id).map(|job| job.request.clone()) else { continue };
                    self.looks.spawn(async move { (owner, look_for_job(&shared, request).await) });
                }
                Owner::Mirror(place) => {
                    let seen =
                        Seen { remote: shared.catalog.remote(now).version(), own: shared.catalog.share().index().version() };
                    let mut queue = shared.queue();
                    let Some(mirror) = queue.mirrors.get_mut(place) else { continue };
                    if !mirror.begins_look(seen, now) {
                        self.mirrors_due[place] = now + super::look::mirror_pause(&mirror.config);
                        continue;
                    }
                    let (config, last, beyond) = (mirror.config.clone(), mirror.listing.clone(), mirror.beyond.clone());
                    drop(queue);
                    self.looks.spawn(async move { (owner, look_for_mirror(&shared, config, last, beyond).await) });
                }
            }
            self.looking.push(owner);
        }
    }

    fn take_look(&mut self, ended: Result<(Owner, Look), JoinError>) {
        let Some((owner, look)) = unwrap_task(ended) else { return };
        self.looking.retain(|other| *other != owner);
        let (index, now) = (self.shared.catalog.share().index(), Instant::now());
        let owns = |own: &_| self.shared.ledger.owns(own);
        let mut queue = self.shared.queue();
        match (owner, look) {
            (Owner::Job(id), Look::Found(Found { offers, asked, missed, .. })) => {
                if let Some(job) = queue.jobs.get_mut(&id) {
                    job.add_found(offers, (&asked, missed), &index, owns, now);
                }
            }
            (Owner::Job(_), Look::Failed(_)) => {}
            (Owner::Mirror(place), look) => {
                let Some(mirror) = queue.mirrors.get_mut(place) else { return };
                if let Some(due) = self.mirrors_due.get_mut(place) {
                    *due = now + super::look::mirror_pause(&mirror.config);
                }
                match look {
                    Look::Failed(why) => mirror.look_failed(why),
                    Look::Found(Found { offers, listing, beyond, .. }) => {
                        mirror.beyond = beyond;
                        mirror.detail.clear();
                        mirror.update(offers, &index, owns, now);
                        let fetched = self.shared.ledger.of_mirror(&mirror.id());
                        let Compared { peer, newly_listed, gone } = mirror.take_listing(listing, &fetched, now);
                        if let Some(peer) = peer {
                            self.shared.ledger.listed(&newly_listed, peer);
                        }
                        drop(queue);
                        self.remove(gone);
                    }
                }
            }
        }
        self.shared.changed();
    }

    /// Removes what the peer that a mirror follows has removed.
    fn remove(&self, names: Vec<Box<str>>) {
        if names.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Not waited for: the next look tries again what failed.
        drop(spawn_blocking(move || {
            let index = shared.catalog.share().index();
            for name in names {
                let document = index.by_name(&name).filter(|document| *document.name.as_str() == *name);
                let Some(document) = document.filter(|document| shared.ledger.may_go(document)) else { continue };
                match shared.catalog.share().remove(document) {
                    Ok(()) => {
                        if let Some(Line { suppressed }) = REMOVED_LOG.line() {
                            tracing::info!(document = %name, suppressed, "removed: the mirrored peer removed it");
                        }
                        shared.ledger.forget(&name);
                    }
                    Err(error) => {
                        if let Some(Line { suppressed }) = NOT_REMOVED_LOG.line() {
                            tracing::warn!(document = %name, %error, suppressed, "cannot remove what the mirrored peer removed");
                        }
                    }
                }
            }
        }));
    }

    fn start(&mut self, owner: Owner, key: Key, mut target: Target) {
        let shared = &self.shared;
        if target.size == 0 {
            let (remote, now) = (shared.catalog.remote(Instant::now()), Instant::now());
            target.size = super::look::known(&remote, &target.selector, now).map_or(0, |offer| offer.document.size());
        }
        let Some(folder) = shared.catalog.share().folder().map(std::path::Path::to_owned) else { return };
        let mut from = target.holders.clone();
        let mut asked = Vec::new();
        let mut mirror = None;
        let mut missing = None;
        {
            let queue = shared.queue();
            match owner {
                Owner::Job(id) => {
                    if let Some(job) = queue.jobs.get(&id).filter(|job| !job.request.from.is_empty()) {
                        (from, missing) = shared.peers.find(&job.request.from);
                        asked.clone_from(&from);
                    }
                }
                Owner::Mirror(place) => mirror = queue.mirrors.get(place).map(|mirror| mirror.id()),
            }
        }
        if let Some(missing) = missing.filter(|_| from.is_empty()) {
            let why = format!("{missing}, which it is to be fetched from, is not known now");
            shared.queue().finished(owner, &key, Some(Outcome::NoHolder(why)), Instant::now());
            return;
        }
        let index = shared.catalog.share().index();
        // Where the file system ignores case, a file of another spelling is in the way.
        let own = target.save_as.as_ref().and_then(|name| index.by_name(name.as_str()).filter(|own| own.name == *name));
        let options = FetchOptions {
            save_as: target.save_as.clone(),
            // Never what the user put there.
            replace: own.is_some_and(|own| shared.ledger.owns(own)),
            limit: shared.download_limit.clone(),
            arrived: Arc::clone(&shared.arrived),
            expected_size: Some(target.size).filter(|size| *size > 0),
            restricted: target.restricted,
            ..FetchOptions::new(folder, shared.swarms.clone())
        };
        let request = FetchRequest { wanted: target.selector.clone(), from, options };
        let (job, watch) = FetchJob::new(request, shared.channels.clone(), Arc::clone(&shared.network));
        let (watch, stop) = (Arc::new(watch), CancellationToken::new());
        shared.queue().started(owner, key.clone(), target.size, Arc::clone(&watch), stop.clone());
        let work = Work { owner, key: key.clone(), target, asked, job, watch, mirror, stop };
        let shared = Arc::clone(shared);
        self.workers.spawn(async move { (owner, key, Box::pin(worker::fetch(shared, work)).await) });
    }

    fn take_finished(&mut self, ended: Result<(Owner, Key, Option<Outcome>), JoinError>) {
        if let Some((owner, key, outcome)) = unwrap_task(ended) {
            self.shared.queue().finished(owner, &key, outcome, Instant::now());
            self.shared.changed();
        }
    }

    /// Tries again what waits: the known peers changed.
    fn wake_early(&mut self) {
        let now = Instant::now();
        if now >= self.next_early_wake {
            self.next_early_wake = now + WAKE_EVERY;
            self.shared.queue().wake(now, true);
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let is_running = {
            let mut queue = self.shared.queue();
            queue.learn_sizes();
            queue.forget_old(SystemTime::now());
            queue.is_running() || !queue.jobs.is_empty()
        };
        if is_running {
            self.shared.changed();
        }
        let remote = self.shared.catalog.remote(now).version();
        if std::mem::replace(&mut self.seen_remote, remote) != remote {
            self.wake_early();
        }
        self.look_for_room().await;
        if self.shared.room.limits_changed() || now >= self.next_limits {
            self.next_limits = now + LIMITS_EVERY;
            let shared = Arc::clone(&self.shared);
            unwrap_task(spawn_blocking(move || shared.room.keep_limits(|| shared.queue().wanted_names())).await);
        }
        if now >= self.next_ledger {
            let uses = now >= self.next_uses;
            if uses {
                self.next_uses = now + USES_EVERY;
            }
            let ledger = Arc::clone(&self.shared.ledger);
            if let Some(Err(error)) = unwrap_task(spawn_blocking(move || ledger.save(uses)).await) {
                tracing::warn!(%error, "cannot write which documents were fetched; trying again");
            }
            self.next_ledger = now + now.elapsed() * DUTY;
        }
    }

    /// Tries again what waits for room once there is more.
    async fn look_for_room(&mut self) {
        if !self.shared.queue().waits_for_room() {
            self.seen_room = None;
            return;
        }
        let room = Arc::clone(&self.shared.room);
        let Some(left) = unwrap_task(spawn_blocking(move || room.left()).await) else { return };
        let least = self.seen_room.unwrap_or(left).min(left);
        self.seen_room = Some(if left - least >= ROOM_STEP {
            self.shared.queue().wake_for_room(Instant::now());
            left
        } else {
            least
        });
    }

    async fn save_jobs(&mut self) {
        if std::mem::take(&mut self.unsaved)
            && let Err(error) = self.shared.save().await
        {
            tracing::warn!(%error, "cannot write the jobs; trying again");
            self.unsaved = true;
        }
    }
}

/// The result of a task; its panic continues here. `None` if it was aborted.
fn unwrap_task<T>(ended: Result<T, JoinError>) -> Option<T> {
    match ended {
        Ok(result) => Some(result),
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}
