use super::*;
use p2pdi::tls::{ClientAuth, Pem};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A peer with a certificate, which signs with this key.
fn peer_with(ca: &Ca, name: &str, key: &KeyPair) -> (Signatures, Tls) {
    let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(key, ca).unwrap();
    let pem = Pem { cert: Some(cert.pem().into_bytes()), key: Some(key.serialize_pem().into_bytes()), ca: ca.pem().into_bytes() };
    let tls = Tls::from_pem(pem, ClientAuth::Required).unwrap();
    (Signatures::new(tls.clone(), "lab", name.parse().unwrap()), tls)
}

fn peer(ca: &Ca, name: &str) -> Signatures {
    peer_with(ca, name, &KeyPair::generate().unwrap()).0
}

fn contact(name: &str) -> Contact {
    let name: PeerName = name.parse().unwrap();
    Contact::new(PeerId::of_name(&name), name, "127.0.0.1:1".parse().unwrap())
}

/// A broadcast of this peer with its signature, without the chain.
fn broadcast(signatures: &Signatures, name: &str, sequence: u64) -> v1::Broadcast {
    let me = contact(name);
    let sender = Some(wire::contact(&me));
    let payload: Bytes = Announcement { sender, body: "hello".into(), ..Default::default() }.encode_to_vec().into();
    let id = MessageId { origin: me.id(), incarnation: 1, sequence };
    let signature = signatures.of_broadcast(&me, &id, &payload);
    v1::Broadcast { id: Some(wire::broadcast_id(&id)), hops: 1, age_ms: 0, payload, signature }
}

fn with_chain_of(signatures: &Signatures, mut broadcast: v1::Broadcast) -> v1::Broadcast {
    let signature = broadcast.signature.as_mut().unwrap();
    signature.chain = signatures.chain(&signature.chain_hash);
    broadcast
}

/// What `to` makes of a broadcast that comes from `link`: whether it is passed on without its chain, or the flaw.
fn screened(to: &Signatures, broadcast: v1::Broadcast) -> Result<(), Flaw> {
    let frame = LinkFrame { body: Some(Body::Broadcast(broadcast.clone())) };
    match to.screen(&contact("neighbour"), LinkEvent::Frame(frame)) {
        LinkEvent::Frame(LinkFrame { body: Some(Body::Broadcast(passed)) }) => {
            assert!(passed.signature.unwrap().chain.is_empty());
            Ok(())
        }
        LinkEvent::Flawed { flaw, id, bytes } => {
            assert_eq!((id, bytes > 0), (broadcast.id, true));
            Err(flaw)
        }
        _ => panic!("neither passed nor refused"),
    }
}

#[test]
fn a_chain_is_sent_once_and_kept() {
    let ca = ca();
    let (a, b) = (peer(&ca, "a"), peer(&ca, "b"));
    assert_eq!(screened(&b, broadcast(&a, "a", 1)), Err(Flaw::ChainUnknown));
    assert_eq!(screened(&b, with_chain_of(&a, broadcast(&a, "a", 1))), Ok(()));
    for sequence in 1..4 {
        assert_eq!(screened(&b, broadcast(&a, "a", sequence)), Ok(()));
    }
    // Passed on by one who is not its signer.
    let c = peer(&ca, "c");
    assert_eq!(screened(&c, with_chain_of(&b, broadcast(&a, "a", 1))), Ok(()));
}

#[test]
fn keys_of_both_kinds_sign() {
    let ca = ca();
    let b = peer(&ca, "b");
    let (a, _) = peer_with(&ca, "a", &KeyPair::generate_for(&PKCS_ED25519).unwrap());
    assert_eq!(screened(&b, with_chain_of(&a, broadcast(&a, "a", 1))), Ok(()));
}

#[test]
fn a_change_of_anything_signed_is_a_forgery() {
    let ca = ca();
    let (a, b) = (peer(&ca, "a"), peer(&ca, "b"));
    let genuine = with_chain_of(&a, broadcast(&a, "a", 1));
    let changed = |change: &dyn Fn(&mut v1::Broadcast)| {
        let mut broadcast = genuine.clone();
        change(&mut broadcast);
        screened(&b, broadcast)
    };
    let of_b = || broadcast(&b, "b", 1);
    for forged in [
        changed(&|broadcast| broadcast.signature = None),
        changed(&|broadcast| broadcast.id.as_mut().unwrap().sequence += 1),
        changed(&|broadcast| broadcast.id.as_mut().unwrap().incarnation += 1),
        changed(&|broadcast| broadcast.id.as_mut().unwrap().origin = of_b().id.unwrap().origin),
        changed(&|broadcast| broadcast.id = None),
        changed(&|broadcast| broadcast.payload = of_b().payload),
        changed(&|broadcast| broadcast.payload = Bytes::from_static(&[0xff])),
        changed(&|broadcast| broadcast.signature.as_mut().unwrap().signed_at_ms += 1),
        changed(&|broadcast| broadcast.signature.as_mut().unwrap().scheme = 0x0807),
        changed(&|broadcast| broadcast.signature.as_mut().unwrap().value = vec![0; 70].into()),
        // The origin and the payload of one, the signature of the other.
        changed(&|broadcast| broadcast.signature = with_chain_of(&b, of_b()).signature),
    ] {
        assert!(matches!(forged, Err(Flaw::Forged(_))), "{forged:?}");
    }
    assert_eq!(changed(&|broadcast| (broadcast.hops, broadcast.age_ms) = (5, 7)), Ok(()));
    // Of another network.
    let (elsewhere, tls) = peer_with(&ca, "a", &KeyPair::generate().unwrap());
    let other = Signatures::new(tls, "another", "a".parse().unwrap());
    assert_eq!(screened(&b, with_chain_of(&elsewhere, broadcast(&elsewhere, "a", 1))), Ok(()));
    assert!(matches!(screened(&b, with_chain_of(&other, broadcast(&other, "a", 1))), Err(Flaw::Forged(_))));
}

#[test]
fn what_a_neighbour_cannot_know_is_no_forgery() {
    let ca = ca();
    let (a, b) = (peer(&ca, "a"), peer_with(&ca, "b", &KeyPair::generate().unwrap()));
    let (b, b_tls) = b;
    // Another CA.
    let stranger = peer(&self::ca(), "a");
    let refused = screened(&b, with_chain_of(&stranger, broadcast(&stranger, "a", 1)));
    assert!(matches!(refused, Err(Flaw::Refused(_))), "{refused:?}");
    // Signed two hours ago.
    let me = contact("a");
    let sent = broadcast(&a, "a", 1);
    let id = MessageId { origin: me.id(), incarnation: 1, sequence: 1 };
    let statement = Statement::Broadcast {
        network: "lab",
        origin: me.id(),
        name: me.name(),
        incarnation: id.incarnation,
        sequence: id.sequence,
        payload: &sent.payload,
    };
    let mut old = with_chain_of(&a, sent.clone());
    let signature = old.signature.as_mut().unwrap();
    signature.signed_at_ms -= 2 * 3_600 * 1_000;
    signature.value = a.0.tls.sign(&statement.to_bytes(signature.signed_at_ms)).unwrap().bytes.into();
    assert!(matches!(screened(&b, old), Err(Flaw::Refused(_))));
    // Revoked after it was checked.
    assert_eq!(screened(&b, with_chain_of(&a, sent.clone())), Ok(()));
    b_tls.set_revoked([a.0.tls.identity().unwrap().serial().clone()]);
    assert!(matches!(screened(&b, sent), Err(Flaw::Refused(_))));
}

#[test]
fn a_reply_is_from_the_peer_that_received_the_message() {
    let ca = ca();
    let (a, b) = (peer(&ca, "a"), peer(&ca, "b"));
    let reply = |by: &str, signature| v1::RelayReply {
        id: vec![1; 16].into(),
        delivered: true,
        delivered_by: by.to_owned(),
        reply_kind: "PONG".to_owned(),
        reply: "there".into(),
        signature,
        ..Default::default()
    };
    let check = |link: &str, reply: v1::RelayReply| {
        let frame = LinkFrame { body: Some(Body::RelayReply(reply)) };
        matches!(a.screen(&contact(link), LinkEvent::Frame(frame)), LinkEvent::Frame(_))
    };
    let of_b = b.of_reply(&[1; 16], "PONG", b"there");
    assert!(check("c", reply("b", of_b.clone())) && check("b", reply("b", None)));
    assert!(!check("c", reply("b", None)) && !check("c", reply("a", of_b.clone())));
    let of_another = b.of_reply(&[2; 16], "PONG", b"there");
    assert!(!check("c", reply("b", of_another)));
    // One that says that it was not delivered claims nothing.
    assert!(check("c", v1::RelayReply { delivered: false, ..reply("b", None) }));
}
