//! Where the real programs are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::SystemTime,
};

/// The programs of this workspace, and the file of the image that is all three.
const PROGRAMS: [&str; 4] = ["registry", "peerd", "p2pctl", "p2pdi"];

/// Their folder, set once they are built and not older than their sources.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = built_folder();
    if !PROGRAMS.iter().all(|program| is_fresh(&folder.join(program))) {
        build(&folder, &["--workspace", "--bins"]);
    }
    folder
});

/// The path of one of the programs, which is built if necessary.
pub fn program(name: &str) -> PathBuf {
    assert!(PROGRAMS.contains(&name), "{name} is no program of this workspace");
    FOLDER.join(name)
}

/// The path of an example of `peerd`, which is built if necessary: `cargo test` builds it with all tests, `cargo test --test NAME` does not.
pub fn example(name: &str) -> PathBuf {
    let path = built_folder().join("examples").join(name);
    if !is_fresh(&path) {
        build(&built_folder(), &["--package", "peerd", "--example", name]);
    }
    path
}

/// `target/<profile>`: cargo writes a test to `target/<profile>/deps`, and programs one folder above.
fn built_folder() -> PathBuf {
    let test = env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    assert!(deps.ends_with("deps"), "{} is not where cargo puts tests", test.display());
    deps.parent().unwrap().to_owned()
}

/// Whether a program is newer than its sources. Cargo lists them in a file beside it: `PROGRAM: SOURCE SOURCE …`. `cargo test --test NAME` builds no program,
/// so the one there may be out of date.
fn is_fresh(program: &Path) -> bool {
    let Some(built) = modified(program) else { return false };
    let Ok(made_of) = fs::read_to_string(program.with_extension("d")) else { return false };
    let Some((_, sources)) = made_of.split_once(": ") else { return false };
    // A space within a path is written as `\ `.
    let sources = sources.trim_end().replace("\\ ", "\0");
    sources.split(' ').all(|source| modified(Path::new(&source.replace('\0', " "))).is_some_and(|changed| changed <= built))
}

/// Modification time of a file, or the latest in a folder: build scripts name folders.
fn modified(path: &Path) -> Option<SystemTime> {
    let own = fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let within = fs::read_dir(path).into_iter().flatten().flatten().filter_map(|entry| modified(&entry.path()));
    own.map(|own| within.fold(own, SystemTime::max))
}

fn build(folder: &Path, what: &[&str]) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("{} is not the folder of a profile", folder.display()),
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
