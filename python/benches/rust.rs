//! What `measure.py` compares with: the same work by a program in Rust, with the same library.
//!
//!     rust whispers COUNT    the medians of as many whispers to PING, and to a handler, in microseconds
//!     rust drain ROUNDS      messages a second that a handler gets out of a full inbox
//!     rust flood COUNT ENDPOINT    joins a peer there and broadcasts as many messages of the kind FLOOD

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a program that measures")]

use peerd::{Peer, PeerHandle, Reply};
use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::Builder,
    sync::{Notify, watch},
    time::sleep,
};

/// As in `runtime.rs`.
const THREADS_MAX: usize = 4;
const BODY: &[u8] = &[b'x'; 64];
/// As many as an inbox keeps.
const INBOX: u64 = 1_000;

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // As of Python: the thread that asks is none of the runtime.
    runtime.block_on(async {
        match arguments[..] {
            ["whispers", count] => whispers(count.parse().unwrap()).await,
            ["drain", rounds] => drain(rounds.parse().unwrap()).await,
            ["flood", count, endpoint] => flood(count.parse().unwrap(), endpoint).await,
            _ => panic!("whispers COUNT, drain ROUNDS, or flood COUNT ENDPOINT"),
        }
    });
}

async fn peer(name: &str) -> Peer {
    Peer::builder(name).listen(([127, 0, 0, 1], 0)).lan(false).build().await.unwrap()
}

async fn two() -> (Peer, Peer) {
    let (one, two) = (peer("one").await, peer("two").await);
    one.join(two.endpoint()).await.unwrap();
    (one, two)
}

async fn whispers(count: usize) {
    let (one, two) = two().await;
    two.on("ECHO", |message| async { Reply::new("ECHO", message.body) }).unwrap();
    let median = async |kind: &str| {
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            one.whisper("two", kind, BODY).await.unwrap();
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        took[count / 2].as_secs_f64() * 1e6
    };
    let (ping, echo) = (median("PING").await, median("ECHO").await);
    println!("{ping:.1} {echo:.1}");
}

async fn drain(rounds: usize) {
    let (one, two) = two().await;
    let (go, gone) = watch::channel(false);
    let (handled, all) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let (counted, done) = (Arc::clone(&handled), Arc::clone(&all));
    two.on("DRAIN", move |_| {
        let (mut gone, handled, all) = (gone.clone(), Arc::clone(&counted), Arc::clone(&done));
        async move {
            let _ = gone.wait_for(|go| *go).await;
            if (handled.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(INBOX) {
                all.notify_one();
            }
        }
    })
    .unwrap();
    let mut rates = Vec::new();
    for round in 1..=rounds as u64 {
        go.send_replace(false);
        for _ in 0..INBOX {
            one.broadcast("DRAIN", BODY).await.unwrap();
        }
        while received(&two) < round * INBOX {
            sleep(Duration::from_millis(5)).await;
        }
        let begun = Instant::now();
        go.send_replace(true);
        all.notified().await;
        rates.push(INBOX as f64 / begun.elapsed().as_secs_f64());
    }
    rates.sort_unstable_by(f64::total_cmp);
    println!("{:.0}", rates[rates.len() / 2]);
}

fn received(peer: &PeerHandle) -> u64 {
    peer.node().inbox().status().received
}

async fn flood(count: usize, endpoint: &str) {
    let sender = peer("sender").await;
    sender.join(endpoint).await.unwrap();
    let begun = Instant::now();
    for _ in 0..count {
        sender.broadcast("FLOOD", BODY).await.unwrap();
    }
    println!("{:.0}", count as f64 / begun.elapsed().as_secs_f64());
    // What is under way arrives.
    sleep(Duration::from_secs(1)).await;
}
