//! Writing: a batch becomes a few transactions, in which each change is one of its own, so that one that is refused stands alone.

use super::{
    client::{Calls, revision},
    layout::{CHANGES_MAX, Keys, REMOVAL, Revisions},
    runtime::IoThread,
};
use crate::{
    cluster::Cluster,
    store::{backend::WriteError, codec, error::StoreError},
    table::{Change, shard_of_name},
};
use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse, TxnResponse};
use std::sync::Arc;
use tokio::task::JoinSet;

/// A change as a transaction of its own.
struct Write {
    key: String,
    /// The record; `None` removes it.
    value: Option<Vec<u8>>,
    /// Etcd's revision of the key that the change was decided on; 0: there was none.
    expected: i64,
    /// The key of a shard and its revision, if only its keeper may make the change.
    fence: Option<(String, i64)>,
}

/// The transactions of a batch, and where the outcomes of their changes go.
pub(super) fn commit(
    io: &IoThread,
    calls: &Calls,
    keys: &Keys,
    revisions: Revisions,
    cluster: &Cluster,
    batch: &[Change],
) -> Vec<Result<u64, WriteError>> {
    let not_kept = || Err(WriteError::Conflict { stored: 0 });
    let mut outcomes: Vec<Result<u64, WriteError>> = batch.iter().map(|_| not_kept()).collect();
    let mut writes = Vec::with_capacity(batch.len());
    // Removals last: they have the highest revision of their transaction, and a watcher is told changes in this order.
    let (kept, removed): (Vec<_>, Vec<_>) = batch.iter().enumerate().partition(|(_, change)| change.peer.is_some());
    for (at, change) in kept.into_iter().chain(removed) {
        let shard = shard_of_name(&change.key);
        if change.fence.is_some() && cluster.view().fence(shard) != change.fence {
            // Another replica keeps it by now, or this one lost it since that was decided.
            continue;
        }
        let fence = change.fence.map(|fence| (keys.shard(shard), fence));
        let index = u32::try_from(writes.len() % CHANGES_MAX).unwrap_or(REMOVAL);
        let value = change.peer.as_deref().map(|peer| codec::encode_at(peer, index));
        let expected = revisions.at(change.expected_revision);
        writes.push((at, Write { key: keys.peer(&change.key), value, expected, fence }));
    }
    let mut parts = JoinSet::new();
    let mut left = writes.into_iter().peekable();
    let Some(handle) = io.handle() else { return outcomes };
    while left.peek().is_some() {
        let (places, writes): (Vec<usize>, Vec<Write>) = left.by_ref().take(CHANGES_MAX).unzip();
        let (calls, keys) = (calls.clone(), keys.clone());
        parts.spawn_on(async move { (places, write(&calls, &keys, revisions, &writes).await) }, handle);
    }
    let Ok(written) = io.wait(parts.join_all()) else { return outcomes };
    for (places, part) in written {
        for (place, outcome) in places.into_iter().zip(part) {
            outcomes[place] = outcome;
        }
    }
    outcomes
}

async fn write(calls: &Calls, keys: &Keys, revisions: Revisions, writes: &[Write]) -> Vec<Result<u64, WriteError>> {
    let mut operations: Vec<TxnOp> = writes.iter().map(|write| TxnOp::txn(write.transaction())).collect();
    if writes.iter().any(|write| write.value.is_none()) {
        operations.push(TxnOp::put(keys.removed(), "", None));
    }
    // An earlier try may have been made though its answer was lost: then the key holds just this value.
    match calls.txn(Txn::new().and_then(operations)).await {
        Ok(answer) => {
            let at = revision(answer.header());
            let answers = answer.op_responses().into_iter().filter_map(|answer| match answer {
                TxnOpResponse::Txn(answer) => Some(answer),
                _ => None,
            });
            let outcomes: Vec<_> = writes
                .iter()
                .zip(answers)
                .zip(0..)
                .map(|((write, answer), index)| write.outcome(&answer, at, index, revisions))
                .collect();
            if outcomes.len() == writes.len() {
                outcomes
            } else {
                unknown(
                    writes.len(),
                    StoreError::Failed { doing: "write to etcd", problem: "it answered with too few outcomes".into() },
                )
            }
        }
        Err(error) => unknown(writes.len(), error),
    }
}

fn unknown(count: usize, error: StoreError) -> Vec<Result<u64, WriteError>> {
    let error = Arc::new(error);
    (0..count).map(|_| Err(WriteError::Unknown(Arc::clone(&error)))).collect()
}

impl Write {
    fn transaction(&self) -> Txn {
        let key = self.key.clone();
        let mut conditions = vec![Compare::mod_revision(key.clone(), CompareOp::Equal, self.expected)];
        if let Some((shard, fence)) = &self.fence {
            conditions.push(Compare::mod_revision(shard.clone(), CompareOp::Equal, *fence));
        }
        let operation = match &self.value {
            Some(value) => TxnOp::put(key.clone(), value.clone(), None),
            None => TxnOp::delete(key.clone(), None),
        };
        Txn::new().when(conditions).and_then([operation]).or_else([TxnOp::get(key, None)])
    }

    fn outcome(&self, answer: &TxnResponse, at: i64, index: u32, revisions: Revisions) -> Result<u64, WriteError> {
        if answer.succeeded() {
            return Ok(revisions.of(at, if self.value.is_some() { index } else { REMOVAL }));
        }
        let stored = answer.op_responses().into_iter().find_map(|answer| match answer {
            TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
            _ => None,
        });
        let Some(stored) = stored else {
            // A removal whose answer was lost: nothing is there, and nothing is to be.
            return Err(WriteError::Conflict { stored: 0 });
        };
        let stored_at = revisions.of(stored.mod_revision(), codec::index_of(stored.value()));
        if self.value.as_deref() == Some(stored.value()) {
            Ok(stored_at)
        } else {
            Err(WriteError::Conflict { stored: stored_at })
        }
    }
}
