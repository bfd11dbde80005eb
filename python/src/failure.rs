//! Errors, and the classes of Python that they become.

use p2pdi::{field::InvalidField, status, status::Reason, tls::TlsError};
use peerd::{
    PeerError,
    documents::share::ShareError,
    node::NodeError,
    transfer::{FetchError, ReadError, WriteError, jobs::JobsError},
};
use pyo3::{PyErr, prelude::*};
use registry::RegistryError;
use std::io;
use tonic::{Code, Status};

/// `ENOSPC`: no space left on the device.
const NO_SPACE: i32 = 28;

/// An error on its way to Python.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The name of its class in `p2pdi._errors`.
    class: &'static str,
    message: String,
    errno: Option<i32>,
    /// Of wrong bytes: the peer and the piece.
    corrupt: Option<(String, usize)>,
}

impl Failure {
    fn new(class: &'static str, message: String) -> Self {
        Self { class, message, errno: None, corrupt: None }
    }

    pub(crate) fn error(message: String) -> Self {
        Self::new("Error", message)
    }

    pub(crate) fn closed(message: String) -> Self {
        Self::new("Closed", message)
    }

    pub(crate) fn invalid(message: String) -> Self {
        Self::new("Invalid", message)
    }

    /// The operating system refused.
    pub(crate) fn os(message: String, error: &io::Error) -> Self {
        let class = match error.kind() {
            io::ErrorKind::NotFound => "NotFound",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "NoRoom",
            io::ErrorKind::PermissionDenied => "Refused",
            _ => "Error",
        };
        Self { errno: error.raw_os_error(), ..Self::new(class, message) }
    }

    /// A call to `server` ended with `status`.
    pub(crate) fn call(server: &str, status: &Status) -> Self {
        let words = status::describe(status);
        match (Reason::of(status), status.code()) {
            (Some(Reason::InvalidField), _) => Self::invalid(words),
            (Some(Reason::NameTaken), _) => Self::new("NameTaken", words),
            (Some(Reason::CookieUnknown | Reason::LeaseExpired), _) => Self::new("Refused", words),
            (Some(_), Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition) => Self::new("Refused", words),
            (Some(_), _) => Self::error(words),
            (None, Code::Unavailable) => Self::new("NoRoute", format!("{server} does not answer: {words}")),
            (None, Code::DeadlineExceeded) => Self::new("PeerTimeout", format!("{server} did not answer in time")),
            (None, _) => Self::error(format!("{server}: {words}")),
        }
    }
}

impl From<InvalidField> for Failure {
    fn from(error: InvalidField) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        let message = error.to_string();
        match &error {
            TlsError::Read { source, .. } => Self::os(message, source),
            _ => Self::invalid(message),
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        Self::error(format!("{error}{hint}"))
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        let message = error.to_string();
        if let Some(corrupt) = error.corrupt() {
            return Self { corrupt: Some(corrupt), ..Self::new("Corrupt", message) };
        }
        match &error {
            PeerError::Invalid(_) | PeerError::TooLarge(_) => Self::invalid(message),
            PeerError::Listen { source, .. } | PeerError::State(source) => Self::os(message, source),
            PeerError::Node(NodeError::Config(_)) => Self::invalid(message),
            PeerError::Node(NodeError::Share(ShareError::Folder { source, .. })) => Self::os(message, source),
            PeerError::Node(NodeError::Share(ShareError::NotAFolder { .. } | ShareError::OtherFolder { .. })) => {
                Self::invalid(message)
            }
            PeerError::Jobs(JobsError::Invalid(_)) => Self::invalid(message),
            PeerError::Jobs(JobsError::NoDocument { .. }) | PeerError::NotFound(_) => Self::new("NotFound", message),
            PeerError::Jobs(JobsError::State(source)) => Self::os(message, source),
            PeerError::NotStarted | PeerError::Stopped => Self::closed(message),
            PeerError::NoneAnswered(_) | PeerError::NoRoute(_) => Self::new("NoRoute", message),
            PeerError::NoAnswer { .. } => Self::new("PeerTimeout", message),
            PeerError::Ambiguous(_) => Self::new("Ambiguous", message),
            PeerError::NameTaken(_) => Self::new("NameTaken", message),
            PeerError::Refused { .. } | PeerError::Join(_) => Self::new("Refused", message),
            PeerError::Fetch(FetchError::Write(write)) => Self::write(message, write),
            PeerError::Fetch(FetchError::Sources { sources, .. }) | PeerError::Read(ReadError { sources, .. }) => {
                // Who answers and does not have it is no matter of the route.
                let gone = sources.iter().all(|source| source.gone);
                Self::new(if gone { "NotFound" } else { "NoRoute" }, message)
            }
            PeerError::Node(_) | PeerError::Jobs(_) | PeerError::Busy(_) => Self::error(message),
        }
    }
}

impl Failure {
    fn write(message: String, error: &WriteError) -> Self {
        match error {
            WriteError::NoSpace { .. } => Self { errno: Some(NO_SPACE), ..Self::new("NoRoom", message) },
            WriteError::TargetExists { .. } | WriteError::TargetIsFolder { .. } => {
                Self::new("Exists", format!("{message}; replace=True replaces a file, out= puts the document elsewhere"))
            }
            WriteError::Io { source, .. } => Self::os(message, source),
            _ => Self::error(message),
        }
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        Python::attach(|py| failure.to_exception(py).unwrap_or_else(|error| error))
    }
}

impl Failure {
    fn to_exception(&self, py: Python<'_>) -> PyResult<PyErr> {
        let class = py.import("p2pdi._errors")?.getattr(self.class)?;
        let exception = class.call1((&self.message,))?;
        if let Some(errno) = self.errno {
            exception.setattr("errno", errno)?;
        }
        if let Some((peer, piece)) = &self.corrupt {
            exception.setattr("peer", peer)?;
            exception.setattr("piece", piece)?;
        }
        Ok(PyErr::from_value(exception))
    }
}
