//! Files that cannot be used, each with its error.

use super::certificates::Authority;
use p2pdi::tls::{ClientAuth, Tls, TlsFiles};
use std::{fs, path::PathBuf};

#[test]
fn each_fault_of_a_file_has_its_error() {
    let (network, folder) = (Authority::new("network"), tempfile::tempdir().unwrap());
    let files = network.files(folder.path(), &["fff-a"]);
    let good = |files: &TlsFiles| Tls::from_files(files.clone(), ClientAuth::Required);
    assert!(good(&files).is_ok());
    let file = |name: &str, text: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let other_key = network.issue(&["fff-a"]).key;
    let der = file("cert.der", &network.issue(&["fff-a"]).certificate.der()[..]);
    let cut = file("cut.pem", b"-----BEGIN CERTIFICATE-----\nMIIB");
    let encrypted = file("encrypted.pem", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let garbage = file("garbage.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let other_key = file("other-key.pem", other_key.serialize_pem().as_bytes());
    let missing = folder.path().join("missing.pem");
    for (wrong, words) in [
        (TlsFiles { cert: Some(missing.clone()), ..files.clone() }, "cannot read the certificate file"),
        (TlsFiles { key: Some(missing.clone()), ..files.clone() }, "cannot read the key file"),
        (TlsFiles { ca: missing, ..files.clone() }, "cannot read the CA file"),
        (TlsFiles { cert: Some(der), ..files.clone() }, "is not PEM"),
        (TlsFiles { cert: Some(cut), ..files.clone() }, "is not PEM"),
        (TlsFiles { cert: Some(garbage), ..files.clone() }, "it is not a valid X.509 certificate"),
        (TlsFiles { cert: files.key.clone(), ..files.clone() }, "holds no certificate"),
        (TlsFiles { key: files.cert.clone(), ..files.clone() }, "holds no private key"),
        (TlsFiles { key: Some(encrypted), ..files.clone() }, "has a password"),
        (TlsFiles { key: Some(other_key), ..files.clone() }, "does not belong to the certificate"),
        (TlsFiles { ca: files.cert.clone().unwrap(), ..files.clone() }, "is not a CA's"),
        (TlsFiles { key: None, ..files }, "a certificate needs its key"),
    ] {
        let error = good(&wrong).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} lacks {words:?}");
    }
}

#[test]
fn files_that_change_are_used_and_bad_ones_are_not() {
    let (network, folder) = (Authority::new("network"), tempfile::tempdir().unwrap());
    let files = network.files(folder.path(), &["fff-a"]);
    let tls = Tls::from_files(files.clone(), ClientAuth::Required).unwrap();
    let serial = || tls.identity().unwrap().serial().clone();
    assert!(!tls.reload().unwrap());
    let first = serial();
    network.issue(&["fff-a"]).write(&files);
    assert!(tls.reload().unwrap());
    let second = serial();
    assert_ne!(first, second);
    fs::write(files.key.as_ref().unwrap(), network.issue(&["fff-a"]).key.serialize_pem()).unwrap();
    for _ in 0..2 {
        assert!(tls.reload().unwrap_err().to_string().contains("does not belong"));
        assert_eq!(serial(), second);
    }
    network.issue(&["fff-a"]).write(&files);
    assert!(tls.reload().unwrap() && serial() != second);
}
