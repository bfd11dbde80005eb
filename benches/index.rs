//! Time to index a folder: without a cache and with one. For comparison, in the same run and with the same warm page cache: reading and
//! hashing every file on one thread, and reading only the metadata of every file.
//!
//! `cargo bench --bench index -- [--json]`. `P2PDI_RFC_DIR` is a folder of RFC texts; the default is `testdata/rfc`.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for developers")]

use p2pdi::metrics::Metrics;
use peerd::documents::share::{Share, ShareConfig};
use std::{
    env,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};
use tokio_util::sync::CancellationToken;

const GENERATED: usize = 10_000;
const GENERATED_MAX_BYTES: usize = 40_000;
const FOLDERS: usize = 50;
const REPEATS: usize = 5;

struct Figures {
    name: &'static str,
    files: usize,
    bytes: u64,
    first_ms: f64,
    cached_ms: f64,
    read_and_hash_ms: f64,
    stat_ms: f64,
}

fn main() {
    let json = env::args().any(|argument| argument == "--json");
    let scratch = tempfile::tempdir().unwrap();
    let rfcs = env::var_os("P2PDI_RFC_DIR").map_or_else(|| PathBuf::from("testdata/rfc"), PathBuf::from);
    let rfcs = rfcs.is_dir().then(|| measure("rfc", &rfcs, scratch.path()));
    let generated = scratch.path().join("generated");
    generate(&generated).unwrap();
    let figures: Vec<_> = rfcs.into_iter().chain([measure("generated", &generated, scratch.path())]).collect();
    if json {
        let rows = figures.iter().map(|f| {
            serde_json::json!({
                "name": f.name, "files": f.files, "bytes": f.bytes,
                "first_ms": f.first_ms, "cached_ms": f.cached_ms,
                "yardstick_read_and_hash_one_thread_ms": f.read_and_hash_ms, "yardstick_stat_ms": f.stat_ms,
                "first_ratio": f.first_ms / f.read_and_hash_ms, "cached_ratio": f.cached_ms / f.stat_ms,
            })
        });
        println!("{}", serde_json::Value::from_iter(rows));
        return;
    }
    for f in figures {
        println!("{}: {} files, {:.1} MiB", f.name, f.files, f.bytes as f64 / f64::from(1 << 20));
        println!(
            "  first index      {:8.1} ms   {:.2} x reading and hashing on one thread ({:.1} ms)",
            f.first_ms,
            f.first_ms / f.read_and_hash_ms,
            f.read_and_hash_ms
        );
        println!(
            "  index from cache {:8.1} ms   {:.2} x reading the metadata of every file ({:.1} ms)",
            f.cached_ms,
            f.cached_ms / f.stat_ms,
            f.stat_ms
        );
    }
}

fn measure(name: &'static str, folder: &Path, scratch: &Path) -> Figures {
    let (mut files, mut bytes) = (0, 0);
    let mut hash = || {
        (files, bytes) = (0, 0);
        visit(folder, &mut |path| {
            let mut content = Vec::new();
            File::open(path)?.read_to_end(&mut content)?;
            std::hint::black_box(blake3::hash(&content));
            files += 1;
            bytes += content.len() as u64;
            Ok(())
        })
    };
    hash().unwrap();
    let read_and_hash_ms = median(|| hash().unwrap());
    let stat_ms = median(|| visit(folder, &mut |path| std::hint::black_box(path.symlink_metadata()).map(|_| ())).unwrap());

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let state = scratch.join(name);
    let index = |state: &Path| {
        fs::create_dir_all(state).unwrap();
        let started = Instant::now();
        let (share, indexer) =
            Share::open(ShareConfig::new(Some(folder.to_owned()), state.to_owned()), &Metrics::default()).unwrap();
        let stop = CancellationToken::new();
        let task = runtime.spawn(indexer.run(stop.clone()));
        runtime.block_on(share.settled());
        let elapsed = started.elapsed();
        stop.cancel();
        runtime.block_on(task).unwrap();
        (elapsed, share.index().len(), share.progress().borrow().hashed_bytes)
    };
    let (mut firsts, mut cached) = (Vec::new(), Vec::new());
    for repeat in 0..REPEATS {
        let state = state.with_extension(repeat.to_string());
        let (elapsed, found, hashed) = index(&state);
        assert_eq!((found, hashed), (files, bytes), "everything is indexed");
        firsts.push(elapsed);
        let (elapsed, found, hashed) = index(&state);
        assert_eq!((found, hashed), (files, 0), "nothing is hashed again");
        cached.push(elapsed);
    }
    Figures { name, files, bytes, first_ms: middle(firsts), cached_ms: middle(cached), read_and_hash_ms, stat_ms }
}

fn median(mut run: impl FnMut()) -> f64 {
    middle(
        (0..REPEATS)
            .map(|_| {
                let started = Instant::now();
                run();
                started.elapsed()
            })
            .collect(),
    )
}

fn middle(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3
}

fn visit(folder: &Path, file: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { visit(&entry.path(), file)? } else { file(&entry.path())? }
    }
    Ok(())
}

/// Files of up to 40 KB that were last modified an hour ago.
fn generate(folder: &Path) -> io::Result<()> {
    let line = b"The quick brown fox jumps over the lazy dog, and the dog writes a request for comments.\n";
    let text = line.repeat(GENERATED_MAX_BYTES / line.len() + 1);
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for i in 0..GENERATED {
        let below = folder.join(format!("{:02}", i % FOLDERS));
        if i < FOLDERS {
            fs::create_dir_all(&below)?;
        }
        let mut file = File::create(below.join(format!("rfc{}.txt", i + 1)))?;
        let length = i * 7919 % GENERATED_MAX_BYTES;
        writeln!(file, "{i}")?;
        file.write_all(text.get(..length).unwrap_or_default())?;
        file.set_modified(hour_ago)?;
    }
    Ok(())
}
