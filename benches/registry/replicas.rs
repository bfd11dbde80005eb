//! Replicas over etcd, compared with what etcd itself does on the same machine: leases that are renewed by their holders, and keys with a
//! lease.

use super::{
    Aim, Figure, Options,
    durable::folder,
    etcd::{self, Etcd, Lease},
    load::{CONNECTIONS, median, rate},
    server::Served,
};
use p2pdi::{
    cookie::COOKIE_HEADER,
    v1::{KeepAliveRequest, Load, RegisterRequest, registry_client::RegistryClient},
};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
};
use tonic::{Request, transport::Channel};

/// Calls in flight.
const WORKERS: usize = 128;
/// Peers, or leases of etcd, that are kept alive.
const PEERS: usize = 2_000;
/// Peers of the measurement of memory.
const MANY: usize = 100_000;
/// Bytes of a value in etcd: the size of a record of the registry.
const VALUE_BYTES: usize = 130;
/// How long a replica may take to read [`MANY`] peers: far longer than it does.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

type Client = RegistryClient<Channel>;

fn asking(name: String) -> RegisterRequest {
    RegisterRequest { name, endpoint: "10.0.0.1:7801".into(), ..RegisterRequest::default() }
}

/// Registers as many peers, from many callers at once. Gives their cookies.
async fn register(clients: &[Client], prefix: &str, count: usize) -> Vec<String> {
    let mut calls = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let mut client = clients[worker % clients.len()].clone();
        let names: Vec<String> = (worker..count).step_by(WORKERS).map(|number| format!("{prefix}-{number}")).collect();
        calls.spawn(async move {
            let mut cookies = Vec::new();
            for name in names {
                cookies.push(client.register(asking(name)).await.unwrap().into_inner().cookie);
            }
            cookies
        });
    }
    calls.join_all().await.concat()
}

async fn keep_alives(clients: Vec<Client>, cookies: Arc<Vec<String>>, duration: Duration) -> f64 {
    rate(WORKERS, duration, move |worker, number| {
        let mut client = clients[worker % clients.len()].clone();
        let load = Load { uploads: 1, upload_bytes_per_second: 1_000_000, downloads: 2, links: 5 };
        let mut request = Request::new(KeepAliveRequest { load: Some(load), index_version: number, documents: 0 });
        let cookie = &cookies[(worker * 37 + number as usize * WORKERS) % cookies.len()];
        request.metadata_mut().insert(COOKIE_HEADER, cookie.parse().unwrap());
        async move {
            client.keep_alive(request).await.unwrap();
        }
    })
    .await
}

async fn renewals(etcd: &Etcd, duration: Duration) -> f64 {
    let channels = etcd.channels(CONNECTIONS).await;
    let mut leases = Vec::new();
    for worker in 0..WORKERS {
        leases.push(Mutex::new(Lease::grant(channels[worker % channels.len()].clone()).await));
    }
    let leases = Arc::new(leases);
    rate(WORKERS, duration, move |worker, _| {
        let leases = Arc::clone(&leases);
        async move { leases[worker].lock().await.renew().await }
    })
    .await
}

/// Replicas that know of each other and keep all shards.
async fn replicas(etcd: &Etcd, count: usize) -> Vec<Served> {
    let replicas: Vec<Served> = (0..count).map(|_| Served::replica(&etcd.endpoints())).collect();
    settle(&replicas, count).await;
    replicas
}

/// Waits until these replicas know of `count`, and keep all shards. Gives how long it took.
async fn settle(replicas: &[Served], count: usize) -> Duration {
    let began = Instant::now();
    loop {
        let mut shards = 0;
        let mut known = true;
        for replica in replicas {
            let status = status(replica).await["replica"].clone();
            shards += status["shards"].as_u64().unwrap_or(0);
            known &= status["replicas"] == count;
        }
        if known && shards == 32 {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the replicas do not settle");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn status(replica: &Served) -> Value {
    let mut stream = TcpStream::connect(replica.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Clients of all of them in turn.
async fn clients(replicas: &[Served]) -> Vec<Client> {
    let mut clients = Vec::new();
    for replica in replicas {
        clients.extend(replica.clients(CONNECTIONS).await);
    }
    let rows = replicas.len();
    (0..clients.len()).map(|at| clients[(at % rows) * CONNECTIONS + at / rows].clone()).collect()
}

pub(crate) async fn measure(options: &Options) -> Vec<Figure> {
    let (runs, duration) = if options.quick { (2, Duration::from_secs(2)) } else { (5, Duration::from_secs(3)) };
    let mut figures = Vec::new();
    // As many members as replicas: with three of each, most of etcd's renewals arrive at a member that is not the leader.
    for count in [1, 3] {
        let etcd = match Etcd::cluster((0..count).map(|_| folder()).collect()).await {
            Ok(etcd) => etcd,
            Err(reason) => {
                eprintln!("skipped: replicas, {reason}");
                return Vec::new();
            }
        };
        let replicas = replicas(&etcd, count).await;
        let clients = clients(&replicas).await;
        let cookies = Arc::new(register(&clients, "alive", PEERS).await);
        let mut kept = Vec::new();
        for _ in 0..runs {
            let theirs = renewals(&etcd, duration).await;
            kept.push((keep_alives(clients.clone(), Arc::clone(&cookies), duration).await, theirs));
        }
        let name = format!("KeepAlive, {count} replicas");
        figures.push(Figure::pairs(&name, "calls/s", "renewals of etcd's leases, as many members", &kept, Aim::AtLeast(20.0)));
        let mut registered = Vec::new();
        for run in 0..runs {
            let channels = etcd.channels(CONNECTIONS).await;
            let theirs = rate(512, duration, move |worker, number| {
                let channel = channels[worker % channels.len()].clone();
                let key = format!("bench/{run}-{worker}-{number}");
                async move { etcd::register(channel, key, vec![b'x'; VALUE_BYTES]).await.unwrap() }
            })
            .await;
            let clients = clients.clone();
            let ours = rate(512, duration, move |worker, number| {
                let mut client = clients[worker % clients.len()].clone();
                let ask = asking(format!("new-{run}-{worker}-{number}"));
                async move {
                    client.register(ask).await.unwrap();
                }
            })
            .await;
            registered.push((ours, theirs));
        }
        let name = format!("Register, {count} replicas");
        figures.push(Figure::pairs(&name, "calls/s", "etcd grant + put, as many members", &registered, Aim::AtLeast(3.0)));
        if count == 3 {
            let mut replicas = replicas;
            let mut took = Vec::new();
            while replicas.len() > 1 {
                drop(replicas.remove(0));
                took.push(settle(&replicas, replicas.len()).await.as_secs_f64() * 1000.0);
            }
            figures.push(figure("take-over after kill -9", median(took), "ms", 8_000.0));
        }
    }
    figures.push(memory().await);
    figures
}

/// Memory of one replica with many peers.
async fn memory() -> Figure {
    let etcd = Etcd::start(folder()).await.unwrap();
    let replicas = replicas(&etcd, 1).await;
    let before = replicas[0].resident();
    register(&clients(&replicas).await, "many", MANY).await;
    // One that reads them: nothing is left of their registrations.
    let reads = replica_beside(&etcd).await;
    let bytes = (reads.resident() - before) / MANY as f64;
    figure(&format!("memory of a replica for each of {MANY} peers"), bytes, "bytes", 1_024.0)
}

async fn replica_beside(etcd: &Etcd) -> Served {
    let replica = Served::replica(&etcd.endpoints());
    let begun = Instant::now();
    while status(&replica).await["active_peers"].as_u64() < Some(MANY as u64) {
        assert!(begun.elapsed() < READ_TIMEOUT, "a replica has not read all peers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    replica
}

fn figure(name: &str, value: f64, unit: &'static str, at_most: f64) -> Figure {
    Figure {
        name: name.into(),
        value,
        unit,
        yardstick: None,
        ratio: None,
        aim: format!("≤ {at_most}"),
        reached: value <= at_most,
    }
}
