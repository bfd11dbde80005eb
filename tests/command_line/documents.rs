//! get-rfc and get.

use crate::support::{
    network::{Network, ready},
    world::rfc,
};
use std::fs;

#[test]
fn an_rfc_is_fetched_from_any_holder() {
    let network = Network::start();
    let run = network.p2pctl(&["get-rfc", "8881"]).exits(0);
    assert_eq!(run.stderr, "", "{run:#?}");
    let hash = blake3::hash(&rfc(8881)).to_hex();
    run.stdout_has(&["./out/rfc8881.txt\n", "RFC 8881: ", "1.5 MiB in ", "/s", &format!("b3:{hash}"), "from fff-c"]);
    assert!(network.world.read("out/rfc8881.txt") == rfc(8881));
    // The folder has the document only: no partial file is left.
    assert_eq!(fs::read_dir(network.world.path("out")).unwrap().count(), 1);
}

#[test]
fn an_rfc_is_fetched_from_a_peer_by_name_or_address() {
    let network = Network::start();
    let address = network.c.address.to_string();
    for (number, from) in [(48, "fff-c"), (49, "FFF-C"), (8881, address.as_str())] {
        let json = network.p2pctl(&["get-rfc", &number.to_string(), "--from", from, "-o", "json"]).exits(0).json();
        assert_eq!((json["document"]["number"].as_u64(), json["already_there"].as_bool()), (Some(number), Some(false)), "{json}");
        assert_eq!(json["sources"].as_array().unwrap().len(), 1, "{json}");
        assert_eq!(json["sources"][0]["endpoint"], address, "{json}");
        assert_eq!(json["fetched_bytes"], json["document"]["size"], "{json}");
        let number = u32::try_from(number).unwrap();
        assert!(network.world.read(&format!("out/rfc{number}.txt")) == rfc(number));
    }
    network
        .p2pctl(&["get-rfc", "48", "--from", "fff-x"])
        .exits(1)
        .stdout_is_empty()
        .stderr_has(&["no active peer is called fff-x"]);
    network.p2pctl(&["get-rfc", "48", "--from", "not a name"]).exits(2).stdout_is_empty();
}

#[test]
fn another_holder_is_used_when_the_named_one_lacks_the_document() {
    let network = Network::start();
    let json = network.p2pctl(&["get-rfc", "2324", "--from", "fff-c,fff-a", "-o", "json"]).exits(0).json();
    assert!(network.world.read("out/rfc2324.txt") == rfc(2324));
    let sent: Vec<_> = json["sources"].as_array().unwrap().iter().filter(|source| source["bytes"].as_u64() > Some(0)).collect();
    assert_eq!((sent.len(), sent[0]["peer_name"].as_str()), (1, Some("fff-a")), "{json}");
}

#[test]
fn a_document_already_in_the_output_folder_is_verified_and_not_fetched_again() {
    let network = Network::start();
    network.p2pctl(&["get-rfc", "48", "--out", "elsewhere"]).exits(0);
    let json = network.p2pctl(&["get-rfc", "48", "--out", "elsewhere", "-o", "json"]).exits(0).json();
    assert_eq!((json["already_there"].as_bool(), json["fetched_bytes"].as_u64()), (Some(true), Some(0)), "{json}");
    network.p2pctl(&["get-rfc", "48", "--out", "elsewhere"]).exits(0).stdout_has(&["were there already, verified"]);
    assert!(network.world.read("elsewhere/rfc48.txt") == rfc(48));
}

#[test]
fn a_file_with_other_content_is_replaced_only_with_force() {
    let network = Network::start();
    let mine = network.world.share("out", &[]).join("rfc48.txt");
    fs::write(&mine, "mine").unwrap();
    network.p2pctl(&["get-rfc", "48"]).exits(1).stdout_is_empty().stderr_has(&[
        "error: ",
        "rfc48.txt exists with other content",
        "hint: --force replaces it",
    ]);
    assert_eq!(fs::read(&mine).unwrap(), b"mine");
    network.p2pctl(&["get-rfc", "48", "--force"]).exits(0);
    assert!(fs::read(&mine).unwrap() == rfc(48));
}

#[test]
fn a_document_without_holders_is_an_error_that_names_the_peers_asked() {
    let network = Network::start();
    network.p2pctl(&["get-rfc", "7"]).exits(1).stdout_is_empty().stderr_has(&[
        "error: nobody has RFC 7",
        "asked",
        "fff-a",
        "fff-c",
        "hint: `p2pctl ls` lists",
    ]);
    network.p2pctl(&["get-rfc", "7", "--from", "fff-a"]).exits(1).stdout_is_empty().stderr_has(&["RFC 7", "fff-a"]);
    assert!(!network.world.path("out/rfc7.txt").exists());
    let unknown = format!("b3:{}", "0".repeat(64));
    network.p2pctl(&["get", &unknown]).exits(1).stdout_is_empty().stderr_has(&["error: nobody has b3:0000", "fff-a", "fff-c"]);
    let rest = ["rfc-query", "fff-a", "--number", "7"];
    network.p2pctl(&rest).exits(1).stdout_is_empty().stderr_has(&["knows of no such document", "hint: `p2pctl rfc-query fff-a`"]);
}

#[test]
fn an_rfc_number_may_have_the_prefix_rfc_and_anything_else_is_wrong_usage() {
    let network = Network::start();
    network.p2pctl(&["get-rfc", "rfc48"]).exits(0).stdout_has(&["./out/rfc48.txt\n"]);
    for number in ["0", "-1", "4294967296", "rfc0", "rfc", ""] {
        network.p2pctl(&["get-rfc", number]).exits(2).stdout_is_empty();
    }
}

#[test]
fn a_document_is_fetched_by_name_and_by_hash() {
    let network = Network::start();
    let hash = blake3::hash(&rfc(48)).to_hex();
    network.p2pctl(&["get", "RFC48.TXT", "--out", "by-name"]).exits(0).stdout_has(&["by-name/rfc48.txt"]);
    network.p2pctl(&["get", &format!("b3:{hash}"), "--out", "by-hash"]).exits(0).stdout_has(&["by-hash/rfc48.txt"]);
    // In the form that `b3sum` prints.
    network.p2pctl(&["get", &hash, "--out", "by-bare-hash"]).exits(0).stdout_has(&["by-bare-hash/rfc48.txt"]);
    assert!(network.world.read("by-name/rfc48.txt") == rfc(48));
    assert!(network.world.read("by-hash/rfc48.txt") == rfc(48));
    for wrong in ["b3:12", "../x", "a//b", "a\u{7}b", "./a\\b", ""] {
        network.p2pctl(&["get", wrong]).exits(2).stdout_is_empty();
    }
    // A pattern: of what lies at the top of the shares.
    network.p2pctl(&["get", "/etc/passwd"]).exits(1).stdout_is_empty().stderr_has(&["no document matches /etc/passwd"]);
}

#[test]
fn a_name_that_means_different_documents_is_refused_and_each_is_named() {
    let network = Network::start();
    let peers: Vec<_> = [("fff-d", "one"), ("fff-e", "two")]
        .map(|(name, text)| {
            let share = network.world.share(&format!("share-{name}"), &[]);
            fs::write(share.join("Über.txt"), text).unwrap();
            let peer = network.world.peer(name, &network.registry, &["--share", share.to_str().unwrap()]);
            ready(&peer);
            (peer, name, text, format!("b3:{}", blake3::hash(text.as_bytes()).to_hex()))
        })
        .into();
    let run = network.p2pctl(&["get", "über.txt"]).exits(1).stdout_is_empty();
    run.stderr_has(&["error: AMBIGUOUS", "2 different documents", &peers[0].3, &peers[1].3, "fff-d", "fff-e", "--from NAME"]);
    for (_, name, text, hash) in &peers {
        network.p2pctl(&["get", "über.txt", "--from", name, "--out", name]).exits(0);
        network.p2pctl(&["get", hash, "--out", hash]).exits(0);
        for out in [*name, hash.as_str()] {
            assert_eq!(network.world.read(&format!("{out}/Über.txt")), text.as_bytes());
        }
    }
}

#[test]
fn a_document_in_a_folder_keeps_its_folder() {
    let network = Network::start();
    let deep = network.world.share("share-d/models/v1", &[]);
    fs::write(deep.join("base.bin"), [7; 3000]).unwrap();
    fs::write(deep.join("empty.bin"), []).unwrap();
    let d = network.world.peer("fff-d", &network.registry, &["--share", "share-d"]);
    ready(&d);
    network.p2pctl(&["get", "models/v1/base.bin"]).exits(0).stdout_has(&["./out/models/v1/base.bin"]);
    assert_eq!(network.world.read("out/models/v1/base.bin"), [7; 3000]);
    let json = network.p2pctl(&["get", "models/v1/empty.bin", "-o", "json"]).exits(0).json();
    assert_eq!(json["document"]["size"], 0, "{json}");
    assert!(network.world.read("out/models/v1/empty.bin").is_empty());
}

#[test]
fn an_output_folder_that_cannot_be_created_is_named() {
    let network = Network::start();
    fs::write(network.world.path("file"), "x").unwrap();
    network.p2pctl(&["get-rfc", "48", "--out", "file/below"]).exits(1).stdout_is_empty().stderr_has(&[
        "error: cannot",
        "file/below",
        "hint: choose a folder",
    ]);
    assert_eq!(network.world.read("file"), b"x");
    // Root may write everywhere but there.
    if cfg!(target_os = "linux") {
        let run = network.p2pctl(&["get-rfc", "48", "--out", "/sys"]).exits(1).stdout_is_empty();
        let run = run.stderr_has(&["error: cannot write /sys/rfc48.txt: ", "hint: choose a folder"]);
        assert!(!run.stderr.contains(".part"), "a partial file's name says nothing to people: {run:#?}");
    }
}
