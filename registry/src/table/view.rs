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
    let left_ms = if live { record.deadline_ms - now.mono_ms } else { 0 };
    PeerRecord {
        id: record.peer.id.to_field(),
        name: record.peer.strings.name().into(),
        endpoint: record.peer.strings.endpoint().into(),
        labels: record.peer.strings.labels().iter().map(|(key, value)| (key.into(), value.into())).collect(),
        state: state.into(),
        first_registered_at: Some(timestamp(record.peer.first_registered_ms)),
        last_registered_at: Some(timestamp(record.peer.last_registered_ms)),
        last_active_at: Some(timestamp(record.peer.last_active_ms)),
        registration_count: record.peer.registrations.count(now.wall_ms),
        load: record.load_reported.then_some(record.load),
        index_version: record.index_version,
        documents: record.documents,
        revision: record.revision,
        lease_remaining: Some(duration(left_ms)),
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
