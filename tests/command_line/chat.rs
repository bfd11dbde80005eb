//! chat: on a terminal as a person uses it, and through pipes as scripts do.

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

/// Sets a colour of the 256.
const COLOUR: &str = "\u{1b}[38;5;";

#[test]
fn a_person_types_while_messages_come_and_finds_the_line_again_the_next_day() {
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
    // The line that is typed is below it again, and whole.
    until("her line is there again", || hers.shown().split(": news").nth(1).is_some_and(|after| after.contains("half a ")));
    assert!(hers.shown().contains(COLOUR), "{:?}", hers.shown());
    hers.types("line\r@b\tto you\r");
    until("he reads both", || his.printed() == "alice: half a line\nalice (to you): to you\n");
    // Ctrl-D.
    hers.types("\u{4}");
    hers.exits(0);

    let mut command = world.command("p2pctl", &["chat", "--via", &at_alice]);
    command.env("NO_COLOR", "1");
    let mut hers = Terminal::start(command);
    hers.shows("alice> ");
    // Arrow up, twice.
    hers.types("\u{1b}[A\u{1b}[A\r");
    until("he reads it again", || his.printed().ends_with("to you\nalice: half a line\n"));
    assert!(!hers.shown().contains(COLOUR), "{:?}", hers.shown());
    hers.types("unfinished\u{3}");
    hers.exits(0);

    let mut hers = Terminal::start(world.command("p2pctl", &["chat", "--via", &at_alice]));
    hers.shows("alice> ");
    // Typed ahead, all at once.
    hers.types("one\rtwo\r/quit\rthree\r");
    hers.exits(0);
    until("he reads what was before the end", || his.printed().ends_with("alice: one\nalice: two\n"));
}
