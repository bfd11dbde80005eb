//! Replicas: several registries over one real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod replicas {
    mod basics;
    mod cuts;
    mod faults;
    mod history;
    pub(crate) mod three;
}
#[path = "support/cable.rs"]
mod cable;
#[path = "support/etcd.rs"]
mod etcd;
mod support;
