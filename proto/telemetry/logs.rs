//! Logs on standard error: their form, their filter, and a writer that never waits.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write, stderr},
    mem::ManuallyDrop,
    panic,
    str::FromStr,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};
use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::writer::{BoxMakeWriter, MakeWriter as _},
    registry::LookupSpan,
    reload,
};

/// Most lines that wait to be written; further ones are dropped and counted. A line has about 200 bytes, so they hold 2 MiB, a tenth of
/// what an idle server may use, and a reader may pause for a second at 8,000 lines per second.
const QUEUED_LINES_MAX: usize = 8_192;
/// How long the main thread waits, after a panic of its own, for its last words to be written.
const PANIC_FLUSH_TIMEOUT: Duration = Duration::from_millis(200);
/// Most edits (insertion, deletion, replacement, swap of neighbours) between a word and the level it is taken for: one slip of the hand
/// or two.
const TYPING_EDITS_MAX: usize = 2;
/// The levels that a filter names.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// The text names no form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log format is text or json")]
pub struct UnknownLogFormat;

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, UnknownLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownLogFormat),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Reads a filter such as `info,p2pdi=debug`. A word alone that is nearly a level is taken for a mistyped one: as a filter it would be
/// the name of a module, and show nothing.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_filter(text: &str) -> Result<EnvFilter, String> {
    for word in text.split(',').map(str::trim) {
        let lower = word.to_ascii_lowercase();
        let is_level = LEVELS.contains(&lower.as_str());
        let near = LEVELS.iter().find(|level| strsim::osa_distance(level, &lower) <= TYPING_EDITS_MAX);
        if let Some(level) = near
            && !is_level
            && word.len() > 1
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return Err(format!("{word} is no level; did you mean {level}? (For a module of that name, write {word}=trace.)"));
        }
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}

/// The layer that writes lines that `filter` lets through to `writer`.
pub(super) fn layer<S>(
    format: LogFormat,
    filter: reload::Layer<EnvFilter, S>,
    writer: BoxMakeWriter,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().with_filter(filter).boxed(),
    }
}

/// A thread that writes lines to standard error, and the bounded queue before it. Whoever logs never waits: when standard error is not
/// read, lines are dropped, counted, and reported once it is read again.
pub(super) struct LogQueue {
    queue: NonBlocking,
    flushed: Arc<Mutex<Option<mpsc::Sender<()>>>>,
    // Its drop waits for a stuck writer, and prints to standard output then.
    _guard: ManuallyDrop<WorkerGuard>,
}

impl LogQueue {
    pub(super) fn start() -> Self {
        let (counter, flushed) = (Arc::new(OnceLock::new()), Arc::default());
        let writer = QueueWriter { output: stderr(), counter: Arc::clone(&counter), reported: 0, flushed: Arc::clone(&flushed) };
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUED_LINES_MAX).thread_name("log writer");
        let (queue, guard) = builder.finish(writer);
        let _first = counter.set(queue.error_counter());
        Self { queue, flushed, _guard: ManuallyDrop::new(guard) }
    }

    pub(super) fn writer(&self) -> BoxMakeWriter {
        BoxMakeWriter::new(self.queue.clone())
    }

    /// Waits until the lines logged so far are written, at most for `limit`. Blocks the thread.
    pub(super) fn flush(&self, limit: Duration) {
        let (sender, flushed) = mpsc::channel();
        *self.flushed.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        // A line of no bytes wakes the thread, if it sleeps. If the queue is full, the thread does not sleep.
        let _written = self.queue.make_writer().write(&[]);
        let _in_time = flushed.recv_timeout(limit);
    }

    /// Makes a panic a line of the log: the standard hook writes to standard error itself, and would wait for its reader.
    pub(super) fn log_panics(self: &Arc<Self>) {
        let (standard, logs) = (panic::take_hook(), Arc::clone(self));
        panic::set_hook(Box::new(move |panic| {
            if !tracing::enabled!(target: "panic", Level::ERROR) {
                return standard(panic);
            }
            let thread = thread::current();
            let name = thread.name().unwrap_or("unnamed");
            tracing::error!(target: "panic", "the thread {name} {}", panic.to_string().replace('\n', " "));
            // Its end is the end of the process.
            if name == "main" {
                logs.flush(PANIC_FLUSH_TIMEOUT);
            }
        }));
    }
}

/// What the thread of a [`LogQueue`] writes to.
struct QueueWriter<W> {
    output: W,
    counter: Arc<OnceLock<ErrorCounter>>,
    /// Dropped lines that the log has named already.
    reported: usize,
    flushed: Arc<Mutex<Option<mpsc::Sender<()>>>>,
}

impl<W: Write> Write for QueueWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Where it cannot be written, as on a full disk, nobody can be told.
        let _written = self.output.write_all(line);
        Ok(line.len())
    }

    /// Called whenever no line waits any more.
    fn flush(&mut self) -> io::Result<()> {
        let _written = self.output.flush();
        let dropped = self.counter.get().map_or(0, ErrorCounter::dropped_lines);
        if dropped > self.reported && tracing::enabled!(Level::WARN) {
            // This line goes through the queue, too, and has the form of all others. Once it is written, this is called again.
            tracing::warn!(
                dropped = dropped - self.reported,
                "log lines were dropped, because standard error was not read in time"
            );
            self.reported = dropped;
        } else if let Some(waiting) = self.flushed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _waits_no_more = waiting.send(());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_nearly_a_level_is_refused_with_the_level() {
        for (filter, level) in
            [("infoo", "info"), ("ifno", "info"), ("peerd=debug,wran", "warn"), ("Tracee", "trace"), ("dbug", "debug")]
        {
            let error = read_filter(filter).unwrap_err();
            assert!(error.contains(&format!("did you mean {level}?")), "{filter}: {error}");
        }
        for filter in ["info", "INFO", "off", "3", "peerd", "p2pdi", "h2", "hyper", "infoo=trace", "info,registry=debug", ""] {
            assert!(read_filter(filter).is_ok(), "{filter}");
        }
        assert!(read_filter("peerd=infoo").is_err());
    }
}
