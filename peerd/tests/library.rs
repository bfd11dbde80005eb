//! Peers inside a program, through the public interface for embedders only.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may fail loudly, and its sizes are small"
)]

mod support;

use peerd::{Message, Peer, PeerError, PeerHandle, Reply, inbox::REPLY_TIMEOUT};
use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use support::{PATIENCE, eventually, within};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

async fn peer(name: &str) -> Peer {
    Peer::builder(name).build().await.unwrap()
}

async fn linked(a: &PeerHandle, b: &PeerHandle) {
    eventually("a link", async || a.peers().iter().any(|peer| peer.linked && peer.name == *b.name()).then_some(())).await;
}

/// The messages of a kind that a peer receives, as text.
fn received(peer: &PeerHandle, kind: &str) -> Arc<Mutex<Vec<String>>> {
    let received = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&received);
    peer.on(kind, move |message: Message| {
        let into = Arc::clone(&into);
        async move {
            let Message { from, kind, broadcast, hops, .. } = &message;
            into.lock().unwrap().push(format!("{from} {kind} {} {broadcast} {hops}", message.text()));
        }
    })
    .unwrap();
    received
}

#[tokio::test]
async fn a_handler_gets_the_message_and_its_reply_goes_back() {
    let (a, b) = (peer("A").await, peer("B").await);
    let received = received(&b, "NEWS");
    b.on("TEST", |message| async move { Reply::new("TESTED", message.text() + " and seen") }).unwrap();
    let joined = a.join(b.endpoint()).await.unwrap();
    assert_eq!((joined.name, joined.linked), (b.name().clone(), true));
    let delivery = a.whisper("b", "TEST", "sent").await.unwrap();
    assert_eq!((delivery.by.as_str(), delivery.hops, delivery.unclaimed), ("B", 1, false));
    assert_eq!(delivery.reply, Some(Reply::new("TESTED", "sent and seen")));
    // A peer can whisper to itself.
    assert_eq!(b.whisper("B", "TEST", "x").await.unwrap().reply, Some(Reply::new("TESTED", "x and seen")));

    assert_eq!(a.whisper("B", "NEWS", "one").await.unwrap().reply, None);
    a.broadcast("NEWS", "all\u{1b}[2J").await.unwrap();
    let expected = ["A NEWS one false 1", "A NEWS all\u{fffd}[2J true 1"];
    eventually("both", async || (*received.lock().unwrap() == expected).then_some(())).await;

    // Every peer answers PING itself; a message of a kind without handler is reported as unclaimed.
    let pong = a.whisper("B", "PING", "").await.unwrap().reply.unwrap();
    assert_eq!((pong.kind.as_str(), &pong.body[..]), ("PONG", b.endpoint().as_str().as_bytes()));
    assert!(a.whisper("B", "ODD", "?").await.unwrap().unclaimed);
    assert_eq!(b.node().inbox().status().unclaimed, 1);
    b.shutdown().await.unwrap();
    a.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_reply_comes_back_over_a_relay() {
    let middle = peer("middle").await;
    // These two cannot be dialled: nothing listens on port 1.
    let hidden = |name: &str| Peer::builder(name).advertise("127.0.0.1:1").build();
    let (left, right) = (hidden("left").await.unwrap(), hidden("right").await.unwrap());
    right.on("TEST", |message| async move { Reply::new("TESTED", message.body) }).unwrap();
    for peer in [&left, &right] {
        peer.join(middle.endpoint()).await.unwrap();
    }
    let delivery = left.whisper("right", "TEST", "hello").await.unwrap();
    assert_eq!((delivery.hops, delivery.reply), (2, Some(Reply::new("TESTED", "hello"))));
    assert!(left.whisper("right", "ODD", "").await.unwrap().unclaimed);
    // Found by name through the mesh.
    assert_eq!(left.find_peer("RIGHT").await.unwrap().unwrap().name, *right.name());
    assert_eq!(left.find_peer("nobody").await.unwrap(), None);
}

#[tokio::test]
async fn handlers_that_hang_or_panic_do_not_delay_others() {
    let (a, b) = (peer("A").await, peer("B").await);
    b.on("HANG", |_| pending::<()>()).unwrap();
    b.on("PANIC", |message| async move { assert_ne!(message.text(), "bad", "the test asks for a panic") }).unwrap();
    b.on("ECHO", |message| async { Some(Reply::new("ECHO", message.body)) }).unwrap();
    a.join(b.endpoint()).await.unwrap();
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(a.whisper("B", "PANIC", "bad").await.unwrap().reply, None);
        // Delivered without a reply, after REPLY_TIMEOUT.
        assert_eq!(a.whisper("B", "HANG", "").await.unwrap().reply, None);
        assert_eq!(a.whisper("B", "ECHO", "x").await.unwrap().reply, Some(Reply::new("ECHO", "x")));
    }
    assert!(begun.elapsed() >= peerd::inbox::REPLY_TIMEOUT * 3);
    within("the end of a peer with a handler that hangs", b.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_handler_can_send_messages() {
    let (a, b) = (peer("A").await, peer("B").await);
    let answers = received(&a, "ADVERTISED");
    let handle = b.handle();
    b.on("ADVERTISE", move |message| {
        let handle = handle.clone();
        async move {
            let names: Vec<_> = handle.peers().iter().map(|peer| peer.name.to_string()).collect();
            handle.whisper(&message.from, "ADVERTISED", names.join(" ")).await.unwrap();
        }
    })
    .unwrap();
    a.join(b.endpoint()).await.unwrap();
    a.broadcast("ADVERTISE", "").await.unwrap();
    eventually("its answer", async || (*answers.lock().unwrap() == ["B ADVERTISED A false 1"]).then_some(())).await;
}

#[tokio::test]
async fn the_peers_of_another_peer_can_be_listed_and_joined() {
    let (a, b, c) = (peer("A").await, peer("B").await, peer("C").await);
    b.join(a.endpoint()).await.unwrap();
    assert_eq!(c.peers(), []);
    // A running peer, one that does not run, and the peer itself.
    let joined = c.bootstrap([a.endpoint().as_str(), "127.0.0.1:1", c.endpoint().as_str()]).await.unwrap();
    assert_eq!(joined.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["A"]);
    let theirs = c.peers_from("a").await.unwrap();
    assert_eq!(theirs.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["B"]);
    assert_eq!(c.peers_from(a.endpoint()).await.unwrap()[0].endpoint, b.endpoint());
    let joined = c.bootstrap(theirs).await.unwrap();
    assert_eq!((joined[0].name.clone(), joined[0].linked), (b.name().clone(), true));
    assert_eq!(c.find_peer("b").await.unwrap().unwrap().endpoint, b.endpoint());

    let tally = c.broadcast_counted("NEWS", "x", PATIENCE).await.unwrap();
    assert_eq!((tally.known, tally.acknowledged, tally.missing.len()), (2, 2, 0));
    b.shutdown().await.unwrap();
    eventually("the goodbye", async || {
        a.peers().iter().all(|peer| !peer.linked || peer.name != "B".parse().unwrap()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_is_not_started_has_its_port_and_reports_that_it_is_not_running() {
    let other = peer("other").await;
    let mut late = Peer::builder("late").bootnode(other.endpoint()).autostart(false).build().await.unwrap();
    let received = received(&late, "TEST");
    for asked in [late.join(other.endpoint()).await.map(drop), late.broadcast("TEST", "").await] {
        assert!(matches!(asked, Err(PeerError::NotStarted)), "{asked:?}");
    }
    late.start();
    late.start();
    linked(&other, &late).await;
    other.whisper("late", "TEST", "now").await.unwrap();
    eventually("it", async || (received.lock().unwrap().len() == 1).then_some(())).await;
    let (handle, address) = (late.handle(), late.endpoint().to_string());
    late.shutdown().await.unwrap();
    assert!(TcpStream::connect(&address).await.is_err());
    assert!(matches!(handle.broadcast("TEST", "").await, Err(PeerError::Stopped)));
    assert!(matches!(handle.on("TEST", |_| async {}), Err(PeerError::Stopped)));
}

#[tokio::test]
async fn a_dropped_peer_stops_and_leaves_nothing_behind() {
    for autostart in [true, false] {
        let held = Arc::new(());
        let peer = Peer::builder("A").autostart(autostart).build().await.unwrap();
        let (in_handler, itself) = (Arc::clone(&held), peer.handle());
        peer.on("TEST", move |_| {
            let _hold = (Arc::clone(&in_handler), itself.clone());
            async {}
        })
        .unwrap();
        let (handle, address) = (peer.handle(), peer.endpoint().to_string());
        let state = handle.node().state().to_owned();
        assert!(state.join("id").exists());
        drop(peer);
        within("its end", handle.stopped()).await;
        eventually("a free port", async || TcpStream::connect(&address).await.is_err().then_some(())).await;
        eventually("its folder is deleted", async || (!state.exists()).then_some(())).await;
        eventually("its handlers are forgotten", async || (Arc::strong_count(&held) == 1).then_some(())).await;
    }
}

#[tokio::test]
async fn errors_name_the_problem_and_the_remedy() {
    let fails_with = async |built: Result<Peer, PeerError>, words: &str| {
        let error = built.err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    };
    fails_with(Peer::builder("two words").build().await, "name").await;
    fails_with(Peer::builder("A").bootnode("nowhere").build().await, "NAME:PORT, NAME@HOST:PORT or HOST:PORT").await;
    fails_with(Peer::builder("A").registry("https://r:1").build().await, "http://HOST:PORT").await;
    fails_with(Peer::builder("A").share("/no/such/folder").build().await, "/no/such/folder").await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fails_with(Peer::builder("A").listen(taken.local_addr().unwrap()).build().await, "choose another port").await;
    let folder = tempfile::tempdir().unwrap();
    let a = Peer::builder("A").state(folder.path()).build().await.unwrap();
    fails_with(Peer::builder("B").state(folder.path()).build().await, "in use").await;

    let fails_with = |error: Option<PeerError>, words: &str| {
        let error = error.unwrap().to_string();
        assert!(error.contains(words), "{error}");
    };
    fails_with(a.on("two words", |_| async {}).err(), "kind");
    fails_with(a.on("PING", |_| async {}).err(), "answered by every peer itself");
    fails_with(a.whisper("nobody", "TEST", "").await.err(), "request cannot be fulfilled: no route to nobody");
    fails_with(a.whisper("A", "TEST", vec![0_u8; 300_000]).await.err(), "at most 262144");
    fails_with(a.broadcast("TEST", vec![0_u8; 100_000]).await.err(), "Share larger things as documents");
    fails_with(a.join("127.0.0.1:1").await.err(), "cannot join 127.0.0.1:1");
    fails_with(a.join(a.endpoint()).await.err(), "this peer itself");
    fails_with(a.bootstrap(["127.0.0.1:1", "127.0.0.1:2"]).await.err(), "127.0.0.1:2");
    fails_with(a.bootstrap(Vec::<String>::new()).await.err(), "no peer could be joined");
    fails_with(a.peers_from("127.0.0.1:1").await.err(), "127.0.0.1:1");
    let id = a.id();
    a.shutdown().await.unwrap();
    // With the same state folder it is the same peer.
    let again = Peer::builder("A").state(folder.path()).build().await.unwrap();
    assert_eq!(again.id(), id);
    within("its end", again.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_stops_after_a_message_to_all_has_acknowledged_it() {
    let sender = peer("sender").await;
    for round in 0..2 {
        let receiver = peer("receiver").await;
        let mut messages = receiver.messages(&["NEWS"]).unwrap();
        receiver.join(sender.endpoint()).await.unwrap();
        linked(&sender, &receiver).await;
        let stopping = async {
            within("the message", messages.next()).await.unwrap();
            within("the end", receiver.shutdown()).await.unwrap();
        };
        // Nobody is left who would have to acknowledge, so it is counted to the end of the wait.
        let wait = Duration::from_secs(5);
        let (tally, ()) = tokio::join!(sender.broadcast_counted("NEWS", "text", wait), stopping);
        assert_eq!(tally.unwrap().acknowledged, 1, "in round {round}");
    }
}

#[tokio::test]
async fn peers_that_all_stop_at_a_message_have_all_acknowledged_it() {
    const RECEIVERS: usize = 5;
    // A peer that stops passes acknowledgements on for some 100 ms only: a busy machine may lose one that is under way then.
    const LOST_MAX: u64 = 1;
    let mut lost = 0;
    for round in 0..5 {
        // A new one each time: nobody of the round before is known to it.
        let sender = peer("sender").await;
        let mut stopping = JoinSet::new();
        let mut last = sender.endpoint();
        for number in 0..RECEIVERS {
            let receiver = peer(&format!("receiver-{round}-{number}")).await;
            let mut messages = receiver.messages(&["NEWS"]).unwrap();
            // In a row too: acknowledgements may pass through those that stop as well.
            receiver.join(last).await.unwrap();
            // They may be about to link already; then one of the two links is refused.
            let _ = receiver.join(sender.endpoint()).await;
            linked(&sender, &receiver).await;
            last = receiver.endpoint();
            stopping.spawn(async move {
                within("the message", messages.next()).await.unwrap();
                within("the end", receiver.shutdown()).await.unwrap();
            });
        }
        let all = async || (sender.peers().len() == RECEIVERS).then_some(());
        eventually("all of them", all).await;
        let tally = sender.broadcast_counted("NEWS", "text", PATIENCE).await.unwrap();
        lost += (RECEIVERS as u64).checked_sub(tally.acknowledged).expect("nobody is counted twice");
        assert!(lost <= LOST_MAX, "in round {round}: {tally:?}");
        within("their ends", stopping.join_all()).await;
    }
}

#[tokio::test]
async fn a_message_to_all_goes_out_from_a_peer_that_stops_at_once() {
    let receiver = peer("receiver").await;
    let mut messages = receiver.messages(&["NEWS"]).unwrap();
    for round in 0..5 {
        let sender = peer("sender").await;
        sender.join(receiver.endpoint()).await.unwrap();
        // More than fits into the windows of a connection.
        let texts: Vec<_> = (0..8).map(|number| format!("{round} {number} {}", "x".repeat(60_000))).collect();
        for text in &texts {
            sender.broadcast("NEWS", text.clone()).await.unwrap();
        }
        within("the end", sender.shutdown()).await.unwrap();
        for text in &texts {
            let (message, dropped) = within("the message", messages.next()).await.unwrap();
            assert!(message.text() == *text && dropped == 0, "message {} of {round}: {dropped} dropped", message.text().len());
        }
    }
}

/// What a peer is told that whispers to one that stops while its handler answers, and how long that took.
async fn reply_of_one_that_stops() -> (Option<Reply>, Duration) {
    let (a, b) = (peer("A").await, peer("B").await);
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, finishes) = (Arc::clone(&begun), Arc::clone(&finish));
    b.on("STOP", move |_| {
        let (begins, finishes) = (Arc::clone(&begins), Arc::clone(&finishes));
        async move {
            begins.notify_one();
            finishes.notified().await;
            Reply::new("STOPPED", "after this")
        }
    })
    .unwrap();
    a.join(b.endpoint()).await.unwrap();
    linked(&b, &a).await;
    let address = b.endpoint().to_string();
    let stopping = async {
        begun.notified().await;
        let stopped = async {
            eventually("the stop", async || TcpStream::connect(&address).await.is_err().then_some(())).await;
            finish.notify_one();
        };
        let (ended, ()) = tokio::join!(b.shutdown(), stopped);
        ended.unwrap();
    };
    let began = Instant::now();
    let whispered = async {
        let delivery = a.whisper("B", "STOP", "").await.unwrap();
        (delivery.reply, began.elapsed())
    };
    let both = Box::pin(async { tokio::join!(whispered, stopping) });
    let (told, ()) = within("the reply", both).await;
    told
}

#[tokio::test]
async fn a_peer_that_stops_while_a_handler_answers_sends_its_reply() {
    // Senders wait a second for a reply, and a busy machine may need that long for the steps before it: then it says nothing.
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        let (reply, took) = reply_of_one_that_stops().await;
        if reply.is_none() && took >= REPLY_TIMEOUT {
            continue;
        }
        assert_eq!(reply, Some(Reply::new("STOPPED", "after this")), "after {took:?}");
        return;
    }
    panic!("no reply within {REPLY_TIMEOUT:?}, {TRIES} times");
}
