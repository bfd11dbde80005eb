//! Nothing that a remote sends can fill a log: each line is limited in number, or no remote can repeat it.

use super::{is_product, sources};

/// How many lines before a log line the check of its limit may be.
const BEFORE: usize = 8;

/// Files with log lines without a limit, and how many: what they say happens once, when the peer or the registry starts or stops, when
/// something on this machine changes, or because of a bug. No remote can repeat it.
const UNLIMITED: &[(&str, usize)] = &[
    ("p2pctl/src/sharing.rs", 2),
    ("peerd/src/discovery/lan.rs", 3),
    ("peerd/src/documents/share/cache.rs", 2),
    ("peerd/src/documents/share/hash.rs", 1),
    ("peerd/src/documents/share/indexer.rs", 5),
    ("peerd/src/documents/share/indexer/scanning.rs", 4),
    ("peerd/src/documents/share/watch.rs", 2),
    ("peerd/src/identity/last_incarnation.rs", 1),
    ("peerd/src/identity/own_contact.rs", 1),
    ("peerd/src/inbox/handlers.rs", 1),
    ("peerd/src/mesh/incarnation.rs", 1),
    ("peerd/src/mesh/spawner.rs", 1),
    ("peerd/src/peer/lifecycle.rs", 1),
    ("peerd/src/session/driver.rs", 4),
    ("peerd/src/transfer/jobs/driver.rs", 3),
    ("peerd/src/transfer/jobs/state_file.rs", 1),
    ("peerd/src/transfer/store/check.rs", 1),
    ("peerd/src/transfer/store/superseded.rs", 1),
    ("proto/fan_out.rs", 1),
    ("proto/server/console.rs", 1),
    ("proto/server/serve.rs", 2),
    ("proto/server/stop.rs", 1),
    ("proto/server/tasks.rs", 1),
    ("proto/telemetry.rs", 1),
    ("proto/telemetry/logs.rs", 2),
    ("registry/src/server.rs", 3),
    ("registry/src/shared_table.rs", 1),
    ("registry/src/writer.rs", 2),
];

/// Parts whose lines are about what remotes do, where one without a limit is always a mistake.
const REMOTE: &[&str] =
    &["peerd/src/rpc/", "peerd/src/holders/", "peerd/src/overlay/", "peerd/src/mesh/state", "peerd/src/transfer/fetch/"];

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
    let mut found = Vec::new();
    for (path, source) in sources() {
        let count = if is_product(&path) { unlimited(&source.text) } else { 0 };
        if count > 0 {
            assert!(
                !REMOTE.iter().any(|part| path.starts_with(part)),
                "{path} logs what remotes do without a limit: use LogLimit"
            );
            found.push((path, count));
        }
    }
    let listed: Vec<_> = UNLIMITED.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect();
    assert_eq!(found, listed, "a log line is new or gone: limit it with LogLimit, or say here that no remote can repeat it");
}

#[test]
fn a_line_without_a_limit_is_found() {
    assert_eq!(unlimited("fn a() {\n    tracing::warn!(\"x\");\n}"), 1);
    assert_eq!(unlimited("if let Some(line) = LOG.line() {\n    tracing::warn!(\"x\");\n}"), 0);
    assert_eq!(unlimited("tracing::debug!(\"x\");"), 0);
}
