//! Peers that keep their leases alive at several replicas, some of which fall silent.

use super::{faults::keep_on, three::*};
use crate::support::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Registrations at the same time.
const AT_ONCE: usize = 50;
/// Beside a ttl, a peer that fell silent may be listed for as long as its replica's lease in etcd lasts, until another replica has taken
/// its shard over, and for the grace that this one gives; with room for a machine that is busy.
const GONE_AFTER: Duration = Duration::from_secs(20);

/// Peers that keep themselves alive, and go to another replica when one refuses.
pub(crate) struct Crowd {
    ttl: Duration,
    replicas: Vec<Client>,
    alive: BTreeMap<String, CancellationToken>,
    /// Since when.
    silent: BTreeMap<String, Instant>,
    stop: CancellationToken,
    keeping: JoinSet<Result<(), String>>,
}

impl Crowd {
    pub(crate) fn new(ttl: Duration, replicas: &[Client]) -> Self {
        let (alive, silent, keeping) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        Self { ttl, replicas: replicas.to_vec(), alive, silent, stop: CancellationToken::new(), keeping }
    }

    /// `count` more register, each at the next one of the replicas `at`, and keep themselves alive at whichever of all serves them.
    pub(crate) async fn join(&mut self, at: &[usize], count: usize) {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let (done, mut registered) = mpsc::channel(count);
        let before = self.alive.len() + self.silent.len();
        for number in before..before + count {
            let mut order = self.replicas.clone();
            order.rotate_left(at[number % at.len()]);
            let (name, stop) = (format!("p{number}"), self.stop.child_token());
            self.alive.insert(name.clone(), stop.clone());
            let (turns, done, every) = (Arc::clone(&turns), done.clone(), self.ttl / 4);
            self.keeping.spawn(async move {
                let registered = {
                    let _turn = turns.acquire().await.unwrap();
                    register(&mut order[0], &name, "10.0.0.1:7801").await
                };
                done.send(()).await.unwrap();
                keep_on(order, registered.cookie, every, stop).await
            });
        }
        drop(done);
        for number in 0..count {
            assert!(registered.recv().await.is_some(), "{number} of {count} registered");
        }
    }

    /// Some of them call nobody any more.
    pub(crate) fn silence(&mut self, count: usize) {
        for _ in 0..count {
            let (name, stop) = self.alive.pop_last().unwrap();
            stop.cancel();
            self.silent.insert(name, Instant::now());
        }
    }

    /// Those that are alive are listed at `client`, and stay so for `long`; those that fell silent are not listed for too long.
    pub(crate) async fn are_alive(&mut self, client: &mut Client, long: Duration) {
        let watching = observe(client, "watching").await.cookie;
        let began = Instant::now();
        while began.elapsed() < long {
            self.look(client, &watching, began).await;
        }
        leave(client, &watching).await.unwrap();
    }

    /// The same until nobody is listed that fell silent.
    pub(crate) async fn are_all_that_is_listed(&mut self, client: &mut Client) {
        let watching = observe(client, "watching").await.cookie;
        let began = Instant::now();
        while self.look(client, &watching, began).await > 0 {}
        leave(client, &watching).await.unwrap();
    }

    /// Looks once. Gives how many are listed that fell silent.
    async fn look(&mut self, client: &mut Client, watching: &str, began: Instant) -> usize {
        let listed: BTreeSet<String> = listed(client, watching).await.into_iter().collect();
        let lost: Vec<_> = self.alive.keys().filter(|name| !listed.contains(*name)).collect();
        assert!(lost.is_empty(), "after {:?}: {lost:?}", began.elapsed());
        while let Some(ended) = self.keeping.try_join_next() {
            assert!(matches!(ended, Ok(Ok(()))), "a peer lost its lease after {:?}: {ended:?}", began.elapsed());
        }
        let silent: Vec<_> = self.silent.iter().filter(|(name, _)| listed.contains(*name)).collect();
        for (name, since) in &silent {
            assert!(since.elapsed() < self.ttl + GONE_AFTER, "{name} is listed {:?} after its last call", since.elapsed());
        }
        let silent = silent.len();
        // A long listing takes some milliseconds of two processors, which the replicas need, too.
        let pause_micros = u64::try_from(200 * listed.len()).unwrap();
        tokio::time::sleep(Duration::from_micros(pause_micros.max(20_000))).await;
        silent
    }

    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        while let Some(kept) = self.keeping.join_next().await {
            kept.unwrap().unwrap();
        }
    }
}
