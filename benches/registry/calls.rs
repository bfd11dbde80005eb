//! KeepAlive and PQuery, compared with an empty tonic service under the same load.

use super::{
    Aim, Figure, Options,
    load::{CONNECTIONS, rate},
    server::Served,
};
use p2pdi::{
    cookie::COOKIE_HEADER,
    v1::{KeepAliveRequest, Load, PQueryRequest, RegisterRequest, registry_client::RegistryClient},
};
use std::{sync::Arc, time::Duration};
use tonic::{Request, transport::Channel};

/// Calls in flight.
const WORKERS: usize = 128;
/// Peers in the registry.
const PEERS: usize = 10_000;

type Client = RegistryClient<Channel>;

fn with_cookie<T>(message: T, cookie: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(COOKIE_HEADER, cookie.parse().unwrap());
    request
}

async fn keep_alives(clients: &[Client], cookies: &Arc<Vec<String>>, duration: Duration) -> f64 {
    let (clients, cookies) = (clients.to_vec(), Arc::clone(cookies));
    rate(WORKERS, duration, move |worker, number| {
        let mut client = clients[worker % clients.len()].clone();
        let load = Load { uploads: 1, upload_bytes_per_second: 1_000_000, downloads: 2, links: 5 };
        let report = KeepAliveRequest { load: Some(load), index_version: number, documents: 0 };
        let request = with_cookie(report, &cookies[(worker * 37 + number as usize * WORKERS) % cookies.len()]);
        async move {
            client.keep_alive(request).await.unwrap();
        }
    })
    .await
}

async fn queries(clients: &[Client], cookies: &Arc<Vec<String>>, query: &PQueryRequest, duration: Duration) -> f64 {
    let (clients, cookies, query) = (clients.to_vec(), Arc::clone(cookies), query.clone());
    rate(WORKERS, duration, move |worker, number| {
        let mut client = clients[worker % clients.len()].clone();
        let request = with_cookie(query.clone(), &cookies[(worker * 37 + number as usize * WORKERS) % cookies.len()]);
        async move {
            client.p_query(request).await.unwrap();
        }
    })
    .await
}

pub(crate) async fn measure(options: &Options) -> Vec<Figure> {
    let (echo, registry) = (Served::echo(), Served::registry("memory"));
    let (echoes, clients) = (echo.clients(CONNECTIONS).await, registry.clients(CONNECTIONS).await);
    let (mut cookies, mut revision) = (Vec::new(), 0);
    for number in 0..PEERS {
        let ask = RegisterRequest {
            name: format!("peer-{number:06}"),
            endpoint: format!("10.0.{}.{}:7801", number / 250, number % 250 + 1),
            ..RegisterRequest::default()
        };
        let answer = clients[number % CONNECTIONS].clone().register(ask).await.unwrap().into_inner();
        cookies.push(answer.cookie);
        revision = answer.revision;
    }
    let cookies = Arc::new(cookies);
    let (runs, duration) = if options.quick { (5, Duration::from_millis(400)) } else { (25, Duration::from_millis(500)) };
    let by_name = PQueryRequest { name: "peer-000042".into(), ..PQueryRequest::default() };
    let unchanged = PQueryRequest { since_revision: revision, ..PQueryRequest::default() };
    let sample = PQueryRequest { sample: 10, ..PQueryRequest::default() };
    let kinds = [
        ("KeepAlive", None, Aim::AtLeast(0.9)),
        ("PQuery, one name", Some(by_name), Aim::AtLeast(0.9)),
        ("PQuery, nothing changed", Some(unchanged), Aim::AtLeast(0.9)),
        ("PQuery, sample of 10 of 10,000", Some(sample), Aim::None),
    ];
    let mut figures = Vec::new();
    for (name, query, aim) in kinds {
        let (mut rates, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let run = async |server: &Served, clients: &[Client]| {
                let before = server.cpu_seconds();
                let rate = match &query {
                    None => keep_alives(clients, &cookies, duration).await,
                    Some(query) => queries(clients, &cookies, query, duration).await,
                };
                (rate, (server.cpu_seconds() - before) * 1e6 / (rate * duration.as_secs_f64()))
            };
            let theirs = run(&echo, &echoes).await;
            let ours = run(&registry, &clients).await;
            rates.push((ours.0, theirs.0));
            cpu.push((ours.1, theirs.1));
        }
        figures.push(Figure::pairs(name, "calls/s", "empty tonic echo", &rates, aim));
        figures.push(Figure::pairs(&format!("{name}: server CPU"), "µs a call", "empty tonic echo", &cpu, Aim::None));
    }
    figures
}
