//! Files that are made of others: the chart's table of values, the schema's names, the manifests. `P2PDI_UPDATE=1 cargo test --test deploy` writes
//! them.

use crate::{
    render::{chart, documents, root, succeeds, template},
    support::tools::helm,
};
use serde_json::Value;
use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

/// Compares a file with what it should be, or writes it.
#[track_caller]
fn is(path: &Path, expected: &str) {
    let found = fs::read_to_string(path).unwrap_or_default();
    if found != expected && env::var("P2PDI_UPDATE").as_deref() == Ok("1") {
        fs::write(path, expected).unwrap();
        return;
    }
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "{} is not up to date: P2PDI_UPDATE=1 cargo test --test deploy writes it; the first difference: {differs:?}",
        path.display()
    );
}

#[test]
fn the_manifests_are_the_rendered_chart() {
    let Some(helm) = helm() else { return };
    for (name, values) in [("default.yaml", "ci/default-values.yaml"), ("ha.yaml", "values-ha.yaml")] {
        let mut command = Command::new(&helm);
        command.args(template(&["--skip-tests", "--values"])).arg(chart().join(values));
        let text = succeeds(&mut command);
        let head = format!("# Made of the chart with {values}; do not edit.\n");
        is(&root().join("deploy/manifests").join(name), &(head + &text));
    }
}

#[test]
fn what_makes_certificates_is_rendered_as_before() {
    let Some(helm) = helm() else { return };
    let mut command = Command::new(&helm);
    command.args(template(&["--show-only", "templates/certificates.yaml", "--values"]));
    let text = succeeds(command.arg(chart().join("ci/chart-tls-values.yaml")));
    is(&root().join("tests/deploy/certificates.yaml"), &text);
}

/// A value of values.yaml that has a comment.
struct Documented {
    path: Vec<String>,
    text: String,
}

/// The values whose comments begin with `--`.
fn documented(yaml: &str) -> Vec<Documented> {
    let mut found = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut text = None;
    for line in yaml.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if let Some(comment) = trimmed.strip_prefix("# -- ") {
            text = Some(comment.to_owned());
        } else if let Some((key, _)) = trimmed.split_once(':').filter(|(key, _)| !key.starts_with(['#', '-', '{'])) {
            path.retain(|(of, _)| *of < indent);
            path.push((indent, key.to_owned()));
            if let Some(text) = text.take() {
                found.push(Documented { path: path.iter().map(|(_, key)| key.clone()).collect(), text });
            }
        }
    }
    found
}

/// The paths of all values that are no objects, or empty ones, but nothing below a documented value.
fn leaves(value: &Value, path: &mut Vec<String>, documented: &[Documented], found: &mut Vec<Vec<String>>) {
    match value.as_object().filter(|fields| !fields.is_empty() && !documented.iter().any(|value| value.path == *path)) {
        Some(fields) => {
            for (key, value) in fields {
                path.push(key.clone());
                leaves(value, path, documented, found);
                path.pop();
            }
        }
        None => found.push(path.clone()),
    }
}

/// The value at a path.
fn at<'a>(value: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(value, |value, key| &value[key])
}

fn values(text: &str) -> Option<Value> {
    let read = documents(&BTreeMap::from([("values".to_owned(), text.to_owned())]))?;
    Some(read["documents"]["values"][0].clone())
}

#[test]
fn every_value_is_documented_and_the_readme_lists_it() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let Some(values) = values(&text) else { return };
    let documented = documented(&text);
    let mut all = Vec::new();
    leaves(&values, &mut Vec::new(), &documented, &mut all);
    let undocumented: Vec<_> = all.iter().filter(|path| !documented.iter().any(|value| value.path == **path)).collect();
    assert!(undocumented.is_empty(), "without a comment in values.yaml: {undocumented:?}");

    let row = |value: &Documented| {
        let default = at(&values, &value.path).to_string().replace('|', "\\|");
        format!("| `{}` | {} | `{default}` |\n", value.path.join("."), value.text)
    };
    let table: String = documented.iter().map(row).collect();
    let (start, end) = ("<!-- values: made of values.yaml -->\n", "<!-- end of values -->\n");
    let path = chart().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(start).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    is(&path, &format!("{before}{start}| Value | What it is | Default |\n| --- | --- | --- |\n{table}{end}{after}"));
}

/// The names of a schema that `value` does not have, and the other way.
fn differences(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let fields = value.as_object().unwrap_or_else(|| panic!("{path} is no object"));
    found.extend(
        properties.keys().filter(|key| !fields.contains_key(*key)).map(|key| format!("{path}.{key} is only in the schema")),
    );
    found.extend(
        fields.keys().filter(|key| !properties.contains_key(*key)).map(|key| format!("{path}.{key} is not in the schema")),
    );
    assert!(path == ".global" || schema["additionalProperties"] == false, "{path} admits unknown names");
    for (key, schema) in properties {
        differences(schema, &value[key], &format!("{path}.{key}"), found);
    }
}

#[test]
fn the_schema_has_the_names_of_the_values() {
    let Some(values) = values(&fs::read_to_string(chart().join("values.yaml")).unwrap()) else { return };
    let schema = serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let mut found = Vec::new();
    differences(&schema, &values, "", &mut found);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_chart_has_the_version_of_the_programs() {
    let text = fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.contains(&format!("\nversion: {version}\n")) && text.contains(&format!("\nappVersion: \"{version}\"\n")));
    assert!(text.contains(&format!("p2pdi:{version}\n")), "the image in the annotations");
}
