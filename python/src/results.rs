//! Results for Python: frozen, with fields, equality, `repr` and patterns.

use bytes::Bytes;
use p2pdi::v1;
use peerd::{
    GetProgress,
    documents::info::DocumentInfo,
    holders::{listing::Offer, source},
    inbox::{self, MessageKind},
    transfer,
};
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
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

/// The body of a message. The object of it is made when it is first asked for, with the only copy: buffers of Rust have no place in the stable
/// ABI of 3.10.
struct Body {
    data: Bytes,
    object: PyOnceLock<Py<PyBytes>>,
}

impl Body {
    fn object<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.object.get_or_init(py, || PyBytes::new(py, &self.data).unbind()).bind(py).clone()
    }
}

impl From<Bytes> for Body {
    fn from(data: Bytes) -> Self {
        Self { data, object: PyOnceLock::new() }
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

/// A received message: `sender`, its name; `kind`; `body`, bytes; `text`, the body as text that is safe to print; `broadcast`, whether it went to all;
/// `hops`, over how many others it came; `received_at`, seconds since 1970.
///
/// >>> with p2pdi.testing.network(2) as (one, two):
/// ...     _ = one.whisper(two.name, b"hello")
/// ...     message = two.wait(timeout=10)
/// >>> message.sender, message.kind, message.body, message.text, message.broadcast
/// ('peer-1', 'text', b'hello', 'hello', False)
#[pyclass(frozen, eq, module = "p2pdi")]
#[derive(PartialEq)]
pub(crate) struct Message {
    #[pyo3(get)]
    sender: String,
    kind: MessageKind,
    body: Body,
    #[pyo3(get)]
    broadcast: bool,
    #[pyo3(get)]
    hops: u32,
    #[pyo3(get)]
    received_at: f64,
}

shown!(Message { sender, kind, body, broadcast, hops, received_at }
    #[getter]
    fn kind(&self) -> &str {
        self.kind.as_str()
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.body.object(py)
    }

    #[getter]
    fn text(&self) -> String {
        inbox::printable(&self.body.data)
    }

    fn __str__(&self) -> String {
        self.text()
    }
);

impl From<inbox::Message> for Message {
    fn from(inbox::Message { from, kind, body, received_at, broadcast, hops }: inbox::Message) -> Self {
        Self { sender: from, kind, body: body.into(), broadcast, hops, received_at: seconds(received_at) }
    }
}

/// What the receiver of a whisper answered: `sender`, `kind` and `body` of its handler's reply, whether it `answered` at all, whether nobody there
/// wanted the message (`unclaimed`), whether the handler failed (`is_fault`), over how many others it went (`hops`), and `round_trip`, seconds.
///
/// >>> with p2pdi.testing.network(2) as (one, two):
/// ...     two.on("TEST", lambda message: ("DONE", message.body))
/// ...     reply = one.whisper(two.name, b"hello", kind="TEST")
/// >>> reply.sender, reply.kind, reply.body, bool(reply), reply.is_fault, reply.unclaimed
/// ('peer-2', 'DONE', b'hello', True, False, False)
#[pyclass(frozen, eq, module = "p2pdi")]
#[derive(PartialEq)]
pub(crate) struct Reply {
    #[pyo3(get)]
    sender: String,
    #[pyo3(get)]
    kind: String,
    body: Body,
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
        self.body.object(py)
    }

    #[getter]
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.data).into_owned()
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
        Self { sender: by, kind, body: body.into(), answered, unclaimed, hops, round_trip: round_trip.as_secs_f64() }
    }
}

/// How far a message to all peers came: to how many it was `sent`, how many `answered` that they have it, and the names of those that are `missing`.
/// It compares, and counts, as the number of those that have it.
///
/// >>> with p2pdi.testing.network(2) as (one, two):
/// ...     answers = one.send_message_to_peers("hello_there", wait=10)
/// >>> answers, answers == 1, int(answers)
/// (Answers(sent=1, answered=1, missing=[]), True, 1)
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

/// Another peer: its `name`, the `endpoint` to dial, `"host:port"`, and whether there is a link to it (`linked`).
///
/// >>> with p2pdi.testing.network(2) as (one, two):
/// ...     match one.find_peer("peer-2"):
/// ...         case p2pdi.PeerInfo(name, endpoint):
/// ...             name, endpoint == two.endpoint
/// ('peer-2', True)
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

/// A document: its `name`, a path with `/`; `size` in bytes; `hash`, `"b3:"` and 64 hexadecimal digits; `title`, and `number` of an RFC; when it was
/// `modified`, seconds since 1970; some of its `holders` by name, and by how many it is `held_by`.
///
/// >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
/// ...     document = two.find_document("a.txt")
/// >>> document.name, document.size, document.hash[:11], document.holders
/// ('a.txt', 5, 'b3:ea8f163d', ['peer-1'])
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
            modified: info.modified.map(seconds),
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

/// A peer that a fetch uses, or used: its name (`peer`), `endpoint`, verified `bytes` from it, its `rate` in bytes a second, and why it was `dropped`.
///
/// >>> import tempfile
/// >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
/// ...     (fetched,) = two.fetch("a.txt", out=tempfile.mkdtemp()).documents()
/// >>> [(source.peer, source.bytes, source.dropped) for source in fetched.sources]
/// [('peer-1', 5, None)]
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

/// How far a fetch is: verified bytes `done` of `total`, `rate` in bytes a second, `documents_done` of `documents`, its `sources`, what is `current`, why it
/// does not go on (`stalled_reason`), and whether it has `ended`.
///
/// >>> import tempfile
/// >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
/// ...     *_, last = two.fetch("a.txt", out=tempfile.mkdtemp())
/// >>> last.done, last.total, last.documents_done, last.ended, last.stalled_reason
/// (5, 5, 1, True, None)
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
    pub(crate) ended: bool,
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

/// A document that was fetched, an `os.PathLike`: its `path`, the `document`, whether it was `already_there`, bytes fetched and bytes that an earlier
/// fetch had (`fetched_bytes`, `resumed_bytes`), seconds (`elapsed`), and its `sources`.
///
/// >>> import os, tempfile
/// >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
/// ...     (fetched,) = two.fetch("a.txt", out=tempfile.mkdtemp()).documents()
/// >>> os.path.getsize(fetched), fetched.already_there, fetched.resumed_bytes
/// (5, False, 0)
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

/// A peer as a registry lists it: `name`, `endpoint`, `labels`, whether its lease lasts (`active`), how often it registered (`registration_count`), how many
/// `documents` it shares, and when it first registered and was last active, seconds since 1970.
///
/// >>> with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as client:
/// ...     _ = client.register("alice", "127.0.0.1:7901", {"zone": "x"})
/// ...     (record,) = p2pdi.RegistryClient(registry.url).pquery()
/// >>> record.name, record.endpoint, record.labels, record.active, record.registration_count
/// ('alice', '127.0.0.1:7901', {'zone': 'x'}, True, 1)
#[pyclass(frozen, eq, get_all, module = "p2pdi")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PeerRecord {
    pub(crate) name: String,
    pub(crate) endpoint: String,
    pub(crate) labels: BTreeMap<String, String>,
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

/// A name that a registry gave: `name`, for how many seconds (`ttl`), after how many to extend it (`keep_alive_interval`), the registry's `revision`, and
/// how often the name was registered (`registration_count`).
///
/// >>> with p2pdi.Registry(ttl=20) as registry, p2pdi.RegistryClient(registry.url) as client:
/// ...     lease = client.register("alice", "127.0.0.1:7901")
/// >>> lease.name, lease.ttl, lease.keep_alive_interval < 20
/// ('alice', 20.0, True)
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
