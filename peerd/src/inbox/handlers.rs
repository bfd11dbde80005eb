//! What a program does with messages of one kind as they come, and what it answers.
//!
//! Each handler has a task that reads the inbox at its own pace, like any other listener: a slow one holds nobody up, and what is pushed out
//! before its turn is counted and logged. A handler handles one message at a time, in the order they came.

use super::{
    kind::MessageKind,
    queue::{Inbox, Message, Subscription},
    reply::Reply,
};
use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// How long a handler may take for one message before it is given up and the next one has its turn. A guess: past it, it hangs.
const HANDLING_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a handler may go on when the peer stops.
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
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.handlers().keys()).finish()
    }
}

impl Handlers {
    /// None yet; those that come read `inbox`.
    pub fn new(inbox: Arc<Inbox>) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Self(Arc::new(Shared { inbox, handlers: Mutex::default(), tasks, stop }))
    }

    /// Calls `handler` with each message of `kind` from now on, in the place of an earlier handler. Its task runs on `runtime`.
    ///
    /// # Errors
    /// When as many listen to the inbox as may.
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
        // Without the lock: what it holds may be a handle of this peer.
        drop(replaced);
        Ok(())
    }

    /// No handler gets another message, and all are forgotten, with what they hold.
    pub fn stop(&self) {
        let forgotten = {
            let mut handlers = self.0.handlers();
            self.0.stop.cancel();
            std::mem::take(&mut *handlers)
        };
        // Without the lock: what they hold may be a handle of this peer.
        drop(forgotten);
    }

    /// Waits until `stop`, then until the messages under way are handled, or given up.
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

    /// One handler's task.
    async fn run(self: Arc<Self>, kind: MessageKind, mut subscription: Subscription) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                next = subscription.next_to_handle() => next,
            };
            let Some((message, lost, answer)) = next else { return };
            if lost > 0 {
                tracing::warn!(%kind, lost, "a handler is too slow; so many messages, of any kind, were pushed out of the inbox before its turn");
            }
            let Some(handler) = self.handlers().get(&kind).cloned() else { return };
            if let Some(reply) = self.handle(&kind, handler, message).await
                && let Some(answer) = answer
            {
                // Whoever sent it may have stopped waiting.
                let _ = answer.send(reply);
            }
        }
    }

    async fn handle(&self, kind: &MessageKind, handler: Handler, message: Message) -> Option<Reply> {
        // A task of its own, so that a panic ends that and no more.
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
            Ok(Err(panicked)) => {
                tracing::error!(%kind, error = %panicked, "a handler panicked; the next message is handled again");
                None
            }
            Err(_) => {
                tracing::error!(%kind, "a handler took longer than {HANDLING_TIMEOUT:?} for one message and was given up");
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
        inbox.deliver(message, &[])
    }

    async fn answer(inbox: &Inbox, kind: &str, body: &'static str) -> Option<Reply> {
        match deliver(inbox, kind, body) {
            DeliveryOutcome::Handled(answered) => answered.await.ok(),
            _ => None,
        }
    }

    fn handlers() -> (Arc<Inbox>, Handlers) {
        let inbox = Arc::new(Inbox::new(&Metrics::default()));
        (Arc::clone(&inbox), Handlers::new(inbox))
    }

    #[tokio::test]
    async fn a_handler_that_panics_or_hangs_harms_no_other_and_handles_on() {
        tokio::time::pause();
        let (inbox, handlers) = handlers();
        let on = |kind: &str, handler: fn(Message) -> Handling| {
            handlers.on(kind.parse().unwrap(), handler, &Handle::current()).unwrap();
        };
        on("PANICS", |message| {
            assert_ne!(message.body, "bad", "as it was told to");
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
        let begun = Instant::now();
        let DeliveryOutcome::Handled(hanging) = deliver(&inbox, "HANGS", "bad") else { panic!("nobody handles it") };
        assert_eq!(answer(&inbox, "PANICS", "bad").await, None);
        assert_eq!(answer(&inbox, "PANICS", "good").await, Some(Reply::new("FINE", "")));
        assert_eq!(answer(&inbox, "ECHO", "x").await, Some(Reply::new("ECHO", "x")));
        assert!(begun.elapsed() < HANDLING_TIMEOUT);
        assert!(hanging.await.is_err());
        assert_eq!(begun.elapsed().as_secs(), HANDLING_TIMEOUT.as_secs());
        assert_eq!(answer(&inbox, "HANGS", "good").await, Some(Reply::new("FINE", "")));
    }

    #[tokio::test]
    async fn a_second_handler_takes_the_place_of_the_first_and_stop_forgets_it() {
        let (inbox, handlers) = handlers();
        let held = Arc::new(());
        for word in ["first", "second"] {
            let held = Arc::clone(&held);
            let say = move |_| {
                let _held = Arc::clone(&held);
                async move { Some(Reply::new("SAID", word)) }
            };
            handlers.on("TEST".parse().unwrap(), say, &Handle::current()).unwrap();
        }
        assert_eq!(answer(&inbox, "TEST", "").await.unwrap().body, "second");
        let (stop, running) = (CancellationToken::new(), handlers.clone());
        stop.cancel();
        running.run(stop).await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(matches!(deliver(&inbox, "TEST", ""), DeliveryOutcome::Unclaimed));
    }

    #[tokio::test]
    async fn what_a_handler_is_too_slow_for_is_dropped_and_its_senders_are_told() {
        let (inbox, handlers) = handlers();
        let (go, gone) = tokio::sync::watch::channel(false);
        let slow = move |_| {
            let mut gone = gone.clone();
            async move { gone.wait_for(|go| *go).await.map(|_| Reply::new("DONE", "")).ok() }
        };
        handlers.on("SLOW".parse().unwrap(), slow, &Handle::current()).unwrap();
        let deliver = || match deliver(&inbox, "SLOW", "") {
            DeliveryOutcome::Handled(answered) => answered,
            _ => panic!("nobody handles it"),
        };
        let first = deliver();
        // Until it is being handled: then nothing can push it out any more.
        let is_handled = async {
            while Arc::strong_count(handlers.0.handlers().get(&"SLOW".parse().unwrap()).unwrap()) == 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), is_handled).await.expect("the first message is handled");
        let mut waiting: std::collections::VecDeque<_> = (0..1_100).map(|_| deliver()).collect();
        assert_eq!(inbox.status().dropped, 101);
        go.send_replace(true);
        assert!(first.await.is_ok());
        for pushed_out in waiting.drain(..100) {
            assert!(pushed_out.await.is_err());
        }
        for handled in waiting {
            assert!(handled.await.is_ok());
        }
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_sent_is_none() {
        let (inbox, handlers) = handlers();
        let long = |_| async { Reply::new("LONG", vec![0; BODY_MAX_BYTES + 1]) };
        handlers.on("LONG".parse().unwrap(), long, &Handle::current()).unwrap();
        handlers.on("NO-TOKEN".parse().unwrap(), |_| async { Reply::new("two words", "") }, &Handle::current()).unwrap();
        handlers.on("SILENT".parse().unwrap(), |_| async {}, &Handle::current()).unwrap();
        for kind in ["LONG", "NO-TOKEN", "SILENT"] {
            assert_eq!(answer(&inbox, kind, "").await, None, "{kind}");
        }
    }
}
