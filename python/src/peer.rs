//! A peer, for Python.

use crate::{
    call::Call,
    failure::Failure,
    handlers::Handler,
    messages::Inbox,
    reading::{NativeFetch, NativeReader},
    registry::duration,
    results::{Answers, Document, PeerInfo, Reply},
    runtime::{Process, threads},
};
use bytes::Bytes;
use p2pdi::tls::{ClientAuth, Tls, TlsFiles};
use peerd::{GetOptions, Peer, PeerHandle, RegistrationState, holders::listing::Offers};
use pyo3::{prelude::*, pybacked::PyBackedBytes};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Certificate, key and CAs as PEM files.
pub(crate) type TlsPaths = (PathBuf, PathBuf, PathBuf);

/// Reads the files of certificates.
pub(crate) fn read_tls((cert, key, ca): TlsPaths) -> Result<Tls, Failure> {
    Ok(Tls::from_files(TlsFiles { cert: Some(cert), key: Some(key), ca }, ClientAuth::Required)?)
}

/// The settings of a peer.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Settings {
    name: String,
    listen: String,
    advertise: Option<String>,
    registry: Option<String>,
    bootnodes: Vec<String>,
    share: Option<PathBuf>,
    lan: bool,
    state: Option<PathBuf>,
    tls: Option<TlsPaths>,
    token: Option<String>,
    network: String,
    labels: BTreeMap<String, String>,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
    quota: Option<u64>,
}

impl Settings {
    async fn build(self) -> Result<Peer, Failure> {
        let listen: SocketAddr = self.listen.parse().map_err(|_| {
            Failure::invalid(format!(
                "cannot listen on {:?}; write ADDRESS:PORT, such as 127.0.0.1:0 for a free port",
                self.listen
            ))
        })?;
        let mut builder = Peer::builder(self.name).listen(listen).lan(self.lan).network(self.network);
        builder = self.bootnodes.into_iter().fold(builder, |builder, bootnode| builder.bootnode(bootnode));
        builder = self.labels.into_iter().fold(builder, |builder, (key, value)| builder.label(key, value));
        if let Some(endpoint) = self.advertise {
            builder = builder.advertise(endpoint);
        }
        if let Some(registry) = self.registry {
            builder = builder.registry(registry);
        }
        if let Some(folder) = self.share {
            builder = builder.share(folder);
        }
        if let Some(folder) = self.state {
            builder = builder.state(folder);
        }
        if let Some(tls) = self.tls {
            builder = builder.tls(read_tls(tls)?);
        }
        if let Some(token) = self.token {
            builder = builder.join_with(token);
        }
        if let Some(limit) = self.upload_limit {
            builder = builder.upload_limit(limit);
        }
        if let Some(limit) = self.download_limit {
            builder = builder.download_limit(limit);
        }
        if let Some(quota) = self.quota {
            builder = builder.quota(quota);
        }
        Ok(builder.build().await?)
    }
}

/// Documents, the peers that failed, each with the reason, and whether there are more documents than a listing may have.
type Listed = (Vec<Document>, Vec<(String, String)>, bool);

fn listed(offers: Offers) -> Listed {
    (offers.offers.into_iter().map(Document::from).collect(), offers.failed, offers.is_cut)
}

/// A peer that runs.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct NativePeer {
    peer: Arc<Mutex<Option<Peer>>>,
    handle: PeerHandle,
    /// Messages that were dropped before the turn of a handler.
    lost: Arc<AtomicU64>,
    process: Process,
}

impl NativePeer {
    /// A handle for a call.
    fn handle(&self) -> Result<PeerHandle, Failure> {
        self.process.check()?;
        Ok(self.handle.clone())
    }

    fn take(&self) -> Option<Peer> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl NativePeer {
    /// Builds and starts one.
    #[staticmethod]
    fn open(settings: Settings) -> PyResult<Call> {
        let threads = threads()?;
        let work = async move {
            // On a thread of the runtime: building takes more stack than a small thread of Python may have.
            let built = threads.spawn(settings.build()).await;
            let peer = built.map_err(|error| Failure::error(error.to_string()))??;
            let (handle, peer) = (peer.handle(), Arc::new(Mutex::new(Some(peer))));
            // Until it has stopped, whoever stops it, and whoever waits for that.
            let (running, used) = (handle.clone(), threads.clone());
            threads.spawn(async move {
                running.stopped().await;
                drop(used);
            });
            Ok(Self { peer, handle, lost: Arc::default(), process: Process::current() })
        };
        Ok(Call::of(work))
    }

    #[getter]
    fn name(&self) -> String {
        self.handle.name().to_string()
    }

    #[getter]
    fn id(&self) -> String {
        self.handle.id().to_string()
    }

    #[getter]
    fn endpoint(&self) -> String {
        self.handle.endpoint().to_string()
    }

    fn peers(&self) -> PyResult<Vec<PeerInfo>> {
        Ok(self.handle()?.peers().into_iter().map(PeerInfo::from).collect())
    }

    /// Messages received, dropped before a handler's turn, and of kinds that nobody wanted.
    fn counts(&self) -> PyResult<(u64, u64, u64)> {
        let counts = self.handle()?.message_counts();
        Ok((counts.received, self.lost.load(Ordering::Relaxed), counts.unclaimed))
    }

    fn offered(&self) -> PyResult<Vec<Document>> {
        Ok(self.handle()?.offered().iter().map(Document::from).collect())
    }

    fn inbox(&self, kinds: Vec<String>) -> PyResult<Inbox> {
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        Ok(Inbox::new(self.handle()?.messages(&kinds).map_err(Failure::from)?))
    }

    fn handler(&self, kind: &str) -> PyResult<Handler> {
        Ok(Handler::new(&self.handle()?, kind, Arc::clone(&self.lost))?)
    }

    fn join(&self, peer: String) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(PeerInfo::from(handle.join(peer).await?)) }))
    }

    fn bootstrap(&self, peers: Vec<String>) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(handle.bootstrap(peers).await?.into_iter().map(PeerInfo::from).collect::<Vec<_>>()) }))
    }

    fn find_peer(&self, name: String) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(handle.find_peer(&name).await?.map(PeerInfo::from)) }))
    }

    fn peers_from(&self, peer: String) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(handle.peers_from(peer).await?.into_iter().map(PeerInfo::from).collect::<Vec<_>>()) }))
    }

    fn broadcast(&self, kind: String, body: PyBackedBytes, wait: f64) -> PyResult<Call> {
        let (handle, wait, body) = (self.handle()?, duration("wait", wait)?, Bytes::from_owner(body));
        Ok(Call::of(async move { Ok(Answers::from(handle.broadcast_counted(&kind, body, wait).await?)) }))
    }

    fn whisper(&self, to: String, kind: String, body: PyBackedBytes) -> PyResult<Call> {
        let (handle, body) = (self.handle()?, Bytes::from_owner(body));
        Ok(Call::of(async move { Ok(Reply::from(handle.whisper(&to, &kind, body).await?)) }))
    }

    fn documents(&self, pattern: Option<String>, from: Vec<String>) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(listed(handle.documents(pattern.as_deref(), &from).await?)) }))
    }

    fn search(&self, words: String, from: Vec<String>) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(listed(handle.search(words, &from).await?)) }))
    }

    fn find_document(&self, wanted: String, from: Vec<String>) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move {
            let found = handle.find_document(&wanted, &from).await?;
            Ok(Document::from(&found.document).held(&found.holders, found.holders.len()))
        }))
    }

    fn open_document(&self, wanted: String, from: Vec<String>) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(NativeReader::new(handle.open(&wanted, &from).await?, handle)) }))
    }

    fn fetch(
        &self,
        wanted: Vec<String>,
        out: PathBuf,
        from: Vec<String>,
        limit: Option<u64>,
        replace: bool,
        wait_for_holders: f64,
    ) -> PyResult<NativeFetch> {
        let wait_for_holders = duration("wait_for_holders", wait_for_holders)?;
        let options = GetOptions { from, limit, replace, wait_for_holders, ..GetOptions::new(out) };
        Ok(NativeFetch::new(self.handle()?.get(wanted, options).map_err(Failure::from)?))
    }

    fn share(&self, folder: PathBuf) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(handle.share(folder).await?) }))
    }

    /// Waits until the shared folder is hashed.
    fn shared(&self) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(handle.shared().await.iter().map(Document::from).collect::<Vec<_>>()) }))
    }

    fn pin(&self, name: String, pin: bool) -> PyResult<Call> {
        let handle = self.handle()?;
        Ok(Call::of(async move { Ok(handle.pin(&name, pin).await?) }))
    }

    /// Whether the registry lists it now, and how that stands, in words.
    fn registration(&self) -> PyResult<(bool, String)> {
        let registration = self.handle()?.registration();
        Ok((registration.state == RegistrationState::Registered, registration.detail))
    }

    fn registered(&self, patience: f64) -> PyResult<Call> {
        let (handle, patience) = (self.handle()?, duration("timeout", patience)?);
        Ok(Call::of(async move { Ok(handle.registered(patience).await?) }))
    }

    /// Stops it; it leaves the registry and the mesh. Waits until it has.
    fn close(&self) -> PyResult<Call> {
        self.process.check()?;
        let (peer, handle) = (self.take(), self.handle.clone());
        // Begun now, whoever waits.
        let stop = |peer: Peer| {
            let threads = threads()?;
            // The threads are there until it has ended: those that the peer keeps end with the peer, which is before.
            let used = threads.clone();
            let stopping = async move {
                let stopped = peer.shutdown().await;
                drop(used);
                stopped
            };
            Ok::<_, Failure>(threads.spawn(stopping))
        };
        let stopping = peer.map(stop).transpose()?;
        Ok(Call::of(async move {
            match stopping {
                Some(stopping) => Ok(stopping.await.map_err(|error| Failure::error(error.to_string()))??),
                None => {
                    handle.stopped().await;
                    Ok(())
                }
            }
        }))
    }
}

impl Drop for NativePeer {
    fn drop(&mut self) {
        // In a process that was forked, its tasks are not there to be told.
        self.process.leak_elsewhere(&self.peer);
        self.process.leak_elsewhere(&self.handle);
    }
}
