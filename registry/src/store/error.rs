//! Why a store cannot be used.

use p2pdi::platform::is_no_room;
use std::{io, path::PathBuf};

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the state folder {} is in use by another registry", .0.display())]
    Locked(PathBuf),
    /// The folder cannot be created or opened.
    #[error("cannot use the state folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file exists but is not in the format that this program writes.
    #[error("{} is damaged, or is not a registry's file: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A newer registry wrote the file.
    #[error("{} was written by a newer registry (format {found}, this one knows {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format that this program reads.
        known: u64,
    },
    /// No member of etcd answers, or none lets this registry in.
    #[error("cannot use etcd at {endpoints}: {problem}")]
    Unreachable {
        /// The URLs of its members.
        endpoints: String,
        /// What went wrong.
        problem: String,
    },
    /// This program was built without the store.
    #[error("this registry was built without etcd")]
    NoEtcd,
    /// A file of a certificate or key cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// What the keys say is not what this registry keeps.
    #[error("the keys of etcd below {prefix} {problem}")]
    Foreign {
        /// The prefix.
        prefix: String,
        /// What they are.
        problem: String,
    },
    /// Reading or writing failed.
    #[error("cannot {doing}: {problem}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// The system's error.
        problem: String,
    },
}

impl StoreError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Locked(_) => "stop the other one, or give this one another folder with --state DIR".to_owned(),
            Self::Folder { source, .. } if is_no_room(source) => {
                "free space on its disk, give a folder on another one with --state DIR, or run with --state memory".to_owned()
            }
            Self::Folder { .. } => {
                "give a folder that this user may write to with --state DIR, or run with --state memory".to_owned()
            }
            Self::Damaged { path, .. } => format!(
                "{0} was left as it is; restore it from a backup, or move it away to start empty (peers register again by themselves)",
                path.display()
            ),
            Self::Newer { .. } => "run the newer registry, or give this one another folder with --state DIR".to_owned(),
            Self::Unreachable { .. } => {
                "check --etcd-endpoints, that etcd runs there, and --etcd-ca, --etcd-cert, --etcd-key and --etcd-user if it asks for them; the user may read \
                 and write below --etcd-prefix"
                    .to_owned()
            }
            Self::NoEtcd => {
                "use the container image or a package, which have it, or build it: cargo build --release -p registry --features etcd (needs protoc and its include files; Debian: protobuf-compiler libprotobuf-dev)".to_owned()
            }
            Self::File { .. } => "check the path and who may read the file".to_owned(),
            Self::Foreign { .. } => "give this registry another prefix with --etcd-prefix, or start it with the network of that one".to_owned(),
            Self::Failed { doing, .. } if doing.contains("etcd") => "check whether etcd is well: etcdctl endpoint health".to_owned(),
            Self::Failed { .. } => "check whether the disk is full or failing".to_owned(),
        }
    }
}
