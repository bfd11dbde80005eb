//! The form of results and errors, and failures of standard output.

use crate::support::{network::Network, process::run_reading_one_line};
use serde_json::Value;

/// Every verb that prints JSON and needs a network.
const VERBS: [&[&str]; 20] = [
    &["register", "--name", "op", "--endpoint", "127.0.0.1:9"],
    &["keepalive"],
    &["pquery"],
    &["peers", "--sample", "1"],
    &["rfc-query", "fff-c"],
    &["rfc-query", "fff-c", "--number", "48"],
    &["get-rfc", "48"],
    &["get-rfc", "48"],
    &["get", "rfc2324.txt"],
    &["get", "rfc4*", "--dry-run"],
    &["get", "rfc4*", "rfc8881.txt"],
    &["get-rfc", "48", "49", "2324"],
    &["ls"],
    &["search", "plateau"],
    &["swarm", "rfc48.txt"],
    &["whisper", "fff-c", "hello"],
    &["ping", "fff-c"],
    &["status"],
    &["status", "fff-c"],
    &["leave"],
];

#[test]
fn with_json_output_standard_output_is_only_json() {
    let network = Network::start();
    for verb in VERBS {
        let run = network.p2pctl(&[verb, &["--output", "json"]].concat()).exits(0);
        assert_eq!(run.stderr, "", "{verb:?}");
        let values = run.json_lines();
        let many = verb.len() > 2 || ["rfc-query", "ls"].contains(&verb[0]);
        assert!(many || values.len() == 1, "{verb:?}: {run:#?}");
        for value in &values {
            assert!(value.is_object(), "{verb:?}: {value}");
            check(value, verb);
        }
    }
}

/// Names are snake_case, hashes and ids hexadecimal digits, times RFC 3339, durations seconds.
fn check(value: &Value, verb: &[&str]) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| check(item, verb)),
        Value::Object(fields) => {
            for (name, value) in fields {
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{verb:?}: {name}");
                let text = value.as_str();
                let is_valid = match name.as_str() {
                    "blake3" => text.is_some_and(|text| is_hex(text, 64)),
                    "id" | "peer_id" => text.is_some_and(|text| is_hex(text, 32)),
                    "ttl" | "keep_alive_interval" | "lease_remaining" | "round_trip" | "elapsed" | "age" => {
                        text.and_then(|text| text.strip_suffix('s')).is_some_and(|seconds| seconds.parse::<f64>().is_ok())
                    }
                    "since" => text.is_some_and(is_time),
                    name if name.ends_with("_at") => text.is_some_and(is_time),
                    name if name.ends_with("_bytes") || name == "size" || name == "revision" => value.is_u64(),
                    _ => true,
                };
                assert!(is_valid, "{verb:?}: {name}: {value}");
                check(value, verb);
            }
        }
        _ => {}
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `2026-01-31T12:00:00.5Z` (RFC 3339, section 5.6, in UTC).
fn is_time(text: &str) -> bool {
    let Some((date, time)) = text.strip_suffix('Z').and_then(|text| text.split_once('T')) else { return false };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let lengths = |parts: &str, by: char| parts.split(by).map(str::len).collect::<Vec<_>>();
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    lengths(date, '-') == [4, 2, 2]
        && lengths(time, ':') == [2, 2, 2]
        && digits(&date.replace('-', ""))
        && digits(&time.replace(':', ""))
        && digits(fraction)
}

#[test]
fn an_error_is_lines_or_one_json_object_and_never_on_standard_output() {
    let network = Network::start();
    let run = network.p2pctl(&["get-rfc", "7"]).exits(1).stdout_is_empty();
    assert!(run.stderr.starts_with("error: nobody has RFC 7"), "{run:#?}");
    assert!(run.stderr.lines().skip(1).all(|line| line.starts_with("hint: ")), "{run:#?}");
    for (verb, reason, code) in [
        (["get-rfc", "7"].as_slice(), "REFUSED", 1),
        (&["whisper", "fff-c", "hi", "--kind", "two words"], "INVALID_FIELD", 2),
        (&["register", "--name", "fff-a", "--endpoint", "127.0.0.1:9"], "NAME_TAKEN", 1),
        (&["broadcast", "hi", "--via", "127.0.0.1:1"], "NOT_ANSWERED", 1),
        (&["nosuchverb"], "USAGE", 2),
        (&["get-rfc", "x"], "USAGE", 2),
        (&["get", "rfc48.txt", "--jobz", "2"], "USAGE", 2),
    ] {
        let run = network.p2pctl(&[verb, &["-o", "json"]].concat()).exits(code).stdout_is_empty();
        let error: Value = serde_json::from_str(&run.stderr).unwrap_or_else(|error| panic!("{verb:?}: {error}: {run:#?}"));
        let error = &error["error"];
        assert_eq!(error["reason"], reason, "{verb:?}: {error}");
        assert!(error["message"].is_string() && error["hints"].is_array(), "{verb:?}: {error}");
    }
}

#[test]
fn a_failed_write_to_standard_output_is_an_error() {
    let network = Network::start();
    let mut command = network.world.p2pctl_command(&network.registry, &["peers"]);
    command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let done = command.output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(stderr.starts_with("error: cannot write to standard output: "), "{stderr}");
}

#[test]
fn a_whispers_round_trip_is_measured_by_the_caller() {
    let network = Network::start();
    let begun = std::time::Instant::now();
    let answer = network.p2pctl(&["whisper", "fff-c", "hello", "-o", "json"]).exits(0).json();
    let seconds: f64 = answer["round_trip"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
    assert!(seconds > 0.0 && seconds < begun.elapsed().as_secs_f64(), "{answer}");
}

#[test]
fn a_closed_pipe_on_standard_output_is_no_error() {
    let network = Network::start();
    for arguments in [
        ["rfc-query", "fff-c"].as_slice(),
        &["peers"],
        &["ls"],
        &["get", "rfc4*"],
        &["completions", "bash"],
        &["man"],
        &["get-rfc", "48"],
        &["--help"],
    ] {
        let run = run_reading_one_line(network.world.p2pctl_command(&network.registry, arguments)).exits(0);
        assert_eq!(run.stderr, "", "{arguments:?}");
        assert_eq!(run.stdout.lines().count(), 1, "{arguments:?}");
    }
}
