//! Made-up registrations that name another content for a document.

use crate::{
    A, ATTACKER, B, Network,
    support::{process::Running, wait::until, world::rfc},
};

#[test]
fn made_up_registrations_of_one_machine_do_not_replace_a_document() {
    for network in Network::both() {
        let _registry = network.registry();
        network.lan.world.share("share-a", &[48]);
        network.lan.world.share("share-b", &[48]);
        let fake = network.lan.world.share("share-fake", &[]);
        std::fs::write(fake.join("rfc48.txt"), "Network Working Group\n\n\n        A POSSIBLE PROTOCOL PLATEAU\n\nfake\n")
            .unwrap();
        let [_a, _b] = network.peers([&["--share", "share-a"], &["--share", "share-b"]]);
        // With certificates she has one, for one name.
        let url = network.url();
        let tls = network.flags("tls-mallory", &["mallory", "spiffe://default/peer/mallory"]);
        let tls: Vec<_> = tls.iter().map(String::as_str).collect();
        let mut made_up = Vec::new();
        for (number, name) in ["mallory", "made-up-1", "made-up-2"].into_iter().enumerate() {
            let (listen, state) = (format!("10.77.0.4:{}", 7_900 + number), format!("state-{name}"));
            let own =
                ["--name", name, "--listen", &listen, "--no-lan", "--state", &state, "--registry", &url, "--share", "share-fake"];
            let command = network.lan.on(ATTACKER, "peerd", &[own.as_slice(), &tls].concat());
            match network.is_certified() && name != "mallory" {
                true => drop(Running::run_to_end(command).exits(2).stderr_has(&["certificate"])),
                false => made_up.push(crate::support::process::Server::start(command)),
            }
        }
        until("they are registered", || network.listed().len() == 2 + made_up.len());
        for machine in [A, B] {
            let out = format!("out-{machine}");
            let fetched = network.p2pctl(machine, &["get-rfc", "48", "--out", &out]);
            let path = format!("{out}/rfc48.txt");
            if fetched.code == Some(0) {
                assert_eq!(network.lan.world.read(&path), rfc(48));
            } else {
                // Doubt is an error that lists the choices, and who has which.
                fetched.exits(1).stderr_has(&["AMBIGUOUS", "mallory"]);
                assert!(!network.lan.world.path(&path).exists());
            }
        }
        drop(made_up);
    }
}
