//! Why an enrolment fails.

use crate::{
    endpoint::Endpoint,
    status::{self, Reason},
    tls::TlsError,
    token::CaHash,
};
use std::{io, path::PathBuf};
use tonic::{Code, Status};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A file or folder cannot be used.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The key's file is damaged, or no key can be made.
    #[error("the key in {} cannot be used: {problem}; move it away to make a new one", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The certificate request cannot be made.
    #[error("cannot make a certificate request: {0}")]
    Request(String),
    /// No address of the registry answers.
    #[error("the registry at {registry} does not answer: {problem}")]
    Unreachable {
        /// The address that was tried last.
        registry: Endpoint,
        /// What happened.
        problem: String,
    },
    /// What answers is not the registry of the token.
    #[error(
        "what answers at {registry} is not the registry of the token: no certificate authority of its chain is the one that the token \
         names ({expected}); somebody may be intercepting the connection, or the token is of another registry"
    )]
    WrongAuthority {
        /// Its address.
        registry: Endpoint,
        /// The authority that the token names.
        expected: CaHash,
    },
    /// The registry refuses.
    #[error("the registry at {registry} gives no certificate: {}", status::describe(.status))]
    Refused {
        /// Its address.
        registry: Endpoint,
        /// Its answer.
        status: Status,
    },
    /// The certificates that the registry gave cannot be used.
    #[error("the certificates that the registry gave cannot be used: {0}")]
    Unusable(#[from] TlsError),
    /// The registry's answer breaks the contract.
    #[error("the answer of the registry at {registry} cannot be used: {problem}")]
    Answer {
        /// Its address.
        registry: Endpoint,
        /// What is wrong.
        problem: String,
    },
}

impl EnrolError {
    /// The reason that the registry gave.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { status, .. } => Reason::of(status),
            _ => None,
        }
    }

    /// Whether the registry refuses the value of this field.
    pub(super) fn is_about(&self, field: &str) -> bool {
        match self {
            Self::Refused { status, .. } => {
                Reason::of(status) == Some(Reason::InvalidField) && status::metadata(status, "field").as_deref() == Some(field)
            }
            _ => false,
        }
    }

    /// Whether another address of the registry may give what this one did not: it did not answer, or it is a replica that cannot now.
    pub(super) fn is_of_one_address(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => status.code() == Code::Unavailable,
            _ => false,
        }
    }

    /// Whether it may succeed later, without anybody doing anything: the registry did not answer, or says that it cannot now.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => !matches!(
                Reason::of(status),
                Some(
                    Reason::TokenRefused
                        | Reason::CertificateRefused
                        | Reason::CertificateMissing
                        | Reason::NameNotYours
                        | Reason::NameTaken
                        | Reason::NoAuthority
                        | Reason::InvalidField
                )
            ),
            _ => false,
        }
    }
}
