//! `p2pctl context`.

use crate::support::{
    process::{Ended, Running},
    world::World,
};
use serde_json::json;
use std::fs;

/// The registry that `p2pctl` uses with these arguments and variables.
fn registry_of(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> (String, String) {
    let mut command = world.command("p2pctl", &[arguments, &["--print-config", "peers"]].concat());
    command.envs(variables.iter().copied());
    let printed = Running::run_to_end(command).exits(0).stdout;
    let line = printed.lines().find_map(|line| line.strip_prefix("registry = ")).unwrap_or_else(|| panic!("{printed}"));
    let (value, origin) = line.split_once("  # ").unwrap();
    (value.trim_matches(['"', '[', ']']).to_owned(), origin.to_owned())
}

fn context(world: &World, arguments: &[&str]) -> Ended {
    world.run("p2pctl", &[&["context"], arguments].concat())
}

#[test]
fn the_current_context_says_which_registry_and_flags_beat_it() {
    let world = World::new();
    let registry = world.registry(&[]);
    world.run("p2pctl", &["--registry", &registry.url(), "context", "set", "home"]).exits(0);
    world.run("p2pctl", &["--registry", "http://work:7800", "context", "set", "work"]).exits(0);
    // The first one is current.
    world.run("p2pctl", &["peers", "-o", "json"]).exits(0);
    assert_eq!(registry_of(&world, &[], &[]), (registry.url(), "context home".to_owned()));
    context(&world, &["use", "work"]).exits(0).stdout_has(&["work is the current context"]);
    assert_eq!(registry_of(&world, &[], &[]).0, "http://work:7800");
    for (arguments, variables, expected) in [
        (&["--context", "home"][..], &[][..], registry.url()),
        (&[], &[("P2PDI_CONTEXT", "home")], registry.url()),
        (&[], &[("P2PDI_CTL_CONTEXT", "home"), ("P2PDI_CONTEXT", "work")], registry.url()),
        (&["--context", "work"], &[("P2PDI_CONTEXT", "home")], "http://work:7800".to_owned()),
        (&["--context", "home", "--registry", "http://flag:1"], &[], "http://flag:1".to_owned()),
        (&[], &[("P2PDI_CTL_REGISTRY", "http://env:1")], "http://env:1".to_owned()),
    ] {
        assert_eq!(registry_of(&world, arguments, variables).0, expected, "{arguments:?} {variables:?}");
    }
    // A context beats a file, which may name it.
    fs::write(world.path("f.toml"), "context = 'home'\nregistry = 'http://file:1'\n").unwrap();
    assert_eq!(registry_of(&world, &["--config", "f.toml"], &[]).0, registry.url());
}

#[test]
fn contexts_are_listed_shown_changed_and_deleted() {
    let world = World::new();
    assert_eq!(context(&world, &["list", "-o", "json"]).exits(0).json(), json!([]));
    context(&world, &["show"]).exits(1).stderr_has(&["there is no current context", "hint: "]);
    context(&world, &["set", "home"]).exits(2).stderr_has(&["nothing is given", "--registry"]);
    for name in ["work", "home"] {
        world
            .run("p2pctl", &["--registry", &format!("http://{name}:1"), "context", "set", name])
            .exits(0)
            .stdout_has(&["is new"]);
    }
    world.run("p2pctl", &["--registry", "http://home:2", "context", "set", "home"]).exits(0).stdout_has(&["is changed"]);
    let listed = context(&world, &["list", "-o", "json"]).exits(0).json();
    let expected = json!([
        { "name": "home", "current": false, "registry": "http://home:2" },
        { "name": "work", "current": true, "registry": "http://work:1" }
    ]);
    assert_eq!(listed, expected);
    context(&world, &["list"]).exits(0).stdout_has(&["CURRENT", "*        work", "http://home:2"]);
    context(&world, &["show"]).exits(0).stdout_has(&["work (current)", "http://work:1"]);
    assert_eq!(context(&world, &["show", "home", "-o", "json"]).exits(0).json(), expected[0]);
    context(&world, &["delete", "work"]).exits(0);
    context(&world, &["show"]).exits(1);
    // Without a current one, the default is used.
    assert_eq!(registry_of(&world, &[], &[]).1, "default");
    context(&world, &["use", "work"]).exits(1).stderr_has(&["there is no context \"work\"", "there are home"]);
    context(&world, &["use", "../x"]).exits(2);
    let file = world.path("home/.config/p2pdi/contexts.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_context_that_is_wrong_stops_the_verbs_that_need_it_and_no_others() {
    let world = World::new();
    world
        .run("p2pctl", &["--context", "gone", "peers"])
        .exits(2)
        .stdout_is_empty()
        .stderr_has(&["there is no context \"gone\"", "hint: "]);
    world.run("p2pctl", &["--context", "gone", "completions", "bash"]).exits(0);
    let file = world.path("home/.config/p2pdi/contexts.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    for text in ["current = 1", "current = 'gone'", "[", "current = 'a'\n[contexts.a]\nregistry = 'ftp://x'\n"] {
        fs::write(&file, text).unwrap();
        world.run("p2pctl", &["peers"]).exits(2).stdout_is_empty().stderr_has(&["error: ", "hint: "]);
        world.run("p2pctl", &["man"]).exits(0);
    }
    // It can be mended by the verbs.
    world.run("p2pctl", &["--registry", "http://b:1", "context", "set", "b"]).exits(0);
    context(&world, &["use", "b"]).exits(0);
    assert_eq!(registry_of(&world, &[], &[]).0, "http://b:1");
}

#[test]
fn contexts_set_at_the_same_time_are_all_kept() {
    let world = World::new();
    let running: Vec<_> = (0..6)
        .map(|n| {
            let (name, registry) = (format!("c{n}"), format!("http://r:{}", n + 1));
            Running::start(world.command("p2pctl", &["--registry", &registry, "context", "set", &name]))
        })
        .collect();
    running.into_iter().for_each(|running| drop(running.ended().exits(0)));
    assert_eq!(context(&world, &["list", "-o", "json"]).exits(0).json().as_array().unwrap().len(), 6);
}
