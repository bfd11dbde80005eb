//! What a server's program itself says on standard output and standard error, which may be closed, full, or not read.

#[cfg(feature = "configuration")]
use crate::configuration::ConfigurationError;
use std::{
    fmt::Display,
    io::{self, Write, stderr, stdout},
    net::SocketAddr,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long a line may take to be written. A pipe that somebody reads takes it at once.
const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

/// Prints the address that the server accepts connections on, as `listening on HOST:PORT`. A standard output that takes nothing is a
/// warning: the server serves all the same.
pub fn announce(address: SocketAddr) {
    if let Err(error) = write(stdout(), format!("listening on {address}\n")) {
        tracing::warn!(%error, %address, "cannot write the line \"listening on\" to standard output");
    }
}

/// Says on standard error why the program ends, and what to do about it.
pub fn report_failure(error: impl Display, hint: Option<&str>) {
    let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    // A failed write cannot be reported.
    let _ = write(stderr(), format!("error: {error}\n{hint}"));
}

/// Prints a result, such as the effective configuration. Returns the exit code of the program.
pub fn print(text: String) -> ExitCode {
    match write(stdout(), text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report_failure(format!("cannot write to standard output: {error}"), None);
            ExitCode::FAILURE
        }
    }
}

/// Says why the configuration cannot be used, or prints the help or the version. Returns the exit code of the program.
#[cfg(feature = "configuration")]
pub fn report_usage(error: &ConfigurationError) -> ExitCode {
    /// Exit code of wrong usage, as clap has it.
    const USAGE: u8 = 2;
    if let ConfigurationError::Usage(error) = error {
        // A failed write cannot be reported.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
    }
    report_failure(error, error.hint());
    ExitCode::from(USAGE)
}

/// Writes on a thread of its own, which the process leaves behind when nobody reads.
fn write(mut output: impl Write + Send + 'static, text: String) -> io::Result<()> {
    let (sender, done) = mpsc::channel();
    thread::Builder::new().name("console".to_owned()).spawn(move || {
        let _in_time = sender.send(output.write_all(text.as_bytes()).and_then(|()| output.flush()));
    })?;
    done.recv_timeout(WRITE_TIMEOUT).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
