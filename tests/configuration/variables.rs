//! Environment variables: old names, and those that Kubernetes makes up.

use crate::support::{
    process::{Running, Server},
    world::World,
};
use rustix::process::Signal;
use std::process::Command;

/// What Kubernetes sets in each container for a Service `service` at this address and port ("Accessing the Service").
fn service_links(command: &mut Command, service: &str, port: u16) {
    let name = service.to_uppercase().replace('-', "_");
    command
        .env(format!("{name}_SERVICE_HOST"), "10.0.0.1")
        .env(format!("{name}_SERVICE_PORT"), port.to_string())
        .env(format!("{name}_SERVICE_PORT_GRPC"), port.to_string())
        .env(format!("{name}_PORT"), format!("tcp://10.0.0.1:{port}"))
        .env(format!("{name}_PORT_{port}_TCP"), format!("tcp://10.0.0.1:{port}"))
        .env(format!("{name}_PORT_{port}_TCP_PROTO"), "tcp")
        .env(format!("{name}_PORT_{port}_TCP_PORT"), port.to_string())
        .env(format!("{name}_PORT_{port}_TCP_ADDR"), "10.0.0.1");
}

/// The Services of a deployment, and some whose names are like the variables of the programs.
fn in_kubernetes(mut command: Command) -> Command {
    for service in ["p2pdi", "p2pdi-registry", "p2pdi-peer", "p2pdi-ctl", "p2pdi-ctl-up", "p2pdi-up", "p2pdi-peer-listen"] {
        service_links(&mut command, service, 7801);
    }
    command
}

#[test]
fn variables_that_kubernetes_makes_up_for_services_disturb_no_program() {
    let world = World::new();
    let registry = Server::start(in_kubernetes(world.registry_command("127.0.0.1:0", &[])));
    let peer = Server::start(in_kubernetes(world.peer_command("A", &registry.url(), &[])));
    assert_eq!(peer.address.ip().to_string(), "127.0.0.1");
    let peers = Running::run_to_end(in_kubernetes(world.p2pctl_command(&registry, &["peers", "-o", "json"]))).exits(0);
    assert_eq!(peers.stderr, "");
    for (program, arguments) in [("registry", &[][..]), ("peerd", &["--name", "a"]), ("p2pctl", &[])] {
        let plain = world.run(program, &[arguments, &["--print-config"]].concat()).exits(0);
        let links =
            Running::run_to_end(in_kubernetes(world.command(program, &[arguments, &["--print-config"]].concat()))).exits(0);
        assert_eq!(plain.stdout, links.stdout, "{program}");
    }
    for server in [peer, registry] {
        server.signal(Signal::TERM);
        let ended = server.ended().exits(0);
        assert!(!ended.stderr.contains("new name"), "{}", ended.stderr);
    }
}

#[test]
fn old_names_of_variables_are_read_with_a_warning() {
    let world = World::new();
    let mut command = world.command("registry", &["--state", "memory"]);
    command.env("P2PDI_LISTEN", "127.0.0.1:0");
    let registry = Server::start(command);
    let mut command = world.command("peerd", &["--state", "s", "--no-registry"]);
    command.env("P2PDI_NAME", "old").env("P2PDI_LISTEN", "127.0.0.1:0").env("P2PDI_PORT", "0");
    let peer = Server::start(command);
    let mut command = world.command("p2pctl", &["status", "-o", "json"]);
    command.env("P2PDI_VIA", peer.address.to_string());
    let status = Running::run_to_end(command).exits(0).stderr_has(&["warning: ", "P2PDI_VIA", "P2PDI_CTL_VIA"]);
    assert_eq!(status.json()["name"], "old");
    for (server, names) in [
        (registry, &["P2PDI_LISTEN", "P2PDI_REGISTRY_LISTEN"][..]),
        (peer, &["P2PDI_NAME", "P2PDI_PEER_NAME", "P2PDI_PEER_PORT_NUMBER"]),
    ] {
        server.signal(Signal::TERM);
        server.ended().exits(0).stderr_has(names);
    }
}

#[test]
fn rust_log_sets_the_log_of_all_programs() {
    let world = World::new();
    for program in ["registry", "peerd", "p2pctl"] {
        let mut command = world.command(program, &["--print-config"]);
        command.env("RUST_LOG", "debug");
        Running::run_to_end(command).exits(0).stdout_has(&["log = \"debug\"  # environment RUST_LOG"]);
    }
}
