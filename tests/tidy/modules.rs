//! The modules of a crate, and which file uses items of which other file.

use super::syntax::{self, Kind, Mention};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use syn::Item;

/// The modules of one crate, by path (`crate`, `crate::overlay`).
pub(crate) struct Modules {
    modules: BTreeMap<String, Module>,
    /// Files that only tests compile.
    pub(crate) test_files: BTreeSet<String>,
}

struct Module {
    file: String,
    /// Names that the module defines itself.
    items: BTreeSet<String>,
    /// It has a macro call among its items, which may define more.
    has_item_macros: bool,
    mentions: Vec<Mention>,
}

/// A use of an item of `to` in `from`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) line: usize,
    pub(crate) name: String,
}

impl Modules {
    /// Reads the crate whose root is this file; `read` gives the text of a path from the repository's root.
    pub(crate) fn read(root: &str, read: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut modules = Self { modules: BTreeMap::new(), test_files: BTreeSet::new() };
        let folder = Path::new(root).parent().and_then(Path::to_str).unwrap_or_default();
        modules.read_file("crate", root, folder, read);
        modules
    }

    fn read_file(&mut self, path: &str, file: &str, folder: &str, read: &dyn Fn(&str) -> Option<String>) {
        let text = read(file).unwrap_or_else(|| panic!("{path} has no file {file}"));
        let whole = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        for item in &whole.items {
            if let Item::Mod(module) = item
                && syntax::only_in_tests(&module.attrs)
                && module.content.is_none()
            {
                self.read_test_file(&child_file(folder, &module.ident.to_string(), read), read);
            }
        }
        let product = syntax::product(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.add(path, file, folder, &product.items, read);
    }

    fn read_test_file(&mut self, file: &str, read: &dyn Fn(&str) -> Option<String>) {
        let text = read(file).unwrap_or_else(|| panic!("no file {file}"));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let folder = file.trim_end_matches("/mod.rs").trim_end_matches(".rs").to_owned();
        for item in &parsed.items {
            if let Item::Mod(module) = item
                && module.content.is_none()
                // A file that is somewhere else is a test's own there.
                && !module.attrs.iter().any(|attribute| attribute.path().is_ident("path"))
            {
                self.read_test_file(&child_file(&folder, &module.ident.to_string(), read), read);
            }
        }
        self.test_files.insert(file.to_owned());
    }

    fn add(&mut self, path: &str, file: &str, folder: &str, items: &[Item], read: &dyn Fn(&str) -> Option<String>) {
        let mut module = Module {
            file: file.to_owned(),
            items: items.iter().filter_map(name).collect(),
            has_item_macros: false,
            mentions: syntax::mentions(items),
        };
        for item in items {
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let child_path = format!("{path}::{name}");
                    let child_folder = format!("{folder}/{name}");
                    match &child.content {
                        Some((_, items)) => self.add(&child_path, file, &child_folder, items, read),
                        None => self.read_file(&child_path, &child_file(folder, &name, read), &child_folder, read),
                    }
                }
                Item::Macro(call) if call.ident.is_none() => {
                    let name = call.mac.path.segments.last().map(|segment| segment.ident.to_string());
                    module.has_item_macros |= name.is_some_and(|name| !name.starts_with("include"));
                }
                _ => {}
            }
        }
        self.modules.insert(path.to_owned(), module);
    }

    /// Every production file of the crate, with the path of its module.
    pub(crate) fn files(&self) -> BTreeMap<&str, &str> {
        // Inline modules come after the module that contains them.
        self.modules.iter().rev().map(|(path, module)| (module.file.as_str(), path.as_str())).collect()
    }

    /// Uses of one file's items in another. A `pub use` alone is not one: a use of the name is a use of the file that defines it.
    pub(crate) fn edges(&self) -> BTreeSet<Edge> {
        let mut edges = BTreeSet::new();
        for (path, module) in &self.modules {
            for mention in &module.mentions {
                if matches!(mention.kind, Kind::Glob | Kind::Method | Kind::Import { public: true, .. }) {
                    continue;
                }
                let mut targets = BTreeSet::new();
                self.resolve(path, &mention.path, &mut BTreeSet::new(), &mut targets);
                for target in targets.iter().filter_map(|target| target.defined_in.as_ref()) {
                    let to = &self.modules[target].file;
                    if *to != module.file {
                        edges.insert(Edge {
                            from: module.file.clone(),
                            to: to.clone(),
                            line: mention.line,
                            name: mention.text(),
                        });
                    }
                }
            }
        }
        edges
    }

    /// The top-level modules that each file's paths name, whether or not they define the item: `(file, line, module)`.
    pub(crate) fn parts(&self) -> BTreeSet<(&str, usize, String)> {
        let mut found = BTreeSet::new();
        for (path, module) in &self.modules {
            for mention in module.mentions.iter().filter(|mention| mention.kind != Kind::Method) {
                let Some((start, rest)) = self.start(path, &mention.path) else { continue };
                let absolute = rest.iter().fold(start, |path, name| format!("{path}::{name}"));
                let part = |path: &str| path.split("::").nth(1).map(str::to_owned);
                let is_module = |part: &String| self.modules.contains_key(&format!("crate::{part}"));
                if let Some(part) = part(&absolute).filter(is_module) {
                    found.insert((module.file.as_str(), mention.line, part));
                    continue;
                }
                // Through a name that the crate's root re-exports.
                let mut targets = BTreeSet::new();
                self.resolve(path, &mention.path, &mut BTreeSet::new(), &mut targets);
                let defining = targets.iter().filter_map(|target| target.defined_in.as_deref()).filter_map(part);
                found.extend(defining.map(|part| (module.file.as_str(), mention.line, part)));
            }
        }
        found
    }

    /// The module that `crate`, `self`, `super` or a child's name resolves to, and the rest of the path.
    fn start<'a>(&self, from: &str, path: &'a [String]) -> Option<(String, &'a [String])> {
        let mut module = from.to_owned();
        let mut rest = path;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => module = "crate".to_owned(),
                "self" => {}
                "super" => module = module.rsplit_once("::")?.0.to_owned(),
                _ => break,
            }
            rest = others;
        }
        (rest.len() < path.len() || self.modules.contains_key(&format!("{from}::{}", path.first()?))).then_some((module, rest))
    }

    fn resolve(&self, from: &str, path: &[String], seen: &mut BTreeSet<(String, String)>, found: &mut BTreeSet<Target>) {
        let is_scope = !matches!(path.first().map(String::as_str), Some("crate" | "self" | "super"));
        let (module, rest) = self.start(from, path).unwrap_or_else(|| (from.to_owned(), path));
        match rest.split_first() {
            Some((name, rest)) => self.look_up(&module, name, rest, is_scope, seen, found),
            None => _ = found.insert(Target { module: Some(module), defined_in: None }),
        }
    }

    fn look_up(
        &self,
        module: &str,
        name: &str,
        rest: &[String],
        is_scope: bool,
        seen: &mut BTreeSet<(String, String)>,
        found: &mut BTreeSet<Target>,
    ) {
        let Some(here) = self.modules.get(module) else { return };
        if !seen.insert((module.to_owned(), name.to_owned())) {
            return;
        }
        let before = found.len();
        let child = format!("{module}::{name}");
        if self.modules.contains_key(&child) {
            match rest.split_first() {
                Some((next, rest)) => self.look_up(&child, next, rest, false, seen, found),
                None => _ = found.insert(Target { module: Some(child), defined_in: None }),
            }
        }
        if here.items.contains(name) {
            found.insert(Target { module: None, defined_in: Some(module.to_owned()) });
        }
        for mention in &here.mentions {
            if matches!(&mention.kind, Kind::Import { name: bound, .. } if bound == name) {
                let path: Vec<_> = mention.path.iter().chain(rest).cloned().collect();
                self.resolve(module, &path, seen, found);
            }
        }
        if found.len() > before {
            return;
        }
        for mention in here.mentions.iter().filter(|mention| mention.kind == Kind::Glob) {
            let path: Vec<_> = mention.path.iter().cloned().chain([name.to_owned()]).chain(rest.iter().cloned()).collect();
            self.resolve(module, &path, seen, found);
        }
        if found.len() == before && here.has_item_macros && !is_scope {
            found.insert(Target { module: None, defined_in: Some(module.to_owned()) });
        }
    }
}

/// The target of a path: a module, or an item that a module defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    module: Option<String>,
    defined_in: Option<String>,
}

fn child_file(folder: &str, name: &str, read: &dyn Fn(&str) -> Option<String>) -> String {
    let file = format!("{folder}/{name}.rs");
    if read(&file).is_some() { file } else { format!("{folder}/{name}/mod.rs") }
}

fn name(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Macro(item) => item.ident.as_ref()?.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::TraitAlias(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        Item::Union(item) => item.ident.to_string(),
        _ => return None,
    })
}
