//! peers --watch, and the verbs for operators of a registry.

use crate::support::{
    process::{Running, Server},
    wait::until,
    world::World,
};
use rustix::process::Signal;
use std::fs;

#[test]
fn peers_watch_prints_who_joins_changes_and_leaves_until_it_is_interrupted() {
    let world = World::new();
    let registry = world.registry(&["--state", "memory"]);
    let first = world.peer("fff-a", &registry, &["--label", "zone=x"]);
    let all = Running::start(world.p2pctl_command(&registry, &["peers", "--watch"]));
    let zone = Running::start(world.p2pctl_command(&registry, &["peers", "--watch", "--label", "zone=x", "-o", "json"]));
    for watch in [&all, &zone] {
        until("it has caught up", || watch.stderr().contains("at revision"));
    }
    until("the list", || all.stdout().contains(&format!("joined   fff-a at {} zone=x\n", first.address)));
    let second = world.peer("fff-b", &registry, &[]);
    until("the second", || all.stdout().contains(&format!("joined   fff-b at {}\n", second.address)));
    first.signal(Signal::TERM);
    first.ended().exits(0);
    until("the first left", || all.stdout().contains("left     fff-a\n") && zone.stdout().contains("\"left\""));
    all.signal(Signal::INT);
    zone.signal(Signal::INT);
    let zone = zone.ended().exits(0);
    let lines = zone.json_lines();
    assert_eq!((lines[0]["joined"]["name"].as_str(), lines[1]["left"]["name"].as_str()), (Some("fff-a"), Some("fff-a")));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(all.ended().exits(0).stdout.lines().count(), 3);
    let revision = lines[1]["left"]["revision"].as_u64().unwrap();
    let since =
        Running::start(world.p2pctl_command(&registry, &["peers", "--watch", "--since-revision", &(revision - 1).to_string()]));
    until("what it missed", || since.stdout() == "left     fff-a\n");
    // It survives the registry's end, says so, and goes on with another one without telling again what it told.
    let address = registry.address.to_string();
    registry.kill();
    until("a note", || since.stderr().contains("trying again"));
    let _registry = Server::start(world.registry_command(&address, &["--state", "memory"]));
    until("it is caught up again", || {
        since.stdout().contains("joined   fff-b") && since.stdout().matches("left     fff-a").count() == 1
    });
    assert_eq!(since.stdout().lines().count(), 2, "{}", since.stdout());
    since.signal(Signal::INT);
    since.ended().exits(0);
}

#[test]
fn a_registry_is_backed_up_and_restored_into_an_empty_one_only() {
    let world = World::new();
    let registry = world.registry(&["--state", "first"]);
    world.p2pctl(&registry, &["register", "--name", "op", "--endpoint", "127.0.0.1:9"]).exits(0);
    world.p2pctl(&registry, &["registry", "status"]).exits(0).stdout_has(&[
        "active peers  1",
        "store         ok",
        "network       default",
    ]);
    world.p2pctl(&registry, &["registry", "peers"]).exits(0).stdout_has(&["op ", "127.0.0.1:9", "active"]);
    let one = world.p2pctl(&registry, &["registry", "peers", "o*", "-o", "json"]).exits(0).json_lines();
    assert_eq!((one.len(), one[0]["registered_from"].as_str()), (1, Some("127.0.0.1")), "{one:?}");
    for absent in ["nosuch", "no*"] {
        let run = world.p2pctl(&registry, &["registry", "peers", absent]).exits(1).stdout_is_empty();
        run.stderr_has(&[&format!("error: no peer called {absent} is registered"), "hint: `p2pctl registry peers` lists"]);
    }
    world.p2pctl(&registry, &["registry", "backup", "copy"]).exits(0).stdout_has(&["1 record at revision"]);
    world
        .p2pctl(&registry, &["registry", "restore", "copy"])
        .exits(1)
        .stdout_is_empty()
        .stderr_has(&["has records", "never overwrites"]);
    world.p2pctl(&registry, &["registry", "backup", "copy"]).exits(1).stderr_has(&["copy is there already", "--force"]);
    world.p2pctl(&registry, &["registry", "backup", "copy", "--force"]).exits(0);
    let run = world.p2pctl(&registry, &["registry", "backup", "missing/copy"]).exits(1).stdout_is_empty();
    let run = run.stderr_has(&["cannot write missing/copy: ", "hint: its folder is not there; make it first"]);
    assert!(!run.stderr.contains(".p2pdi-"), "{run:#?}");
    let run = world.p2pctl(&registry, &["registry", "restore", "missing/copy"]).exits(1).stdout_is_empty();
    run.stderr_has(&["cannot read missing/copy: ", "hint: give a file that `p2pctl registry backup` wrote"]);
    let address = registry.address.to_string();
    registry.kill();

    // At the same address, so that p2pctl finds the cookie that it kept.
    let registry = Server::start(world.registry_command(&address, &["--state", "second"]));
    let mut bytes = fs::read(world.path("copy")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(world.path("damaged"), bytes).unwrap();
    world
        .p2pctl(&registry, &["registry", "restore", "damaged"])
        .exits(1)
        .stderr_has(&["cannot read damaged", "hint: nothing was restored"]);
    world.p2pctl(&registry, &["registry", "restore", "none"]).exits(1).stderr_has(&["cannot read none"]);
    world.p2pctl(&registry, &["registry", "restore", "copy"]).exits(0).stdout_has(&["1 record restored, 1 of them active"]);
    world.p2pctl(&registry, &["keepalive"]).exits(0).stdout_has(&["op is active"]);
}
