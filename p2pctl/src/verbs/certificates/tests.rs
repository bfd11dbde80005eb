//! With an API server in this process.

use super::*;
use crate::kubernetes::server::Server;
use p2pdi::tls::{ClientAuth, Tls};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const REGISTRY: &str = "p2pdi-registry-tls";
const PEERS: &str = "p2pdi-peer-tls";
const TEST: &str = "p2pdi-test-tls";
const CA: &str = "p2pdi-ca";

/// Of three peers.
fn arguments() -> InKubernetes {
    InKubernetes {
        ca_secret: CA.to_owned(),
        registry_secret: Some(REGISTRY.to_owned()),
        hosts: vec!["p2pdi-registry".to_owned(), "p2pdi-registry.p2pdi".to_owned()],
        peers: vec![format!("{TEST}=p2pdi-test").parse().unwrap()],
        sets: vec![format!("{PEERS}=p2pdi-peer:3").parse().unwrap()],
        life: 30 * DAY,
        rotate_after: 365 * DAY,
        labels: vec![("app.kubernetes.io/name".to_owned(), "p2pdi".to_owned())],
    }
}

async fn keep_at(server: &Server, args: &InKubernetes, now: SystemTime) -> Outcome<Vec<Kept>> {
    keep_in(&server.api(), args, &NetworkName::default(), now).await
}

fn made(kept: &[Kept]) -> Vec<(&str, bool, usize)> {
    kept.iter().map(|kept| (kept.secret.as_str(), kept.is_new, kept.made)).collect()
}

/// The certificate that a Secret holds, checked as a program of the network does.
fn checked(server: &Server, secret: &str, cert: &str, key: &str) -> Identity {
    let (cert, key, ca) = (server.text(secret, cert), server.text(secret, key), server.text(secret, TLS_CA));
    let pem = Pem { cert: Some(cert.clone().into()), key: Some(key.into()), ca: ca.into() };
    Tls::from_pem(pem, ClientAuth::Required).unwrap();
    identity(&cert).unwrap()
}

#[tokio::test]
async fn the_first_run_makes_all_and_the_next_one_writes_nothing() {
    let (server, args, now) = (Server::start().await, arguments(), SystemTime::now());
    let kept = keep_at(&server, &args, now).await.unwrap();
    assert_eq!(made(&kept), [(CA, true, 1), (REGISTRY, true, 1), (TEST, true, 1), (PEERS, true, 3)]);
    let registry = checked(&server, REGISTRY, TLS_CERT, TLS_KEY);
    assert!(registry.is_registry() && registry.is_for_host("p2pdi-registry.p2pdi"), "{registry}");
    let peer = checked(&server, PEERS, "p2pdi-peer-2.crt", "p2pdi-peer-2.key");
    assert_eq!((peer.names(), peer.network()), (&["p2pdi-peer-2".parse().unwrap()][..], Some("default")));
    assert_eq!(checked(&server, TEST, TLS_CERT, TLS_KEY).name().unwrap().as_str(), "p2pdi-test");
    let secrets = server.state.lock().unwrap().secrets.clone();
    for secret in secrets.values() {
        assert_eq!(secret["metadata"]["labels"], json!({ MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/name": "p2pdi" }));
    }
    // Only the authority's Secret has its key.
    let key = server.text(CA, "ca-1.pem");
    let key = key.lines().nth(1).unwrap();
    assert!(!server.text(PEERS, TLS_CA).contains(key) && !server.text(CA, TLS_CA).contains(key));

    server.state.lock().unwrap().calls.clear();
    let kept = keep_at(&server, &args, now + DAY).await.unwrap();
    assert_eq!(made(&kept), [(CA, false, 0), (REGISTRY, false, 0), (TEST, false, 0), (PEERS, false, 0)]);
    let state = server.state.lock().unwrap();
    assert!(state.calls.iter().all(|call| call.starts_with("GET ")), "{:?}", state.calls);
    assert_eq!(state.secrets, secrets);
}

#[tokio::test]
async fn a_certificate_is_made_anew_after_two_thirds_of_its_life_or_when_it_does_not_fit() {
    let (server, mut args, now) = (Server::start().await, arguments(), SystemTime::now());
    keep_at(&server, &args, now).await.unwrap();
    let ca = server.text(CA, TLS_CA);
    let kept = keep_at(&server, &args, now + 19 * DAY).await.unwrap();
    assert!(kept.iter().all(|kept| kept.made == 0), "{kept:?}");
    let kept = keep_at(&server, &args, now + 20 * DAY).await.unwrap();
    assert_eq!(made(&kept)[1..], [(REGISTRY, false, 1), (TEST, false, 1), (PEERS, false, 3)]);
    assert_eq!(server.text(CA, TLS_CA), ca, "the authority stays");

    // More peers, another host, a shorter life: each concerns its own Secrets.
    let now = now + 20 * DAY;
    let third = server.text(PEERS, "p2pdi-peer-2.crt");
    args.sets = vec![format!("{PEERS}=p2pdi-peer:4").parse().unwrap()];
    args.hosts.push("registry.example.org".to_owned());
    let kept = keep_at(&server, &args, now).await.unwrap();
    assert_eq!(made(&kept)[1..], [(REGISTRY, false, 1), (TEST, false, 0), (PEERS, false, 1)]);
    assert_eq!(server.text(PEERS, "p2pdi-peer-2.crt"), third);
    args.life = DAY;
    let kept = keep_at(&server, &args, now).await.unwrap();
    assert_eq!(made(&kept)[1..], [(REGISTRY, false, 1), (TEST, false, 1), (PEERS, false, 4)]);
    // Fewer: their keys go.
    args.sets = vec![format!("{PEERS}=p2pdi-peer:1").parse().unwrap()];
    keep_at(&server, &args, now).await.unwrap();
    let data = server.state.lock().unwrap().secrets[PEERS]["data"].clone();
    assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), ["ca.crt", "p2pdi-peer-0.crt", "p2pdi-peer-0.key"]);
}

#[tokio::test]
async fn an_old_authority_gets_a_new_key_which_both_sides_trust_and_a_lost_one_makes_all_anew() {
    let (server, args, now) = (Server::start().await, arguments(), SystemTime::now());
    keep_at(&server, &args, now).await.unwrap();
    let (old_ca, now) = (server.text(REGISTRY, TLS_CA), now + 365 * DAY);
    let kept = keep_at(&server, &args, now).await.unwrap();
    assert_eq!(made(&kept), [(CA, false, 1), (REGISTRY, false, 1), (TEST, false, 1), (PEERS, false, 3)]);
    let ca = server.text(REGISTRY, TLS_CA);
    assert!(ca.contains(old_ca.trim()) && ca.len() > old_ca.len(), "both are trusted");
    // The new certificate comes with the new authority's, which the old one signed.
    assert_eq!(server.text(PEERS, "p2pdi-peer-0.crt").matches("BEGIN CERTIFICATE").count(), 2);
    assert!(!server.text(CA, "ca-1.pem").contains("PRIVATE KEY") && server.text(CA, "ca-2.pem").contains("PRIVATE KEY"));
    // A month later the old one is forgotten, and the certificates are due.
    keep_at(&server, &args, now + 31 * DAY).await.unwrap();
    assert!(!server.text(REGISTRY, TLS_CA).contains(old_ca.trim()));

    server.state.lock().unwrap().secrets.remove(CA);
    let kept = keep_at(&server, &args, now + 31 * DAY).await.unwrap();
    assert_eq!(made(&kept), [(CA, true, 1), (REGISTRY, false, 1), (TEST, false, 1), (PEERS, false, 3)]);
}

#[tokio::test]
async fn another_run_at_the_same_time_is_read_again_and_secrets_of_others_are_left() {
    let (server, args, now) = (Server::start().await, arguments(), SystemTime::now());
    server.state.lock().unwrap().conflicts = 3;
    keep_at(&server, &args, now).await.unwrap();
    server.state.lock().unwrap().conflicts = 1_000;
    let failure = keep_at(&server, &args, now + 25 * DAY).await.unwrap_err();
    assert!(failure.to_string().contains("somebody else writes Secret"), "{failure}");
    server.state.lock().unwrap().conflicts = 0;
    let theirs = json!({ "metadata": { "name": TEST, "resourceVersion": "7" }, "data": { "password": "c2VjcmV0" } });
    server.state.lock().unwrap().secrets.insert(TEST.to_owned(), theirs.clone());
    let failure = keep_at(&server, &args, now).await.unwrap_err().to_string();
    assert!(failure.contains("did not make it") && !failure.contains("secret\""), "{failure}");
    assert_eq!(server.state.lock().unwrap().secrets[TEST], theirs);
}

#[tokio::test]
async fn refusals_say_what_the_account_needs_and_no_secret_is_in_any_text() {
    let (server, args, now) = (Server::start().await, arguments(), SystemTime::now());
    server.state.lock().unwrap().forbids = true;
    let failure = keep_at(&server, &args, now).await.unwrap_err().to_string();
    assert!(failure.contains("forbidden") && failure.contains("Role"), "{failure}");
    fs::write(server.account.folder.join("token"), "another").unwrap();
    let failure = keep_at(&server, &args, now).await.unwrap_err().to_string();
    assert!(failure.contains("does not accept the token") && !failure.contains("another"), "{failure}");
    // A server of another CA gets no token.
    let other = Server::start().await;
    fs::copy(other.account.folder.join("ca.crt"), server.account.folder.join("ca.crt")).unwrap();
    server.state.lock().unwrap().calls.clear();
    let failure = keep_at(&server, &args, now).await.unwrap_err().to_string();
    assert!(failure.contains("certificate") && server.state.lock().unwrap().calls.is_empty(), "{failure}");
    keep_at(&other, &args, now).await.unwrap();
    let secret = other.api().secret(CA).await.unwrap().unwrap();
    assert!(!format!("{secret:?}").contains("PRIVATE"), "{secret:?}");
    let twice = InKubernetes { ca_secret: TEST.to_owned(), ..arguments() };
    assert!(keep_at(&other, &twice, now).await.unwrap_err().to_string().contains("given twice"));
}

#[test]
fn a_peer_gets_its_own_certificate_and_no_other_key() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (file, text) in [("a-0.crt", "0"), ("a-0.key", "k0"), ("a-1.crt", "1"), ("a-1.key", "k1"), ("ca.crt", "ca")] {
        fs::write(from.path().join(file), text).unwrap();
    }
    let args = |name: &str| CopyCertificate {
        from: from.path().to_owned(),
        name: name.parse().unwrap(),
        to: to.path().to_owned(),
        follow: false,
    };
    copy_once(&args("a-1")).unwrap();
    let read = |file| fs::read_to_string(to.path().join(file)).unwrap();
    assert_eq!((read(TLS_CERT), read(TLS_KEY), read(TLS_CA)), ("1".to_owned(), "k1".to_owned(), "ca".to_owned()));
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 3);
    assert!(copy_once(&args("a-2")).unwrap_err().to_string().contains("p2pctl ca kubernetes"));
}
