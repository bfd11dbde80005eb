//! Etcd with TLS, whose certificates change.

use crate::{etcd::program, support::*};
use p2pdi::status::Reason;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use registry::{
    Config, State,
    store::{EtcdAddress, EtcdFiles},
};
use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How often the registry looks for new certificates.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Writes a CA, and certificates of it for etcd and for its client.
fn certify(folder: &Path) {
    let ca = new_ca();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    for name in ["etcd", "client"] {
        issue(folder, name, &ca);
    }
}

fn new_ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate and its key.
fn issue(folder: &Path, name: &str, ca: &CertifiedIssuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
}

/// One member that lets in who has a certificate of the CA. Killed when dropped.
struct Secured(Child);

impl Secured {
    fn start(folder: &Path, ports: [u16; 2]) -> Option<Self> {
        let [client, peer] = ports.map(|port| format!("127.0.0.1:{port}"));
        let (client, peer) = (format!("https://{client}"), format!("http://{peer}"));
        let child = Command::new(program()?)
            .current_dir(folder)
            .args(["--name", "m0", "--data-dir", "data", "--client-cert-auth", "--trusted-ca-file", "ca.pem"])
            .args(["--cert-file", "etcd.pem", "--key-file", "etcd-key.pem"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m0={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self(child))
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_for_etcd_that_change_are_used_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = |file: &str| folder.path().join(file);
    certify(folder.path());
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
    let Some(etcd) = Secured::start(folder.path(), ports) else { return };
    let files = EtcdFiles { ca: Some(path("ca.pem")), identity: Some((path("client.pem"), path("client-key.pem"))) };
    let endpoints = vec![format!("https://127.0.0.1:{}", ports[0])];
    let address = EtcdAddress { endpoints, prefix: "/certificates".into(), files, user: None };
    let config = Config { state: State::Etcd(address), ttl: Duration::from_secs(30), ..Config::default() };
    // Etcd may not listen yet; opening tries for some seconds.
    let registry = Running::start(config).await;
    let mut client = registry.client();
    eventually("a registration", async || client.clone().register(asking("before", "10.0.0.1:7801")).await.ok()).await;
    // Another CA, and nothing of the old one is accepted any more.
    drop(etcd);
    certify(folder.path());
    let etcd = Secured::start(folder.path(), ports).unwrap();
    let again = async || client.clone().register(asking("after", "10.0.0.1:7801")).await;
    eventually("a registration with the new certificates", async || match again().await {
        Ok(_) => Some(()),
        // By an earlier try, whose answer was lost.
        Err(status) => (Reason::of(&status) == Some(Reason::NameTaken)).then_some(()),
    })
    .await;
    let watching = observe(&mut client, "watching").await.cookie;
    assert_eq!(super::three::listed(&mut client, &watching).await, ["after", "before"]);
    // One that etcd does not accept is never used, also while the registry tries it, which it does within some seconds.
    issue(folder.path(), "client", &new_ca());
    let until = Instant::now() + 2 * LOOK_EVERY;
    for number in 0.. {
        client.register(asking(&format!("still-{number}"), "10.0.0.1:7801")).await.unwrap();
        if Instant::now() > until {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    registry.stop().await;
    drop(etcd);
}
