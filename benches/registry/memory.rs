//! Resident memory of an idle registry, and per peer.

use super::{Figure, Options, durable::folder, load::CONNECTIONS, server::Served};
use p2pdi::{
    cookie::COOKIE_HEADER,
    v1::{KeepAliveRequest, RegisterRequest},
};
use std::collections::BTreeMap;
use tonic::Request;

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) async fn idle() -> Figure {
    let folder = folder();
    let registry = Served::registry(folder.path().to_str().unwrap());
    // Allocations of the first call count.
    registry.clients(1).await[0].clone().register(ask(0)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let value = registry.resident() / MIB;
    Figure {
        name: "idle registry".into(),
        value,
        unit: "MiB resident",
        yardstick: None,
        ratio: None,
        aim: "< 30".into(),
        reached: value < 30.0,
    }
}

fn ask(number: usize) -> RegisterRequest {
    RegisterRequest {
        name: format!("peer-{number:07}.example"),
        endpoint: format!("10.{}.{}.{}:7801", number / 62_500, number / 250 % 250, number % 250 + 1),
        labels: BTreeMap::from([("zone".to_owned(), "eu-west-1".to_owned())]),
        ..RegisterRequest::default()
    }
}

/// Registers `peers`, each with a reported load. Gives the growth of resident memory per peer.
async fn per_peer(state: &str, peers: usize) -> f64 {
    let registry = Served::registry(state);
    let clients = registry.clients(CONNECTIONS).await;
    let register = |from: usize, to: usize| {
        let tasks: Vec<_> = (0..CONNECTIONS * 16)
            .map(|worker| {
                let mut client = clients[worker % CONNECTIONS].clone();
                tokio::spawn(async move {
                    for number in (from + worker..to).step_by(CONNECTIONS * 16) {
                        let cookie = client.register(ask(number)).await.unwrap().into_inner().cookie;
                        let mut alive =
                            Request::new(KeepAliveRequest { load: Some(Default::default()), index_version: 1, documents: 0 });
                        alive.metadata_mut().insert(COOKIE_HEADER, cookie.parse().unwrap());
                        client.keep_alive(alive).await.unwrap();
                    }
                })
            })
            .collect();
        async {
            for task in tasks {
                task.await.unwrap();
            }
        }
    };
    // Connections and buffers are allocated before the first measurement.
    const WARM_UP: usize = 1_000;
    register(0, WARM_UP).await;
    let before = registry.resident();
    register(WARM_UP, WARM_UP + peers).await;
    (registry.resident() - before) / peers as f64
}

pub(crate) async fn measure(options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    let sizes: &[usize] = if options.million { &[100_000, 1_000_000] } else { &[100_000] };
    for peers in sizes {
        for durable in [false, true] {
            let folder = folder();
            let state = if durable { folder.path().to_str().unwrap() } else { "memory" };
            let value = per_peer(state, *peers).await;
            figures.push(Figure {
                name: format!("a peer of {peers}, state {}", if durable { "on disk" } else { "in memory" }),
                value,
                unit: "bytes resident",
                yardstick: None,
                ratio: None,
                aim: "≤ 512".into(),
                reached: value <= 512.0,
            });
        }
    }
    figures
}
