//! What the process uses.

use std::{fs, time::Duration};

/// Clock ticks per second in `/proc`: `USER_HZ`, which is 100 on every architecture that Rust supports (`proc_pid_stat(5)`).
const TICKS_PER_SECOND: u64 = 100;

/// What the process uses now. Each is `None` where the system does not say: only Linux has `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessStats {
    /// Processor time, of all threads, in user and system mode.
    pub cpu: Option<Duration>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open files and sockets.
    pub open_descriptors: Option<u64>,
    /// Its start, since 1970.
    pub started: Option<Duration>,
}

impl ProcessStats {
    /// Reads them. Takes some microseconds, and longer with many open files.
    pub fn read() -> Self {
        if !cfg!(target_os = "linux") {
            return Self::default();
        }
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let (stat, status, boot) = (text("/proc/self/stat"), text("/proc/self/status"), text("/proc/stat"));
        // The fields after the program's name, which is in parentheses and may contain spaces. The first is field 3 of the manual.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().collect()).unwrap_or_default();
        let ticks = |field: usize| fields.get(field - 3)?.parse().ok().map(duration);
        let value = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        let booted = value(&boot, "btime ").map(Duration::from_secs);
        Self {
            cpu: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
            resident_bytes: value(&status, "VmRSS:").map(|kib| kib * 1024),
            virtual_bytes: value(&status, "VmSize:").map(|kib| kib * 1024),
            threads: value(&status, "Threads:"),
            // The folder itself is open while it is read.
            open_descriptors: fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1)),
            started: booted.zip(ticks(22)).map(|(booted, after)| booted + after),
        }
    }
}

fn duration(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1_000 / TICKS_PER_SECOND))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn this_process_has_memory_threads_files_and_a_start() {
        let stats = ProcessStats::read();
        assert!(stats.resident_bytes.unwrap() > 100_000 && stats.virtual_bytes >= stats.resident_bytes, "{stats:?}");
        assert!(stats.threads.unwrap() >= 1 && stats.open_descriptors.unwrap() >= 3 && stats.cpu.is_some(), "{stats:?}");
        let age = SystemTime::UNIX_EPOCH.elapsed().unwrap().checked_sub(stats.started.unwrap());
        // The system's clock may have been set since it started.
        assert!(age.is_none_or(|age| age < Duration::from_secs(1_000_000)), "{stats:?} {age:?}");
    }
}
