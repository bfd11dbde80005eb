//! Whispers to this peer and to unknown peers, and invalid whispers.

use super::*;
use crate::support::{peer::Peer, within};
use p2pdi::v1::{WhisperRequest, WhisperResponse};

fn to(name: &str) -> WhisperRequest {
    WhisperRequest { to: name.into(), body: "hello".into(), from: "tester".into(), ..Default::default() }
}

async fn whisper(peer: &Peer, request: WhisperRequest) -> Result<WhisperResponse, Status> {
    within("an answer", peer.client().whisper(request)).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_message_for_the_peer_itself_is_put_in_its_inbox() {
    let peer = Peer::sharing(&[]).await;
    let ping = whisper(&peer, WhisperRequest { kind: "PING".into(), ..to("sharer") }).await.unwrap();
    assert_eq!((ping.reply_kind.as_str(), &ping.reply[..]), ("PONG", peer.address.to_string().as_bytes()));
    let answer = whisper(&peer, to("SHARER")).await.unwrap();
    assert_eq!((answer.delivered_by.as_str(), answer.hops), ("sharer", 0));
    let messages = peer.handle.inbox().latest(10);
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].from.as_str(), messages[0].kind.as_str(), &messages[0].body[..]), ("tester", "text", &b"hello"[..]));
    // Body, kind and sender are optional.
    whisper(&peer, WhisperRequest { to: "sharer".into(), ..Default::default() }).await.unwrap();
    assert_eq!(peer.handle.inbox().latest(1)[0].kind.as_str(), "text");
    // A message that was relayed is delivered whatever its number of hops.
    assert_eq!(whisper(&peer, WhisperRequest { hops: 3, ..to("sharer") }).await.unwrap().hops, 3);
}

#[tokio::test]
async fn an_unknown_name_has_no_route() {
    let peer = Peer::sharing(&[]).await;
    let status = refused(whisper(&peer, to("foo")).await, Reason::NoRoute);
    assert_eq!(status.message(), "request cannot be fulfilled: no route to foo");
    let status = refused(whisper(&peer, WhisperRequest { hops: 1, ..to("foo") }).await, Reason::NoRoute);
    assert!(status.message().starts_with("request cannot be fulfilled: no route to foo"), "{}", status.message());
    refused(whisper(&peer, WhisperRequest { hops: u32::MAX, ..to("foo") }).await, Reason::NoRoute);
    assert_eq!(peer.handle.inbox().status().received, 0);
}

#[tokio::test]
async fn an_invalid_name_kind_or_sender_is_refused_with_the_field() {
    let peer = Peer::sharing(&[]).await;
    let long = "a".repeat(300);
    let labels = ["a"; 200].join(".");
    for name in [
        "",
        " ",
        "two words",
        "sharer ",
        "sha\0rer",
        "sharer\n",
        "../sharer",
        "\u{455}harer",
        "sha\u{200b}rer",
        "-a",
        &long,
        &labels,
    ] {
        let status = invalid(whisper(&peer, to(name)).await, "to");
        assert!(status.message().is_ascii() || status.message().contains('…'), "{}", status.message());
    }
    for kind in ["two words", "a/b", "é", "\0", &"k".repeat(65)] {
        invalid(whisper(&peer, WhisperRequest { kind: kind.into(), ..to("sharer") }).await, "kind");
    }
    for from in ["\u{1b}[31mred", "a\nb", "\0", &"f".repeat(254)] {
        invalid(whisper(&peer, WhisperRequest { from: from.into(), ..to("sharer") }).await, "from");
    }
    assert_eq!(peer.handle.inbox().status().received, 0);
}

#[tokio::test]
async fn the_body_and_the_inbox_are_bounded() {
    let peer = Peer::sharing(&[]).await;
    let body = |bytes: usize| WhisperRequest { body: vec![b'x'; bytes].into(), ..to("sharer") };
    whisper(&peer, body(256 * 1024)).await.unwrap();
    let status = refused(whisper(&peer, body(256 * 1024 + 1)).await, Reason::MessageTooLarge);
    assert!(status.message().contains("262144"), "{}", status.message());
    for _ in 0..40 {
        whisper(&peer, body(200 * 1024)).await.unwrap();
    }
    let status = peer.handle.inbox().status();
    assert_eq!((status.received, status.messages + status.dropped), (41, 41));
    let kept: usize = peer.handle.inbox().latest(usize::MAX).iter().map(|message| message.body.len()).sum();
    assert!(kept <= 4 << 20, "{kept} bytes kept");
    for _ in 0..1200 {
        whisper(&peer, to("sharer")).await.unwrap();
    }
    assert_eq!(peer.handle.inbox().status().messages, 1000);
}

#[tokio::test]
async fn the_page_escapes_messages() {
    let peer = Peer::sharing(&[]).await;
    let request = WhisperRequest {
        from: "<script>alert(1)</script>".into(),
        body: "<img src=x onerror=alert(2)>\u{1b}[2J".into(),
        ..to("sharer")
    };
    whisper(&peer, request).await.unwrap();
    for accept in ["text/html", "text/plain"] {
        let page = page(&peer, accept).await;
        assert!(page.contains("onerror") && !page.contains('\u{1b}'), "{page}");
        assert!(accept == "text/plain" || (!page.contains("<script>alert") && !page.contains("<img src=x")), "{page}");
    }
}

async fn page(peer: &Peer, accept: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(peer.address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n", peer.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    within("the page", stream.read_to_string(&mut page)).await.unwrap();
    page
}
