//! Replicas that are one certificate authority together.

use super::three::over;
use crate::{etcd::Etcd, support::*};
use p2pdi::{
    channel::{Channel, Dial},
    endpoint::Endpoint,
    enrol::{EnrolError, Enrolment, Joining},
    status::Reason,
    tls::{ClientAuth, Expected, Tls},
    token::JoinToken,
    v1::{
        CreateTokenRequest, ListTokensRequest, PQueryRequest, RegisterResponse, RevokeNameRequest, RotateAuthorityRequest,
        registry_admin_client::RegistryAdminClient, registry_client::RegistryClient,
    },
};
use registry::{
    AuthorityConfig, Config, Registry,
    ca::{Authority, CaSettings, operator_of_folder},
};
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant, SystemTime},
};
use tempfile::TempDir;
use tonic::Code;

/// So long that a busy machine does not end a lease.
const TTL: Duration = Duration::from_secs(8);

/// Replicas with one key, each in a process' worth of its own.
struct World {
    folder: TempDir,
    etcd: Etcd,
    replicas: Vec<Running>,
}

impl World {
    /// `None` where etcd is missing.
    async fn start() -> Option<Self> {
        let (folder, etcd) = (tempfile::tempdir().unwrap(), Etcd::start()?);
        drop(Authority::open(&folder.path().join("ca"), CaSettings::default(), SystemTime::now()).unwrap());
        let mut world = Self { folder, etcd, replicas: Vec::new() };
        for _ in 0..2 {
            world.replicas.push(Running::start(world.config()).await);
        }
        Some(world)
    }

    fn config(&self) -> Config {
        let authority = AuthorityConfig { folder: self.folder.path().join("ca"), settings: CaSettings::default() };
        Config { authority: Some(authority), ..over(&self.etcd, "/authority", TTL) }
    }

    fn address(&self, replica: usize) -> SocketAddr {
        self.replicas[replica].address
    }

    /// A client with the certificate of an operator.
    fn admin(&self, replica: usize) -> RegistryAdminClient<Channel> {
        let pem = operator_of_folder(&self.folder.path().join("ca"), SystemTime::now()).unwrap();
        RegistryAdminClient::new(dial(&Tls::from_pem(pem, ClientAuth::Required).unwrap(), self.address(replica)))
    }

    /// A token made at one replica, for use at another.
    async fn token(&self, name: &str, made_at: usize, used_at: usize) -> JoinToken {
        let addresses = vec![self.address(used_at).to_string()];
        let request = CreateTokenRequest { name: name.into(), addresses, ..Default::default() };
        self.admin(made_at).create_token(request).await.unwrap().into_inner().token.parse().unwrap()
    }

    async fn join(&self, folder: &str, token: &JoinToken) -> Result<Enrolment, EnrolError> {
        let auth = ClientAuth::Required;
        let joining = Joining { token: token.clone(), name: None, name_default: None, from: None, auth, is_peer: true };
        Enrolment::join(&self.folder.path().join(folder), &joining).await
    }

    fn client(&self, joined: &Enrolment, replica: usize) -> RegistryClient<Channel> {
        RegistryClient::new(dial(joined.tls(), self.address(replica)))
    }

    async fn stop(self) {
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}

fn dial(tls: &Tls, address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from(address);
    Dial::with(Some(tls.clone())).lazy(std::slice::from_ref(&endpoint), Expected::Registry(endpoint.clone()))
}

async fn register(client: &mut RegistryClient<Channel>, name: &str) -> RegisterResponse {
    // A replica that takes over shards answers in a moment.
    eventually("a registration", async || client.clone().register(asking(name, "127.0.0.1:7801")).await.ok()).await.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_replica_makes_a_peer_at_another_and_at_all() {
    let Some(world) = World::start().await else { return };
    let mut peers = Vec::new();
    for number in 0..8 {
        let name = format!("fff-{number}");
        let token = world.token(&name, number % 2, (number + 1) % 2).await;
        let joined = world.join(&name, &token).await.unwrap();
        let again = world.join("another-machine", &token).await.err().unwrap();
        assert_eq!(again.reason(), Some(Reason::TokenRefused));
        let cookie = register(&mut world.client(&joined, 0), &name).await.cookie;
        peers.push((joined, cookie));
    }
    assert_eq!(world.admin(1).list_tokens(ListTokensRequest {}).await.unwrap().into_inner().tokens.len(), 8);
    // Replicas pass KeepAlives on to each other with the certificates that they gave themselves.
    let until = Instant::now() + 2 * TTL;
    while Instant::now() < until {
        for (number, (joined, cookie)) in peers.iter().enumerate() {
            keep_alive_at(&mut world.client(joined, number % 2), cookie).await;
        }
        tokio::time::sleep(TTL / 8).await;
    }
    for replica in 0..2 {
        let (joined, cookie) = &peers[0];
        let mut client = world.client(joined, replica);
        let answer = client.p_query(with_cookie(PQueryRequest::default(), cookie)).await.unwrap().into_inner();
        assert_eq!(answer.peers.len(), 7, "all others, at {replica}");
    }
    world.stop().await;
}

async fn keep_alive_at(client: &mut RegistryClient<Channel>, cookie: &str) {
    eventually("a KeepAlive", async || {
        let request = with_cookie(p2pdi::v1::KeepAliveRequest::default(), cookie);
        match client.clone().keep_alive(request).await {
            Ok(_) => Some(()),
            // The replica that keeps the lease cannot be reached now.
            Err(status) if status.code() == Code::Unavailable => None,
            Err(status) => panic!("{status:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_at_one_replica_is_refused_by_all_also_after_they_were_all_started_again() {
    let Some(mut world) = World::start().await else { return };
    let joined = world.join("fff-c", &world.token("fff-c", 0, 1).await).await.unwrap();
    for replica in 0..2 {
        world.client(&joined, replica).get_trust(p2pdi::v1::GetTrustRequest::default()).await.unwrap();
    }
    let answer = world.admin(0).revoke_name(RevokeNameRequest { name: "fff-c".into() }).await.unwrap().into_inner();
    assert_eq!(answer.certificates, 1);
    let refused = async |world: &World, replica: usize| {
        eventually("the certificate is refused", async || {
            let mut client = world.client(&joined, replica);
            client.get_trust(p2pdi::v1::GetTrustRequest::default()).await.is_err().then_some(())
        })
        .await;
    };
    let revoked_at = Instant::now();
    refused(&world, 1).await;
    assert!(revoked_at.elapsed() < TTL, "{:?}", revoked_at.elapsed());
    refused(&world, 0).await;
    for replica in std::mem::take(&mut world.replicas) {
        replica.stop().await;
    }
    for _ in 0..2 {
        world.replicas.push(Running::start(world.config()).await);
    }
    for replica in 0..2 {
        refused(&world, replica).await;
        let gone = world.token("fff-c", replica, replica).await;
        let folder = format!("anew-{replica}");
        assert!(world.join(&folder, &gone).await.is_ok(), "its owner may join anew");
    }
    let rotated = world.admin(0).rotate_authority(RotateAuthorityRequest {}).await;
    let text = assert_refused(rotated, Reason::NoAuthority).message().to_owned();
    assert!(text.contains("p2pctl ca rotate --ca DIR"), "{text}");
    world.stop().await;
}

#[test]
fn a_folder_without_a_key_is_refused_before_anything_is_shared() {
    let Some(etcd) = Etcd::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let authority = AuthorityConfig { folder: folder.path().to_owned(), settings: CaSettings::default() };
    let config = Config { authority: Some(authority), ..over(&etcd, "/without", TTL) };
    let error = registry::Registry::open(&config).err().unwrap();
    assert!(error.to_string().contains("holds no certificate authority"), "{error}");
    assert_eq!(files(folder.path()), 0);
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_tls_is_no_fellow_of_an_authority() {
    let Some(world) = World::start().await else { return };
    let config = over(&world.etcd, "/authority", TTL);
    let open = move || Registry::open(&config).map(drop).unwrap_err().to_string();
    let error = tokio::task::spawn_blocking(open).await.unwrap();
    assert!(error.contains("are a certificate authority"), "{error}");
    world.stop().await;
}
