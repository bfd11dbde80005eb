//! Where etcd is.

use std::path::PathBuf;

/// Where etcd is, and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAddress {
    /// URLs of members, at least one, such as `http://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// What all keys begin with; one prefix is one registry.
    pub prefix: String,
    /// Certificates, for endpoints with `https://`, which need a CA.
    pub files: EtcdFiles,
    /// User and password.
    pub user: Option<(String, String)>,
}

/// PEM files for TLS with etcd.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdFiles {
    /// The CA of etcd's members.
    pub ca: Option<PathBuf>,
    /// The certificate and key to show.
    pub identity: Option<(PathBuf, PathBuf)>,
}
