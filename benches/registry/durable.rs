//! Durable registrations, compared with etcd's lease grant and put.

use super::{
    Aim, Figure, Options,
    etcd::{self, Etcd},
    load::{CONNECTIONS, median, rate},
    server::Served,
};
use p2pdi::v1::RegisterRequest;
use std::time::Duration;
use tempfile::TempDir;

/// Registrations in flight: a burst, as after a restart of a cluster.
const WORKERS: usize = 512;
/// Bytes of a value in etcd: the size of a record of the registry.
const VALUE_BYTES: usize = 130;

/// A folder on the disk of the build folder, because /tmp may be memory.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
}

async fn ours(run: usize, duration: Duration) -> f64 {
    let folder = folder();
    let registry = Served::registry(folder.path().to_str().unwrap());
    let clients = registry.clients(CONNECTIONS).await;
    rate(WORKERS, duration, move |worker, number| {
        let mut client = clients[worker % clients.len()].clone();
        let ask = RegisterRequest {
            name: format!("peer-{run}-{worker}-{number}"),
            endpoint: format!("10.0.{}.{}:7801", worker % 250, number % 250 + 1),
            ..RegisterRequest::default()
        };
        async move {
            client.register(ask).await.unwrap();
        }
    })
    .await
}

async fn theirs(run: usize, duration: Duration) -> Result<f64, String> {
    let etcd = Etcd::start(folder()).await?;
    let channels = etcd.channels(CONNECTIONS).await;
    let registered = rate(WORKERS, duration, move |worker, number| {
        let channel = channels[worker % channels.len()].clone();
        async move {
            etcd::register(channel, format!("peer-{run}-{worker}-{number}"), vec![b'x'; VALUE_BYTES]).await.unwrap();
        }
    });
    Ok(registered.await)
}

pub(crate) async fn measure(options: &Options) -> Vec<Figure> {
    let (runs, duration) = if options.quick { (2, Duration::from_secs(2)) } else { (7, Duration::from_secs(3)) };
    let (mut ours_alone, mut pairs) = (Vec::new(), Vec::new());
    let mut skipped = None;
    for run in 0..runs {
        let theirs = theirs(run, duration).await;
        let ours = ours(run, duration).await;
        ours_alone.push(ours);
        match theirs {
            Ok(theirs) => pairs.push((ours, theirs)),
            Err(reason) => skipped = Some(reason),
        }
    }
    let rate = median(ours_alone);
    let mut figures = vec![Figure {
        name: "durable Register".into(),
        value: rate,
        unit: "registrations/s",
        yardstick: None,
        ratio: None,
        aim: "≥ 10,000".into(),
        reached: rate >= 10_000.0,
    }];
    match skipped {
        Some(reason) => eprintln!("skipped: durable Register against etcd, {reason}"),
        None => figures.push(Figure::pairs("durable Register", "registrations/s", "etcd grant + put", &pairs, Aim::AtLeast(5.0))),
    }
    figures
}
