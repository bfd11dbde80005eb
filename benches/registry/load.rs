//! A load generator: keeps calls in flight and counts them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::transport::{Channel, Endpoint};

/// Connections of a load: enough that none of them is the bottleneck.
pub(crate) const CONNECTIONS: usize = 8;

pub(crate) async fn channels(uri: &str, count: usize) -> Vec<Channel> {
    let mut channels = Vec::new();
    for _ in 0..count {
        channels.push(Endpoint::from_shared(uri.to_owned()).unwrap().tcp_nodelay(true).connect().await.unwrap());
    }
    channels
}

/// Runs `workers` loops of `call(worker, number)` for `duration`. Gives calls per second.
pub(crate) async fn rate<F>(workers: usize, duration: Duration, call: impl Fn(usize, u64) -> F + Send + Sync + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    let (call, done) = (Arc::new(call), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let (call, done) = (Arc::clone(&call), Arc::clone(&done));
            tokio::spawn(async move {
                for number in 0.. {
                    if started.elapsed() >= duration {
                        return;
                    }
                    call(worker, number).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
