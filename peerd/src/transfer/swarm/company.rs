//! The tracker of one swarm: its answers also say whether others fetch.

use super::state::Swarm;
use crate::{
    holders::tracker::{Announced, Announcement, Tracker},
    session::AnnounceError,
};
use std::sync::{Arc, Weak};

/// Passes announces on, and tells the swarm of its company.
pub(super) struct CompanyTracker {
    pub(super) inner: Arc<dyn Tracker>,
    pub(super) swarm: Weak<Swarm>,
}

#[tonic::async_trait]
impl Tracker for CompanyTracker {
    async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError> {
        let answer = self.inner.announce(announcement).await;
        if let Some(swarm) = self.swarm.upgrade() {
            // Whole members only serve. This peer may be counted or not.
            let others = answer.as_ref().is_ok_and(|answer| answer.others.iter().any(|other| !other.complete));
            swarm.set_company(others);
        }
        answer
    }
}
