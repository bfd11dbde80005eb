//! Register and Leave: what they change is stored before it shows. A peer that leaves is in no swarm any more.

use crate::{
    cluster::{Cluster, find_observer},
    queue::{Job, Jobs, NotWritten},
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
        let lease = self.change(prepare, |lease| lease).await?;
        Ok((lease, cookie))
    }

    /// Extends the lease of the caller with this cookie.
    pub(crate) async fn keep_alive(&self, cookie: &CookieHash, report: KeepAliveRequest) -> Result<Lease, CallError> {
        self.adopt_observer(cookie).await;
        self.table.with(|table, now| {
            let shard = self.cluster.as_ref().and_then(|cluster| Some((cluster, table.shard(cookie)?)));
            if shard.is_some_and(|(cluster, shard)| !cluster.vouches(shard)) {
                return Err(CallError::NotSafe);
            }
            Ok(table.keep_alive(cookie, report, now)?)
        })
    }

    /// An observer that registered with another replica is registered here, too, from its first call on.
    pub(crate) async fn adopt_observer(&self, cookie: &CookieHash) {
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
        self.adopt_observer(cookie).await;
        let left = self.change(|table, now| table.prepare_leave(cookie, now), |lease| lease.revision).await;
        // Also when the store fails: the caller said that it goes.
        self.swarms.leave(&[*cookie]);
        left
    }

    /// Frees a name: its lease and its reservation end. Says whether anybody had it, and gives the revision.
    pub(crate) async fn free(&self, name: &PeerName) -> Result<(bool, u64), CallError> {
        let cookies = self.table.with(|table, _| table.cookies_of(name));
        // A record that was removed has no lease to answer with, so the table is asked once more, and finds nobody.
        let revision = self.change(|table, _| table.prepare_free(name), |lease| lease.revision).await?;
        self.swarms.leave(&cookies);
        Ok((!cookies.is_empty(), revision))
    }

    async fn change<T>(
        &self,
        mut prepare: impl FnMut(&mut Table, Now) -> Result<Prepared<T>, Refusal>,
        answer: impl FnOnce(Lease) -> T,
    ) -> Result<T, CallError> {
        if self.cluster.as_ref().is_some_and(|cluster| !cluster.store_reachable()) {
            return Err(CallError::NotStored);
        }
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
                        Ok(Ok(Ok(lease))) => return Ok(answer(lease)),
                        Ok(Ok(Err(NotWritten::Conflict))) => {}
                        Ok(Ok(Err(NotWritten::Failed))) => return Err(CallError::NotStored),
                        // The store hangs, or the writer has ended.
                        Ok(Ok(Err(NotWritten::Unknown))) | Err(_) | Ok(Err(_)) => return Err(CallError::Unknown),
                    }
                }
                Err(Refusal::Busy) => drop(permit),
                Err(refusal) => return Err(refusal.into()),
            }
            // Decide again once the other change of this name is settled.
            timeout_at(until, settled).await.map_err(|_| CallError::NotStored)?;
        }
    }
}
