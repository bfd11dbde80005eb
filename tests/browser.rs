//! The live page in a real browser, and requests from pages of other sites in the same browser.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use rustix::process::Signal;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};
use support::{
    browser::Browser,
    http::get,
    network::{Network, ready, status},
    process::Server,
    tools,
    wait::until,
    world::World,
};

/// An expression for the joined text of all elements that a selector finds.
fn text(selector: &str) -> String {
    format!("[...document.querySelectorAll('{selector}')].map((found) => found.textContent).join(' | ')")
}

#[test]
fn the_page_shows_peers_messages_documents_and_departures() {
    let Some(chromium) = tools::chromium() else { return };
    let network = Network::start();
    let mut browser = Browser::start(&chromium);
    let page = browser.open(&format!("http://localhost:{}/", network.c.address.port()));
    for (what, words) in [
        ("#name", "fff-c"),
        ("#connection", "live"),
        ("#counts", "2 peers, 1 link"),
        ("#peer-rows .peer", "fff-c | fff-a"),
        ("#drawing .node text", "fff-a"),
        ("#document-rows", "fff-a"),
        ("#events", "fff-a is linked to this peer"),
    ] {
        browser.until(&page, &format!("{}.includes('{words}')", text(what)));
    }
    browser.until(&page, "document.querySelectorAll('#drawing line').length === 1");
    // Header and table agree on the number of links.
    let header = text("#facts div:nth-child(2) dd");
    browser.until(&page, &format!("{header} === '1' && {header} === {}", text("#peer-rows tr.self td:nth-child(2)")));
    browser.resize(&page, 1200, 800);
    browser.until(&page, "document.getElementById('send').getBoundingClientRect().bottom < innerHeight");
    // Nothing is wider than a phone.
    browser.resize(&page, 400, 800);
    browser.until(&page, "innerWidth === 400 && document.documentElement.scrollWidth <= 400");
    browser.until(&page, "document.querySelectorAll('#document-rows tr').length >= 4");

    // Messages are shown as text, not as markup.
    let script = "<script>document.title='broken'</script><img src=x onerror=document.title='broken'>";
    network.p2pctl(&["whisper", "fff-c", script]).exits(0);
    browser.until(&page, &format!("{}.includes('<script>')", text("#message-list")));
    assert_eq!(browser.value(&page, "document.querySelectorAll('#message-list img, #message-list script').length"), 0);
    assert_eq!(browser.value(&page, "document.title"), "fff-c - P2P-DI peer");

    // The form sends.
    let send = |to: &str, body: &str| {
        format!(
            "document.getElementById('to').value = '{to}'; document.getElementById('body').value = '{body}'; \
             document.querySelector('#send button').click()"
        )
    };
    browser.value(&page, &send("fff-a", "grüße & 100% + 1"));
    browser.until(&page, &format!("{}.startsWith('Delivered by fff-a')", text("#sent")));
    assert!(get(network.a.address, "/", &[]).body.contains("fff-c (text): grüße & 100% + 1"));
    browser.value(&page, &send("", "to all"));
    browser.until(&page, &format!("{} === '1 of 1 known peer has it'", text("#sent")));

    // A search, then a peer that is killed.
    browser.value(
        &page,
        "const find = document.getElementById('find'); find.value = '2324'; find.dispatchEvent(new Event('input'))",
    );
    browser.until(&page, &format!("{}.includes('Hyper Text Coffee Pot Control Protocol')", text("#document-rows tr:only-child")));
    network.a.signal(Signal::KILL);
    browser.until(&page, &format!("{}.includes('fff-a does not answer')", text("#event-list")));
    assert_eq!(browser.problems(&page), [""; 0], "the console stays empty");

    // The content security policy is enforced.
    let markup = "try { document.body.innerHTML = '<b>x</b>'; 'taken' } catch (error) { error.name }";
    assert_eq!(browser.value(&page, markup), "TypeError");
    assert_eq!(browser.value(&page, "fetch('http://127.0.0.1:1/').then(() => 'sent', (error) => error.name)"), "TypeError");
    assert!(browser.problems(&page).iter().any(|problem| problem.contains("Content Security Policy")));
}

#[test]
fn the_page_shows_transfers_as_they_move_with_who_has_how_much() {
    let Some(chromium) = tools::chromium() else { return };
    let world = World::new();
    let registry = world.registry(&[]);
    let share = world.share("share", &[]);
    world.share("fetched", &[]);
    // Names cannot be markup for the page.
    let name = "<b>moves.bin";
    // A minute at this rate: it is under way while the test looks, and nothing waits for its end.
    fs::write(share.join(name), vec![7; 60 << 20]).unwrap();
    let from = world.peer("fff-a", &registry, &["--share", "share", "--upload-limit", "1MiB"]);
    let to = world.peer("fff-c", &registry, &["--share", "fetched"]);
    for peer in [&from, &to] {
        ready(peer);
    }
    until("fff-a offers the document", || status(&from)["share"]["documents"] == 1);
    let mut browser = Browser::start(&chromium);
    let open = |browser: &mut Browser, peer: &Server| browser.open(&format!("http://localhost:{}/", peer.address.port()));
    let receiver = open(&mut browser, &to);
    browser.until(&receiver, "document.getElementById('connection').textContent === 'live'");
    assert_eq!(browser.value(&receiver, "document.getElementById('transfers').hidden"), true);

    world.p2pctl(&registry, &["fetch", name, "--at", &to.address.to_string()]).exits(0);
    for (what, words) in [("#swarms th[scope=rowgroup] bdi", name), ("#swarms .member", "fff-a"), ("#job-rows", "running")] {
        browser.until(&receiver, &format!("{}.includes('{words}')", text(what)));
    }
    browser.until(&receiver, "document.querySelector('#swarms .member + .part progress').value === 100");
    browser.until(&receiver, "document.querySelector('#swarms th + .part progress').value > 0");
    browser.until(&receiver, &format!("{}.includes('/s')", text("#swarms th + .part + .number")));
    for width in [1000, 400] {
        browser.resize(&receiver, width, 800);
        browser.until(&receiver, &format!("innerWidth === {width} && document.documentElement.scrollWidth <= {width}"));
    }
    assert_eq!(browser.problems(&receiver), [""; 0], "the console stays empty");
    // A page that is hidden by another one rests, so this one is opened now.
    let sender = open(&mut browser, &from);
    browser.until(&sender, &format!("{}.includes('fff-c')", text("#swarms .member")));
    browser.until(&sender, &format!("{}.includes('/s')", text("#swarms th + .part + .number + .number")));

    // The same for programs and for curl.
    let seen = status(&to);
    let swarm = &seen["swarms"][0];
    let numbers = [&seen["swarms_in_all"], &seen["jobs_in_all"], &swarm["connections_in_all"]];
    assert_eq!((swarm["name"].as_str(), numbers.map(|number| number.as_u64())), (Some(name), [Some(1); 3]), "{seen}");
    assert_eq!(swarm["connections"][0]["member"]["peer"]["name"], "fff-a", "{seen}");
    assert_eq!(seen["jobs"][0]["state"], "JOB_STATE_RUNNING", "{seen}");
    let plain = get(to.address, "/", &[]).body;
    assert!(plain.contains(&format!("swarm      {name}, 60.0 MiB: ")) && plain.contains("fff-a has 100 %"), "{plain}");
    assert!(plain.contains(&format!("job        1 {name}: running, 0 of 1 document, ")), "{plain}");
    // Not for pages of other sites.
    let refused = get(to.address, "/", &[("origin", "http://evil.example")]).body;
    assert!(refused.contains("fff-c") && !refused.contains("moves.bin"), "{refused}");
}

#[test]
fn the_page_of_the_registry_shows_peers_by_name_their_load_and_who_left() {
    let Some(chromium) = tools::chromium() else { return };
    let world = World::new();
    let registry = world.registry(&["--ttl", "2s"]);
    world.share("share", &[48, 2324]);
    let peers =
        ["peer-10", "peer-2", "peer-1"].map(|name| world.peer(name, &registry, &["--share", "share", "--label", "zone=west"]));
    let mut browser = Browser::start(&chromium);
    let page = browser.open(&format!("http://localhost:{}/", registry.address.port()));
    for (what, words) in [
        ("#connection", "live"),
        ("#peer-rows b", "peer-1 | peer-2 | peer-10"),
        ("#peer-rows tr:first-child .number", "2 | 2"),
        ("#peer-rows .wide", "zone=west"),
        ("#facts", "Storeok"),
        ("#event-list", "peer-10 registered"),
    ] {
        browser.until(&page, &format!("{}.includes('{words}')", text(what)));
    }
    peers[1].signal(Signal::TERM);
    browser.until(&page, &format!("{}.includes('peer-2 left')", text("#event-list")));
    browser.until(&page, &format!("{} === 'peer-1 | peer-10'", text("#peer-rows b")));
    browser.resize(&page, 400, 800);
    browser.until(&page, "innerWidth === 400 && document.documentElement.scrollWidth <= 400");
    assert_eq!(browser.problems(&page), [""; 0], "the console stays empty");
    let markup = "try { document.body.innerHTML = '<b>x</b>'; 'taken' } catch (error) { error.name }";
    assert_eq!(browser.value(&page, markup), "TypeError");
}

#[test]
fn pages_of_other_sites_cannot_make_a_peer_send() {
    let Some(chromium) = tools::chromium() else { return };
    let network = Network::start();
    let port = network.c.address.port();
    // Every way a page can make a browser send a request: images, frames, requests of scripts with each method, forms.
    let evil = format!(
        "<!doctype html><title>waiting</title><body><script>
        const hosts = ['localhost:{port}', '127.0.0.1:{port}', '0.0.0.0:{port}'];
        const settled = (make) => new Promise((done) => {{ make(done); }});
        (async () => {{
          for (const host of hosts) {{
            for (const path of ['/whisper?name=fff-c&message=evil', '/broadcast?message=evil']) {{
              const url = 'http://' + host + path;
              await settled((done) => {{
                const image = new Image();
                image.onload = image.onerror = done;
                image.referrerPolicy = 'no-referrer';
                image.src = url;
              }});
              for (const method of ['GET', 'POST', 'HEAD']) {{
                await fetch(url, {{ method, mode: 'no-cors', referrerPolicy: 'no-referrer' }}).catch(() => {{}});
                await fetch(url, {{ method }}).catch(() => {{}});
              }}
              await settled((done) => {{
                const frame = document.createElement('iframe');
                frame.onload = frame.onerror = done;
                frame.src = url;
                document.body.append(frame);
              }});
              await settled((done) => {{
                const frame = document.createElement('iframe');
                const form = document.createElement('form');
                frame.name = form.target = 'of' + document.querySelectorAll('iframe').length;
                form.method = 'post';
                form.action = url;
                document.body.append(frame, form);
                frame.onload = done;
                form.submit();
              }});
            }}
          }}
          // If HTTP/1.1 and any content type were accepted, this frame would be a gRPC call: {{ body: 'evil', kind: '' }}.
          const frame = new Uint8Array([0, 0, 0, 0, 6, 18, 4, 101, 118, 105, 108]);
          for (const method of ['Control/Broadcast', 'Control/Status', 'Peer/Whisper']) {{
            const url = 'http://localhost:{port}/p2pdi.v1.' + method;
            await fetch(url, {{ method: 'POST', mode: 'no-cors', body: frame }}).catch(() => {{}});
            await fetch(url, {{ method: 'POST', headers: {{ 'content-type': 'application/grpc' }}, body: frame }}).catch(() => {{}});
          }}
          const read = await fetch('http://localhost:{port}/network').then(() => 'read', () => 'refused');
          document.title = 'done ' + read;
        }})();
        </script>"
    );
    let site = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = site.local_addr().unwrap();
    // Serves this page until the test ends, and redirects a typed address.
    thread::spawn(move || {
        for stream in site.incoming().map_while(Result::ok) {
            let (evil, mut stream) = (evil.clone(), stream);
            thread::spawn(move || {
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap_or(0);
                let answer = if request[..length].starts_with(b"GET /redirect") {
                    let to = format!("http://localhost:{port}/broadcast?message=evil");
                    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                } else {
                    format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{evil}",
                        evil.len()
                    )
                };
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    let mut browser = Browser::start(&chromium);
    let page = browser.open(&format!("http://localhost:{}/", address.port()));
    browser.until(&page, "document.title === 'done refused'");
    let typed = browser.open(&format!("http://localhost:{}/redirect", address.port()));
    browser.until(
        &typed,
        &format!("location.port === '{port}' && document.body.textContent.includes('cannot make this peer send')"),
    );
    assert_eq!(status(&network.c)["inbox"]["received"], 0);
    assert_eq!(status(&network.a)["inbox"]["received"], 0);
    // The same request by curl sends.
    assert_eq!(get(network.c.address, "/broadcast?message=good", &[("user-agent", "curl/8.5.0")]).status, 200);
    until("the message arrives", || status(&network.a)["inbox"]["received"] == 1);
}
