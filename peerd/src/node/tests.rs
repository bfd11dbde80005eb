//! A peer whose parts end or run.

use super::*;
use std::{path::Path, time::Duration};
use tokio::time::timeout;

/// Longest wait for what happens at once.
const DEADLINE: Duration = Duration::from_secs(20);

async fn open(state: &Path) -> Node {
    let config = NodeConfig::new("a".parse().unwrap(), state);
    Node::open(config, TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_part_that_returns_early_ends_the_peer_with_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let (mut tasks, server) = open(folder.path()).await.start(&stop).await.unwrap();
    tasks.spawn("example", async {});
    let ended = timeout(DEADLINE, run_until_stopped(tasks, server)).await.expect("the peer ends");
    let error = ended.unwrap_err();
    assert_eq!(error.to_string(), "a part of the peer failed: the task \"example\" ended by itself");
    assert!(!stop.is_cancelled(), "the caller's token is not cancelled");
}

#[tokio::test]
async fn a_keepalive_reports_fetches_in_progress() {
    let folder = tempfile::tempdir().unwrap();
    let node = open(folder.path()).await;
    let downloads = || node.services.report().load.unwrap().downloads;
    let (first, second) = (node.handle().downloads().begin(), node.handle().downloads().begin());
    assert_eq!(downloads(), 2);
    drop(first);
    assert_eq!(downloads(), 1);
    drop(second);
    assert_eq!(downloads(), 0);
}

#[tokio::test]
async fn every_part_runs_until_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let node = open(folder.path()).await;
    let handle = node.handle();
    let running = tokio::spawn(Box::pin(node.run(stop.clone())));
    timeout(DEADLINE, handle.share().settled()).await.expect("the share is read");
    stop.cancel();
    timeout(DEADLINE, running).await.expect("the peer ends").unwrap().unwrap();
}
