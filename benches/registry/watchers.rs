//! WatchPeers: from a Register to its event at every watcher.

use super::{Figure, Options, server::Served};
use p2pdi::{
    cookie::COOKIE_HEADER,
    v1::{RegisterRequest, WatchPeersRequest, peer_event::Change},
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::sleep};
use tonic::Request;

const WATCHERS: usize = 1_000;
/// Watchers on one connection. A peer has a connection of its own; the descriptors of one process do not suffice for as many.
const PER_CONNECTION: usize = 100;

pub(crate) async fn measure(options: &Options) -> Vec<Figure> {
    let registry = Served::registry("memory");
    let clients = registry.clients(WATCHERS / PER_CONNECTION + 1).await;
    let register = async |name: String, observer: bool| {
        let endpoint = "10.0.0.1:7801".to_owned();
        let request = RegisterRequest { name, endpoint, observer, ..RegisterRequest::default() };
        clients[0].clone().register(request).await.unwrap().into_inner()
    };
    let (told, mut events) = mpsc::unbounded_channel::<(String, Instant)>();
    let own = register("watcher".into(), true).await;
    for number in 0..WATCHERS {
        let mut request = Request::new(WatchPeersRequest { since_revision: own.revision });
        request.metadata_mut().insert(COOKIE_HEADER, own.cookie.parse().unwrap());
        let mut stream = clients[1 + number / PER_CONNECTION].clone().watch_peers(request).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().unwrap().caught_up);
        let told = told.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                let at = Instant::now();
                for event in message.events().unwrap() {
                    if let Some(Change::Joined(peer)) = event.change {
                        let _ended = told.send((peer.name, at));
                    }
                }
            }
        });
    }
    let mut figures = Vec::new();
    for (what, count, pause) in [
        ("one at a time", if options.quick { 20 } else { 100 }, Duration::from_millis(250)),
        ("100 a second", if options.quick { 200 } else { 1_000 }, Duration::from_millis(10)),
    ] {
        let cpu = registry.cpu_seconds();
        let mut sent = HashMap::new();
        for number in 0..count {
            let name = format!("{}-{number}", what.replace(' ', "-"));
            sent.insert(name.clone(), Instant::now());
            register(name, false).await;
            sleep(pause).await;
        }
        let mut delays = Vec::new();
        while delays.len() < count * WATCHERS {
            let (name, at) = events.recv().await.unwrap();
            delays.push(at.duration_since(sent[&name]).as_secs_f64() * 1e3);
        }
        delays.sort_by(f64::total_cmp);
        let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize];
        let figure = |name: &str, value, aim: &str, reached| Figure {
            name: format!("{name}, Register to event at {WATCHERS} watchers, {what}"),
            value,
            unit: "ms",
            yardstick: None,
            ratio: None,
            aim: aim.into(),
            reached,
        };
        figures.push(figure("median", at(0.5), "none", true));
        figures.push(figure("p99", at(0.99), "< 250 ms", at(0.99) < 250.0));
        let per_event = (registry.cpu_seconds() - cpu) * 1e6 / delays.len() as f64;
        figures.push(Figure { unit: "µs an event", ..figure("server CPU", per_event, "none", true) });
    }
    figures
}
