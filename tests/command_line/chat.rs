//! chat: on a terminal, as a person uses it, and with pipes, as scripts do.

use super::mesh::peer;
use crate::support::{
    process::{Running, Server},
    terminal::Terminal,
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
    let mut chat = Running::start_with_stdin(world.command("p2pctl", &[&["chat", "--via", &via], arguments].concat()));
    until("the chat has started", || {
        assert!(chat.is_running(), "{}", chat.stderr());
        chat.stderr().contains("/help says what you can type")
    });
    chat
}

#[test]
fn two_people_talk_through_two_peers() {
    let world = World::new();
    let (alice, bob) = alice_and_bob(&world);
    let (mut hers, mut his) = (chat(&world, &alice, &[]), chat(&world, &bob, &[]));
    hers.types("hello all");
    until("the message is shown to bob", || his.stdout() == "alice: hello all\n");
    his.types("@ALICE hello you");
    until("the message is shown to alice", || hers.stdout() == "bob (to you): hello you\n");
    // Messages that `whisper` sends are shown too; messages of other kinds are not.
    let via = bob.address.to_string();
    world.run("p2pctl", &["whisper", "bob", "of another kind", "--kind", "news", "--via", &via]).exits(0);
    world.run("p2pctl", &["whisper", "bob", "from outside", "--via", &via]).exits(0);
    until("the whisper is shown to bob", || his.stdout().ends_with("hello all\nsomebody (to you): from outside\n"));
    hers.types("/peers");
    until("alice sees the peers", || hers.stderr().contains(&format!("bob at {}, linked", bob.address)));

    hers.types("@nobody hello");
    until("alice sees a note", || hers.stderr().contains("not sent: request cannot be fulfilled: no route to nobody\n"));
    hers.types("@two_words hello");
    until("alice sees a note", || hers.stderr().contains("not sent: name: \"two_words\" contains"));
    hers.types("/nick me");
    until("alice sees a note", || hers.stderr().contains("no such command; /help lists them"));
    hers.types(&"x".repeat(70_000));
    until("alice sees a note", || hers.stderr().contains("not sent: a line has at most "));
    hers.types("/help");
    until("alice sees a note", || hers.stderr().contains("@name text    to that peer alone"));
    hers.types("");
    hers.types("/quit");
    assert_eq!(hers.ended().exits(0).stdout, "bob (to you): hello you\n");

    // No chat runs at alice any more.
    his.types("@alice still there?");
    until("bob sees a note", || his.stderr().contains("alice is there, but has no chat open"));
    his.close_stdin();
    his.ended().exits(0);
}

#[test]
fn control_sequences_in_messages_do_not_reach_the_terminal() {
    let world = World::new();
    let (alice, bob) = alice_and_bob(&world);
    let hers = chat(&world, &alice, &[]);
    let via = bob.address.to_string();
    let hostile = "\u{1b}[2J\u{7}\u{202e}one\ntwo\r\u{9b}31m";
    world.run("p2pctl", &["broadcast", hostile, "--kind", "chat", "--via", &via]).exits(0);
    let printed = eventually("the message is shown to alice", || Some(hers.stdout()).filter(|printed| printed.ends_with('\n')));
    assert_eq!(printed, "bob: \u{fffd}[2J\u{fffd}\u{fffd}one two\u{fffd}\u{fffd}31m\n");
    hers.signal(Signal::INT);
    hers.ended().exits(0);
}

#[test]
fn a_chat_waits_until_its_stopped_peer_is_back() {
    let world = World::new();
    let bob = peer(&world, "bob", &[]);
    let mut his = chat(&world, &bob, &[]);
    his.types("anybody?");
    until("bob sees a note", || his.stderr().contains("no peer received that"));
    let address = bob.address;
    bob.signal(Signal::TERM);
    bob.ended().exits(0);
    until("bob sees a note", || his.stderr().contains(&format!("lost the peer at {address}")));
    his.types("hello?");
    until("bob sees a note", || his.stderr().contains("not sent: ") && his.stderr().contains("does not answer"));
    let bob = Server::start(
        world.command("peerd", &["--no-registry", "--name", "bob", "--listen", &address.to_string(), "--state", "state-bob"]),
    );
    until("the peer is back", || his.stderr().contains(&format!("the peer at {address} is back")));
    world.run("p2pctl", &["whisper", "bob", "welcome", "--via", &bob.address.to_string()]).exits(0);
    until("the next message is shown to bob", || his.stdout() == "somebody (to you): welcome\n");
    his.signal(Signal::TERM);
    his.ended().exits(0);
}

#[test]
fn a_chat_with_piped_input_sends_its_lines_and_exits() {
    let world = World::new();
    let (alice, bob) = alice_and_bob(&world);
    let hers = chat(&world, &alice, &["-o", "json"]);
    let mut piped = Running::start_with_stdin(world.command("p2pctl", &["chat", "--via", &bob.address.to_string()]));
    for line in ["one", "@alice two", "three"] {
        piped.types(line);
    }
    piped.close_stdin();
    assert_eq!(piped.ended().exits(0).stdout, "");
    let printed =
        eventually("all messages are shown to alice", || Some(hers.stdout()).filter(|printed| printed.lines().count() == 3));
    let mut texts: Vec<_> = printed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|value| (value["text"].as_str().unwrap().to_owned(), value["broadcast"].as_bool().unwrap()))
        .collect();
    texts.sort();
    assert_eq!(texts, [("one".to_owned(), true), ("three".to_owned(), true), ("two".to_owned(), false)]);
    hers.signal(Signal::INT);
    hers.ended().exits(0);
    let refused = world.run("p2pctl", &["chat", "--via", "127.0.0.1:1"]).exits(1).stdout_is_empty();
    refused.stderr_has(&["error: 127.0.0.1:1 does not answer", "hint: --via HOST:PORT"]);
}

/// Start of the control sequence that sets one of 256 colours.
const COLOUR: &str = "\u{1b}[38;5;";

#[test]
fn a_half_typed_line_survives_incoming_messages_and_the_next_chat_has_it_in_its_history() {
    let world = World::new();
    let (alice, bob) = alice_and_bob(&world);
    let (at_alice, at_bob) = (alice.address.to_string(), bob.address.to_string());
    let his = chat(&world, &bob, &[]);
    let mut hers = Terminal::start(world.command("p2pctl", &["chat", "--via", &at_alice]));
    hers.shows("alice> ");
    hers.types("half a ");
    hers.shows("half a ");
    world.run("p2pctl", &["broadcast", "news\u{1b}[2J", "--kind", "chat", "--via", &at_bob]).exits(0);
    hers.shows(": news\u{fffd}[2J");
    // The line being typed is redrawn below the message.
    until("the line being typed is shown again", || {
        hers.shown().split(": news").nth(1).is_some_and(|after| after.contains("half a "))
    });
    assert!(hers.shown().contains(COLOUR), "{:?}", hers.shown());
    hers.types("line\r@b\tto you\r");
    until("both messages are shown to bob", || his.stdout() == "alice: half a line\nalice (to you): to you\n");
    // Ctrl-D.
    hers.types("\u{4}");
    hers.exits(0);

    let mut command = world.command("p2pctl", &["chat", "--via", &at_alice]);
    command.env("NO_COLOR", "1");
    let mut hers = Terminal::start(command);
    hers.shows("alice> ");
    // Arrow up, twice.
    hers.types("\u{1b}[A\u{1b}[A\r");
    until("the repeated line is shown to bob", || his.stdout().ends_with("to you\nalice: half a line\n"));
    assert!(!hers.shown().contains(COLOUR), "{:?}", hers.shown());
    hers.types("unfinished\u{3}");
    hers.exits(0);

    let mut hers = Terminal::start(world.command("p2pctl", &["chat", "--via", &at_alice]));
    hers.shows("alice> ");
    // Typed ahead, in one write.
    hers.types("one\rtwo\r/quit\rthree\r");
    hers.exits(0);
    until("the lines before /quit are shown to bob", || his.stdout().ends_with("alice: one\nalice: two\n"));
}
