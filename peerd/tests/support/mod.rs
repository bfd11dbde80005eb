//! Real peers on loopback, and holders that follow a script.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod document;
pub mod holder;
pub mod mount;
pub mod peer;
pub mod registry;
pub mod wire;

use peerd::holders::source::Source;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Longest wait for anything in a test: far more than it takes, so that tests pass on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("timed out waiting for {what}"))
}

/// Between two looks at something that is awaited.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// Repeats `check` until it returns a value.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < until, "timed out waiting for {what}");
        pause().await;
    }
}

pub fn source(name: &str, address: SocketAddr) -> Source {
    Source::new(Some(name.parse().unwrap()), address.into())
}

/// Pseudo-random bytes, so that a misplaced piece is noticed.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}
