//! Puts together what flags, environment, layer and file say.

use super::{
    check::check,
    error::{ConfigurationError, Problem},
    explain::explained,
    file,
    keys::{self, Takes},
    origins::{Layer, Place, Setting, Settings, with_defaults, with_flags},
    print, shell,
    variables::Variables,
};
use clap::{ArgMatches, Command, Parser, parser::ValueSource};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// How a program reads its configuration.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its environment variables.
    pub variables: Variables,
    /// Values that beat those of the file, chosen by what flags, environment and file say so far; `Err` has the problem and what to do.
    pub layer: ChooseLayer,
}

/// Chooses the values that beat those of the file. The error: what is wrong, and what to do.
pub type ChooseLayer = fn(&ArgMatches) -> Result<Option<Layer>, (String, String)>;

impl Program {
    /// A program with these variables and no layer.
    pub const fn new(variables: Variables) -> Self {
        Self { variables, layer: |_| Ok(None) }
    }
}

/// What to do.
pub enum Read<F> {
    /// Run with these flags.
    Run(Loaded<F>),
    /// Print this text, and end: `--print-config`, the manual page, a completion script.
    Print(String),
}

/// A configuration.
pub struct Loaded<F> {
    /// The flags, with values of any origin.
    pub flags: F,
    /// What the user should change, a sentence each.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What flags and variables give.
    pub given: Given,
    /// The values of the flags that are keys, as text, by key.
    pub(super) values: BTreeMap<String, Vec<String>>,
}

/// The values that the command line and the environment give flags of the program, not of its verbs: neither those of a file nor defaults.
#[derive(Debug, Clone, Default)]
pub struct Given(BTreeMap<String, Vec<String>>);

impl Given {
    /// The value of the flag `--KEY`, as it was written; several with a comma between them.
    pub fn value(&self, key: &str) -> Option<String> {
        Some(self.0.get(key)?.join(","))
    }
}

/// Reads the configuration of a program that was started with `arguments`, the first of which is its name.
///
/// # Errors
/// When the arguments, a variable, the file or the layer say what cannot be. [`ConfigurationError::Usage`] is also the answer to `--help`.
pub fn read<F: Parser>(program: &Program, arguments: &[OsString]) -> Result<Read<F>, ConfigurationError> {
    let mut warnings = Vec::new();
    let command = program.variables.apply(F::command(), &mut warnings);
    if let Some(text) = shell::asked(&command, arguments) {
        return Ok(Read::Print(text));
    }

    let said = so_far(&command, arguments)?;
    let path = said.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    let is_printed = said.try_get_one::<bool>("print_config").ok().flatten().copied().unwrap_or_default();
    let mut settings = Settings::new();
    if let Some(path) = &path {
        settings = file::read(path, &command)?;
        give_way(&command, &said, path, &mut settings)?;
    }
    let layer = (program.layer)(&so_far(&command, &with_flags(&command, arguments, &settings))?);
    if let Some(layer) = layer.map_err(|(problem, hint)| ConfigurationError::Layer { problem, hint })? {
        settings.extend(of_layer(layer, &command)?.into_iter().filter(|(place, _)| !is_explicit(&said, place)));
    }

    if is_printed {
        return Ok(Read::Print(print::effective(&command, &settings, arguments, path.as_deref())?));
    }
    let arguments = with_flags(&command, arguments, &settings);
    let mut command = with_defaults(command, &settings);
    let parsed = command.try_get_matches_from_mut(&arguments);
    let mut matches = parsed.map_err(|error| explained(error, &command, &arguments))?;
    let values = values(&command, &matches);
    let is_given = |key: &str| {
        let id = keys::flag(&command, key).map(|arg| arg.get_id().clone());
        id.is_some_and(|id| is_explicit(&said, &(Vec::new(), id)))
    };
    let given =
        Given(values.iter().filter(|(key, _)| is_given(key)).map(|(key, values)| (key.clone(), values.clone())).collect());
    let flags = F::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
    Ok(Read::Run(Loaded { flags, warnings, file: path, given, values }))
}

/// What flags and environment say, as far as it can be understood; the rest is reported later. An error is the help or the version.
fn so_far(command: &Command, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    command.clone().ignore_errors(true).try_get_matches_from(arguments)
}

/// Takes out of `settings`, of the file `path`, what flags or environment say, too, and what excludes something that they say.
///
/// # Errors
/// When two settings of the file exclude each other.
fn give_way(command: &Command, said: &ArgMatches, path: &Path, settings: &mut Settings) -> Result<(), ConfigurationError> {
    let mut problems = Vec::new();
    let mut excluded = Vec::new();
    settings.retain(|place, _| !is_explicit(said, place));
    for (place, setting) in settings.iter().filter(|(_, setting)| is_meant(setting)) {
        for other in conflicting(command, place) {
            if is_explicit(said, &other) {
                excluded.push(place.clone());
            } else if let Some(second) = settings.get(&other).filter(|second| is_meant(second) && *place < other) {
                let text = format!("it excludes {}, which is at {}", other.1.as_str().replace('_', "-"), second.origin);
                problems.push(Problem {
                    line: line(&setting.origin),
                    text: format!("{}: {text}", place.1.as_str().replace('_', "-")),
                });
            }
        }
    }
    if !problems.is_empty() {
        return Err(ConfigurationError::Wrong { path: path.to_owned(), problems });
    }
    for place in excluded {
        settings.remove(&place);
    }
    Ok(())
}

/// Whether a setting says something: a switch that is off says what is so anyway.
fn is_meant(setting: &Setting) -> bool {
    !setting.values.is_empty() && setting.values != ["false"]
}

fn line(origin: &str) -> usize {
    origin.rsplit(':').next().and_then(|line| line.parse().ok()).unwrap_or(1)
}

/// The command to which `verbs` lead.
fn at<'a>(command: &'a Command, verbs: &[String]) -> Option<&'a Command> {
    verbs.iter().try_fold(command, |command, verb| command.find_subcommand(verb))
}

/// Flags that exclude this one, or that this one excludes.
fn conflicting(command: &Command, (verbs, id): &Place) -> Vec<Place> {
    let Some(command) = at(command, verbs) else { return Vec::new() };
    let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == id) else { return Vec::new() };
    let mut found: Vec<_> = command.get_arg_conflicts_with(arg).into_iter().map(|other| other.get_id().clone()).collect();
    let others = command.get_arguments().filter(|other| !other.is_global_set() && other.get_id() != id);
    found.extend(
        others
            .filter(|other| command.get_arg_conflicts_with(other).iter().any(|one| one.get_id() == id))
            .map(|other| other.get_id().clone()),
    );
    found.into_iter().map(|other| (verbs.clone(), other)).collect()
}

/// Whether a flag or a variable says it.
fn is_explicit(said: &ArgMatches, (verbs, id): &Place) -> bool {
    let at = verbs.iter().try_fold(said, |matches, verb| matches.subcommand_matches(verb));
    let is_known = |matches: &&ArgMatches| matches.try_contains_id(id.as_str()).is_ok();
    let source = at.filter(is_known).and_then(|matches| matches.value_source(id.as_str()));
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// The values of a layer as settings.
fn of_layer(layer: Layer, command: &Command) -> Result<Settings, ConfigurationError> {
    let mut settings = Settings::new();
    for (key, value) in layer.values {
        let Some(arg) = keys::flag(command, &key) else { continue };
        check(arg, &value).map_err(|problem| ConfigurationError::Layer {
            problem: format!("{}: {key}: {problem}", layer.origin),
            hint: "correct or delete it".to_owned(),
        })?;
        let values = match arg.get_value_delimiter() {
            Some(delimiter) => value.split(delimiter).map(str::to_owned).collect(),
            None => vec![value],
        };
        let setting = Setting { values, origin: layer.origin.clone() };
        settings.insert((Vec::new(), arg.get_id().clone()), setting);
    }
    Ok(settings)
}

/// The values of the flags of the program, without those of its verbs.
fn values(command: &Command, matches: &ArgMatches) -> BTreeMap<String, Vec<String>> {
    let text = |raw: &std::ffi::OsStr| raw.to_string_lossy().into_owned();
    let of = |id: &str| matches.get_raw(id).map(|raw| raw.map(text).collect()).unwrap_or_default();
    let flags = keys::flags(command).filter(|(_, arg)| matches.try_contains_id(arg.get_id().as_str()).is_ok());
    flags
        .map(|(key, arg)| {
            let id = arg.get_id().as_str();
            let of_switch = || vec![matches.get_flag(id).to_string()];
            (key.to_owned(), if keys::takes(arg) == Takes::Switch { of_switch() } else { of(id) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[derive(Debug, Parser)]
    #[command(name = "p", version = "1")]
    struct Flags {
        #[arg(long, requires = "key")]
        cert: Option<String>,
        #[arg(long, requires = "cert")]
        key: Option<String>,
        #[arg(long, default_value_t = 1)]
        jobs: u16,
        #[arg(long = "label", value_delimiter = ',')]
        labels: Vec<String>,
        #[arg(long)]
        quiet: bool,
        #[arg(long, conflicts_with = "quiet")]
        loud: bool,
        #[arg(long, value_name = "TOKEN")]
        join: Option<String>,
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long)]
        print_config: bool,
    }

    const PROGRAM: Program = Program::new(Variables { prefix: "P_", old: &[], renamed: &[], also: &[] });

    fn run(program: &Program, text: &str, arguments: &[&str]) -> Result<Read<Flags>, ConfigurationError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.toml");
        fs::write(&file, text).unwrap();
        let all = ["p", "--config", file.to_str().unwrap()].into_iter().chain(arguments.iter().copied());
        read(program, &all.map(OsString::from).collect::<Vec<_>>())
    }

    fn loaded(text: &str, arguments: &[&str]) -> Loaded<Flags> {
        match run(&PROGRAM, text, arguments) {
            Ok(Read::Run(loaded)) => loaded,
            Ok(Read::Print(text)) => panic!("{text}"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn what_a_flag_requires_may_be_in_the_file() {
        let flags = loaded("cert = 'c'\nkey = 'k'\n", &[]).flags;
        assert_eq!((flags.cert.as_deref(), flags.key.as_deref()), (Some("c"), Some("k")));
        let flags = loaded("key = 'k'\n", &["--cert", "flag"]).flags;
        assert_eq!((flags.cert.as_deref(), flags.key.as_deref()), (Some("flag"), Some("k")));
        assert!(matches!(run(&PROGRAM, "key = 'k'\n", &[]), Err(ConfigurationError::Usage(_))));
    }

    #[test]
    fn a_flag_replaces_what_the_file_says_and_what_it_excludes() {
        let text = "jobs = 2\nlabel = ['a', 'b']\nquiet = true\n";
        let from_file = loaded(text, &[]);
        let Flags { jobs, labels, quiet, loud, .. } = from_file.flags;
        assert_eq!((jobs, labels, quiet, loud), (2, vec!["a".to_owned(), "b".to_owned()], true, false));
        assert_eq!(from_file.given.value("jobs"), None, "a file is no flag");
        let from_flags = loaded(text, &["--jobs", "3", "--label", "c", "--loud"]);
        let Flags { jobs, labels, quiet, loud, .. } = from_flags.flags;
        assert_eq!((jobs, labels, quiet, loud), (3, vec!["c".to_owned()], false, true));
        assert_eq!(from_flags.given.value("jobs").as_deref(), Some("3"));
        assert_eq!(loaded("", &["--label", "a,b", "--label", "c"]).given.value("label").as_deref(), Some("a,b,c"));
        assert!(matches!(run(&PROGRAM, "quiet = true\nloud = true\n", &[]), Err(ConfigurationError::Wrong { .. })));
    }

    #[test]
    fn a_layer_beats_the_file_and_gives_way_to_flags() {
        let layer = |_: &ArgMatches| {
            let values = [("jobs", "7"), ("unknown", "x"), ("label", "a,b")];
            let values = values.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
            Ok(Some(Layer { origin: "context home".to_owned(), values }))
        };
        let program = Program { layer, ..PROGRAM };
        let jobs = |arguments: &[&str]| match run(&program, "jobs = 2\n", arguments) {
            Ok(Read::Run(loaded)) => {
                assert_eq!(loaded.flags.labels, ["a", "b"]);
                loaded.flags.jobs
            }
            _ => panic!("not read"),
        };
        assert_eq!((jobs(&[]), jobs(&["--jobs", "3"])), (7, 3));
        let Ok(Read::Print(text)) = run(&program, "", &["--print-config"]) else { panic!("not printed") };
        assert!(text.contains("jobs = 7  # context home"), "{text}");
    }

    #[test]
    fn a_secret_is_not_printed() {
        let Ok(Read::Print(text)) = run(&PROGRAM, "join = 'hidden'\n", &["--print-config"]) else { panic!("not printed") };
        assert!(text.contains("# join = …") && text.contains("f.toml:1; secret") && !text.contains("hidden"), "{text}");
        let Ok(Read::Print(text)) = run(&PROGRAM, "", &["--join", "hidden", "--print-config"]) else { panic!("not printed") };
        assert!(text.contains("# join = …  # flag; secret") && !text.contains("hidden"), "{text}");
    }
}
