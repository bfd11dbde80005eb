//! ls, search and swarm: what the whole network has.

use crate::support::{network::Network, wait::until, world::rfc};

#[test]
fn the_documents_of_all_peers_are_listed_with_their_holders() {
    let network = Network::start();
    let table = network.p2pctl(&["ls"]).exits(0);
    let lines: Vec<_> = table.stdout.lines().collect();
    let names: Vec<_> = lines.iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    // As people count.
    assert_eq!(names, ["NAME", "rfc48.txt", "rfc49.txt", "rfc2324.txt", "rfc8881.txt"], "{table:#?}");
    assert!(lines[1].contains("fff-a,fff-c") && lines[1].contains("A Possible Protocol Plateau"), "{table:#?}");
    assert!(lines[4].contains("1.5 MiB") && lines[4].contains("fff-c"), "{table:#?}");
    let listed = network.p2pctl(&["ls", "rfc4?.txt", "-o", "json"]).exits(0).json_lines();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!((listed[0]["document"]["number"].as_u64(), listed[0]["holders"].as_array().unwrap().len()), (Some(48), 2));
    assert_eq!(listed[1]["holders"][0]["endpoint"], network.c.address.to_string());
    network.p2pctl(&["ls", "--limit", "1"]).exits(0).stdout_has(&["rfc48.txt"]).stderr_has(&["there are more documents"]);
    network.p2pctl(&["ls", "models/**"]).exits(1).stdout_is_empty().stderr_has(&["matches models/**; 2 peers were asked"]);
    network.p2pctl(&["ls", "[a"]).exits(2).stdout_is_empty();
}

#[test]
fn words_are_searched_for_in_names_and_titles() {
    let network = Network::start();
    let found = |words: &[&str]| -> Vec<String> {
        let run = network.p2pctl(&[["search", "-o", "json"].as_slice(), words].concat()).exits(0);
        run.json_lines().iter().map(|one| one["document"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found(&["PLATEAU", "protocol"]), ["rfc48.txt"]);
    assert_eq!(found(&["rfc8881"]), ["rfc8881.txt"]);
    network.p2pctl(&["search", "no", "such", "words"]).exits(1).stdout_is_empty().stderr_has(&["no document with no such words"]);
    network.p2pctl(&["search"]).exits(2).stdout_is_empty();
}

#[test]
fn what_one_peer_knows_includes_what_it_learned() {
    let network = Network::start();
    until("fff-a has learned of fff-c's documents", || {
        let known = network.p2pctl(&["ls", "--of", "fff-a", "-o", "json"]).exits(0).json_lines();
        known.len() == 4 && known[0]["holders"].as_array().unwrap().len() == 2
    });
    let (a, unreachable) = (network.a.address.to_string(), "http://127.0.0.1:1");
    let run = network.world.run("p2pctl", &["--registry", unreachable, "ls", "rfc8881*", "--of", &a]).exits(0);
    run.stdout_has(&["rfc8881.txt", "fff-c"]);
    network
        .p2pctl(&["ls", "none*", "--of", &a])
        .exits(1)
        .stdout_is_empty()
        .stderr_has(&["knows of no document", "hint: `p2pctl ls`"]);
    network.p2pctl(&["ls", "--of", "fff-x"]).exits(1).stdout_is_empty().stderr_has(&["no active peer is called fff-x"]);
}

#[test]
fn a_peer_that_does_not_answer_is_named_and_the_others_are_listed() {
    let network = Network::start();
    let Network { a, registry, world, .. } = network;
    a.kill();
    let run = world.p2pctl(&registry, &["ls"]).exits(0);
    run.stdout_has(&["rfc8881.txt"]).stderr_has(&["warning: what fff-a has is not known: "]);
}

#[test]
fn the_swarm_of_a_document_has_its_holders() {
    let network = Network::start();
    let hash = format!("b3:{}", blake3::hash(&rfc(48)).to_hex());
    for document in ["rfc48.txt", &hash] {
        let run = network.p2pctl(&["swarm", document]).exits(0);
        run.stdout_has(&["rfc48.txt, ", &hash, "2 members, 2 with all of it", "fff-a", "fff-c", " 100%"]);
    }
    let json = network.p2pctl(&["swarm", "rfc8881.txt", "-o", "json"]).exits(0).json();
    let members = json["members"].as_array().unwrap();
    assert_eq!((members.len(), members[0]["peer_name"].as_str()), (1, Some("fff-c")), "{json}");
    assert_eq!((members[0]["complete"].as_bool(), members[0]["had"].as_u64()), (Some(true), json["size"].as_u64()), "{json}");
    let unknown = format!("b3:{}", "0".repeat(64));
    network.p2pctl(&["swarm", &unknown]).exits(1).stdout_is_empty().stderr_has(&["error: nobody has or fetches b3:0000"]);
    network.p2pctl(&["swarm", "no-such.txt"]).exits(1).stdout_is_empty().stderr_has(&["nobody has no-such.txt", "hint: "]);
    network.p2pctl(&["swarm", "rfc*"]).exits(2).stdout_is_empty().stderr_has(&["is a pattern; name one document"]);
}
