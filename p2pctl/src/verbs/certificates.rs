//! ca kubernetes, ca copy: certificates in Secrets of Kubernetes.

use crate::{
    args::{CopyCertificate, Global, InKubernetes, OfPeer, OfSet},
    failure::{Failure, Outcome},
    kubernetes::{Account, Api, MANAGED_BY, Secret},
    printer::{Printer, date},
};
use p2pdi::{
    name::PeerName,
    network::NetworkName,
    phrases::counted,
    private_file,
    tls::{Identity, Pem},
};
use registry::ca::{Signer, Subject};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often it is begun anew when somebody else writes the same Secret at the same time.
const ATTEMPTS: usize = 5;
/// How often `ca copy --follow` looks. The kubelet itself brings a change within a minute or two.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The part of its life after which a certificate is replaced.
const REPLACED_AFTER: (u32, u32) = (2, 3);
/// Keys of a Secret of the type kubernetes.io/tls, and the CA beside them, as cert-manager names them.
const TLS_CERT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const TLS_CA: &str = "ca.crt";
/// The type of a Secret with one certificate.
const ONE: &str = "kubernetes.io/tls";
/// The type of any other.
const SEVERAL: &str = "Opaque";

/// One certificate of a Secret.
struct Wanted<'a> {
    cert: String,
    key: String,
    of: Of<'a>,
}

/// Whom a certificate is for.
enum Of<'a> {
    Registry(&'a [String]),
    Peer(&'a PeerName),
}

/// A Secret that is to be kept, and its certificates.
struct Target<'a> {
    secret: &'a str,
    kind: &'static str,
    certificates: Vec<Wanted<'a>>,
}

/// What became of a Secret.
#[derive(Debug, PartialEq)]
pub(super) struct Kept {
    secret: String,
    /// It was not there.
    is_new: bool,
    /// Certificates that were made.
    made: usize,
    /// Until when the first of its certificates is valid, in seconds since 1970; 0: it has none.
    until: u64,
}

pub(super) async fn keep(global: &Global, args: InKubernetes, printer: Printer) -> Outcome {
    let api = Api::open(Account::of_pod()?)?;
    let kept = keep_in(&api, &args, &global.network, SystemTime::now()).await?;
    if printer.is_json() {
        return Ok(printer.json(&kept.iter().map(as_json).collect())?);
    }
    let rows: Vec<_> = kept.iter().map(row).collect();
    printer.table(&["SECRET", "", "VALID UNTIL"], &rows)?;
    Ok(printer.text(&format!("in namespace {}", api.namespace()))?)
}

fn row(kept: &Kept) -> Vec<String> {
    let done = match (kept.is_new, kept.made) {
        (true, _) => "made".to_owned(),
        (false, 0) => "kept".to_owned(),
        (false, made) => format!("{} made anew", counted(made as u64, "certificate")),
    };
    vec![kept.secret.clone(), done, if kept.until == 0 { "-".to_owned() } else { date(kept.until) }]
}

fn as_json(kept: &Kept) -> serde_json::Value {
    json!({ "secret": kept.secret, "is_new": kept.is_new, "made": kept.made, "until": date(kept.until) })
}

/// Keeps the authority and every certificate that is asked for, as of `now`.
pub(super) async fn keep_in(api: &Api, args: &InKubernetes, network: &NetworkName, now: SystemTime) -> Outcome<Vec<Kept>> {
    let targets = targets(args)?;
    let labels: BTreeMap<_, _> = args.labels.iter().cloned().collect();
    let (signer, authority) = authority(api, args, network, &labels, now).await?;
    let mut kept = vec![authority];
    for target in &targets {
        kept.push(keep_target(api, target, &signer, &labels, args.life, now).await?);
    }
    Ok(kept)
}

fn targets(args: &InKubernetes) -> Outcome<Vec<Target<'_>>> {
    let one = |of| vec![Wanted { cert: TLS_CERT.to_owned(), key: TLS_KEY.to_owned(), of }];
    let registry = args.registry_secret.iter().map(|secret| (secret, ONE, one(Of::Registry(&args.hosts))));
    let peers = args.peers.iter().map(|OfPeer { secret, name }| (secret, ONE, one(Of::Peer(name))));
    let sets = args.sets.iter().map(|OfSet { secret, names }| {
        let wanted = |name| Wanted { cert: format!("{name}.crt"), key: format!("{name}.key"), of: Of::Peer(name) };
        (secret, SEVERAL, names.iter().map(wanted).collect())
    });
    let targets = registry.chain(peers).chain(sets);
    let targets: Vec<_> =
        targets.map(|(secret, kind, certificates)| Target { secret: secret.as_str(), kind, certificates }).collect();
    let mut names = BTreeSet::from([args.ca_secret.as_str()]);
    match targets.iter().find(|target| !names.insert(target.secret)) {
        Some(target) => Err(Failure::usage(format!("Secret {} is given twice; each has a purpose of its own", target.secret))),
        None => Ok(targets),
    }
}

/// The Secret as it is, or a new one. Nobody else's is touched.
async fn ours(api: &Api, name: &str, kind: &str, labels: &BTreeMap<String, String>) -> Outcome<Secret> {
    match api.secret(name).await? {
        None => Ok(Secret::new(name, kind, labels)),
        Some(secret) if secret.is_ours() => Ok(secret),
        Some(_) => {
            let (label, value) = MANAGED_BY;
            Err(Failure::refused(format!(
                "Secret {name} is there already, and this program did not make it: it was left as it is"
            ))
            .hint(format!("delete or rename it, or give it the label {label}={value} if it may be written")))
        }
    }
}

fn conflict(secret: &str) -> Failure {
    Failure::refused(format!("somebody else writes Secret {secret} again and again")).hint("try again later")
}

/// The authority of the Secret, which is made, or gets a new key, if that is due. It is stored before it signs.
async fn authority(
    api: &Api,
    args: &InKubernetes,
    network: &NetworkName,
    labels: &BTreeMap<String, String>,
    now: SystemTime,
) -> Outcome<(Signer, Kept)> {
    for _ in 0..ATTEMPTS {
        let mut secret = ours(api, &args.ca_secret, SEVERAL, labels).await?;
        // An authority works on a folder. In the chart it is in memory.
        let folder = tempfile::tempdir()?;
        for (file, content) in secret.data.iter().filter(|(file, _)| is_of_authority(file)) {
            private_file::write(&folder.path().join(file), content)?;
        }
        let signer = Signer::open(folder.path(), network, args.rotate_after, now)?;
        let mut data = BTreeMap::from([(TLS_CA.to_owned(), signer.trusted(now).into_bytes())]);
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if is_of_authority(&file) {
                data.insert(file, fs::read(entry.path())?);
            }
        }
        let (is_new, made) = (secret.is_new(), usize::from(secret.data != data));
        secret.data = data;
        if made == 0 || api.write(&secret).await? {
            return Ok((signer, Kept { secret: args.ca_secret.clone(), is_new, made, until: 0 }));
        }
    }
    Err(conflict(&args.ca_secret))
}

/// Whether it is a file of the authority's own, such as `ca-1.pem`.
fn is_of_authority(file: &str) -> bool {
    let number = file.strip_prefix("ca-").and_then(|rest| rest.strip_suffix(".pem"));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

async fn keep_target(
    api: &Api,
    target: &Target<'_>,
    signer: &Signer,
    labels: &BTreeMap<String, String>,
    life: Duration,
    now: SystemTime,
) -> Outcome<Kept> {
    for _ in 0..ATTEMPTS {
        let mut secret = ours(api, target.secret, target.kind, labels).await?;
        let mut data = BTreeMap::from([(TLS_CA.to_owned(), signer.trusted(now).into_bytes())]);
        let (mut made, mut until) = (0, u64::MAX);
        for wanted in &target.certificates {
            let present =
                secret.text(&wanted.cert).and_then(identity).filter(|present| !wanted.is_due(present, signer, life, now));
            let old = secret.data.get(&wanted.cert).zip(secret.data.get(&wanted.key));
            let (cert, key, identity) = match present.zip(old) {
                Some((present, (cert, key))) => (cert.clone(), key.clone(), present),
                None => {
                    made += 1;
                    wanted.make(signer, life, now)?
                }
            };
            until = until.min(identity.not_after().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
            data.insert(wanted.cert.clone(), cert);
            data.insert(wanted.key.clone(), key);
        }
        let is_new = secret.is_new();
        let is_changed = is_new || secret.data != data;
        secret.data = data;
        if !is_changed || api.write(&secret).await? {
            let until = if target.certificates.is_empty() { 0 } else { until };
            return Ok(Kept { secret: target.secret.to_owned(), is_new, made, until });
        }
    }
    Err(conflict(target.secret))
}

/// What a certificate says; `None`: it cannot be read.
fn identity(pem: &str) -> Option<Identity> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().ok()?;
    Identity::of_chain(chain).ok()
}

impl Wanted<'_> {
    /// Whether a new certificate has to take the place of this one.
    fn is_due(&self, present: &Identity, signer: &Signer, life: Duration, now: SystemTime) -> bool {
        let is_of = match self.of {
            Of::Registry(hosts) => present.is_registry() && hosts.iter().all(|host| present.is_for_host(host)),
            Of::Peer(name) => !present.is_registry() && present.names() == [name.clone()],
        };
        let whole = present.not_after().duration_since(present.not_before()).unwrap_or_default();
        let replaced_at = present.not_before() + whole * REPLACED_AFTER.0 / REPLACED_AFTER.1;
        let is_signed = present.chain().first().is_some_and(|certificate| signer.has_signed(certificate));
        // Also one that is to live shorter from now on.
        !is_of || !is_signed || now >= replaced_at || present.not_after() > now + life
    }

    fn make(&self, signer: &Signer, life: Duration, now: SystemTime) -> Outcome<(Vec<u8>, Vec<u8>, Identity)> {
        let Pem { cert, key, .. } = match self.of {
            Of::Registry(hosts) => signer.registry(hosts, life, now)?,
            Of::Peer(name) => {
                signer.subject(&Subject { name: name.clone(), labels: BTreeMap::new(), operator: false }, life, now)?
            }
        };
        let (cert, key) = (cert.unwrap_or_default(), key.unwrap_or_default());
        let identity = std::str::from_utf8(&cert).ok().and_then(identity);
        let identity = identity.ok_or_else(|| Failure::refused("a certificate that was just made cannot be read"))?;
        Ok((cert, key, identity))
    }
}

/// Copies a peer's own certificate out of a mounted Secret that has those of others, too.
pub(super) async fn copy(args: CopyCertificate, printer: Printer, stop: CancellationToken) -> Outcome {
    let mut copied = copy_once(&args)?;
    printer.note(&format!("the certificate of {} is in {}", args.name, args.to.display()));
    if !args.follow {
        return Ok(());
    }
    let mut problem = None;
    while stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
        let found = read_mounted(&args);
        let next = match found {
            Ok(found) if found == copied => continue,
            Ok(_) => copy_once(&args),
            Err(error) => Err(error),
        };
        match next {
            Ok(next) => {
                (copied, problem) = (next, None);
                printer.note(&format!("the new certificate of {} is in {}", args.name, args.to.display()));
            }
            // Said once: the peer goes on with what it has.
            Err(failure) => {
                let text = failure.to_string();
                if problem.as_ref() != Some(&text) {
                    printer.note(&format!("warning: {text}"));
                }
                problem = Some(text);
            }
        }
    }
    Ok(())
}

/// Certificate, key and CA.
type Files = [(&'static str, Vec<u8>); 3];

fn copy_once(args: &CopyCertificate) -> Outcome<Files> {
    let files = read_mounted(args)?;
    for (file, content) in &files {
        let path = args.to.join(file);
        private_file::write(&path, content)
            .map_err(|error| Failure::refused(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(files)
}

fn read_mounted(args: &CopyCertificate) -> Outcome<Files> {
    // The kubelet replaces all files at once, by a link to another folder.
    let folder = fs::canonicalize(args.from.join("..data")).unwrap_or_else(|_| args.from.clone());
    let read = |file: &str| {
        fs::read(folder.join(file)).map_err(|error| {
            Failure::refused(format!("cannot read {} in {}: {error}", file, args.from.display())).hint(format!(
                "the Secret there has no certificate of {}: `p2pctl ca kubernetes` makes it, as `helm upgrade` does",
                args.name
            ))
        })
    };
    // The key first: a peer that looks meanwhile finds a pair that does not fit, and looks again.
    Ok([
        (TLS_KEY, read(&format!("{}.key", args.name))?),
        (TLS_CERT, read(&format!("{}.crt", args.name))?),
        (TLS_CA, read(TLS_CA)?),
    ])
}

#[cfg(test)]
mod tests;
