//! up: a small network in one process, for trials.

use super::{cluster::Cluster, documents};
use crate::{
    args::Up,
    failure::{Failure, Outcome},
    printer::Printer,
};
use p2pdi::phrases::counted;
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub(super) async fn up(args: Up, printer: Printer, stop: CancellationToken) -> Outcome {
    let folder = tempfile::tempdir()?;
    if let Some(share) = args.share.as_deref().filter(|share| !share.is_dir()) {
        return Err(
            Failure::usage(format!("{} is not a folder", share.display())).hint("give the folder to share with --share DIR")
        );
    }
    // Stopped below, after the peers have left.
    let mut cluster = Cluster::start(folder.path(), args.port, None).await?;
    for index in 0..args.peers {
        let name = format!("peer-{}", index + 1);
        let share = match &args.share {
            Some(share) => share.clone(),
            None => documents::distribute(&folder.path().join("share"), index.into(), args.peers.into())?,
        };
        // Below 65,536: --port is checked here.
        let port = if args.port == 0 {
            0
        } else {
            args.port
                .checked_add(index + 1)
                .ok_or_else(|| Failure::usage("the ports after --port end at 65535; choose a lower --port"))?
        };
        cluster.add_peer(&name, Some(share), port).await?;
    }
    tokio::select! {
        ready = cluster.ready() => ready?,
        () = stop.cancelled() => return cluster.stop().await,
    }
    let peers: Vec<_> = cluster.peers().iter().map(|peer| (peer.identity().clone(), peer.share().index().len())).collect();
    if printer.is_json() {
        let peers: Vec<_> = peers
            .iter()
            .map(|(identity, documents)| json!({ "name": identity.name().to_string(), "endpoint": identity.endpoint().as_str(), "documents": documents }))
            .collect();
        printer.json(&json!({ "registry": format!("http://{}", cluster.registry()), "peers": peers }))?;
    } else {
        printer.text(&format!("registry  http://{}", cluster.registry()))?;
        for (identity, documents) in &peers {
            printer.text(&format!(
                "{:<9} {}  {}",
                identity.name().to_string(),
                identity.endpoint(),
                counted(*documents as u64, "document")
            ))?;
        }
        printer.note(&format!("\nTry, in another terminal:\n  p2pctl --registry http://{0} peers\n  p2pctl --registry http://{0} get-rfc 48\nCtrl-C stops it.", cluster.registry()));
    }
    tokio::select! {
        ended = cluster.ended() => ended.and(Err(Failure::refused("a server of the cluster ended by itself"))),
        () = stop.cancelled() => cluster.stop().await,
    }
}
