//! Certificates that are replaced while calls are made.

use super::{certificates::Authority, named, peer, peers::eventually, ping};
use p2pdi::{
    channel::Dial,
    tls::{ClientAuth, Tls},
    v1::{PingRequest, peer_client::PeerClient},
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::interval;

/// How many certificates a client must have seen: the files are read every two seconds.
const SEEN: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_the_certificate_is_replaced_every_second() {
    let (network, folder) = (Authority::new("network"), tempfile::tempdir().unwrap());
    let files = network.files(folder.path(), &["fff-a"]);
    let a = peer("fff-a", Tls::from_files(files.clone(), ClientAuth::Required).unwrap()).await;
    let caller = network.tls(&["fff-b"]);
    let done = Arc::new(AtomicBool::new(false));

    // One connection that stays, beside those that are made for each call.
    let mut kept = PeerClient::new(Dial::with(Some(caller.clone())).lazy(&[a.address.into()], named("fff-a")));
    let until = Arc::clone(&done);
    let staying = tokio::spawn(async move {
        let mut calls = 0;
        while !until.load(Ordering::Relaxed) {
            kept.ping(PingRequest {}).await.expect("a call on a connection that stays");
            calls += 1;
        }
        calls
    });
    let until = Arc::clone(&done);
    let replacing = tokio::spawn(async move {
        let mut every_second = interval(Duration::from_secs(1));
        while !until.load(Ordering::Relaxed) {
            every_second.tick().await;
            network.issue(&["fff-a"]).write(&files);
        }
    });
    let mut serials = BTreeSet::new();
    eventually("new certificates", async || {
        let identity = ping(a.address, Some(&caller), named("fff-a")).await.expect("a call on a new connection").unwrap();
        serials.insert(identity.serial().clone());
        (serials.len() >= SEEN).then_some(())
    })
    .await;
    done.store(true, Ordering::Relaxed);
    assert!(staying.await.unwrap() > 0);
    replacing.await.unwrap();
    a.stop().await;
}
