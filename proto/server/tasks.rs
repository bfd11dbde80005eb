//! The long-lived tasks of a server: each has a name, and one that ends early ends the server.

use std::{any::Any, collections::HashMap, future::Future, pin::pin};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// A long-lived task ended while the server still needed it, or panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the task \"{name}\" {}", .panic.as_ref().map_or_else(|| "ended by itself".to_owned(), |message| format!("panicked: {message}")))]
pub struct TaskEnded {
    /// The name it was spawned with.
    pub name: &'static str,
    /// The message of its panic; `None` when it returned.
    pub panic: Option<String>,
}

/// Tasks that run beside a server until its stop token is cancelled.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use p2pdi::server::Tasks;
/// let mut tasks = Tasks::new(&tokio_util::sync::CancellationToken::new());
/// tasks.spawn("expiry", async { panic!("no clock") });
/// let stop = tasks.stop();
/// let ended = tasks.run(stop.cancelled()).await.unwrap_err();
/// assert_eq!(ended.to_string(), "the task \"expiry\" panicked: no clock");
/// # }
/// ```
#[derive(Debug)]
pub struct Tasks {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks yet. Their stop token is a child of `stop`.
    pub fn new(stop: &CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), stop: stop.child_token() }
    }

    /// The token that tells tasks and server to stop. Cancelled with the parent, when a task ends early, and when the server ends.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task. It must end when [`Tasks::stop`] is cancelled, or when the server has ended, and not before.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Runs `server` to its end, then waits for the tasks. When a task returns before the stop or panics, everything is stopped and
    /// that task is the error. Dropping the future aborts the tasks.
    ///
    /// # Errors
    /// The first task that panicked; without one, the first that returned early. Others return because of a panic: what they waited for is
    /// gone.
    pub async fn run<T>(mut self, server: impl Future<Output = T>) -> Result<T, TaskEnded> {
        let mut server = pin!(server);
        let mut first = None;
        let output = loop {
            tokio::select! {
                output = &mut server => break output,
                Some(joined) = self.tasks.join_next_with_id() => self.note(joined, &mut first),
            }
        };
        self.stop.cancel();
        while let Some(joined) = self.tasks.join_next_with_id().await {
            self.note(joined, &mut first);
        }
        first.map_or(Ok(output), Err)
    }

    /// Keeps the first early end, a panic before a return, and stops everything because of it.
    fn note(&mut self, joined: Result<(Id, ()), JoinError>, first: &mut Option<TaskEnded>) {
        let (id, panic) = match joined {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(message(error))),
        };
        let name = self.names.remove(&id).unwrap_or("unnamed");
        if panic.is_none() && self.stop.is_cancelled() {
            return;
        }
        let ended = TaskEnded { name, panic };
        tracing::error!(error = %ended, "stopping, because a task that must run has ended");
        self.stop.cancel();
        if ended.panic.is_some() && first.as_ref().is_some_and(|first| first.panic.is_none()) {
            *first = Some(ended);
        } else {
            first.get_or_insert(ended);
        }
    }
}

/// The message of a panic.
fn message(error: JoinError) -> String {
    let payload: Box<dyn Any + Send> = match error.try_into_panic() {
        Ok(payload) => payload,
        Err(cancelled) => return cancelled.to_string(),
    };
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    /// Longest wait for what happens at once.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn run(tasks: Tasks) -> Result<(), TaskEnded> {
        let stop = tasks.stop();
        timeout(PATIENCE, tasks.run(async move { stop.cancelled().await })).await.expect("it ends")
    }

    #[tokio::test]
    async fn a_task_that_returns_early_ends_the_server_with_its_name() {
        let mut tasks = Tasks::new(&CancellationToken::new());
        let stop = tasks.stop();
        tasks.spawn("stays", async move { stop.cancelled().await });
        tasks.spawn("leaves", async {});
        let ended = run(tasks).await.unwrap_err();
        assert_eq!(ended, TaskEnded { name: "leaves", panic: None });
        assert_eq!(ended.to_string(), "the task \"leaves\" ended by itself");
    }

    #[tokio::test]
    async fn a_panic_is_reported_with_its_message_even_after_the_stop() {
        let parent = CancellationToken::new();
        let mut tasks = Tasks::new(&parent);
        let stop = tasks.stop();
        tasks.spawn("fails", async move {
            stop.cancelled().await;
            panic!("at {}", "the end");
        });
        parent.cancel();
        assert_eq!(run(tasks).await, Err(TaskEnded { name: "fails", panic: Some("at the end".into()) }));
    }

    #[tokio::test]
    async fn a_panic_is_reported_rather_than_a_task_that_returned_because_of_it() {
        let mut tasks = Tasks::new(&CancellationToken::new());
        let stop = tasks.stop();
        tasks.spawn("reads", async {});
        // Its panic is seen after the other task's return.
        tasks.spawn("writes", async move {
            stop.cancelled().await;
            panic!("no disk");
        });
        assert_eq!(run(tasks).await, Err(TaskEnded { name: "writes", panic: Some("no disk".into()) }));
    }

    #[tokio::test]
    async fn tasks_that_end_after_the_stop_are_no_error_and_are_waited_for() {
        let parent = CancellationToken::new();
        let mut tasks = Tasks::new(&parent);
        let stop = tasks.stop();
        let (done, finished) = tokio::sync::oneshot::channel();
        tasks.spawn("finishes", async move {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            let _waited_for = done.send(());
        });
        parent.cancel();
        assert_eq!(run(tasks).await, Ok(()));
        finished.await.expect("the task ran to its end");
    }

    #[tokio::test]
    async fn a_server_that_ends_by_itself_stops_the_tasks_and_not_the_parent() {
        let parent = CancellationToken::new();
        let mut tasks = Tasks::new(&parent);
        let stop = tasks.stop();
        tasks.spawn("waits", async move { stop.cancelled().await });
        assert_eq!(timeout(PATIENCE, tasks.run(async { 7 })).await.expect("it ends"), Ok(7));
        assert!(!parent.is_cancelled());
    }
}
