//! The real programs with files of certificates, and tools of others against them.

use super::{
    certificates::Authority,
    support::{
        process::{Ended, Server},
        tools,
        wait::until,
        world::{World, rfc},
    },
};
use p2pdi::tls::TlsFiles;
use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// A registry and a peer, and the files of somebody who calls them.
struct Secured {
    // The peer first, so that it can leave the registry.
    peer: Server,
    registry: Server,
    caller: TlsFiles,
    world: World,
}

fn flags(files: &TlsFiles) -> Vec<String> {
    let path = |file: &PathBuf| file.display().to_string();
    let [cert, key] = [&files.cert, &files.key].map(|file| path(file.as_ref().unwrap()));
    ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &path(&files.ca)].map(str::to_owned).to_vec()
}

impl Secured {
    fn start() -> Self {
        let (network, world) = (Authority::new("network"), World::new());
        let files = |name: &str, names: &[&str]| network.files(&world.path(name), names);
        let caller = files("caller", &["fff-b"]);
        let mut command = world.registry_command("127.0.0.1:0", &[]);
        let registry = Server::start({
            command.args(flags(&files("registry-files", &["127.0.0.1"])));
            command
        });
        world.share("share", &[48]);
        let url = format!("https://{}", registry.address);
        let mut command = world.peer_command("fff-a", &url, &["--share", "share"]);
        let peer = Server::start({
            command.args(flags(&files("peer-files", &["fff-a", "127.0.0.1"])));
            command
        });
        let secured = Self { peer, registry, caller, world };
        until("the peer is registered", || secured.p2pctl(&["peers"]).stdout.contains("fff-a"));
        until("it has read its share", || secured.p2pctl(&["rfc-query", "fff-a", "-o", "json"]).stdout.contains("rfc48.txt"));
        secured
    }

    fn p2pctl(&self, arguments: &[&str]) -> Ended {
        let mut command = self.world.command("p2pctl", &["--registry", &format!("https://{}", self.registry.address)]);
        command.args(flags(&self.caller)).args(arguments);
        super::support::process::Running::run_to_end(command)
    }

    /// Runs a tool of others with the caller's files, whose flags are called like this.
    fn tool(&self, program: &PathBuf, names: [&str; 3], arguments: &[&str]) -> Output {
        let TlsFiles { cert, key, ca } = &self.caller;
        let files = [cert.as_ref().unwrap(), key.as_ref().unwrap(), ca];
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        for (name, file) in names.iter().zip(files) {
            command.arg(name).arg(file);
        }
        command.args(arguments).output().unwrap()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_programs_work_with_certificates_and_say_what_is_missing_without() {
    let network = Secured::start();
    network.p2pctl(&["get-rfc", "48", "--out", "out"]).exits(0);
    assert_eq!(network.world.read("out/rfc48.txt"), rfc(48));
    network.p2pctl(&["ping", "fff-a"]).exits(0);
    let address = network.peer.address.to_string();
    network.p2pctl(&["status", "--via", &address]).exits(0).stdout_has(&["fff-a", "registered as fff-a"]);

    let plain = network.world.p2pctl(&network.registry, &["peers"]);
    plain.exits(1).stderr_has(&["speaks TLS; give a certificate of its network with --tls-cert, --tls-key and --tls-ca"]);
    let url = format!("https://{}", network.registry.address);
    network.world.run("p2pctl", &["--registry", &url, "peers"]).exits(2).stderr_has(&["https:// needs certificates"]);
    let ca = network.caller.ca.display().to_string();
    let nobody = network.world.run("p2pctl", &["--registry", &url, "--tls-ca", &ca, "peers"]);
    nobody.exits(1).stderr_has(&["it asks for a certificate; give one with --tls-cert and --tls-key"]);
    let missing = network.world.run("registry", &["--tls-cert", "a", "--tls-key", "b", "--tls-ca", "c"]);
    missing.exits(1).stderr_has(&["cannot read the certificate file a"]);
}

#[test]
fn curl_openssl_and_grpcurl_work_with_certificates() {
    let network = Secured::start();
    let (peer, registry) = (network.peer.address.to_string(), network.registry.address.to_string());
    if let Some(curl) = tools::curl() {
        for (version, address) in [("--http1.1", &peer), ("--http2", &peer), ("--http1.1", &registry)] {
            let url = format!("https://{address}/healthz");
            let output = network.tool(&curl, ["--cert", "--key", "--cacert"], &["-sS", "--fail", version, &url]);
            assert!(output.status.success(), "{version} {address}: {}", text(&output));
        }
        let mut nobody = Command::new(&curl);
        nobody.args(["-sS", "--cacert"]).arg(&network.caller.ca).arg(format!("https://{peer}/healthz"));
        let nobody = nobody.output().unwrap();
        assert!(!nobody.status.success() && text(&nobody).contains("certificate required"), "{}", text(&nobody));
    }
    if let Some(openssl) = tools::openssl() {
        let connect = |more: &[&str]| {
            let arguments = [&["s_client", "-brief", "-connect", &peer, "-verify_return_error"] as &[&str], more].concat();
            let mut command = Command::new(&openssl);
            command.args(arguments).arg("-CAfile").arg(&network.caller.ca);
            command.arg("-cert").arg(network.caller.cert.as_ref().unwrap()).arg("-key").arg(network.caller.key.as_ref().unwrap());
            command.stdin(Stdio::null()).output().unwrap()
        };
        let new = text(&connect(&["-alpn", "h2"]));
        assert!(new.contains("TLSv1.3") && new.contains("Verification: OK"), "{new}");
        let old = connect(&["-tls1_2"]);
        assert!(!old.status.success() && text(&old).contains("protocol version"), "{}", text(&old));
    }
    if let Some(grpcurl) = tools::grpcurl() {
        for (address, service) in [(&peer, "p2pdi.v1.Peer"), (&registry, "p2pdi.v1.Registry")] {
            let output = network.tool(&grpcurl, ["-cert", "-key", "-cacert"], &["-max-time", "20", address, "list"]);
            assert!(text(&output).lines().any(|line| line == service), "{}", text(&output));
        }
    }
}

#[test]
fn the_demo_works_with_certificates() {
    let demo = World::new().run("p2pctl", &["demo", "--tls"]);
    demo.exits(0).stdout_has(&["registry   https://127.0.0.1:", "Every step succeeded"]);
}

#[test]
fn a_peer_does_not_share_its_own_key() {
    let (network, world) = (Authority::new("network"), World::new());
    let files = network.files(&world.path("share"), &["fff-a", "127.0.0.1"]);
    let mut command = world.peer_command("fff-a", "https://127.0.0.1:9", &["--share", "share"]);
    command.args(flags(&files));
    let refused = super::support::process::Running::run_to_end(command).exits(2).stdout_is_empty();
    refused.stderr_has(&["tls-key", "is in the folder of --share", "keep it elsewhere"]);
}
