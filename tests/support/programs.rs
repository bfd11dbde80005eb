//! Where the real programs are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::SystemTime,
};

/// The programs of this workspace.
const PROGRAMS: [&str; 3] = ["registry", "peerd", "p2pctl"];

/// The folder they are in, once they are there and no older than what they are made of.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = built_folder();
    if !PROGRAMS.iter().all(|program| is_fresh(&folder.join(program))) {
        build(&folder, &["--workspace", "--bins"]);
    }
    folder
});

/// The path of one of the programs, built if need be.
pub fn program(name: &str) -> PathBuf {
    assert!(PROGRAMS.contains(&name), "{name} is no program of this workspace");
    FOLDER.join(name)
}

/// The path of an example of `peerd`, built if need be: `cargo test` builds it with all tests, `cargo test --test NAME` does not.
pub fn example(name: &str) -> PathBuf {
    let path = built_folder().join("examples").join(name);
    if !is_fresh(&path) {
        build(&built_folder(), &["--package", "peerd", "--example", name]);
    }
    path
}

/// `target/<profile>`: cargo puts a test into `target/<profile>/deps` and programs beside that.
fn built_folder() -> PathBuf {
    let test = env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    assert!(deps.ends_with("deps"), "{} is not where cargo puts tests", test.display());
    deps.parent().unwrap().to_owned()
}

/// Cargo writes beside a program what it is made of: `PROGRAM: SOURCE SOURCE …`. `cargo test --test NAME` builds no program,
/// and a test of an old one would prove nothing.
fn is_fresh(program: &Path) -> bool {
    let Some(built) = modified(program) else { return false };
    let Ok(made_of) = fs::read_to_string(program.with_extension("d")) else { return false };
    let Some((_, sources)) = made_of.split_once(": ") else { return false };
    // A space within a path is written as `\ `.
    let sources = sources.trim_end().replace("\\ ", "\0");
    sources.split(' ').all(|source| modified(Path::new(&source.replace('\0', " "))).is_some_and(|changed| changed <= built))
}

/// When a file changed, or the latest of a folder's: build scripts name folders.
fn modified(path: &Path) -> Option<SystemTime> {
    let own = fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let within = fs::read_dir(path).into_iter().flatten().flatten().filter_map(|entry| modified(&entry.path()));
    own.map(|own| within.fold(own, SystemTime::max))
}

fn build(folder: &Path, what: &[&str]) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("{} names no profile", folder.display()),
    };
    let built = Command::new(env!("CARGO"))
        .arg("build")
        .args(what)
        .args(["--quiet", "--profile", profile, "--target-dir"])
        .arg(folder.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "the programs cannot be built");
}
