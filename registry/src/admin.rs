//! The service for operators: `p2pdi.v1.RegistryAdmin`.

use crate::{
    access::{check_admin, check_network},
    backup::{BackupReader, BackupWriter},
    enrolling::{Enrolling, no_authority, require_operator},
    leases::{CallError, Leases},
    queue::{Job, NotWritten},
    store_health::StoreHealth,
    table::{Change, duration},
};
use p2pdi::{
    VERSION,
    network::NetworkName,
    selector::NamePattern,
    server::Caller,
    status::Reason,
    v1::{
        BackupPart, BackupRequest, BackupResponse, CreateTokenRequest, CreateTokenResponse, GetRegistryStatusRequest,
        GetRegistryStatusResponse, ListRecordsRequest, ListRecordsResponse, ListTokensRequest, ListTokensResponse, ReplicaStatus,
        RestoreRequest, RestoreResponse, RevokeNameRequest, RevokeNameResponse, RevokeTokenRequest, RevokeTokenResponse,
        RotateAuthorityRequest, RotateAuthorityResponse, registry_admin_server::RegistryAdmin,
    },
};
use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, mpsc::error::SendTimeoutError, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, codegen::tokio_stream::Stream};

/// Largest request, in bytes: a part of a backup, and room for what later versions add.
pub(crate) const REQUEST_MAX_BYTES: usize = 1024 * 1024;
/// Copies of the whole table at once, of backups and restores.
const COPIES_MAX: usize = 1;
/// Longest wait for the next part of a backup: for who sends one to be restored, and for who takes one.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service `p2pdi.v1.RegistryAdmin`.
pub(crate) struct AdminService {
    /// `None`: the registry is no certificate authority.
    pub(crate) enrolling: Option<Enrolling>,
    pub(crate) network: NetworkName,
    pub(crate) leases: Leases,
    pub(crate) health: Arc<StoreHealth>,
    pub(crate) started_at: SystemTime,
    /// Bounds the copies of the table.
    pub(crate) copies: Arc<Semaphore>,
}

impl AdminService {
    pub(crate) fn new(enrolling: Option<Enrolling>, network: NetworkName, leases: Leases, health: Arc<StoreHealth>) -> Self {
        let copies = Arc::new(Semaphore::new(COPIES_MAX));
        Self { enrolling, network, leases, health, started_at: SystemTime::now(), copies }
    }

    /// Whether the caller may do what needs no certificate authority.
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        check_admin(self.enrolling.as_ref(), Caller::of(request.extensions()))
    }

    /// Takes the records over, all or none. Gives how many there are, and how many of them have a lease.
    async fn restore_all(&self, mut parts: Streaming<RestoreRequest>) -> Result<(u64, u64), Status> {
        let (is_empty, max) = self.leases.table.with(|table, _| (!table.has_records(), table.max_peers()));
        if !is_empty {
            return Err(not_empty());
        }
        let mut backup = BackupReader::new(max as usize);
        loop {
            let next = timeout(PART_TIMEOUT, parts.message()).await;
            let next = next.map_err(|_| {
                Reason::RequestTimeout.status("the next part of the backup did not arrive in time; nothing was restored")
            })?;
            let Some(RestoreRequest { part }) = next? else { break };
            backup.add(part)?;
            if let Some(network) = backup.network() {
                check_network(&self.network, network)?;
            }
        }
        let changes: Vec<_> = backup.finish()?.into_iter().map(|peer| Change::put(peer, 0)).collect();
        let records = changes.len() as u64;
        let active = changes.iter().filter(|change| change.peer.as_ref().is_some_and(|peer| peer.active)).count() as u64;
        let (done, written) = oneshot::channel();
        self.leases.jobs.send(Job::Restore(changes, done)).await.map_err(|_| CallError::Stopping)?;
        // The writer goes on even if the caller stops waiting, and ends with all or nothing.
        match written.await {
            Ok(Ok(())) => Ok((records, active)),
            Ok(Err(NotWritten::Conflict)) => Err(not_empty()),
            Ok(Err(NotWritten::Failed)) => Err(CallError::NotStored.into()),
            Ok(Err(NotWritten::Unknown)) | Err(_) => Err(CallError::Unknown.into()),
        }
    }

    /// The authority, if the caller is an operator.
    fn for_operator<T>(&self, request: Request<T>) -> Result<(&Enrolling, T), Status> {
        let enrolling = self.enrolling.as_ref().ok_or_else(no_authority)?;
        require_operator(Caller::of(request.extensions()))?;
        Ok((enrolling, request.into_inner()))
    }
}

#[tonic::async_trait]
impl RegistryAdmin for AdminService {
    type ListRecordsStream = Messages<ListRecordsResponse>;
    type BackupStream = Messages<BackupResponse>;

    async fn get_registry_status(
        &self,
        request: Request<GetRegistryStatusRequest>,
    ) -> Result<Response<GetRegistryStatusResponse>, Status> {
        self.check(&request)?;
        let (counts, ttl_ms) = self.leases.table.with(|table, _| (table.counts(), table.ttl_ms()));
        Ok(Response::new(GetRegistryStatusResponse {
            version: VERSION.to_owned(),
            network: self.network.to_string(),
            started_at: Some(self.started_at.into()),
            revision: counts.revision,
            active_peers: counts.active as u64,
            inactive_peers: counts.inactive as u64,
            observers: counts.observers as u64,
            unwritten: counts.in_flight as u64,
            records_skipped: self.health.skipped().count,
            ttl: Some(duration(ttl_ms)),
            store: self.health.word(self.leases.cluster.as_ref().map(|cluster| cluster.store_reachable())).to_owned(),
            store_problem: self.health.problem(),
            replica: self.leases.cluster.as_ref().map(|cluster| {
                let (replicas, shards) = cluster.counts();
                ReplicaStatus { id: cluster.me().to_string(), replicas, shards, suspects: counts.suspects as u64 }
            }),
        }))
    }

    async fn list_records(&self, request: Request<ListRecordsRequest>) -> Result<Response<Self::ListRecordsStream>, Status> {
        self.check(&request)?;
        let pattern = NamePattern::parse(&request.into_inner().name)?;
        let table = Arc::clone(&self.leases.table);
        let stream = async_stream::stream! {
            let mut from = Some(0);
            while let Some(slot) = from {
                let (records, next) = table.with(|table, now| table.administered(slot, pattern.as_ref(), now));
                from = next;
                if records.is_empty() {
                    // A pattern that matches few goes through all of them.
                    tokio::task::yield_now().await;
                } else {
                    yield Ok(ListRecordsResponse { records });
                }
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.check(&request)?;
        let turn = Arc::clone(&self.copies).try_acquire_owned().map_err(|_| busy())?;
        let (revision, peers) = self.leases.table.with(|table, _| table.stored());
        let parts = BackupWriter::new(&self.network, revision, peers);
        Ok(Response::new(Box::pin(handed_out(parts, turn, PART_TIMEOUT))))
    }

    async fn restore(&self, request: Request<Streaming<RestoreRequest>>) -> Result<Response<RestoreResponse>, Status> {
        self.check(&request)?;
        let _turn = self.copies.try_acquire().map_err(|_| busy())?;
        let (records, active_peers) = self.restore_all(request.into_inner()).await?;
        tracing::info!(records, active_peers, "an operator restored a backup");
        let revision = self.leases.table.with(|table, _| table.revision());
        Ok(Response::new(RestoreResponse { records, active_peers, revision }))
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Result<Response<CreateTokenResponse>, Status> {
        let (enrolling, request) = self.for_operator(request)?;
        Ok(Response::new(enrolling.create_token(request).await?))
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Result<Response<ListTokensResponse>, Status> {
        let (enrolling, _) = self.for_operator(request)?;
        Ok(Response::new(enrolling.list_tokens().await?))
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Result<Response<RevokeTokenResponse>, Status> {
        let (enrolling, RevokeTokenRequest { id }) = self.for_operator(request)?;
        Ok(Response::new(enrolling.revoke_token(id).await?))
    }

    async fn revoke_name(&self, request: Request<RevokeNameRequest>) -> Result<Response<RevokeNameResponse>, Status> {
        let (enrolling, RevokeNameRequest { name }) = self.for_operator(request)?;
        Ok(Response::new(enrolling.revoke_name(name.parse()?).await?))
    }

    async fn rotate_authority(
        &self,
        request: Request<RotateAuthorityRequest>,
    ) -> Result<Response<RotateAuthorityResponse>, Status> {
        let (enrolling, _) = self.for_operator(request)?;
        Ok(Response::new(enrolling.rotate().await?))
    }
}

/// The parts for one caller, who has the turn until the last one is taken. A caller that takes none for as long as `patience` loses it: what
/// it has is cut off.
fn handed_out(
    parts: impl Iterator<Item = BackupPart> + Send + 'static,
    turn: OwnedSemaphorePermit,
    patience: Duration,
) -> ReceiverStream<Result<BackupResponse, Status>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _turn = turn;
        for part in parts {
            let sending = sender.send_timeout(Ok(BackupResponse { part: Some(part) }), patience);
            if let Err(error) = sending.await {
                if matches!(error, SendTimeoutError::Timeout(_)) {
                    tracing::warn!("a caller does not take the next part of its backup; the backup ends");
                }
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn not_empty() -> Status {
    Reason::NotEmpty.status(
        "this registry has records, and a restore never overwrites: nothing was restored; start a registry with an empty --state folder, or with \
         another --etcd-prefix, restore into it, and then let the peers reach it",
    )
}

fn busy() -> Status {
    let message = "another backup or restore is under way; try again when it is done";
    Reason::RateLimited.status_retry_after(message, Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;

    #[tokio::test]
    async fn a_caller_that_takes_no_part_of_its_backup_loses_its_turn() {
        let copies = Arc::new(Semaphore::new(COPIES_MAX));
        let turn = || Arc::clone(&copies).try_acquire_owned();
        let parts = || (0..10).map(|_| BackupPart::default());
        let mut stalled = handed_out(parts(), turn().unwrap(), Duration::from_millis(20));
        assert!(stalled.next().await.is_some());
        // The test fails by its time limit if the turn never comes back.
        let next = Arc::clone(&copies).acquire_owned().await.unwrap();
        let whole = handed_out(parts(), next, PART_TIMEOUT);
        assert!(turn().is_err());
        assert_eq!(whole.collect::<Vec<_>>().await.len(), 10);
        assert!(stalled.collect::<Vec<_>>().await.len() < 9, "it is cut off");
        // One that goes away gives its turn back at once.
        drop(handed_out(parts(), Arc::clone(&copies).acquire_owned().await.unwrap(), PART_TIMEOUT));
        let returned = timeout(PART_TIMEOUT / 2, copies.acquire()).await;
        assert!(returned.is_ok());
    }
}
