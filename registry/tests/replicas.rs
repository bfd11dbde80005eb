//! Replicas: several registries over one real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod replicas {
    mod authority;
    mod basics;
    mod certificates;
    pub(crate) mod crowd;
    mod cuts;
    mod faults;
    mod history;
    mod members;
    mod observers;
    mod rendered;
    mod suspects;
    mod thousand;
    pub(crate) mod three;
}
#[path = "support/cable.rs"]
mod cable;
#[path = "support/etcd.rs"]
mod etcd;
#[path = "support/members.rs"]
mod members;
mod support;
