//! Settings that can be checked only together.

use super::NodeConfig;
use crate::documents::restrictions::{Restrictions, ShareTo};
use p2pdi::{field::InvalidField, tls::TlsError};
use std::path::{Path, PathBuf};

/// A secret in the share could be fetched by every peer. What cannot be found is reported where it is used.
///
/// # Errors
/// When the file that `flag` names is in the share.
pub fn check_not_shared(share: Option<&Path>, flag: &'static str, secret: Option<&Path>) -> Result<(), InvalidField> {
    let (Some(share), Some(secret)) = (share, secret) else { return Ok(()) };
    let (Ok(folder), Ok(file)) = (share.canonicalize(), secret.canonicalize()) else { return Ok(()) };
    if !file.starts_with(&folder) {
        return Ok(());
    }
    let (secret, share) = (secret.display(), share.display());
    Err(InvalidField::new(
        flag,
        format!("{secret} is in the folder of --share, {share}, where others can fetch it; keep it elsewhere"),
    ))
}

impl NodeConfig {
    /// Others refuse a peer whose certificate is for another name, or of another network; and it refuses those of other networks.
    ///
    /// # Errors
    /// When it is.
    pub(crate) fn check_name(&self) -> Result<(), InvalidField> {
        let Some(tls) = &self.tls else { return Ok(()) };
        tls.set_network(&self.network).map_err(|error| InvalidField::new("network", error.to_string()))?;
        let identity = tls.identity().ok_or_else(|| InvalidField::new("tls-cert", TlsError::NoCertificate.to_string()))?;
        let name = &self.name;
        if identity.has_name(name) {
            return Ok(());
        }
        let problem = format!("{name} is not in the certificate, which is for {identity}; give one of its names with --name");
        Err(InvalidField::new("name", problem))
    }

    /// What of the share is for some peers only. Blocks while it looks at folders.
    ///
    /// # Errors
    /// When a folder is not in the share, or there are no certificates.
    pub(crate) fn restrictions(&self) -> Result<Restrictions, InvalidField> {
        if self.share_to.is_empty() {
            return Ok(Restrictions::default());
        }
        let wrong = |problem: String| InvalidField::new("share-to", problem);
        let share =
            self.share.as_ref().ok_or_else(|| wrong("names a folder in the one of --share, which is missing".to_owned()))?;
        if self.tls.is_none() {
            let why =
                "needs certificates (--tls-cert, --tls-key, --tls-ca): without them the name of a caller is only what it says";
            return Err(wrong(why.to_owned()));
        }
        let real = |folder: &Path| -> Result<PathBuf, InvalidField> {
            folder.canonicalize().map_err(|error| wrong(format!("cannot find the folder {}: {error}", folder.display())))
        };
        let mut given = Vec::new();
        for ShareTo { folder, who } in &self.share_to {
            let real = real(folder)?;
            if !real.is_dir() {
                let problem = format!("names {}, which is not a folder; name the folder that it is in", folder.display());
                return Err(wrong(problem));
            }
            given.push(ShareTo { folder: real, who: who.clone() });
        }
        Restrictions::new(&real(share)?, given)
    }
}
