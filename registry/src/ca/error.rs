//! Why the authority cannot work.

use super::ledger::Refusal;
use p2pdi::{network::NetworkName, platform::is_no_room};
use std::{io, path::PathBuf};

/// Why the authority cannot work, or refuses.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A rule refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A value is not valid.
    #[error(transparent)]
    Invalid(#[from] p2pdi::field::InvalidField),
    /// The certificate request cannot be read, or its signature is wrong.
    #[error("the certificate request cannot be used: {0}")]
    Request(String),
    /// A certificate cannot be made.
    #[error("cannot sign a certificate: {0}")]
    Signing(String),
    /// The folder, or a file of it, cannot be used.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the CA folder {} is in use by another program", .0.display())]
    Locked(PathBuf),
    /// A file is not what this program wrote.
    #[error("{} is damaged, or is not a registry's file: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder has no certificate authority.
    #[error("{} holds no certificate authority; `p2pctl ca init --ca DIR` or `registry --ca DIR` makes one", .0.display())]
    Missing(PathBuf),
    /// The folder has given certificates, and the key for more is gone.
    #[error("{} has a ledger of what was given, and no key (ca-1.pem, ca-2.pem, …)", .0.display())]
    KeyMissing(PathBuf),
    /// The registries over this etcd are an authority, and this one is to be none.
    #[error(
        "the registries that share this etcd and prefix are a certificate authority, and this one has neither --ca nor certificates"
    )]
    NotShared,
    /// The folder is another network's.
    #[error("the CA in {} is of the network {found}, not {wanted}; give --network {found}, or another folder", path.display())]
    Network {
        /// The folder.
        path: PathBuf,
        /// Its network.
        found: NetworkName,
        /// The network that was asked for.
        wanted: NetworkName,
    },
    /// What was decided cannot be stored; nothing was changed.
    #[error("cannot write to the CA folder: {0}")]
    NotStored(String),
    /// The ledger that several registries share cannot be used now.
    #[error("cannot use the ledger that the registries share: {0}")]
    Shared(String),
    /// The folder's key is not that of the others that share the ledger.
    #[error("{} is not the certificate authority of the other registries, which share the ledger with this one", path.display())]
    OtherKey {
        /// The generation's file.
        path: PathBuf,
    },
    /// The key of a shared authority is in a folder of each registry.
    #[error("this registry shares its authority with others, and cannot make a key for all of them")]
    SharedKey,
    /// The system has no randomness, or no thread.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    /// The certificates that were made cannot be used: a fault of this program.
    #[error(transparent)]
    Tls(#[from] p2pdi::tls::TlsError),
}

impl CaError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } if is_no_room(source) => Some("free space on the disk that the CA folder is on".to_owned()),
            Self::Io { .. } => Some("give a folder that this user may write to with --ca DIR".to_owned()),
            Self::Locked(_) => Some("stop the other program; while a registry runs, call it: `p2pctl token create`".to_owned()),
            Self::Damaged { path, .. } => {
                Some(format!("{} was left as it is; restore the folder from a backup, or give an empty one", path.display()))
            }
            Self::NotStored(_) => Some("check whether the disk is full or failing".to_owned()),
            Self::OtherKey { .. } => {
                Some("copy the files ca-*.pem of another registry's CA folder; `p2pctl ca init` and `p2pctl ca rotate` are for one of them".to_owned())
            }
            Self::KeyMissing(folder) => Some(format!(
                "restore the key from a backup; without one, everybody has to join anew: move {} away and start with a new authority",
                folder.join("ledger.redb").display()
            )),
            Self::NotShared => Some(
                "give it the others' key with --ca DIR, or certificates with --tls-cert, --tls-key and --tls-ca; or another --etcd-prefix".to_owned(),
            ),
            Self::SharedKey => Some(
                "run `p2pctl ca rotate --ca DIR` on a copy of the CA folder, then give its files to every registry within a day; they are read within a minute"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
