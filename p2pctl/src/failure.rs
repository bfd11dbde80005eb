//! Errors of the command line: one line, hints, and the exit code.

use p2pdi::{
    configuration::ConfigurationError,
    field::{InvalidField, is_terminal_control},
    phrases::counted,
    status::{self, Reason},
};
use peerd::{
    documents::selector::DocumentSelector,
    holders::search::Found,
    node::NodeError,
    transfer::{FetchError, WriteError},
};
use serde_json::{Value, json};
use std::{fmt, io, process::ExitCode, time::Duration};
use tonic::{Code, Status};

/// Longest line of an error, in characters: it may quote text from the network.
const SHOWN_MAX_CHARS: usize = 1_000;

/// Most documents of one name, and most holders of each, that an error names.
const AMBIGUOUS_SHOWN_MAX: usize = 16;
const HOLDERS_SHOWN_MAX: usize = 8;

/// Exit code of an interrupted verb, as shells report SIGINT: 128 + 2.
const INTERRUPTED: u8 = 130;

/// What went wrong, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    /// Of several things, those that failed, each with the reason.
    failed: Vec<(String, String)>,
    hints: Vec<String>,
    code: u8,
    /// The stable reason: the contract's, or one of this program.
    reason: &'static str,
    /// The server gave no reason of the contract: it did not answer, or is no P2P-DI server.
    unanswered: bool,
}

/// Result of a verb.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// The reason where another server answers than the one expected.
const WRONG_SERVER: &str = "WRONG_SERVER";

impl Failure {
    /// The request could not be fulfilled: exit code 1.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), failed: Vec::new(), hints: Vec::new(), code: 1, reason: "REFUSED", unanswered: false }
    }

    /// Wrong usage: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), failed: Vec::new(), hints: Vec::new(), code: 2, reason: "USAGE", unanswered: false }
    }

    /// The command line or the configuration is wrong. Of what the parser says, the first paragraph is the message, and its tips are hints.
    pub(crate) fn of_configuration(error: &ConfigurationError) -> Self {
        let text = error.to_string();
        let paragraph = text.split("\n\n").next().unwrap_or_default();
        let message = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let tips = text.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).map(str::to_owned);
        let hints = tips.chain(error.hint().map(str::to_owned)).collect();
        Self { hints, ..Self::usage(message.strip_prefix("error: ").unwrap_or(&message)) }
    }

    /// Ctrl-C or SIGTERM ended the verb.
    pub(crate) fn interrupted() -> Self {
        Self { code: INTERRUPTED, reason: "INTERRUPTED", ..Self::refused("interrupted") }
    }

    /// Some of several things failed: exit code 1. Hints that several of them have are given once.
    pub(crate) fn of_several(message: String, failed: Vec<(String, Self)>) -> Self {
        let mut all = Self::refused(message);
        for (what, failure) in failed {
            all.failed.push((what, failure.message));
            for hint in failure.hints {
                if !all.hints.contains(&hint) {
                    all.hints.push(hint);
                }
            }
        }
        all
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// A hint for when the server did not answer as one of P2P-DI does.
    pub(crate) fn hint_if_unanswered(self, hint: impl Into<String>) -> Self {
        if self.unanswered { self.hint(hint) } else { self }
    }

    /// Whether the server did not answer as one of P2P-DI does.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// This failure, explained by `found`: what answers in place of the server expected.
    pub(crate) fn explained(self, found: Option<String>) -> Self {
        match found {
            // What was guessed of a server that was not known yet does not help any more.
            Some(message) => Self { message, reason: WRONG_SERVER, hints: Vec::new(), ..self },
            None => self,
        }
    }

    /// Whether another server answers than the one expected, or one that wants to be called in another way.
    pub(crate) fn is_wrong_server(&self) -> bool {
        self.reason == WRONG_SERVER
    }

    /// The call to `server` took longer than `limit`.
    pub(crate) fn timed_out(server: &str, limit: Duration) -> Self {
        let message = format!("{server} did not answer within {} s", limit.as_secs());
        Self { unanswered: true, reason: "NOT_ANSWERED", ..Self::refused(message) }
    }

    /// No document is what was asked for.
    pub(crate) fn no_document(message: impl Into<String>) -> Self {
        Self::refused(message)
            .hint("`p2pctl ls` lists the documents that there are, `p2pctl search WORDS` those with words in name or title")
    }

    /// Several documents have the name or number that was asked for.
    pub(crate) fn ambiguous(wanted: &DocumentSelector, found: &[Found]) -> Self {
        let mut failure = Self {
            reason: "AMBIGUOUS",
            ..Self::refused(format!("AMBIGUOUS: {} are called {wanted}", counted(found.len() as u64, "different document")))
        };
        for found in found.iter().take(AMBIGUOUS_SHOWN_MAX) {
            failure = failure.hint(format!(
                "b3:{} ({}) is held by {}",
                found.document.hash,
                found.document.name,
                found.held_by_text(HOLDERS_SHOWN_MAX)
            ));
        }
        failure.hint("say which one: b3:HASH in place of the name, or --from NAME for the one that this peer has")
    }

    /// The message, without hints.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether the request could not be fulfilled (exit code 1), as opposed to wrong usage.
    pub(crate) fn is_refused(&self) -> bool {
        self.code == 1
    }

    /// This failure, with the message and hints of its cause as hints.
    pub(crate) fn because(mut self, cause: Self) -> Self {
        self.hints.push(cause.message);
        self.hints.extend(cause.hints);
        self
    }

    /// Whether a server refused the call for this reason.
    pub(crate) fn is_reason(&self, reason: Reason) -> bool {
        self.reason == reason.as_str()
    }

    /// `{"error":{"reason","message","hints"}}`, for `--output json`; with `failed` if several things were to be done.
    pub(crate) fn to_json(&self) -> Value {
        let hints: Vec<_> = self.hints.iter().map(|hint| plain(hint)).collect();
        let mut error = json!({ "reason": self.reason, "message": plain(&self.message), "hints": hints });
        if !self.failed.is_empty() {
            let failed = self.failed.iter().map(|(what, why)| json!({ "name": plain(what), "why": plain(why) }));
            error["failed"] = failed.collect();
        }
        json!({ "error": error })
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// A call to `server` ended with `status`.
    pub(crate) fn call(server: &str, status: &Status) -> Self {
        let words = status::describe(status);
        let failure = match (Reason::of(status), status.code()) {
            (Some(Reason::InvalidField), _) => Self::usage(words),
            (Some(_), _) => Self::refused(words),
            (None, Code::Unavailable) => Self::refused(format!("{server} does not answer: {words}")),
            (None, Code::DeadlineExceeded) => Self::refused(format!("{server} did not answer in time")),
            (None, Code::Unimplemented) => Self::refused(format!("{server} cannot do that: {words}"))
                .hint("it may be of an older version, or another kind of server: check the address"),
            (None, _) => Self::refused(format!("{server}: {words}")),
        };
        let failure = match Reason::of(status) {
            Some(reason) => Self { reason: reason.as_str(), ..failure },
            None => Self { unanswered: true, reason: "NOT_ANSWERED", ..failure },
        };
        match Reason::of(status) {
            Some(Reason::CookieUnknown | Reason::LeaseExpired) => failure.hint("p2pctl register takes the name again"),
            Some(Reason::NameTaken) => failure
                .hint("choose another name with --name, or wait")
                .hint("on the registry's machine: p2pctl registry expire NAME"),
            _ => failure,
        }
    }
}

/// Text from the network without terminal control sequences, and bounded.
fn plain(text: &str) -> String {
    text.chars().map(|c| if is_terminal_control(c) { ' ' } else { c }).take(SHOWN_MAX_CHARS).collect()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", plain(&self.message))?;
        self.failed.iter().try_for_each(|(what, why)| write!(f, "\n  {}: {}", plain(what), plain(why)))?;
        self.hints.iter().try_for_each(|hint| write!(f, "\nhint: {}", plain(hint)))
    }
}

impl From<InvalidField> for Failure {
    fn from(error: InvalidField) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::refused(error.to_string())
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        Self::refused(error.to_string())
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let failure = Self::refused(error.to_string());
        match &error {
            FetchError::Write(WriteError::TargetExists { .. }) => {
                failure.hint("--force replaces it, --out puts the document elsewhere")
            }
            FetchError::Write(WriteError::TargetIsFolder { .. }) => {
                failure.hint("rename or remove that folder, or put the document elsewhere with --out")
            }
            FetchError::Write(WriteError::NoSpace { .. }) => failure.hint("free some space, or choose another folder with --out"),
            FetchError::Write(WriteError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                failure.hint("free some space and run this again: what is verified is kept and not fetched again")
            }
            FetchError::Write(WriteError::Io { .. }) => failure.hint("choose a folder that this user can write to with --out"),
            gone if gone.is_gone() => {
                failure.hint("a holder changed or removed it meanwhile; run this again for what the peers have by now")
            }
            FetchError::Sources { kept_bytes, .. } if *kept_bytes > 0 => {
                failure.hint(format!("{kept_bytes} verified bytes are kept; run this again to resume"))
            }
            _ => failure,
        }
    }
}
