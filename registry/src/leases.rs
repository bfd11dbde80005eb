//! Register and Leave: what they change is stored before it shows. A peer that leaves is in no swarm any more.

use crate::{
    queue::{Job, Jobs, NotWritten},
    shared_swarms::SharedSwarms,
    shared_table::SharedTable,
    table::{Lease, Now, Prepared, Refusal, Registration, Table},
    timeouts::WriteTimeouts,
};
use p2pdi::{
    cookie::{Cookie, CookieHash},
    name::PeerName,
};
use std::{pin::pin, sync::Arc};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

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

    /// Gives the revision.
    pub(crate) async fn leave(&self, cookie: &CookieHash) -> Result<u64, CallError> {
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
                        Err(_) | Ok(Err(_)) => return Err(CallError::Unknown),
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
