//! Calls of operators that need no certificate authority: status, records, backup, restore.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use p2pdi::{
    network::NetworkName,
    status::Reason,
    v1::{
        BackupPart, BackupRequest, GetRegistryStatusRequest, ListRecordsRequest, PQueryRequest, RegistryRecordState,
        RestoreRequest, RestoreResponse, registry_admin_client::RegistryAdminClient,
    },
};
use std::{collections::BTreeMap, time::Duration};
use support::*;
use tonic::{
    Status,
    codegen::tokio_stream,
    transport::{Channel, Endpoint},
};

/// Leases last while thousands of peers register one after the other, each with a write to disk, also on a slow machine.
const TTL: Duration = Duration::from_secs(600);

fn admin(registry: &Running) -> RegistryAdminClient<Channel> {
    RegistryAdminClient::new(Endpoint::from_shared(format!("http://{}", registry.address)).unwrap().connect_lazy())
}

async fn backup(registry: &Running) -> Vec<BackupPart> {
    let mut stream = admin(registry).backup(BackupRequest {}).await.unwrap().into_inner();
    let mut parts = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        parts.push(message.part.unwrap());
    }
    parts
}

async fn restore(registry: &Running, parts: &[BackupPart]) -> Result<RestoreResponse, Status> {
    let requests: Vec<_> = parts.iter().map(|part| RestoreRequest { part: Some(part.clone()) }).collect();
    Ok(admin(registry).restore(tokio_stream::iter(requests)).await?.into_inner())
}

#[tokio::test]
async fn a_backup_restores_peers_with_their_cookies_into_an_empty_registry_and_into_no_other() {
    let (first_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lasting = |folder| registry::Config { ttl: TTL, ..in_folder(folder) };
    let first = Running::start(lasting(first_folder.path())).await;
    let mut client = first.client();
    let mut cookies = BTreeMap::new();
    for number in 0..2_500 {
        let name = format!("p{number}");
        cookies.insert(name.clone(), register(&mut client, &name, "10.0.0.1:7801").await.cookie);
    }
    leave(&mut client, &cookies["p7"]).await.unwrap();
    observe(&mut client, "observer").await;
    let parts = backup(&first).await;
    assert_refused(restore(&first, &parts).await, Reason::NotEmpty);
    first.stop().await;

    let registry = Running::start(lasting(folder.path())).await;
    for cut in 0..parts.len() {
        assert_refused(restore(&registry, &parts[..cut]).await, Reason::InvalidField);
    }
    let status = admin(&registry).get_registry_status(GetRegistryStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.active_peers, status.inactive_peers, status.store.as_str()), (0, 0, "ok"));
    let restored = restore(&registry, &parts).await.unwrap();
    assert_eq!((restored.records, restored.active_peers), (2_500, 2_499));
    assert_refused(restore(&registry, &parts).await, Reason::NotEmpty);
    registry.stop().await;

    // It is on disk, and everybody goes on.
    let registry = Running::start(lasting(folder.path())).await;
    let mut client = registry.client();
    keep_alive(&mut client, &cookies["p8"]).await.unwrap();
    assert_refused(keep_alive(&mut client, &cookies["p7"]).await, Reason::LeaseExpired);
    assert_refused(client.register(asking("p7", "10.0.0.9:1")).await, Reason::NameTaken);
    let seen = query(&mut client, &cookies["p8"], PQueryRequest::default()).await.unwrap();
    assert_eq!(seen.active_peers, 2_499);
    registry.stop().await;
}

#[tokio::test]
async fn a_backup_of_another_network_is_refused() {
    let registry = Running::start(in_memory()).await;
    register(&mut registry.client(), "a", "10.0.0.1:7801").await;
    let parts = backup(&registry).await;
    registry.stop().await;
    let network: NetworkName = "lab".parse().unwrap();
    let registry = Running::start(registry::Config { network, ..in_memory() }).await;
    assert_refused(restore(&registry, &parts).await, Reason::WrongNetwork);
    registry.stop().await;
}

#[tokio::test]
async fn an_operator_sees_records_that_peers_are_not_shown() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    register(&mut client, "a", "10.0.0.1:7801").await;
    let gone = register(&mut client, "gone", "10.0.0.2:7801").await;
    leave(&mut client, &gone.cookie).await.unwrap();
    observe(&mut client, "observer").await;
    let list = async |name: &str| {
        let mut stream = admin(&registry).list_records(ListRecordsRequest { name: name.into() }).await.unwrap().into_inner();
        let mut records = Vec::new();
        while let Some(page) = stream.message().await.unwrap() {
            records.extend(page.records.into_iter().map(|record| {
                let remaining = record.remaining.unwrap().seconds;
                assert_eq!(record.registered_from, "127.0.0.1");
                (record.name.clone(), record.state(), remaining)
            }));
        }
        records.sort();
        records
    };
    let records = list("").await;
    let states: Vec<_> = records.iter().map(|(name, state, _)| (name.as_str(), *state)).collect();
    assert_eq!(
        states,
        [
            ("a", RegistryRecordState::Active),
            ("gone", RegistryRecordState::Inactive),
            ("observer", RegistryRecordState::Observer)
        ]
    );
    assert!((540..=600).contains(&records[1].2), "its name is reserved: {records:?}");
    assert_eq!(list("O*").await.len(), 1);
    let status = admin(&registry).get_registry_status(GetRegistryStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.active_peers, status.inactive_peers, status.observers), (1, 1, 1));
    assert_eq!((status.network.as_str(), status.unwritten), ("default", 0));
    registry.stop().await;
}
