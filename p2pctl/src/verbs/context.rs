//! context: which registry, network and certificates the other verbs use.

use crate::{
    args::{Context as Arguments, ContextWhat, Global},
    contexts::{self, Context, Contexts},
    failure::{Failure, Outcome},
    printer::Printer,
};
use serde_json::{Map, Value, json};

pub(super) fn context(global: &Global, args: Arguments, printer: Printer) -> Outcome {
    match args.what {
        ContextWhat::List => list(&Contexts::read()?, printer),
        ContextWhat::Use { name } => {
            contexts::select(&name)?;
            said(&name, &format!("{name} is the current context"), printer)
        }
        ContextWhat::Show { name } => show(&Contexts::read()?, name.as_deref().or(global.context.as_deref()), printer),
        ContextWhat::Set { name } => set(global, &name, printer),
        ContextWhat::Delete { name } => {
            if let Some(folder) = contexts::delete(&name)? {
                printer.note(&format!("its certificates stay in {}", folder.display()));
            }
            said(&name, &format!("{name} is deleted"), printer)
        }
    }
}

/// What was done, to the context of this name.
fn said(name: &str, text: &str, printer: Printer) -> Outcome {
    if printer.is_json() {
        return Ok(printer.json(&json!({ "context": name }))?);
    }
    Ok(printer.text(text)?)
}

fn list(all: &Contexts, printer: Printer) -> Outcome {
    let contexts = all.names().into_iter().map(|name| all.get(name)).collect::<Outcome<Vec<_>>>()?;
    let is_current = |context: &Context| all.current() == Some(context.name.as_str());
    if printer.is_json() {
        return Ok(
            printer.json(&contexts.iter().map(|context| as_json(context, is_current(context))).collect::<Vec<_>>().into())?
        );
    }
    let row = |context: &Context| {
        let mark = if is_current(context) { "*" } else { "" };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        vec![mark.to_owned(), context.name.clone(), text(&context.registry), text(&context.network)]
    };
    let rows: Vec<_> = contexts.iter().map(row).collect();
    Ok(printer.table(&["CURRENT", "NAME", "REGISTRY", "NETWORK"], &rows)?)
}

fn show(all: &Contexts, name: Option<&str>, printer: Printer) -> Outcome {
    let none =
        || Failure::refused("there is no current context").hint("p2pctl context use NAME chooses one of p2pctl context list");
    let context = all.get(name.or(all.current()).ok_or_else(none)?)?;
    let is_current = all.current() == Some(context.name.as_str());
    if printer.is_json() {
        return Ok(printer.json(&as_json(&context, is_current))?);
    }
    printer.text(&format!("{:<9} {}{}", "context", context.name, if is_current { " (current)" } else { "" }))?;
    for (key, value) in context.values() {
        printer.text(&format!("{key:<9} {value}"))?;
    }
    Ok(())
}

fn as_json(context: &Context, is_current: bool) -> Value {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), context.name.clone().into());
    fields.insert("current".to_owned(), is_current.into());
    fields.extend(context.values().into_iter().map(|(key, value)| (key.replace('-', "_"), value.into())));
    Value::Object(fields)
}

/// Keeps what flags and variables give; what the context has of other flags stays.
fn set(global: &Global, name: &str, printer: Printer) -> Outcome {
    let all = Contexts::read()?;
    let is_new = !all.names().contains(&name);
    let before = if is_new { Context { name: name.to_owned(), ..Context::default() } } else { all.get(name)? };
    let given = |key: &str| global.given.value(key);
    let context = Context {
        name: name.to_owned(),
        registry: given("registry").or(before.registry),
        network: given("network").or(before.network),
        cert: given("tls-cert").map(Into::into).or(before.cert),
        key: given("tls-key").map(Into::into).or(before.key),
        ca: given("tls-ca").map(Into::into).or(before.ca),
    };
    if context.values().is_empty() {
        let nothing = Failure::usage("nothing is given that a context keeps");
        return Err(nothing.hint(format!("give the registry: p2pctl --registry http://HOST:PORT context set {name}")));
    }
    contexts::set(&context)?;
    said(name, &format!("{name} is {}", if is_new { "new" } else { "changed" }), printer)
}
