//! Asking the store for its latest revision, for calls that must know everything that any replica acknowledged before.
//!
//! Whoever likes can make such calls: a KeepAlive with an invented cookie is one. Each asking is a write to the store, so calls share it.

use crate::{
    queue::{Job, Jobs},
    timeouts::WriteTimeouts,
};
use std::time::Duration;
use tokio::{
    sync::{Mutex, oneshot},
    time::{Instant, sleep_until, timeout},
};

/// Shortest time between two askings: 20 writes a second at most, whatever is called, for a wait that a peer which moved to another replica
/// does not notice.
const EVERY: Duration = Duration::from_millis(50);

/// What was asked.
#[derive(Debug, Default)]
struct State {
    /// When the store was last asked, also if nobody waited for the answer.
    began: Option<Instant>,
    /// What was found out last.
    last: Option<Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    began: Instant,
    outcome: CaughtUp,
}

/// Whether the table knows everything that was acknowledged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CaughtUp {
    /// It does.
    Yes,
    /// The store did not answer.
    NotStored,
    /// The registry is stopping.
    Stopping,
}

/// The askings of one registry.
#[derive(Debug, Default)]
pub(crate) struct CatchUps(Mutex<State>);

impl CatchUps {
    /// Completes when the table knows everything that any replica acknowledged before this call.
    pub(crate) async fn run(&self, jobs: &Jobs, timeouts: &WriteTimeouts) -> CaughtUp {
        let called = Instant::now();
        // In the order of the calls: those that wait here share the next asking.
        let mut state = self.0.lock().await;
        if let Some(asked) = state.last.filter(|asked| asked.began >= called) {
            return asked.outcome;
        }
        if let Some(at) = state.began {
            sleep_until(at + EVERY).await;
        }
        let began = Instant::now();
        // First: a call that is given up from here on has asked.
        state.began = Some(began);
        let outcome = ask(jobs, timeouts).await;
        state.last = Some(Asked { began, outcome });
        outcome
    }
}

async fn ask(jobs: &Jobs, timeouts: &WriteTimeouts) -> CaughtUp {
    let (done, caught_up) = oneshot::channel();
    match timeout(timeouts.queue, jobs.send(Job::CatchUp(done))).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return CaughtUp::Stopping,
        Err(_) => return CaughtUp::NotStored,
    }
    match timeout(timeouts.commit, caught_up).await {
        Ok(Ok(true)) => CaughtUp::Yes,
        _ => CaughtUp::NotStored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };
    use tokio::{sync::mpsc, task::JoinSet};

    #[tokio::test]
    async fn however_many_calls_ask_the_store_is_written_to_twenty_times_a_second_at_most() {
        let (jobs, mut queue) = mpsc::channel(10);
        let asked = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(Job::CatchUp(done)) = queue.recv().await {
                counting.fetch_add(1, Ordering::Relaxed);
                done.send(true).unwrap();
            }
        });
        let (catch_ups, began) = (Arc::new(CatchUps::default()), Instant::now());
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let (catch_ups, jobs) = (Arc::clone(&catch_ups), jobs.clone());
            calls.spawn(async move {
                for _ in 0..5 {
                    assert_eq!(catch_ups.run(&jobs, &WriteTimeouts::default()).await, CaughtUp::Yes);
                }
            });
        }
        calls.join_all().await;
        let count = asked.load(Ordering::Relaxed);
        // The first one waits for nothing.
        let most = began.elapsed().as_millis() / EVERY.as_millis() + 1;
        assert!(count >= 5 && u128::from(count) <= most, "{count} of at most {most}");
    }

    #[tokio::test]
    async fn calls_that_are_given_up_ask_no_more_often() {
        let (jobs, mut queue) = mpsc::channel(1_000);
        let (catch_ups, timeouts, began) = (CatchUps::default(), WriteTimeouts::default(), Instant::now());
        while began.elapsed() < 4 * EVERY {
            // The store does not answer in that time.
            let given_up = timeout(Duration::from_millis(1), catch_ups.run(&jobs, &timeouts)).await;
            assert!(given_up.is_err());
        }
        let most = began.elapsed().as_millis() / EVERY.as_millis() + 1;
        drop(jobs);
        let mut asked = 0;
        while queue.recv().await.is_some() {
            asked += 1;
        }
        assert!(asked >= 1 && asked <= most, "{asked} of at most {most}");
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_reported_and_so_is_the_end() {
        let (jobs, queue) = mpsc::channel(10);
        let timeouts = WriteTimeouts { commit: Duration::from_millis(1), ..WriteTimeouts::default() };
        assert_eq!(CatchUps::default().run(&jobs, &timeouts).await, CaughtUp::NotStored);
        drop(queue);
        assert_eq!(CatchUps::default().run(&jobs, &WriteTimeouts::default()).await, CaughtUp::Stopping);
    }
}
