//! The announce of a document before its fetch knows the pieces: the tracker may name holders, and whether others fetch too.

use super::expected::Expected;
use crate::{
    holders::{
        source::Source,
        tracker::{Announced, Announcement, Tracker},
    },
    session::AnnounceError,
};
use p2pdi::content::ContentHash;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

/// How long the tracker may take. Whoever fetches searches without it then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of the last announce: a registry that misses it forgets this peer after some intervals.
const DONE_TIMEOUT: Duration = Duration::from_secs(2);

type Answer = Result<Announced, AnnounceError>;

/// An announce that is under way or answered. Dropped without being taken over, it tells the tracker that this peer is done.
pub(crate) struct EarlyAnnounce {
    hash: ContentHash,
    /// 0: not known.
    size: u64,
    /// Whole holders that it reports.
    holders: Vec<Source>,
    tracker: Arc<dyn Tracker>,
    answer: watch::Receiver<Option<Answer>>,
    call: JoinSet<()>,
    taken_over: bool,
    /// Members that dial this peer wait until it knows the pieces.
    expected: Option<Expected>,
}

impl EarlyAnnounce {
    /// Announces that nothing is here yet of a document. `size`: 0 if it is not known; `holders`: whole ones that were found already, so that
    /// nobody has to search for them.
    pub(super) fn new(
        hash: ContentHash,
        size: u64,
        holders: Vec<Source>,
        tracker: Arc<dyn Tracker>,
        expected: Option<Expected>,
    ) -> Self {
        let (sender, answer) = watch::channel(None);
        let mut call = JoinSet::new();
        let (asked, announced) = (Arc::clone(&tracker), Announcement { holders: holders.clone(), ..announcement(hash, size) });
        call.spawn(async move {
            let late = || AnnounceError::Unavailable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
            let answer = timeout(ANSWER_TIMEOUT, asked.announce(announced)).await;
            sender.send_replace(Some(answer.unwrap_or_else(|_| Err(late()))));
        });
        Self { hash, size, holders, tracker, answer, call, taken_over: false, expected }
    }

    /// The tracker's answer.
    pub(crate) async fn answer(&self) -> Answer {
        let mut answer = self.answer.clone();
        let answered = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answered.unwrap_or_else(|| Err(AnnounceError::Unavailable("the announce was cancelled".to_owned())))
    }

    /// Announces the same once more.
    pub(crate) fn again(mut self) -> Self {
        self.taken_over = true;
        let holders = std::mem::take(&mut self.holders);
        Self::new(self.hash, self.size, holders, Arc::clone(&self.tracker), self.expected.take())
    }

    /// Another announce takes its place: one with the size, if this one had none.
    pub(crate) fn replaced(mut self) {
        self.taken_over = true;
    }

    /// Whole holders that it reported.
    pub(super) fn reported(&self) -> &[Source] {
        &self.holders
    }

    /// Size of the document whose swarm this peer is in: what it announced, or what the tracker knows; 0: neither.
    pub(super) fn size(&self) -> u64 {
        let told = self.answer.borrow().as_ref().and_then(|answer| answer.as_ref().ok()).map_or(0, |answer| answer.size);
        if told > 0 { told } else { self.size }
    }

    /// A tracker for the swarm of the document: its first announce was made already.
    pub(super) fn into_tracker(self) -> Arc<dyn Tracker> {
        Arc::new(Announcing { inner: Arc::clone(&self.tracker), early: Mutex::new(Some(self)) })
    }
}

fn announcement(hash: ContentHash, size: u64) -> Announcement {
    Announcement { hash, size, had: 0, done: false, holders: Vec::new(), searched: false, starved: false }
}

impl Drop for EarlyAnnounce {
    fn drop(&mut self) {
        self.call.abort_all();
        if self.taken_over {
            return;
        }
        // It may be listed although the answer did not come.
        if matches!(*self.answer.borrow(), Some(Err(AnnounceError::NoTracker | AnnounceError::Refused(_)))) {
            return;
        }
        let size = self.size();
        let (tracker, done) = (Arc::clone(&self.tracker), Announcement { done: true, ..announcement(self.hash, size) });
        // Without a runtime the program ends, and its lease with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _left = timeout(DONE_TIMEOUT, tracker.announce(done)).await;
            });
        }
    }
}

/// A tracker to which the first announce was made already.
struct Announcing {
    inner: Arc<dyn Tracker>,
    early: Mutex<Option<EarlyAnnounce>>,
}

#[tonic::async_trait]
impl Tracker for Announcing {
    async fn announce(&self, announcement: Announcement) -> Answer {
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut early) = early {
            // What follows refreshes or ends the same membership.
            early.taken_over = true;
            if announcement.had == 0 && !announcement.done {
                return early.answer().await;
            }
        }
        self.inner.announce(announcement).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    const SIZE: u64 = 100;

    /// Passes on what is announced, and knows the size.
    struct Recorder(mpsc::UnboundedSender<Announcement>);

    #[tonic::async_trait]
    impl Tracker for Recorder {
        async fn announce(&self, announcement: Announcement) -> Answer {
            self.0.send(announcement).unwrap();
            Ok(Announced { size: SIZE, ..Default::default() })
        }
    }

    #[tokio::test]
    async fn it_is_the_first_announce_of_the_swarm_or_is_withdrawn() {
        let (sender, mut announced) = mpsc::unbounded_channel();
        let tracker: Arc<dyn Tracker> = Arc::new(Recorder(sender));
        let hash = ContentHash::of(b"x");
        let reported = Source::new(None, "192.0.2.1:7801".parse().unwrap());
        let first = Announcement { holders: vec![reported.clone()], ..announcement(hash, 0) };
        let early = EarlyAnnounce::new(hash, 0, vec![reported.clone()], Arc::clone(&tracker), None).again();
        assert_eq!(early.reported(), [reported]);
        assert_eq!(early.answer().await.unwrap().size, SIZE);
        let swarm = early.into_tracker();
        let said = Announcement { size: SIZE, ..announcement(hash, 0) };
        swarm.announce(said.clone()).await.unwrap();
        let mut before = Vec::new();
        while let Ok(announcement) = announced.try_recv() {
            before.push(announcement);
        }
        assert!(!before.is_empty() && before.iter().all(|before| *before == first), "{before:?}");
        swarm.announce(said.clone()).await.unwrap();
        assert_eq!(announced.recv().await.unwrap(), said);
        drop(swarm);
        EarlyAnnounce::new(hash, 0, Vec::new(), tracker, None).answer().await.unwrap();
        assert!(!announced.recv().await.unwrap().done);
        let withdrawn = announced.recv().await.unwrap();
        assert!(withdrawn.done && withdrawn.size == SIZE, "{withdrawn:?}");
    }
}
