//! What survives a restart, and what must never be written to a file or a log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use p2pdi::{
    status::Reason,
    v1::{PQueryRequest, PeerState, RegisterRequest},
};
use rustix::process::Signal;
use std::{collections::BTreeMap, fs, process::Stdio, time::Duration};
use support::*;

#[tokio::test]
async fn records_cookies_and_leases_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = registry::Config { ttl: Duration::from_secs(5), ..in_folder(folder.path()) };
    let registry = Running::start(config.clone()).await;
    let mut client = registry.client();
    let labels = BTreeMap::from([("zone".to_owned(), "eu".to_owned())]);
    let ask = RegisterRequest { labels: labels.clone(), id: vec![7; 16].into(), ..asking("Stays", "10.0.0.1:7801") };
    let stays = client.register(ask).await.unwrap().into_inner();
    let left = register(&mut client, "left", "10.0.0.2:7801").await;
    let observer = observe(&mut client, "observer").await;
    let revision = leave(&mut client, &left.cookie).await.unwrap();
    registry.stop().await;

    let registry = Running::start(config).await;
    let mut client = registry.client();
    let kept = keep_alive(&mut client, &stays.cookie).await.unwrap();
    let before = stays.peer.unwrap();
    assert_eq!((kept.name.as_str(), kept.state(), kept.labels), ("Stays", PeerState::Active, labels));
    assert_eq!((kept.id, kept.first_registered_at, kept.registration_count), (before.id, before.first_registered_at, 1));
    assert_eq!(kept.lease_remaining.unwrap().seconds, 5);
    assert_refused(keep_alive(&mut client, &left.cookie).await, Reason::LeaseExpired);
    assert_refused(keep_alive(&mut client, &observer.cookie).await, Reason::CookieUnknown);
    leave(&mut client, &left.cookie).await.unwrap();
    let since = PQueryRequest { since_revision: revision, ..Default::default() };
    let seen = query(&mut client, &stays.cookie, since).await.unwrap();
    assert!(seen.start_over && seen.revision > revision, "{seen:?}");
    let back = client.register(with_cookie(asking("left", "10.0.0.9:7801"), &left.cookie)).await.unwrap().into_inner();
    assert_eq!((back.cookie, back.peer.unwrap().registration_count), (left.cookie, 2));
    registry.stop().await;
}

#[tokio::test]
async fn a_registry_that_lost_its_state_starts_over_for_a_revision_from_before() {
    let registry = Running::start(in_memory()).await;
    let seen = register(&mut registry.client(), "a", "10.0.0.1:7801").await.revision;
    registry.stop().await;

    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let cookie = register(&mut client, "a", "10.0.0.1:7801").await.cookie;
    for n in 0..20 {
        register(&mut client, &format!("b{n}"), "10.0.0.2:7801").await;
    }
    let since = PQueryRequest { since_revision: seen, ..Default::default() };
    let answer = query(&mut client, &cookie, since).await.unwrap();
    assert!(answer.start_over && answer.peers.len() == 20, "{answer:?}");
    registry.stop().await;
}

#[tokio::test]
async fn after_a_crash_an_expired_lease_stays_expired_and_a_running_one_gets_a_whole_ttl() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = command(folder.path());
        command.args(["--ttl", "1s"]);
        Program::spawn(command)
    };
    let registry = start();
    let mut client = registry.client();
    let gone = register(&mut client, "gone", "10.0.0.1:7801").await.cookie;
    let observer = observe(&mut client, "observer").await.cookie;
    let alive = register(&mut client, "alive", "10.0.0.2:7801").await.cookie;
    eventually("one lease runs out", || {
        let (mut client, alive, observer) = (client.clone(), alive.clone(), observer.clone());
        async move {
            keep_alive(&mut client, &alive).await.unwrap();
            let seen = query(&mut client, &observer, PQueryRequest::default()).await.unwrap();
            (names(&seen.peers) == ["alive"]).then_some(())
        }
    })
    .await;
    // It is stored soon, though no caller waits for it.
    eventually("the expiry is stored", || {
        let address = registry.address;
        async move {
            let metrics = http_get(address, "/metrics").await;
            let written = metrics.contains("p2pdi_registry_unwritten 0") && metrics.contains("p2pdi_registry_peers_inactive 1");
            written.then_some(())
        }
    })
    .await;
    registry.kill();
    let registry = start();
    let mut client = registry.client();
    assert_eq!(keep_alive(&mut client, &alive).await.unwrap().name, "alive");
    assert_refused(keep_alive(&mut client, &gone).await, Reason::LeaseExpired);
}

async fn http_get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_damaged_file_is_an_error_at_the_start_and_stays_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(registry::store::FILE_NAME);
    fs::write(&file, "another program's file\n").unwrap();
    let outcome = command(folder.path()).output().unwrap();
    let stderr = String::from_utf8(outcome.stderr).unwrap();
    assert_eq!(outcome.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("move it away"), "{stderr}");
    // Log lines come before.
    let last: Vec<_> = stderr.lines().rev().take(2).collect();
    assert!(last[0].starts_with("hint: ") && last[1].starts_with("error: "), "{stderr}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "another program's file\n");
}

#[tokio::test]
async fn an_unusable_state_folder_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let outcome = command(&file.join("below")).output().unwrap();
    let stderr = String::from_utf8(outcome.stderr).unwrap();
    assert_eq!(outcome.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot use the state folder") && stderr.contains("hint: "), "{stderr}");
}

#[tokio::test]
async fn cookies_are_in_no_log_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = command(&folder.path().join("state"));
    command.args(["--log", "trace"]).stderr(Stdio::from(fs::File::create(&log).unwrap()));
    let registry = Program::spawn_as_is(command);
    let mut client = registry.client();
    let mut cookies = Vec::new();
    for number in 0..5 {
        let name = format!("peer-{number}");
        let cookie = register(&mut client, &name, "10.0.0.1:7801").await.cookie;
        keep_alive(&mut client, &cookie).await.unwrap();
        query(&mut client, &cookie, PQueryRequest::default()).await.unwrap();
        client.register(with_cookie(asking(&name, "10.0.0.2:7801"), &cookie)).await.unwrap();
        leave(&mut client, &cookie).await.unwrap();
        cookies.push(cookie);
    }
    cookies.push("00112233445566778899aabbccddeeff".into());
    assert_refused(keep_alive(&mut client, &cookies[5]).await, Reason::CookieUnknown);
    registry.signal(Signal::TERM);
    eventually("it ends", || {
        let address = registry.address;
        async move { tokio::net::TcpStream::connect(address).await.err() }
    })
    .await;
    drop(registry);
    let logged = fs::read_to_string(&log).unwrap();
    assert!(logged.contains("peer-0") && logged.contains("TRACE"), "the log is empty");
    let state = fs::read(folder.path().join("state").join(registry::store::FILE_NAME)).unwrap();
    for cookie in cookies {
        assert!(!logged.contains(&cookie), "a cookie is in the log: {:?}", logged.lines().find(|line| line.contains(&cookie)));
        assert!(!state.windows(32).any(|bytes| bytes == cookie.as_bytes()));
    }
}
