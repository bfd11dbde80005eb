//! Nothing that a remote sends can fill a log: where lines are about what remotes do, each is limited in number.

use super::{is_product, sources};

/// How many lines before a log line the check of its limit may be.
const BEFORE: usize = 8;

/// Parts whose lines are about what remotes do.
const REMOTE: &[&str] = &[
    "peerd/src/connections/",
    "peerd/src/holders/",
    "peerd/src/inbox/",
    "peerd/src/mesh/state",
    "peerd/src/messages/",
    "peerd/src/overlay/",
    "peerd/src/rpc/",
    "peerd/src/transfer/fetch/",
    "peerd/src/transfer/jobs/room.rs",
    "peerd/src/transfer/jobs/worker.rs",
    "peerd/src/transfer/plan/",
    "peerd/src/transfer/serve/",
    "peerd/src/transfer/swarm/",
    "proto/server/accept.rs",
    "proto/server/call_",
    "proto/server/handshakes",
    "proto/server/open_connections.rs",
    "proto/server/request_body.rs",
    "registry/src/announcing.rs",
    "registry/src/http",
    "registry/src/own_endpoint.rs",
    "registry/src/service.rs",
    "registry/src/swarms",
    "registry/src/table",
];

/// Lines there that no remote can repeat, and why.
const EXCEPT: &[(&str, usize)] = &[
    // At the stop, once for each handler.
    ("peerd/src/inbox/handlers.rs", 1),
    // An operator's calls.
    ("peerd/src/rpc/control.rs", 1),
    ("registry/src/service.rs", 1),
];

/// Lines at `info` or above without a limit before them.
fn unlimited(text: &str) -> usize {
    let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines: Vec<_> = product.lines().collect();
    let is_logged = |line: &str| ["info", "warn", "error"].iter().any(|level| line.contains(&format!("tracing::{level}!")));
    let is_limited = |at: usize| {
        lines[at.saturating_sub(BEFORE)..=at].iter().any(|line| line.contains(".line()") || line.contains("should_log"))
    };
    lines.iter().enumerate().filter(|(at, line)| is_logged(line) && !is_limited(*at)).count()
}

#[test]
fn every_log_line_that_a_remote_can_cause_has_a_limit() {
    for (path, source) in sources() {
        if !is_product(&path) || !REMOTE.iter().any(|part| path.starts_with(part)) {
            continue;
        }
        let allowed = EXCEPT.iter().find(|(file, _)| *file == path).map_or(0, |(_, lines)| *lines);
        let found = unlimited(&source.text);
        assert!(found <= allowed, "{path} logs {found} times what remotes can repeat: use LogLimit");
    }
}

#[test]
fn a_line_without_a_limit_is_found() {
    assert_eq!(unlimited("fn a() {\n    tracing::warn!(\"x\");\n}"), 1);
    assert_eq!(unlimited("if let Some(line) = LOG.line() {\n    tracing::warn!(\"x\");\n}"), 0);
    assert_eq!(unlimited("tracing::debug!(\"x\");"), 0);
}
