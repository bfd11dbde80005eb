//! The chart, rendered once for each set of values.

use crate::support::tools::{helm, kubernetes_validate};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

/// What all renders are together.
pub(crate) struct Renders {
    /// By the name of the set of values: `ci/NAME-values.yaml` or `values-ha.yaml`.
    pub(crate) sets: BTreeMap<String, Vec<Value>>,
    /// Versions of Kubernetes that the documents were checked against.
    pub(crate) versions: Vec<String>,
    /// What their schemas say.
    pub(crate) errors: Vec<String>,
}

static RENDERS: LazyLock<Option<Renders>> = LazyLock::new(|| {
    let helm = helm()?;
    let mut texts = BTreeMap::new();
    for set in value_sets() {
        let name = set.strip_prefix(chart()).unwrap().display().to_string();
        texts.insert(name, succeeds(Command::new(&helm).args(template(&[])).arg("--values").arg(&set)));
    }
    let read = documents(&texts)?;
    let list = |key: &str| serde_json::from_value(read[key].clone()).unwrap();
    Some(Renders {
        sets: serde_json::from_value(read["documents"].clone()).unwrap(),
        versions: list("versions"),
        errors: list("errors"),
    })
});

/// All renders; `None` without the tools.
pub(crate) fn renders() -> Option<&'static Renders> {
    RENDERS.as_ref()
}

/// Reads YAML, and checks what is for Kubernetes against its schemas. See documents.py for the form of the result. `None` without the tools.
pub(crate) fn documents(texts: &BTreeMap<String, String>) -> Option<Value> {
    let validator = kubernetes_validate()?;
    // Beside it is the interpreter that has the package.
    let python = Some(validator.with_file_name("python3")).filter(|path| path.is_file());
    let mut child = Command::new(python.unwrap_or_else(|| "python3".into()))
        .arg(root().join("tests/deploy/documents.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It writes only after it has read all.
    child.stdin.take().unwrap().write_all(serde_json::to_string(texts).unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The chart's folder.
pub(crate) fn chart() -> PathBuf {
    root().join("deploy/helm/p2pdi")
}

/// The files with sets of values.
pub(crate) fn value_sets() -> Vec<PathBuf> {
    let mut sets: Vec<_> = fs::read_dir(chart().join("ci")).unwrap().map(|entry| entry.unwrap().path()).collect();
    sets.push(chart().join("values-ha.yaml"));
    sets.sort();
    assert!(sets.len() > 5, "{sets:?}");
    sets
}

/// Arguments of `helm` that render the chart.
pub(crate) fn template(arguments: &[&str]) -> Vec<String> {
    let chart = chart().display().to_string();
    let all = ["template", "p2pdi", &chart, "--namespace", "p2pdi"].into_iter().chain(arguments.iter().copied());
    all.map(str::to_owned).collect()
}

/// Runs a command and returns its standard output.
#[track_caller]
pub(crate) fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}{}", String::from_utf8_lossy(&stdout));
    String::from_utf8(stdout).unwrap()
}

/// `kind/name`.
pub(crate) fn name(document: &Value) -> String {
    format!("{}/{}", document["kind"].as_str().unwrap(), document["metadata"]["name"].as_str().unwrap())
}

/// The pod that a document makes: its template, with metadata and spec.
pub(crate) fn pod(document: &Value) -> Option<&Value> {
    match document["kind"].as_str().unwrap() {
        "Pod" => Some(document),
        "StatefulSet" | "DaemonSet" | "Deployment" | "Job" => Some(&document["spec"]["template"]),
        "CronJob" => Some(&document["spec"]["jobTemplate"]["spec"]["template"]),
        _ => None,
    }
}

/// The containers of a pod, those that run before the others first.
pub(crate) fn containers(pod: &Value) -> Vec<&Value> {
    let list = |key: &str| pod["spec"][key].as_array().into_iter().flatten();
    list("initContainers").chain(list("containers")).collect()
}

/// The strings of a list.
pub(crate) fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
}
