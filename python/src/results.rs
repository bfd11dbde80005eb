//! Results for Python: frozen, with fields, equality, `repr` and patterns.

use bytes::Bytes;
use p2pdi::v1;
use peerd::{
    GetProgress,
    documents::info::DocumentInfo,
    holders::{listing::Offer, source},
    inbox, transfer,
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyTuple},
};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::SystemTime};

/// Adds `repr` and patterns by these fields, and further methods.
macro_rules! shown {
    ($class:ident { $($field:ident),* $(,)? } $($more:tt)*) => {
        #[pymethods]
        impl $class {
            #[classattr]
            fn __match_args__(py: Python<'_>) -> PyResult<Py<PyTuple>> {
                Ok(PyTuple::new(py, [$(stringify!($field)),*])?.unbind())
            }

            fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                let mut fields = Vec::new();
                $(fields.push(format!("{}={}", stringify!($field), slf.getattr(stringify!($field))?.repr()?));)*
                Ok(format!("{}({})", stringify!($class), fields.join(", ")))
            }

            $($more)*
        }
    };
}

/// Seconds since 1970.
fn seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs_f64()).unwrap_or_default()
}

fn timestamp(at: Option<prost_types::Timestamp>) -> Option<f64> {
    at.and_then(|at| SystemTime::try_from(at).ok()).map(seconds)
}

/// A received message.
#[pyclass(frozen, eq, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    #[pyo3(get)]
    sender: String,
    #[pyo3(get)]
    kind: String,
    data: Bytes,
    #[pyo3(get)]
    broadcast: bool,
    #[pyo3(get)]
    hops: u32,
    #[pyo3(get)]
    received_at: f64,
    shown: String,
}

shown!(Message { sender, kind, body, broadcast, hops, received_at }
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.data)
    }

    #[getter]
    fn text(&self) -> &str {
        &self.shown
    }

    fn __str__(&self) -> &str {
        &self.shown
    }
);

impl Message {
    pub(crate) fn is_broadcast(&self) -> bool {
        self.broadcast
    }
}

impl From<inbox::Message> for Message {
    fn from(message: inbox::Message) -> Self {
        let shown = message.text();
        let inbox::Message { from, kind, body, received_at, broadcast, hops } = message;
        Self { sender: from, kind: kind.to_string(), data: body, broadcast, hops, received_at: seconds(received_at), shown }
    }
}

/// What the receiver of a whisper answered.
#[pyclass(frozen, eq, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    #[pyo3(get)]
    sender: String,
    #[pyo3(get)]
    kind: String,
    data: Bytes,
    #[pyo3(get)]
    answered: bool,
    #[pyo3(get)]
    unclaimed: bool,
    #[pyo3(get)]
    hops: u32,
    #[pyo3(get)]
    round_trip: f64,
}

shown!(Reply { sender, kind, body, answered, unclaimed, hops, round_trip }
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.data)
    }

    #[getter]
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }

    #[getter]
    fn is_fault(&self) -> bool {
        self.kind == "FAULT"
    }

    fn __str__(&self) -> String {
        self.text()
    }

    fn __bool__(&self) -> bool {
        self.answered
    }
);

impl From<peerd::Delivery> for Reply {
    fn from(delivery: peerd::Delivery) -> Self {
        let peerd::Delivery { by, hops, round_trip, reply, unclaimed } = delivery;
        let answered = reply.is_some();
        let inbox::Reply { kind, body } = reply.unwrap_or_default();
        Self { sender: by, kind, data: body, answered, unclaimed, hops, round_trip: round_trip.as_secs_f64() }
    }
}

/// How far a message to all peers came.
#[pyclass(frozen, get_all, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Answers {
    sent: u64,
    answered: u64,
    missing: Vec<String>,
}

shown!(Answers { sent, answered, missing }
    fn __int__(&self) -> u64 {
        self.answered
    }

    fn __index__(&self) -> u64 {
        self.answered
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        match other.cast::<Self>() {
            Ok(other) => *other.get() == *self,
            Err(_) => other.extract::<u64>().is_ok_and(|count| count == self.answered),
        }
    }

    fn __hash__(&self) -> u64 {
        self.answered
    }

    fn __bool__(&self) -> bool {
        self.answered > 0
    }
);

impl From<peerd::Tally> for Answers {
    fn from(peerd::Tally { known, acknowledged, missing }: peerd::Tally) -> Self {
        Self { sent: known, answered: acknowledged, missing }
    }
}

/// Another peer.
#[pyclass(frozen, eq, hash, get_all, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PeerInfo {
    name: String,
    endpoint: String,
    linked: bool,
}

shown!(PeerInfo { name, endpoint, linked }
    fn __str__(&self) -> String {
        format!("{}@{}", self.name, self.endpoint)
    }
);

impl From<peerd::PeerInfo> for PeerInfo {
    fn from(info: peerd::PeerInfo) -> Self {
        Self { name: info.name.to_string(), endpoint: info.endpoint.to_string(), linked: info.linked }
    }
}

/// A document, and who has it.
#[pyclass(frozen, eq, get_all, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    name: String,
    size: u64,
    hash: String,
    title: String,
    number: Option<u32>,
    modified: Option<f64>,
    holders: Vec<String>,
    held_by: usize,
}

shown!(Document { name, size, hash, title, number, modified, holders, held_by }
    fn __str__(&self) -> &str {
        &self.name
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        (&self.name, &self.hash).hash(&mut hasher);
        hasher.finish()
    }
);

impl From<&DocumentInfo> for Document {
    fn from(info: &DocumentInfo) -> Self {
        Self {
            name: info.name.to_string(),
            size: info.size(),
            hash: format!("b3:{}", info.hash),
            title: info.title.clone(),
            number: info.number,
            modified: timestamp(info.modified),
            holders: Vec::new(),
            held_by: 0,
        }
    }
}

impl Document {
    /// With some of its holders.
    pub(crate) fn held(self, holders: &[source::Source], held_by: usize) -> Self {
        Self { holders: holders.iter().map(|holder| holder.label().to_owned()).collect(), held_by, ..self }
    }
}

impl From<Offer> for Document {
    fn from(offer: Offer) -> Self {
        Self::from(&offer.document).held(&offer.holders, offer.held_by)
    }
}

/// A peer that a fetch uses, or used.
#[pyclass(frozen, eq, get_all, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    peer: String,
    endpoint: String,
    bytes: u64,
    rate: u64,
    dropped: Option<String>,
}

shown!(Source { peer, endpoint, bytes, rate, dropped });

/// How far a fetch is.
#[pyclass(frozen, eq, get_all, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Progress {
    done: u64,
    total: u64,
    rate: u64,
    documents_done: usize,
    documents: usize,
    sources: Vec<Source>,
    current: Vec<String>,
    stalled_reason: Option<String>,
    ended: bool,
}

shown!(Progress { done, total, rate, documents_done, documents, sources, current, stalled_reason, ended });

impl From<GetProgress> for Progress {
    fn from(progress: GetProgress) -> Self {
        let source = |holder: transfer::HolderProgress| Source {
            peer: holder.source.label().to_owned(),
            endpoint: holder.source.endpoint.to_string(),
            bytes: holder.bytes,
            rate: holder.bytes_per_second,
            dropped: None,
        };
        Self {
            done: progress.bytes_done,
            total: progress.bytes,
            rate: progress.bytes_per_second,
            documents_done: progress.documents_done,
            documents: progress.documents,
            sources: progress.holders.into_iter().map(source).collect(),
            current: progress.current,
            stalled_reason: progress.waiting,
            ended: progress.ended,
        }
    }
}

/// A document that was fetched.
#[pyclass(frozen, eq, get_all, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fetched {
    path: PathBuf,
    document: Document,
    already_there: bool,
    fetched_bytes: u64,
    resumed_bytes: u64,
    elapsed: f64,
    sources: Vec<Source>,
}

shown!(Fetched { path, document, already_there, fetched_bytes, resumed_bytes, elapsed, sources }
    fn __fspath__(&self) -> OsString {
        self.path.clone().into_os_string()
    }
);

impl From<transfer::Fetched> for Fetched {
    fn from(fetched: transfer::Fetched) -> Self {
        let source = |report: transfer::SourceReport| Source {
            peer: report.source.label().to_owned(),
            endpoint: report.source.endpoint.to_string(),
            bytes: report.bytes,
            rate: 0,
            dropped: report.dropped,
        };
        Self {
            document: (&fetched.document).into(),
            path: fetched.path,
            already_there: fetched.already_there,
            fetched_bytes: fetched.fetched_bytes,
            resumed_bytes: fetched.resumed_bytes,
            elapsed: fetched.elapsed.as_secs_f64(),
            sources: fetched.sources.into_iter().map(source).collect(),
        }
    }
}

/// A peer as a registry lists it.
#[pyclass(frozen, eq, get_all, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PeerRecord {
    name: String,
    endpoint: String,
    labels: BTreeMap<String, String>,
    active: bool,
    registration_count: u32,
    documents: u64,
    first_registered_at: Option<f64>,
    last_active_at: Option<f64>,
}

shown!(PeerRecord { name, endpoint, labels, active, registration_count, documents, first_registered_at, last_active_at });

impl From<v1::PeerRecord> for PeerRecord {
    fn from(record: v1::PeerRecord) -> Self {
        Self {
            active: record.state() == v1::PeerState::Active,
            name: record.name,
            endpoint: record.endpoint,
            labels: record.labels.into_iter().collect(),
            registration_count: record.registration_count,
            documents: record.documents,
            first_registered_at: timestamp(record.first_registered_at),
            last_active_at: timestamp(record.last_active_at),
        }
    }
}

/// A name that a registry gave.
#[pyclass(frozen, eq, get_all, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lease {
    pub(crate) name: String,
    pub(crate) ttl: f64,
    pub(crate) keep_alive_interval: f64,
    pub(crate) revision: u64,
    pub(crate) registration_count: u32,
}

shown!(Lease { name, ttl, keep_alive_interval, revision, registration_count });
