//! The time that is passed to the table.

/// One moment, by each clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock that leaves out pauses of the process ([`super::RunningTime`]). Leases run by it.
    pub mono_ms: u64,
    /// Milliseconds of a monotonic clock that also counts pauses and suspended time. Only ages of what this process saw go by it.
    pub uptime_ms: u64,
    /// Milliseconds since 1970. Timestamps and the 30 days of registrations run by it.
    pub wall_ms: u64,
}
