//! The file: its keys and values, checked against the flags of the program.

use super::{
    check::check,
    error::{ConfigurationError, Problem},
    keys::{self, Takes, VERB},
    origins::{Setting, Settings},
};
use clap::{Arg, Command};
use std::{fs, io, ops::Range, path::Path};
use toml_edit::{Document, Item, TableLike, Value};

/// Largest file, in bytes: thousands of lines fit, and what is not a configuration is not read for long.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Reads the file, checked against the flags of `command`.
///
/// # Errors
/// When it cannot be read, or says what cannot be; then all that is wrong with it.
pub(super) fn read(path: &Path, command: &Command) -> Result<Settings, ConfigurationError> {
    let unreadable = |source| ConfigurationError::Unreadable { path: path.to_owned(), source };
    let too_long = || io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB, which is no configuration");
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_MAX_BYTES {
        return Err(unreadable(too_long()));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    parse(&path.display().to_string(), &text, command)
        .map_err(|problems| ConfigurationError::Wrong { path: path.to_owned(), problems })
}

/// The settings of a file, or all that is wrong with it. `file` is its name in their origins.
fn parse(file: &str, text: &str, command: &Command) -> Result<Settings, Vec<Problem>> {
    let mut reading = Reading { file, text, settings: Settings::new(), problems: Vec::new() };
    match Document::parse(text) {
        Ok(document) => reading.entries(document.as_table(), command, &[]),
        Err(error) => reading.problem(error.span(), error.message().trim_end().replace('\n', ", ")),
    }
    if reading.problems.is_empty() { Ok(reading.settings) } else { Err(reading.problems) }
}

struct Reading<'a> {
    file: &'a str,
    text: &'a str,
    settings: Settings,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    /// The flags of `command`, to which `verbs` lead, and the tables of its verbs.
    fn entries(&mut self, table: &dyn TableLike, command: &Command, verbs: &[String]) {
        for (key, item) in table.iter() {
            let at = table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
            if let Some(arg) = keys::flag(command, key) {
                match values(arg, item) {
                    Ok(values) => self.setting(at, key, arg, verbs, values),
                    Err(problem) => self.problem(item.span().or(at), format!("{key}: {problem}")),
                }
            } else if verbs.is_empty() && key == VERB && command.has_subcommands() {
                self.verbs(at, item, command, verbs);
            } else if let (false, Some(verb), Some(table)) =
                (verbs.is_empty(), command.find_subcommand(key), item.as_table_like())
            {
                self.entries(table, verb, &with(verbs, verb));
            } else {
                let known = keys::flags(command).map(|(key, _)| key);
                let text = format!("unknown key `{key}`{}", keys::did_you_mean(key, known));
                self.problem(at, text);
            }
        }
    }

    /// `[verb.NAME]`.
    fn verbs(&mut self, at: Option<Range<usize>>, item: &Item, command: &Command, verbs: &[String]) {
        let Some(table) = item.as_table_like() else {
            return self.problem(at, format!("{VERB}: expected a table for each verb, such as [verb.NAME]"));
        };
        for (name, item) in table.iter() {
            let at = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
            let Some(verb) = command.find_subcommand(name) else {
                let known = command.get_subcommands().map(Command::get_name);
                self.problem(at, format!("unknown verb `{name}`{}", keys::did_you_mean(name, known)));
                continue;
            };
            match item.as_table_like() {
                Some(table) => self.entries(table, verb, &with(verbs, verb)),
                None => self.problem(at, format!("{VERB}.{name}: expected a table with flags of this verb")),
            }
        }
    }

    fn setting(&mut self, at: Option<Range<usize>>, key: &str, arg: &Arg, verbs: &[String], values: Vec<String>) {
        for value in &values {
            if let Err(problem) = check(arg, value) {
                let shown = if keys::is_secret(arg) { String::new() } else { format!(" = {value:?}") };
                self.problem(at.clone(), format!("{key}{shown}: {problem}"));
            }
        }
        let origin = format!("{}:{}", self.file, self.line(at));
        self.settings.insert((verbs.to_vec(), arg.get_id().clone()), Setting { values, origin });
    }

    fn problem(&mut self, at: Option<Range<usize>>, text: String) {
        self.problems.push(Problem { line: self.line(at), text });
    }

    /// The line of a position, from 1.
    fn line(&self, at: Option<Range<usize>>) -> usize {
        let before = self.text.as_bytes().get(..at.map_or(0, |at| at.start)).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

fn with(verbs: &[String], verb: &Command) -> Vec<String> {
    verbs.iter().cloned().chain([verb.get_name().to_owned()]).collect()
}

/// The values as text, in the form of the command line.
fn values(arg: &Arg, item: &Item) -> Result<Vec<String>, String> {
    let wrong = || format!("expected {}, found {}", expected(arg), article(item.type_name()));
    let value = item.as_value().ok_or_else(wrong)?;
    match (keys::takes(arg), value) {
        (Takes::Switch, Value::Boolean(value)) => Ok(vec![value.value().to_string()]),
        (Takes::Switch, _) => Err(wrong()),
        (Takes::Many, Value::Array(array)) => array.iter().map(|value| scalar(value).ok_or_else(wrong)).collect(),
        (Takes::Many | Takes::One, value) => Ok(vec![scalar(value).ok_or_else(wrong)?]),
    }
}

/// A string or a number as text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        _ => None,
    }
}

/// What a key takes, for people.
fn expected(arg: &Arg) -> String {
    let name = keys::value_name(arg);
    match keys::takes(arg) {
        Takes::Switch => "true or false".to_owned(),
        Takes::One if keys::is_number(arg) => format!("a number ({name})"),
        Takes::One => format!("a string ({name})"),
        Takes::Many => format!("an array of strings ([\"{name}\", …])"),
    }
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{ArgAction, value_parser};

    fn program() -> Command {
        let verb = Command::new("get")
            .arg(Arg::new("jobs").long("jobs").value_name("N").value_parser(value_parser!(u16).range(1..=64)))
            .subcommand(Command::new("all").arg(Arg::new("deep").long("deep").action(ArgAction::SetTrue)));
        Command::new("p")
            .arg(Arg::new("listen").long("listen").value_name("HOST:PORT"))
            .arg(Arg::new("port").long("port").value_parser(value_parser!(u16)))
            .arg(Arg::new("no_lan").long("no-lan").action(ArgAction::SetTrue))
            .arg(Arg::new("labels").long("label").action(ArgAction::Append))
            .arg(Arg::new("form").long("form").value_parser(["text", "json"]))
            .arg(Arg::new("join").long("join").value_name("TOKEN").value_parser(value_parser!(u16)))
            .arg(Arg::new("config").long("config"))
            .subcommand(verb)
    }

    fn read(text: &str) -> Result<Settings, Vec<Problem>> {
        parse("f", text, &program())
    }

    #[test]
    fn keys_are_the_names_of_flags_and_verbs_have_tables() {
        let text = "listen = 'h:1'\nport = 7801\nno-lan = true\nlabel = ['a=1', 'b=2']\n[verb.get]\njobs = 8\n[verb.get.all]\ndeep = false\n";
        let settings = read(text).unwrap();
        let found: Vec<_> = settings
            .iter()
            .map(|((verbs, id), setting)| format!("{} {id} {} {}", verbs.join("."), setting.values.join("+"), setting.origin))
            .collect();
        assert_eq!(
            found,
            [
                " labels a=1+b=2 f:4",
                " listen h:1 f:1",
                " no_lan true f:3",
                " port 7801 f:2",
                "get jobs 8 f:6",
                "get.all deep false f:8"
            ]
        );
        assert_eq!(read("").unwrap(), Settings::new());
    }

    #[test]
    fn everything_wrong_is_told_with_its_line_and_what_is_expected() {
        for (text, line, words) in [
            ("\nlisen = 'h:1'", 2, "unknown key `lisen`; did you mean `listen`?"),
            ("no_lan = true", 1, "unknown key `no_lan`; did you mean `no-lan`?"),
            ("zzz = 1", 1, "unknown key `zzz`"),
            ("config = 'f'", 1, "unknown key `config`"),
            ("no-lan = 'yes'", 1, "no-lan: expected true or false, found a string"),
            ("listen = ['h:1']", 1, "listen: expected a string (HOST:PORT), found an array"),
            ("listen = true", 1, "listen: expected a string (HOST:PORT), found a boolean"),
            ("label = { a = 1 }", 1, "label: expected an array of strings ([\"LABELS\", …]), found an inline table"),
            ("label = [true]", 1, "label: expected an array of strings"),
            ("port = true", 1, "port: expected a number (PORT), found a boolean"),
            ("port = 70000", 1, "port = \"70000\": 70000 is not in 0..=65535"),
            ("form = 'xml'", 1, "form = \"xml\": the values are text, json"),
            ("join = 'hidden'", 1, "join: "),
            ("[verb.get]\njbs = 8", 2, "unknown key `jbs`; did you mean `jobs`?"),
            ("[verb.gte]\njobs = 8", 1, "unknown verb `gte`; did you mean `get`?"),
            ("verb = 1", 1, "verb: expected a table"),
            ("[verb.get]\njobs = 65", 2, "jobs = \"65\": 65 is not in 1..=64"),
            ("listen = 'a'\nlisten = 'b'", 2, "duplicate key"),
            ("listen = h:1", 1, ""),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems[0].line == line && problems[0].text.contains(words), "{text:?}: {problems:?}");
            assert!(!problems[0].text.contains("hidden"), "{problems:?}");
        }
        let all = read("a = 1\nb = 2\nport = 'x'").unwrap_err();
        assert_eq!(all.iter().map(|problem| problem.line).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
