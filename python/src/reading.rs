//! Fetches and open documents.

use crate::{
    call::Call,
    failure::Failure,
    results::{Document, Fetched, Progress},
    runtime::Process,
};
use bytes::Bytes;
use peerd::{Get, PeerHandle, transfer::PieceReader};
use pyo3::{prelude::*, types::PyBytes};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync;

/// Documents being fetched.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct NativeFetch {
    get: Arc<Mutex<Option<Get>>>,
    /// After its end.
    last: Mutex<Option<Progress>>,
    process: Process,
}

impl NativeFetch {
    pub(crate) fn new(get: Get) -> Self {
        Self { get: Arc::new(Mutex::new(Some(get))), last: Mutex::default(), process: Process::current() }
    }

    fn take(&self) -> Option<Get> {
        let get = self.get.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(get.progress().into());
        Some(get)
    }
}

#[pymethods]
impl NativeFetch {
    /// How far it is.
    fn progress(&self) -> PyResult<Progress> {
        self.process.check()?;
        if let Some(get) = &*self.get.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(get.progress().into());
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.ok_or_else(|| Failure::closed("the fetch was cancelled".to_owned()).into())
    }

    /// Waits for its end.
    fn ended(&self) -> PyResult<Call> {
        self.process.check()?;
        let ended = self.get.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Get::ended);
        Ok(Call::of(async move {
            if let Some(ended) = ended {
                ended.await;
            }
            Ok(())
        }))
    }

    /// The result, once; waits for it.
    fn result(&self) -> PyResult<Call> {
        self.process.check()?;
        let get = self.take();
        Ok(Call::of(async move {
            let get = get.ok_or_else(|| Failure::closed("the fetch was cancelled".to_owned()))?;
            Ok(get.result().await?.into_iter().map(Fetched::from).collect::<Vec<_>>())
        }))
    }

    /// Ends it, unless it has ended: then its result stays. Returns whether it was under way.
    fn cancel(&self) -> bool {
        let get = {
            let mut get = self.get.lock().unwrap_or_else(PoisonError::into_inner);
            get.take_if(|get| !get.progress().ended)
        };
        let Some(get) = get else { return false };
        // Whoever iterates over it sees that nothing more comes.
        let mut last = Progress::from(get.progress());
        last.ended = true;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        true
    }
}

impl Drop for NativeFetch {
    fn drop(&mut self) {
        self.process.leak_elsewhere(&self.get);
    }
}

/// A document that others have, open for reading.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct NativeReader {
    reader: Arc<sync::Mutex<PieceReader>>,
    /// The peer that reads.
    peer: PeerHandle,
    document: Document,
    process: Process,
}

impl NativeReader {
    pub(crate) fn new(reader: PieceReader, peer: PeerHandle) -> Self {
        let document = reader.document().into();
        Self { reader: Arc::new(sync::Mutex::new(reader)), peer, document, process: Process::current() }
    }
}

#[pymethods]
impl NativeReader {
    #[getter]
    fn document(&self) -> Document {
        self.document.clone()
    }

    /// `length` bytes from `offset` on, as bytes; fewer at the end of the document.
    fn read_at(&self, offset: u64, length: usize) -> PyResult<Call> {
        self.process.check()?;
        let (reader, peer) = (Arc::clone(&self.reader), self.peer.clone());
        let read = async move {
            let (mut reader, mut parts, mut got) = (reader.lock().await, Vec::new(), 0);
            while got < length {
                let part = reader.read_at(offset + got as u64, length - got).await.map_err(peerd::PeerError::from)?;
                if part.is_empty() {
                    break;
                }
                got += part.len();
                parts.push(part);
            }
            Ok((parts, got))
        };
        let work = async move {
            tokio::select! {
                biased;
                () = peer.stopped() => Err(Failure::closed("the peer that reads has stopped".to_owned())),
                read = read => read,
            }
        };
        Ok(Call::new(work, |py, (parts, got): (Vec<Bytes>, usize)| {
            let bytes = PyBytes::new_with(py, got, |mut room| {
                for part in &parts {
                    let (filled, rest) = room.split_at_mut(part.len());
                    filled.copy_from_slice(part);
                    room = rest;
                }
                Ok(())
            })?;
            Ok(bytes.into_any().unbind())
        }))
    }
}

impl Drop for NativeReader {
    fn drop(&mut self) {
        self.process.leak_elsewhere(&self.reader);
        self.process.leak_elsewhere(&self.peer);
    }
}
