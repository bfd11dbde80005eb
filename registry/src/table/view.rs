//! Records as callers see them: without the cookie.

use super::{
    moment::Now,
    record::{Record, RecordState},
};
use p2pdi::v1::{PeerGone, PeerRecord, PeerState};
use prost_types::{Duration, Timestamp};

pub(super) fn peer(record: &Record, now: Now) -> PeerRecord {
    let live = record.is_live(now.mono_ms);
    let state = if live { PeerState::Active } else { PeerState::Inactive };
    let left_ms = if live { record.deadline_ms.saturating_sub(now.mono_ms) } else { 0 };
    // Another registry keeps the lease, and nobody said here how long it still is.
    let known = !live || record.kept || left_ms > 0;
    PeerRecord {
        id: record.peer.id.to_field(),
        name: record.peer.strings.name().into(),
        endpoint: record.peer.strings.endpoint().into(),
        labels: record.peer.strings.labels().iter().map(|(key, value)| (key.into(), value.into())).collect(),
        state: state.into(),
        first_registered_at: possible(record.peer.first_registered_ms, now).map(timestamp),
        last_registered_at: possible(record.peer.last_registered_ms, now).map(timestamp),
        last_active_at: last_active_ms(record, now).map(timestamp),
        registration_count: record.peer.registrations.count(now.wall_ms),
        load: record.load_reported.then_some(record.load),
        index_version: record.index_version,
        documents: record.documents,
        suspect: false,
        revision: record.revision,
        lease_remaining: known.then(|| duration(left_ms)),
    }
}

/// A time this much in the future is a small correction of the clock; a later one was taken by a clock that was wrong.
const CLOCK_CORRECTION_MAX_MS: u64 = 60_000;

/// The time, unless it cannot be: it lies in the future.
fn possible(wall_ms: u64, now: Now) -> Option<u64> {
    (wall_ms <= now.wall_ms.saturating_add(CLOCK_CORRECTION_MAX_MS)).then_some(wall_ms)
}

/// When the peer was last active, as far as that can be: not before what this process saw by a clock that nobody sets, and not before
/// the first registration. `None` when the stored time cannot be.
fn last_active_ms(record: &Record, now: Now) -> Option<u64> {
    let stored_ms = record.peer.last_active_ms;
    match record.called_uptime_ms {
        Some(called_ms) => {
            let age_ms = now.uptime_ms.saturating_sub(called_ms.get());
            Some(stored_ms.clamp(now.wall_ms.saturating_sub(age_ms), now.wall_ms))
        }
        None => possible(stored_ms.max(record.peer.first_registered_ms), now),
    }
}

pub(super) fn gone(record: &Record, revision: u64) -> PeerGone {
    debug_assert!(record.state != RecordState::Joining, "a record that was never shown");
    PeerGone { id: record.peer.id.to_field(), name: record.peer.strings.name().into(), revision }
}

/// Milliseconds since 1970 as a protobuf timestamp.
pub(super) fn timestamp(wall_ms: u64) -> Timestamp {
    let seconds = i64::try_from(wall_ms / 1000).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: nanos(wall_ms) }
}

/// Milliseconds as a protobuf duration.
pub fn duration(ms: u64) -> Duration {
    Duration { seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX), nanos: nanos(ms) }
}

fn nanos(ms: u64) -> i32 {
    i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Labels, PackedStrings, Peer, Registrations};
    use p2pdi::{cookie::CookieHash, id::PeerId};
    use std::{net::Ipv6Addr, num::NonZeroU64};

    const DAY_MS: u64 = 86_400_000;
    const NOW: Now = Now { mono_ms: 100_000, uptime_ms: 500_000, wall_ms: 1_790_000_000_000 };

    fn record(first_registered_ms: u64, last_active_ms: u64, called_uptime_ms: Option<u64>) -> Record {
        let peer = Peer {
            strings: PackedStrings::new("a", "10.0.0.1:7801", &Labels::default()),
            id: PeerId::from_bytes([1; 16]),
            cookie: CookieHash::from_bytes([2; 16]),
            address: Ipv6Addr::LOCALHOST,
            first_registered_ms,
            last_registered_ms: first_registered_ms,
            last_active_ms,
            registrations: Registrations::default(),
            active: true,
        };
        let mut record = Record::new(peer, RecordState::Active);
        record.called_uptime_ms = called_uptime_ms.and_then(NonZeroU64::new);
        record
    }

    #[test]
    fn times_of_a_clock_that_was_wrong_are_bounded_by_what_can_be() {
        let wall = NOW.wall_ms;
        let (past, future) = (wall - 700 * DAY_MS, wall + 700 * DAY_MS);
        for (case, record, first_ms, active_ms) in [
            ("right clock", record(wall - DAY_MS, wall - 9_000, Some(490_000)), Some(wall - DAY_MS), Some(wall - 9_000)),
            ("set forward after the call", record(past, past, Some(490_000)), Some(past), Some(wall - 10_000)),
            ("set back after the call", record(future, future, Some(490_000)), None, Some(wall)),
            ("loaded, after a long stop", record(past, past, None), Some(past), Some(past)),
            ("loaded, active before it registered", record(wall - DAY_MS, past, None), Some(wall - DAY_MS), Some(wall - DAY_MS)),
            ("loaded, from the future", record(future, future, None), None, None),
            ("a small correction", record(wall + 50, wall + 50, None), Some(wall + 50), Some(wall + 50)),
        ] {
            let shown = peer(&record, NOW);
            assert_eq!(shown.first_registered_at, first_ms.map(timestamp), "{case}");
            assert_eq!(shown.last_registered_at, first_ms.map(timestamp), "{case}");
            assert_eq!(shown.last_active_at, active_ms.map(timestamp), "{case}");
        }
    }
}
