//! The remote index: what peers list of other peers' documents, also of hostile ones.

use super::*;
use crate::support::holder::Holder;
use p2pdi::{
    content::ContentHash,
    v1::{Document, Holding, RfcQueryRequest},
};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::{
        rfc_query::{self, Limits, Listed},
        search::ask,
    },
};

async fn query(peer: &Peer, request: RfcQueryRequest) -> Vec<Holding> {
    let answer =
        rfc_query::query(ChannelPool::new(None).peer(&peer.address.into(), None), request, Limits::LISTING).await.unwrap();
    let holding = |listed: Listed| Holding { document: Some((&listed.document).into()), holders: listed.holders };
    answer.documents.into_iter().map(holding).collect()
}

async fn names(peer: &Peer) -> Vec<String> {
    let mut names: Vec<_> =
        query(peer, RfcQueryRequest::default()).await.into_iter().map(|holding| holding.document.unwrap().name).collect();
    names.sort();
    names
}

fn holders(holding: &Holding) -> Vec<&str> {
    holding.holders.iter().map(|holder| holder.peer_name.as_str()).collect()
}

#[tokio::test]
async fn a_peer_lists_documents_of_others_and_drops_them_when_they_leave() {
    let registry = Running::in_memory().await;
    let a = member("a", registry.address, &[("rfc48.txt", b"protocol plateau"), ("common.txt", b"both")]).await;
    let b = member("b", registry.address, &[("also common.txt", b"both")]).await;
    eventually("what a holds", async || (names(&b).await.len() == 2).then_some(())).await;

    let found = query(&b, RfcQueryRequest { number: 48, ..Default::default() }).await;
    let [holding] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(holders(holding), ["a"]);
    let holder = &holding.holders[0];
    assert_eq!(
        (holder.endpoint.as_str(), &holder.peer_id),
        (a.address.to_string().as_str(), &a.handle.identity().id().to_field())
    );
    let age = holder.age.expect("an age");
    assert!((0..60).contains(&age.seconds), "{age:?}");

    // The same content under two names is one document with two holders; its own name and itself come first.
    let common = query(&b, RfcQueryRequest { blake3: ContentHash::of(b"both").to_field(), ..Default::default() }).await;
    assert_eq!(common.len(), 1);
    assert_eq!((common[0].document.as_ref().unwrap().name.as_str(), holders(&common[0])), ("also common.txt", vec!["b", "a"]));
    let own = query(&b, RfcQueryRequest { own_only: true, ..Default::default() }).await;
    assert_eq!((own.len(), holders(&own[0])), (1, vec!["b"]));

    // A search finds the holder by it.
    let answers = ask(&ChannelPool::new(None), &[b.source("b")], &DocumentSelector::Number(48)).await;
    assert_eq!(answers.found()[0].holders, [a.source("a")]);

    let version = first_version(&b).await;
    a.stop().await;
    eventually("b alone", async || (names(&b).await == ["also common.txt"]).then_some(())).await;
    assert!(first_version(&b).await > version, "dropped documents change the version");
    b.stop().await;
    registry.stop().await;
}

async fn first_version(peer: &Peer) -> u64 {
    let mut stream = peer.client().rfc_query(RfcQueryRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap().version
}

#[tokio::test]
async fn a_change_at_one_peer_reaches_the_others() {
    let registry = Running::in_memory().await;
    let a = member("a", registry.address, &[("one.txt", b"1")]).await;
    let b = member("b", registry.address, &[]).await;
    eventually("the first", async || (names(&b).await == ["one.txt"]).then_some(())).await;
    fs::write(a.share().join("two.txt"), "2").unwrap();
    fs::remove_file(a.share().join("one.txt")).unwrap();
    eventually("the second in place of the first", async || (names(&b).await == ["two.txt"]).then_some(())).await;
    for peer in [a, b] {
        peer.stop().await;
    }
    registry.stop().await;
}

#[tokio::test]
async fn invalid_listings_are_not_passed_on_and_silent_peers_delay_nobody() {
    let registry = Running::in_memory().await;
    let document = |name: &str| Document {
        name: name.into(),
        title: "\u{1b}]0;title\u{7}".into(),
        size: 4,
        blake3: ContentHash::of(name.as_bytes()).to_field(),
        ..Default::default()
    };
    let mut listing: Vec<_> = ["../evil", "/etc/passwd", "a\0b", ".ssh/id", "good.txt"].into_iter().map(document).collect();
    listing.push(Document { size: u64::MAX, ..document("huge") });
    listing.push(Document { blake3: vec![1; 5].into(), ..document("short") });
    listing.push(Document { title: "t".repeat(5000), ..document("wordy") });
    let liar = Holder::listing(listing, 3).await;
    // Accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stranger = |name: &str, address: SocketAddr| RegisterRequest {
        name: name.into(),
        endpoint: address.to_string(),
        id: vec![7; 16].into(),
        ..Default::default()
    };
    for n in 0..3 {
        register(registry.address, stranger(&format!("a-silent-{n}"), silent.local_addr().unwrap())).await;
    }
    register(registry.address, stranger("b-liar", liar.address)).await;
    let honest = member("z-honest", registry.address, &[("honest.txt", b"true")]).await;
    let learner = member("learner", registry.address, &[]).await;
    // The registered peers' leases expire soon; until then all are asked at once.
    let seen = eventually("both", async || {
        let found = query(&learner, RfcQueryRequest::default()).await;
        (found.len() >= 2).then_some(found)
    })
    .await;
    for holding in &seen {
        let document = holding.document.as_ref().unwrap();
        assert!(["good.txt", "honest.txt"].contains(&document.name.as_str()), "{document:?}");
        assert!(!document.title.chars().any(char::is_control), "{document:?}");
    }
    for peer in [honest, learner] {
        peer.assert_serves_nothing_new().await;
        peer.stop().await;
    }
    drop(silent);
    registry.stop().await;
}

trait Settled {
    async fn assert_serves_nothing_new(&self);
}

impl Settled for Peer {
    /// Documents of other peers are listed, and never served.
    async fn assert_serves_nothing_new(&self) {
        let status = support::peer::get(&mut self.client(), support::peer::by_name("good.txt")).await.unwrap_err();
        assert_eq!(p2pdi::status::Reason::of(&status), Some(p2pdi::status::Reason::DocumentUnknown));
    }
}

#[tokio::test]
async fn a_listing_that_does_not_end_is_cut_off() {
    let document = Document {
        name: "n".repeat(190),
        title: "t".repeat(500),
        size: 1,
        blake3: ContentHash::of(b"").to_field(),
        ..Default::default()
    };
    // 100 MiB in all.
    let talker = Holder::listing(vec![document; 130_000], 1000).await;
    let (channels, endpoint) = (ChannelPool::new(None), talker.address.into());
    let listed =
        within("a listing", rfc_query::query(channels.peer(&endpoint, None), RfcQueryRequest::default(), Limits::LISTING)).await;
    let bytes: usize = listed.unwrap().documents.iter().map(|listed| listed.document.title.len() + 190).sum();
    assert!(bytes < 66 << 20, "{bytes} bytes taken");
}
