//! Errors on the wire: canonical codes with a `google.rpc.ErrorInfo` that carries a stable reason.
//!
//! The `.proto` files list the reasons; only this module turns them into statuses and back.

use crate::{
    content::PieceHashesError,
    cookie::{COOKIE_HEADER, MalformedCookie},
    field::InvalidField,
    log_limit::LogLimit,
    v1,
};
use std::{collections::HashMap, error::Error, time::Duration};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of every `ErrorInfo` of P2P-DI.
pub const DOMAIN: &str = "p2pdi";

/// Longest wait that a server can ask for: what it says is not trusted further.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $code:ident;)*) => {
        /// Why a call was refused. Stable: clients act on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// All of them, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The value of `ErrorInfo.reason`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The gRPC code of a status with this reason.
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// A value breaks a rule of the contract.
    InvalidField = "INVALID_FIELD", InvalidArgument;
    /// The page token is not one this server gave for this query.
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument;
    /// The call needs a cookie and has none.
    CookieMissing = "COOKIE_MISSING", Unauthenticated;
    /// The cookie is not 32 hexadecimal digits.
    CookieMalformed = "COOKIE_MALFORMED", Unauthenticated;
    /// The registry does not know the cookie, or does not any more.
    CookieUnknown = "COOKIE_UNKNOWN", NotFound;
    /// The lease ran out, or the peer left.
    LeaseExpired = "LEASE_EXPIRED", FailedPrecondition;
    /// The name is active elsewhere.
    NameTaken = "NAME_TAKEN", AlreadyExists;
    /// The caller is of another network.
    WrongNetwork = "WRONG_NETWORK", FailedPrecondition;
    /// A join token is unknown, expired, used or revoked.
    TokenRefused = "TOKEN_REFUSED", Unauthenticated;
    /// The call needs a client certificate.
    CertificateMissing = "CERTIFICATE_MISSING", Unauthenticated;
    /// A certificate that is to be renewed is unknown or revoked.
    CertificateRefused = "CERTIFICATE_REFUSED", Unauthenticated;
    /// The token, the caller's certificate or the signature of a message is for another name.
    NameNotYours = "NAME_NOT_YOURS", PermissionDenied;
    /// The call is for operators.
    OperatorOnly = "OPERATOR_ONLY", PermissionDenied;
    /// No token has that id.
    TokenUnknown = "TOKEN_UNKNOWN", NotFound;
    /// Nobody has a certificate for the name.
    NameUnknown = "NAME_UNKNOWN", NotFound;
    /// The registry is no certificate authority.
    NoAuthority = "NO_AUTHORITY", FailedPrecondition;
    /// The registry has records, which a restore would overwrite.
    NotEmpty = "NOT_EMPTY", FailedPrecondition;
    /// A name has as many valid certificates as one may have.
    TooManyCertificates = "TOO_MANY_CERTIFICATES", ResourceExhausted;
    /// The registry keeps as many tokens as it may.
    TooManyTokens = "TOO_MANY_TOKENS", ResourceExhausted;
    /// The endpoint does not have the address that the caller calls from.
    EndpointForeign = "ENDPOINT_FOREIGN", PermissionDenied;
    /// The registry is at its limit of peers.
    RegistryFull = "REGISTRY_FULL", ResourceExhausted;
    /// The registry has not seen the revision that the caller asks for.
    RevisionNotReached = "REVISION_NOT_REACHED", Unavailable;
    /// This replica cannot say that the lease is safe: another one keeps it and does not answer.
    LeaseNotSafe = "LEASE_NOT_SAFE", Unavailable;
    /// The caller is no replica of this registry.
    ReplicaUnknown = "REPLICA_UNKNOWN", Unauthenticated;
    /// The registry keeps as many swarms as it may, for the caller or in all.
    TooManySwarms = "TOO_MANY_SWARMS", ResourceExhausted;
    /// A watch ended, because its caller reads more slowly than peers change.
    Lagged = "LAGGED", Aborted;
    /// The registry cannot write to its store, or the peer to its state folder.
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable;
    /// The peer knows no such document.
    DocumentUnknown = "DOCUMENT_UNKNOWN", NotFound;
    /// The range begins or ends beyond the document.
    RangeBeyondEnd = "RANGE_BEYOND_END", OutOfRange;
    /// The holder does not have all pieces of the range.
    PiecesMissing = "PIECES_MISSING", FailedPrecondition;
    /// The peer has no such job.
    JobUnknown = "JOB_UNKNOWN", NotFound;
    /// The peer shares no folder to fetch into.
    NoShare = "NO_SHARE", FailedPrecondition;
    /// The peer has as many jobs as it may.
    TooManyJobs = "TOO_MANY_JOBS", ResourceExhausted;
    /// The file changed while it was served.
    DocumentChanged = "DOCUMENT_CHANGED", Aborted;
    /// The file cannot be read now, or the share that may have it is still being read.
    DocumentUnreadable = "DOCUMENT_UNREADABLE", Unavailable;
    /// No reachable peer has that name.
    NoRoute = "NO_ROUTE", NotFound;
    /// The limit of open streams is reached.
    TooManyStreams = "TOO_MANY_STREAMS", ResourceExhausted;
    /// The peer could not ask the registry, so it is unknown whether there is a route.
    RegistryUnavailable = "REGISTRY_UNAVAILABLE", Unavailable;
    /// The mesh is at its limit of route searches.
    TooManySeeks = "TOO_MANY_SEEKS", ResourceExhausted;
    /// A peer is at its limit of neighbours.
    NeighboursFull = "NEIGHBOURS_FULL", ResourceExhausted;
    /// A message is larger than allowed.
    MessageTooLarge = "MESSAGE_TOO_LARGE", ResourceExhausted;
    /// The server holds as many bytes of unfinished requests as it may.
    Overloaded = "OVERLOADED", ResourceExhausted;
    /// The caller, or all callers, make as many calls of this kind as they may.
    RateLimited = "RATE_LIMITED", ResourceExhausted;
    /// The request did not arrive in time.
    RequestTimeout = "REQUEST_TIMEOUT", DeadlineExceeded;
    /// The call is answered on the server's own machine only.
    LoopbackOnly = "LOOPBACK_ONLY", PermissionDenied;
    /// The server is stopping.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;
    /// A fault of the server.
    Internal = "INTERNAL", Internal;
}

impl Reason {
    /// A status with this reason. `message` says what was wrong and what to do; it is sent to the caller.
    pub fn status(self, message: impl Into<String>) -> Status {
        self.status_with(message, [])
    }

    /// A status with this reason, and `metadata` for programs.
    pub fn status_with<const N: usize>(self, message: impl Into<String>, metadata: [(&str, String); N]) -> Status {
        let metadata: HashMap<_, _> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let details = ErrorDetails::with_error_info(self.as_str(), DOMAIN, metadata);
        Status::with_error_details(self.code(), message, details)
    }

    /// A status with this reason, and the time after which the same call may succeed (`google.rpc.RetryInfo`).
    pub fn status_retry_after(self, message: impl Into<String>, after: Duration) -> Status {
        let mut details = ErrorDetails::with_error_info(self.as_str(), DOMAIN, HashMap::<String, String>::new());
        details.set_retry_info(Some(after));
        Status::with_error_details(self.code(), message, details)
    }

    /// The reason that `status` carries; `None` for a status from elsewhere.
    pub fn of(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
        Self::ALL.iter().copied().find(|reason| reason.as_str() == info.reason)
    }
}

/// The value of `key` in the metadata of a status's `ErrorInfo`.
pub fn metadata(status: &Status, key: &str) -> Option<String> {
    status.get_details_error_info()?.metadata.remove(key)
}

/// How long a server asks to wait before the same call (`google.rpc.RetryInfo`), at most [`RETRY_AFTER_MAX`]. Add jitter:
/// [`crate::backoff::pause_after`].
pub fn retry_after(status: &Status) -> Option<Duration> {
    Some(status.get_details_retry_info()?.retry_delay?.min(RETRY_AFTER_MAX))
}

/// A status as text for people. Of one with a [`Reason`] it is the message alone; without one the code is shown too. The client
/// library says "transport error" for any broken connection and hides why in the innermost source, which is shown instead.
pub fn describe(status: &Status) -> String {
    if Reason::of(status).is_some() {
        return status.message().to_owned();
    }
    let mut cause: &dyn Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match status.message() {
        _ if status.source().is_some() => cause.to_string(),
        "" => format!("failed with {:?}", status.code()),
        message => format!("{:?}: {message}", status.code()),
    }
}

/// The name of a code in the gRPC specification ("Status codes and their use in gRPC").
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The status of a fault of the server: the detail is logged, not sent.
pub fn internal(doing: &str, error: &dyn std::fmt::Display) -> Status {
    static LOG: LogLimit = LogLimit::new(10);
    // Anyone who makes calls can repeat it, as long as its cause lasts.
    if let Some(line) = LOG.line() {
        tracing::error!(%error, suppressed = line.suppressed, "internal error while {doing}");
    }
    Reason::Internal.status(format!("internal error while {doing}; the server's log says more"))
}

/// For one of many messages, where a call's status would speak of all.
impl From<&Status> for v1::Failure {
    fn from(status: &Status) -> Self {
        Self {
            // The numbers of the codes are small, and begin with 0.
            code: (status.code() as i32).unsigned_abs(),
            reason: Reason::of(status).map_or_else(String::new, |reason| reason.as_str().to_owned()),
            message: status.message().to_owned(),
            retry_after: retry_after(status).and_then(|after| after.try_into().ok()),
            metadata: status.get_details_error_info().map(|info| info.metadata.into_iter().collect()).unwrap_or_default(),
        }
    }
}

impl From<v1::Failure> for Status {
    fn from(failure: v1::Failure) -> Self {
        let v1::Failure { code, reason, message, retry_after, metadata } = failure;
        match Reason::ALL.iter().find(|known| known.as_str() == reason) {
            Some(reason) => {
                let mut details =
                    ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata.into_iter().collect::<HashMap<_, _>>());
                if let Some(after) = retry_after.and_then(|after| after.try_into().ok()) {
                    details.set_retry_info(Some(after));
                }
                Self::with_error_details(reason.code(), message, details)
            }
            None => match i32::try_from(code).map(Code::from_i32) {
                // A failure is no success, whatever it says.
                Ok(Code::Ok) | Err(_) => Self::unknown(message),
                Ok(code) => Self::new(code, message),
            },
        }
    }
}

impl From<InvalidField> for Status {
    fn from(error: InvalidField) -> Self {
        Reason::InvalidField.status_with(error.to_string(), [("field", error.field.to_owned())])
    }
}

impl From<MalformedCookie> for Status {
    fn from(error: MalformedCookie) -> Self {
        Reason::CookieMalformed.status(format!("{COOKIE_HEADER}: {error}; send it as the registry gave it"))
    }
}

impl From<PieceHashesError> for InvalidField {
    fn from(error: PieceHashesError) -> Self {
        Self::new("piece_hashes", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_a_round_trip_in_a_status() {
        for reason in Reason::ALL {
            let status = reason.status_with("a message", [("field", "name".into())]);
            assert_eq!(Reason::of(&status), Some(*reason));
            assert_eq!(status.code(), reason.code());
            assert_eq!(metadata(&status, "field").as_deref(), Some("name"));
        }
        assert_eq!(Reason::of(&Status::not_found("of another service")), None);
    }

    #[test]
    fn a_server_can_say_when_to_call_again_and_a_long_wait_is_cut() {
        let after = |seconds| Reason::RateLimited.status_retry_after("too many", Duration::from_secs(seconds));
        assert_eq!(Reason::of(&after(2)), Some(Reason::RateLimited));
        assert_eq!(retry_after(&after(2)), Some(Duration::from_secs(2)));
        assert_eq!(retry_after(&after(1_000_000)), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after(&Reason::Overloaded.status("later")), None);
    }

    #[test]
    fn a_description_shows_the_reasons_message_or_the_code_or_the_innermost_cause() {
        assert_eq!(describe(&Reason::NoRoute.status("nobody has that name")), "nobody has that name");
        assert_eq!(describe(&Status::not_found("nothing here")), "NotFound: nothing here");
        assert_eq!(describe(&Status::not_found("")), "failed with NotFound");
        let broken = Status::from_error(Box::new(std::io::Error::other("connection refused")));
        assert_eq!(describe(&broken), "connection refused");
    }

    #[test]
    fn the_contract_lists_every_reason() {
        let contract = concat!(
            include_str!("p2pdi/v1/registry.proto"),
            include_str!("p2pdi/v1/peer.proto"),
            include_str!("p2pdi/v1/replica.proto")
        );
        for reason in Reason::ALL {
            assert!(contract.contains(reason.as_str()), "{}", reason.as_str());
        }
    }
}
