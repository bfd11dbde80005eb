//! Hostile peers: invalid frames, false hellos, stolen ids, and too many links.

use crate::{
    proxy::source,
    raw::{RawLink, RawServer, contact, frame, hello},
    support::{Setup, TestPeer, logged, until, whisper},
};
use bytes::Bytes;
use p2pdi::status::Reason;
use p2pdi::v1::{
    Broadcast, BroadcastId, Contact, JoinRequest, LinkFrame, LinkHello, NeighbourReply, Seek, Shuffle, link_frame::Body,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::Endpoint;

/// Two linked peers.
async fn pair() -> (TestPeer, TestPeer) {
    let a = Setup::named("a").start().await;
    let b = Setup::named("b").with_bootnodes([&a]).start().await;
    until("they are linked", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    (a, b)
}

/// Checks that two peers are linked, and that a whisper arrives.
async fn assert_linked(a: &TestPeer, b: &TestPeer) {
    assert!(a.is_linked_to(b) && b.is_linked_to(a));
    let answer =
        timeout(Duration::from_secs(20), a.client().await.whisper_to(b.handle.identity().name().as_str())).await.unwrap();
    assert_eq!(answer, b.handle.identity().name().as_str());
}

trait WhisperTo {
    async fn whisper_to(self, name: &str) -> String;
}

impl WhisperTo for p2pdi::v1::peer_client::PeerClient<tonic::transport::Channel> {
    async fn whisper_to(mut self, name: &str) -> String {
        self.whisper(whisper(name, "hello")).await.unwrap().into_inner().delivered_by
    }
}

#[tokio::test]
async fn invalid_frames_are_dropped_and_counted_and_many_of_them_close_the_link() {
    let (a, b) = pair().await;
    logged("");
    let mut link = RawLink::neighbour(a.address, None, contact(7, "liar", "127.0.0.1:1")).await;
    let many = (0..300).map(|id| contact(id, "x", "127.0.0.1:1")).collect();
    let id = |bytes: usize| Bytes::from(vec![1; bytes]);
    let wrong = [
        // No protobuf, or a truncated one.
        b"\xff\xff\xff\xff".to_vec(),
        b"\x0a\x7f\x01".to_vec(),
        vec![0x0f; 2_000],
    ];
    let frames: [LinkFrame; 6] = [
        frame(Body::Shuffle(Shuffle { nonce: 1, path: vec![id(3)], ttl: 3, peers: Vec::new() })),
        frame(Body::NeighbourReply(NeighbourReply { accepted: true, peers: many })),
        frame(Body::Broadcast(Broadcast { id: None, hops: 1, age_ms: 0, payload: Bytes::new(), signature: None })),
        frame(Body::Broadcast(Broadcast {
            id: Some(BroadcastId { origin: id(16), incarnation: 1, sequence: 1 }),
            hops: 1,
            age_ms: 0,
            payload: vec![0; 100_000].into(),
            signature: None,
        })),
        frame(Body::Seek(Seek { id: id(16), to: "../etc".into(), hops: 1, ..Seek::default() })),
        frame(Body::Seek(Seek { id: id(2), to: "b".into(), hops: 1, ..Seek::default() })),
    ];
    let sent = (wrong.len() + frames.len()) as u64;
    for bytes in wrong {
        link.send_bytes(bytes).await;
    }
    for frame in frames {
        link.send(frame).await;
    }
    until("all are counted", async || a.mesh().misbehaviour == sent).await;
    assert!(
        a.handle.mesh().view().linked.iter().any(|peer| peer.name().as_str() == "liar"),
        "a few invalid frames do not close the link"
    );
    assert_linked(&a, &b).await;
    until("unknown frames of a newer peer are not misbehaviour", async || {
        link.send_bytes(b"\x0a\x04\xfa\x7f\x01\x00".to_vec()).await;
        a.mesh().misbehaviour == sent
    })
    .await;
    for _ in 0..1_000 {
        if !link.send_bytes(vec![0xff; 8]).await {
            break;
        }
    }
    link.ended().await;
    until("its link is closed", async || !a.handle.mesh().view().linked.iter().any(|peer| peer.name().as_str() == "liar")).await;
    // It is banned for a while: a new link from it is closed.
    let mut again = RawLink::open(a.address, None).await.unwrap();
    again.send(hello(contact(7, "liar", "127.0.0.1:1"))).await;
    again.ended().await;
    assert_linked(&a, &b).await;
    // A thousand invalid frames make two log lines with its name and what it did.
    let lines: Vec<_> = logged("peer=liar").into_iter().filter(|line| line.contains("WARN")).collect();
    assert!(lines.len() == 2 && lines[0].contains("sent a frame that cannot be read"), "{lines:?}");
    assert!(lines[1].contains("banning it for a while"), "{lines:?}");
}

#[tokio::test]
async fn a_frame_past_the_limit_ends_the_link_and_is_counted() {
    let (a, b) = pair().await;
    logged("");
    let mut link = RawLink::neighbour(a.address, None, contact(7, "giant", "127.0.0.1:1")).await;
    link.send_bytes(vec![0; 300 * 1024]).await;
    link.ended().await;
    until("it is counted", async || a.mesh().misbehaviour == 1).await;
    assert!(logged("peer=giant").iter().any(|line| line.contains("sent a frame past the limit")));
    assert_linked(&a, &b).await;
}

#[tokio::test]
async fn a_peer_that_breaks_every_link_is_dialled_rarely() {
    let large =
        frame(Body::Broadcast(Broadcast { id: None, hops: 1, age_ms: 0, payload: vec![0; 300 * 1024].into(), signature: None }));
    let server = RawServer::accepting(7, "breaker", vec![large]).await;
    let bootnode = format!("breaker:{}", server.address.port());
    let a = Setup { bootnodes: vec![bootnode.parse().unwrap()], ..Setup::named("a") }.start().await;
    until("it is counted", async || a.mesh().misbehaviour > 0).await;
    let begun = Instant::now();
    until("six seconds have passed", async || begun.elapsed() > Duration::from_secs(6)).await;
    assert!(server.links() <= 8, "dialled {} times in six seconds", server.links());
    assert_eq!(a.mesh().misbehaviour, 1, "it was linked again during its ban");
    // A join by the operator lifts the ban.
    let joined = a.control().await.join(JoinRequest { endpoint: server.address.to_string() }).await.unwrap().into_inner();
    assert_eq!(joined.peer.unwrap().name, "breaker");
    until("it breaks that link too", async || a.mesh().misbehaviour == 2).await;
}

#[tokio::test]
async fn invalid_hellos_are_refused_and_counted() {
    let (a, b) = pair().await;
    let invalid = [
        Contact { id: Bytes::from_static(&[1; 15]), ..contact(7, "x", "127.0.0.1:1") },
        Contact { id: Bytes::new(), ..contact(7, "x", "127.0.0.1:1") },
        contact(7, &"x".repeat(100_000), "127.0.0.1:1"),
        contact(7, "", "127.0.0.1:1"),
        contact(7, "two words", "127.0.0.1:1"),
        contact(7, "x", "nowhere"),
        contact(7, "x", "127.0.0.1:99999"),
        contact(7, "x", &format!("{}:1", "h".repeat(5_000))),
    ];
    let count = invalid.len() as u64;
    for peer in invalid {
        let mut link = RawLink::open(a.address, None).await.unwrap();
        link.send(hello(peer)).await;
        link.ended().await;
    }
    // No hello, or another frame instead.
    for first in [b"\xff\xff".to_vec(), vec![0; 300 * 1024], Vec::new()] {
        let mut link = RawLink::open(a.address, None).await.unwrap();
        link.send_bytes(first).await;
        link.ended().await;
    }
    let mut link = RawLink::open(a.address, None).await.unwrap();
    link.send(frame(Body::Hello(LinkHello { peer: None, incarnation: 1, network: String::new() }))).await;
    link.ended().await;
    until("all are counted", async || a.mesh().misbehaviour == count + 4).await;
    // A hello with the peer's own id is refused as well.
    let own = a.handle.identity().id().as_u128();
    let mut link = RawLink::open(a.address, None).await.unwrap();
    link.send(hello(contact(own, "a", &a.address.to_string()))).await;
    link.ended().await;
    assert_eq!(a.mesh().links, 1);
    assert_linked(&a, &b).await;
}

/// Says hello to `to` five times with the id of `stolen`, and checks that `stolen` stays linked.
async fn try_to_replace(to: &TestPeer, stolen: &TestPeer) {
    let identity = stolen.handle.identity();
    for _ in 0..5 {
        let mut thief = RawLink::open(to.address, None).await.unwrap();
        thief.send(hello(contact(identity.id().as_u128(), identity.name().as_str(), "127.0.0.1:1"))).await;
        thief.ended().await;
        assert_linked(to, stolen).await;
    }
    assert!(to.mesh().misbehaviour >= 5);
    assert_eq!(stolen.messages().len(), 5, "every whisper arrived at the peer that was linked first");
}

#[tokio::test]
async fn a_peer_cannot_replace_a_linked_peer_by_claiming_its_id() {
    let (a, b) = pair().await;
    // B dialled A. Another peer claims B's id at A, as B itself would after it lost its link.
    try_to_replace(&a, &b).await;
    // At B, a second link could be A dialling at the same time, so wait until that is ruled out.
    let linked = Instant::now();
    until("the link is older than a handshake", async || linked.elapsed() > Duration::from_secs(4)).await;
    try_to_replace(&b, &a).await;
}

#[tokio::test]
async fn a_sender_is_received_although_another_peer_forged_a_later_incarnation() {
    let (a, b) = pair().await;
    let link = RawLink::neighbour(a.address, None, contact(7, "liar", "127.0.0.1:1")).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let ahead = u64::try_from(now).unwrap() + 60_000;
    let id = BroadcastId { origin: b.handle.identity().id().to_field(), incarnation: ahead, sequence: 100 };
    link.send(frame(Body::Broadcast(Broadcast { id: Some(id), hops: 1, age_ms: 0, payload: Bytes::new(), signature: None })))
        .await;
    until("the forged broadcast is delivered", async || a.mesh().broadcasts == 1).await;
    let mut sent = 0;
    until("a broadcast of the real sender arrives", async || {
        sent += 1;
        b.say_to_all(format!("{sent}")).await;
        a.messages().iter().any(|message| !message.is_empty())
    })
    .await;
    // After a restart as well.
    let kept = b.handle.state().join("incarnation");
    until("its incarnation is past the forged one", async || {
        std::fs::read_to_string(&kept).unwrap().parse::<u64>().unwrap() > ahead
    })
    .await;
}

#[tokio::test]
async fn one_address_that_opens_thousands_of_links_does_not_lock_out_others() {
    let a = Setup::named("a").start().await;
    // Four connections with 50 links each from one address. None says hello; each that is closed is opened again.
    let one = source(9, 1);
    let opened = Arc::new(AtomicUsize::new(0));
    let mut openers = JoinSet::new();
    for _ in 0..4 {
        let endpoint = Endpoint::from_shared(format!("http://{}", a.address)).unwrap().local_address(Some(one));
        let channel = endpoint.connect().await.unwrap();
        for _ in 0..50 {
            let (channel, opened) = (channel.clone(), Arc::clone(&opened));
            openers.spawn(async move {
                loop {
                    let opening = RawLink::open_on(channel.clone()).await;
                    opened.fetch_add(1, Ordering::Relaxed);
                    match opening {
                        Ok(mut link) => link.ended().await,
                        // Its share is used up.
                        Err(status) if Reason::of(&status) == Some(Reason::TooManyStreams) => {}
                        Err(status) => return status,
                    }
                }
            });
        }
    }
    until("thousands were opened", async || opened.load(Ordering::Relaxed) > 3_000).await;
    let begun = Instant::now();
    let b = Setup::named("b").with_bootnodes([&a]).start().await;
    until("another peer is linked soon", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    // Shorter than the handshake timeout on an idle machine; the rest is for a loaded one.
    println!("linked after {:?}, beside {} links opened", begun.elapsed(), opened.load(Ordering::Relaxed));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(openers.try_join_next().is_none(), "one was refused for another reason");
    openers.shutdown().await;
    // Links with a hello, each with another id, do not lock out others either.
    let mut links = Vec::new();
    for id in 0..200 {
        let Ok(link) = RawLink::open(a.address, Some(one)).await else { continue };
        link.send(hello(contact(1_000 + id, &format!("sybil-{id}"), "127.0.0.1:1"))).await;
        links.push(link);
    }
    assert!(links.len() >= 8, "{} links were accepted", links.len());
    let c = Setup::named("c").with_bootnodes([&a]).start().await;
    until("a third peer is linked", async || c.is_linked_to(&a) && a.is_linked_to(&c)).await;
    assert!(a.mesh().links <= 64);
    assert_linked(&a, &b).await;
}

#[tokio::test]
async fn a_thousand_hostile_hellos_write_fewer_than_ten_log_lines() {
    logged("");
    let a = Setup::named("noted").start().await;
    let stolen = RawLink::neighbour(a.address, None, contact(7, "hostile-owner", "127.0.0.1:1")).await;
    let from = source(9, 2);
    let before = a.mesh().misbehaviour;
    for number in 0..1_000_u16 {
        let mut link = RawLink::open(a.address, Some(from)).await.unwrap();
        let first = match number / 250 {
            // The id of a linked peer, an invalid endpoint, a new peer whose next frame is too long, and this peer's name.
            0 => contact(7, "hostile-thief", "127.0.0.1:2"),
            1 => contact(8, "hostile", "nowhere"),
            2 => contact(10_000 + u128::from(number), "hostile-sybil", "127.0.0.1:3"),
            _ => contact(20_000 + u128::from(number), "noted", "127.0.0.1:4"),
        };
        link.send(hello(first)).await;
        link.send_bytes(vec![0; 300 * 1024]).await;
        link.ended().await;
    }
    until("they are counted", async || a.mesh().misbehaviour >= before + 750).await;
    let about = |line: &String| ["hostile", "noted", &from.to_string()].iter().any(|word| line.contains(word));
    let lines: Vec<_> = logged("").into_iter().filter(about).collect();
    assert!(lines.iter().any(|line| line.contains("a second link with the id of a linked peer")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("an invalid handshake")), "{lines:#?}");
    assert!(lines.len() < 10, "{} lines: {:#?}", lines.len(), &lines[..10]);
    drop(stolen);
}

#[tokio::test]
async fn a_peer_that_never_answers_a_hello_delays_nobody() {
    let mute = RawServer::start(|_, _| Vec::new()).await;
    let a = Setup::named("a").start().await;
    let bootnodes =
        vec![format!("mute:{}", mute.address.port()).parse().unwrap(), format!("a:{}", a.address.port()).parse().unwrap()];
    let begun = Instant::now();
    let b = Setup { bootnodes, ..Setup::named("b") }.start().await;
    until("the other bootnode is reached", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    let refused = b.control().await.join(JoinRequest { endpoint: mute.address.to_string() }).await.unwrap_err();
    assert!(refused.message().contains("no answer in time"), "{refused}");
    assert_linked(&b, &a).await;
}
