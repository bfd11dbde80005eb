//! The authority in its folder, at times of the test's choice.

use super::*;
use p2pdi::{
    enrol::renewal_at,
    selector::NamePattern,
    tls::{ClientAuth, Identity, Pem, Tls, certificates_pem},
    token::{CaHash, TokenSecret},
};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

mod shared;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn open(folder: &Path, now: SystemTime) -> Authority {
    Authority::open(folder, CaSettings::default(), now).unwrap()
}

fn token(authority: &Authority, names: &str, now: SystemTime) -> (TokenSecret, CaHash) {
    let names = NamePattern::parse(names).unwrap().unwrap();
    let labels = [("zone".to_owned(), "a/1".to_owned())].into();
    let token = NewToken { names, labels, life: HOUR, uses: 1, operator: false, rejoin: false, hosts: Vec::new() };
    let (secret, ca, _) = authority.create_token(token, now).unwrap();
    (secret, ca)
}

fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

/// What trusts these authorities and nothing else.
fn trusting(authorities: &[CertificateDer<'static>]) -> Tls {
    Tls::from_pem(Pem { cert: None, key: None, ca: certificates_pem(authorities).into() }, ClientAuth::Required).unwrap()
}

/// A peer, as far as certificates go.
struct Joined {
    key: KeyPair,
    identity: Identity,
    /// As of its latest certificate.
    authorities: Vec<CertificateDer<'static>>,
    renewals: u32,
    /// It is switched off until then.
    off_until: SystemTime,
}

impl Joined {
    fn join(authority: &Authority, name: &str, now: SystemTime) -> Self {
        let (key, (secret, _)) = (KeyPair::generate().unwrap(), token(authority, name, now));
        let enrolled = authority.enrol(&Proof::Token(&secret), &request(&key), None, now).unwrap();
        let identity = Identity::of_chain(enrolled.chain).unwrap();
        Self { key, identity, authorities: authority.trust(0, now).unwrap().authorities, renewals: 0, off_until: now }
    }

    fn renewal_at(&self) -> SystemTime {
        let (from, to) = (self.identity.not_before(), self.identity.not_after());
        renewal_at(from, to, f64::from(self.renewals % 7) / 7.0).max(self.off_until)
    }

    fn renew(&mut self, authority: &Authority, now: SystemTime) {
        let enrolled = authority.enrol(&Proof::Key, &request(&self.key), None, now).unwrap();
        self.identity = Identity::of_chain(enrolled.chain).unwrap();
        self.authorities = authority.trust(0, now).unwrap().authorities;
        self.renewals += 1;
    }

    fn is_off(&self, now: SystemTime) -> bool {
        now < self.off_until || self.identity.not_after() <= now
    }
}

#[test]
fn a_years_renewals_with_a_new_authority_in_between_leave_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let settings = CaSettings { rotate_after: 200 * DAY, ..CaSettings::default() };
    let mut now = start();
    let mut authority = Authority::open(folder.path(), settings.clone(), now).unwrap();
    let first_ca = CaHash::of(&authority.trust(0, now).unwrap().authorities[0]);
    let mut peers: Vec<_> = ["a", "b", "sometimes-off"].map(|name| Joined::join(&authority, name, now)).into();
    let end = start() + 365 * DAY;
    let (mut maintained_at, mut rotated_at, mut off_days) = (now, None, 0_u32);
    while now < end {
        let next = peers.iter().map(Joined::renewal_at).min().unwrap();
        while maintained_at + HOUR < next {
            maintained_at += HOUR;
            let (_, before) = authority.authorities(maintained_at);
            authority.maintain(maintained_at).unwrap();
            if authority.authorities(maintained_at).1 != before {
                assert!(rotated_at.replace(maintained_at).is_none(), "one rotation is due in that time");
                // A restart finds the new one.
                drop(authority);
                authority = Authority::open(folder.path(), settings.clone(), maintained_at).unwrap();
            }
        }
        now = next;
        for peer in peers.iter_mut().filter(|peer| peer.renewal_at() <= now) {
            peer.renew(&authority, now);
        }
        // One machine is off for some days now and then, also while the authority is replaced.
        let passed = u32::try_from(now.duration_since(start()).unwrap().as_secs() / DAY.as_secs()).unwrap();
        if passed / 30 > off_days {
            off_days = passed / 30;
            peers[2].off_until = now + 20 * DAY;
        }
        for peer in peers.iter().filter(|peer| !peer.is_off(now)) {
            assert!(peer.identity.not_before() <= now && now < peer.identity.not_after());
            for other in peers.iter().filter(|other| !other.is_off(now)) {
                // Each accepts each, whichever of them renewed last.
                let accepted = trusting(&other.authorities).check(peer.identity.chain().to_vec(), now);
                accepted.unwrap_or_else(|error| panic!("{:?}: {error}", now.duration_since(start())));
            }
        }
    }
    assert!(peers[0].renewals >= 365 && peers[0].renewals < 650, "{}", peers[0].renewals);
    assert!(peers[2].renewals > 100, "{}", peers[2].renewals);
    let rotated_at = rotated_at.expect("a rotation");
    let authorities = authority.trust(0, now).unwrap().authorities;
    assert_eq!(authorities.len(), 1, "the old authority is not trusted any more");
    assert!(CaHash::of(&authorities[0]) != first_ca);
    assert_eq!(authority.trust(0, rotated_at + OVERLAP - HOUR).unwrap().authorities.len(), 2, "both were for a while");
    assert!(authority.revision() > 0);
}

#[test]
fn what_the_registry_serves_with_proves_itself_to_holders_of_old_and_new_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), start());
    let (_, old) = token(&authority, "a", start());
    let now = start() + DAY;
    let new = authority.rotate(now).unwrap();
    assert_eq!(token(&authority, "b", now).1, new);
    let pem = authority.for_registry(now).unwrap();
    let served = Tls::from_pem(pem, ClientAuth::Optional).unwrap();
    let identity = served.identity().unwrap();
    assert!(identity.is_registry() && identity.network() == Some("default"));
    for hash in [old, new] {
        let named = identity.chain().iter().find(|certificate| CaHash::of(certificate) == hash).unwrap();
        trusting(std::slice::from_ref(named)).check(identity.chain().to_vec(), now).unwrap();
    }
}

#[test]
fn a_certificate_says_its_name_network_and_labels() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), start());
    let peer = Joined::join(&authority, "fff-c.example", start());
    assert_eq!(peer.identity.names(), ["fff-c.example".parse().unwrap()]);
    assert_eq!(peer.identity.network(), Some("default"));
    assert_eq!(peer.identity.labels(), &BTreeMap::from([("zone".to_owned(), "a/1".to_owned())]));
    assert!(peer.identity.operator().is_none() && !peer.identity.is_registry());
    let subject = Subject { name: "alice".parse().unwrap(), labels: BTreeMap::new(), operator: true };
    let (certificates, key) = authority.issue(subject, DAY, start()).unwrap();
    let ca = fs::read(folder.path().join("ca.pem")).unwrap();
    let files = Pem { cert: Some(certificates.into()), key: Some(key.into()), ca };
    let operator = Tls::from_pem(files, ClientAuth::Required).unwrap().identity().unwrap();
    assert!(operator.operator() == Some(&"alice".parse().unwrap()) && operator.names().is_empty());
}

#[test]
fn what_was_done_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), start());
    let (secret, _) = token(&authority, "a", start());
    let key = KeyPair::generate().unwrap();
    let enrolled = authority.enrol(&Proof::Token(&secret), &request(&key), None, start()).unwrap();
    let serial = Identity::of_chain(enrolled.chain).unwrap().serial().clone();
    let (ca, revision) = (authority.trust(0, start()).unwrap().authorities, authority.revision());
    drop(authority);
    let authority = open(folder.path(), start());
    assert_eq!((authority.trust(0, start()).unwrap().authorities, authority.revision()), (ca, revision));
    let other = KeyPair::generate().unwrap();
    let again = authority.enrol(&Proof::Token(&secret), &request(&other), None, start()).unwrap_err();
    assert!(matches!(again, CaError::Refused(Refusal::TokenUsed { .. })), "{again}");
    authority.enrol(&Proof::Token(&secret), &request(&key), None, start()).unwrap();
    authority.revoke_name(&"a".parse().unwrap(), start()).unwrap();
    drop(authority);
    let authority = open(folder.path(), start());
    assert!(authority.is_revoked(&serial) && authority.revoked(start()).contains(&serial));
    assert!(authority.revision() > revision);
}

#[test]
fn a_folder_is_for_its_owner_only_for_one_program_at_a_time_and_for_one_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca");
    let authority = open(&path, start());
    assert!(matches!(Authority::open(&path, CaSettings::default(), start()), Err(CaError::Locked(_))));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("ca-1.pem")), mode(&path.join("ledger.redb"))), (0o700, 0o600, 0o600));
    }
    drop(authority);
    let other = CaSettings { network: "other".parse().unwrap(), ..CaSettings::default() };
    assert!(matches!(Authority::open(&path, other, start()), Err(CaError::Network { .. })));
    assert_eq!(certificates_in(&path).unwrap().len(), 1);
    assert!(matches!(certificates_in(folder.path()), Err(CaError::Missing(_))));
}

#[test]
fn a_rotation_that_was_killed_at_any_step_is_completed_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), start()));
    let with_key = fs::read(folder.path().join("ca-1.pem")).unwrap();
    let now = start() + DAY;
    let before = open(folder.path(), now).revision();
    // As after a kill between the new file and what follows: the old key is there, and the revision does not count the new one.
    let ledger = fs::read(folder.path().join("ledger.redb")).unwrap();
    open(folder.path(), now).rotate(now).unwrap();
    fs::write(folder.path().join("ca-1.pem"), with_key).unwrap();
    fs::write(folder.path().join("ledger.redb"), ledger).unwrap();
    fs::write(folder.path().join("ca-3.pem.tmp"), "of a file that was being written").unwrap();
    let authority = open(folder.path(), now);
    assert!(authority.revision() > before);
    assert!(!fs::read_to_string(folder.path().join("ca-1.pem")).unwrap().contains("PRIVATE KEY"), "of no use any more");
    assert!(fs::read_to_string(folder.path().join("ca-2.pem")).unwrap().contains("PRIVATE KEY"));
    assert_eq!(fs::read_to_string(folder.path().join("ca.pem")).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
}

#[test]
fn a_request_that_is_none_or_has_a_wrong_signature_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), start());
    let (secret, _) = token(&authority, "a", start());
    let mut wrong = request(&KeyPair::generate().unwrap());
    *wrong.last_mut().unwrap() ^= 1;
    for request in [Vec::new(), b"nonsense".to_vec(), vec![0x30; 5_000], wrong] {
        let refused = authority.enrol(&Proof::Token(&secret), &request, None, start());
        assert!(matches!(refused, Err(CaError::Request(_))));
    }
    assert_eq!(authority.tokens()[0].used, 0);
}

#[test]
fn damage_is_reported_and_left_as_it_is() {
    for (file, content) in [("ca-1.pem", "no key"), ("ledger.redb", "no ledger at all, but longer than nothing")] {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), start()));
        fs::write(folder.path().join(file), content).unwrap();
        let error = Authority::open(folder.path(), CaSettings::default(), start()).err().unwrap();
        assert!(error.to_string().contains(file) && error.hint().is_some(), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join(file)).unwrap(), content);
    }
}

#[test]
fn a_folder_that_lost_its_key_gets_no_new_one_and_what_it_gave_is_kept() {
    let (parent, now) = (tempfile::tempdir().unwrap(), start());
    let folder = parent.path().join("ca");
    let (key, (secret, _)) = (KeyPair::generate().unwrap(), token(&open(&folder, now), "a", now));
    let first = folder.join("ca-1.pem");
    let text = fs::read(&first).unwrap();
    fs::remove_file(&first).unwrap();
    let error = Authority::open(&folder, CaSettings::default(), now).err().unwrap();
    assert!(matches!(error, CaError::KeyMissing(_)), "{error}");
    assert!(error.hint().unwrap().contains("backup") && !first.exists());
    fs::write(&first, text).unwrap();
    open(&folder, now).enrol(&Proof::Token(&secret), &request(&key), None, now).unwrap();
}
