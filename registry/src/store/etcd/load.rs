//! Reading: what all replicas share, and all records, page by page at one revision.

use super::{
    client::{Calls, revision},
    layout::{Keys, REMOVAL, Revisions},
    runtime::IoThread,
};
use crate::{
    store::{
        backend::{Loaded, Skipped, first_revision},
        codec::{self, Unreadable},
        error::StoreError,
    },
    table::Peer,
};
use etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp};
use p2pdi::network::NetworkName;
use prost::Message;

/// Format of the keys that this version writes.
const FORMAT: u64 = 1;
/// Records of one page: with all labels at their longest they fit an answer of 4 MiB, the most that a gRPC client takes by default.
const PAGE: i64 = 512;

/// What all replicas share.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(uint64, tag = "1")]
    format: u64,
    #[prost(uint64, tag = "2")]
    base: u64,
    #[prost(bytes = "vec", tag = "3")]
    secret: Vec<u8>,
    #[prost(string, tag = "4")]
    network: String,
}

/// What all replicas share, read.
pub(super) struct Meta {
    pub(super) secret: [u8; 32],
    pub(super) revisions: Revisions,
}

/// Reads what all replicas share. The first one makes it.
pub(super) async fn meta(calls: &Calls, keys: &Keys, network: &NetworkName) -> Result<Meta, StoreError> {
    let key = keys.meta();
    let mut secret = vec![0; 32];
    getrandom::fill(&mut secret).map_err(|error| StoreError::Failed { doing: "make a secret", problem: error.to_string() })?;
    let fresh = Stored { format: FORMAT, base: first_revision(), secret, network: network.to_string() };
    let make = Txn::new().when([Compare::version(key.clone(), CompareOp::Equal, 0)]).and_then([TxnOp::put(
        key.clone(),
        fresh.encode_to_vec(),
        None,
    )]);
    calls.txn(make).await?;
    let (stored, _) = calls.get(key).await?;
    let foreign = |problem: String| StoreError::Foreign { prefix: keys.prefix().to_owned(), problem };
    let stored = stored.ok_or_else(|| foreign("vanish as they are written".into()))?;
    let meta = Stored::decode(stored.value()).map_err(|error| foreign(format!("are not of a registry: {error}")))?;
    if meta.format > FORMAT {
        return Err(foreign(format!("were written by a newer registry (format {}, this one knows {FORMAT})", meta.format)));
    }
    if meta.network != network.as_str() {
        return Err(foreign(format!("are those of the network {}, not of {network}", meta.network)));
    }
    let secret = meta.secret.try_into().map_err(|_| foreign("are damaged: no secret of 32 bytes".into()))?;
    Ok(Meta { secret, revisions: Revisions { base: meta.base, origin: stored.create_revision() } })
}

/// All records, read.
pub(super) struct Read {
    pub(super) loaded: Loaded,
    /// Etcd's revision at which they were read.
    pub(super) at: i64,
}

/// A record of a page: the peer and its revision, or the name in its key and what is wrong.
type Row = Result<(Peer, u64), (String, String)>;

/// Gives every record to `each`.
pub(super) fn records(
    io: &IoThread,
    calls: &Calls,
    keys: &Keys,
    revisions: Revisions,
    each: &mut dyn FnMut(Peer, u64),
) -> Result<Read, StoreError> {
    let mut pages = Pages::new(calls.clone(), keys.clone(), revisions);
    let (mut skipped, mut latest) = (Skipped::default(), revisions.base);
    loop {
        let (page, back) = io.wait(async move {
            let page = pages.next().await;
            (page, pages)
        })?;
        pages = back;
        let Some(rows) = page? else { break };
        for row in rows {
            match row {
                Ok((peer, revision)) => {
                    latest = latest.max(revision);
                    each(peer, revision);
                }
                Err((name, problem)) => skipped.add(&name, &problem),
            }
        }
    }
    let complete_since = pages.removed.unwrap_or(revisions.base);
    let loaded = Loaded { revision: latest.max(complete_since), complete_since, skipped };
    Ok(Read { loaded, at: pages.at })
}

/// Reads all records, a page at a time, at the revision of the first page.
pub(super) struct Pages {
    calls: Calls,
    keys: Keys,
    revisions: Revisions,
    /// Etcd's revision; 0 before the first page.
    pub(super) at: i64,
    /// Revision of the registry at which a record was last removed; `None`: never.
    pub(super) removed: Option<u64>,
    from: Option<Vec<u8>>,
}

impl Pages {
    pub(super) fn new(calls: Calls, keys: Keys, revisions: Revisions) -> Self {
        let from = Some(keys.peers().into_bytes());
        Self { calls, keys, revisions, at: 0, removed: None, from }
    }

    /// The next page; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Row>>, StoreError> {
        let Some(from) = self.from.take() else { return Ok(None) };
        // The sign after `/`: where names end.
        let end = self.keys.peers().trim_end_matches('/').to_owned() + "0";
        let mut answer = self.calls.range(from, end.into_bytes(), PAGE, self.at).await?;
        if self.at == 0 {
            self.at = revision(answer.header());
            // Later than the first page, so it is never too early: then a delta begins anew once more than it must.
            let (removed, _) = self.calls.get(self.keys.removed()).await?;
            self.removed = removed.map(|key| self.revisions.of(key.mod_revision(), REMOVAL));
        }
        let more = answer.more();
        let found = answer.take_kvs();
        if more {
            self.from = found.last().map(|last| [last.key(), &[0]].concat());
        }
        Ok(Some(found.iter().map(|found| row(found, self.revisions)).collect()))
    }
}

/// The record in this key.
pub(super) fn row(found: &KeyValue, revisions: Revisions) -> Row {
    match codec::decode_at(found.value()) {
        Ok((peer, index)) => Ok((peer, revisions.of(found.mod_revision(), index))),
        Err(Unreadable::Damaged(problem)) => Err((String::from_utf8_lossy(found.key()).into_owned(), problem)),
        Err(Unreadable::Refused { name, problem }) => Err((name, problem)),
    }
}
