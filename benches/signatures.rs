//! What the signature of a broadcast costs a peer: to sign it, to check it, and to recognise one that was checked before.
//!
//! `cargo bench --bench signatures -- [--json]`. It is to stay below 100 µs a peer, with either kind of key.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for developers")]

use p2pdi::{
    id::PeerId,
    name::PeerName,
    signed::{ChainHash, Proof, Statement},
    tls::{ClientAuth, Pem, Tls},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use std::{
    env,
    hint::black_box,
    time::{Duration, Instant},
};

const REPEATS: u32 = 2_000;
const PAYLOAD_BYTES: usize = 256;

struct Figures {
    key: &'static str,
    sign: Duration,
    check: Duration,
    known: Duration,
}

fn main() {
    let json = env::args().any(|argument| argument == "--json");
    let figures = [
        measure("ECDSA P-256", &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()),
        measure("Ed25519", &KeyPair::generate_for(&PKCS_ED25519).unwrap()),
    ];
    let us = |time: &Duration| time.as_secs_f64() * 1e6;
    if json {
        let rows = figures.iter().map(
            |f| serde_json::json!({ "key": f.key, "sign_us": us(&f.sign), "check_us": us(&f.check), "known_us": us(&f.known) }),
        );
        println!("{}", serde_json::Value::from_iter(rows));
        return;
    }
    for f in &figures {
        println!("{:12} sign {:6.1} µs   check {:6.1} µs   known {:5.2} µs", f.key, us(&f.sign), us(&f.check), us(&f.known));
    }
}

fn measure(key: &'static str, pair: &KeyPair) -> Figures {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let cert = CertificateParams::new(vec!["a".to_owned()]).unwrap().signed_by(pair, &ca).unwrap();
    let pem =
        Pem { cert: Some(cert.pem().into_bytes()), key: Some(pair.serialize_pem().into_bytes()), ca: ca.pem().into_bytes() };
    let tls = Tls::from_pem(pem, ClientAuth::Required).unwrap();
    let identity = tls.identity().unwrap();
    let name: PeerName = "a".parse().unwrap();
    let payload = vec![7; PAYLOAD_BYTES];
    let bytes = |sequence| {
        let origin = PeerId::of_name(&name);
        Statement::Broadcast { network: "default", origin, name: &name, incarnation: 1, sequence, payload: &payload }.to_bytes(1)
    };
    let signature = tls.sign(&bytes(1)).unwrap();
    let chain_hash = ChainHash::of(identity.chain());
    let value = signature.bytes.clone().into();
    let proof = Proof { scheme: signature.scheme, value, signed_at_ms: 1, chain_hash, chain: Vec::new() };
    Figures {
        key,
        sign: each(|number| drop(black_box(tls.sign(&bytes(number)).unwrap()))),
        check: each(|_| assert!(tls.is_signed_by(&identity, &bytes(1), &signature))),
        known: each(|_| _ = black_box(proof.digest(&bytes(1)))),
    }
}

/// The median time of one call.
fn each(mut call: impl FnMut(u64)) -> Duration {
    let mut times: Vec<Duration> = (0..REPEATS)
        .map(|number| {
            let begun = Instant::now();
            call(number.into());
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}
