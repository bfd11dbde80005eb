//! Cost of a peer that only keeps its links, against a nats-server that only keeps as many connections.

use crate::{crowd::Crowd, figure::Figure, nats::NatsServer, programs::Peer};
use peerd::overlay::membership;
use std::time::Duration;

/// Aim for the resident memory of an idle peer, in MiB.
const AIM_MIB: f64 = 30.0;
/// How long processor time is measured.
const WATCHED: Duration = Duration::from_secs(30);
/// Other peers in the network: enough to fill the active view of their bootnode.
const OTHERS: usize = 30;

pub(crate) async fn measure(nats: &NatsServer) -> Vec<Figure> {
    let peer = Peer::start("idle", &[]);
    let others = Crowd::start(OTHERS, Some(peer.address)).await;
    let config = membership::Config::default();
    let full = config.outgoing + config.incoming;
    peer.until_linked(full).await;
    let mut clients = Vec::new();
    for _ in 0..full {
        clients.push(nats.client().await);
    }
    let cpu = || (peer.process.cpu_seconds(), nats.process.cpu_seconds());
    let before = cpu();
    tokio::time::sleep(WATCHED).await;
    let after = cpu();
    let per_minute = |after: f64, before: f64| (after - before) * 60.0 / WATCHED.as_secs_f64();
    let ((rss, pss), (their_rss, their_pss)) = (peer.process.resident_mib(), nats.process.resident_mib());
    others.stop().await;
    let figure = |what: &str, unit, ours, theirs| {
        Figure::pairs(format!("idle peer with {full} links, {what}"), unit, "idle nats-server", &[(ours, theirs)])
    };
    vec![
        figure("resident", "MiB", rss, their_rss).below(AIM_MIB),
        figure("its own part of that (PSS)", "MiB", pss, their_pss),
        // A tick is a hundredth of a second: a server that shows none used less than that.
        figure("processor", "s a minute", per_minute(after.0, before.0), per_minute(after.1, before.1)),
    ]
}
