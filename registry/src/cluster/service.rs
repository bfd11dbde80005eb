//! The service `p2pdi.v1.Replica`: what other replicas say.

use super::shared::Cluster;
use crate::{
    announcing,
    shared_swarms::SharedSwarms,
    shared_table::SharedTable,
    swarms::Caller,
    table::{Extended, ToldSuspects},
};
use bytes::Bytes;
use p2pdi::{
    cookie::CookieHash,
    field::InvalidField,
    hex,
    id::PeerId,
    name::PeerName,
    status::Reason,
    v1::{
        ClaimObserverRequest, ClaimObserverResponse, EndObserverRequest, EndObserverResponse, ExtendedLease, FindObserverRequest,
        FindObserverResponse, PassOnAnnounceRequest, PassOnAnnounceResponse, PassOnRequest, PassOnResponse,
        replica_server::Replica,
    },
};
use std::{pin::Pin, sync::Arc};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// The header with the store's secret.
pub(crate) const SECRET_HEADER: &str = "p2pdi-replica";
/// Largest request accepted, in bytes: a batch of 4,096 leases with loads.
pub(crate) const BATCH_MAX_BYTES: usize = 1024 * 1024;
/// Leases extended under one hold of the table's lock, some 100 µs.
const EXTENDED_AT_ONCE: usize = 256;

/// Suspects looked at for one answer: about a millisecond, in which nobody else has the table.
const TOLD_AT_ONCE: usize = 4_096;
/// How often it is looked which suspects to tell: a million of them within 25 seconds.
const TELL_EVERY_MS: u64 = 100;

/// The service `p2pdi.v1.Replica`.
pub(crate) struct ReplicaService {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) table: Arc<SharedTable>,
    pub(crate) swarms: Arc<SharedSwarms>,
}

impl ReplicaService {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let sent = request.metadata().get(SECRET_HEADER).and_then(|value| value.to_str().ok()).and_then(hex::decode::<32>);
        if sent.is_some_and(|secret| self.cluster.knows_store(&secret)) {
            return Ok(());
        }
        let why = "only replicas that share the store of this registry may call this; use the same endpoints and prefix";
        Err(Reason::ReplicaUnknown.status(why))
    }
}

#[tonic::async_trait]
impl Replica for ReplicaService {
    type PassOnStream = Pin<Box<dyn Stream<Item = Result<PassOnResponse, Status>> + Send>>;

    async fn pass_on(&self, request: Request<Streaming<PassOnRequest>>) -> Result<Response<Self::PassOnStream>, Status> {
        self.check(&request)?;
        let (cluster, table) = (Arc::clone(&self.cluster), Arc::clone(&self.table));
        let (mut told, mut tell_at_ms) = (ToldSuspects::default(), 0);
        // The others end their streams when the store says that this replica has left. Without the store they are ended here.
        let gone = Arc::clone(&self.cluster);
        let batches = request.into_inner().take_while(move |_| !gone.view().is_gone());
        let answers = batches.map(move |batch| {
            let PassOnRequest { number, extended } = batch?;
            // Before the leases are extended: those of a shard that is lost meanwhile are not confirmed.
            let kept = cluster.vouched();
            let extended: Vec<Extended> = extended.into_iter().filter_map(from_message).collect();
            for some in extended.chunks(EXTENDED_AT_ONCE) {
                table.with(|table, now| {
                    for one in some {
                        table.extended_elsewhere(one, now);
                    }
                });
            }
            let now_ms = cluster.now_ms();
            let (suspects, released) = if now_ms >= tell_at_ms {
                tell_at_ms = now_ms + TELL_EVERY_MS;
                table.with(|table, _| table.tell_suspects(&mut told, TOLD_AT_ONCE))
            } else {
                Default::default()
            };
            Ok(PassOnResponse {
                number,
                store_reachable: cluster.store_reachable(),
                kept_shards: kept.bits(),
                suspects: suspects.iter().map(to_field).collect(),
                released: released.iter().map(to_field).collect(),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn pass_on_announce(
        &self,
        request: Request<PassOnAnnounceRequest>,
    ) -> Result<Response<PassOnAnnounceResponse>, Status> {
        self.check(&request)?;
        let PassOnAnnounceRequest { cookie_hash, id, name, endpoint, zone, uploads, announce } = request.into_inner();
        let caller = Caller {
            cookie: required_cookie(&cookie_hash)?,
            id: PeerId::from_field("id", &id)?,
            name: name.into(),
            endpoint: endpoint.into(),
            zone: zone.into(),
            uploads,
        };
        let (announce, _) = announcing::parse(announce.unwrap_or_default())?;
        let now_ms = self.table.with(|_, now| now.mono_ms);
        let answer = Some(self.swarms.announce(&caller, &announce, now_ms)?);
        Ok(Response::new(PassOnAnnounceResponse { answer }))
    }

    async fn find_observer(&self, request: Request<FindObserverRequest>) -> Result<Response<FindObserverResponse>, Status> {
        self.check(&request)?;
        let cookie = required_cookie(&request.get_ref().cookie_hash)?;
        let found = self.table.with(|table, now| table.observer(&cookie, now));
        Ok(Response::new(found.unwrap_or_default()))
    }

    async fn claim_observer(&self, request: Request<ClaimObserverRequest>) -> Result<Response<ClaimObserverResponse>, Status> {
        self.check(&request)?;
        let ClaimObserverRequest { name, cookie_hash, owned } = request.into_inner();
        let name: PeerName = name.parse()?;
        let cookie = required_cookie(&cookie_hash)?;
        let left_ms = self.table.with(|table, now| table.claim_elsewhere(&name, &cookie, owned, now));
        let retry_after_seconds = left_ms.unwrap_or(0).div_ceil(1000);
        Ok(Response::new(ClaimObserverResponse { taken: left_ms.is_some(), retry_after_seconds }))
    }

    async fn end_observer(&self, request: Request<EndObserverRequest>) -> Result<Response<EndObserverResponse>, Status> {
        self.check(&request)?;
        let EndObserverRequest { cookie_hash, name } = request.into_inner();
        let cookies = if name.is_empty() {
            vec![required_cookie(&cookie_hash)?]
        } else {
            let name: PeerName = name.parse()?;
            self.table.with(|table, _| table.cookies_of(&name))
        };
        let mut ended = false;
        for cookie in &cookies {
            ended |= self.table.with(|table, _| table.end_observer(cookie));
        }
        Ok(Response::new(EndObserverResponse { ended }))
    }
}

fn required_cookie(bytes: &[u8]) -> Result<CookieHash, InvalidField> {
    cookie_of(bytes).ok_or_else(|| InvalidField::new("cookie_hash", "not 16 bytes"))
}

fn to_field(cookie: &CookieHash) -> Bytes {
    Bytes::copy_from_slice(cookie.as_bytes())
}

pub(super) fn cookie_of(bytes: &[u8]) -> Option<CookieHash> {
    bytes.try_into().ok().map(CookieHash::from_bytes)
}

fn from_message(message: ExtendedLease) -> Option<Extended> {
    let ExtendedLease { cookie_hash, load, index_version, documents } = message;
    Some(Extended { cookie: cookie_of(&cookie_hash)?, load, index_version, documents })
}
