//! Any replica answers any call.

use super::three::*;
use crate::{etcd::Etcd, support::*};
use p2pdi::{
    status::Reason,
    v1::{AnnounceRequest, PQueryRequest, WatchPeersRequest, peer_event::Change},
};
use std::{future::ready, process::Stdio, time::Duration};
use tokio::time::timeout;

const TTL: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_acknowledged_every_other_one_knows() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/know", 3, TTL).await;
    let [mut a, mut b, mut c] = [0, 1, 2].map(|index| replicas[index].client());
    let one = register(&mut a, "one", "10.0.0.1:7801").await;
    let two = register(&mut b, "two", "10.0.0.2:7801").await;
    // A cookie is valid everywhere, and whoever knows a revision is not answered from before it.
    for client in [&mut a, &mut b, &mut c] {
        let ask = PQueryRequest { min_revision: two.revision, ..PQueryRequest::default() };
        assert_eq!(names(&query(client, &one.cookie, ask).await.unwrap().peers), ["two"]);
        let kept = keep_alive(client, &two.cookie).await.unwrap();
        assert_eq!((kept.name.as_str(), kept.revision), ("two", two.revision));
    }
    // A name is taken everywhere.
    assert_refused(c.register(asking("ONE", "10.0.0.3:7801")).await, Reason::NameTaken);
    // With its cookie its holder takes it again anywhere.
    let again = c.register(with_cookie(asking("one", "10.0.0.9:7801"), &one.cookie)).await.unwrap().into_inner();
    assert_eq!((again.cookie.as_str(), again.peer.unwrap().registration_count), (one.cookie.as_str(), 2));
    // What changed since a revision that another replica gave.
    let left = leave(&mut a, &two.cookie).await.unwrap();
    let ask = PQueryRequest { since_revision: two.revision, min_revision: left, ..PQueryRequest::default() };
    let delta = query(&mut b, &one.cookie, ask).await.unwrap();
    assert!(!delta.start_over && delta.revision >= left);
    assert_eq!(delta.gone.iter().map(|gone| gone.name.as_str()).collect::<Vec<_>>(), ["two"]);
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_one_listing_come_from_different_replicas() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/pages", 2, TTL).await;
    let mut clients = [replicas[0].client(), replicas[1].client()];
    let me = register(&mut clients[0], "me", "10.0.0.1:7801").await;
    let mut latest = 0;
    for number in 0..50 {
        latest = register(&mut clients[number % 2], &format!("p{number}"), "10.0.0.2:7801").await.revision;
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    for page in 0.. {
        let ask = PQueryRequest { page_size: 7, page_token: token, min_revision: latest, ..PQueryRequest::default() };
        let answer = query(&mut clients[page % 2], &me.cookie, ask).await.unwrap();
        seen.extend(answer.peers.into_iter().map(|peer| peer.name));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    seen.sort_unstable();
    let mut expected: Vec<_> = (0..50).map(|number| format!("p{number}")).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_many_ask_for_at_several_replicas_are_given_once() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/race", 3, TTL).await;
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..60 {
        for replica in &replicas {
            let mut client = replica.client();
            asked.spawn(async move { (number, client.register(asking(&format!("n{number}"), "10.0.0.1:7801")).await) });
        }
    }
    let mut given = vec![0; 60];
    while let Some(outcome) = asked.join_next().await {
        match outcome.unwrap() {
            (number, Ok(_)) => given[number] += 1,
            (_, Err(status)) => assert_eq!(Reason::of(&status), Some(Reason::NameTaken), "{status:?}"),
        }
    }
    assert_eq!(given, vec![1; 60]);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_swarm_meet_whichever_replica_they_call() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/swarm", 3, TTL).await;
    let mut clients = [0, 1, 2].map(|index| replicas[index].client());
    let mut cookies = Vec::new();
    let mut latest = 0;
    for (number, client) in clients.iter_mut().enumerate() {
        let registered = register(client, &format!("p{number}"), &format!("10.0.0.{number}:7801")).await;
        cookies.push(registered.cookie);
        latest = registered.revision;
    }
    // Several documents: their swarms are kept by different replicas.
    for document in 0..8_u8 {
        let said = |had| AnnounceRequest { blake3: vec![document; 32].into(), size: 100, had, ..AnnounceRequest::default() };
        let mut members = 0;
        for (client, cookie) in clients.iter_mut().zip(&cookies) {
            let ask = PQueryRequest { min_revision: latest, page_size: 1, ..PQueryRequest::default() };
            query(client, cookie, ask).await.unwrap();
            members = client.announce(with_cookie(said(10), cookie)).await.unwrap().into_inner().members;
        }
        assert_eq!(members, 3, "document {document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_at_one_replica_is_told_what_happens_at_another_and_goes_on_at_a_third() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/watch", 3, TTL).await;
    let [mut a, mut b, mut c] = [0, 1, 2].map(|index| replicas[index].client());
    let me = register(&mut a, "me", "10.0.0.1:7801").await;
    let ask = |since_revision| with_cookie(WatchPeersRequest { since_revision }, &me.cookie);
    let mut watching = b.watch_peers(ask(me.revision)).await.unwrap().into_inner();
    let one = register(&mut a, "one", "10.0.0.1:7801").await;
    let mut told = 0;
    while told < one.revision {
        let message = timeout(PATIENCE, watching.message()).await.unwrap().unwrap().unwrap();
        assert!(!message.start_over);
        told = told.max(message.revision);
    }
    drop(watching);
    let left = leave(&mut c, &one.cookie).await.unwrap();
    let mut watching = c.watch_peers(ask(told)).await.unwrap().into_inner();
    let mut gone = Vec::new();
    while told < left {
        let message = timeout(PATIENCE, watching.message()).await.unwrap().unwrap().unwrap();
        assert!(!message.start_over);
        told = told.max(message.revision);
        gone.extend(message.events().unwrap().into_iter().filter_map(|event| match event.change {
            Some(Change::Left(gone)) => Some(gone.name),
            _ => None,
        }));
    }
    assert_eq!(gone, ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_speak_as_a_replica() {
    use p2pdi::v1::{FindObserverRequest, replica_client::ReplicaClient};
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/stranger", 1, TTL).await;
    let mut client = ReplicaClient::connect(format!("http://{}", replicas[0].address)).await.unwrap();
    let ask = || FindObserverRequest { cookie_hash: vec![1; 16].into() };
    assert_refused(client.find_observer(ask()).await, Reason::ReplicaUnknown);
    let mut guess = tonic::Request::new(ask());
    guess.metadata_mut().insert("p2pdi-replica", "00".repeat(32).parse().unwrap());
    assert_refused(client.find_observer(guess).await, Reason::ReplicaUnknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_later_knows_what_changed_since_a_revision_from_before() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/later", 1, TTL).await;
    let mut a = replicas[0].client();
    let one = register(&mut a, "one", "10.0.0.1:7801").await;
    let two = register(&mut a, "two", "10.0.0.2:7801").await;
    let left = leave(&mut a, &two.cookie).await.unwrap();
    let late = Running::start(over(&etcd, "/later", TTL)).await;
    let mut b = late.client();
    let ask = PQueryRequest { since_revision: one.revision, min_revision: left, ..PQueryRequest::default() };
    let delta = query(&mut b, &one.cookie, ask).await.unwrap();
    assert!(!delta.start_over, "{delta:?}");
    assert_eq!(delta.gone.iter().map(|gone| gone.name.as_str()).collect::<Vec<_>>(), ["two"]);
    late.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_others_cannot_reach_says_so_and_does_not_say_that_it_listens() {
    let Some(etcd) = Etcd::start() else { return };
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_registry"));
    command.env_clear().args([
        "--state",
        "memory",
        "--listen",
        "0.0.0.0:0",
        "--store",
        "etcd",
        "--etcd-endpoints",
        &etcd.endpoints().join(","),
    ]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("its end", || ready(child.try_wait().unwrap())).await;
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--replica-address HOST:PORT"), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_says_in_its_metrics_how_it_is() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/metrics", 2, TTL).await;
    let page = page_at(replicas[0].address, "/metrics").await.unwrap();
    // Those that alerts and the dashboard are about.
    for line in ["p2pdi_registry_replicas 2", "p2pdi_registry_store_reachable 1", "p2pdi_registry_suspects 0"] {
        assert!(page.lines().any(|had| had == line), "{line}: {page}");
    }
    assert!(page.contains("\np2pdi_registry_shards "), "{page}");
}
