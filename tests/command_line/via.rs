//! Verbs with --via, through a port forward: the address that the peer advertises cannot be reached from here.

use crate::support::{
    process::{Ended, Server},
    wait::until,
    world::{World, rfc},
};
use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// An address of a network for documentation (RFC 5737): nothing answers there.
const ADVERTISED: &str = "192.0.2.1:7801";
/// A dial to the advertised address takes longer than all of this.
const SOON: Duration = Duration::from_secs(20);

/// Forwards a port of loopback to `to`, as `socat` or `ssh -L` does. Returns its address.
fn forward(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for here in listener.incoming().map_while(Result::ok) {
            let Ok(there) = TcpStream::connect(to) else { continue };
            let pairs = [(here.try_clone(), there.try_clone()), (there.try_clone(), here.try_clone())];
            for (from, into) in pairs {
                let (mut from, mut into) = (from.unwrap(), into.unwrap());
                thread::spawn(move || {
                    let _copied = io::copy(&mut from, &mut into);
                    let _closed = into.shutdown(Shutdown::Write);
                });
            }
        }
    });
    address
}

/// A peer behind a port forward, and the forward's address.
fn behind_a_forward(world: &World) -> (Server, String) {
    let own = ["--no-registry", "--name", "far", "--listen", "127.0.0.1:0", "--advertise", ADVERTISED, "--state", "state-far"];
    let peer = Server::start(world.command("peerd", &[&own[..], &["--share", "share"]].concat()));
    let via = forward(peer.address).to_string();
    until("the share is indexed", || {
        let listed = world.run("p2pctl", &["rfc-query", &via]);
        listed.code == Some(0) && listed.stdout.contains("rfc48.txt")
    });
    (peer, via)
}

fn run(world: &World, via: &str, arguments: &[&str]) -> Ended {
    let begun = Instant::now();
    let ended = world.run("p2pctl", &[arguments, &["--via", via]].concat());
    assert!(begun.elapsed() < SOON, "{arguments:?} took {:?}", begun.elapsed());
    ended
}

#[test]
fn a_document_of_the_peer_itself_is_fetched_through_the_forward() {
    let world = World::new();
    world.share("share", &[48, 8881]);
    let (_peer, via) = behind_a_forward(&world);
    let hash = format!("b3:{}", blake3::hash(&rfc(48)).to_hex());
    for (at, document) in ["rfc48.txt", "RFC48.TXT", &hash].into_iter().enumerate() {
        let out = format!("out{at}");
        run(&world, &via, &["get", document, "--out", &out]).exits(0).stdout_has(&["from far"]);
        assert!(world.read(&format!("{out}/rfc48.txt")) == rfc(48));
    }
    run(&world, &via, &["get-rfc", "8881"]).exits(0);
    assert!(world.read("out/rfc8881.txt") == rfc(8881));
}

#[test]
fn the_peer_itself_is_found_by_its_name_through_the_forward() {
    let world = World::new();
    world.share("share", &[48]);
    let (_peer, via) = behind_a_forward(&world);
    run(&world, &via, &["get", "rfc48.txt", "--from", "far"]).exits(0);
    assert!(world.read("out/rfc48.txt") == rfc(48));
    run(&world, &via, &["ping", "far"]).exits(0).stdout_has(&["far at 192.0.2.1:7801 answered"]);
    run(&world, &via, &["rfc-query", "FAR"]).exits(0).stdout_has(&["rfc48.txt"]);
    run(&world, &via, &["peers", "--of", "far"]).exits(0);
    run(&world, &via, &["whisper", "far", "hello"]).exits(0).stdout_has(&["delivered by far"]);
}
