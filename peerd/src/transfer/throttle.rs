//! Waits for a rate limit: streams that send, or that receive, share one limit and each gets an equal part.
//!
//! A stream that receives takes the bytes of each chunk before it reads the next. While it waits it does not read, and HTTP/2's flow
//! control stops the sender.

use super::rate_limit::{Next, RateLimit};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::{sync::Notify, time::sleep_until};

/// The limit, in bytes per second, of those who have none.
const NO_LIMIT: u64 = u64::MAX;

/// A limit of bytes per second, or none. Clones share the limit, which may change.
#[derive(Debug, Clone)]
pub struct Throttle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// That of the state, to be read without the lock.
    bytes_per_second: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: RateLimit,
    last_stream: u64,
    waiting: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    /// Notified when bytes are granted, and when it becomes the first.
    changed: Arc<Notify>,
    granted: Option<usize>,
}

impl Throttle {
    /// A limit of `bytes_per_second`, at least 1; `None`: no limit.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let limit = RateLimit::new(bytes_per_second.unwrap_or(NO_LIMIT), Instant::now());
        let bytes_per_second = AtomicU64::new(limit.bytes_per_second());
        let state = Mutex::new(State { limit, last_stream: 0, waiting: BTreeMap::new() });
        Self(Arc::new(Shared { bytes_per_second, state }))
    }

    /// The limit in bytes per second; `None`: no limit.
    pub(crate) fn bytes_per_second(&self) -> Option<u64> {
        Some(self.0.bytes_per_second.load(Ordering::Relaxed)).filter(|limit| *limit != NO_LIMIT)
    }

    /// Another limit from now on, at least 1, also for those who wait; `None`: no limit.
    pub(crate) fn set_bytes_per_second(&self, bytes_per_second: Option<u64>) {
        let mut state = lock(&self.0.state);
        state.limit.set_bytes_per_second(bytes_per_second.unwrap_or(NO_LIMIT), Instant::now());
        self.0.bytes_per_second.store(state.limit.bytes_per_second(), Ordering::Relaxed);
        // It waits for a time that is not right any more.
        state.wake_first();
    }

    /// Waits until bytes may be moved, and returns how many: at least 1, at most `most`, unless that is 0. Those who wait get equal parts
    /// in turn. Bytes granted to a future that is dropped do not count.
    pub(crate) async fn take(&self, most: usize) -> usize {
        self.wait(most, RateLimit::enter).await
    }

    /// Waits until all of `bytes` may be moved, which are granted at once: for what must be complete before anything moves.
    pub(crate) async fn take_whole(&self, bytes: usize) {
        self.wait(bytes, RateLimit::enter_whole).await;
    }

    async fn wait(&self, most: usize, enter: fn(&mut RateLimit, u64, usize)) -> usize {
        if most == 0 || self.bytes_per_second().is_none() {
            return most;
        }
        let state = &self.0.state;
        let changed = Arc::new(Notify::new());
        let place = Place::new(state, Arc::clone(&changed), most, enter);
        loop {
            let next = lock(state).grant(Instant::now());
            if let Some(bytes) = place.take_granted() {
                return bytes;
            }
            // Only the first watches the time; it notifies whom it grants bytes, and who becomes the first.
            match next.filter(|(first, _)| *first == place.stream) {
                Some((_, at)) => tokio::select! {
                    () = sleep_until(at.into()) => {}
                    () = changed.notified() => {}
                },
                None => changed.notified().await,
            }
        }
    }

    /// Uncounts bytes that were taken and not moved.
    pub(crate) fn give_back(&self, bytes: usize) {
        if bytes > 0 && self.bytes_per_second().is_some() {
            let mut state = lock(&self.0.state);
            state.limit.give_back(bytes);
            // It waits for a time that is not right any more.
            state.wake_first();
        }
    }

    /// Waits until all of `bytes` may be moved.
    pub(crate) async fn take_all(&self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            left -= self.take(left).await;
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new(None)
    }
}

impl State {
    /// Grants what may be granted; returns who is first after that, and when it gets its part.
    fn grant(&mut self, now: Instant) -> Option<(u64, Instant)> {
        loop {
            match self.limit.next(now) {
                Next::Granted { stream, bytes } => {
                    if let Some(waiter) = self.waiting.get_mut(&stream) {
                        waiter.granted = Some(bytes);
                        waiter.changed.notify_one();
                    }
                    self.wake_first();
                }
                Next::At(at) => return Some((self.limit.first()?, at)),
                Next::Nobody => return None,
            }
        }
    }

    fn wake_first(&self) {
        if let Some(first) = self.limit.first().and_then(|first| self.waiting.get(&first)) {
            first.changed.notify_one();
        }
    }
}

/// A place in the line, until it is dropped.
struct Place<'a> {
    state: &'a Mutex<State>,
    stream: u64,
}

impl<'a> Place<'a> {
    fn new(state: &'a Mutex<State>, changed: Arc<Notify>, most: usize, enter: fn(&mut RateLimit, u64, usize)) -> Self {
        let mut locked = lock(state);
        locked.last_stream += 1;
        let stream = locked.last_stream;
        locked.waiting.insert(stream, Waiter { changed, granted: None });
        enter(&mut locked.limit, stream, most);
        Self { state, stream }
    }

    fn take_granted(&self) -> Option<usize> {
        lock(self.state).waiting.get_mut(&self.stream)?.granted.take()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = lock(self.state);
        let was_first = state.limit.first() == Some(self.stream);
        state.limit.leave(self.stream);
        if let Some(bytes) = state.waiting.remove(&self.stream).and_then(|waiter| waiter.granted) {
            state.limit.give_back(bytes);
        }
        if was_first {
            state.wake_first();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };
    use tokio::{task::JoinSet, time::timeout};

    const STREAMS: usize = 20;
    const LIMIT: usize = 2 << 20;

    /// Bytes that each of many streams got in two seconds, and how many all together may get in the time that passed.
    async fn measure() -> (Vec<usize>, f64) {
        let throttle = Throttle::new(Some(LIMIT as u64));
        let got: Vec<_> = (0..STREAMS).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let mut streams = JoinSet::new();
        let begun = Instant::now();
        for got in got.iter().map(Arc::clone) {
            let throttle = throttle.clone();
            streams.spawn(async move {
                loop {
                    got.fetch_add(throttle.take(256 * 1024).await, Ordering::Relaxed);
                }
            });
        }
        assert!(timeout(Duration::from_secs(2), streams.join_next()).await.is_err());
        streams.shutdown().await;
        let each = got.iter().map(|got| got.load(Ordering::Relaxed)).collect();
        (each, LIMIT as f64 * begun.elapsed().as_secs_f64())
    }

    #[tokio::test]
    async fn many_streams_share_a_limit_equally() {
        let mut tries = 0..10;
        loop {
            let (each, allowed) = measure().await;
            let total = each.iter().sum::<usize>() as f64;
            // A burst more at most.
            assert!(total <= allowed * 1.05 + 0.2 * LIMIT as f64, "{total} of {allowed}");
            let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
            // The first gets a large part before the others are there; and each may be two small parts behind.
            assert!(most - least <= LIMIT / 10 + 2 * LIMIT / STREAMS / 2, "{each:?}");
            if total >= allowed * 0.8 {
                return;
            }
            // A busy machine does not run the streams in time.
            assert!(tries.next().is_some(), "{total} of {allowed}");
        }
    }

    #[tokio::test]
    async fn who_stops_waiting_holds_up_nobody_and_counts_for_nothing() {
        let throttle = Throttle::new(Some(1_000_000));
        // In debt for a tenth of a second.
        assert_eq!(throttle.take(100_000).await, 100_000);
        for _ in 0..100 {
            let _ = timeout(Duration::from_micros(100), throttle.take(100_000)).await;
        }
        let begun = Instant::now();
        let (a, b, c) = tokio::join!(throttle.take(1_000), throttle.take(1_000), throttle.take(1_000));
        assert_eq!((a, b, c), (1_000, 1_000, 1_000));
        // Ten seconds if the others counted.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn another_limit_holds_at_once_for_those_who_wait() {
        let throttle = Throttle::new(Some(1_000));
        // In debt for two seconds and, with what it waits for, for hours.
        throttle.take(100_000).await;
        let waiting = tokio::spawn({
            let throttle = throttle.clone();
            async move { throttle.take_all(10_000_000).await }
        });
        tokio::task::yield_now().await;
        throttle.set_bytes_per_second(Some(1 << 40));
        timeout(Duration::from_secs(20), waiting).await.expect("it goes on").unwrap();
        throttle.set_bytes_per_second(None);
        assert_eq!((throttle.take(usize::MAX).await, throttle.bytes_per_second()), (usize::MAX, None));
        throttle.set_bytes_per_second(Some(7));
        assert_eq!(throttle.bytes_per_second(), Some(7));
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let throttle = Throttle::new(None);
        assert_eq!((throttle.take(usize::MAX).await, throttle.bytes_per_second()), (usize::MAX, None));
        throttle.take_all(usize::MAX).await;
        Throttle::new(Some(1)).take_all(0).await;
    }
}
