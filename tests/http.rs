//! Plain HTTP/1.1 on the gRPC port, as curl, browsers and Prometheus use it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use rustix::process::Signal;
use std::{
    fs::Permissions,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
};
use support::{
    http::{ask, get, send},
    network::{Network, status},
    process::Server,
    wait::{WAIT_TIMEOUT, eventually, until},
    world::World,
};

const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
const CURL: (&str, &str) = ("accept", "*/*");
const JSON: (&str, &str) = ("accept", "application/json");

#[test]
fn the_front_page_is_text_for_curl_html_for_browsers_and_json_for_programs() {
    let network = Network::start();
    for (server, words) in [
        (network.registry.address, ["registry", "active peers", "fff-c"].as_slice()),
        (network.c.address, ["fff-c", "3 documents", "registered"].as_slice()),
    ] {
        for headers in [&[][..], &[CURL][..]] {
            let text = get(server, "/", headers);
            assert_eq!((text.status, text.content_type()), (200, "text/plain; charset=utf-8"), "{text:?}");
            assert!(!text.body.contains('<'), "{text:?}");
            assert!(words.iter().all(|word| text.body.contains(word)), "{text:?}");
        }
        let page = get(server, "/", &[BROWSER]);
        assert_eq!((page.status, page.content_type()), (200, "text/html; charset=utf-8"), "{page:?}");
        assert!(page.body.starts_with("<!doctype html>") && page.body.contains("<title>"), "{page:?}");
        assert!(words.iter().all(|word| page.body.contains(word)), "{page:?}");
        let json = get(server, "/", &[JSON]);
        assert_eq!((json.status, json.content_type()), (200, "application/json"), "{json:?}");
        assert!(serde_json::from_str::<serde_json::Value>(&json.body).unwrap().is_object());
    }
    let registry = status(&network.registry);
    assert_eq!(registry["active_peers"], 2, "{registry}");
    let names: Vec<_> = registry["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["fff-a", "fff-c"]);
    let peer = status(&network.c);
    assert_eq!((peer["name"].as_str(), peer["share"]["documents"].as_u64()), (Some("fff-c"), Some(3)), "{peer}");
    assert_eq!(peer["registry"]["state"], "SESSION_STATE_REGISTERED");
}

#[test]
fn the_page_escapes_messages() {
    let network = Network::start();
    network.p2pctl(&["whisper", "fff-c", "<script>alert(1)</script>&"]).exits(0);
    let page = get(network.c.address, "/", &[BROWSER]).body;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;") && !page.contains("<script>"), "{page}");
}

#[test]
fn health_and_readiness_answer_on_both_servers() {
    let network = Network::start();
    for server in [&network.registry, &network.a] {
        for path in ["/healthz", "/readyz"] {
            let answer = get(server.address, path, &[]);
            assert_eq!((answer.status, answer.body.ends_with('\n')), (200, true), "{path}: {answer:?}");
        }
    }
}

#[test]
fn a_peer_that_could_not_register_is_healthy_and_not_ready() {
    let world = World::new();
    let registry = world.registry(&[]);
    let first = world.peer("fff-a", &registry, &[]);
    support::network::ready(&first);
    let second = world.peer("fff-a", &registry, &["--state", "peer-state/second"]);
    until("it is refused", || status(&second)["registry"]["state"] == "SESSION_STATE_REFUSED");
    // Until the share is read, that is the reason given.
    until("it says why", || {
        let ready = get(second.address, "/readyz", &[]);
        assert_eq!(ready.status, 503, "{ready:?}");
        ready.body.contains("fff-a")
    });
    assert_eq!(get(second.address, "/healthz", &[]).status, 200);
}

#[test]
fn an_unknown_path_is_404_and_points_to_the_front_page() {
    let network = Network::start();
    for server in [&network.registry, &network.c] {
        for path in ["/nothing", "/metrics/x", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"] {
            let answer = get(server.address, path, &[CURL]);
            assert_eq!((answer.status, answer.content_type()), (404, "text/plain; charset=utf-8"), "{path}: {answer:?}");
            assert!(answer.body.contains("see / for what is here"), "{path}: {answer:?}");
        }
        assert_eq!(ask(server.address, "POST", "/", &[("content-length", "0")]).status, 405);
    }
}

#[test]
fn garbage_ends_only_its_own_connection() {
    let network = Network::start();
    for server in [&network.registry, &network.c] {
        for garbage in [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), b"SSH-2.0-OpenSSH_9.6\r\n\r\n", &[0xff; 4096]]
        {
            let answer = send(server.address, garbage);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer:?}");
        }
        assert_eq!(get(server.address, "/healthz", &[]).status, 200);
    }
    network.p2pctl(&["get-rfc", "49"]).exits(0);
}

/// A peer without registry and neighbours.
fn alone(world: &World) -> Server {
    let own = ["--no-registry", "--name", "alone", "--listen", "127.0.0.1:0", "--state", "state-alone"];
    Server::start(world.command("peerd", &own))
}

#[test]
fn messages_by_http_are_delivered_as_written_or_refused_with_a_reason() {
    let world = World::new();
    let peer = alone(&world);
    for (query, status, words) in [
        ("/whisper?name=alone&message=hello", 200, "delivered by alone\n"),
        ("/whisper?name=ALONE&message=gr%C3%BC%C3%9Fe+an%20alle", 200, "delivered by alone\n"),
        ("/whisper?name=foo&message=hello", 404, "request cannot be fulfilled: no route to foo\n"),
        ("/whisper?name=alone", 400, "message: is missing; write ?name=foo&message=hello\n"),
        ("/whisper", 400, "name: is missing; write ?name=foo&message=hello\n"),
        ("/broadcast", 400, "message: is missing; write ?message=hello\n"),
        ("/whisper?name=alone&message=a&message=b", 400, "message: is given twice; give it once\n"),
        ("/whisper?name=alone&message=%ff", 400, "message: is not UTF-8 after percent-decoding\n"),
        ("/whisper?name=alone&text=a", 400, "query: \"text\" is not a parameter of this path; it takes name, message, kind\n"),
        ("/broadcast?message=a&wait=soon", 400, "wait: expected number at 0; write a duration such as 2s\n"),
        ("/broadcast?message=a", 200, "0 of 0 known peers have it\n"),
    ] {
        let answer = get(peer.address, query, &[]);
        assert_eq!((answer.status, answer.body.as_str()), (status, words), "{query}");
        assert_eq!(answer.content_type(), "text/plain; charset=utf-8", "{query}");
    }
    let text = get(peer.address, "/", &[]).body;
    assert!(text.contains("alone (text): hello\n") && text.contains("alone (text): grüße an alle\n"), "{text}");
    let refused = get(peer.address, "/whisper?name=foo&message=hello", &[JSON]);
    let json: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!((refused.status, json["error"]["reason"].as_str()), (404, Some("NO_ROUTE")), "{refused:?}");
    let long = get(peer.address, &format!("/whisper?name={}&message=x", "n".repeat(300)), &[]);
    assert!(long.status == 400 && long.body.starts_with("name: ") && long.body.len() < 200, "{long:?}");
    let longer = get(peer.address, &format!("/whisper?name=alone&message={}", "x".repeat(100_000)), &[]);
    assert_eq!(longer.status, 414, "{longer:?}");

    let post = |kind: &str, form: &str| {
        let head = format!("content-type: {kind}\r\ncontent-length: {}\r\nconnection: close", form.len());
        send(peer.address, format!("POST /whisper HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n{form}").as_bytes())
    };
    let form = "application/x-www-form-urlencoded";
    assert!(post(form, "name=alone&message=by+form").contains("delivered by alone\n"));
    assert!(post("application/json", "{}").starts_with("HTTP/1.1 400 "));
    assert!(post(form, &format!("name=alone&message={}", "x".repeat(300_000))).starts_with("HTTP/1.1 413 "));
    assert!(post(form, &format!("name=alone&message={}", "x".repeat(900_000))).starts_with("HTTP/1.1 413 "));
    for method in ["HEAD", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(peer.address, method, "/broadcast?message=a", &[("content-length", "0")]);
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "GET, POST"), "{method}");
    }
    assert_eq!(status(&peer)["inbox"]["received"], 3);
}

#[test]
fn a_browser_sends_only_by_post_from_the_own_page_and_a_foreign_host_sees_no_status() {
    let world = World::new();
    let peer = alone(&world);
    let port = peer.address.port();
    let mozilla = "user-agent: Mozilla/5.0 (X11; Linux x86_64)\r\n";
    let asks = |method: &str, path: &str, host: &str, more: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n{more}\r\n");
        let answer = send(peer.address, head.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), body.to_owned())
    };
    let (localhost, act) = (format!("localhost:{port}"), "/whisper?name=alone&message=x");
    let own = format!("{mozilla}origin: http://localhost:{port}\r\nsec-fetch-site: same-origin\r\n");
    assert_eq!(asks("POST", act, &localhost, &own).0, "200");
    assert_eq!(asks("GET", act, &localhost, "user-agent: curl/8.5.0\r\n").0, "200");
    let other_port = format!("{mozilla}origin: http://localhost:1\r\nsec-fetch-site: same-site\r\n");
    for (method, host, more) in [
        ("GET", localhost.as_str(), own.as_str()),
        ("GET", &localhost, mozilla),
        ("GET", &localhost, "sec-fetch-site: none\r\n"),
        ("GET", &localhost, "sec-fetch-site: cross-site\r\n"),
        ("GET", &format!("0.0.0.0:{port}"), mozilla),
        ("POST", &localhost, &other_port),
        ("POST", &localhost, "origin: null\r\n"),
        ("POST", &localhost, "origin: https://evil.example\r\n"),
        (
            "POST",
            &format!("evil.example:{port}"),
            &format!("origin: http://evil.example:{port}\r\nsec-fetch-site: same-origin\r\n"),
        ),
        ("GET", &format!("evil.example:{port}"), ""),
    ] {
        let (code, words) = asks(method, act, host, more);
        assert_eq!(code, "403", "{method} {host} {more}");
        assert!(words.contains("curl"), "{words}");
    }
    assert_eq!(status(&peer)["inbox"]["received"], 2);
    // A rebound name sees nothing that only the operator may see: messages, links, the event stream.
    for path in ["/network", "/live", "/documents"] {
        assert_eq!(asks("GET", path, &format!("evil.example:{port}"), mozilla).0, "403", "{path}");
    }
    for path in ["/", "/metrics", "/healthz", "/readyz", "/peer.js", "/page.css"] {
        let (code, words) = asks("GET", path, &format!("evil.example:{port}"), "");
        assert_eq!(code, "403", "{path}");
        assert!(
            words.contains("not called \"evil.example") && words.contains("--http-host") && !words.contains("alone"),
            "{words}"
        );
    }
}

#[test]
fn the_page_may_load_only_its_own_files() {
    let world = World::new();
    let peer = alone(&world);
    let page = get(peer.address, "/", &[BROWSER]);
    let policy = &page.headers["content-security-policy"];
    for words in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"] {
        assert!(policy.contains(words), "{policy}");
    }
    // No exceptions: no inline code, no other site.
    let mut exceptions = policy.split('\'').skip(1).step_by(2).filter(|word| !["none", "self", "script"].contains(word));
    assert!(exceptions.next().is_none() && !policy.contains("http"), "{policy}");
    assert!(!page.body.contains("://") && !page.body.contains(" style=") && !page.body.contains(" on"), "{}", page.body);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/peer.js", "text/javascript; charset=utf-8"),
        ("/dom.js", "text/javascript; charset=utf-8"),
        ("/graph.js", "text/javascript; charset=utf-8"),
        ("/transfers.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/peer.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/nothing", "text/plain; charset=utf-8"),
    ] {
        let answer = get(peer.address, path, &[BROWSER]);
        assert_eq!((answer.content_type(), answer.headers["x-content-type-options"].as_str()), (kind, "nosniff"), "{path}");
    }
    let found = get(peer.address, "/documents?find=rfc48", &[]);
    assert_eq!((found.status, found.body.as_str()), (200, "{\"documents\":[],\"more\":false}\n"));
    let network: serde_json::Value = serde_json::from_str(&get(peer.address, "/network", &[]).body).unwrap();
    assert_eq!((network["peers"][0]["name"].as_str(), network["asked"].as_bool()), (Some("alone"), Some(true)), "{network}");
}

#[test]
fn the_page_of_the_registry_may_load_only_its_own_files_and_is_not_sniffed() {
    let world = World::new();
    let registry = world.registry(&[]);
    for (path, headers) in [("/", &[BROWSER][..]), ("/", &[]), ("/", &[JSON]), ("/metrics", &[]), ("/healthz", &[])] {
        let answer = get(registry.address, path, headers);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        let policy = &answer.headers["content-security-policy"];
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    }
    let page = get(registry.address, "/", &[BROWSER]);
    let policy = &page.headers["content-security-policy"];
    for words in ["script-src 'self'", "style-src 'self'", "require-trusted-types-for 'script'"] {
        assert!(policy.contains(words), "{policy}");
    }
    let body = &page.body;
    assert!(!body.contains("://") && !body.contains(" style=") && !body.contains("<style") && !body.contains(" on"), "{body}");
    for (path, kind) in [
        ("/registry.js", "text/javascript; charset=utf-8"),
        ("/dom.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = get(registry.address, path, &[BROWSER]);
        assert_eq!((answer.content_type(), answer.headers["x-content-type-options"].as_str()), (kind, "nosniff"), "{path}");
    }
}

#[test]
fn keepalives_report_links_and_documents() {
    let world = World::new();
    let registry = world.registry(&["--ttl", "2s"]);
    world.share("share-a", &[48, 2324]);
    let _a = world.peer("fff-a", &registry, &["--share", "share-a"]);
    let _c = world.peer("fff-c", &registry, &[]);
    until("the registry knows links and documents", || {
        let status = status(&registry);
        let reported = |at: usize| (status["peers"][at]["load"]["links"].as_u64(), status["peers"][at]["documents"].as_u64());
        (reported(0), reported(1)) == ((Some(1), Some(2)), (Some(1), Some(0)))
    });
}

#[test]
fn event_streams_are_limited_and_end_at_the_stop() {
    let world = World::new();
    let peer = alone(&world);
    let watch = || {
        let mut stream = TcpStream::connect_timeout(&peer.address, WAIT_TIMEOUT).unwrap();
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        stream.write_all(format!("GET /live HTTP/1.1\r\nhost: {}\r\n\r\n", peer.address).as_bytes()).unwrap();
        let mut seen = Vec::new();
        // The first event, or the refusal.
        while !String::from_utf8_lossy(&seen).contains("\n\n") && !String::from_utf8_lossy(&seen).contains(" 503 ") {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).unwrap();
            assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&part[..length]);
        }
        (stream, String::from_utf8_lossy(&seen).into_owned())
    };
    let mut watching: Vec<_> = (0..32).map(|_| watch()).collect();
    assert!(watching.iter().all(|(_, seen)| seen.starts_with("HTTP/1.1 200 ") && seen.contains("event: status")));
    let refused = get(peer.address, "/live", &[]);
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("32 pages watch this peer already"), "{refused:?}");
    // A closed stream makes room for another.
    drop(watching.pop());
    watching.push(eventually("room for another stream", || Some(watch()).filter(|(_, seen)| seen.starts_with("HTTP/1.1 200 "))));
    let begun = std::time::Instant::now();
    peer.signal(Signal::TERM);
    peer.ended().exits(0);
    // Streams that stay open are cut at the end of the grace period of 10 s.
    assert!(begun.elapsed() < std::time::Duration::from_secs(9), "{:?}", begun.elapsed());
    for (mut stream, _) in watching {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"0\r\n\r\n"), "cut, not ended: {}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn many_messages_make_few_log_lines() {
    let world = World::new();
    let peer = alone(&world);
    for _ in 0..200 {
        assert_eq!(get(peer.address, "/whisper?name=alone&message=x", &[]).status, 200);
    }
    peer.signal(Signal::TERM);
    let said = peer.ended().exits(0).stderr;
    assert!(said.lines().count() < 50, "{said}");
}

/// A page of any site can make a browser send such requests without a preflight request.
#[test]
fn grpc_methods_refuse_http1_requests() {
    let world = World::new();
    let registry = world.registry(&[]);
    let peer =
        Server::start(world.command("peerd", &["--name", "a", "--no-registry", "--listen", "127.0.0.1:0", "--state", "state-a"]));
    for (server, method) in [
        (peer.address, "p2pdi.v1.Control/Broadcast"),
        (peer.address, "p2pdi.v1.Control/Status"),
        (peer.address, "p2pdi.v1.Peer/Whisper"),
        (peer.address, "p2pdi.v1.Peer/Link"),
        (registry.address, "p2pdi.v1.Registry/Register"),
    ] {
        for kind in ["text/plain", "application/grpc"] {
            let head = format!(
                "POST /{method} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
            );
            let answer = send(server, &[head.as_bytes(), &[0; 5]].concat());
            assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("grpcurl"), "{method}: {answer}");
        }
    }
}

#[test]
fn a_rebound_name_reads_nothing_of_a_registry_and_a_given_name_does() {
    let world = World::new();
    let registry = world.registry(&["--http-host", "registry.example"]);
    let _a = world.peer("fff-a", &registry, &[]);
    let code = |path: &str, host: &str| {
        let answer =
            send(registry.address, format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200") || !answer.contains("fff-a"), "{answer}");
        answer[9..12].to_owned()
    };
    for path in ["/", "/metrics", "/healthz", "/readyz", "/registry.js", "/page.css"] {
        assert_eq!(code(path, "evil.example"), "403", "{path}");
        assert_eq!(code(path, "Registry.Example:7800"), "200", "{path}");
        assert_eq!(code(path, &registry.address.to_string()), "200", "{path}");
    }
}

#[test]
fn the_health_port_serves_health_readiness_and_metrics_and_nothing_else() {
    let world = World::new();
    let registry = world.registry(&["--health-listen", "127.0.0.1:0"]);
    let peer = world.peer("fff-a", &registry, &["--health-listen", "127.0.0.1:0"]);
    for (server, metric) in [(&registry, "p2pdi_registry_peers_active"), (&peer, "p2pdi_mesh_links")] {
        let health = server.health_address();
        for path in ["/healthz", "/readyz", "/metrics"] {
            until("it is ready", || get(health, path, &[]).status == 200);
            let rebound =
                send(health, format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").as_bytes());
            assert!(rebound.starts_with("HTTP/1.1 403"), "{rebound}");
        }
        assert!(get(health, "/metrics", &[]).body.contains(metric));
        for path in
            ["/", "/network", "/live", "/documents?find=a", "/login", "/peer.js", "/registry.js", "/whisper?name=a&message=b"]
        {
            assert_eq!(get(health, path, &[]).status, 404, "{path}");
        }
    }
}

#[test]
fn a_token_that_is_no_token_is_wrong_usage() {
    let world = World::new();
    std::fs::write(world.path("token"), "short").unwrap();
    for command in [&["peerd"] as &[&str], &["registry", "--state", "memory"]] {
        for (file, problem) in [("token", "has 16 to 256 characters"), ("none", "cannot be read")] {
            let ended = world.run(command[0], &[&command[1..], &["--http-token", file]].concat());
            ended.exits(2).stdout_is_empty().stderr_has(&["http-token", problem, "openssl rand -hex 32"]);
        }
    }
}

#[test]
fn a_token_that_others_can_read_is_warned_of_once() {
    let world = World::new();
    let file = world.path("token");
    std::fs::write(&file, "0123456789abcdef").unwrap();
    for (mode, warned) in [(0o600, false), (0o640, true), (0o644, true)] {
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let registry = world.registry(&["--state", "memory", "--http-token", "token"]);
        let peer = world.peer("fff-a", &registry, &["--http-token", "token"]);
        for server in [registry, peer] {
            let is_warning = |line: &&str| line.contains("WARN") && line.contains("chmod 600 token");
            let warnings = || server.process.stderr().lines().filter(is_warning).count();
            until("it warns if it has to", || warnings() >= usize::from(warned));
            assert_eq!(warnings(), usize::from(warned), "{mode:o}: {}", server.process.stderr());
        }
    }
}
