//! Which leases the table ends, when that changes.

use crate::{clock::millis, shared_table::SharedTable, table::Kept};
use std::time::Duration;

/// What every peer of a shard that is taken over gets beside a whole ttl: peers may have been calling replicas in vain.
const TAKEOVER_GRACE: Duration = Duration::from_secs(5);

/// The table keeps these shards from now on.
pub(super) fn keep(table: &SharedTable, kept: Kept) {
    table.with(|table, now| table.keep_shards(kept, millis(TAKEOVER_GRACE), now));
    table.wake_expiry();
}
