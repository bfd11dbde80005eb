//! What the chart starts: the real programs accept the arguments and do what `helm test` does, without a cluster.

use crate::{
    render::{containers, documents, name, pod, renders, root, strings},
    support::{
        process::{Ended, Running, Server},
        wait::until,
        world::World,
    },
};
use serde_json::Value;
use std::{collections::BTreeMap, fs, process::Command};

/// The port 9 of this host, where nobody listens.
const NOBODY: &str = "127.0.0.1:9";

/// What is around the pods of one set of values, on this machine: folders are in the test's, addresses are those of loopback.
struct Around<'a> {
    world: &'a World,
    /// Address of the registry.
    registry: String,
    /// Token to join with.
    token: String,
}

impl<'a> Around<'a> {
    /// No registry is there.
    fn nobody(world: &'a World) -> Self {
        Self { world, registry: NOBODY.to_owned(), token: String::new() }
    }

    /// Starts the registry of a set of values, if it has one, and makes what the others need of it: a token, or files of certificates.
    fn start(world: &'a World, documents: &[Value]) -> (Self, Option<Server>) {
        let mut here = Self::nobody(world);
        let containers = all(documents);
        let mut network = containers.values().flatten().flat_map(|container| strings(&container["args"]));
        let network = network.rfind(|argument| argument.starts_with("--network=")).unwrap().to_owned();
        let p2pctl =
            |arguments: &[&str]| Running::run_to_end(world.command("p2pctl", arguments)).exits(0).stdout.trim().to_owned();
        if containers.values().flatten().any(|container| mounts(container).contains(&"/tls")) {
            p2pctl(&["ca", "init", "--ca=authority", &network]);
            here.certify("p2pdi-peer-0");
        }
        let alone = containers.get("StatefulSet/p2pdi-registry").map(|container| container[0].clone());
        let Some(container) = alone.or_else(|| alone_in_place_of(containers.get("Deployment/p2pdi-registry")?[0])) else {
            return (here, None);
        };
        let registry = Server::start(here.command(&container));
        here.registry = registry.address.to_string();
        if strings(&container["args"]).contains(&"--ca=/var/lib/p2pdi/ca") {
            let (url, address) = (format!("--registry={}", here.registry), format!("--address={}", here.registry));
            here.token = p2pctl(&[
                "token",
                "create",
                "--ca=var/lib/p2pdi/ca",
                "--name=*",
                "--rejoin",
                "--uses=9",
                &network,
                &url,
                &address,
            ]);
        }
        (here, Some(registry))
    }

    /// A certificate of this name, where the containers look for theirs.
    fn certify(&self, name: &str) {
        let (name_is, out) = (format!("--name={name}"), self.world.path("tls"));
        Running::run_to_end(self.world.command("p2pctl", &["ca", "issue", "--ca=authority", &name_is, "--out=issued"])).exits(0);
        fs::create_dir_all(&out).unwrap();
        let issued = self.world.path("issued");
        for (made, mounted) in
            [(format!("{name}.pem"), "tls.crt"), (format!("{name}-key.pem"), "tls.key"), ("ca.pem".to_owned(), "ca.crt")]
        {
            fs::rename(issued.join(made), out.join(mounted)).unwrap();
        }
        fs::remove_dir_all(issued).unwrap();
    }

    /// Texts of arguments, and what stands for them.
    fn texts(&self) -> Vec<(String, String)> {
        let folder = |path: &str| (format!("={path}"), format!("={}", self.world.path(&path[1..]).display()));
        let fixed = [
            ("[$(POD_IP)]", "[::1]"),
            ("$(POD_IP)", "127.0.0.1"),
            ("$(PEER_NAME)", "p2pdi-peer-0"),
            ("$(POD_NAME)", "p2pdi-peer-0"),
            ("p2pdi-registry.p2pdi:7800", &self.registry),
            ("p2pdi-registries.p2pdi:7800", &self.registry),
            ("registry.example.org:7800", &self.registry),
            ("--wait-for-holders=10m", "--wait-for-holders=1s"),
            ("--wait-for-holders=30s", "--wait-for-holders=1s"),
        ];
        let fixed = fixed.map(|(from, to)| (from.to_owned(), to.to_owned()));
        fixed.into_iter().chain(["/var/lib/p2pdi", "/documents", "/state", "/tls", "/certificates"].map(folder)).collect()
    }

    /// The command of a container.
    fn command(&self, container: &Value) -> Command {
        let program = strings(&container["command"]);
        assert_eq!(program.len(), 1, "{container}");
        let mut command = self.world.command(program[0], &[]);
        command.env_clear();
        let texts = self.texts();
        for argument in strings(&container["args"]) {
            // Every port is a free one.
            let argument = match argument.split_once("listen=") {
                Some((flag, _)) => format!("{flag}listen=127.0.0.1:0"),
                None => texts.iter().fold(argument.to_owned(), |text, (from, to)| text.replace(from, to)),
            };
            command.arg(argument);
        }
        let environment = container["env"].as_array().into_iter().flatten();
        if environment.filter(|variable| variable["name"] == "P2PDI_PEER_JOIN").count() > 0 {
            command.env("P2PDI_PEER_JOIN", &self.token);
        }
        // The kubelet makes the folders of volumes.
        for path in mounts(container) {
            fs::create_dir_all(self.world.path(&path[1..])).unwrap();
        }
        command
    }
}

/// Registries over etcd that are a certificate authority, as one that needs no etcd; `None`: they are none.
fn alone_in_place_of(container: &Value) -> Option<Value> {
    let shared = ["--store", "--etcd", "--replica-address"];
    let arguments =
        strings(&container["args"]).into_iter().filter(|argument| !shared.iter().any(|flag| argument.starts_with(flag)));
    let arguments: Vec<_> = arguments.map(|argument| argument.replace("--ca=/ca", "--ca=/var/lib/p2pdi/ca")).collect();
    arguments.iter().any(|argument| argument.starts_with("--ca=")).then(|| {
        let mut alone = container.clone();
        alone["args"] = arguments.into_iter().chain(["--state=memory".to_owned()]).collect();
        alone
    })
}

fn mounts(container: &Value) -> Vec<&str> {
    container["volumeMounts"].as_array().into_iter().flatten().map(|mount| mount["mountPath"].as_str().unwrap()).collect()
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
        let (here, registry) = Around::start(&world, documents);
        for (document, containers) in all(documents).into_iter().filter(|(name, _)| !name.ends_with("/p2pdi-registry")) {
            for container in containers.into_iter().filter(|container| !is_command_line(container)) {
                // Each pod has a certificate of its own.
                let name = strings(&container["args"]).into_iter().find_map(|argument| argument.strip_prefix("--name="));
                if let Some(name) = name.filter(|_| mounts(container).contains(&"/tls")) {
                    here.certify(if name.contains('$') { "p2pdi-peer-0" } else { name });
                }
                let server = Server::start(here.command(container));
                let errors = server.process.stderr();
                assert!(!errors.contains("warning:"), "{set}: {document}: {errors}");
                started += 1;
                server.kill();
            }
        }
        drop(registry);
    }
    assert!(started > 15, "{started}");
}

#[test]
fn a_registry_over_etcd_accepts_its_arguments() {
    let Some(renders) = renders() else { return };
    let mut read = 0;
    for (set, documents) in &renders.sets {
        let containers = all(documents);
        let Some(container) = containers.get("Deployment/p2pdi-registry") else { continue };
        let world = World::new();
        // There is no etcd to start with.
        let mut command = Around::nobody(&world).command(container[0]);
        command.arg("--print-config");
        let printed = Running::run_to_end(command).exits(0).stdout;
        assert!(printed.contains("store = \"etcd\"") && printed.contains("replica-address"), "{set}: {printed}");
        read += 1;
    }
    assert_eq!(read, 3);
}

#[test]
fn what_is_run_before_a_peer_is_stopped_is_accepted() {
    let Some(renders) = renders() else { return };
    let mut run = 0;
    for (set, documents) in &renders.sets {
        for container in all(documents).into_values().flatten() {
            let command = strings(&container["lifecycle"]["preStop"]["exec"]["command"]);
            let Some((program, arguments)) = command.split_first() else { continue };
            let world = World::new();
            let here = Around::nobody(&world);
            if mounts(container).contains(&"/tls") {
                Running::run_to_end(world.command("p2pctl", &["ca", "init", "--ca=authority"])).exits(0);
                here.certify("p2pdi-peer-0");
            }
            // A peer of somebody else may be at the usual port of this machine.
            let at =
                |argument: &&str| if argument.starts_with("--at=") { format!("--at={NOBODY}") } else { (*argument).to_owned() };
            let arguments: Vec<_> = arguments.iter().map(at).collect();
            let as_container = serde_json::json!({"command": [program], "args": arguments});
            let mut drain = here.command(&as_container);
            drain.arg("--log=off");
            let Ended { code, stderr, what, .. } = Running::run_to_end(drain);
            // Nobody answers there, or the files of an enrolment are missing. Wrong usage would end it with 2.
            assert_eq!(code, Some(1), "{set}: {what}: {stderr}");
            run += 1;
        }
    }
    assert!(run > 5, "{run}");
}

#[test]
fn the_servers_start_with_the_arguments_of_compose_and_systemd() {
    let Some(containers) = others() else { return };
    assert_eq!(containers.len(), 6, "{containers:?}");
    let world = World::new();
    for container in containers {
        Server::start(Around::nobody(&world).command(&container)).kill();
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
            let Ended { code, stderr, what, .. } = Running::run_to_end(Around::nobody(&world).command(container));
            assert_eq!(code, Some(1), "{set}: {what}: {stderr}");
            run += 1;
        }
    }
    assert!(run > 20, "{run}");
}

#[test]
fn the_steps_of_helm_test_pass_with_and_without_certificates() {
    let Some(renders) = renders() else { return };
    for set in ["ci/default-values.yaml", "ci/join-token-values.yaml"] {
        let documents = &renders.sets[set];
        let world = World::new();
        let (here, _registry) = Around::start(&world, documents);
        let start = |container: &Value| {
            // The port is another one than in the pod, so the peer finds out itself where it is.
            let command = here.command(container);
            let mut elsewhere = Command::new(command.get_program());
            elsewhere.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            elsewhere.args(command.get_args().filter(|argument| !argument.to_string_lossy().starts_with("--advertise=")));
            Server::start(elsewhere)
        };
        let containers = all(documents);
        let (sidecar, steps) = containers["Pod/p2pdi-test"].split_first().unwrap();
        fs::create_dir_all(world.path("documents")).unwrap();
        fs::write(world.path("documents/p2pdi-test.txt"), "a document\n").unwrap();
        let _peers = [start(containers["StatefulSet/p2pdi-peer"][0]), start(sidecar)];
        // As the probes see to it in a pod.
        let mut peers = steps[0].clone();
        peers["args"] = serde_json::json!(["pquery"]);
        let common = strings(&steps[0]["args"])
            .into_iter()
            .filter(|argument| ["--registry", "--network", "--tls"].iter().any(|flag| argument.starts_with(flag)));
        peers["args"].as_array_mut().unwrap().extend(common.map(Value::from));
        until("both peers are registered", || {
            let listed = Running::run_to_end(here.command(&peers)).stdout;
            listed.contains("p2pdi-peer-0") && listed.contains("p2pdi-test-peer")
        });
        for step in steps {
            Running::run_to_end(here.command(step)).exits(0);
        }
        assert_eq!(world.read("state/out/p2pdi-test.txt"), b"a document\n", "{set}");
    }
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
