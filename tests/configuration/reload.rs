//! SIGHUP.

use crate::support::{
    process::{Running, Server},
    wait::until,
    world::World,
};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;

fn status(world: &World, server: &Server) -> Value {
    world.run("p2pctl", &["status", &server.address.to_string(), "-o", "json"]).exits(0).json()
}

/// Sends SIGHUP, and waits until the log says so once more.
fn hang_up(server: &Server, words: &str) {
    let count = |text: &str| text.matches(words).count();
    let before = count(&server.process.stderr());
    server.signal(Signal::HUP);
    until(words, || count(&server.process.stderr()) > before);
}

#[test]
fn a_hangup_ends_no_server_and_reads_the_log_level_again() {
    let world = World::new();
    fs::write(world.path("r.toml"), "log = 'info'\n").unwrap();
    let registry = Server::start(world.registry_command("127.0.0.1:0", &["--config", "r.toml"]));
    hang_up(&registry, "the configuration was read again");
    fs::write(world.path("r.toml"), "log = 'debug,registry=trace'\nttl = '7s'\n").unwrap();
    hang_up(&registry, "the configuration was read again");
    until("what needs a restart is named", || registry.process.stderr().contains("need a restart"));
    until("what changed is named", || registry.process.stderr().contains("changed=\"log\""));
    // Lines of this level come now.
    until("debug lines", || {
        world.p2pctl(&registry, &["peers"]).exits(0);
        registry.process.stderr().contains("DEBUG") || registry.process.stderr().contains("TRACE")
    });
    fs::write(world.path("r.toml"), "log = 'warn'\nttl = '7s'\n").unwrap();
    registry.signal(Signal::HUP);
    until("no further lines", || {
        world.p2pctl(&registry, &["peers"]).exits(0);
        let before = registry.process.stderr();
        world.p2pctl(&registry, &["peers"]).exits(0);
        before == registry.process.stderr()
    });
    // A program without a file has nothing to read, and goes on.
    let plain = world.peer("plain", &registry, &[]);
    hang_up(&plain, "the configuration was read again");
    assert_eq!(status(&world, &plain)["name"], "plain");
}

#[test]
fn limits_of_a_peer_change_while_it_runs_also_for_what_is_under_way() {
    let world = World::new();
    let registry = world.registry(&[]);
    fs::create_dir_all(world.path("share")).unwrap();
    // Two minutes at the first limit.
    fs::write(world.path("share/large.bin"), vec![7; 8 << 20]).unwrap();
    fs::write(world.path("p.toml"), "share = 'share'\nupload-limit = '64KiB'\nquota = '1GiB'\n").unwrap();
    let peer = world.peer("seed", &registry, &["--config", "p.toml"]);
    until("the share is read", || status(&world, &peer)["share"]["documents"] == 1);
    let limits = || {
        let status = status(&world, &peer);
        [&status["upload_limit"], &status["download_limit"], &status["fetched"]["quota"], &status["fetched"]["min_free"]]
            .map(|limit| limit.as_u64().unwrap_or_default())
    };
    assert_eq!(limits(), [64 << 10, 0, 1 << 30, 0]);
    let fetch =
        Running::start(world.p2pctl_command(&registry, &["get", "large.bin", "--from", &peer.address.to_string(), "--no-share"]));
    until("it is sent", || status(&world, &peer)["load"]["uploads"] != 0);

    fs::write(
        world.path("p.toml"),
        "share = 'share'\nupload-limit = '1GiB'\ndownload-limit = 5000000\nquota = 7\nmin-free = '1KiB'\n",
    )
    .unwrap();
    hang_up(&peer, "the configuration was read again");
    fetch.ended().exits(0);
    assert_eq!(limits(), [1 << 30, 5_000_000, 7, 1 << 10]);

    // A bad file changes nothing, whatever else it says.
    for text in [
        "upload-limit = '1MiB'\nlgo = 'debug'\n",
        "upload-limit = 0\nquota = 9\n",
        "quota = 9\nlog = 'infoo'\n",
        "[",
        "quota = 'x'\n",
    ] {
        fs::write(world.path("p.toml"), text).unwrap();
        hang_up(&peer, "the values from before stay");
        assert_eq!(limits(), [1 << 30, 5_000_000, 7, 1 << 10], "{text}");
    }
    fs::remove_file(world.path("p.toml")).unwrap();
    hang_up(&peer, "the values from before stay");

    // A limit that is not given any more is none.
    fs::write(world.path("p.toml"), "share = 'share'\nname = 'other'\n").unwrap();
    hang_up(&peer, "the configuration was read again");
    assert_eq!(limits(), [0; 4]);
}
