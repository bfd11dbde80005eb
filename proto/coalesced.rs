//! Small writes of a busy connection go out together.
//!
//! HTTP/2 writes as soon as one call has something to send. With many calls under way, each message of some bytes would be a system call, a
//! packet, a TLS record, and a wake-up of the reader: most of what a small call costs. Here a small write that soon follows another one is
//! kept, and goes out with those after it once the tasks that are ready now have run. That takes as long as they do, and tokio lets at most 61 of them
//! run before (its `event_interval`). A connection that is not busy writes at once.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::yield_now,
};

/// A write so soon after the one before is one of many: one call after the other over loopback takes longer.
const BUSY: Duration = Duration::from_micros(100);
/// Larger writes go out at once: they cost more to copy than they save. An HTTP/2 frame of the default size.
const SMALL_MAX_BYTES: usize = 16 * 1024;
/// Bytes kept at once: some hundred small messages.
const KEPT_MAX_BYTES: usize = 64 * 1024;

/// A connection that writes small pieces together when it is busy.
///
/// For HTTP/2 and HTTP/1 of hyper, which flush whenever their connection is polled: a flush leaves what is kept until the tasks have had
/// their turn, then wakes the caller, and the next flush writes it.
pub(crate) struct Coalesced<S> {
    stream: S,
    busy: Duration,
    written_at: Option<Instant>,
    kept: Vec<u8>,
    /// How many bytes of `kept` are written.
    written: usize,
    turn: Arc<Turn>,
}

impl<S: AsyncWrite + Unpin> Coalesced<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, busy: BUSY, written_at: None, kept: Vec::new(), written: 0, turn: Arc::default() }
    }

    /// Whether a write of so many bytes is kept.
    fn keeps(&self, bytes: usize) -> bool {
        let follows = || self.written_at.is_some_and(|at| at.elapsed() < self.busy);
        let fits = self.kept.len() + bytes <= KEPT_MAX_BYTES;
        bytes < SMALL_MAX_BYTES && fits && (!self.kept.is_empty() || follows())
    }

    fn keep(&mut self, parts: &[IoSlice<'_>], cx: &Context<'_>) {
        if self.kept.is_empty() {
            self.turn.begin(cx);
        }
        parts.iter().for_each(|part| self.kept.extend_from_slice(part));
    }

    /// Writes what is kept.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.kept.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.kept[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
            self.written_at = Some(Instant::now());
        }
        // A connection that is idle from now on keeps no memory.
        (self.kept, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let bytes = bufs.iter().map(|part| part.len()).sum();
        if this.keeps(bytes) {
            this.keep(bufs, cx);
            return Poll::Ready(Ok(bytes));
        }
        ready!(this.poll_kept(cx))?;
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
        this.written_at = Some(Instant::now());
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.kept.is_empty() {
            if !this.turn.is_over(cx) {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_kept(cx))?;
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_kept(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// The turn of the tasks that are ready now. A task that waits for its end may be woken before by others.
#[derive(Default)]
struct Turn {
    is_under_way: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Turn {
    /// Begins; the task of `cx` is woken at the end.
    fn begin(self: &Arc<Self>, cx: &Context<'_>) {
        self.wait(cx);
        // One that began before ends sooner.
        if self.is_under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        // The runtime wakes at the end of the turn whoever yields; outside of one, at once.
        let end = Waker::from(Arc::clone(self));
        let _pending = pin!(yield_now()).poll(&mut Context::from_waker(&end));
    }

    /// Whether it is over; otherwise the task of `cx` is woken when it is.
    fn is_over(&self, cx: &Context<'_>) -> bool {
        if self.is_under_way.load(Ordering::Acquire) {
            self.wait(cx);
        }
        !self.is_under_way.load(Ordering::Acquire)
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waiting = Some(cx.waker().clone()),
        }
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.is_under_way.store(false, Ordering::Release);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt as _;

    /// Remembers its writes, takes at most so many bytes at once, and none while it is full.
    #[derive(Default)]
    struct Recorder {
        writes: Vec<Vec<u8>>,
        most: Option<usize>,
        is_full: bool,
        is_shut_down: bool,
    }

    impl AsyncWrite for Recorder {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if self.is_full {
                return Poll::Pending;
            }
            let taken = buf.len().min(self.most.unwrap_or(usize::MAX));
            self.writes.push(buf[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_shut_down = true;
            Poll::Ready(Ok(()))
        }
    }

    /// Busy after its first write, however slow the machine is.
    fn busy(recorder: Recorder) -> Coalesced<Recorder> {
        Coalesced { busy: Duration::from_secs(600), ..Coalesced::new(recorder) }
    }

    /// What a connection of hyper does whenever it is polled.
    async fn send(stream: &mut Coalesced<Recorder>, bytes: &[u8]) {
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
    }

    fn written(stream: &Coalesced<Recorder>) -> Vec<u8> {
        stream.stream.writes.concat()
    }

    #[tokio::test]
    async fn small_writes_of_a_busy_connection_go_out_together_after_the_other_tasks() {
        let mut stream = busy(Recorder::default());
        for piece in [b"a", b"b", b"c", b"d"] {
            send(&mut stream, piece).await;
        }
        assert_eq!(stream.stream.writes, [b"a"], "the first one at once");
        let others = tokio::spawn(async {});
        yield_now().await;
        assert!(others.is_finished());
        stream.flush().await.unwrap();
        assert_eq!(stream.stream.writes, [b"a".to_vec(), b"bcd".to_vec()]);
        assert_eq!(stream.kept.capacity(), 0, "idle, it keeps no memory");
    }

    #[tokio::test]
    async fn who_flushed_is_woken_when_there_is_something_to_write() {
        let mut stream = busy(Recorder::default());
        send(&mut stream, b"a").await;
        stream.write_all(b"b").await.unwrap();
        let mut polls = 0;
        // As a connection's task: it flushes at each wake, and waits for something else.
        let connection = poll_fn(|cx| {
            polls += 1;
            assert!(Pin::new(&mut stream).poll_flush(cx).is_ready());
            if stream.kept.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::time::timeout(Duration::from_secs(60), connection).await.expect("it is woken");
        assert_eq!((polls, written(&stream).as_slice()), (2, &b"ab"[..]));
    }

    #[tokio::test]
    async fn a_connection_that_is_not_busy_writes_at_once() {
        let mut stream = Coalesced { busy: Duration::ZERO, ..Coalesced::new(Recorder::default()) };
        for piece in [b"a", b"b"] {
            send(&mut stream, piece).await;
        }
        assert_eq!(stream.stream.writes, [b"a", b"b"]);
    }

    #[tokio::test]
    async fn all_bytes_arrive_in_order_whatever_their_sizes() {
        let mut stream = busy(Recorder { most: Some(10_000), ..Recorder::default() });
        let sizes = [1, 100, SMALL_MAX_BYTES - 1, SMALL_MAX_BYTES, 5, KEPT_MAX_BYTES + 1, 3, 3];
        let mut expected = Vec::new();
        for (round, size) in sizes.iter().cycle().take(200).enumerate() {
            let piece = vec![u8::try_from(round % 251).unwrap(); *size];
            expected.extend_from_slice(&piece);
            send(&mut stream, &piece).await;
            assert!(stream.kept.len() <= KEPT_MAX_BYTES);
            if round % 7 == 0 {
                yield_now().await;
            }
        }
        stream.shutdown().await.unwrap();
        assert!(written(&stream) == expected && stream.stream.is_shut_down);
    }

    #[tokio::test]
    async fn a_socket_that_is_full_holds_up_the_writer_once_as_much_is_kept_as_may_be() {
        let mut stream = busy(Recorder::default());
        send(&mut stream, b"a").await;
        stream.stream.is_full = true;
        let mut kept = 0;
        while let Poll::Ready(taken) = poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_write(cx, &[b'b'; 1_000]))).await {
            kept += taken.unwrap();
            assert!(kept <= KEPT_MAX_BYTES);
        }
        yield_now().await;
        assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_flush(cx))).await.is_pending());
        stream.stream.is_full = false;
        stream.flush().await.unwrap();
        assert_eq!(written(&stream).len(), 1 + kept);
    }
}
