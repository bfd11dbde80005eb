//! Rules for all sources, tests included, checked on tokens, so that comments and strings do not count.

use super::{Source, is_test, read, sources};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::collections::BTreeSet;

/// Calls `check` with every sequence of tokens, also of nested groups.
fn each_run(tokens: TokenStream, check: &mut dyn FnMut(&[TokenTree])) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for token in &tokens {
        if let TokenTree::Group(group) = token {
            each_run(group.stream(), check);
        }
    }
    check(&tokens);
}

fn is_name(token: Option<&TokenTree>, name: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == name)
}

fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<&Group> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

#[test]
fn no_source_has_unsafe_code() {
    for (path, source) in sources() {
        each_run(source.tokens(), &mut |run| {
            for token in run {
                assert!(!is_name(Some(token), "unsafe"), "{path}:{} has unsafe code", line(token));
            }
        });
    }
    assert!(read("Cargo.toml").contains("unsafe_code = \"forbid\""));
}

#[test]
fn no_source_has_todo_or_ignored_tests() {
    for (path, source) in sources() {
        each_run(source.tokens(), &mut |run| {
            for (at, token) in run.iter().enumerate() {
                let is_undone = ["todo", "unimplemented"].iter().any(|name| is_name(Some(token), name));
                assert!(!(is_undone && is_mark(run.get(at + 1), '!')), "{path}:{} has a macro for unfinished code", line(token));
                let attribute = group(run.get(at + 1), Delimiter::Bracket).filter(|_| is_mark(Some(token), '#'));
                let ignores = attribute.is_some_and(|group| is_name(group.stream().into_iter().next().as_ref(), "ignore"));
                assert!(!ignores, "{path}:{} ignores a test", line(token));
            }
        });
        // Written in two parts, so that this file does not match.
        for word in [["TO", "DO"].concat(), ["FIX", "ME"].concat()] {
            assert!(!source.text.contains(&word), "{path} has {word}");
        }
    }
}

/// Files whose tests may sleep: to poll for a condition with a deadline, or because time itself is
/// under test. All others wait for an event.
const SLEEPING: &[(&str, &str)] = &[
    ("registry/tests/support/mod.rs", "polling in `eventually` and `ended`"),
    ("tests/revocation.rs", "polling in `until`"),
    ("peerd/tests/support/mod.rs", "polling in `eventually`"),
    ("peerd/tests/mesh/support.rs", "polling in `until`"),
    ("peerd/tests/support/holder.rs", "a holder that sends slowly"),
    ("peerd/tests/floods.rs", "honest callers that call from time to time, and those who flood"),
    ("peerd/tests/serving/slow_readers.rs", "a slow reader, and one that does not read"),
    ("registry/tests/replicas/authority.rs", "keeps leases alive for a while"),
    ("registry/tests/replicas/certificates.rs", "registers again and again while certificates must not be used"),
    ("registry/tests/replicas/crowd.rs", "looks again and again while leases must last"),
    ("registry/tests/replicas/history.rs", "cuts a cable for a while, several times"),
    ("registry/tests/enrol.rs", "kills at a random moment"),
    ("registry/tests/hostile.rs", "attackers that drip, and an honest client that calls from time to time"),
    ("registry/tests/process.rs", "kills at a random moment"),
    ("proto/server/request_body/tests.rs", "bodies that drip; the time limit of a body"),
    ("proto/server/serve.rs", "the time after which an idle connection is closed"),
    ("peerd/src/transfer/serve/uploads.rs", "the time after which a fetch counts as done, on a paused clock"),
];

#[test]
fn tests_wait_for_events_with_a_deadline() {
    for (path, _) in SLEEPING {
        assert!(sources().contains_key(*path), "{path} may sleep but is not in the tree");
    }
    for (path, source) in sources() {
        each_run(test_tokens(&path, &source), &mut |run| {
            for (at, token) in run.iter().enumerate() {
                let sleeps = ["sleep", "sleep_until", "sleep_ms"].iter().any(|name| is_name(Some(token), name))
                    && group(run.get(at + 1), Delimiter::Parenthesis).is_some();
                let may = SLEEPING.iter().any(|(allowed, _)| *allowed == path);
                assert!(!sleeps || may, "{path}:{} sleeps; wait for the event, with a deadline", line(token));
            }
        });
    }
}

#[test]
fn tests_bind_no_fixed_port() {
    for (path, source) in sources() {
        each_run(test_tokens(&path, &source), &mut |run| {
            for (at, token) in run.iter().enumerate() {
                let Some(arguments) = group(run.get(at + 1), Delimiter::Parenthesis).filter(|_| is_name(Some(token), "bind"))
                else {
                    continue;
                };
                let mut last = None;
                each_run(arguments.stream(), &mut |run| last = run.last().cloned().or(last.take()));
                let Some(TokenTree::Literal(port)) = last else { continue };
                let text = port.to_string();
                assert!(text.ends_with(":0\"") || text.starts_with('0'), "{path}:{} binds a fixed port: {text}", line(token));
            }
        });
    }
}

/// All tokens of a test file, or the test code of a production file.
fn test_tokens(path: &str, source: &Source) -> TokenStream {
    if is_test(path) { source.tokens() } else { source.tests.clone() }
}

#[test]
fn production_code_does_not_depend_on_cfg_test() {
    for (path, source) in sources().iter().filter(|(path, _)| super::is_product(path)) {
        each_run(source.tokens(), &mut |run| {
            for (at, token) in run.iter().enumerate() {
                let Some(predicate) = group(run.get(at + 1), Delimiter::Parenthesis).filter(|_| is_name(Some(token), "cfg"))
                else {
                    continue;
                };
                assert!(
                    !is_negated_test(predicate.stream(), false),
                    "{path}:{} compiles other code under test; pass a parameter",
                    line(token)
                );
            }
            for window in run.windows(3) {
                let is_macro = is_name(window.first(), "cfg") && is_mark(window.get(1), '!');
                let Some(predicate) = group(window.get(2), Delimiter::Parenthesis).filter(|_| is_macro) else { continue };
                let mut asks = false;
                each_run(predicate.stream(), &mut |run| asks |= run.iter().any(|token| is_name(Some(token), "test")));
                assert!(!asks, "{path}:{} asks cfg!(test); pass a parameter", line(&window[0]));
            }
        });
    }
}

/// Whether `test` is inside `not(…)`.
fn is_negated_test(predicate: TokenStream, negated: bool) -> bool {
    let tokens: Vec<_> = predicate.into_iter().collect();
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Group(group) => is_negated_test(group.stream(), negated || (at > 0 && is_name(tokens.get(at - 1), "not"))),
        token => negated && is_name(Some(token), "test"),
    })
}

/// Names that show a deadline in the same function.
const DEADLINES: [&str; 6] = ["timeout", "within", "eventually", "until", "elapsed", "Instant"];

#[test]
fn busy_waits_in_tests_have_a_deadline() {
    for (path, source) in sources() {
        let tokens = if path.contains("benches/") { source.tokens() } else { test_tokens(&path, &source) };
        each_run(tokens, &mut |run| {
            for (at, _) in run.iter().enumerate().filter(|(_, token)| is_name(Some(token), "fn")) {
                let body = block_after(run, at);
                let gives_up = names(body.clone()).iter().any(|name| DEADLINES.contains(&name.as_str()));
                each_run(body, &mut |run| {
                    for (at, token) in run.iter().enumerate() {
                        let is_loop = ["loop", "while"].iter().any(|name| is_name(Some(token), name));
                        let pauses = ["yield_now", "spin_loop", "sleep", "park_timeout"];
                        let spins = is_loop && names(block_after(run, at)).iter().any(|name| pauses.contains(&name.as_str()));
                        assert!(!spins || gives_up, "{path}:{} waits in a loop without a deadline", line(token));
                    }
                });
            }
        });
    }
}

/// What stands in the first braces after this token.
fn block_after(run: &[TokenTree], at: usize) -> TokenStream {
    run[at..].iter().find_map(|token| group(Some(token), Delimiter::Brace)).map(Group::stream).unwrap_or_default()
}

fn names(tokens: TokenStream) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    each_run(tokens, &mut |run| {
        names.extend(run.iter().filter_map(|token| match token {
            TokenTree::Ident(name) => Some(name.to_string()),
            _ => None,
        }));
    });
    names
}

/// The names that a source imports from `v1`, the generated messages, and `v1` itself.
fn generated_names(tokens: TokenStream) -> BTreeSet<String> {
    let mut names = BTreeSet::from(["v1".to_owned()]);
    each_run(tokens, &mut |run| {
        for (at, _) in run.iter().enumerate().filter(|(_, token)| is_name(Some(token), "use")) {
            let import = run[at..].iter().take_while(|token| !is_mark(Some(token), ';')).cloned().collect();
            names.extend(imported_from_v1(import));
        }
    });
    names
}

fn imported_from_v1(import: TokenStream) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    each_run(import, &mut |run| {
        for (at, _) in run.iter().enumerate().filter(|(_, token)| is_name(Some(token), "v1")) {
            // After `::`.
            match run.get(at + 3) {
                Some(TokenTree::Ident(name)) => drop(names.insert(name.to_string())),
                Some(TokenTree::Group(several)) => each_run(several.stream(), &mut |run| {
                    let idents =
                        run.iter().filter_map(|token| if let TokenTree::Ident(name) = token { Some(name) } else { None });
                    names.extend(idents.map(ToString::to_string).filter(|name| name != "self"));
                }),
                _ => {}
            }
        }
    });
    names
}

#[test]
fn what_an_embedding_program_uses_names_no_generated_type() {
    let mut items = 0;
    for (path, source) in sources().iter().filter(|(path, _)| path.starts_with("peerd/src/peer/")) {
        let generated = generated_names(source.tokens());
        each_run(source.tokens(), &mut |run| {
            for (at, token) in run.iter().enumerate() {
                let is_public = is_name(Some(token), "pub") && group(run.get(at + 1), Delimiter::Parenthesis).is_none();
                if !is_public || is_name(run.get(at + 1), "use") {
                    continue;
                }
                items += 1;
                // A function up to its body, a field up to the next one.
                let is_function = run[at..].iter().take(3).any(|token| is_name(Some(token), "fn"));
                let is_end = |token: &&TokenTree| {
                    group(Some(token), Delimiter::Brace).is_some() || (!is_function && is_mark(Some(token), ','))
                };
                let declared: TokenStream = run[at..].iter().take_while(|token| !is_end(token)).cloned().collect();
                each_run(declared, &mut |run| {
                    for token in run {
                        let is_generated = matches!(token, TokenTree::Ident(name) if generated.contains(&name.to_string()));
                        assert!(
                            !is_generated,
                            "{path}:{} names the generated type {token}; give the library one of its own",
                            line(token)
                        );
                    }
                });
            }
        });
    }
    assert!(items > 100, "{items}");
}
