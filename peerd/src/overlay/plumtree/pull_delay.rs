//! How late broadcasts come.

use std::time::Duration;

use super::Config;

/// How much later than the first advert a broadcast comes along the tree, so that nothing is pulled
/// that is about to be pushed.
///
/// Each sender's path through the tree has its own length, so a mean with its deviation (as in RFC 6298)
/// comes out too short for most of them: the simulator showed 8 % of the payloads pulled for nothing.
/// What is held instead is the peak, which slowly sinks.
#[derive(Debug)]
pub struct PullDelay {
    peak: Duration,
    min: Duration,
    max: Duration,
}

/// The peak sinks by this part of itself with each broadcast: to a half in 177. A guess.
const SINK: u32 = 256;
/// The wait, in peaks. A guess.
const MARGIN: u32 = 2;

impl PullDelay {
    /// Nothing has come yet.
    pub fn new(config: &Config) -> Self {
        Self { peak: config.graft_first / MARGIN, min: config.graft_min, max: config.graft_max }
    }

    /// A broadcast came along the tree so much later than its first advert.
    pub fn observe(&mut self, late: Duration) {
        self.peak = late.max(self.peak - self.peak / SINK);
    }

    /// How long to wait before one is pulled.
    pub fn wait(&self) -> Duration {
        (self.peak.min(self.max) * MARGIN).clamp(self.min, self.max)
    }
}
