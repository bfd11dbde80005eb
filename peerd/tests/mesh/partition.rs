//! Networks that are partitioned and merge again, over real links.

use crate::{
    crowd::{is_one_network, times_received},
    proxy::{Proxy, source},
    support::{Setup, TestPeer, until},
};
use p2pdi::v1::JoinRequest;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::watch;

const PEERS: usize = 50;
/// Broadcasts of each side during the partition.
const BROADCASTS: usize = 20;

async fn start(side: u8, index: usize, cut: &watch::Receiver<bool>, bootnodes: &[&TestPeer]) -> TestPeer {
    let proxy = Proxy::start(Some(side), cut.clone()).await;
    let setup = Setup { proxy: Some(proxy), dial_from: Some(source(side, index)), ..Setup::named(&format!("s{side}-{index}")) };
    setup.with_bootnodes(bootnodes.iter().copied()).start().await
}

/// The number of links between the two sides, counted from both ends.
fn across(peers: &[TestPeer]) -> usize {
    let crosses = |peer: &TestPeer| {
        let own = &peer.handle.identity().name().as_str()[..3];
        peer.handle.mesh().view().neighbours.iter().filter(|(other, _)| &other.name().as_str()[..3] != own).count()
    };
    peers.iter().map(crosses).sum()
}

/// Two halves that know each other through one `join` only: neither has a bootnode in the other, so only what the mesh itself remembers can
/// merge them.
#[tokio::test]
async fn fifty_peers_split_in_halves_merge_again_and_receive_what_they_missed() {
    let (cut, is_cut) = watch::channel(false);
    let (mut peers, mut others): (Vec<TestPeer>, Vec<TestPeer>) = (Vec::new(), Vec::new());
    for index in 0..PEERS / 2 {
        for (side, peers) in [(0, &mut peers), (1, &mut others)] {
            let bootnodes: Vec<_> = peers.first().into_iter().chain(peers.get(index / 2)).collect();
            peers.push(start(side, index, &is_cut, &bootnodes).await);
        }
        if index == 0 {
            let endpoint = others[0].handle.identity().endpoint().to_string();
            peers[0].control().await.join(JoinRequest { endpoint }).await.unwrap();
        }
    }
    peers.append(&mut others);
    until("the two sides are one network and well mixed", async || is_one_network(&peers) && across(&peers) > 20).await;
    peers[1].say_to_all("before").await;
    until("all peers have received it", async || times_received(&peers, "before").iter().sum::<usize>() == PEERS - 1).await;

    cut.send_replace(true);
    let begun = Instant::now();
    until("each side is on its own", async || {
        across(&peers) == 0 && is_one_network(&peers[..PEERS / 2]) && is_one_network(&peers[PEERS / 2..])
    })
    .await;
    let sent: Vec<_> =
        (0..BROADCASTS).flat_map(|number| [(3, format!("0 says {number}")), (PEERS - 3, format!("1 says {number}"))]).collect();
    for (who, body) in &sent {
        peers[*who].say_to_all(body.clone()).await;
    }
    until("each side has received its own broadcasts", async || {
        sent.iter().all(|(_, body)| times_received(&peers, body).iter().sum::<usize>() >= PEERS / 2 - 1)
    })
    .await;
    for (_, body) in &sent {
        assert_eq!(times_received(&peers, body).iter().sum::<usize>(), PEERS / 2 - 1, "a broadcast crossed the partition");
    }

    // Long enough for both sides to forget the other as far as they ever do: views are full, dials have failed.
    until("half a minute has passed", async || begun.elapsed() > Duration::from_secs(30)).await;
    cut.send_replace(false);
    until("the halves are one network again", async || across(&peers) > 0 && is_one_network(&peers)).await;
    until("both sides have received everything", async || {
        sent.iter().all(|(_, body)| times_received(&peers, body).iter().sum::<usize>() >= PEERS - 1)
    })
    .await;
    for (who, body) in &sent {
        let received = times_received(&peers, body);
        assert!(received.iter().enumerate().all(|(at, times)| *times == usize::from(at != *who)), "{body}: {received:?}");
    }
}

/// The first 40 characters of each message that a peer receives from now on. Its inbox keeps fewer messages than this test sends.
fn record(peer: &TestPeer) -> Arc<Mutex<Vec<String>>> {
    let received = Arc::new(Mutex::new(Vec::new()));
    let (mut subscription, record) = (peer.handle.inbox().subscribe(Vec::new()).unwrap(), Arc::clone(&received));
    tokio::spawn(async move {
        while let Some((message, dropped)) = subscription.next().await {
            let body: String = String::from_utf8_lossy(&message.body).chars().take(40).collect();
            let dropped = (0..dropped).map(|_| "the test reads too slowly".to_owned());
            record.lock().unwrap().extend(dropped.chain([body]));
        }
    });
    received
}

/// A peer that is linked again gets every broadcast that is still in the window, once.
#[tokio::test]
async fn a_peer_that_was_cut_off_receives_once_what_is_in_the_window_and_nothing_older() {
    let (cut, is_cut) = watch::channel(false);
    let a = start(0, 0, &is_cut, &[]).await;
    let b = start(0, 1, &is_cut, &[&a]).await;
    let c = start(1, 0, &is_cut, &[&a, &b]).await;
    until("all are linked", async || [&a, &b, &c].iter().all(|peer| peer.neighbours() == 2)).await;
    a.say_to_all("before").await;
    until("it is received", async || c.messages() == ["before"]).await;

    cut.send_replace(true);
    let received = record(&c);
    until("the partition is detected", async || c.neighbours() == 0 && a.neighbours() == 1 && b.neighbours() == 1).await;
    // 9 MiB, of which the last 8 are kept.
    a.say_to_all("pushed out by what follows").await;
    until("it is the oldest of both", async || b.messages().contains(&"pushed out by what follows".to_owned())).await;
    let large = |number: usize| format!("{number:04}{}", "x".repeat(60 * 1024));
    for number in 0..150 {
        b.say_to_all(large(number)).await;
    }
    for number in 0..20 {
        a.say_to_all(format!("small {number}")).await;
    }
    until("the other two have all", async || b.mesh().broadcasts == 22 && a.mesh().broadcasts == 150).await;
    c.say_to_all("said alone").await;

    cut.send_replace(false);
    until("they are linked again", async || c.neighbours() > 0).await;
    let has = |body: &str| received.lock().unwrap().iter().any(|message| message.starts_with(body));
    until("it has the last broadcast of each", async || has("small 19") && has("0149")).await;
    until("its own broadcast is received", async || {
        [&a, &b].iter().all(|peer| peer.messages().contains(&"said alone".to_owned()))
    })
    .await;
    // One more, so that nothing else is in flight.
    a.say_to_all("after").await;
    until("it is received", async || has("after")).await;
    let received = received.lock().unwrap().clone();
    let mut once = received.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), received.len(), "a message arrived twice: {received:?}");
    let has = |body: &str| received.iter().any(|message| message.starts_with(body));
    assert!(!has("pushed out by what follows"));
    assert_eq!(received.iter().filter(|body| body.starts_with("small")).count(), 20);
    // 8 MiB are kept, in broadcasts of 60 KiB.
    let large = received.iter().filter(|body| body.ends_with('x')).count();
    assert!((120..140).contains(&large), "{large} arrived");
}
