//! Handlers: functions of a program that are called with each message of one kind, and may reply.
//!
//! Each handler has a task that reads the inbox at its own pace, like any other subscriber: a slow one delays no other, and messages that the
//! inbox drops before their turn are counted and logged. A handler gets one message at a time, in order of arrival.

use super::{
    batches::Batches,
    kind::MessageKind,
    queue::{Inbox, Message, Subscription},
    reply::Reply,
};
use p2pdi::log_limit::{Line, LogLimit};
use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime,
    time::{sleep, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic::Status;

/// How long a handler may take for one message; then the call is cancelled, and the next message handled. A guess: by then it hangs.
const HANDLING_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a handler may run on when the peer stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

type Handling = Pin<Box<dyn Future<Output = Reply> + Send>>;
type Handler = Arc<dyn Fn(Message) -> Handling + Send + Sync>;

/// The handlers of one peer. Cheap to clone.
#[derive(Clone)]
pub struct Handlers(Arc<Shared>);

struct Shared {
    inbox: Arc<Inbox>,
    handlers: Mutex<BTreeMap<MessageKind, Handler>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Messages that the inbox dropped before the turn of a handler.
    lost: AtomicU64,
    logs: Logs,
}

/// Lines that senders of messages can cause.
struct Logs {
    slow: LogLimit,
    panicked: LogLimit,
    hung: LogLimit,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.handlers().keys()).finish()
    }
}

impl Handlers {
    /// No handlers yet; those that are added read `inbox`.
    pub fn new(inbox: Arc<Inbox>) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        // Panics are bugs of the embedding program: some more lines, with their kinds.
        let logs = Logs { slow: LogLimit::new(1), panicked: LogLimit::new(10), hung: LogLimit::new(10) };
        Self(Arc::new(Shared { inbox, handlers: Mutex::default(), tasks, stop, lost: AtomicU64::new(0), logs }))
    }

    /// Messages, of any kind, that the inbox dropped before the turn of a handler, which was too slow for them.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Calls `handler` with each message of `kind` from now on; it replaces an earlier handler. Its task runs on `runtime`.
    ///
    /// # Errors
    /// When the inbox has as many subscriptions as it accepts.
    pub fn on<F, R>(
        &self,
        kind: MessageKind,
        handler: impl Fn(Message) -> F + Send + Sync + 'static,
        runtime: &runtime::Handle,
    ) -> Result<(), Status>
    where
        F: Future<Output = R> + Send + 'static,
        R: Into<Reply>,
    {
        let handler: Handler = Arc::new(move |message| {
            let handling = handler(message);
            Box::pin(async move { handling.await.into() })
        });
        let replaced = {
            let mut handlers = self.0.handlers();
            if self.0.stop.is_cancelled() {
                return Ok(());
            }
            if !handlers.contains_key(&kind) {
                let subscription = self.0.inbox.subscribe_handler(kind.clone())?;
                self.0.tasks.spawn_on(Arc::clone(&self.0).run(kind.clone(), subscription), runtime);
            }
            handlers.insert(kind, handler)
        };
        // Dropped without the lock: the handler may own a handle of this peer.
        drop(replaced);
        Ok(())
    }

    /// The messages of `kind` from now on, for a handler that takes them in batches.
    ///
    /// # Errors
    /// When the inbox has as many subscriptions as it accepts.
    pub fn batches(&self, kind: MessageKind) -> Result<Batches, Status> {
        Ok(Batches::new(self.0.inbox.subscribe_handler(kind)?, self.0.stop.clone()))
    }

    /// Removes all handlers; none gets another message.
    pub fn stop(&self) {
        let removed = {
            let mut handlers = self.0.handlers();
            self.0.stop.cancel();
            std::mem::take(&mut *handlers)
        };
        // Dropped without the lock: handlers may own a handle of this peer.
        drop(removed);
    }

    /// Waits until `stop`, then until the messages being handled are done or cancelled.
    pub async fn run(self, stop: CancellationToken) {
        stop.cancelled().await;
        self.stop();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Shared {
    fn handlers(&self) -> MutexGuard<'_, BTreeMap<MessageKind, Handler>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task of one handler.
    async fn run(self: Arc<Self>, kind: MessageKind, mut subscription: Subscription) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                next = subscription.next_to_handle() => next,
            };
            let Some((message, lost, sender)) = next else { return };
            self.lost.fetch_add(lost, Ordering::Relaxed);
            if lost > 0
                && let Some(Line { suppressed }) = self.logs.slow.line()
            {
                tracing::warn!(%kind, lost, suppressed, "a handler is too slow; the inbox dropped this many messages, of any kind, before its turn");
            }
            let Some(handler) = self.handlers().get(&kind).cloned() else { return };
            if let Some(reply) = self.handle(&kind, handler, message).await
                && let Some(sender) = sender
            {
                // The sender of the message may have stopped waiting.
                let _ = sender.send(reply);
            }
        }
    }

    async fn handle(&self, kind: &MessageKind, handler: Handler, message: Message) -> Option<Reply> {
        // In a separate task, so that a panic ends only this call.
        let mut handling = AbortOnDropHandle::new(tokio::spawn(async move { handler(message).await }));
        let late = async {
            self.stop.cancelled().await;
            sleep(FINISH_TIMEOUT).await;
        };
        let handled = tokio::select! {
            handled = timeout(HANDLING_TIMEOUT, &mut handling) => handled,
            () = late => {
                tracing::warn!(%kind, "a handler did not finish before the peer stopped");
                return None;
            }
        };
        match handled {
            Ok(Ok(reply)) => reply.check(kind),
            Ok(Err(error)) => {
                if let Some(Line { suppressed }) = self.logs.panicked.line() {
                    tracing::error!(%kind, %error, suppressed, "a handler panicked; it still gets the next message");
                }
                None
            }
            Err(_) => {
                if let Some(Line { suppressed }) = self.logs.hung.line() {
                    tracing::error!(%kind, suppressed, "a handler took longer than {HANDLING_TIMEOUT:?} for one message; the call was cancelled");
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{queue::DeliveryOutcome, whisper::BODY_MAX_BYTES},
        *,
    };
    use bytes::Bytes;
    use p2pdi::metrics::Metrics;
    use std::time::SystemTime;
    use tokio::{runtime::Handle, time::Instant};

    fn deliver(inbox: &Inbox, kind: &str, body: &'static str) -> DeliveryOutcome {
        let (kind, body) = (kind.parse().unwrap(), Bytes::from_static(body.as_bytes()));
        let message = Message { from: "a".into(), kind, body, received_at: SystemTime::now(), broadcast: false, hops: 0 };
        inbox.deliver(message, &[], None)
    }

    async fn reply(inbox: &Inbox, kind: &str, body: &'static str) -> Option<Reply> {
        match deliver(inbox, kind, body) {
            DeliveryOutcome::Handled(reply) => reply.await.ok(),
            _ => None,
        }
    }

    fn handlers() -> (Arc<Inbox>, Handlers) {
        let inbox = Arc::new(Inbox::new(&Metrics::default()));
        (Arc::clone(&inbox), Handlers::new(inbox))
    }

    #[tokio::test]
    async fn a_handler_that_panics_or_hangs_delays_no_other_and_gets_the_next_message() {
        tokio::time::pause();
        let (inbox, handlers) = handlers();
        let on = |kind: &str, handler: fn(Message) -> Handling| {
            handlers.on(kind.parse().unwrap(), handler, &Handle::current()).unwrap();
        };
        on("PANICS", |message| {
            assert_ne!(message.body, "bad", "the test makes it panic");
            Box::pin(async { Reply::new("FINE", "") })
        });
        on("HANGS", |message| {
            Box::pin(async move {
                if message.body == "bad" {
                    std::future::pending::<()>().await;
                }
                Reply::new("FINE", "")
            })
        });
        on("ECHO", |message| Box::pin(async { Reply::new("ECHO", message.body) }));
        let started = Instant::now();
        let DeliveryOutcome::Handled(hanging) = deliver(&inbox, "HANGS", "bad") else { panic!("no handler") };
        assert_eq!(reply(&inbox, "PANICS", "bad").await, None);
        assert_eq!(reply(&inbox, "PANICS", "good").await, Some(Reply::new("FINE", "")));
        assert_eq!(reply(&inbox, "ECHO", "x").await, Some(Reply::new("ECHO", "x")));
        assert!(started.elapsed() < HANDLING_TIMEOUT);
        assert!(hanging.await.is_err());
        assert_eq!(started.elapsed().as_secs(), HANDLING_TIMEOUT.as_secs());
        assert_eq!(reply(&inbox, "HANGS", "good").await, Some(Reply::new("FINE", "")));
    }

    #[tokio::test]
    async fn a_second_handler_replaces_the_first_and_stop_drops_it() {
        let (inbox, handlers) = handlers();
        let held = Arc::new(());
        for body in ["first", "second"] {
            let held = Arc::clone(&held);
            let handler = move |_| {
                let _held = Arc::clone(&held);
                async move { Some(Reply::new("SAID", body)) }
            };
            handlers.on("TEST".parse().unwrap(), handler, &Handle::current()).unwrap();
        }
        assert_eq!(reply(&inbox, "TEST", "").await.unwrap().body, "second");
        let (stop, running) = (CancellationToken::new(), handlers.clone());
        stop.cancel();
        running.run(stop).await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(matches!(deliver(&inbox, "TEST", ""), DeliveryOutcome::Unclaimed));
    }

    #[tokio::test]
    async fn messages_that_a_slow_handler_misses_are_dropped_and_their_senders_get_no_reply() {
        let (inbox, handlers) = handlers();
        let (go, gone) = tokio::sync::watch::channel(false);
        let slow = move |_| {
            let mut gone = gone.clone();
            async move { gone.wait_for(|go| *go).await.map(|_| Reply::new("DONE", "")).ok() }
        };
        handlers.on("SLOW".parse().unwrap(), slow, &Handle::current()).unwrap();
        let deliver = || match deliver(&inbox, "SLOW", "") {
            DeliveryOutcome::Handled(reply) => reply,
            _ => panic!("no handler"),
        };
        let first = deliver();
        // Wait until it is being handled: then the inbox cannot drop it any more.
        let is_handled = async {
            while Arc::strong_count(handlers.0.handlers().get(&"SLOW".parse().unwrap()).unwrap()) == 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), is_handled).await.expect("the first message is handled");
        let mut pending: std::collections::VecDeque<_> = (0..1_100).map(|_| deliver()).collect();
        assert_eq!(inbox.status().dropped, 101);
        go.send_replace(true);
        assert!(first.await.is_ok());
        assert!(handlers.lost() <= 100);
        for dropped in pending.drain(..100) {
            assert!(dropped.await.is_err());
        }
        for handled in pending {
            assert!(handled.await.is_ok());
        }
        assert_eq!(handlers.lost(), 100);
    }

    #[tokio::test]
    async fn a_handler_of_batches_gets_what_is_there_and_replies_to_each() {
        let (inbox, handlers) = handlers();
        let mut batches = handlers.batches("TEST".parse().unwrap()).unwrap();
        let mut replies = Vec::new();
        for body in ["a", "b", "c"] {
            let DeliveryOutcome::Handled(reply) = deliver(&inbox, "TEST", body) else { panic!("no handler") };
            replies.push(reply);
        }
        let (batch, lost) = batches.next(2).await.unwrap();
        assert_eq!((batch.len(), lost), (2, 0));
        for to_handle in batch {
            to_handle.reply.unwrap().send(Reply::new("ECHO", to_handle.message.body));
        }
        let (mut batch, _) = batches.next(2).await.unwrap();
        assert_eq!((batch.len(), &batch[0].message.body[..]), (1, &b"c"[..]));
        // Not valid: the sender gets none.
        batch.pop().unwrap().reply.unwrap().send(Reply::new("two words", ""));
        let mut got = Vec::new();
        for reply in replies {
            got.push(reply.await.ok().map(|reply| reply.body));
        }
        assert_eq!(got, [Some(Bytes::from("a")), Some(Bytes::from("b")), None]);
        for _ in 0..1_100 {
            deliver(&inbox, "TEST", "");
        }
        let (batch, lost) = batches.next(5_000).await.unwrap();
        assert_eq!((batch.len(), lost), (1_000, 100));
        handlers.stop();
        assert!(batches.next(1).await.is_none());
        drop(batches);
        assert!(matches!(deliver(&inbox, "TEST", ""), DeliveryOutcome::Unclaimed));
    }

    #[tokio::test]
    async fn an_invalid_reply_is_dropped() {
        let (inbox, handlers) = handlers();
        let long = |_| async { Reply::new("LONG", vec![0; BODY_MAX_BYTES + 1]) };
        handlers.on("LONG".parse().unwrap(), long, &Handle::current()).unwrap();
        handlers.on("NO-TOKEN".parse().unwrap(), |_| async { Reply::new("two words", "") }, &Handle::current()).unwrap();
        handlers.on("SILENT".parse().unwrap(), |_| async {}, &Handle::current()).unwrap();
        for kind in ["LONG", "NO-TOKEN", "SILENT"] {
            assert_eq!(reply(&inbox, kind, "").await, None, "{kind}");
        }
    }
}
