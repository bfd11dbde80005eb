//! Modules without side effects: their callers do the I/O, read the clock and supply random numbers.

use super::{
    is_test,
    modules::Modules,
    read, read_source, root, roots, sources,
    syntax::{self, Kind, Mention},
};

/// The line in the docs of such a module; it covers the module and those below it.
const PHRASE: &str = "//! Pure: no I/O, no clock, no randomness of its own.";
/// All pure modules.
const PURE: &[&str] = &[
    "p2pctl/src/printer/figures",
    "p2pctl/src/progress/lines",
    "p2pctl/src/progress/overall",
    "p2pctl/src/verbs/chat/line",
    "p2pctl/src/verbs/graph/draw",
    "p2pctl/src/verbs/swarm/draw",
    "p2pctl/src/verbs/swarm/seen",
    "peerd/src/config/keeping",
    "peerd/src/discovery/announcement",
    "peerd/src/discovery/bootnodes",
    "peerd/src/discovery/lan_peers",
    "peerd/src/documents/info",
    "peerd/src/documents/name_match",
    "peerd/src/documents/pattern",
    "peerd/src/documents/remote_index",
    "peerd/src/documents/remote_listing",
    "peerd/src/documents/restrictions",
    "peerd/src/documents/rfc_number",
    "peerd/src/documents/search_words",
    "peerd/src/documents/selector",
    "peerd/src/documents/share/cache_entry",
    "peerd/src/documents/share/document",
    "peerd/src/documents/share/file_states",
    "peerd/src/documents/share/index",
    "peerd/src/documents/share/left_out",
    "peerd/src/documents/share/title",
    "peerd/src/documents/wanted",
    "peerd/src/holders/announcer/decisions",
    "peerd/src/holders/answer_choice",
    "peerd/src/holders/asking_order",
    "peerd/src/holders/candidate",
    "peerd/src/holders/evidence",
    "peerd/src/holders/listed",
    "peerd/src/holders/patience",
    "peerd/src/holders/settlement",
    "peerd/src/holders/source",
    "peerd/src/identity/incarnation",
    "peerd/src/inbox/fair_queue",
    "peerd/src/inbox/kind",
    "peerd/src/inbox/seen",
    "peerd/src/mesh/abuse",
    "peerd/src/mesh/acks",
    "peerd/src/mesh/flaw",
    "peerd/src/mesh/lanes",
    "peerd/src/mesh/log_once",
    "peerd/src/mesh/name_conflicts",
    "peerd/src/mesh/recent",
    "peerd/src/mesh/reconnect",
    "peerd/src/mesh/root_signatures",
    "peerd/src/mesh/spares",
    "peerd/src/overlay",
    "peerd/src/topology/history",
    "peerd/src/topology/snapshot",
    "peerd/src/transfer/arriving",
    "peerd/src/transfer/fetch/holder_table",
    "peerd/src/transfer/fetch/source_selection",
    "peerd/src/transfer/fetch/source_totals",
    "peerd/src/transfer/piece_set",
    "peerd/src/transfer/plan",
    "peerd/src/transfer/jobs/beyond",
    "peerd/src/transfer/jobs/eviction",
    "peerd/src/transfer/jobs/items",
    "peerd/src/transfer/jobs/mirror",
    "peerd/src/transfer/jobs/offers",
    "peerd/src/transfer/jobs/request",
    "peerd/src/transfer/rate_limit",
    "peerd/src/transfer/serve/slots",
    "peerd/src/transfer/store/sidecar",
    "peerd/src/transfer/store/states",
    "peerd/src/transfer/swarm/named",
    "peerd/src/transfer/swarm/traffic",
    "peerd/src/transfer/swarm/update",
    "peerd/src/transfer/rate_meter",
    "proto/backoff",
    "proto/contact",
    "proto/content",
    "proto/document",
    "proto/endpoint",
    "proto/enrol/schedule",
    "proto/field",
    "proto/hex",
    "proto/name",
    "proto/network",
    "proto/phrases",
    "proto/registries/choice",
    "proto/registries/repeat",
    "proto/selector",
    "proto/server/call_limits/class",
    "proto/server/call_limits/limiter",
    "proto/server/request_body/unfinished",
    "proto/signed",
    "proto/tls/encode",
    "proto/tls/identity",
    "registry/src/cluster/replica_id",
    "registry/src/cluster/view",
    "registry/src/store/etcd/layout",
    "registry/src/ca/ledger",
    "proto/token_bucket",
    "registry/src/hash_index",
    "registry/src/swarms",
    "registry/src/table",
];

/// The file of a module's path.
fn file(module: &str) -> String {
    [format!("{module}.rs"), format!("{module}/mod.rs")].into_iter().find(|file| root().join(file).exists()).unwrap_or_default()
}

fn is_pure(path: &str) -> bool {
    let within = |module: &str| path == file(module) || path.starts_with(&format!("{module}/"));
    !is_test(path) && PURE.iter().any(|module| within(module))
}

#[test]
fn the_list_of_pure_modules_is_what_their_docs_say() {
    for module in PURE {
        assert!(!file(module).is_empty(), "{module} is on the list but not in the tree");
        assert!(
            read(&file(module)).lines().any(|line| line == PHRASE),
            "{module} is on the list, but its docs lack the line: {PHRASE}"
        );
    }
    for (path, source) in sources() {
        let mut docs = source.text.lines().take_while(|line| line.starts_with("//!"));
        let mentions = |line: &str| line.split(|c: char| !c.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("pure"));
        let says = docs.clone().any(|line| line == PHRASE);
        let is_product = !path.starts_with("tests/") && !path.contains("/tests/");
        assert!(says || !is_product || !docs.any(mentions), "{path} calls itself pure in other words; write: {PHRASE}");
        assert!(!says || is_pure(&path), "{path} says that it is pure but is not on the list");
    }
}

/// Forbidden paths: those that begin with or contain one of these. Hash maps iterate in another order in every process; a function called `now`
/// reads a clock, whatever its type.
const IMPURE: &[&str] = &[
    "tokio::",
    "tonic::",
    "std::fs::",
    "std::env::",
    "std::process::",
    "std::thread::",
    "getrandom::",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "now",
    "rand::rng",
    "random",
    "OsRng",
    "SysRng",
    "spawn",
    "spawn_blocking",
    "HashMap",
    "HashSet",
];
/// Methods that read a clock or start a task.
const IMPURE_METHODS: [&str; 3] = ["elapsed", "spawn", "spawn_blocking"];

fn impurities(file: &syn::File) -> Vec<Mention> {
    let is_impure = |mention: &Mention| {
        let path = format!("{}::", mention.text());
        let is_local = mention.path.len() == 1 && matches!(mention.kind, Kind::Path | Kind::Call);
        match mention.kind {
            Kind::Method => IMPURE_METHODS.contains(&mention.text().as_str()),
            _ => IMPURE.iter().any(|impure| {
                let begins = impure.ends_with("::") && path.starts_with(impure);
                begins || (!is_local && format!("::{path}").contains(&format!("::{impure}::")))
            }),
        }
    };
    syntax::full_mentions(file).into_iter().filter(is_impure).collect()
}

#[test]
fn pure_modules_have_no_io_no_clock_and_no_randomness() {
    for (path, source) in sources().iter().filter(|(path, _)| is_pure(path)) {
        let found: Vec<_> =
            impurities(&source.product).iter().map(|found| format!("{path}:{} uses {}", found.line, found.text())).collect();
        assert!(found.is_empty(), "pure modules have neither I/O, a clock nor randomness of their own: {found:?}");
    }
}

#[test]
fn impurities_are_found_behind_test_modules_imports_groups_and_macros() {
    let text = r#"
        #[cfg(test)]
        mod tests { use std::fs; }
        use std::{collections::{BTreeMap, HashMap as Map}, env, time::{Duration, Instant as Clock}};
        /// Not `tokio::spawn`.
        fn all(now: Duration, map: &BTreeMap<u8, u8>) {
            let seen = Clock::now();
            println!("SystemTime::now {:?} {now:?}", rand::rng());
            tokio::select! { _ = seen.elapsed() => env::vars() }
        }
    "#;
    let found: Vec<_> = impurities(&syntax::product(text).unwrap()).iter().map(|found| (found.line, found.text())).collect();
    let expected = [
        (4, "std::collections::HashMap"),
        (4, "std::env"),
        (7, "std::time::Instant::now"),
        (8, "rand::rng"),
        (9, "tokio::select"),
        (9, "elapsed"),
        (9, "std::env::vars"),
    ];
    assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
}

/// Plain values that impure modules define: pure modules may use them.
const VALUES: &[&str] = &[
    "p2pdi::id::PeerId",
    "p2pdi::json::value",
    "p2pdi::platform::FileStat",
    "p2pdi::cookie::Cookie",
    "p2pdi::cookie::CookieHash",
    "p2pdi::token::TokenHash",
    "p2pdi::channel::REGISTRY_RESPONSE_MAX_BYTES",
    "p2pdi::channel::CONNECTION_WINDOW",
    "p2pdi::channel::STREAM_WINDOW",
    "p2pdi::channel::limited_window",
];

#[test]
fn pure_modules_use_pure_modules_only() {
    let mut found = Vec::new();
    for root in roots() {
        for edge in Modules::read(&root, &read_source).edges().iter().filter(|edge| is_pure(&edge.from)) {
            let is_value = VALUES.iter().any(|value| {
                let (module, name) = value.trim_start_matches("p2pdi::").split_once("::").unwrap();
                edge.to == format!("proto/{module}.rs") && edge.name.split("::").any(|part| part == name)
            });
            if !is_pure(&edge.to) && !is_value {
                found.push(format!("{}:{} is pure and uses {} of {}", edge.from, edge.line, edge.name, edge.to));
            }
        }
    }
    // Of the contract: generated code, and its pure modules.
    for (path, source) in sources().iter().filter(|(path, _)| is_pure(path)) {
        for mention in syntax::full_mentions(&source.product).iter().filter(|mention| mention.path[0] == "p2pdi") {
            let module = mention.path.get(1).map(String::as_str).unwrap_or_default();
            let is_value = VALUES.iter().any(|value| format!("{}::", mention.text()).starts_with(&format!("{value}::")));
            let may = module == "v1" || is_value || is_pure(&format!("proto/{module}.rs"));
            if !may {
                found.push(format!("{path}:{} is pure and uses {}", mention.line, mention.text()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
