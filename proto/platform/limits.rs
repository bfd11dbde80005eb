//! Limits of the process and priorities of its threads.

use std::io;

/// Niceness of a background thread: half of the range, so that it still makes progress under load.
const NICE: i32 = 10;

/// Raises the soft limit of open files and sockets to the hard one. The soft limit is 1,024 on most systems, for compatibility with programs
/// that use `select(2)`. For the `main` of a server: a library leaves the limits of its process alone.
///
/// Does nothing where the system has no such limit or refuses; [`descriptor_limit`] gives the resulting limit.
pub fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if limit.current != limit.maximum
            && let Err(error) = setrlimit(Resource::Nofile, raised)
        {
            tracing::debug!(%error, "cannot raise the limit of open files");
        }
    }
}

/// How many files and sockets the process may have open at once; `None` where there is no limit.
pub fn descriptor_limit() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}

/// Whether an error means that the process or the system is short of descriptors or memory. It does not concern the file that was to be
/// opened or read: the same call can succeed a moment later.
pub fn is_shortage(error: &io::Error) -> bool {
    if error.kind() == io::ErrorKind::OutOfMemory {
        return true;
    }
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS))
    }
    #[cfg(not(unix))]
    false
}

/// Lowers the priority of the calling thread, for background work. Where the system has no priorities of threads (only Linux
/// reads `setpriority(2)` so), or refuses, the thread keeps its priority.
pub fn lower_thread_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = NICE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn too_many_open_files_is_a_shortage_and_a_missing_file_is_none() {
        use rustix::io::Errno;
        assert!(is_shortage(&Errno::MFILE.into()) && is_shortage(&Errno::NFILE.into()));
        assert!(!is_shortage(&Errno::NOENT.into()) && !is_shortage(&Errno::ACCESS.into()));
    }

    #[test]
    fn raising_the_descriptor_limit_never_lowers_it() {
        let before = descriptor_limit();
        raise_descriptor_limit();
        assert!(descriptor_limit().unwrap_or(u64::MAX) >= before.unwrap_or(u64::MAX));
    }
}
