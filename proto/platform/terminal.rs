//! Settings of the terminal.

/// The settings of the terminal on standard input, as they were at one moment. [`TerminalMode::restore`] brings them back, such as after
/// a line editor that may still hold the terminal in raw mode.
#[derive(Debug, Clone)]
pub struct TerminalMode {
    #[cfg(unix)]
    settings: rustix::termios::Termios,
}

impl TerminalMode {
    /// The settings now. `None` where standard input is no terminal, or the system has no such settings.
    pub fn of_stdin() -> Option<Self> {
        #[cfg(unix)]
        return Some(Self { settings: rustix::termios::tcgetattr(std::io::stdin()).ok()? });
        #[cfg(not(unix))]
        None
    }

    /// Brings the settings back, once what was written before is shown. Does nothing where the terminal is gone.
    pub fn restore(&self) {
        #[cfg(unix)]
        let _gone = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Drain, &self.settings);
    }
}
