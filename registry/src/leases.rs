//! Register and Leave: what they change is stored before it shows. A peer that leaves is in no swarm any more.

use crate::{
    catch_up::{CatchUps, CaughtUp},
    cluster::{Cluster, Ended, claim_observer, end_observers, find_observer},
    queue::{Job, Jobs, NotWritten, Written},
    shared_swarms::SharedSwarms,
    shared_table::SharedTable,
    table::{Lease, Now, Prepared, Refusal, Registration, Table},
    timeouts::WriteTimeouts,
};
use p2pdi::{
    cookie::{Cookie, CookieHash},
    name::PeerName,
    v1::KeepAliveRequest,
};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

/// Longest wait for a revision that a caller asks for: a replica is behind the store by milliseconds, or cut off from it.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The table refuses it.
    Refused(Refusal),
    /// It could not be stored; nothing was changed.
    NotStored,
    /// The store has not answered in time. The change may be made or not.
    Unknown,
    /// The registry is stopping.
    Stopping,
    /// Another replica keeps the lease, and did not confirm of late what was passed on to it.
    NotSafe,
    /// The revision that the caller asks for was not reached.
    NotReached,
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The table and the way to change it, and the swarms of those who have a lease.
#[derive(Clone)]
pub(crate) struct Leases {
    pub(crate) table: Arc<SharedTable>,
    pub(crate) swarms: Arc<SharedSwarms>,
    pub(crate) jobs: Jobs,
    pub(crate) timeouts: WriteTimeouts,
    pub(crate) catch_ups: Arc<CatchUps>,
    /// The replicas that share the store; `None`: this registry is alone.
    pub(crate) cluster: Option<Arc<Cluster>>,
}

impl Leases {
    pub(crate) async fn register(&self, registration: &Registration) -> Result<(Lease, Cookie), CallError> {
        let mut cookie = registration.candidate_cookie.clone();
        let prepare = |table: &mut Table, now| {
            let (prepared, own) = table.prepare_register(registration, now)?;
            cookie = own;
            Ok(prepared)
        };
        let observes = registration.endpoint.is_none();
        let lease = self.change(observes, prepare, |written| written.lease).await?;
        self.claim(registration, &cookie.hash()).await?;
        Ok((lease, cookie))
    }

    /// A replica gives a name to an observer only if the others have nobody with it. See [`Table::claim_elsewhere`].
    async fn claim(&self, registration: &Registration, cookie: &CookieHash) -> Result<(), CallError> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        if registration.endpoint.is_some() || !self.table.with(|table, _| table.is_unclaimed(cookie)) {
            return Ok(());
        }
        let Registration { name, owned, .. } = registration;
        let taken_for = claim_observer(cluster, name, cookie, *owned).await;
        let claimed = self.table.with(|table, _| match taken_for {
            None => table.claimed(cookie),
            Some(_) => {
                table.end_observer(cookie);
                false
            }
        });
        let taken =
            || Refusal::NameTaken { name: name.as_str().into(), has_lease: true, retry_after_seconds: taken_for.unwrap_or(1) };
        if claimed { Ok(()) } else { Err(taken().into()) }
    }

    /// Extends the lease of the caller with this cookie.
    pub(crate) async fn keep_alive(&self, cookie: &CookieHash, report: KeepAliveRequest) -> Result<Lease, CallError> {
        self.of_caller(cookie, |table, now| {
            let shard = self.cluster.as_ref().and_then(|cluster| Some((cluster, table.shard(cookie)?)));
            if shard.is_some_and(|(cluster, shard)| !cluster.vouches(shard)) {
                return Err(CallError::NotSafe);
            }
            Ok(table.keep_alive(cookie, report, now)?)
        })
        .await
    }

    /// What the table says to the caller with this cookie. A replica asks the others and the store before it says that there is no lease:
    /// the caller may have registered with another one a moment ago.
    pub(crate) async fn of_caller<T>(
        &self,
        cookie: &CookieHash,
        mut decide: impl FnMut(&mut Table, Now) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let without_lease =
            |said: &Result<T, CallError>| matches!(said, Err(CallError::Refused(Refusal::CookieUnknown | Refusal::LeaseExpired)));
        let mut said = self.table.with(&mut decide);
        if self.cluster.is_some() && without_lease(&said) {
            self.adopt_observer(cookie).await;
            said = self.table.with(&mut decide);
            if without_lease(&said) {
                self.catch_up().await?;
                said = self.table.with(&mut decide);
            }
        }
        said
    }

    /// Completes when the table knows everything that any replica acknowledged before this call.
    async fn catch_up(&self) -> Result<(), CallError> {
        self.check_reachable()?;
        match self.catch_ups.run(&self.jobs, &self.timeouts).await {
            CaughtUp::Yes => Ok(()),
            CaughtUp::NotStored => Err(CallError::NotStored),
            CaughtUp::Stopping => Err(CallError::Stopping),
        }
    }

    /// A store that was not reached for some seconds need not be asked.
    fn check_reachable(&self) -> Result<(), CallError> {
        let reachable = self.cluster.as_ref().is_none_or(|cluster| cluster.store_reachable());
        if reachable { Ok(()) } else { Err(CallError::NotStored) }
    }

    /// An observer that registered with another replica is registered here, too, from its first call on.
    async fn adopt_observer(&self, cookie: &CookieHash) {
        let Some(cluster) = &self.cluster else { return };
        if self.table.with(|table, _| table.knows(cookie)) {
            return;
        }
        if let Some(found) = find_observer(cluster, cookie).await {
            self.table.with(|table, now| table.adopt_observer(*cookie, found, now));
        }
    }

    /// Completes when the table has reached `revision`.
    pub(crate) async fn reached(&self, revision: u64) -> Result<(), CallError> {
        let until = Instant::now() + REACH_TIMEOUT;
        loop {
            let mut settled = pin!(self.table.settled());
            settled.as_mut().enable();
            if self.table.with(|table, _| table.revision()) >= revision {
                return Ok(());
            }
            timeout_at(until, settled).await.map_err(|_| CallError::NotReached)?;
        }
    }

    /// Gives the revision.
    pub(crate) async fn leave(&self, cookie: &CookieHash) -> Result<u64, CallError> {
        match self.of_caller(cookie, |table, now| Ok(table.caller(cookie, now).map(drop)?)).await {
            Ok(()) | Err(CallError::Refused(_)) => {}
            Err(error) => {
                self.swarms.leave(&[*cookie]);
                return Err(error);
            }
        }
        let observes = self.table.with(|table, now| table.observer(cookie, now).is_some());
        let left = self.change(observes, |table, now| table.prepare_leave(cookie, now), |written| Some(written.revision)).await;
        if let Some(cluster) = self.cluster.as_ref().filter(|_| observes) {
            // It may have called others, which have it, too.
            end_observers(cluster, Ended::Left(cookie)).await;
        }
        // Also when the store fails: the caller said that it goes.
        self.swarms.leave(&[*cookie]);
        left
    }

    /// Frees a name: its lease and its reservation end. Says whether anybody had it, and gives the revision.
    pub(crate) async fn free(&self, name: &PeerName) -> Result<(bool, u64), CallError> {
        if self.cluster.is_some() {
            // Somebody may have registered it elsewhere a moment ago.
            self.catch_up().await?;
        }
        let cookies = self.table.with(|table, _| table.cookies_of(name));
        let revision = self.change(false, |table, _| table.prepare_free(name), |written| Some(written.revision)).await?;
        self.swarms.leave(&cookies);
        let elsewhere = match &self.cluster {
            Some(cluster) => end_observers(cluster, Ended::Freed(name)).await,
            None => false,
        };
        Ok((elsewhere || !cookies.is_empty(), revision))
    }

    /// Decides a change and has it written; again when another one came first. `observes`: it is of an observer, which is in memory only. `answer`: what
    /// to say of it once it is written; `None`: it does not stand any more, so that the caller does not know of what it made.
    async fn change<T>(
        &self,
        observes: bool,
        mut prepare: impl FnMut(&mut Table, Now) -> Result<Prepared<T>, Refusal>,
        answer: impl FnOnce(Written) -> Option<T>,
    ) -> Result<T, CallError> {
        if let Err(unreachable) = self.check_reachable() {
            if !observes {
                return Err(unreachable);
            }
            return match self.table.with(&mut prepare) {
                Ok(Prepared::Done(done)) => Ok(done),
                // A change of the same name waits for the store.
                Ok(Prepared::Write(_)) | Err(Refusal::Busy) => Err(unreachable),
                Err(refusal) => Err(refusal.into()),
            };
        }
        let mut tried = false;
        let changed = self.try_change(prepare, answer, &mut tried).await;
        match changed {
            // The store may have made an earlier try whose answer was lost.
            Err(CallError::NotStored) if tried => Err(CallError::Unknown),
            changed => changed,
        }
    }

    /// See [`Self::change`]. `tried`: an earlier try may have been written.
    async fn try_change<T>(
        &self,
        mut prepare: impl FnMut(&mut Table, Now) -> Result<Prepared<T>, Refusal>,
        answer: impl FnOnce(Written) -> Option<T>,
        tried: &mut bool,
    ) -> Result<T, CallError> {
        let mut caught_up = self.cluster.is_none();
        let until = Instant::now() + self.timeouts.queue;
        loop {
            let mut settled = pin!(self.table.settled());
            settled.as_mut().enable();
            // Reserve first: nothing may wait between holding the name and queueing the change, or a caller that goes away
            // meanwhile would leave the name held.
            let permit = match timeout_at(until, self.jobs.reserve()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Err(CallError::Stopping),
                Err(_) => return Err(CallError::NotStored),
            };
            match self.table.with(&mut prepare) {
                Ok(Prepared::Done(done)) => return Ok(done),
                Ok(Prepared::Write(change)) => {
                    let (done, written) = oneshot::channel();
                    permit.send(Job::Change(change, done));
                    // The writer settles the change even if the caller has stopped waiting.
                    match timeout(self.timeouts.commit, written).await {
                        Ok(Ok(Ok(written))) => return answer(written).ok_or(CallError::Unknown),
                        Ok(Ok(Err(NotWritten::Conflict))) => *tried = true,
                        Ok(Ok(Err(NotWritten::Failed))) => return Err(CallError::NotStored),
                        // The store hangs, or the writer has ended.
                        Ok(Ok(Err(NotWritten::Unknown))) | Err(_) | Ok(Err(_)) => return Err(CallError::Unknown),
                    }
                }
                Err(Refusal::NameTaken { .. }) if !caught_up => {
                    drop(permit);
                    // Its holder may have left elsewhere.
                    self.catch_up().await?;
                    caught_up = true;
                    continue;
                }
                Err(Refusal::Busy) => drop(permit),
                Err(refusal) => return Err(refusal.into()),
            }
            // Decide again once the other change of this name is settled.
            timeout_at(until, settled).await.map_err(|_| CallError::NotStored)?;
        }
    }
}
