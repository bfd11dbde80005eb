//! `--config FILE` and `--print-config`.

use crate::support::{
    network::ready,
    process::{Ended, Running, Server},
    world::World,
};
use std::fs;

const PROGRAMS: [&str; 3] = ["registry", "peerd", "p2pctl"];

fn printed(world: &World, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = world.command(program, &[arguments, &["--print-config"]].concat());
    command.envs(variables.iter().copied());
    Running::run_to_end(command)
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_default() {
    let world = World::new();
    fs::write(world.path("f.toml"), "ttl = '7s'\nmax-peers = 7\ngrace = '7s'\n").unwrap();
    let variables = [("P2PDI_REGISTRY_TTL", "8s"), ("P2PDI_REGISTRY_MAX_PEERS", "8")];
    let printed = printed(&world, "registry", &["--config", "f.toml", "--ttl", "9s"], &variables).exits(0);
    printed.stdout_has(&[
        "\nttl = \"9s\"  # flag\n",
        "\nmax-peers = 8  # environment P2PDI_REGISTRY_MAX_PEERS\n",
        "\ngrace = \"7s\"  # f.toml:3\n",
        "\nlisten = \"127.0.0.1:7800\"  # default\n",
    ]);
}

#[test]
fn a_program_runs_with_its_file() {
    let world = World::new();
    let registry = world.registry(&[]);
    let share = world.share("share", &[48]);
    let text = format!(
        "name = 'filed'\nlisten = '127.0.0.1:0'\nregistry = '{}'\nstate = 's'\nshare = '{}'\nno-lan = true\nlabel = ['zone=a', 'b=c']\n\
         upload-limit = 1048576\nmirror = ['a/**', 'b/**']\n",
        registry.url(),
        share.display()
    );
    fs::write(world.path("peer.toml"), text).unwrap();
    let mut command = world.command("peerd", &[]);
    command.env("P2PDI_PEER_CONFIG", "peer.toml");
    let peer = Server::start(command);
    ready(&peer);
    fs::write(world.path("ctl.toml"), format!("output = 'json'\nregistry = '{}'\n[verb.get]\nout = 'there'\n", registry.url()))
        .unwrap();
    let via = peer.address.to_string();
    let status = world.run("p2pctl", &["--config", "ctl.toml", "status", &via]).exits(0).json();
    assert_eq!((&status["name"], &status["upload_limit"]), (&"filed".into(), &1_048_576.into()), "{status}");
    assert_eq!(status["mirrors"].as_array().unwrap().len(), 2, "{status}");
    world.run("p2pctl", &["--config", "ctl.toml", "get", "rfc48.txt", "--from", &via]).exits(0);
    assert!(world.path("there/rfc48.txt").exists());
    // A flag of the verb beats its table; a flag after the verb is found, too.
    world.run("p2pctl", &["get", "rfc48.txt", "--from", &via, "--out", "elsewhere", "--config", "ctl.toml"]).exits(0);
    assert!(world.path("elsewhere/rfc48.txt").exists());
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_the_line_and_what_is_right() {
    let world = World::new();
    for program in PROGRAMS {
        fs::write(world.path("f.toml"), "\nlgo = 'info'\nlog = 5.5\nlog-format = 'xml'\n").unwrap();
        let ended = world.run(program, &["--config", "f.toml"]).exits(2).stdout_is_empty();
        ended.stderr_has(&[
            "error: f.toml:2: unknown key `lgo`; did you mean `log`?",
            "f.toml:4: log-format = \"xml\"",
            "hint: ",
        ]);
        world.run(program, &["--config", "missing.toml"]).exits(2).stdout_is_empty().stderr_has(&["missing.toml", "hint: "]);
        fs::write(world.path("f.toml"), "log = \n").unwrap();
        world.run(program, &["--config", "f.toml"]).exits(2).stdout_is_empty().stderr_has(&["error: f.toml:1: "]);
        // What asks for the help gets it.
        world.run(program, &["--config", "f.toml", "--help"]).exits(0);
    }
    fs::write(world.path("f.toml"), "no-lan = 'yes'\nshare = ['a']\nlabel = true\nttl = '1s'\n").unwrap();
    world.run("peerd", &["--config", "f.toml"]).exits(2).stdout_is_empty().stderr_has(&[
        "f.toml:1: no-lan: expected true or false, found a string",
        "f.toml:2: share: expected a string (DIR), found an array",
        "f.toml:3: label: expected an array of strings ([\"KEY=VALUE\", …]), found a boolean",
        "f.toml:4: unknown key `ttl`",
    ]);
    fs::write(world.path("f.toml"), "[verb.get]\nno-share = true\nseed = '1m'\n").unwrap();
    world.run("p2pctl", &["--config", "f.toml", "get", "x"]).exits(2).stdout_is_empty().stderr_has(&["excludes"]);
}

#[test]
fn a_flag_takes_the_place_of_what_it_excludes_in_the_file() {
    let world = World::new();
    fs::write(world.path("f.toml"), "[verb.get]\nno-share = true\n").unwrap();
    let printed = world.run("p2pctl", &["--config", "f.toml", "get", "--seed", "1m", "--print-config"]).exits(0);
    printed.stdout_has(&["no-share = false  # default", "seed = \"1m\"  # flag"]);
}

#[test]
fn what_is_printed_can_be_fed_back() {
    let world = World::new();
    fs::write(world.path("quote\"d.toml"), "share = 'a \"b\" \\ #'\nlabel = ['k=v', 'l=w']\nquota = 5\nport = 7\n").unwrap();
    let peer = ["--name", "48", "--mirror", "a", "--mirror", "b", "--min-free", "5%", "--config", "quote\"d.toml"];
    let calls = [
        ("registry", &["--ttl", "9s", "--state", "memory"][..]),
        ("peerd", &peer),
        ("p2pctl", &["get", "x", "--exclude", "*.bin", "--jobs", "3", "-o", "json"]),
        ("p2pctl", &[]),
    ];
    for (program, arguments) in calls {
        let first = printed(&world, program, arguments, &[("P2PDI_PEER_NO_REGISTRY", "1")]).exits(0);
        assert_eq!(first.stderr, "");
        fs::write(world.path("back.toml"), &first.stdout).unwrap();
        let verb: Vec<_> = arguments.first().filter(|verb| **verb == "get").copied().into_iter().collect();
        let second = printed(&world, program, &[&verb[..], &["--config", "back.toml"]].concat(), &[]).exits(0);
        let values = |text: &str| -> Vec<String> {
            text.lines()
                .skip(1)
                .filter(|line| !line.starts_with('#'))
                .map(|line| line.rsplit_once("  #").map_or(line, |(value, _)| value).to_owned())
                .collect()
        };
        assert_eq!(values(&first.stdout), values(&second.stdout), "{program} {arguments:?}");
        assert!(values(&first.stdout).len() > 5, "{}", first.stdout);
    }
}
