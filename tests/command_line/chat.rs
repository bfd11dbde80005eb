//! chat, driven through pipes, as scripts do it. What a person sees on a terminal has no test of its own but those of its parts.

use super::mesh::peer;
use crate::support::{
    process::{Running, Server},
    wait::{eventually, until},
    world::World,
};
use rustix::process::Signal;

/// Two peers that are linked.
fn alice_and_bob(world: &World) -> (Server, Server) {
    let alice = peer(world, "alice", &[]);
    let bob = peer(world, "bob", &["--bootnodes", &format!("alice:{}", alice.address.port())]);
    let count = || world.run("p2pctl", &["peer-count", "--via", &alice.address.to_string(), "--wait", "1s"]).stdout;
    until("they are linked", || count() == "1\n");
    (alice, bob)
}

fn chat(world: &World, via: &Server, arguments: &[&str]) -> Running {
    let via = via.address.to_string();
    let mut chat = Running::start_typing(world.command("p2pctl", &[&["chat", "--via", &via], arguments].concat()));
    until("it has begun", || {
        assert!(chat.is_running(), "{}", chat.said());
        chat.said().contains("/help says what you can type")
    });
    chat
}

#[test]
fn two_people_talk_through_two_peers() {
    let world = World::new();
    let (alice, bob) = alice_and_bob(&world);
    let (mut hers, mut his) = (chat(&world, &alice, &[]), chat(&world, &bob, &[]));
    hers.types("hello all");
    until("he reads it", || his.printed() == "alice: hello all\n");
    his.types("@ALICE hello you");
    until("she reads it", || hers.printed() == "bob (to you): hello you\n");
    // What is sent without a chat is shown, and what is of other kinds is not.
    let via = bob.address.to_string();
    world.run("p2pctl", &["whisper", "bob", "of another kind", "--kind", "news", "--via", &via]).exits(0);
    world.run("p2pctl", &["whisper", "bob", "from outside", "--via", &via]).exits(0);
    until("he reads that", || his.printed().ends_with("hello all\nsomebody (to you): from outside\n"));
    hers.types("/peers");
    until("she sees who is there", || hers.said().contains(&format!("bob at {}, linked", bob.address)));

    hers.types("@nobody hello");
    until("she is told", || hers.said().contains("not sent: request cannot be fulfilled: no route to nobody\n"));
    hers.types("@two_words hello");
    until("she is told", || hers.said().contains("not sent: name: \"two_words\" contains"));
    hers.types("/nick me");
    until("she is told", || hers.said().contains("no such command; /help lists them"));
    hers.types(&"x".repeat(70_000));
    until("she is told", || hers.said().contains("not sent: a line has at most "));
    hers.types("/help");
    until("she is told", || hers.said().contains("@name text    to that peer alone"));
    hers.types("");
    hers.types("/quit");
    assert_eq!(hers.ended().exits(0).stdout, "bob (to you): hello you\n");

    // Nobody chats at hers any more.
    his.types("@alice still there?");
    until("he is told", || his.said().contains("alice is there, but nobody chats there now"));
    his.types_no_more();
    his.ended().exits(0);
}

#[test]
fn what_strangers_say_does_not_steer_the_terminal() {
    let world = World::new();
    let (alice, bob) = alice_and_bob(&world);
    let hers = chat(&world, &alice, &[]);
    let via = bob.address.to_string();
    let nasty = "\u{1b}[2J\u{7}\u{202e}one\ntwo\r\u{9b}31m";
    world.run("p2pctl", &["broadcast", nasty, "--kind", "chat", "--via", &via]).exits(0);
    let printed = eventually("she reads it", || Some(hers.printed()).filter(|printed| printed.ends_with('\n')));
    assert_eq!(printed, "bob: \u{fffd}[2J\u{fffd}\u{fffd}one two\u{fffd}\u{fffd}31m\n");
    hers.signal(Signal::INT);
    hers.ended().exits(0);
}

#[test]
fn a_chat_waits_for_a_peer_that_goes_away() {
    let world = World::new();
    let bob = peer(&world, "bob", &[]);
    let mut his = chat(&world, &bob, &[]);
    his.types("anybody?");
    until("he is told", || his.said().contains("nobody heard that"));
    let address = bob.address;
    bob.signal(Signal::TERM);
    bob.ended().exits(0);
    until("he is told", || his.said().contains(&format!("lost the peer at {address}")));
    his.types("hello?");
    until("he is told", || his.said().contains("not sent: ") && his.said().contains("does not answer"));
    let bob = Server::start(
        world.command("peerd", &["--no-registry", "--name", "bob", "--listen", &address.to_string(), "--state", "state-bob"]),
    );
    until("it is back", || his.said().contains(&format!("the peer at {address} is back")));
    world.run("p2pctl", &["whisper", "bob", "welcome", "--via", &bob.address.to_string()]).exits(0);
    until("he reads on", || his.printed() == "somebody (to you): welcome\n");
    his.signal(Signal::TERM);
    his.ended().exits(0);
}

#[test]
fn a_chat_in_a_pipe_says_its_lines_and_ends() {
    let world = World::new();
    let (alice, bob) = alice_and_bob(&world);
    let hers = chat(&world, &alice, &["-o", "json"]);
    let mut piped = Running::start_typing(world.command("p2pctl", &["chat", "--via", &bob.address.to_string()]));
    for line in ["one", "@alice two", "three"] {
        piped.types(line);
    }
    piped.types_no_more();
    assert_eq!(piped.ended().exits(0).stdout, "");
    let printed = eventually("she has all", || Some(hers.printed()).filter(|printed| printed.lines().count() == 3));
    let mut texts: Vec<_> = printed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|value| (value["text"].as_str().unwrap().to_owned(), value["broadcast"].as_bool().unwrap()))
        .collect();
    texts.sort();
    assert_eq!(texts, [("one".to_owned(), true), ("three".to_owned(), true), ("two".to_owned(), false)]);
    hers.signal(Signal::INT);
    hers.ended().exits(0);
    let refused = world.run("p2pctl", &["chat", "--via", "127.0.0.1:1"]).exits(1).prints_nothing();
    refused.says(&["error: 127.0.0.1:1 does not answer", "hint: --via HOST:PORT"]);
}
