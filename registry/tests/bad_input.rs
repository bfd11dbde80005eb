//! Invalid input: each call gets a clear error, and the server keeps serving.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use p2pdi::{
    cookie::COOKIE_HEADER,
    status::{Reason, metadata},
    v1::{KeepAliveRequest, LeaveRequest, PQueryRequest, RegisterRequest},
};
use std::collections::BTreeMap;
use support::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Request, metadata::BinaryMetadataValue};

#[track_caller]
fn assert_field<T: std::fmt::Debug>(outcome: Result<T, tonic::Status>, field: &str, expected: &str) {
    let status = assert_refused(outcome, Reason::InvalidField);
    assert_eq!(metadata(&status, "field").as_deref(), Some(field), "{status:?}");
    assert!(status.message().contains(expected), "{status:?}");
    assert!(!status.message().contains('\0') && status.message().len() < 300, "{status:?}");
}

#[tokio::test]
async fn invalid_names_are_refused_with_the_reason() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    for (name, expected) in [
        ("", "is empty"),
        ("two words", "contains \" \""),
        ("../etc/passwd", "empty part"),
        (&"a".repeat(300), "300 bytes"),
        ("a\0b", "\\u{0}"),
        ("\u{430}lice", "\\u{430}"),
        ("xn--\u{ff41}", "\\u{ff41}"),
        ("-a", "hyphen"),
    ] {
        assert_field(client.register(asking(name, "10.0.0.1:7801")).await, "name", expected);
        let ask = RegisterRequest { name: name.into(), observer: true, ..Default::default() };
        assert_field(client.register(ask).await, "name", expected);
    }
    register(&mut client, &format!("{0}.{0}.{0}", "a".repeat(63)), "10.0.0.1:7801").await;
    registry.stop().await;
}

#[tokio::test]
async fn invalid_endpoints_are_refused_with_the_reason() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    for (endpoint, expected) in [
        ("", "is empty"),
        ("10.0.0.1", "no port"),
        ("10.0.0.1:0", "1 to 65535"),
        ("10.0.0.1:70000", "1 to 65535"),
        ("0.0.0.0:7801", "wildcard"),
        ("[::]:7801", "wildcard"),
        ("a b:7801", "no valid host"),
        ("http://a:7801", "HOST:PORT without"),
        (&format!("10.0.0.1:{}80", "0".repeat(10_000)), "leading zeros"),
    ] {
        assert_field(client.register(asking("a", endpoint)).await, "endpoint", expected);
    }
    registry.stop().await;
}

#[tokio::test]
async fn invalid_labels_ids_patterns_and_combinations_are_refused() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let labelled = |labels: BTreeMap<String, String>| RegisterRequest { labels, ..asking("a", "10.0.0.1:7801") };
    let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let many = (0..17).map(|number| (format!("k{number}"), String::new())).collect();
    for (labels, expected) in
        [(many, "at most 16"), (one("", "x"), "empty"), (one("a", &"x".repeat(64)), "64 bytes"), (one("a", "\0"), "\\u{0}")]
    {
        assert_field(client.register(labelled(labels)).await, "labels", expected);
    }
    let id = RegisterRequest { id: vec![1; 15].into(), ..asking("a", "10.0.0.1:7801") };
    assert_field(client.register(id).await, "id", "15 bytes");
    let me = register(&mut client, "me", "10.0.0.1:7801").await.cookie;
    let wrong = PQueryRequest { name: "a/*".into(), ..Default::default() };
    assert_field(query(&mut client, &me, wrong).await, "name", "pattern");
    let wrong = PQueryRequest { sample: 1, since_revision: 1, ..Default::default() };
    assert_field(query(&mut client, &me, wrong).await, "sample", "cannot be combined");
    for wrong in [PQueryRequest { sample: 1, ..Default::default() }, PQueryRequest { since_revision: 1, ..Default::default() }] {
        let wrong = PQueryRequest { include_observers: true, ..wrong };
        assert_field(query(&mut client, &me, wrong).await, "include_observers", "cannot be combined");
    }
    let most = PQueryRequest { page_size: u32::MAX, sample: u32::MAX, ..Default::default() };
    query(&mut client, &me, most).await.expect("a limit above the maximum is no error");
    registry.stop().await;
}

#[tokio::test]
async fn missing_malformed_repeated_and_unknown_cookies_have_distinct_reasons() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let cookie = register(&mut client, "a", "10.0.0.1:7801").await.cookie;
    assert_refused(client.keep_alive(KeepAliveRequest::default()).await, Reason::CookieMissing);
    assert_refused(client.p_query(PQueryRequest::default()).await, Reason::CookieMissing);
    assert_refused(client.leave(LeaveRequest {}).await, Reason::CookieMissing);
    for text in ["", "0", &cookie[1..], &format!("{cookie}0"), &"g".repeat(32), "../../etc/passwd"] {
        let status = assert_refused(keep_alive(&mut client, text).await, Reason::CookieMalformed);
        assert!(
            text.len() < 2 || !status.message().contains(text),
            "the error shows the cookie, which may be a mistyped secret: {status:?}"
        );
        assert_refused(query(&mut client, text, PQueryRequest::default()).await, Reason::CookieMalformed);
        assert_refused(leave(&mut client, text).await, Reason::CookieMalformed);
        assert_refused(client.register(with_cookie(asking("b", "10.0.0.1:7802"), text)).await, Reason::CookieMalformed);
    }
    let mut twice = with_cookie(KeepAliveRequest::default(), &cookie);
    twice.metadata_mut().append(COOKIE_HEADER, cookie.parse().unwrap());
    assert_refused(client.keep_alive(twice).await, Reason::CookieMalformed);
    let mut binary = Request::new(KeepAliveRequest::default());
    binary.metadata_mut().insert_bin("peer-cookie-bin", BinaryMetadataValue::from_bytes(&[0; 16]));
    assert_refused(client.keep_alive(binary).await, Reason::CookieMissing);
    let unknown = "0".repeat(32);
    assert_refused(keep_alive(&mut client, &unknown).await, Reason::CookieUnknown);
    assert_refused(query(&mut client, &unknown, PQueryRequest::default()).await, Reason::CookieUnknown);
    assert_refused(leave(&mut client, &unknown).await, Reason::CookieUnknown);
    keep_alive(&mut client, &cookie.to_uppercase()).await.expect("hexadecimal digits are accepted in both cases");
    registry.stop().await;
}

#[tokio::test]
async fn a_message_above_the_size_limit_is_refused() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let outcome = client.register(asking(&"a".repeat(20_000), "10.0.0.1:7801")).await;
    let status = assert_refused(outcome, Reason::MessageTooLarge);
    assert!(status.message().contains("16384 bytes"), "{status:?}");
    register(&mut client, "a", "10.0.0.1:7801").await;
    registry.stop().await;
}

#[tokio::test]
async fn random_bytes_and_plain_http_do_not_stop_the_server() {
    let registry = Running::start(in_memory()).await;
    let random: Vec<u8> = (0u32..4096).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &random].concat();
    let post =
        b"POST /p2pdi.v1.Registry/Register HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    for bytes in [&random[..], &preface, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n", post] {
        let mut stream = TcpStream::connect(registry.address).await.unwrap();
        // The server may close before it has read everything.
        let _written = stream.write_all(bytes).await;
        let _half = stream.shutdown().await;
        let mut answer = Vec::new();
        let _read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
        let answer = String::from_utf8_lossy(&answer);
        // A gRPC error is HTTP 200 with a grpc-status other than 0.
        assert!(!answer.starts_with("HTTP/1.1 200") || answer.contains("grpc-status: 13"), "{answer}");
    }
    for (path, expected) in [("/", "200"), ("/healthz", "200"), ("/readyz", "200"), ("/metrics", "200"), ("/nothing", "404")] {
        let answer = get(&registry, path, "*/*").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{path}: {answer}");
    }
    register(&mut registry.client(), "a", "10.0.0.1:7801").await;
    registry.stop().await;
}

async fn get(registry: &Running, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(registry.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn the_status_page_and_the_metrics_show_peers_and_no_cookies() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let cookie = register(&mut client, "Fff-C", "10.0.0.1:7801").await.cookie;
    let text = get(&registry, "/", "*/*").await;
    assert!(text.contains("text/plain") && text.contains("active peers  1") && text.contains("Fff-C"), "{text}");
    let html = get(&registry, "/", "text/html,application/xhtml+xml,*/*;q=0.8").await;
    assert!(html.contains("text/html") && html.contains("<!doctype html>") && html.contains("Fff-C"), "{html}");
    let json = get(&registry, "/", "application/json").await;
    let body: serde_json::Value = serde_json::from_str(json.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&body["active_peers"], &body["peers"][0]["endpoint"]), (&1.into(), &"10.0.0.1:7801".into()));
    let metrics = get(&registry, "/metrics", "*/*").await;
    for line in ["p2pdi_registry_peers_active 1", "p2pdi_registry_commit_changes", "p2pdi_registry_commit_duration_seconds"] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    for page in [text, html, json, metrics] {
        assert!(!page.contains(&cookie));
    }
    registry.stop().await;
}
