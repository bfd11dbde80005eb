//! The tasks that the state of the mesh starts. Each has a name, and reports through [`InputSink`], so that the state does not depend on
//! its driver.

use super::{
    input::Input,
    link::{LinkEvent, Reader},
};
use crate::overlay::Contact;
use std::{collections::HashMap, sync::Weak};
use tokio::{
    runtime::Handle,
    task::{Id, JoinError, JoinSet},
};

/// Takes what tasks report.
pub(super) trait InputSink: Send + Sync {
    /// Takes the result of a task.
    fn input(&self, input: Input);
    /// Takes what the reader of link `number` read, which leads to `from`. Returns whether it should read on.
    fn link_event(&self, number: u64, from: &Contact, event: LinkEvent) -> bool;
}

/// Starts tasks, and logs those that panic.
pub(super) struct Spawner {
    sink: Weak<dyn InputSink>,
    /// The peer's runtime: calls to the state may come from another one.
    runtime: Handle,
    /// Tasks that read links: waited for at the end.
    readers: JoinSet<()>,
    /// All other tasks: aborted at the end.
    background: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Spawner {
    /// Starts tasks in the current runtime, which report to `sink`.
    pub(super) fn new(sink: Weak<dyn InputSink>) -> Self {
        let runtime = Handle::current();
        Self { sink, runtime, readers: JoinSet::new(), background: JoinSet::new(), names: HashMap::new() }
    }

    /// Runs `task` and reports its result.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = Input> + Send + 'static) {
        let sink = Weak::clone(&self.sink);
        let reporting = async move {
            let input = task.await;
            if let Some(sink) = sink.upgrade() {
                sink.input(input);
            }
        };
        let id = self.background.spawn_on(reporting, &self.runtime).id();
        self.names.insert(id, name);
    }

    /// Reads link `number`, which leads to `from`, until it ends.
    pub(super) fn read(&mut self, number: u64, from: Contact, reader: Reader) {
        let sink = Weak::clone(&self.sink);
        let report = move |event| sink.upgrade().is_some_and(|sink| sink.link_event(number, &from, event));
        let id = self.readers.spawn_on(reader.run(report), &self.runtime).id();
        self.names.insert(id, "link reader");
    }

    /// Forgets tasks that ended, and logs those that panicked.
    pub(super) fn reap(&mut self) {
        while let Some(ended) = self.readers.try_join_next_with_id().or_else(|| self.background.try_join_next_with_id()) {
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
            let name = self.names.remove(&id).unwrap_or("unnamed");
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(task = name, %error, "a task of the mesh panicked");
            }
        }
    }

    /// Whether a task of this name runs.
    pub(super) fn is_running(&self, name: &str) -> bool {
        self.names.values().any(|running| *running == name)
    }

    /// Aborts all tasks but the readers, and returns those.
    pub(super) fn end(&mut self) -> JoinSet<()> {
        self.background.abort_all();
        self.names.clear();
        std::mem::take(&mut self.readers)
    }
}
