//! The same fetches with certificates and without.

use crate::{
    certificates::Authority,
    figure::{Aim, Figure, median, time, write_noise},
    programs::Network,
};
use p2pdi::{
    channel::Dial,
    tls::Expected,
    v1::{PingRequest, peer_client::PeerClient},
};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Clients that shake hands at once: enough that both cores of a small machine are busy.
const CLIENTS: usize = 8;
/// How long connections are counted.
const COUNTED: Duration = Duration::from_secs(3);
const SMALL_RUNS_PER_RUN: usize = 8;

pub(crate) fn run(folder: &Path, size: u64, runs: u64) -> Vec<Figure> {
    let share = folder.join("share");
    fs::create_dir(&share).unwrap();
    write_noise(&share.join("large.bin"), size);
    fs::copy("testdata/rfc/rfc48.txt", share.join("rfc48.txt")).unwrap();
    let authority = Authority::new("benchmark");
    let caller = authority.tls(&["caller"]);
    let (plain, secured) = (folder.join("plain"), folder.join("secured"));
    let plain = Network::start(&plain);
    let secured = Network::with_certificates_of(&secured, Some(authority));
    let plain_peer = plain.peer("fff-c", &share, &[]);
    let peer = secured.peer("fff-c", &share, &[]);
    for network in [&plain, &secured] {
        network.wait_for("fff-c", "large.bin");
    }
    let get = |network: &Network, args: &[&str]| {
        let took = time(&mut network.p2pctl(args));
        network.forget();
        took
    };
    let [mut with, mut without, mut small, mut small_without] = [const { Vec::new() }; 4];
    for _ in 0..runs {
        without.push(get(&plain, &["get", "large.bin"]));
        with.push(get(&secured, &["get", "large.bin"]));
        for _ in 0..SMALL_RUNS_PER_RUN {
            small_without.push(get(&plain, &["get-rfc", "48"]));
            small.push(get(&secured, &["get-rfc", "48"]));
        }
    }
    let connections = handshakes(peer.address, &Dial::with(Some(caller)));
    let plain_connections = handshakes(plain_peer.address, &Dial::default());
    vec![
        Figure::new("large document verified to disk, with TLS", "s", median(&mut with)).against(
            "without",
            median(&mut without),
            Aim::AtMost(1.25),
        ),
        Figure::new("get-rfc 48 as a whole process, with TLS", "s", median(&mut small)).against(
            "without",
            median(&mut small_without),
            Aim::None,
        ),
        Figure::new("connections with a call, both sides on this machine, with TLS", "/s", connections),
        Figure::new("the same, without", "/s", plain_connections),
    ]
}

/// New connections a second, with both sides' certificates checked and one call on each.
fn handshakes(peer: SocketAddr, dial: &Dial) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    let done: u64 = runtime.block_on(async {
        let client = |dial: Dial| async move {
            let mut done = 0;
            while begun.elapsed() < COUNTED {
                let channel = dial.connect(&peer.into(), Expected::Peer("fff-c".parse().unwrap())).await.unwrap();
                PeerClient::new(channel).ping(PingRequest {}).await.unwrap();
                done += 1;
            }
            done
        };
        let clients: JoinSet<u64> = (0..CLIENTS).map(|_| client(dial.clone())).collect();
        clients.join_all().await.into_iter().sum()
    });
    done as f64 / begun.elapsed().as_secs_f64()
}
