//! Bounded fan-out: many calls, of which a bounded number run at the same time.

use tokio::task::JoinSet;
use tracing::Instrument as _;

/// Calls under way, each in its own task in the caller's span. Dropping this cancels them.
#[derive(Debug)]
pub struct FanOut<T> {
    at_once: usize,
    running: JoinSet<T>,
}

impl<T: Send + 'static> FanOut<T> {
    /// Runs `at_once` calls at the same time, and at least one.
    pub fn new(at_once: usize) -> Self {
        Self { at_once: at_once.max(1), running: JoinSet::new() }
    }

    /// Starts calls from `waiting` while fewer than the bound are under way, then waits for the next that ends, in whatever order they
    /// end. `None`: none is under way and none waits. Cancel safe: a call that has started stays under way.
    ///
    /// A call that panics has no result; the panic is logged.
    pub async fn next<C>(&mut self, waiting: &mut impl Iterator<Item = C>) -> Option<T>
    where
        C: Future<Output = T> + Send + 'static,
    {
        loop {
            while self.running.len() < self.at_once
                && let Some(call) = waiting.next()
            {
                self.running.spawn(call.in_current_span());
            }
            match self.running.join_next().await? {
                Ok(result) => return Some(result),
                Err(error) => tracing::error!(%error, "one of several calls failed without a result"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[tokio::test]
    async fn all_calls_end_and_no_more_than_the_bound_run_at_once() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut calls = (0..10).map(|number| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                number
            }
        });
        let mut fan_out = FanOut::new(3);
        let mut ended = Vec::new();
        while let Some(number) = fan_out.next(&mut calls).await {
            ended.push(number);
        }
        ended.sort_unstable();
        assert_eq!(ended, (0..10).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_call_that_panics_is_skipped() {
        let mut calls = [true, false].into_iter().map(|panics| async move {
            assert!(!panics, "on purpose");
            7
        });
        let mut fan_out = FanOut::new(1);
        assert_eq!(fan_out.next(&mut calls).await, Some(7));
        assert_eq!(fan_out.next(&mut calls).await, None);
    }

    #[tokio::test]
    async fn dropping_it_cancels_what_is_under_way() {
        let alive = Arc::new(());
        let mut calls = std::iter::repeat_with(|| {
            let alive = Arc::clone(&alive);
            async move {
                std::future::pending::<()>().await;
                drop(alive);
            }
        });
        let mut fan_out = FanOut::new(2);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), fan_out.next(&mut calls)).await.is_err());
        assert_eq!(Arc::strong_count(&alive), 3);
        drop(fan_out);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
