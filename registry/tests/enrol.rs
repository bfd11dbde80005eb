//! Joining with tokens, against the real program: used twice, expired, revoked, somebody in between, kills at any moment.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use p2pdi::{
    channel::{Channel, Dial},
    enrol::{EnrolError, Enrolment, Joining, Trusted},
    name::PeerName,
    status::Reason,
    tls::{ClientAuth, Expected, Tls},
    token::{CaHash, JoinToken},
    v1::{
        CreateTokenRequest, FreeNameRequest, GetTrustRequest, ListTokensRequest, RevokeNameRequest, RevokeTokenRequest,
        registry_admin_client::RegistryAdminClient, registry_client::RegistryClient,
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use registry::ca::operator_of_folder;
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::{Duration, SystemTime},
};
use support::*;
use tempfile::TempDir;
use tonic::Status;

/// A registry that is a certificate authority, with its folders.
struct World {
    folder: TempDir,
    life: &'static str,
    registry: Option<Program>,
}

impl World {
    fn start() -> Self {
        Self::with_life("24h")
    }

    fn with_life(life: &'static str) -> Self {
        let mut world = Self { folder: tempfile::tempdir().unwrap(), life, registry: None };
        world.restart();
        world
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca")
    }

    fn command(&self) -> std::process::Command {
        let mut command = command(&self.folder.path().join("state"));
        command.arg("--ca").arg(self.ca()).args(["--certificate-life", self.life]);
        command
    }

    /// Starts it, after a kill if it runs.
    fn restart(&mut self) {
        if let Some(running) = self.registry.take() {
            running.kill();
        }
        self.registry = Some(Program::spawn(self.command()));
    }

    fn address(&self) -> SocketAddr {
        self.registry.as_ref().unwrap().address
    }

    /// A client with the certificate of an operator.
    fn admin(&self) -> RegistryAdminClient<Channel> {
        let pem = operator_of_folder(&self.ca(), SystemTime::now()).unwrap();
        RegistryAdminClient::new(dial(&Tls::from_pem(pem, ClientAuth::Required).unwrap(), self.address()))
    }

    async fn token_with(&self, request: CreateTokenRequest) -> JoinToken {
        let request = CreateTokenRequest { addresses: vec![self.address().to_string()], ..request };
        self.admin().create_token(request).await.unwrap().into_inner().token.parse().unwrap()
    }

    async fn token(&self, name: &str) -> JoinToken {
        self.token_with(CreateTokenRequest { name: name.into(), ..Default::default() }).await
    }

    /// A peer's folder.
    fn peer(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn join(&self, folder: &str, token: &JoinToken) -> Result<Enrolment, EnrolError> {
        Enrolment::join(&self.peer(folder), &joining(token)).await
    }
}

fn joining(token: &JoinToken) -> Joining {
    Joining { token: token.clone(), name: None, name_default: None, from: None, auth: ClientAuth::Required, is_peer: false }
}

fn dial(tls: &Tls, address: SocketAddr) -> Channel {
    let endpoint = p2pdi::endpoint::Endpoint::from(address);
    Dial::with(Some(tls.clone())).lazy(std::slice::from_ref(&endpoint), Expected::Registry(endpoint.clone()))
}

fn client_of(enrolment: &Enrolment, address: SocketAddr) -> RegistryClient<Channel> {
    RegistryClient::new(dial(enrolment.tls(), address))
}

#[track_caller]
fn refused(outcome: Result<Enrolment, EnrolError>) -> (Option<Reason>, String) {
    let error = outcome.expect_err("a refusal");
    (error.reason(), error.to_string())
}

#[tokio::test]
async fn a_token_makes_a_peer_whose_certificate_the_registry_accepts() {
    let world = World::start();
    let token = world.token("fff-c").await;
    let joined = world.join("peer", &token).await.unwrap();
    let identity = joined.identity().unwrap();
    assert_eq!(identity.names(), ["fff-c".parse::<PeerName>().unwrap()]);
    assert_eq!(joined.registries(), [world.address().into()]);
    let mut client = client_of(&joined, world.address());
    let answer = client.register(asking("fff-c", "127.0.0.1:7801")).await.unwrap().into_inner();
    assert!(answer.trust_revision > 0);
    // Again, as at the next start: the stored certificate, and no further use of the token.
    let again = world.join("peer", &token).await.unwrap();
    assert_eq!(again.identity().unwrap().serial(), identity.serial());
    let listed = world.admin().list_tokens(ListTokensRequest {}).await.unwrap().into_inner().tokens;
    assert_eq!((listed.len(), listed[0].used), (1, 1));
}

#[tokio::test]
async fn a_peer_whose_stored_certificates_are_damaged_gets_new_ones_with_its_key() {
    let world = World::start();
    let token = world.token("fff-c").await;
    world.join("peer", &token).await.unwrap();
    for file in ["certificate.pem", "ca.pem", "token-id", "registries", "revoked"] {
        for content in [&b""[..], b"rubbish", b"\xff\xfe\x00"] {
            std::fs::write(world.peer("peer").join(file), content).unwrap();
            let joined = world.join("peer", &token).await.unwrap_or_else(|error| panic!("{file}, {content:?}: {error}"));
            assert_eq!(joined.identity().unwrap().names(), ["fff-c".parse::<PeerName>().unwrap()]);
        }
    }
    let listed = world.admin().list_tokens(ListTokensRequest {}).await.unwrap().into_inner().tokens;
    assert_eq!(listed[0].used, 1);
    // The key is what the name is given to: without it the peer is another one.
    let key = world.peer("peer").join("key.pem");
    std::fs::write(&key, "rubbish").unwrap();
    let (_, error) = refused(world.join("peer", &token).await);
    assert!(error.contains("key.pem") && error.contains("move it away"), "{error}");
}

#[tokio::test]
async fn a_caller_without_a_certificate_may_enrol_and_nothing_else() {
    let world = World::start();
    let (ca, address) = (fs::read(world.ca().join("ca.pem")).unwrap(), world.address());
    let nobody = Tls::from_pem(p2pdi::tls::Pem { cert: None, key: None, ca }, ClientAuth::Required).unwrap();
    let mut client = RegistryClient::new(dial(&nobody, address));
    assert_refused(client.register(asking("a", "127.0.0.1:7801")).await, Reason::CertificateMissing);
    assert_refused(client.get_trust(GetTrustRequest::default()).await, Reason::CertificateMissing);
    assert_refused(client.enroll(p2pdi::v1::EnrollRequest::default()).await, Reason::InvalidField);
    let mut admin = RegistryAdminClient::new(dial(&nobody, address));
    assert_refused(admin.list_tokens(ListTokensRequest {}).await, Reason::CertificateMissing);
    // A peer is no operator.
    let peer = world.join("peer", &world.token("a").await).await.unwrap();
    let free = FreeNameRequest { name: "a".into() };
    assert_refused(client_of(&peer, address).free_name(free).await, Reason::OperatorOnly);
    let mut admin = RegistryAdminClient::new(dial(peer.tls(), address));
    assert_refused(admin.list_tokens(ListTokensRequest {}).await, Reason::OperatorOnly);
    assert_refused(admin.revoke_name(RevokeNameRequest { name: "a".into() }).await, Reason::OperatorOnly);
}

#[tokio::test]
async fn a_used_an_expired_a_revoked_and_an_unknown_token_are_refused_with_what_is_wrong() {
    let world = World::start();
    let used = world.token("a").await;
    world.join("first", &used).await.unwrap();
    let (reason, text) = refused(world.join("second", &used).await);
    assert_eq!(reason, Some(Reason::TokenRefused));
    assert!(text.contains("was used already, 1 of 1 times"), "{text}");

    let short =
        CreateTokenRequest { name: "b".into(), ttl: Some(prost_types::Duration { seconds: 1, nanos: 0 }), ..Default::default() };
    let expired = world.token_with(short).await;
    eventually("the token expires", || async {
        match world.join("third", &expired).await {
            Err(error) => error.to_string().contains("expired").then_some(()),
            Ok(_) => fs::remove_dir_all(world.peer("third")).ok().and(None),
        }
    })
    .await;

    let revoked = world.token("c").await;
    let id = revoked.secret.hash().id();
    world.admin().revoke_token(RevokeTokenRequest { id }).await.unwrap();
    let (reason, text) = refused(world.join("fourth", &revoked).await);
    assert!(reason == Some(Reason::TokenRefused) && text.contains("was revoked"), "{text}");

    let unknown = JoinToken { secret: p2pdi::token::TokenSecret::from_bytes([7; 16]), ..used };
    let (reason, text) = refused(world.join("fifth", &unknown).await);
    assert!(reason == Some(Reason::TokenRefused) && text.contains("does not know the token"), "{text}");
    let missing = world.admin().revoke_token(RevokeTokenRequest { id: "00000000".into() }).await;
    assert_refused(missing, Reason::TokenUnknown);
}

#[tokio::test]
async fn a_name_that_is_not_the_tokens_is_refused_and_one_of_a_pattern_is_the_hosts() {
    let world = World::start();
    let token = world.token("a").await;
    let other = Joining { name: Some("b".parse().unwrap()), ..joining(&token) };
    let (reason, text) = refused(Enrolment::join(&world.peer("peer"), &other).await);
    assert!(reason == Some(Reason::NameNotYours) && text.contains("join with a token for b"), "{text}");
    let many = world.token_with(CreateTokenRequest { name: "gpu-*".into(), uses: 2, ..Default::default() }).await;
    let (reason, text) = refused(world.join("gpu", &many).await);
    assert!(reason == Some(Reason::InvalidField) && text.contains("--name"), "{text}");
    let host = Joining { name_default: Some("gpu-7".parse().unwrap()), ..joining(&many) };
    let joined = Enrolment::join(&world.peer("gpu"), &host).await.unwrap();
    assert_eq!(joined.identity().unwrap().name().unwrap().as_str(), "gpu-7");
    let (reason, _) = refused(Enrolment::join(&world.peer("another"), &host).await);
    assert_eq!(reason, Some(Reason::NameTaken));
}

#[tokio::test]
async fn somebody_in_between_is_recognised_and_gets_no_secret() {
    let (world, other) = (World::start(), World::start());
    let token = world.token("a").await;
    // The address leads to another registry, with an authority of its own.
    let led_astray = JoinToken { registries: vec![other.address().into()], ..token.clone() };
    let (reason, text) = refused(world.join("peer", &led_astray).await);
    assert_eq!(reason, None);
    assert!(text.contains("is not the registry of the token") && text.contains("intercepting"), "{text}");
    // One that sends along the right authority, which is public, has no certificate of it.
    let pretending = JoinToken { ca: CaHash::of(b"nobody's"), ..token.clone() };
    assert!(matches!(world.join("peer", &pretending).await, Err(EnrolError::WrongAuthority { .. })));
    // Nothing was used up.
    world.join("peer", &token).await.unwrap();
    let plain = Running::start(in_memory()).await;
    let to_plain = JoinToken { registries: vec![plain.address.into()], ..token };
    let (_, text) = refused(world.join("another", &to_plain).await);
    assert!(text.contains("does not speak TLS"), "{text}");
    plain.stop().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_for_ever_and_the_registrys_own_too() {
    let world = World::with_life("3s");
    let joined = world.join("peer", &world.token("a").await).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let renewing = tokio::spawn(joined.clone().keep_renewed(stop.clone()));
    let mut serials = std::collections::BTreeSet::new();
    let mut client = client_of(&joined, world.address());
    let cookie = client.register(asking("a", "127.0.0.1:7801")).await.unwrap().into_inner().cookie;
    eventually("five certificates", || {
        serials.insert(joined.identity().unwrap().serial().clone());
        // On a new connection, with whatever certificates there are now.
        let mut client = client_of(&joined, world.address());
        let (cookie, count) = (cookie.clone(), serials.len());
        async move {
            client.keep_alive(with_cookie(Default::default(), &cookie)).await.unwrap();
            (count >= 5).then_some(())
        }
    })
    .await;
    stop.cancel();
    renewing.await.unwrap();
    // One that has ended is renewed with its key.
    eventually("its end", || async { (joined.identity().unwrap().not_after() < SystemTime::now()).then_some(()) }).await;
    let stored = Enrolment::stored(&world.peer("peer"), None, ClientAuth::Required).unwrap().unwrap();
    stored.renew().await.unwrap();
    assert!(stored.identity().unwrap().not_after() > SystemTime::now());
}

#[tokio::test]
async fn a_revoked_name_is_refused_at_once_and_cannot_renew() {
    let world = World::start();
    let token = world.token("a").await;
    let (joined, other) =
        (world.join("peer", &token).await.unwrap(), world.join("other", &world.token("b").await).await.unwrap());
    let mut client = client_of(&joined, world.address());
    client.register(asking("a", "127.0.0.1:7801")).await.unwrap();
    let revision = world.admin().revoke_name(RevokeNameRequest { name: "A".into() }).await.unwrap().into_inner().revision;
    assert!(client_of(&joined, world.address()).register(asking("a", "127.0.0.1:7801")).await.is_err(), "on a new connection");
    assert!(joined.renew().await.is_err());
    let (reason, _) = refused(world.join("peer-2", &token).await);
    assert_eq!(reason, Some(Reason::TokenRefused));
    // Others hear of it.
    let trusted = Trusted::new(other.tls().clone(), Some(other.clone()));
    let trust =
        client_of(&other, world.address()).get_trust(GetTrustRequest::default()).await.unwrap().into_inner().trust.unwrap();
    trusted.take(&trust, SystemTime::now());
    assert_eq!(trusted.revision(), revision);
    let chain = joined.identity().unwrap().chain().to_vec();
    assert!(other.tls().check(chain, SystemTime::now()).unwrap_err().to_string().contains("revoked"));
    // Also after a restart, while the registry is away.
    let stored = Enrolment::stored(&world.peer("other"), None, ClientAuth::Required).unwrap().unwrap();
    let restarted = Trusted::new(stored.tls().clone(), Some(stored.clone()));
    assert_eq!(restarted.revision(), 0, "it asks for the whole list");
    let chain = joined.identity().unwrap().chain().to_vec();
    assert!(stored.tls().check(chain, SystemTime::now()).unwrap_err().to_string().contains("revoked"));
    let unknown = world.admin().revoke_name(RevokeNameRequest { name: "nobody".into() }).await;
    assert_refused(unknown, Reason::NameUnknown);
    // A new token gives the name back.
    world.join("peer-3", &world.token("a").await).await.unwrap();
}

#[tokio::test]
async fn after_a_rotation_old_and_new_certificates_work_together() {
    let world = World::start();
    let old = world.join("old", &world.token("old").await).await.unwrap();
    let early = world.token("early").await;
    world.admin().rotate_authority(p2pdi::v1::RotateAuthorityRequest {}).await.unwrap();
    let new = world.join("new", &world.token("new").await).await.unwrap();
    world.join("early", &early).await.unwrap();
    for (checks, shown) in [(&old, &new), (&new, &old)] {
        let chain = shown.identity().unwrap().chain().to_vec();
        checks.tls().check(chain, SystemTime::now()).unwrap();
    }
    client_of(&old, world.address()).register(asking("old", "127.0.0.1:7801")).await.unwrap();
    client_of(&new, world.address()).register(asking("new", "127.0.0.1:7802")).await.unwrap();
    old.renew().await.unwrap();
}

/// Joins, whatever happens to the registry meanwhile.
async fn join_through(folder: PathBuf, token: JoinToken) -> Enrolment {
    let (folder, token) = (&folder, &token);
    eventually("it joins", || async move {
        match Enrolment::join(folder, &joining(token)).await {
            Ok(joined) => Some(joined),
            Err(error) => {
                assert!(error.is_passing(), "{error}");
                None
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_the_registry_at_any_moment_of_an_enrolment_costs_no_token() {
    const ROUNDS: u64 = 12;
    let mut world = World::start();
    let mut random = StdRng::seed_from_u64(0xca);
    // The same address after each start: the token names it.
    let port = world.address().port();
    let restart = |world: &mut World| {
        if let Some(running) = world.registry.take() {
            running.kill();
        }
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_registry"));
        command.env_clear().arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--state");
        command.arg(world.folder.path().join("state")).arg("--ca").arg(world.ca());
        world.registry = Some(Program::spawn(command));
    };
    for round in 0..ROUNDS {
        let token = world.token(&format!("peer-{round}")).await;
        let joining = tokio::spawn(join_through(world.peer(&format!("peer-{round}")), token));
        tokio::time::sleep(Duration::from_micros(random.random_range(0..40_000))).await;
        restart(&mut world);
        let joined = tokio::time::timeout(PATIENCE, joining).await.expect("it joins").unwrap();
        client_of(&joined, world.address()).register(asking(&format!("peer-{round}"), "127.0.0.1:7801")).await.unwrap();
    }
    let tokens = world.admin().list_tokens(ListTokensRequest {}).await.unwrap().into_inner().tokens;
    assert!(tokens.len() as u64 == ROUNDS && tokens.iter().all(|token| token.used == 1), "{tokens:?}");
}

#[tokio::test]
async fn a_first_start_killed_at_any_moment_can_be_repeated() {
    let mut random = StdRng::seed_from_u64(0xca2);
    for _ in 0..25 {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        let mut command = command(&folder.path().join("state"));
        command.arg("--ca").arg(&ca);
        let mut first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_micros(random.random_range(1_000..40_000))).await;
        first.kill().unwrap();
        first.wait().unwrap();
        let mut again = support::command(&folder.path().join("state"));
        again.arg("--ca").arg(&ca);
        let registry = Program::spawn(again);
        assert!(operator_of_folder(&ca, SystemTime::now()).is_ok());
        registry.kill();
    }
}

#[tokio::test]
async fn a_registry_without_an_authority_says_so() {
    let registry = Running::start(in_memory()).await;
    assert_refused(registry.client().enroll(p2pdi::v1::EnrollRequest::default()).await, Reason::NoAuthority);
    let channel = p2pdi::channel::lazy(&registry.address.into());
    let listed: Result<_, Status> = RegistryAdminClient::new(channel).list_tokens(ListTokensRequest {}).await;
    assert_refused(listed, Reason::NoAuthority);
    registry.stop().await;
}
