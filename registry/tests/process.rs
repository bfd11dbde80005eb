//! The real program: kills, signals, wrong usage, a full disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use p2pdi::{status::Reason, v1::PQueryRequest};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;
use std::{
    collections::HashMap,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};
use support::*;

/// Registers new names, each twice, until the registry is killed. Collects what was acknowledged.
async fn storm(mut client: Client, worker: u64, round: u64, acknowledged: Arc<Mutex<HashMap<String, String>>>) {
    for number in 0.. {
        let name = format!("w{worker}-r{round}-{number}");
        let Ok(answer) = client.register(asking(&name, "10.0.0.1:7801")).await else { return };
        let cookie = answer.into_inner().cookie;
        acknowledged.lock().unwrap().insert(name.clone(), cookie.clone());
        // With its cookie: without it, a registration that is stored and not acknowledged would replace the cookie.
        let Ok(_) = client.register(with_cookie(asking(&name, "10.0.0.2:7801"), &cookie)).await else { return };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_registration_survives_kill_9_at_any_moment() {
    const ROUNDS: u64 = 50;
    const WORKERS: u64 = 8;
    let folder = tempfile::tempdir().unwrap();
    let acknowledged = Arc::new(Mutex::new(HashMap::new()));
    let mut random = StdRng::seed_from_u64(0x2bd1);
    let mut revision = 0;
    let mut registry = Program::start(folder.path());
    for round in 0..ROUNDS {
        let workers: Vec<_> =
            (0..WORKERS).map(|worker| tokio::spawn(storm(registry.client(), worker, round, Arc::clone(&acknowledged)))).collect();
        tokio::time::sleep(Duration::from_micros(random.random_range(1_000..120_000))).await;
        registry.kill();
        for worker in workers {
            worker.await.unwrap();
        }
        registry = Program::start(folder.path());
        let mut client = registry.client();
        // All of this round, and a few of earlier rounds.
        let known = acknowledged.lock().unwrap().clone();
        let this_round = format!("-r{round}-");
        for (name, cookie) in known.iter().filter(|(name, _)| name.contains(&this_round) || random.random_ratio(1, 50)) {
            let kept = keep_alive(&mut client, cookie).await;
            let kept = kept.unwrap_or_else(|status| panic!("round {round}: {name} was acknowledged and is lost: {status:?}"));
            assert_eq!(&kept.name, name);
        }
        let now = observe(&mut client, "observer").await.revision;
        assert!(now > revision, "the revision went back from {revision} to {now}");
        revision = now;
    }
    let total = acknowledged.lock().unwrap().len();
    assert!(total > 500, "{total} registrations are too few for this test");
}

#[tokio::test]
async fn a_first_start_killed_at_any_moment_can_be_repeated() {
    let mut random = StdRng::seed_from_u64(0x51a7);
    for _ in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(folder.path());
        let mut first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_micros(random.random_range(1_000..25_000))).await;
        first.kill().unwrap();
        first.wait().unwrap();
        let registry = Program::start(folder.path());
        register(&mut registry.client(), "a", "10.0.0.1:7801").await;
    }
}

#[tokio::test]
async fn sigterm_and_sigint_exit_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let registry = Program::start(folder.path());
        register(&mut registry.client(), "a", "10.0.0.1:7801").await;
        registry.signal(signal);
        let (status, stderr) = registry.ended().await;
        assert_eq!(status.code(), Some(0), "{stderr}");
    }
}

/// The bytes of a gRPC call whose request message never comes: HTTP/2's preface, empty settings, and headers that do not end their
/// stream (RFC 9113, sections 3.4, 6.2 and 6.5), as literals and entries of the static table (RFC 7541, section 6.2.2, appendix A).
fn call_without_message(method: &str) -> Vec<u8> {
    let literal = |name: &[u8], value: &str| [name, &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    let (method_post, scheme_http) = ([0x83], [0x86]);
    let fields = [literal(&[0x04], method), literal(&[0x01], "a"), literal(&[0x0f, 0x10], "application/grpc")].concat();
    let block = [method_post.as_slice(), &scheme_http, &fields].concat();
    let headers = [&[0, 0, u8::try_from(block.len()).unwrap(), 1, 4, 0, 0, 0, 1], block.as_slice()].concat();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0], &headers].concat()
}

#[tokio::test]
async fn leases_outlive_a_stop_of_the_process_for_longer_than_the_ttl() {
    const TTL: Duration = Duration::from_secs(2);
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path());
    command.args(["--ttl", "2s"]);
    let registry = Program::spawn(command);
    let mut client = registry.client();
    let peer = register(&mut client, "a", "10.0.0.1:7801").await.cookie;
    let observer = observe(&mut client, "observer").await.cookie;
    registry.signal(Signal::STOP);
    // The pause itself is what is tested.
    tokio::time::sleep(2 * TTL).await;
    registry.signal(Signal::CONT);
    // These are the first calls after the pause: they do not wait for the registry to notice it.
    let kept = keep_alive(&mut client, &peer).await.expect("the lease goes on");
    assert_eq!(kept.name, "a");
    let seen = query(&mut client, &observer, PQueryRequest::default()).await.expect("an observer's too");
    assert_eq!(names(&seen.peers), ["a"]);
    // Leases still end.
    eventually("the peer is gone", || {
        let (mut client, observer) = (client.clone(), observer.clone());
        async move { query(&mut client, &observer, PQueryRequest::default()).await.unwrap().peers.is_empty().then_some(()) }
    })
    .await;
    registry.signal(Signal::TERM);
    let (status, said) = registry.ended().await;
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("this process was stopped"), "{said}");
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    use tokio::io::AsyncWriteExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path());
    command.args(["--grace", "1h"]);
    let registry = Program::spawn(command);
    // The first signal waits for this call.
    let mut slow = tokio::net::TcpStream::connect(registry.address).await.unwrap();
    slow.write_all(&call_without_message("/p2pdi.v1.Registry/Register")).await.unwrap();
    register(&mut registry.client(), "a", "10.0.0.1:7801").await;
    registry.signal(Signal::TERM);
    let address = registry.address;
    eventually("no more connections are accepted", || async move { tokio::net::TcpStream::connect(address).await.err() }).await;
    registry.signal(Signal::TERM);
    let (status, stderr) = registry.ended().await;
    assert_eq!(status.code(), Some(130), "{stderr}");
}

#[tokio::test]
async fn a_state_folder_in_use_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let first = Program::start(folder.path());
    let second = command(folder.path()).output().unwrap();
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("in use by another registry") && stderr.contains("hint: "), "{stderr}");
    assert!(second.stdout.is_empty());
    register(&mut first.client(), "a", "10.0.0.1:7801").await;
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    for arguments in [["--ttl", "0s"], ["--ttl", "soon"], ["--listen", "nowhere"], ["--no-such", "flag"], ["--max-peers", "0"]] {
        let outcome = std::process::Command::new(env!("CARGO_BIN_EXE_registry")).args(arguments).output().unwrap();
        assert_eq!(outcome.status.code(), Some(2), "{arguments:?}");
    }
}

#[tokio::test]
async fn with_a_full_disk_registrations_are_refused_and_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let outcome =
            std::process::Command::new(arguments[0]).args(&arguments[1..]).arg(folder.path()).stderr(Stdio::null()).status();
        outcome.is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "none"]) {
        println!("skipped: this user may not mount a tmpfs");
        return;
    }
    let registry = Program::start(folder.path());
    let mut client = registry.client();
    let before = register(&mut client, "before", "10.0.0.1:7801").await;
    let filler = folder.path().join("filler");
    while std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&filler)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 4096]))
        .is_ok()
    {}
    // Registrations that fit into free pages of the file may still succeed.
    let mut accepted = Vec::new();
    let mut refused = Vec::new();
    for number in 0..20_000 {
        let name = format!("peer-{number}");
        match client.register(asking(&name, "10.0.0.1:7801")).await {
            Ok(answer) => accepted.push((name, answer.into_inner().cookie)),
            Err(status) => {
                assert_refused::<()>(Err(status), Reason::StoreUnavailable);
                refused.push(name);
                if refused.len() == 5 {
                    break;
                }
            }
        }
    }
    assert_eq!(refused.len(), 5, "the disk never filled up");
    keep_alive(&mut client, &before.cookie).await.expect("it keeps serving");
    std::fs::remove_file(&filler).unwrap();
    let after = eventually("it recovers when there is space", || {
        let mut client = client.clone();
        async move { client.register(asking("after", "10.0.0.1:7801")).await.ok() }
    });
    accepted.push(("after".into(), after.await.into_inner().cookie));
    accepted.push(("before".into(), before.cookie));
    registry.kill();
    let registry = Program::start(folder.path());
    let mut client = registry.client();
    for (name, cookie) in accepted {
        assert_eq!(keep_alive(&mut client, &cookie).await.unwrap_or_else(|status| panic!("{name}: {status:?}")).name, name);
    }
    let me = register(&mut client, "me", "10.0.0.1:1").await.cookie;
    for name in refused {
        let seen = query(&mut client, &me, PQueryRequest { name, ..Default::default() }).await.unwrap();
        assert!(seen.peers.is_empty(), "it was refused and is listed: {:?}", seen.peers);
    }
    drop(registry);
    assert!(mount(&["umount"]));
}
