//! Attacks from another machine of the same LAN, each machine a network namespace, against the real programs: where the network has
//! certificates none works, and where it has none, what is promised holds.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by a panic, in its helpers too"
)]

#[path = "../support/certificates.rs"]
mod certificates;
mod documents;
mod link;
mod messages;
mod names;
mod networks;
#[path = "../support/mod.rs"]
mod support;

use certificates::Authority;
use p2pdi::{
    channel::{Channel, Dial},
    endpoint::Endpoint,
    status::Reason,
    tls::{Expected, Tls},
    v1::{RegisterRequest, RegisterResponse, registry_client::RegistryClient},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{collections::BTreeMap, fs::File, net::SocketAddr, os::fd::AsFd as _, thread};
use support::{
    lan::Lan,
    process::{Ended, Running, Server},
    wait::until,
};
use tonic::Status;

/// The machines: the registry's, those of the peers `a` and `b`, and the attacker's.
const REGISTRY: usize = 1;
const A: usize = 2;
const B: usize = 3;
const ATTACKER: usize = 4;

const REGISTRY_ADDRESS: &str = "10.77.0.1:7800";

/// A network that is attacked.
struct Network {
    /// `None`: it has no certificates.
    authority: Option<Authority>,
    lan: Lan,
}

impl Network {
    /// One with certificates and one without; none, if there are no network namespaces here.
    fn both() -> impl Iterator<Item = Self> {
        [true, false].into_iter().filter_map(|certified| {
            let lan = Lan::new(ATTACKER)?;
            Some(Self { authority: certified.then(|| Authority::new("network")), lan })
        })
    }

    fn is_certified(&self) -> bool {
        self.authority.is_some()
    }

    /// The flags of a program with a certificate for `names`.
    fn flags(&self, folder: &str, names: &[&str]) -> Vec<String> {
        let Some(authority) = &self.authority else { return Vec::new() };
        let files = authority.files(&self.lan.world.path(folder), names);
        let path = |flag: &str, path: &std::path::Path| [flag.to_owned(), path.display().to_string()];
        [
            path("--tls-cert", files.cert.as_deref().unwrap()),
            path("--tls-key", files.key.as_deref().unwrap()),
            path("--tls-ca", &files.ca),
        ]
        .concat()
    }

    fn start(&self, machine: usize, program: &str, arguments: &[&str], tls: &[String]) -> Server {
        let tls: Vec<_> = tls.iter().map(String::as_str).collect();
        Server::start(self.lan.on(machine, program, &[arguments, &tls].concat()))
    }

    fn url(&self) -> String {
        format!("{}://{REGISTRY_ADDRESS}", if self.is_certified() { "https" } else { "http" })
    }

    fn registry(&self) -> Server {
        let tls = self.flags("tls-registry", &["10.77.0.1", "spiffe://default/registry"]);
        self.start(REGISTRY, "registry", &["--listen", REGISTRY_ADDRESS, "--state", "registry"], &tls)
    }

    /// A peer of the network on its machine, with what the attacker may not have: its certificate.
    fn peer(&self, machine: usize, name: &str, flags: &[&str]) -> Server {
        let tls = self.flags(&format!("tls-{name}"), &[name, &format!("spiffe://default/peer/{name}")]);
        let (listen, state, url) = (format!("10.77.0.{machine}:7801"), format!("state-{name}"), self.url());
        let own = ["--name", name, "--listen", &listen, "--no-lan", "--state", &state, "--registry", &url];
        self.start(machine, "peerd", &[own.as_slice(), flags].concat(), &tls)
    }

    /// `a` and `b`, linked and registered.
    fn peers(&self, flags: [&[&str]; 2]) -> [Server; 2] {
        let a = self.peer(A, "a", flags[0]);
        let bootnode = a.address.to_string();
        let b = self.peer(B, "b", &[&["--bootnodes", &bootnode], flags[1]].concat());
        until("both are registered", || ["a", "b"].iter().all(|name| self.listed().contains_key(*name)));
        until("they are linked", || {
            let status = self.p2pctl(B, &["status", &b.address.to_string(), "-o", "json"]).exits(0);
            status.json()["mesh"]["neighbours"].as_u64() == Some(1)
        });
        [a, b]
    }

    /// `p2pctl` of the operator on one machine.
    fn p2pctl(&self, machine: usize, arguments: &[&str]) -> Ended {
        let tls = self.flags("tls-operator", &["spiffe://default/operator/operator"]);
        let url = self.url();
        let tls: Vec<_> = tls.iter().map(String::as_str).collect();
        let all = [arguments, &["--registry", &url], &tls].concat();
        Running::run_to_end(self.lan.on(machine, "p2pctl", &all))
    }

    /// The endpoints of the active peers, by name.
    fn listed(&self) -> BTreeMap<String, String> {
        let listed = self.p2pctl(REGISTRY, &["peers", "-o", "json"]).exits(0).json();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        listed["peers"].as_array().unwrap().iter().map(|peer| (text(&peer["name"]), text(&peer["endpoint"]))).collect()
    }

    /// Messages that a peer received.
    fn received(&self, machine: usize, peer: SocketAddr) -> u64 {
        let status = self.p2pctl(machine, &["status", &peer.to_string(), "-o", "json"]).exits(0).json();
        let received = &status["inbox"]["received"];
        received.as_u64().or_else(|| received.as_str()?.parse().ok()).unwrap()
    }

    /// What the attacker has: where there are certificates, a valid one of its own name.
    fn mallory(&self) -> Option<Tls> {
        self.authority.as_ref().map(|authority| authority.tls(&["mallory", "spiffe://default/peer/mallory"]))
    }

    /// Runs `work` on a machine.
    fn on<T: Send>(&self, machine: usize, work: impl AsyncFnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.lan.namespaces[machine])).unwrap();
        // A namespace is that of a thread, and the sockets of this runtime are made in it.
        let there = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work())
        };
        thread::scope(|scope| scope.spawn(there).join().unwrap())
    }
}

/// A connection with what the attacker has. The error says why there is none.
async fn connect(to: SocketAddr, tls: Option<&Tls>) -> Result<Channel, String> {
    let connected = Dial::with(tls.cloned()).connect(&Endpoint::from(to), Expected::Anyone).await;
    connected.map_err(|error| format!("{error:?}"))
}

/// Registers without a cookie.
async fn register(tls: Option<&Tls>, name: &str, endpoint: &str) -> Result<RegisterResponse, Status> {
    let channel = connect(REGISTRY_ADDRESS.parse().unwrap(), tls).await.map_err(Status::unavailable)?;
    let request = RegisterRequest { name: name.to_owned(), endpoint: endpoint.to_owned(), ..RegisterRequest::default() };
    RegistryClient::new(channel).register(request).await.map(tonic::Response::into_inner)
}

fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> Option<Reason> {
    Reason::of(&answer.expect_err("it is refused"))
}
