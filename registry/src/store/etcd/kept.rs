//! Which leases the table ends, when that changes.

use crate::{shared_table::SharedTable, table::ShardSet};
use std::time::Duration;

/// What every peer of a shard that is taken over gets beside a whole ttl: peers may have been calling replicas in vain.
const TAKEOVER_GRACE: Duration = Duration::from_secs(5);

/// The table keeps these shards from now on.
pub(super) fn keep(table: &SharedTable, kept: ShardSet) {
    let grace_ms = u64::try_from(TAKEOVER_GRACE.as_millis()).unwrap_or(u64::MAX);
    table.with(|table, now| table.keep_shards(kept, grace_ms, now));
    table.wake_expiry();
}
