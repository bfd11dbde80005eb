//! Who is refused, and what people read then.

use super::{
    certificates::{Authority, self_signed},
    named, peer,
    peers::{peer::Peer, within},
    ping,
    support::http,
};
use p2pdi::tls::{ClientAuth, Expected, Pem, Tls};
use rcgen::{CertificateParams, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::TLS13,
};
use std::{sync::Arc, time::SystemTime};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[track_caller]
fn assert_says(error: Result<impl Sized, String>, words: &str) {
    let error = error.err().unwrap_or_else(|| panic!("no error; expected: {words}"));
    assert!(error.contains(words), "{error:?} lacks {words:?}");
}

fn expired(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
}

fn not_yet_valid(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
}

#[tokio::test]
async fn a_peer_is_called_by_the_name_in_its_certificate_and_by_no_other() {
    let network = Authority::new("network");
    let a = peer("fff-a", network.tls(&["fff-a", "spiffe://default/peer/fff-a"])).await;
    let caller = network.tls(&["fff-b"]);
    let identity = ping(a.address, Some(&caller), named("FFF-A")).await.unwrap().unwrap();
    assert_eq!((identity.name().unwrap().as_str(), identity.network()), ("fff-a", Some("default")));
    let learnt = ping(a.address, Some(&caller), Expected::Anyone).await.unwrap().unwrap();
    assert!(learnt.has_name(&"fff-a".parse().unwrap()));
    assert_says(ping(a.address, Some(&caller), named("fff-c")).await, "its certificate is for fff-a, not for fff-c");
    a.stop().await;
}

#[tokio::test]
async fn a_server_with_a_certificate_that_is_not_valid_is_refused() {
    let (network, other) = (Authority::new("network"), Authority::new("other"));
    let caller = network.tls(&["fff-b"]);
    for (tls, words) in [
        (other.tls(&["fff-a"]), "its certificate is not signed by a CA of this network"),
        (network.tls_of(&network.issue_with(&["fff-a"], expired)), "its certificate expired on 2021-01-01"),
        (network.tls_of(&network.issue_with(&["fff-a"], not_yet_valid)), "its certificate is valid from 2090-01-01"),
    ] {
        let a = peer("fff-a", tls).await;
        assert_says(ping(a.address, Some(&caller), named("fff-a")).await, words);
        a.stop().await;
    }
    let (alone, now) = (self_signed(&["fff-a"]), SystemTime::now());
    let refused = caller.check(vec![alone.certificate.der().clone()], now).unwrap_err().to_string();
    assert!(refused.contains("its certificate is self-signed"), "{refused}");
}

#[tokio::test]
async fn a_client_with_a_certificate_that_is_not_valid_is_refused_and_told_why() {
    let (network, other) = (Authority::new("network"), Authority::new("other"));
    let a = peer("fff-a", network.tls(&["fff-a"])).await;
    // A program checks its own certificate: this one trusts both CAs.
    let both = format!("{}{}", network.pem(), other.pem());
    let foreign = other.issue(&["fff-b"]).tls(&both, ClientAuth::Required).unwrap();
    for (caller, words) in [
        (foreign, "it refuses this program's certificate: no CA of its network signed it"),
        (
            network.tls_of(&network.issue_with(&["fff-b"], expired)),
            "it refuses this program's certificate: it expired, or is not valid yet",
        ),
        (
            network.tls_of(&network.issue_with(&["fff-b"], not_yet_valid)),
            "it refuses this program's certificate: it expired, or is not valid yet",
        ),
        (network.tls_without_certificate(), "it asks for a certificate; give one with --tls-cert and --tls-key"),
    ] {
        assert_says(ping(a.address, Some(&caller), named("fff-a")).await, words);
    }
    a.stop().await;
}

#[tokio::test]
async fn where_certificates_are_optional_a_client_without_one_is_nobody_and_one_that_is_shown_is_checked() {
    let (network, other) = (Authority::new("network"), Authority::new("other"));
    let a = peer("fff-a", network.issue(&["fff-a"]).tls(&network.pem(), ClientAuth::Optional).unwrap()).await;
    ping(a.address, Some(&network.tls_without_certificate()), named("fff-a")).await.unwrap();
    let both = format!("{}{}", network.pem(), other.pem());
    let foreign = other.issue(&["fff-b"]).tls(&both, ClientAuth::Required).unwrap();
    assert_says(ping(a.address, Some(&foreign), named("fff-a")).await, "no CA of its network signed it");
    a.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_network_is_refused_by_both_sides() {
    let network = Authority::new("network");
    let a = peer("fff-a", network.tls(&["fff-a", "spiffe://default/peer/fff-a"])).await;
    let tls = |names: &[&str], of: &str| {
        let tls = network.tls(names);
        tls.set_network(&of.parse().unwrap()).unwrap();
        tls
    };
    // The caller's is of another network than the peer.
    let stranger = tls(&["fff-b", "spiffe://lab/peer/fff-b"], "lab");
    assert_says(
        ping(a.address, Some(&stranger), named("fff-a")).await,
        "its certificate is of the network default, and this program is of lab",
    );
    // One that does not look at the peer's network is refused by the peer.
    let careless = network.tls(&["fff-b", "spiffe://lab/peer/fff-b"]);
    assert_says(ping(a.address, Some(&careless), named("fff-a")).await, "it refuses this program's certificate");
    // One without a SPIFFE id, or with one that says something else, is of all networks.
    for names in [&["fff-b"] as &[&str], &["fff-b", "spiffe://lab/workload"], &["fff-b", "spiffe://default/operator/alice"]] {
        ping(a.address, Some(&tls(names, "default")), named("fff-a")).await.unwrap();
    }
    // The program's own, at its start and when it is renewed.
    let own = network.tls(&["fff-b", "spiffe://lab/peer/fff-b"]);
    let refused = own.set_network(&"default".parse().unwrap()).unwrap_err().to_string();
    assert!(refused.contains("of the network lab") && refused.contains("--network lab"), "{refused}");
    let renewed = tls(&["fff-b", "spiffe://default/peer/fff-b"], "default");
    assert!(renewed.replace(network.issue(&["fff-b", "spiffe://lab/peer/fff-b"]).pem(&network.pem())).is_err());
    let chain = stranger.identity().unwrap().chain().to_vec();
    assert!(renewed.check(chain, SystemTime::now()).unwrap_err().to_string().contains("of the network lab"));
    let built = peerd::Peer::builder("fff-b").tls(network.tls(&["fff-b", "spiffe://lab/peer/fff-b"])).build().await;
    assert!(built.unwrap_err().to_string().contains("--network lab"));
    a.stop().await;
}

#[tokio::test]
async fn self_signed_certificates_are_refused_by_both_sides() {
    let network = Authority::new("network");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let alone = self_signed(&["fff-b"]);
    let chain = vec![alone.certificate.der().clone()];
    let key = || PrivateKeyDer::try_from(alone.key.serialize_der()).unwrap();
    // As a client: no program of ours starts with such a certificate.
    let a = peer("fff-a", network.tls(&["fff-a"])).await;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(network.pem().as_bytes()).map(Result::unwrap));
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13]).unwrap();
    let client = client.with_root_certificates(roots).with_client_auth_cert(chain.clone(), key()).unwrap();
    let stream = TcpStream::connect(a.address).await.unwrap();
    let name = ServerName::try_from("fff-a").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    // The answer to a client's certificate arrives after the handshake.
    let refused = within("the end", stream.read(&mut [0])).await.unwrap_err().to_string();
    assert!(refused.contains("alert"), "{refused}");
    a.stop().await;
    // As a server.
    let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let server = server.with_no_client_auth().with_single_cert(chain, key()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(server));
        while let Ok((stream, _)) = listener.accept().await {
            let _refused = acceptor.accept(stream).await;
        }
    });
    let refused = ping(address, Some(&network.tls(&["fff-a"])), named("fff-b")).await;
    assert_says(refused, "its certificate is self-signed; it needs one that a CA of the network signed");
    serving.abort();
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_by_both_sides() {
    let network = Authority::new("network");
    let (server, client) = (network.tls(&["fff-a"]), network.tls(&["fff-b"]));
    let a = peer("fff-a", server.clone()).await;
    ping(a.address, Some(&client), named("fff-a")).await.unwrap();
    let serial = |tls: &Tls| tls.identity().unwrap().serial().clone();
    server.set_revoked([serial(&client)]);
    assert_says(ping(a.address, Some(&client), named("fff-a")).await, "it was revoked");
    server.set_revoked([]);
    client.set_revoked([serial(&server)]);
    assert_says(ping(a.address, Some(&client), named("fff-a")).await, "its certificate was revoked");
    a.stop().await;
}

#[tokio::test]
async fn a_client_without_tls_is_told_that_the_port_speaks_it() {
    let network = Authority::new("network");
    let a = peer("fff-a", network.tls(&["fff-a"])).await;
    assert_says(ping(a.address, None, named("fff-a")).await, "this port speaks TLS");
    let address = a.address;
    let answer = within("an answer", tokio::task::spawn_blocking(move || http::get(address, "/", &[]))).await.unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("this port speaks TLS: use https://"), "{}", answer.body);
    a.stop().await;
}

#[tokio::test]
async fn a_client_with_tls_is_told_that_the_port_does_not_speak_it() {
    let network = Authority::new("network");
    let a = Peer::sharing(&[]).await;
    assert_says(ping(a.address, Some(&network.tls(&["fff-b"])), Expected::Anyone).await, "it does not speak TLS");
    a.stop().await;
}

#[tokio::test]
async fn an_address_where_nothing_answers_is_not_said_to_speak_tls_or_not_to() {
    let tls = Authority::new("network").tls(&["fff-b"]);
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for dialling in [None, Some(&tls)] {
        let error = ping(refusing, dialling, Expected::Anyone).await.unwrap_err();
        assert!(error.contains("onnection refused") && !error.contains("TLS"), "{error}");
    }
    // Who closes the connection, instead of an answer to the handshake, may be anything.
    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closing.local_addr().unwrap();
    let closes = tokio::spawn(async move { while closing.accept().await.is_ok() {} });
    assert_says(ping(address, Some(&tls), Expected::Anyone).await, "it closed the connection during the TLS handshake");
    let error = ping(address, None, Expected::Anyone).await.unwrap_err();
    assert!(!error.contains("TLS"), "{error}");
    closes.abort();
}

#[test]
fn a_message_is_signed_by_the_holder_of_a_certificate_and_by_nobody_else() {
    let network = Authority::new("network");
    let (a, b) = (network.tls(&["fff-a"]), network.tls(&["fff-b"]));
    let signature = a.sign(b"a message").unwrap();
    let (of_a, of_b) = (a.identity().unwrap(), b.identity().unwrap());
    let checked = b.check(of_a.chain().to_vec(), SystemTime::now()).unwrap();
    assert!(b.is_signed_by(&checked, b"a message", &signature));
    assert!(!b.is_signed_by(&checked, b"another", &signature));
    assert!(!b.is_signed_by(&of_b, b"a message", &signature));
    assert!(network.tls_without_certificate().sign(b"a message").is_err());
    // An operator's certificate is for a client only.
    let operator = network.issue_with(&["spiffe://default/operator/alice"], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let chain = vec![operator.certificate.der().clone()];
    assert_eq!(b.check(chain.clone(), SystemTime::now()).unwrap().operator().unwrap().as_str(), "alice");
    b.set_revoked([network.tls_of(&operator).identity().unwrap().serial().clone()]);
    assert!(b.check(chain, SystemTime::now()).unwrap_err().to_string().contains("revoked"));
}

#[test]
fn a_chain_is_not_accepted_from_outside_its_time() {
    let network = Authority::new("network");
    let tls = network.tls(&["fff-a"]);
    let old = network.issue_with(&["fff-b"], expired).certificate.der().clone();
    let refused = tls.check(vec![old.clone()], SystemTime::now()).unwrap_err().to_string();
    assert!(refused.contains("expired"), "{refused}");
    // 2020-07-01.
    let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_593_561_600);
    assert!(tls.check(vec![old], then).unwrap().has_name(&"fff-b".parse().unwrap()));
    assert!(tls.check(Vec::new(), then).is_err());
}

#[test]
fn a_program_needs_a_certificate_that_others_accept() {
    let (network, other) = (Authority::new("network"), Authority::new("other"));
    let error = |result: Result<Tls, p2pdi::tls::TlsError>| result.unwrap_err().to_string();
    let foreign = other.issue(&["fff-a"]);
    assert!(error(foreign.tls(&network.pem(), ClientAuth::Required)).contains("is not signed by a CA in"));
    assert!(error(network.issue(&[]).tls(&network.pem(), ClientAuth::Required)).contains("has no usable name"));
    let leaf_as_ca = foreign.certificate.pem();
    assert!(error(network.issue(&["fff-a"]).tls(&leaf_as_ca, ClientAuth::Required)).contains("is not a CA's"));
    let half = Pem { key: None, ..network.issue(&["fff-a"]).pem(&network.pem()) };
    assert!(error(Tls::from_pem(half, ClientAuth::Required)).contains("a certificate needs its key"));
}
