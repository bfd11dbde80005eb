//! --help, --version, wrong usage, completions, manual pages.

use crate::support::{
    process::{Ended, Running},
    world::World,
};
use std::fs;

const PROGRAMS: [&str; 3] = ["registry", "peerd", "p2pctl"];

#[test]
fn every_program_has_a_version_and_help_with_examples() {
    let world = World::new();
    for program in PROGRAMS {
        let version = world.run(program, &["--version"]).exits(0);
        assert_eq!(version.stdout, format!("{program} {}\n", env!("CARGO_PKG_VERSION")));
        let help = world.run(program, &["--help"]).exits(0).stdout_has(&["Usage: ", "Examples:", &format!("  {program} ")]);
        assert_eq!(help.stderr, "");
        world.run(program, &["-h"]).exits(0).stdout_has(&["Usage: "]);
    }
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_right() {
    let world = World::new();
    for program in PROGRAMS {
        let run = world.run(program, &["--no-such-flag"]).exits(2).stdout_is_empty();
        run.stderr_has(&["error: unexpected argument '--no-such-flag'", "Usage: ", "--help"]);
    }
    world.run("p2pctl", &["no-such-verb"]).exits(2).stdout_is_empty().stderr_has(&["no-such-verb"]);
    world.run("p2pctl", &["gte"]).exits(2).stdout_is_empty().stderr_has(&["a similar subcommand exists: 'get'"]);
    for program in [&["peerd", "--registry"] as &[&str], &["p2pctl", "--registry"]] {
        let run = world.run(program[0], &[&program[1..], &["ftp://r:1"]].concat()).exits(2).stdout_is_empty();
        run.stderr_has(&["write http://HOST:PORT, https://HOST:PORT or HOST:PORT"]);
    }
    world.run("peerd", &["--state", "memory"]).exits(2).stdout_is_empty().stderr_has(&["./memory"]);
    world
        .run("p2pctl", &["--tls-ca", "none", "peers"])
        .exits(1)
        .stdout_is_empty()
        .stderr_has(&["the CA file none: ", "--tls-ca"]);
    world.run("p2pctl", &[]).exits(2).stdout_is_empty().stderr_has(&["Usage: "]);
    world.run("p2pctl", &["--registry", "https://r:1", "peers"]).exits(2).stdout_is_empty().stderr_has(&[
        "https:// needs certificates",
        "--tls-cert",
        "--tls-key",
        "--tls-ca",
    ]);
    world.run("p2pctl", &["--output", "xml", "peers"]).exits(2).stdout_is_empty().stderr_has(&["table", "json"]);
    world.run("p2pctl", &["--log", "=", "peers"]).exits(2).stdout_is_empty().stderr_has(&["log filter"]);
    for size in ["fast", "10x", "-1"] {
        let run = world.run("peerd", &[&format!("--upload-limit={size}")]).exits(2).stdout_is_empty();
        run.stderr_has(&[&format!("invalid value '{size}'"), "a size such as 500KB, 10MiB or 1.5GiB, or a number of bytes"]);
    }
    for wait in ["-1s", "soon", "0s"] {
        world.run("p2pctl", &["peer-count", "--wait", wait]).exits(2).stdout_is_empty().stderr_has(&["--wait", "such as 2s"]);
    }
    world.run("p2pctl", &["get-rfc", "rfcs"]).exits(2).stdout_is_empty().stderr_has(&["such as 48 or rfc48"]);
    let run = world.run("p2pctl", &["get-rfc", "48", "--from", "http://127.0.0.1:7801/"]).exits(2).stdout_is_empty();
    run.stderr_has(&["is a URL; name a peer, or its address alone: \"127.0.0.1:7801\""]);
    world
        .run("p2pctl", &["get-rfc", "48", "--from", "two words"])
        .exits(2)
        .stdout_is_empty()
        .stderr_has(&["from: \"two words\""]);
    world.run("peerd", &["--name", "../x"]).exits(2).stdout_is_empty().stderr_has(&["name"]);
    world.run("peerd", &["--listen", "127.0.0.1:70000"]).exits(2).stdout_is_empty();
    world.run("peerd", &["--advertise", "0.0.0.0:1"]).exits(2).stdout_is_empty().stderr_has(&["wildcard"]);
}

#[test]
fn a_registry_without_a_home_requires_a_state_folder() {
    let world = World::new();
    let mut command = world.command("registry", &["--listen", "127.0.0.1:0"]);
    command.env_remove("HOME").env_remove("XDG_STATE_HOME");
    Running::start(command).ended().exits(2).stdout_is_empty().stderr_has(&["required", "--state <DIR|memory>"]);
    assert!(!world.path("p2pdi").exists());
}

#[test]
fn every_flag_has_an_environment_variable_that_kubernetes_does_not_make_up() {
    let world = World::new();
    for (program, prefix) in [("registry", "P2PDI_REGISTRY_"), ("peerd", "P2PDI_PEER_")] {
        let help = world.run(program, &["--help"]).exits(0);
        assert_eq!(flags_without_variable(&help, prefix), Vec::<String>::new(), "{program}");
    }
    let verbs = verbs(&world.run("p2pctl", &["--help"]));
    assert!(verbs.len() >= 15, "{verbs:?}");
    let mut pages = vec![vec!["--help".to_owned()], vec!["bench".to_owned(), "tasks".to_owned(), "--help".to_owned()]];
    pages.extend(verbs.into_iter().map(|verb| vec![verb, "--help".to_owned()]));
    for page in pages {
        let arguments: Vec<_> = page.iter().map(String::as_str).collect();
        let help = world.run("p2pctl", &arguments).exits(0);
        assert_eq!(flags_without_variable(&help, "P2PDI_CTL_"), Vec::<String>::new(), "{page:?}");
    }
}

/// The verbs a page of help lists.
fn verbs(help: &Ended) -> Vec<String> {
    let lines = help.stdout.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A verb is indented by two spaces; the further lines of its description by more.
    let entry = |line: &str| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).map(str::to_owned);
    let verbs = lines.filter_map(entry).map(|line| line.split_whitespace().next().unwrap().to_owned());
    verbs.filter(|verb| verb != "help").collect()
}

/// Flags whose help text does not name their environment variable, which begins with `prefix` and is none that Kubernetes makes up for a
/// Service ("Accessing the Service", environment variables).
fn flags_without_variable(help: &Ended, prefix: &str) -> Vec<String> {
    let mut texts: Vec<(String, String)> = Vec::new();
    let lines = help.stdout.lines().skip_while(|line| *line != "Options:").skip(1);
    for line in lines.take_while(|line| *line != "Examples:") {
        // Flags are indented by two spaces, or by six if they have no short form; their text by more.
        if line.starts_with("  -") || line.starts_with("      --") {
            let long = line.split([' ', ',']).find_map(|word| word.strip_prefix("--"));
            texts.push((long.unwrap_or(line).to_owned(), String::new()));
        }
        if let Some((_, text)) = texts.last_mut() {
            *text += line.trim_start();
            *text += " ";
        }
    }
    assert!(texts.len() >= 2, "{help:#?}");
    let without = |text: &str| {
        let variable = text.split("[env: ").nth(1).and_then(|rest| rest.split(['=', ']']).next()).unwrap_or_default();
        let made_up = variable.ends_with("_PORT") || variable.ends_with("_HOST") || variable.contains("_SERVICE_");
        !variable.starts_with(prefix) || made_up
    };
    texts.retain(|(flag, text)| !["help", "version"].contains(&flag.as_str()) && without(text));
    texts.into_iter().map(|(flag, _)| flag).collect()
}

#[test]
fn examples_in_help_are_not_wrapped_on_a_narrow_terminal() {
    let world = World::new();
    let examples = |program: &str, columns: &str| {
        let mut command = world.command(program, &["--help"]);
        command.env("COLUMNS", columns);
        let help = Running::run_to_end(command).exits(0).stdout;
        let (_, examples) = help.split_once("\nExamples:\n").unwrap();
        examples.to_owned()
    };
    for program in PROGRAMS {
        assert_eq!(
            examples(program, "80"),
            examples(program, "1000"),
            "{program}: an example is wrapped, so it cannot be pasted"
        );
    }
}

#[test]
fn an_environment_variable_sets_its_flag_and_the_flag_takes_precedence() {
    let world = World::new();
    let run = |arguments: &[&str]| {
        let mut command = world.command("p2pctl", arguments);
        command.env("P2PDI_CTL_REGISTRY", "http://127.0.0.1:1").env("P2PDI_CTL_OUTPUT", "json");
        Running::run_to_end(command)
    };
    run(&["peers"]).exits(1).stdout_is_empty().stderr_has(&["127.0.0.1:1 does not answer"]);
    run(&["--registry", "http://127.0.0.1:2", "peers"]).exits(1).stdout_is_empty().stderr_has(&["127.0.0.1:2 does not answer"]);
}

#[test]
fn a_wrong_value_of_a_variable_is_an_error_that_names_the_variable() {
    let world = World::new();
    for (program, name, value, flag) in [
        ("registry", "P2PDI_REGISTRY_TTL", "soon", "--ttl"),
        ("peerd", "P2PDI_PEER_MAX_CONNECTIONS", "many", "--max-connections"),
        ("peerd", "P2PDI_PEER_NO_REGISTRY", "perhaps", "--no-registry"),
        ("p2pctl", "P2PDI_CTL_OUTPUT", "xml", "--output"),
        ("p2pctl", "P2PDI_CTL_REGISTRY", "r", "--registry"),
    ] {
        let arguments: &[&str] = match program {
            "registry" => &["--state", "memory"],
            "p2pctl" => &["peers"],
            _ => &[],
        };
        let mut command = world.command(program, arguments);
        command.env(name, value);
        Running::run_to_end(command).exits(2).stdout_is_empty().stderr_has(&[&format!("for '{name} ({flag}")]);
    }
}

#[test]
fn the_variable_of_a_switch_accepts_the_usual_spellings_of_true_and_false() {
    let world = World::new();
    for (value, code) in [("1", 1), ("true", 1), ("yes", 1), ("on", 1), ("0", 1), ("false", 1), ("no", 1), ("maybe", 2)] {
        for (variable, verb) in [("P2PDI_CTL_FORCE", "get-rfc"), ("P2PDI_CTL_QUERY_OWN", "rfc-query")] {
            let mut command = world.command("p2pctl", &["--registry", "http://127.0.0.1:1", verb, "48"]);
            command.env(variable, value);
            Running::run_to_end(command).exits(code).stdout_is_empty();
        }
    }
}

#[test]
fn completions_list_the_verbs() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = world.run("p2pctl", &["completions", shell]).exits(0);
        assert_eq!(script.stderr, "");
        script.stdout_has(&["p2pctl", "get-rfc", "whisper", "--registry".trim_start_matches('-')]);
    }
    world.run("p2pctl", &["completions", "no-such-shell"]).exits(2).stdout_is_empty();
}

#[test]
fn manual_pages_are_printed_or_written_one_for_each_verb() {
    let world = World::new();
    let page = world.run("p2pctl", &["man"]).exits(0);
    page.stdout_has(&[".TH p2pctl 1", ".SH NAME", ".SH SYNOPSIS", "get"]);
    let written = world.run("p2pctl", &["man", "--out", "man"]).exits(0).stdout_is_empty();
    assert_eq!(written.stderr, "");
    for page in ["p2pctl.1", "p2pctl-get-rfc.1", "p2pctl-register.1", "p2pctl-up.1"] {
        assert!(fs::read_to_string(world.path("man").join(page)).unwrap().contains(".TH"), "{page}");
    }
    fs::write(world.path("file"), "").unwrap();
    world
        .run("p2pctl", &["man", "--out", "file"])
        .exits(1)
        .stdout_is_empty()
        .stderr_has(&["error: cannot write manual pages to file"]);
}
