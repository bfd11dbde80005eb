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
fn a_signature_of_an_expired_certificate_is_refused() {
    let ca = ca();
    let b = peer(&ca, "b");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    let cert = params.signed_by(&key, &ca).unwrap();
    let pem = Pem { cert: Some(cert.pem().into_bytes()), key: Some(key.serialize_pem().into_bytes()), ca: ca.pem().into_bytes() };
    let a = Signatures::new(Tls::from_pem(pem, ClientAuth::Required).unwrap(), "lab", "a".parse().unwrap());
    let refused = screened(&b, with_chain_of(&a, broadcast(&a, "a", 1)));
    assert!(matches!(&refused, Err(Flaw::Refused(why)) if why.contains("expired")), "{refused:?}");
}

const BROADCAST: MessageId = MessageId { origin: PeerId::from_u128(7), incarnation: 3, sequence: 9 };

/// An acknowledgement in the name of `by`, which `signer` signed.
fn acknowledge(by: &[(&str, &Signatures)], id: &MessageId) -> v1::Acknowledge {
    let signature = |signer: &Signatures| {
        let signature = signer.of_acknowledgement(id).unwrap();
        v1::Signature { chain: signer.chain(&signature.chain_hash), ..signature }
    };
    v1::Acknowledge {
        id: Some(wire::broadcast_id(&BROADCAST)),
        peers: by.iter().map(|(name, _)| wire::contact(&contact(name))).collect(),
        signatures: by.iter().map(|(_, signer)| signature(signer)).collect(),
    }
}

/// What `to` makes of a frame that comes from a neighbour.
fn screened_body(to: &Signatures, body: Body) -> Result<Body, Flaw> {
    match to.screen(&contact("neighbour"), LinkEvent::Frame(LinkFrame { body: Some(body) })) {
        LinkEvent::Frame(LinkFrame { body: Some(body) }) => Ok(body),
        LinkEvent::Flawed { flaw, .. } => Err(flaw),
        _ => panic!("neither passed nor refused"),
    }
}

#[test]
fn each_peer_acknowledges_for_itself() {
    let ca = ca();
    let [a, b, c] = ["a", "b", "c"].map(|name| peer(&ca, name));
    let check = |acknowledge: v1::Acknowledge| match screened_body(&c, Body::Acknowledge(acknowledge)) {
        Ok(Body::Acknowledge(passed)) => Ok(passed),
        Ok(_) => panic!("another frame"),
        Err(flaw) => Err(flaw),
    };
    // The chain of nobody is known yet.
    let mut unknown = acknowledge(&[("a", &a)], &BROADCAST);
    unknown.signatures[0].chain.clear();
    assert_eq!(check(unknown.clone()).unwrap().signatures, [v1::Signature::default()]);
    let genuine = acknowledge(&[("a", &a), ("b", &b)], &BROADCAST);
    let passed = check(genuine.clone()).unwrap();
    assert_eq!(passed.peers, genuine.peers);
    assert!(passed.signatures.iter().all(|signature| signature.chain.is_empty() && !signature.value.is_empty()));
    assert!(!check(unknown).unwrap().signatures[0].value.is_empty(), "its chain is known now");
    let other = MessageId { sequence: 10, ..BROADCAST };
    let with = |change: fn(&mut v1::Acknowledge)| {
        let mut changed = genuine.clone();
        change(&mut changed);
        changed
    };
    for forged in [
        acknowledge(&[("a", &a), ("d", &b)], &BROADCAST),
        acknowledge(&[("a", &a)], &other),
        with(|acknowledge| drop(acknowledge.signatures.pop())),
        with(|acknowledge| acknowledge.signatures.clear()),
        with(|acknowledge| acknowledge.signatures.swap(0, 1)),
        with(|acknowledge| acknowledge.peers[0].id = acknowledge.peers[1].id.clone()),
        with(|acknowledge| acknowledge.id = None),
    ] {
        assert!(matches!(check(forged.clone()), Err(Flaw::Forged(_))), "{forged:?}");
    }
    // One whom this peer refuses is left out.
    let stranger = peer(&self::ca(), "d");
    let mixed = check(acknowledge(&[("d", &stranger), ("a", &a)], &BROADCAST)).unwrap();
    assert_eq!((mixed.peers[0].name.as_str(), mixed.peers.len(), mixed.signatures.len()), ("a", 1, 1));
}

#[test]
fn a_root_is_the_peer_that_signed_its_beacon() {
    let ca = ca();
    let (a, b) = (peer(&ca, "a"), peer(&ca, "b"));
    let root = Root { incarnation: 5, id: contact("a").id() };
    let signature = a.of_beacon(&root, 7).unwrap();
    let chain = a.chain(&signature.chain_hash);
    let genuine = v1::Beacon {
        root: root.id.to_field(),
        root_incarnation: 5,
        sequence: 7,
        hops: 0,
        parent: false,
        signature: Some(v1::Signature { chain, ..signature.clone() }),
    };
    let without_chain = v1::Beacon { signature: Some(signature), ..genuine.clone() };
    let check = |beacon: &v1::Beacon| screened_body(&b, Body::Beacon(beacon.clone())).map(drop);
    assert_eq!(check(&without_chain), Err(Flaw::ChainUnknown));
    assert_eq!((check(&genuine), check(&without_chain)), (Ok(()), Ok(())));
    // How far it is from the root is the neighbour's own word.
    assert_eq!(check(&v1::Beacon { hops: 9, parent: true, ..genuine.clone() }), Ok(()));
    for forged in [
        v1::Beacon { signature: None, ..genuine.clone() },
        v1::Beacon { sequence: 8, ..genuine.clone() },
        v1::Beacon { root_incarnation: 4, ..genuine.clone() },
        v1::Beacon { root: PeerId::from_u128(0).to_field(), ..genuine.clone() },
        v1::Beacon { root: contact("b").id().to_field(), ..genuine },
    ] {
        assert!(matches!(check(&forged), Err(Flaw::Forged(_))), "{forged:?}");
    }
}

#[test]
fn contacts_have_the_ids_of_their_names() {
    let ca = ca();
    let a = peer(&ca, "a");
    let genuine = wire::contact(&contact("b"));
    let stolen = v1::Contact { id: wire::contact(&contact("c")).id, ..genuine.clone() };
    let lowest = v1::Contact { id: PeerId::from_u128(0).to_field(), ..genuine.clone() };
    let bodies = |contact: &v1::Contact| {
        let peers = vec![contact.clone()];
        [
            Body::ForwardJoin(v1::ForwardJoin { newcomer: Some(contact.clone()), ttl: 1 }),
            Body::NeighbourReply(v1::NeighbourReply { accepted: true, peers: peers.clone() }),
            Body::Disconnect(v1::Disconnect { alive: true, peers: peers.clone() }),
            Body::Shuffle(v1::Shuffle { peers: peers.clone(), ..v1::Shuffle::default() }),
            Body::ShuffleReply(v1::ShuffleReply { peers, ..v1::ShuffleReply::default() }),
            Body::SeekReply(v1::SeekReply { found: true, peer: Some(contact.clone()), ..v1::SeekReply::default() }),
            Body::Namesake(v1::Namesake { peer: Some(contact.clone()), ..v1::Namesake::default() }),
        ]
    };
    for body in bodies(&genuine) {
        assert_eq!(screened_body(&a, body.clone()), Ok(body));
    }
    for body in bodies(&stolen).into_iter().chain(bodies(&lowest)) {
        assert!(matches!(screened_body(&a, body.clone()), Err(Flaw::Forged(_))), "{body:?}");
    }
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
    assert!(!check("c", reply("b", None)) && !check("c", reply("a", of_b)));
    let of_another = b.of_reply(&[2; 16], "PONG", b"there");
    assert!(!check("c", reply("b", of_another)));
    // One that says that it was not delivered claims nothing.
    assert!(check("c", v1::RelayReply { delivered: false, ..reply("b", None) }));
}

#[test]
fn what_was_signed_long_before_the_start_is_not_believed() {
    let ca = ca();
    let (sender, key) = (peer(&ca, "sender"), KeyPair::generate().unwrap());
    let (_, tls) = peer_with(&ca, "restarted", &key);
    let signed = with_chain_of(&sender, broadcast(&sender, "sender", 1));
    let restarted = |later: Duration| {
        let started_at = SystemTime::now() + later;
        Signatures::started_at(started_at, tls.clone(), "lab", "restarted".parse().unwrap())
    };
    assert_eq!(screened(&restarted(Duration::ZERO), signed.clone()), Ok(()));
    assert_eq!(screened(&restarted(SIGNED_BEFORE_START_MAX / 2), signed.clone()), Ok(()));
    let refused = screened(&restarted(SIGNED_BEFORE_START_MAX * 2), signed);
    assert!(matches!(&refused, Err(Flaw::Refused(why)) if why.contains("before this peer started")), "{refused:?}");
}
