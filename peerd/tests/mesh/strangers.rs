//! What a hostile peer can say on a link, and how often.

use crate::{
    proxy::source,
    stranger::{Impostor, RawLink, contact, frame, hello},
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

/// Two peers that are linked, so that there is something to disturb.
async fn pair() -> (TestPeer, TestPeer) {
    let a = Setup::named("a").start().await;
    let b = Setup::named("b").with_bootnodes([&a]).start().await;
    until("they are linked", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    (a, b)
}

/// That nothing is wrong between two peers.
async fn is_well(a: &TestPeer, b: &TestPeer) {
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
        self.whisper(whisper(name, "are you well?")).await.unwrap().into_inner().delivered_by
    }
}

#[tokio::test]
async fn frames_that_cannot_be_are_dropped_and_counted_and_the_link_stays_until_there_are_many() {
    let (a, b) = pair().await;
    logged("");
    let mut link = RawLink::neighbour(a.address, None, contact(7, "liar", "127.0.0.1:1")).await;
    let many = (0..300).map(|id| contact(id, "x", "127.0.0.1:1")).collect();
    let id = |bytes: usize| Bytes::from(vec![1; bytes]);
    let wrong = [
        // Bytes that are no protobuf, or not to their end.
        b"\xff\xff\xff\xff".to_vec(),
        b"\x0a\x7f\x01".to_vec(),
        vec![0x0f; 2_000],
    ];
    let frames: [LinkFrame; 6] = [
        frame(Body::Shuffle(Shuffle { nonce: 1, path: vec![id(3)], ttl: 3, peers: Vec::new() })),
        frame(Body::NeighbourReply(NeighbourReply { accepted: true, peers: many })),
        frame(Body::Broadcast(Broadcast { id: None, hops: 1, age_ms: 0, payload: Bytes::new() })),
        frame(Body::Broadcast(Broadcast {
            id: Some(BroadcastId { origin: id(16), incarnation: 1, sequence: 1 }),
            hops: 1,
            age_ms: 0,
            payload: vec![0; 100_000].into(),
        })),
        frame(Body::Seek(Seek { id: id(16), to: "../etc".into(), hops: 1 })),
        frame(Body::Seek(Seek { id: id(2), to: "b".into(), hops: 1 })),
    ];
    let sent = (wrong.len() + frames.len()) as u64;
    for bytes in wrong {
        link.say_bytes(bytes).await;
    }
    for frame in frames {
        link.say(frame).await;
    }
    until("all are counted", async || a.mesh().misbehaviour == sent).await;
    assert!(a.handle.mesh().view().linked.iter().any(|peer| peer.name().as_str() == "liar"), "a bug is no reason to part");
    is_well(&a, &b).await;
    // What is known well cannot be asked for by what came with it.
    until("frames of a newer peer are no fault", async || {
        link.say_bytes(b"\x0a\x04\xfa\x7f\x01\x00".to_vec()).await;
        a.mesh().misbehaviour == sent
    })
    .await;
    for _ in 0..1_000 {
        if !link.say_bytes(vec![0xff; 8]).await {
            break;
        }
    }
    link.ended().await;
    until("it is put out", async || !a.handle.mesh().view().linked.iter().any(|peer| peer.name().as_str() == "liar")).await;
    // And left alone for a while: a new link of its own is not taken.
    let mut again = RawLink::open(a.address, None).await.unwrap();
    again.say(hello(contact(7, "liar", "127.0.0.1:1"))).await;
    again.ended().await;
    is_well(&a, &b).await;
    // A thousand wrong frames, two lines: it is named, and what it did.
    let lines: Vec<_> = logged("peer=liar").into_iter().filter(|line| line.contains("WARN")).collect();
    assert!(lines.len() == 2 && lines[0].contains("sent a frame that cannot be read"), "{lines:?}");
    assert!(lines[1].contains("banning it for a while"), "{lines:?}");
}

#[tokio::test]
async fn a_frame_too_large_ends_the_link_and_is_counted() {
    let (a, b) = pair().await;
    logged("");
    let mut link = RawLink::neighbour(a.address, None, contact(7, "giant", "127.0.0.1:1")).await;
    link.say_bytes(vec![0; 300 * 1024]).await;
    link.ended().await;
    until("it is counted", async || a.mesh().misbehaviour == 1).await;
    assert!(logged("peer=giant").iter().any(|line| line.contains("sent a frame past the limit")));
    is_well(&a, &b).await;
}

#[tokio::test]
async fn who_breaks_every_link_is_not_dialled_again_and_again() {
    let large = frame(Body::Broadcast(Broadcast { id: None, hops: 1, age_ms: 0, payload: vec![0; 300 * 1024].into() }));
    let impostor = Impostor::accepting(7, "breaker", vec![large]).await;
    let bootnode = format!("breaker:{}", impostor.address.port());
    let a = Setup { bootnodes: vec![bootnode.parse().unwrap()], ..Setup::named("a") }.start().await;
    until("it is counted", async || a.mesh().misbehaviour > 0).await;
    let begun = Instant::now();
    until("six seconds have passed", async || begun.elapsed() > Duration::from_secs(6)).await;
    assert!(impostor.links() <= 8, "dialled {} times in six seconds", impostor.links());
    assert_eq!(a.mesh().misbehaviour, 1, "a link to it was taken again");
    // Its operator can overrule that.
    let joined = a.control().await.join(JoinRequest { endpoint: impostor.address.to_string() }).await.unwrap().into_inner();
    assert_eq!(joined.peer.unwrap().name, "breaker");
    until("it breaks that too", async || a.mesh().misbehaviour == 2).await;
}

#[tokio::test]
async fn greetings_that_lie_are_refused_and_counted() {
    let (a, b) = pair().await;
    let lies = [
        Contact { id: Bytes::from_static(&[1; 15]), ..contact(7, "x", "127.0.0.1:1") },
        Contact { id: Bytes::new(), ..contact(7, "x", "127.0.0.1:1") },
        contact(7, &"x".repeat(100_000), "127.0.0.1:1"),
        contact(7, "", "127.0.0.1:1"),
        contact(7, "two words", "127.0.0.1:1"),
        contact(7, "x", "nowhere"),
        contact(7, "x", "127.0.0.1:99999"),
        contact(7, "x", &format!("{}:1", "h".repeat(5_000))),
    ];
    let count = lies.len() as u64;
    for lie in lies {
        let mut link = RawLink::open(a.address, None).await.unwrap();
        link.say(hello(lie)).await;
        link.ended().await;
    }
    // No greeting at all, or something else in its place.
    for first in [b"\xff\xff".to_vec(), vec![0; 300 * 1024], Vec::new()] {
        let mut link = RawLink::open(a.address, None).await.unwrap();
        link.say_bytes(first).await;
        link.ended().await;
    }
    let mut link = RawLink::open(a.address, None).await.unwrap();
    link.say(frame(Body::Hello(LinkHello { peer: None, incarnation: 1 }))).await;
    link.ended().await;
    until("all are counted", async || a.mesh().misbehaviour == count + 4).await;
    // By the victim's own id there is no link either.
    let own = a.handle.identity().id().as_u128();
    let mut link = RawLink::open(a.address, None).await.unwrap();
    link.say(hello(contact(own, "a", &a.address.to_string()))).await;
    link.ended().await;
    assert_eq!(a.mesh().links, 1);
    is_well(&a, &b).await;
}

/// A thief says to `to` five times that it is `stolen`.
async fn claim_in_vain(to: &TestPeer, stolen: &TestPeer) {
    let identity = stolen.handle.identity();
    for _ in 0..5 {
        let mut thief = RawLink::open(to.address, None).await.unwrap();
        thief.say(hello(contact(identity.id().as_u128(), identity.name().as_str(), "127.0.0.1:1"))).await;
        thief.ended().await;
        is_well(to, stolen).await;
    }
    assert!(to.mesh().misbehaviour >= 5);
    assert_eq!(stolen.messages().len(), 5, "every whisper came to the one that was there");
}

#[tokio::test]
async fn nobody_takes_the_place_of_a_peer_that_is_linked_by_claiming_its_id() {
    let (a, b) = pair().await;
    // B dialled A; a thief says to A that it is B, as B would after it lost its link.
    claim_in_vain(&a, &b).await;
    // The other way round both sides might be dialling at once, but not for ever.
    let linked = Instant::now();
    until("the link is not new", async || linked.elapsed() > Duration::from_secs(4)).await;
    claim_in_vain(&b, &a).await;
}

#[tokio::test]
async fn a_sender_is_heard_though_somebody_speaks_in_its_name_ahead_of_it() {
    let (a, b) = pair().await;
    let link = RawLink::neighbour(a.address, None, contact(7, "liar", "127.0.0.1:1")).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let ahead = u64::try_from(now).unwrap() + 60_000;
    let id = BroadcastId { origin: b.handle.identity().id().to_field(), incarnation: ahead, sequence: 100 };
    link.say(frame(Body::Broadcast(Broadcast { id: Some(id), hops: 1, age_ms: 0, payload: Bytes::new() }))).await;
    until("it is passed on", async || a.mesh().broadcasts == 1).await;
    let mut said = 0;
    until("the real one is heard", async || {
        said += 1;
        b.say_to_all(format!("{said}")).await;
        a.messages().iter().any(|heard| !heard.is_empty())
    })
    .await;
    // After a restart as well.
    let kept = b.handle.state().join("incarnation");
    until("its life is numbered anew", async || std::fs::read_to_string(&kept).unwrap().parse::<u64>().unwrap() > ahead).await;
}

#[tokio::test]
async fn one_address_that_opens_thousands_of_links_keeps_nobody_out() {
    let a = Setup::named("a").start().await;
    // Four connections with 50 links each from one address, none of which ever greets; each that is closed is opened again.
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
    until("another is in at once", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    // Less than a link that does not greet is waited for, were it not for a loaded machine.
    println!("in after {:?}, beside {} links opened", begun.elapsed(), opened.load(Ordering::Relaxed));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(openers.try_join_next().is_none(), "one was refused for another reason");
    openers.shutdown().await;
    // Links that greet, each by an id of its own, are no better.
    let mut greeted = Vec::new();
    for id in 0..200 {
        let Ok(link) = RawLink::open(a.address, Some(one)).await else { continue };
        link.say(hello(contact(1_000 + id, &format!("sybil-{id}"), "127.0.0.1:1"))).await;
        greeted.push(link);
    }
    assert!(greeted.len() >= 8, "{} were let in to greet", greeted.len());
    let c = Setup::named("c").with_bootnodes([&a]).start().await;
    until("yet another is in", async || c.is_linked_to(&a) && a.is_linked_to(&c)).await;
    assert!(a.mesh().links <= 64);
    is_well(&a, &b).await;
}

#[tokio::test]
async fn a_peer_that_never_answers_a_greeting_holds_up_nobody() {
    let mute = Impostor::start(|_, _| Vec::new()).await;
    let a = Setup::named("a").start().await;
    let bootnodes =
        vec![format!("mute:{}", mute.address.port()).parse().unwrap(), format!("a:{}", a.address.port()).parse().unwrap()];
    let begun = Instant::now();
    let b = Setup { bootnodes, ..Setup::named("b") }.start().await;
    until("the other bootnode is reached", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    let refused = b.control().await.join(JoinRequest { endpoint: mute.address.to_string() }).await.unwrap_err();
    assert!(refused.message().contains("no answer in time"), "{refused}");
    is_well(&b, &a).await;
}
