//! The library's example, `cargo run --example chat`, in two processes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use rustix::process::Signal;
use std::process::Command;
use support::{
    process::Running,
    programs::example,
    wait::{eventually, until},
};

fn chat(arguments: &[&str]) -> Running {
    let mut command = Command::new(example("chat"));
    command.args(arguments);
    Running::start_with_stdin(command)
}

#[test]
fn two_processes_of_the_example_exchange_messages() {
    let mut alice = chat(&["--name", "alice"]);
    let at = eventually("the address of alice", || {
        assert!(alice.is_running(), "{}", alice.stderr());
        let printed = alice.stdout();
        printed
            .lines()
            .find_map(|line| line.strip_prefix("alice listens on ").map(str::to_owned))
            .filter(|_| printed.ends_with('\n'))
    });
    let mut bob = chat(&["--name", "bob", "--join", &at]);
    until("bob has joined", || bob.stdout().contains(&format!("joined alice@{at}")));
    bob.types("hello all");
    until("alice shows the line of bob", || alice.stdout().contains("bob: hello all\n"));
    alice.types("@bob hello you");
    until("bob shows the line of alice", || bob.stdout().contains("alice (to you): hello you\n"));
    alice.types("@nobody hello");
    until("alice sees the error", || alice.stdout().contains("not sent: request cannot be fulfilled: no route to nobody"));
    bob.close_stdin();
    bob.ended().exits(0);
    alice.signal(Signal::INT);
    alice.ended().exits(0);
    let mut nobody = chat(&["--name", "carol", "--join", "127.0.0.1:1"]);
    nobody.close_stdin();
    nobody.ended().exits(1).stderr_has(&["error: no peer could be joined: 127.0.0.1:1"]);
}
