//! Shows the progress of fetches on standard error: a bar, lines, or JSON.

mod lines;
mod overall;

pub(crate) use overall::{Overall, Window};

use crate::{args::ProgressMode, printer::Printer};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::time::{Duration, Instant};

/// How often the bar is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// How often there is a JSON object.
const JSON_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether the next object or line is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How often there is a line: rare enough for the log of a container.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// A fetch that takes no longer than this has no line.
const FIRST_LINE: Duration = Duration::from_secs(3);

/// The display of one or several fetches.
pub(crate) struct Display {
    form: Form,
    printer: Printer,
}

enum Form {
    None,
    /// All its lines are the message of one bar, which is made when there is something to draw.
    Bar(Option<ProgressBar>),
    /// `due`: when the next line comes. `lines`: how many there were.
    Plain {
        due: Instant,
        lines: u32,
        even_if_short: bool,
    },
    Json {
        due: Instant,
    },
}

impl Display {
    /// A display as the user wants it. `quiet`: nothing, unless the user asks for a form.
    pub(crate) fn new(mode: ProgressMode, quiet: bool, printer: Printer) -> Self {
        let now = Instant::now();
        let plain = |even_if_short| Form::Plain { due: now + FIRST_LINE, lines: 0, even_if_short };
        let form = match mode {
            ProgressMode::None => Form::None,
            ProgressMode::Auto if quiet => Form::None,
            ProgressMode::Auto | ProgressMode::Bar if printer.is_watched() => Form::Bar(None),
            // Errors are JSON on the same stream.
            ProgressMode::Auto if printer.is_json() => Form::None,
            ProgressMode::Auto => plain(false),
            ProgressMode::Bar | ProgressMode::Plain => plain(true),
            ProgressMode::Json => Form::Json { due: now },
        };
        Self { form, printer }
    }

    /// How often [`Self::update`] wants to be called.
    pub(crate) fn interval(&self) -> Duration {
        match self.form {
            Form::Bar(_) => DRAW_INTERVAL,
            Form::None | Form::Plain { .. } | Form::Json { .. } => LOOK_INTERVAL,
        }
    }

    /// Shows the present state, if it is time.
    pub(crate) fn update(&mut self, overall: &Overall) {
        let now = Instant::now();
        match &mut self.form {
            Form::None => {}
            Form::Bar(bar) => draw(bar, &lines::bar(overall, self.printer.error_columns())),
            Form::Plain { due, lines, .. } => {
                if now >= *due {
                    *due = (*due + LINE_INTERVAL).max(now);
                    *lines += 1;
                    self.printer.note(&lines::plain(overall));
                }
            }
            Form::Json { due } => {
                if now >= *due {
                    *due = (*due + JSON_INTERVAL).max(now);
                    self.printer.note(&lines::json(overall).to_string());
                }
            }
        }
    }

    /// Prints something while the bar is out of the way.
    pub(crate) fn above<T>(&self, print: impl FnOnce(Printer) -> T) -> T {
        match &self.form {
            Form::Bar(Some(bar)) => bar.suspend(|| print(self.printer)),
            _ => print(self.printer),
        }
    }

    /// The documents are here. What follows is shown in the same form.
    pub(crate) fn go_on(&mut self, overall: &Overall) {
        match &mut self.form {
            Form::None | Form::Json { .. } => {}
            Form::Bar(bar) => *bar = None,
            Form::Plain { due, lines, even_if_short } => {
                if *lines > 0 || *even_if_short {
                    self.printer.note(&lines::plain(overall));
                }
                *due = Instant::now() + LINE_INTERVAL;
            }
        }
    }

    /// Shows the last state: the bar goes, the lines end with one more.
    pub(crate) fn finish(&mut self, overall: &Overall) {
        match &mut self.form {
            Form::None => {}
            // Clears it when it is dropped.
            Form::Bar(bar) => *bar = None,
            Form::Plain { lines, even_if_short, .. } => {
                if *lines > 0 || *even_if_short {
                    self.printer.note(&lines::plain(overall));
                }
            }
            Form::Json { .. } => self.printer.note(&lines::json(overall).to_string()),
        }
        self.form = Form::None;
    }
}

fn draw(bar: &mut Option<ProgressBar>, lines: &[String]) {
    if lines.is_empty() {
        *bar = None;
        return;
    }
    let bar = bar.get_or_insert_with(|| {
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::no_length().with_style(style).with_finish(ProgressFinish::AndClear)
    });
    bar.set_message(lines.join("\n"));
}
