//! The image's file system, without a container engine: programs, libraries and nothing else, used by a stranger and read-only.

use crate::{
    render::{root, succeeds},
    support::{
        process::{Running, Server},
        programs::program,
        tools::{buildah, skipped},
        world::World,
    },
};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A folder with the programs of this workspace, stripped as those of a release are: an image is six copies of them while it is made.
fn stripped(world: &World) -> PathBuf {
    let folder = world.path("programs");
    fs::create_dir(&folder).unwrap();
    succeeds(Command::new("strip").arg("-o").arg(folder.join("p2pdi")).arg(program("p2pdi")));
    folder
}

/// Lays out the file system from the programs of this workspace.
fn lay_out(world: &World) -> PathBuf {
    let folder = world.path("rootfs");
    succeeds(Command::new(root().join("deploy/rootfs")).arg(stripped(world)).arg(&folder));
    folder
}

#[test]
fn the_image_has_the_programs_their_libraries_and_no_shell() {
    let world = World::new();
    let folder = lay_out(&world);
    let list = |of: &str| -> BTreeSet<_> {
        fs::read_dir(folder.join(of)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(list("usr/local/bin"), BTreeSet::from(["p2pctl", "p2pdi", "peerd", "registry"].map(str::to_owned)));
    assert_eq!(list("etc"), BTreeSet::from(["group", "nsswitch.conf", "passwd"].map(str::to_owned)));
    for name in ["p2pctl", "peerd", "registry"] {
        assert_eq!(fs::read_link(folder.join("usr/local/bin").join(name)).unwrap(), Path::new("p2pdi"));
    }
    assert!(list("").iter().all(|name| ["etc", "lib", "lib64", "tmp", "usr", "var"].contains(&name.as_str())), "{:?}", list(""));
}

/// Commands that make the file system read-only but for a folder in memory, and become another user. It needs root, in a mount namespace of its own.
const STRANGER: &str = r#"
    set -e
    mount --bind "$1" "$1"
    mount -o remount,bind,ro "$1"
    mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
    shift
    exec chroot --userspec=12345:12345 "$@"
"#;

#[test]
fn each_server_runs_read_only_as_a_stranger_and_stops_in_time() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can mount a file system read-only");
    }
    let world = World::new();
    let folder = lay_out(&world);
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["--mount", "sh", "-c", STRANGER, "sh"]);
        command.args([&folder, &folder]).args(arguments);
        command
    };
    let registry = Server::start(inside(&["registry", "--listen=127.0.0.1:0", "--state=/tmp/registry"]));
    let url = format!("--registry={}", registry.url());
    let peer = ["peerd", "--listen=127.0.0.1:0", "--name=stranger", "--share=/tmp", "--state=/tmp/peer", "--no-lan", &url];
    let peer = Server::start(inside(&peer));
    crate::support::wait::until("the peer is registered", || {
        let peers = Running::run_to_end(inside(&["p2pctl", &url, "peers"]));
        peers.stdout.contains("stranger")
    });
    for server in [peer, registry] {
        server.signal(Signal::TERM);
        server.ended().exits(0);
    }
}

#[test]
fn the_last_stage_of_the_dockerfile_is_built_from_scratch() {
    let Some(buildah) = buildah() else { return };
    let world = World::new();
    let archive = world.path("image.tar");
    let mut command = Command::new(root().join("deploy/image"));
    let path = format!("{}:/usr/bin:/bin", buildah.parent().map_or_else(String::new, |folder| folder.display().to_string()));
    succeeds(command.env("PATH", path).arg(stripped(&world)).arg("p2pdi.test/p2pdi:0").arg(&archive));
    let read =
        |name: &str| succeeds(Command::new("tar").arg("--extract").arg("--to-stdout").arg("--file").arg(&archive).arg(name));
    let manifest: serde_json::Value = serde_json::from_str(&read("manifest.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&read(manifest[0]["Config"].as_str().unwrap())).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
}
