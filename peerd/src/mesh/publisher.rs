//! Publishes the view of the mesh: when it changed, and periodically for its counts.

use super::view::View;
use crate::overlay::Time;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Interval at which a view is published only because its counts changed. A guess: shorter than people notice.
const COUNTS_INTERVAL: Duration = Duration::from_millis(100);

/// The published view, and what is newer than it.
pub(super) struct Publisher {
    view: watch::Sender<Arc<View>>,
    changed: bool,
    published_at: Option<Time>,
    /// Number of known peers, and when they were counted.
    known: Option<(Time, u64)>,
}

impl Publisher {
    /// Publishes to `view`. Its first view is due at once.
    pub(super) fn new(view: watch::Sender<Arc<View>>) -> Self {
        Self { view, changed: true, published_at: None, known: None }
    }

    /// A new view must be published.
    pub(super) fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// Peers became known or unknown.
    pub(super) fn mark_peers_changed(&mut self) {
        (self.changed, self.known) = (true, None);
    }

    /// Counts change with every message. They are published every [`COUNTS_INTERVAL`].
    pub(super) fn tick(&mut self, now: Time) {
        self.changed |= self.published_at.is_none_or(|at| at + COUNTS_INTERVAL <= now);
    }

    /// Whether a new view must be published.
    pub(super) fn has_changed(&self) -> bool {
        self.changed
    }

    /// Publishes a view.
    pub(super) fn publish(&mut self, view: View, now: Time) {
        self.changed = false;
        self.published_at = Some(now);
        self.view.send_replace(Arc::new(view));
    }

    /// The latest view published.
    pub(super) fn latest(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// The number of known peers, if it was counted within the last [`COUNTS_INTERVAL`]: counting is too slow for each broadcast of a
    /// burst.
    pub(super) fn known_count(&self, now: Time) -> Option<u64> {
        self.known.filter(|(at, _)| now < *at + COUNTS_INTERVAL).map(|(_, count)| count)
    }

    /// Keeps the number of known peers for a while.
    pub(super) fn set_known_count(&mut self, count: u64, now: Time) {
        self.known = Some((now, count));
    }
}
