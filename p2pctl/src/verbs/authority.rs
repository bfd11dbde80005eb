//! ca: a certificate authority in a folder, without a registry.

use super::{certificates, tokens};
use crate::{
    args::{Ca, CaFolder, CaWhat, Global, Issue},
    failure::{Failure, Outcome},
    printer::{Printer, date},
};
use p2pdi::{network::NetworkName, private_file, selector::validate_labels};
use registry::ca::{Authority, CaCertificate, CaSettings, Subject, certificates_in};
use serde_json::{Value, json};
use std::{fs, path::Path, time::SystemTime};
use tokio_util::sync::CancellationToken;

/// The certificates of the authority, beside its own files.
const BUNDLE: &str = "ca.pem";

pub(super) async fn ca(global: &Global, args: Ca, printer: Printer) -> Outcome {
    match args.what {
        CaWhat::Init(folder) => init(&folder, global.network.clone(), printer),
        CaWhat::Issue(args) => issue(args, printer),
        CaWhat::Show(folder) => show(&folder, printer),
        CaWhat::Kubernetes(args) => Box::pin(certificates::keep(global, *args, printer)).await,
        // With --follow it has an end only where its caller gives it one.
        CaWhat::Copy(args) => certificates::copy(args, printer, CancellationToken::new()).await,
        CaWhat::Rotate(by) => tokens::rotate(global, &by, printer).await,
    }
}

fn init(folder: &CaFolder, network: NetworkName, printer: Printer) -> Outcome {
    if certificates_in(&folder.path).is_ok() {
        let message = format!("{} has a certificate authority already", folder.path.display());
        return Err(Failure::refused(message).hint("`p2pctl ca show` shows it, `p2pctl ca rotate` replaces its key"));
    }
    Authority::open(&folder.path, CaSettings { network, ..CaSettings::default() }, SystemTime::now())?;
    show(folder, printer)
}

fn show(folder: &CaFolder, printer: Printer) -> Outcome {
    let all = certificates_in(&folder.path)?;
    if printer.is_json() {
        return Ok(printer.json(&all.iter().map(as_json).collect())?);
    }
    let rows: Vec<_> = all.iter().map(row).collect();
    printer.table(&["GENERATION", "SHA-256", "FROM", "UNTIL"], &rows)?;
    Ok(printer.text(&format!("certificates: {}", folder.path.join(BUNDLE).display()))?)
}

fn row(ca: &CaCertificate) -> Vec<String> {
    vec![ca.generation.to_string(), ca.sha256.to_string(), date(ca.not_before), date(ca.not_after)]
}

fn as_json(ca: &CaCertificate) -> Value {
    json!({
        "generation": ca.generation,
        "sha256": ca.sha256.to_string(),
        "not_before": date(ca.not_before),
        "not_after": date(ca.not_after),
    })
}

fn issue(args: Issue, printer: Printer) -> Outcome {
    let Issue { folder, name, labels, operator, life, out } = args;
    let subject = Subject { name: name.clone(), labels: labels.into_iter().collect(), operator };
    validate_labels(&subject.labels)?;
    let authority = Authority::open_existing(&folder.path)?;
    let (certificate, key) = authority.issue(subject, life, SystemTime::now())?;
    let bundle = folder.path.join(BUNDLE);
    let ca = fs::read(&bundle).map_err(|error| Failure::refused(format!("cannot read {}: {error}", bundle.display())))?;
    let write = |file: &str, content: &[u8]| write(&out.join(file), content);
    let (certificate_file, key_file) = (format!("{name}.pem"), format!("{name}-key.pem"));
    write(&key_file, key.as_bytes())?;
    write(&certificate_file, certificate.as_bytes())?;
    write(BUNDLE, &ca)?;
    let path = |file: &str| out.join(file).display().to_string();
    if printer.is_json() {
        let files = json!({ "tls_cert": path(&certificate_file), "tls_key": path(&key_file), "tls_ca": path(BUNDLE) });
        return Ok(printer.json(&files)?);
    }
    let flags = format!("--tls-cert {} --tls-key {} --tls-ca {}", path(&certificate_file), path(&key_file), path(BUNDLE));
    Ok(printer.text(&flags)?)
}

fn write(path: &Path, content: &[u8]) -> Outcome {
    private_file::write(path, content).map_err(|error| Failure::refused(format!("cannot write {}: {error}", path.display())))
}
