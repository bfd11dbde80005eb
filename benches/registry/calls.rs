//! KeepAlive and PQuery against an empty echo, under the same load.

use super::{
    Figure, Options,
    load::{CONNECTIONS, median, rate},
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
/// Peers in the registry that is asked.
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
        let report = KeepAliveRequest { load: Some(load), index_version: number };
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
    let (runs, duration) = if options.quick { (3, Duration::from_millis(700)) } else { (7, Duration::from_secs(2)) };
    let by_name = PQueryRequest { name: "peer-000042".into(), ..PQueryRequest::default() };
    let unchanged = PQueryRequest { since_revision: revision, ..PQueryRequest::default() };
    let sample = PQueryRequest { sample: 10, ..PQueryRequest::default() };
    let kinds = [
        ("KeepAlive", None, 0.9),
        ("PQuery, one name", Some(by_name), 0.9),
        ("PQuery, nothing changed", Some(unchanged), 0.9),
        ("PQuery, sample of 10 of 10,000", Some(sample), 0.0),
    ];
    let mut figures = Vec::new();
    for (name, query, aim) in kinds {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            match &query {
                None => {
                    floor.push(keep_alives(&echoes, &cookies, duration).await);
                    ours.push(keep_alives(&clients, &cookies, duration).await);
                }
                Some(query) => {
                    floor.push(queries(&echoes, &cookies, query, duration).await);
                    ours.push(queries(&clients, &cookies, query, duration).await);
                }
            }
        }
        figures.push(Figure::share(name, median(ours), "calls/s", ("empty tonic echo", median(floor)), aim));
    }
    figures
}
