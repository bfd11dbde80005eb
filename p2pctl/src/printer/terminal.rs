//! The screen of a chat: received lines appear above the line being typed; without a terminal, lines are printed in order.

use super::{Printer, printable};
use anstyle::{Ansi256Color, Color, Style};
use p2pdi::{field::Quoted, name::PeerName, platform::TerminalMode};
use peerd::mesh::BROADCAST_MAX_BYTES;
use rustyline::{
    ColorMode, Config, Context, Editor, ExternalPrinter as _, Helper, completion, error::ReadlineError, history::FileHistory,
};
use std::{
    collections::BTreeSet,
    env,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};
use tokio::sync::mpsc;

/// Lines kept from earlier chats.
const HISTORY_MAX: usize = 1_000;
/// Longest line accepted, in bytes: it is sent as one broadcast.
const LINE_MAX_BYTES: usize = BROADCAST_MAX_BYTES;
/// Characters shown of one message: a few screens.
const SHOWN_MAX_CHARS: usize = 4_000;
/// Lines waiting to be shown; past it, messages wait in the subscription.
const SHOWN_MAX: usize = 64;
/// Names kept for completion. A guess.
const NAMES_MAX: usize = 1_000;
/// Colours of names, from the 256-colour palette: distinguishable, and readable on black and on white.
const COLOURS: [u8; 12] = [29, 31, 33, 37, 61, 64, 125, 127, 130, 136, 160, 166];
/// Commands that Tab completes at the start of a line.
const COMMANDS: [&str; 3] = ["/help", "/peers", "/quit"];

/// One read from the user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Line(String),
    /// A line longer than this many bytes.
    TooLong(usize),
    /// Ctrl-C, Ctrl-D, or the end of the input.
    End,
}

/// The user's input, line by line.
pub(crate) struct Lines(mpsc::Receiver<Typed>);

impl Lines {
    pub(crate) async fn next(&mut self) -> Typed {
        self.0.recv().await.unwrap_or(Typed::End)
    }
}

/// Output of a chat.
pub(crate) enum Screen {
    /// Messages on standard output, notes on standard error.
    Plain(Printer),
    Terminal(Terminal),
}

/// A terminal with a line editor.
pub(crate) struct Terminal {
    shown: mpsc::Sender<String>,
    names: Names,
    coloured: bool,
    /// Terminal settings to restore at the end.
    before: Option<TerminalMode>,
}

impl Screen {
    /// Opens the terminal, or plain output where there is none. No line is read after one for which `ends` is true.
    pub(crate) fn open(
        printer: Printer,
        me: &str,
        history: Option<PathBuf>,
        ends: impl Fn(&str) -> bool + Send + 'static,
    ) -> (Self, Lines) {
        // Capacity 1: input typed ahead waits in the terminal or the pipe.
        let (typed, lines) = mpsc::channel(1);
        if !printer.is_json()
            && io::stdin().is_terminal()
            && io::stdout().is_terminal()
            && let Some(terminal) = Terminal::open(me, history, ends, typed.clone())
        {
            return (Self::Terminal(terminal), Lines(lines));
        }
        thread::spawn(move || read_plain(&mut io::stdin().lock(), &typed));
        (Self::Plain(printer), Lines(lines))
    }

    /// Shows a message, to all or to this peer alone.
    pub(crate) async fn said(&self, from: &str, to_all: bool, text: &str) -> io::Result<()> {
        let mut shown: String = text.chars().take(SHOWN_MAX_CHARS).map(|c| if c == '\n' { ' ' } else { c }).collect();
        if text.chars().nth(SHOWN_MAX_CHARS).is_some() {
            shown += &format!("… ({} bytes in all)", text.len());
        }
        // A sender that is not a valid name is quoted: it could imitate other output.
        let name = match from {
            "" => "somebody".to_owned(),
            from if from.parse::<PeerName>().is_ok() => from.to_owned(),
            from => Quoted(from).to_string(),
        };
        let to = if to_all { "" } else { " (to you)" };
        match self {
            Self::Plain(printer) => printer.text(&format!("{name}{to}: {shown}")),
            Self::Terminal(terminal) => {
                let name = paint(name_style(&name), &printable(&name), terminal.coloured);
                let to = paint(Style::new().bold(), to, terminal.coloured);
                terminal.show(format!("{name}{to}: {}", printable(&shown))).await;
                Ok(())
            }
        }
    }

    /// Shows a note of the chat itself.
    pub(crate) async fn note(&self, text: &str) {
        match self {
            Self::Plain(printer) => printer.note(text),
            Self::Terminal(terminal) => {
                let lines: Vec<_> = printable(text)
                    .lines()
                    .map(|line| paint(Style::new().dimmed(), &format!("-- {line}"), terminal.coloured))
                    .collect();
                terminal.show(lines.join("\n")).await;
            }
        }
    }

    /// Adds a name for completion.
    pub(crate) fn meet(&self, name: &str) {
        if let (Self::Terminal(terminal), Ok(name)) = (self, name.parse::<PeerName>()) {
            let mut names = terminal.names.lock();
            if names.len() < NAMES_MAX {
                names.insert(name.to_string());
            }
        }
    }
}

impl Terminal {
    fn open(
        me: &str,
        history: Option<PathBuf>,
        ends: impl Fn(&str) -> bool + Send + 'static,
        typed: mpsc::Sender<Typed>,
    ) -> Option<Self> {
        let coloured = env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let config = Config::builder().color_mode(if coloured { ColorMode::Enabled } else { ColorMode::Disabled });
        let config = config.max_history_size(HISTORY_MAX).ok()?.history_ignore_dups(true).ok()?.build();
        let mut editor: Editor<Names, FileHistory> = Editor::with_config(config).ok()?;
        // Fails where the terminal does not support it (TERM=dumb).
        let mut above = editor.create_external_printer().ok()?;
        let names = Names::default();
        editor.set_helper(Some(names.clone()));
        let before = TerminalMode::of_stdin();
        let prompt = format!("{me}> ");
        let prompt = (prompt.clone(), paint(name_style(me), &prompt, coloured));
        thread::spawn(move || edit(editor, &prompt, history.as_deref(), &ends, &typed));
        let (shown, mut lines) = mpsc::channel::<String>(SHOWN_MAX);
        // A separate thread: printing blocks while the editor redraws.
        thread::spawn(move || {
            while let Some(line) = lines.blocking_recv() {
                if above.print(line + "\n").is_err() {
                    break;
                }
            }
        });
        Some(Self { shown, names, coloured, before })
    }

    async fn show(&self, line: String) {
        // Fails only when the terminal is closed, which ends the chat.
        let _ = self.shown.send(line).await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The editor may still hold the terminal in raw mode.
        if let Some(before) = &self.before {
            before.restore();
        }
    }
}

/// Reads lines with the line editor.
fn edit(
    mut editor: Editor<Names, FileHistory>,
    prompt: &(String, String),
    history: Option<&std::path::Path>,
    ends: &dyn Fn(&str) -> bool,
    typed: &mpsc::Sender<Typed>,
) {
    if let Some(path) = history
        && let Err(error) = editor.load_history(path)
    {
        tracing::debug!(%error, path = %path.display(), "no history of earlier chats");
    }
    loop {
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            Err(ReadlineError::Signal(_)) => continue,
            // Ctrl-C, Ctrl-D, or the terminal was closed.
            Err(_) => return drop(typed.blocking_send(Typed::End)),
        };
        if editor.add_history_entry(&line).is_ok_and(|added| added)
            && let Some(path) = history
            // After each line: the chat may be killed.
            && let Err(error) = editor.append_history(path)
        {
            tracing::debug!(%error, path = %path.display(), "the history is not kept");
        }
        let last = ends(&line);
        let line = if line.len() > LINE_MAX_BYTES { Typed::TooLong(LINE_MAX_BYTES) } else { Typed::Line(line) };
        if typed.blocking_send(line).is_err() || last {
            return;
        }
    }
}

/// Reads lines from a pipe or a file.
fn read_plain(input: &mut impl io::BufRead, typed: &mpsc::Sender<Typed>) {
    loop {
        let mut line = Vec::new();
        let most = u64::try_from(LINE_MAX_BYTES).unwrap_or(u64::MAX) + 1;
        let read = input.by_ref().take(most).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) | Err(_) => return drop(typed.blocking_send(Typed::End)),
            Ok(_) if line.len() > LINE_MAX_BYTES && line.last() != Some(&b'\n') => {
                if input.skip_until(b'\n').is_err() {
                    return drop(typed.blocking_send(Typed::End));
                }
                Typed::TooLong(LINE_MAX_BYTES)
            }
            Ok(_) => Typed::Line(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()),
        };
        if typed.blocking_send(line).is_err() {
            return;
        }
    }
}

/// The colour of a name: the same on every machine, whatever the case.
fn name_style(name: &str) -> Style {
    // FNV-1a, 32 bits: short, and the same on every machine.
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193));
    let colour = COLOURS[hash as usize % COLOURS.len()];
    Style::new().fg_color(Some(Color::Ansi256(Ansi256Color(colour)))).bold()
}

fn paint(style: Style, text: &str, coloured: bool) -> String {
    if coloured { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Completes names after `@`, and commands.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completions of the start of a line.
    fn candidates(&self, begun: &str) -> Vec<String> {
        let fits = |whole: &str| whole.get(..begun.len()).is_some_and(|start| start.eq_ignore_ascii_case(begun));
        let names = self.lock().iter().map(|name| format!("@{name} ")).filter(|whole| fits(whole)).collect::<Vec<_>>();
        let commands = COMMANDS.iter().map(|command| (*command).to_owned()).filter(|whole| fits(whole));
        if begun.is_empty() { Vec::new() } else { names.into_iter().chain(commands).collect() }
    }
}

impl completion::Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok((0, line.get(..pos).map(|begun| self.candidates(begun)).unwrap_or_default()))
    }
}

impl rustyline::hint::Hinter for Names {
    type Hint = String;
}

impl rustyline::highlight::Highlighter for Names {}

impl rustyline::validate::Validator for Names {}

impl Helper for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_colour_and_others_have_others() {
        assert_eq!(name_style("Alice"), name_style("alice"));
        let colours: BTreeSet<_> = (0..100).map(|n| name_style(&format!("peer-{n}")).to_string()).collect();
        assert_eq!(colours.len(), COLOURS.len());
        assert_eq!(paint(name_style("a"), "a", false), "a");
    }

    #[test]
    fn names_and_commands_are_completed() {
        let names = Names::default();
        names.lock().extend(["Bob".to_owned(), "bobby".to_owned()]);
        assert_eq!(names.candidates("@b"), ["@Bob ", "@bobby "]);
        assert_eq!(names.candidates("/p"), ["/peers"]);
        for begun in ["", "b", "@x", "@é"] {
            assert!(names.candidates(begun).is_empty());
        }
    }

    #[test]
    fn a_line_without_end_is_skipped_whole() {
        let (typed, mut lines) = mpsc::channel(8);
        let text = format!("one\r\n{}\ntwo\n{}\nlast", "x".repeat(LINE_MAX_BYTES + 1), "y".repeat(LINE_MAX_BYTES));
        read_plain(&mut text.as_bytes(), &typed);
        let line = |text: &str| Typed::Line(text.to_owned());
        let expected = [
            line("one"),
            Typed::TooLong(LINE_MAX_BYTES),
            line("two"),
            line(&"y".repeat(LINE_MAX_BYTES)),
            line("last"),
            Typed::End,
        ];
        for expected in expected {
            assert_eq!(lines.try_recv().unwrap(), expected);
        }
    }
}
