//! The registry as the chart starts it over etcd: with the arguments of `deploy/manifests/ha.yaml`, which is the rendered chart.

use super::three::*;
use crate::{cable::Cable, etcd::Etcd, support::*};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

/// The arguments of the container in the Deployment of the registry.
fn rendered() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests/ha.yaml");
    let text = fs::read_to_string(path).unwrap();
    let (_, deployment) = text.split_once("\nkind: Deployment\n").unwrap();
    let (_, arguments) = deployment.split_once("command: [registry]\n          args:\n").unwrap();
    let items = arguments.lines().map_while(|line| line.strip_prefix("            - "));
    let arguments: Vec<_> = items.map(|item| item.trim_matches('"').to_owned()).collect();
    assert!(arguments.len() > 8 && arguments.iter().all(|argument| argument.starts_with("--")), "{arguments:?}");
    arguments
}

/// The real program with these arguments, where every address is one of this machine, and a port that is free.
fn start(arguments: &[String], etcd: &Etcd, reached_at: SocketAddr, folder: &Path) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
    // Nothing that says where a state folder could be: they need none.
    command.env_clear().current_dir(folder).stderr(Stdio::null());
    for argument in arguments {
        let (flag, _) = argument.split_once('=').unwrap();
        match flag {
            "--listen" | "--health-listen" => command.arg(format!("{flag}=127.0.0.1:0")),
            "--etcd-endpoints" => command.arg(format!("{flag}={}", etcd.endpoints().join(","))),
            "--replica-address" => command.arg(format!("{flag}={reached_at}")),
            _ => command.arg(argument),
        };
    }
    Program::spawn_as_is(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_start_over_etcd_with_the_arguments_that_the_chart_renders() {
    let Some(etcd) = Etcd::start() else { return };
    let (arguments, folder) = (rendered(), tempfile::tempdir().unwrap());
    let mut programs = Vec::new();
    let mut cables = Vec::new();
    for _ in 0..3 {
        let cable = Cable::to(0).await;
        let program = start(&arguments, &etcd, cable.address, folder.path());
        cable.plug(program.address.port());
        programs.push(program);
        cables.push(cable);
    }
    all_settled(&programs.iter().map(|program| program.address).collect::<Vec<_>>()).await;
    let registered = register(&mut programs[0].client(), "fff-a", "10.0.0.1:7801").await;
    keep_alive(&mut programs[1].client(), &registered.cookie).await.unwrap();
    let watching = observe(&mut programs[2].client(), "watching").await.cookie;
    assert_eq!(listed(&mut programs[2].client(), &watching).await, ["fff-a"]);
    // Without a volume: they write nothing.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
