//! Calls to the other replicas: a stream to each that passes on extended leases, and announces for swarms that they keep.

use super::{
    outbox::{BATCH_MAX, Outbox},
    replica_id::ReplicaId,
    service::{SECRET_HEADER, cookie_of},
    shared::Cluster,
};
use crate::{
    shared_table::SharedTable,
    swarms::Caller,
    table::{Extended, ShardSet},
};
use bytes::Bytes;
use p2pdi::{
    channel::{Channel, Dial},
    cookie::CookieHash,
    endpoint::Endpoint,
    hex,
    tls::Expected,
    v1::{
        AnnounceRequest, AnnounceResponse, ExtendedLease, PassOnAnnounceRequest, PassOnRequest, PassOnResponse,
        replica_client::ReplicaClient,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, metadata::MetadataValue};

/// How often extended leases are passed on: far shorter than the shortest ttl.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// An empty batch is sent after as many intervals, so that each side knows that the other lives.
const EMPTY_AFTER: u32 = 10;
/// Batches under way to one replica. With the rest it falls behind, and what waits is one entry for each lease.
const UNANSWERED_MAX: usize = 8;
/// A replica that answers no batch for so long is dialled anew.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How soon a replica that could not be reached is dialled again.
const REDIAL_AFTER: Duration = Duration::from_millis(500);
/// Longest wait for another replica's answer to a call that a caller waits for.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Batches that were sent and not answered: number, until when all that was extended is in it or in an earlier one, and what it holds.
type Unanswered = VecDeque<(u64, u64, Vec<Extended>)>;

/// Keeps a stream to every other replica, and passes on what was extended here, until `stop`.
pub(crate) async fn keep_links(cluster: Arc<Cluster>, table: Arc<SharedTable>, dial: Dial, stop: CancellationToken) {
    let mut outboxes: BTreeMap<ReplicaId, (Endpoint, Arc<Outbox>, CancellationToken)> = BTreeMap::new();
    let mut links = JoinSet::new();
    let mut ticks = interval(BATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = cluster.changed() => {
                let others: BTreeMap<_, _> = cluster.view().others().map(|(id, endpoint)| (*id, endpoint.clone())).collect();
                outboxes.retain(|id, (endpoint, _, stop)| {
                    let stays = others.get(id) == Some(endpoint);
                    if !stays {
                        stop.cancel();
                        cluster.set_channel(*id, None);
                    }
                    stays
                });
                for (id, endpoint) in others {
                    outboxes.entry(id).or_insert_with(|| {
                        let (outbox, stop) = (Arc::new(Outbox::default()), stop.child_token());
                        let channel = dial.lazy(std::slice::from_ref(&endpoint), Expected::Registry(endpoint.clone()));
                        cluster.set_channel(id, Some(channel.clone()));
                        let (table, outbox_of) = (Arc::clone(&table), Arc::clone(&outbox));
                        let link = Link { id, cluster: Arc::clone(&cluster), table, outbox: outbox_of, channel };
                        tracing::info!(replica = %id, %endpoint, "another replica of this registry");
                        let until = stop.clone();
                        links.spawn(async move { until.run_until_cancelled(link.run()).await });
                        (endpoint, outbox, stop)
                    });
                }
            }
            _ = ticks.tick() => {
                loop {
                    let extended = table.with(|table, _| table.take_extended(BATCH_MAX));
                    outboxes.values().for_each(|(_, outbox, _)| outbox.add(&extended));
                    if extended.len() < BATCH_MAX {
                        break;
                    }
                }
            }
            Some(_ended) = links.join_next() => {}
        }
    }
    links.shutdown().await;
}

/// The stream to one other replica.
struct Link {
    id: ReplicaId,
    cluster: Arc<Cluster>,
    table: Arc<SharedTable>,
    outbox: Arc<Outbox>,
    channel: Channel,
}

/// The suspects that the other replica told on one stream. With it they are none any more, as far as this replica knows.
struct Suspects {
    table: Arc<SharedTable>,
    told: BTreeSet<[u8; 16]>,
}

impl Suspects {
    fn told(&mut self, answer: &PassOnResponse) {
        if answer.suspects.is_empty() && answer.released.is_empty() {
            return;
        }
        let cookies = |field: &[Bytes]| field.iter().filter_map(|bytes| cookie_of(bytes)).collect::<Vec<_>>();
        let (begun, ended) = (cookies(&answer.suspects), cookies(&answer.released));
        self.told.extend(begun.iter().map(CookieHash::as_bytes));
        ended.iter().for_each(|cookie| {
            self.told.remove(cookie.as_bytes());
        });
        self.table.with(|table, _| table.suspected_elsewhere(&begun, &ended));
    }
}

impl Drop for Suspects {
    fn drop(&mut self) {
        let all: Vec<_> = self.told.iter().copied().map(CookieHash::from_bytes).collect();
        if !all.is_empty() {
            self.table.with(|table, _| table.suspected_elsewhere(&[], &all));
        }
    }
}

impl Link {
    /// Never ends.
    async fn run(self) {
        loop {
            let mut unanswered = VecDeque::new();
            let ended = self.pass_on(&mut unanswered).await;
            for (_, _, extended) in unanswered {
                self.outbox.put_back(extended);
            }
            tracing::debug!(replica = %self.id, error = %ended, "no stream to another replica");
            sleep(REDIAL_AFTER).await;
        }
    }

    /// Passes on batches until that fails. Those without an answer are in `unanswered`.
    async fn pass_on(&self, unanswered: &mut Unanswered) -> Status {
        let (batches, sending) = mpsc::channel(UNANSWERED_MAX);
        let request = with_secret(ReceiverStream::new(sending), &self.cluster);
        let mut client = ReplicaClient::new(self.channel.clone());
        // The other side answers the call itself only with its first message.
        let mut number = 0;
        self.send(&batches, &mut number, unanswered);
        let mut answers = match timeout(ANSWER_TIMEOUT, client.pass_on(request)).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return status,
            Err(_) => return Status::deadline_exceeded("no answer"),
        };
        let mut ticks = interval(BATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle = 0;
        let mut suspects = Suspects { table: Arc::clone(&self.table), told: BTreeSet::new() };
        let mut heard_ms = self.cluster.now_ms();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let silent_ms = self.cluster.now_ms().saturating_sub(heard_ms);
                    if !unanswered.is_empty() && u128::from(silent_ms) > ANSWER_TIMEOUT.as_millis() {
                        return Status::deadline_exceeded("no answer");
                    }
                    idle += 1;
                    while unanswered.len() < UNANSWERED_MAX && (idle >= EMPTY_AFTER || !self.outbox.is_empty()) {
                        self.send(&batches, &mut number, unanswered);
                        idle = 0;
                    }
                }
                answer = answers.next() => match answer {
                    Some(Ok(answer)) => {
                        heard_ms = self.cluster.now_ms();
                        self.answered(&answer, unanswered);
                        suspects.told(&answer);
                    }
                    Some(Err(status)) => return status,
                    None => return Status::unavailable("the other replica ended the stream"),
                },
            }
        }
    }

    fn send(&self, batches: &mpsc::Sender<PassOnRequest>, number: &mut u64, unanswered: &mut Unanswered) {
        *number += 1;
        let (extended, all_until_ms) = self.outbox.take(self.cluster.now_ms());
        let request = PassOnRequest { number: *number, extended: extended.iter().map(to_message).collect() };
        unanswered.push_back((*number, all_until_ms, extended));
        // The channel holds as many as may be unanswered; when it is closed the stream has ended, which its answers show.
        let _ended = batches.try_send(request);
    }

    fn answered(&self, answer: &PassOnResponse, unanswered: &mut Unanswered) {
        while unanswered.front().is_some_and(|(number, _, _)| *number <= answer.number) {
            let Some((_, all_until_ms, _)) = unanswered.pop_front() else { break };
            let kept = ShardSet::from_bits(answer.kept_shards);
            self.cluster.view().answered(self.id, all_until_ms, answer.store_reachable, kept);
        }
    }
}

fn to_message(extended: &Extended) -> ExtendedLease {
    ExtendedLease {
        cookie_hash: extended.cookie.as_bytes().to_vec().into(),
        load: extended.load,
        index_version: extended.index_version,
        documents: extended.documents,
    }
}

/// A call to another replica, which carries the store's secret.
pub(super) fn with_secret<T>(message: T, cluster: &Cluster) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(mut value) = MetadataValue::try_from(hex::encode(cluster.secret())) {
        value.set_sensitive(true);
        request.metadata_mut().insert(SECRET_HEADER, value);
    }
    request
}

/// Asks the replica that keeps the swarm. `None`: this one does, or the other one cannot be asked now; then the swarm is here, too, until
/// it can.
pub(crate) async fn pass_on_announce(
    cluster: &Cluster,
    shard: u8,
    caller: &Caller,
    announce: AnnounceRequest,
) -> Option<Result<AnnounceResponse, Status>> {
    let owner = cluster.view().owner(shard)?.replica;
    let mut client = ReplicaClient::new(cluster.channel(owner)?);
    let message = PassOnAnnounceRequest {
        cookie_hash: caller.cookie.as_bytes().to_vec().into(),
        id: caller.id.to_field(),
        name: caller.name.to_string(),
        endpoint: caller.endpoint.to_string(),
        zone: caller.zone.to_string(),
        uploads: caller.uploads,
        announce: Some(AnnounceRequest { endpoint: String::new(), ..announce }),
    };
    match timeout(CALL_TIMEOUT, client.pass_on_announce(with_secret(message, cluster))).await {
        Ok(Ok(answer)) => answer.into_inner().answer.map(Ok),
        Ok(Err(status)) if status.code() == tonic::Code::ResourceExhausted => Some(Err(status)),
        Ok(Err(status)) => {
            tracing::debug!(replica = %owner, error = %status, "an announce could not be passed on");
            None
        }
        Err(_) => None,
    }
}
