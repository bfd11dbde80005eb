//! What the chart starts: the real programs accept the arguments and do what `helm test` does, without a cluster.

use crate::{
    render::{containers, documents, name, pod, renders, root, strings},
    support::{
        network::ready,
        process::{Ended, Running, Server},
        world::World,
    },
};
use serde_json::Value;
use std::{collections::BTreeMap, fs, process::Command};

/// The port 9 of this host, where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";

/// Texts of a pod's arguments, and what stands for them here: folders are in the test's, addresses are those of loopback.
fn here(world: &World, registry: &str) -> Vec<(String, String)> {
    let folder = |path: &str| (format!("={path}"), format!("={}", world.path(&path[1..]).display()));
    let fixed = [
        ("[$(POD_IP)]", "[::1]"),
        ("$(POD_IP)", "127.0.0.1"),
        ("$(PEER_NAME)", "p2pdi-peer-0"),
        ("http://p2pdi-registry.p2pdi:7800", registry),
        ("http://registry.example.org:7800", registry),
        ("--wait-for-holders=10m", "--wait-for-holders=1s"),
    ];
    let fixed = fixed.map(|(from, to)| (from.to_owned(), to.to_owned()));
    fixed.into_iter().chain(["/var/lib/p2pdi", "/documents", "/state"].map(folder)).collect()
}

/// The command of a container, on this machine.
fn command(world: &World, container: &Value, registry: &str) -> Command {
    let program = strings(&container["command"]);
    assert_eq!(program.len(), 1, "{container}");
    let mut command = world.command(program[0], &[]);
    command.env_clear();
    let here = here(world, registry);
    for argument in strings(&container["args"]) {
        let argument = here.iter().fold(argument.to_owned(), |text, (from, to)| text.replace(from, to));
        // Every port is a free one.
        command.arg(if argument.starts_with("--listen=") { "--listen=127.0.0.1:0" } else { &argument });
    }
    // The kubelet makes the folders of volumes.
    for mount in container["volumeMounts"].as_array().unwrap() {
        fs::create_dir_all(world.path(&mount["mountPath"].as_str().unwrap()[1..])).unwrap();
    }
    command
}

/// The services of compose.yaml and the units of systemd, as containers.
fn others() -> Option<Vec<Value>> {
    let folder = root().join("deploy");
    let compose = fs::read_to_string(folder.join("compose.yaml")).unwrap();
    let read = documents(&BTreeMap::from([("compose".to_owned(), compose)]))?;
    let services = read["documents"]["compose"][0]["services"].as_object().unwrap().values();
    let services = services.filter_map(|service| Some(strings(service.get("command")?).into_iter().map(str::to_owned).collect()));
    let units =
        ["registry", "peer"].map(|name| fs::read_to_string(folder.join(format!("systemd/p2pdi-{name}.service"))).unwrap());
    let units = units.iter().map(|unit| {
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).unwrap();
        // As in the chart: `--flag=value`, and the folder of the pods' state.
        let start = start.replace("%S/p2pdi-registry", "/var/lib/p2pdi").replace("%S/p2pdi-peer", "/var/lib/p2pdi");
        start.replace(" --", "\n--").replace(' ', "=").lines().map(str::to_owned).collect()
    });
    let container = |command: Vec<String>| {
        let mounts = ["/var/lib/p2pdi/share", "/documents"].map(|path| serde_json::json!({"mountPath": path}));
        serde_json::json!({"command": [command[0]], "args": command[1..], "volumeMounts": mounts})
    };
    Some(services.chain(units).map(container).collect())
}

/// The containers of a set of values by the name of their document.
fn all(documents: &[Value]) -> BTreeMap<String, Vec<&Value>> {
    documents.iter().filter_map(|document| Some((name(document), containers(pod(document)?)))).collect()
}

fn is_command_line(container: &Value) -> bool {
    strings(&container["command"]) == ["p2pctl"]
}

#[test]
fn the_servers_start_with_the_arguments_of_every_set_of_values() {
    let Some(renders) = renders() else { return };
    let mut started = 0;
    for (set, documents) in &renders.sets {
        let world = World::new();
        for (document, containers) in all(documents) {
            for container in containers.into_iter().filter(|container| !is_command_line(container)) {
                let server = Server::start(command(&world, container, NOBODY));
                let errors = server.process.stderr();
                assert!(!errors.contains("warning:"), "{set}: {document}: {errors}");
                started += 1;
                server.kill();
            }
        }
    }
    assert!(started > 20, "{started}");
}

#[test]
fn the_servers_start_with_the_arguments_of_compose_and_systemd() {
    let Some(containers) = others() else { return };
    assert_eq!(containers.len(), 6, "{containers:?}");
    let world = World::new();
    for container in containers {
        Server::start(command(&world, &container, NOBODY)).kill();
    }
}

#[test]
fn the_command_line_accepts_the_arguments_of_every_set_of_values() {
    let Some(renders) = renders() else { return };
    let world = World::new();
    let mut run = 0;
    for (set, documents) in &renders.sets {
        for container in all(documents).into_values().flatten().filter(|container| is_command_line(container)) {
            // Nobody answers, so a verb ends with 1. Wrong usage would end it with 2.
            let Ended { code, stderr, what, .. } = Running::run_to_end(command(&world, container, NOBODY));
            assert_eq!(code, Some(1), "{set}: {what}: {stderr}");
            run += 1;
        }
    }
    assert!(run > 20, "{run}");
}

#[test]
fn the_steps_of_helm_test_pass() {
    let Some(renders) = renders() else { return };
    let documents = all(&renders.sets["ci/default-values.yaml"]);
    let world = World::new();
    let registry = Server::start(command(&world, documents["StatefulSet/p2pdi-registry"][0], NOBODY));
    let start = |container: &Value| {
        // The port is another one than in the pod, so the peer finds out itself where it is.
        let command = command(&world, container, &registry.url());
        let mut here = Command::new(command.get_program());
        here.env_clear().args(command.get_args().filter(|argument| !argument.to_string_lossy().starts_with("--advertise=")));
        let server = Server::start(here);
        ready(&server);
        server
    };
    let (sidecar, steps) = documents["Pod/p2pdi-test"].split_first().unwrap();
    fs::create_dir_all(world.path("documents")).unwrap();
    fs::write(world.path("documents/p2pdi-test.txt"), "a document\n").unwrap();
    let _peers = [start(documents["StatefulSet/p2pdi-peer"][0]), start(sidecar)];
    for step in steps {
        Running::run_to_end(command(&world, step, &registry.url())).exits(0);
    }
    assert_eq!(world.read("state/out/p2pdi-test.txt"), b"a document\n");
}

#[test]
fn the_variables_that_operators_are_told_of_exist() {
    let world = World::new();
    let known: String = ["registry", "peerd", "p2pctl"].map(|program| world.run(program, &["--help"]).exits(0).stdout).concat();
    let folder = root().join("deploy");
    let mut found = 0;
    for file in ["README.md", "compose.yaml", "systemd/p2pdi-registry.service", "systemd/p2pdi-peer.service"] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        // The image of compose.yaml is for compose itself.
        for name in words.filter(|word| word.starts_with("PDI_")).filter(|word| !word.ends_with("PDI_IMAGE")) {
            assert!(known.contains(&format!("[env: P2{name}=")), "{file}: no program has the variable P2{name}");
            found += 1;
        }
    }
    assert!(found > 3, "{found}");
}
