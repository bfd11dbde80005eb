//! Contexts: the registry, the network and the certificates that a person uses, under a name, as `kubectl` keeps them.
//!
//! They are in `contexts.toml` in the user's configuration folder, whose keys are the names of the flags:
//!
//! ```toml
//! current = "home"
//!
//! [contexts.home]
//! registry = "http://registry.example:7800"
//! ```

use crate::failure::{Failure, Outcome};
use p2pdi::{configuration::Layer, field::Quoted, platform::config_folder, private_file};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};
use toml_edit::{DocumentMut, Item, Table, Value};

/// The file in the user's configuration folder.
const FILE_NAME: &str = "contexts.toml";
/// Longest name of a context, in bytes: it is also the name of a folder.
const NAME_MAX_BYTES: usize = 64;

/// A context.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Context {
    pub(crate) name: String,
    /// The value of `--registry`: one URL, or several with a comma between them.
    pub(crate) registry: Option<String>,
    /// The value of `--network`.
    pub(crate) network: Option<String>,
    /// The file of the own certificate: the value of `--tls-cert`.
    pub(crate) cert: Option<PathBuf>,
    /// The file of its key: the value of `--tls-key`.
    pub(crate) key: Option<PathBuf>,
    /// The file of the CAs that are trusted: the value of `--tls-ca`.
    pub(crate) ca: Option<PathBuf>,
}

impl Context {
    /// The flags that it sets, with their values.
    pub(crate) fn values(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let all = [
            ("registry", self.registry.clone()),
            ("network", self.network.clone()),
            ("tls-cert", path(&self.cert)),
            ("tls-key", path(&self.key)),
            ("tls-ca", path(&self.ca)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// A context's name.
///
/// # Errors
/// What would be right.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > NAME_MAX_BYTES || text.starts_with('.') || !text.chars().all(is_fit) {
        return Err(format!("a context's name has 1 to {NAME_MAX_BYTES} letters, digits, - _ and ., and no . at the beginning"));
    }
    Ok(text.to_owned())
}

/// Saves a context under its name, in place of one that is there, and makes it the current one.
///
/// # Errors
/// When the name or the file is not valid, or cannot be written.
pub(crate) fn save(context: &Context) -> Outcome {
    parse_name(&context.name).map_err(Failure::usage)?;
    change(|contexts| {
        contexts.put(context);
        contexts.document["current"] = toml_edit::value(&context.name);
        Ok(())
    })
}

/// The folder for the certificates and keys of a context; it may not exist yet.
///
/// # Errors
/// When the user has no configuration folder.
pub(crate) fn folder(name: &str) -> Outcome<PathBuf> {
    parse_name(name).map_err(Failure::usage)?;
    Ok(user_folder()?.join("contexts").join(name))
}

/// The values of the context that is asked for, or else of the current one. `Err` has the problem and what to do.
pub(crate) fn layer(asked: Option<&str>) -> Result<Option<Layer>, (String, String)> {
    let read = || -> Outcome<Option<Context>> {
        // Without a folder there are no contexts; that is an error only for those who ask for one.
        if asked.is_none() && config_folder().is_none() {
            return Ok(None);
        }
        let contexts = Contexts::read()?;
        let name = asked.map(str::to_owned).or_else(|| contexts.current().map(str::to_owned));
        name.map(|name| contexts.get(&name)).transpose()
    };
    match read() {
        Ok(None) => Ok(None),
        Ok(Some(context)) => {
            let values = context.values().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            Ok(Some(Layer { origin: format!("context {}", context.name), values }))
        }
        Err(failure) => {
            Err((failure.message().to_owned(), "p2pctl context list shows all; p2pctl context use NAME chooses one".to_owned()))
        }
    }
}

/// The file with all contexts.
pub(crate) struct Contexts {
    path: PathBuf,
    document: DocumentMut,
}

impl Contexts {
    /// Reads the file; one that is not there has no contexts.
    ///
    /// # Errors
    /// When it is not valid, or the user has no configuration folder.
    pub(crate) fn read() -> Outcome<Self> {
        Self::read_from(user_folder()?.join(FILE_NAME))
    }

    fn read_from(path: PathBuf) -> Outcome<Self> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::refused(format!("cannot read {}: {error}", path.display()))),
        };
        let broken = |why: &str| {
            Failure::refused(format!("{} is no file of contexts: {why}", path.display())).hint("correct it, or move it away")
        };
        let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| broken(error.message().trim_end()))?;
        let is_table = |key: &str| document.get(key).is_none_or(|item| item.as_table_like().is_some());
        if !is_table("contexts") || document.get("current").is_some_and(|current| !current.is_str()) {
            return Err(broken("expected current = \"NAME\" and tables [contexts.NAME]"));
        }
        Ok(Self { path, document })
    }

    /// The names, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        let table = self.document.get("contexts").and_then(Item::as_table_like);
        let mut names: Vec<_> = table.into_iter().flat_map(|table| table.iter()).map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    /// The name of the current one.
    pub(crate) fn current(&self) -> Option<&str> {
        self.document.get("current").and_then(Item::as_str).filter(|name| !name.is_empty())
    }

    /// One of them.
    ///
    /// # Errors
    /// When there is none of this name, or a value is no string.
    pub(crate) fn get(&self, name: &str) -> Outcome<Context> {
        let table = self.document.get("contexts").and_then(|contexts| contexts.get(name)).and_then(Item::as_table_like);
        let table = table.ok_or_else(|| self.unknown(name))?;
        let text = |key: &str| match table.get(key).map(Item::as_str) {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text.to_owned())),
            Some(None) => {
                let path = self.path.display();
                Err(Failure::refused(format!("{path}: {key} of the context {} must be a string", Quoted(name))))
            }
        };
        let path = |key| Ok::<_, Failure>(text(key)?.map(PathBuf::from));
        Ok(Context {
            name: name.to_owned(),
            registry: text("registry")?,
            network: text("network")?,
            cert: path("tls-cert")?,
            key: path("tls-key")?,
            ca: path("tls-ca")?,
        })
    }

    /// There is no context of this name.
    fn unknown(&self, name: &str) -> Failure {
        let failure = Failure::refused(format!("there is no context {}", Quoted(name)));
        match self.names().as_slice() {
            [] => failure.hint("p2pctl context set NAME makes one of the flags given with it"),
            names => failure.hint(format!("there are {}", names.join(", "))),
        }
    }

    /// Sets the values of a context, and removes those that it has not. What this version does not know stays.
    fn put(&mut self, context: &Context) {
        let all = self.document.entry("contexts").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let Some(all) = all.as_table_like_mut() else { return };
        let one = all.entry(&context.name).or_insert_with(toml_edit::table);
        let Some(one) = one.as_table_like_mut() else { return };
        for key in ["registry", "network", "tls-cert", "tls-key", "tls-ca"] {
            one.remove(key);
        }
        for (key, value) in context.values() {
            one.insert(key, Item::Value(Value::from(value)));
        }
    }

    fn write(&self) -> Outcome {
        let cannot = |error: io::Error| Failure::refused(format!("cannot write {}: {error}", self.path.display()));
        private_file::write(&self.path, self.document.to_string()).map_err(cannot)
    }
}

/// Makes the context current.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn select(name: &str) -> Outcome {
    change(|contexts| {
        contexts.get(name)?;
        contexts.document["current"] = toml_edit::value(name);
        Ok(())
    })
}

/// Saves a context and leaves the current one as it is, unless there is none.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn set(context: &Context) -> Outcome {
    change(|contexts| {
        contexts.put(context);
        if contexts.current().is_none() {
            contexts.document["current"] = toml_edit::value(&context.name);
        }
        Ok(())
    })
}

/// Removes the context. Its certificates stay; returns their folder, if there is one.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn delete(name: &str) -> Outcome<Option<PathBuf>> {
    change(|contexts| {
        if !contexts.names().contains(&name) {
            return Err(contexts.unknown(name));
        }
        if let Some(all) = contexts.document.get_mut("contexts").and_then(Item::as_table_like_mut) {
            all.remove(name);
        }
        if contexts.current() == Some(name) {
            contexts.document.remove("current");
        }
        Ok(())
    })?;
    Ok(user_folder()?.join("contexts").join(name)).map(|folder| Some(folder).filter(|folder| folder.is_dir()))
}

/// Changes the file. Calls of other processes wait meanwhile.
fn change(act: impl FnOnce(&mut Contexts) -> Outcome) -> Outcome {
    let folder = user_folder()?;
    let _locked = lock(&folder).map_err(|error| Failure::refused(format!("cannot lock {}: {error}", folder.display())))?;
    let mut contexts = Contexts::read_from(folder.join(FILE_NAME))?;
    act(&mut contexts)?;
    contexts.write()
}

/// Held until the result is dropped.
fn lock(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(".contexts.lock"))?;
    file.lock()?;
    Ok(file)
}

fn user_folder() -> Outcome<PathBuf> {
    config_folder().ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME is set, so there is no folder for contexts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts(text: &str) -> Outcome<Contexts> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::write(&path, text).unwrap();
        Contexts::read_from(path)
    }

    #[test]
    fn a_context_is_read_back_and_what_others_wrote_stays() {
        let text = "# mine\ncurrent = \"b\"\n\n[contexts.a]\nregistry = \"http://a:1\" # first\nfuture = 1\n";
        let mut all = contexts(text).unwrap();
        let b = Context { name: "b".to_owned(), registry: Some("http://b:1".to_owned()), ..Context::default() };
        all.put(&b);
        let a = Context { network: Some("n".to_owned()), cert: Some("/c.pem".into()), ..all.get("a").unwrap() };
        all.put(&a);
        let text = all.document.to_string();
        for kept in ["# mine", "future = 1", "[contexts.b]"] {
            assert!(text.contains(kept), "{text}");
        }
        let again = contexts(&text).unwrap();
        assert_eq!((again.get("a").unwrap(), again.get("b").unwrap()), (a, b));
        assert_eq!((again.names(), again.current()), (vec!["a", "b"], Some("b")));
    }

    #[test]
    fn an_unknown_context_names_those_there_are() {
        let all = contexts("[contexts.home]\n[contexts.work]\n").unwrap();
        let failure = all.get("hom").unwrap_err().to_string();
        assert!(failure.contains("there is no context \"hom\"") && failure.contains("home, work"), "{failure}");
        assert!(contexts("").unwrap().get("x").unwrap_err().to_string().contains("p2pctl context set"));
    }

    #[test]
    fn a_file_that_is_none_of_contexts_is_refused() {
        for text in ["current = 1", "contexts = 1", "x", "[contexts.a]\nregistry = 1"] {
            assert!(contexts(text).and_then(|all| all.get("a")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_also_the_name_of_a_folder() {
        for name in ["home", "a.b-c_1"] {
            assert_eq!(parse_name(name).as_deref(), Ok(name));
        }
        for name in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(parse_name(name).is_err(), "{name}");
        }
    }
}
