//! Links that stall without closing, and peers that use more than their share.

use crate::{
    proxy::{Proxy, source},
    raw::{RawLink, contact, frame},
    support::{PATIENCE, Setup, TestPeer, logged, until, whisper},
};
use p2pdi::{
    link::LinkMessage,
    v1::{LinkPing, WhisperRequest, link_frame::Body},
};
use peerd::{inbox::Reply, overlay::membership::Direction};
use prost::Message as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Handle,
    sync::watch,
};

#[tokio::test]
async fn a_link_that_stalls_without_closing_is_detected_within_seconds_and_replaced() {
    let (stall, stalls) = watch::channel(false);
    let hub = Setup::named("hub").start().await;
    let proxy = Proxy::start(None, stalls).await;
    let b = Setup { proxy: Some(proxy), ..Setup::named("b") }.start().await;
    let a = Setup::named("a").with_bootnodes([&b, &hub]).start().await;
    hub.control().await.join(p2pdi::v1::JoinRequest { endpoint: a.address.to_string() }).await.unwrap();
    let direction = || {
        let view = a.handle.mesh().view();
        view.neighbours.iter().find(|(peer, _)| peer.name().as_str() == "b").map(|(_, direction)| *direction)
    };
    until("a has dialled b", async || direction() == Some(Direction::Outgoing) && b.is_linked_to(&a)).await;
    until("a is linked to the hub", async || a.is_linked_to(&hub)).await;
    stall.send_replace(true);
    let begun = Instant::now();
    // b cannot be dialled any more, but it dials.
    until("b has dialled a instead", async || direction() == Some(Direction::Incoming) && b.is_linked_to(&a)).await;
    // The link is closed after six silent seconds; the rest is for a loaded machine.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(begun.elapsed() > Duration::from_secs(2), "a stall is not a broken connection: {:?}", begun.elapsed());
    a.say_to_all("around it").await;
    until("b receives it", async || b.messages() == ["around it"]).await;
    stall.send_replace(false);
    a.say_to_all("and once more").await;
    let both = ["around it", "and once more"];
    until("no peer receives a message twice", async || b.messages() == both && hub.messages() == both).await;
}

#[tokio::test]
async fn a_whisper_whose_link_ends_before_the_reply_gets_the_reply_of_its_one_handling() {
    let (_open, stalls) = watch::channel(false);
    let proxy = Proxy::start(None, stalls).await;
    let (ends, dials) = (proxy.ends(), proxy.callers());
    let b = Setup { proxy: Some(proxy), ..Setup::named("b") }.start().await;
    let a = Setup::named("a").with_bootnodes([&b]).start().await;
    until("they are linked", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    let handled = Arc::new(AtomicU32::new(0));
    let (release, released) = watch::channel(false);
    let counting = Arc::clone(&handled);
    let answer = move |_| {
        let (number, mut released) = (counting.fetch_add(1, Ordering::Relaxed), released.clone());
        async move {
            released.wait_for(|released| *released).await.unwrap();
            Reply::new("ANSWER", format!("of handling {number}"))
        }
    };
    b.handle.handlers().on("QUESTION".parse().unwrap(), answer, &Handle::current()).unwrap();
    let question = WhisperRequest { kind: "QUESTION".into(), ..whisper("b", "how are you?") };
    let mut client = a.client().await;
    let asking = tokio::spawn(async move { client.whisper(question).await });
    until("it is being handled", async || handled.load(Ordering::Relaxed) == 1).await;
    let before = dials.lock().unwrap().len();
    ends.send_replace(());
    until("the message is on another way", async || dials.lock().unwrap().len() > before).await;
    release.send_replace(true);
    let answered = asking.await.unwrap().unwrap().into_inner();
    assert_eq!((answered.reply_kind.as_str(), &answered.reply[..]), ("ANSWER", &b"of handling 0"[..]));
    assert_eq!((handled.load(Ordering::Relaxed), b.messages().len()), (1, 1));
}

/// The median and the maximum latency of `count` whispers from `from` to `to`.
async fn latencies(from: &TestPeer, to: &str, count: usize) -> (Duration, Duration) {
    let mut client = from.client().await;
    let mut took = Vec::new();
    for number in 0..count {
        let begun = Instant::now();
        client.whisper(whisper(to, &format!("{to} {number}"))).await.unwrap();
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    (took[count / 2], took[count - 1])
}

#[tokio::test]
async fn a_peer_that_floods_gets_its_share_and_others_are_served_meanwhile() {
    let hidden = |name: &str| Setup { advertise: Some("127.0.0.1:1".parse().unwrap()), ..Setup::named(name) };
    let victim = Setup::named("victim").start().await;
    // These cannot be dialled, so every whisper between them goes through the victim's links.
    let left = hidden("left").with_bootnodes([&victim]).start().await;
    let right = hidden("right").with_bootnodes([&victim]).start().await;
    until("they are linked", async || left.is_linked_to(&victim) && right.is_linked_to(&victim)).await;
    until("the victim has both neighbours", async || victim.neighbours() == 2).await;
    let (quiet, quiet_most) = latencies(&left, "right", 100).await;

    let link = RawLink::neighbour(victim.address, None, contact(77, "flooder", "127.0.0.1:1")).await;
    let (out, mut incoming) = link.split();
    let ping = LinkMessage::new(frame(Body::Ping(LinkPing { nonce: 7 }))).encode_to_vec();
    let begun = Instant::now();
    let flood = tokio::spawn(async move { while out.send(ping.clone().into()).await.is_ok() {} });
    let pongs = tokio::spawn(async move {
        let mut pongs = 0_u64;
        while let Ok(Ok(Some(_))) = tokio::time::timeout(PATIENCE, incoming.message()).await {
            pongs += 1;
        }
        pongs
    });
    let (busy, busy_most) = latencies(&left, "right", 300).await;
    println!("a whisper, relayed: {quiet:?}, at most {quiet_most:?}; beside a flood: {busy:?}, at most {busy_most:?}");
    assert!(busy < Duration::from_millis(500) && busy_most < Duration::from_secs(4), "{busy:?} {busy_most:?}");
    // Three seconds in all, so that the limit shows.
    until("three seconds have passed", async || begun.elapsed() > Duration::from_secs(3)).await;
    flood.abort();
    let lasted = begun.elapsed().as_secs_f64();
    drop(victim);
    let pongs = pongs.await.unwrap();
    println!("{pongs} frames served of the flood in {lasted:.1} s");
    assert!(pongs > 1_000, "{pongs} in {lasted}: what the machine has to spare is for the flood, too");
}

#[tokio::test]
async fn a_burst_too_large_for_a_slow_link_does_not_close_the_link() {
    logged("");
    let (stall, stalls) = watch::channel(false);
    let proxy = Proxy::start(None, stalls).await;
    let a = Setup { proxy: Some(proxy), ..Setup::named("burst-a") }.start().await;
    let b = Setup::named("burst-b").with_bootnodes([&a]).start().await;
    until("they are linked", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    // More than the connection's window and the link's queue hold, while nothing is read.
    stall.send_replace(true);
    for number in 0..220 {
        b.say_to_all(format!("{number:04}{}", "x".repeat(60 * 1024))).await;
    }
    stall.send_replace(false);
    until("the last one has arrived", async || a.messages().iter().any(|message| message.starts_with("0219"))).await;
    let cut: Vec<_> = logged("peer=burst-a").into_iter().filter(|line| line.contains("does not read")).collect();
    assert!(cut.is_empty(), "{cut:?}");
    println!("{} of 220 arrived", a.mesh().broadcasts);
}

#[tokio::test]
async fn what_others_send_over_a_slow_link_does_not_wait_for_all_of_somebody_who_sends_much() {
    /// Of 16 KiB each: more than what is on its way, less than half of the link's queue, so that all of it is pushed.
    const FLOOD: usize = 120;
    let (stall, stalls) = watch::channel(false);
    let proxy = Proxy::start(None, stalls).await;
    let hub = Setup { proxy: Some(proxy), has_small_buffers: true, ..Setup::named("hub") }.start().await;
    // Nobody can dial these: what reaches the slow one goes through the hub.
    let hidden = |name: &str| Setup { advertise: Some("127.0.0.1:1".parse().unwrap()), ..Setup::named(name) };
    let slow = hidden("slow").with_bootnodes([&hub]).start().await;
    let beside_the_proxy = vec![format!("hub:{}", hub.address.port()).parse().unwrap()];
    let flooder = Setup { bootnodes: beside_the_proxy.clone(), ..hidden("flooder") }.start().await;
    let quiet = Setup { bootnodes: beside_the_proxy, ..hidden("quiet") }.start().await;
    until("the hub has three neighbours", async || hub.neighbours() == 3 && slow.is_linked_to(&hub)).await;
    until("they are linked", async || flooder.is_linked_to(&hub) && quiet.is_linked_to(&hub)).await;
    let mut arriving = slow.handle.inbox().subscribe(Vec::new()).unwrap();
    stall.send_replace(true);
    for _ in 0..FLOOD {
        flooder.say_to_all(vec![b'x'; 16 * 1024]).await;
    }
    until("the flood is in the hub's queue", async || hub.messages().len() == FLOOD).await;
    quiet.say_to_all("a word").await;
    until("the word is, too", async || hub.messages().len() == FLOOD + 1).await;
    stall.send_replace(false);
    let mut before = 0;
    while tokio::time::timeout(PATIENCE, arriving.next()).await.unwrap().unwrap().0.body != "a word" {
        before += 1;
    }
    println!("{before} of {FLOOD} came before the word");
    // Those that were on their way already.
    assert!(before < FLOOD * 3 / 4, "{before} of {FLOOD} came before the word");
}

#[tokio::test]
async fn peers_that_cannot_be_dialled_leave_room_for_others() {
    let hub = Setup::named("hub").start().await;
    // These dial, and cannot be dialled.
    let taker =
        |number: usize| Setup { advertise: Some("127.0.0.1:1".parse().unwrap()), ..Setup::named(&format!("taker-{number}")) };
    let mut takers = Vec::new();
    for number in 0..14 {
        takers.push(taker(number).with_bootnodes([&hub]).start().await);
    }
    until("all its incoming slots are used", async || hub.neighbours() >= 6).await;
    // Four slots are for peers it dials itself.
    assert!(hub.neighbours() <= 6, "{}", hub.neighbours());
    let newcomer = Setup::named("newcomer").with_bootnodes([&hub]).start().await;
    until("a newcomer is linked", async || newcomer.is_linked_to(&hub) && hub.is_linked_to(&newcomer)).await;
    hub.say_to_all("hello").await;
    until("it receives the broadcast", async || newcomer.messages() == ["hello"]).await;
}

/// All addresses in 127.0.0.0/8 are loopback, so a peer can dial from one of its own.
#[tokio::test]
async fn the_topology_walk_dials_from_the_configured_address() {
    let from = source(0, 7);
    let proxy = Proxy::start(None, watch::channel(false).1).await;
    let callers = proxy.callers();
    let b = Setup { proxy: Some(proxy), ..Setup::named("walked-b") }.start().await;
    let a = Setup { dial_from: Some(from), ..Setup::named("walked-a").with_bootnodes([&b]) }.start().await;
    until("a is linked to b", async || a.handle.mesh().view().neighbours.len() == 1).await;
    let linked = callers.lock().unwrap().len();
    let topology = peerd_topology(&a).await;
    assert!(topology.contains("walked-b"), "{topology}");
    let callers = callers.lock().unwrap().clone();
    assert!(callers.len() > linked, "the walk made no connection");
    assert!(callers.iter().all(|caller| *caller == from), "{callers:?}");
}

/// What `GET /network` answers, which waits for a walk.
async fn peerd_topology(peer: &TestPeer) -> String {
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    stream.write_all(b"GET /network HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
