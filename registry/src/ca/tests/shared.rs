//! Several authorities with one ledger.

use super::*;
use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::watch;

/// Rows in memory, in the order in which they were written.
#[derive(Default)]
struct Written {
    rows: Mutex<Vec<Row>>,
    changes: watch::Sender<()>,
}

/// One authority's view of them.
struct Rows {
    written: Arc<Written>,
    /// `None`: nothing was given yet.
    given: Option<usize>,
    /// What others wrote is not heard, unless it is asked for.
    is_deaf: Arc<AtomicBool>,
    /// What is written is there, and the answer is lost.
    is_failing: Arc<AtomicBool>,
    /// The same of the second write of a change.
    fails_later: Arc<AtomicBool>,
    writes: usize,
}

impl Rows {
    fn written(&self) -> MutexGuard<'_, Vec<Row>> {
        self.written.rows.lock().unwrap()
    }

    fn give(&mut self) -> News {
        let rows = self.written().clone();
        match self.given.replace(rows.len()) {
            Some(given) => News::Changed(rows[given..].to_vec()),
            None => {
                News::All(rows.into_iter().collect::<BTreeMap<_, _>>().into_iter().filter(|(_, value)| value.is_some()).collect())
            }
        }
    }
}

impl SharedRows for Rows {
    fn news(&mut self) -> Result<News, String> {
        self.writes = 0;
        let is_deaf = self.given.is_some() && self.is_deaf.load(Ordering::Relaxed);
        Ok(if is_deaf { News::Changed(Vec::new()) } else { self.give() })
    }

    fn catch_up(&mut self) -> Result<News, String> {
        Ok(self.give())
    }

    fn write(&mut self, rows: &[Row]) -> Result<bool, String> {
        let shared = Arc::clone(&self.written);
        let mut written = shared.rows.lock().unwrap();
        if self.given != Some(written.len()) {
            return Ok(false);
        }
        written.extend_from_slice(rows);
        shared.changes.send_replace(());
        self.writes += 1;
        let fails_now = self.is_failing.load(Ordering::Relaxed) || (self.fails_later.load(Ordering::Relaxed) && self.writes == 2);
        if fails_now {
            return Err("no answer".to_owned());
        }
        self.given = Some(written.len());
        Ok(true)
    }

    fn rows_max(&self) -> usize {
        2
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.written.changes.subscribe()
    }
}

/// A registry that shares its authority, with a folder of its own that has the key.
struct Replica {
    folder: tempfile::TempDir,
    authority: Authority,
    faults: Faults,
}

/// What goes wrong with the rows.
#[derive(Default, Clone)]
struct Faults {
    is_deaf: Arc<AtomicBool>,
    is_failing: Arc<AtomicBool>,
    fails_later: Arc<AtomicBool>,
}

fn copy_keys(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if file.file_name().to_str().is_some_and(|name| name.starts_with("ca-")) {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

fn shared(folder: &Path, written: &Arc<Written>) -> Result<(Authority, Faults), CaError> {
    let faults = Faults::default();
    let Faults { is_deaf, is_failing, fails_later } = faults.clone();
    let rows = Rows { written: Arc::clone(written), given: None, is_deaf, is_failing, fails_later, writes: 0 };
    let authority = Authority::open_shared(folder, Box::new(rows), CaSettings::default(), start())?;
    Ok((authority, faults))
}

impl Replica {
    fn start(keys: &Path, written: &Arc<Written>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_keys(keys, folder.path());
        let (authority, faults) = shared(folder.path(), written).unwrap();
        Self { folder, authority, faults }
    }

    fn use_token(&self, secret: &TokenSecret) -> Result<Enrolled, CaError> {
        self.authority.enrol(&Proof::Token(secret), &request(&KeyPair::generate().unwrap()), None, start())
    }
}

/// The folder with the key, and two replicas that have it.
fn two() -> (tempfile::TempDir, [Replica; 2]) {
    let keys = tempfile::tempdir().unwrap();
    drop(open(keys.path(), start()));
    let written = Arc::<Written>::default();
    let replicas = [(); 2].map(|()| Replica::start(keys.path(), &written));
    (keys, replicas)
}

#[test]
fn a_token_of_one_is_used_once_at_any_even_if_they_hear_late_of_each_other() {
    let (_keys, [one, other]) = two();
    for replica in [&one, &other] {
        replica.faults.is_deaf.store(true, Ordering::Relaxed);
    }
    let (secret, _) = token(&one.authority, "fff-c", start());
    other.use_token(&secret).unwrap();
    for replica in [&one, &other] {
        let refused = replica.use_token(&secret).map(drop).unwrap_err();
        assert!(matches!(refused, CaError::Refused(Refusal::TokenUsed { .. })), "{refused}");
    }
}

#[test]
fn what_is_decided_at_once_is_decided_one_after_the_other() {
    let (keys, _) = two();
    let written = Arc::<Written>::default();
    let replicas = [(); 3].map(|()| Replica::start(keys.path(), &written));
    let names = NamePattern::parse("fff-*").unwrap().unwrap();
    let new =
        NewToken { names, labels: BTreeMap::new(), life: HOUR, uses: 20, operator: false, rejoin: false, hosts: Vec::new() };
    let (secret, ..) = replicas[0].authority.create_token(new, start()).unwrap();
    let joined: usize = std::thread::scope(|threads| {
        let joining: Vec<_> = (0..30)
            .map(|number| {
                let (replica, secret) = (&replicas[number % 3], &secret);
                threads.spawn(move || {
                    let (key, name) = (KeyPair::generate().unwrap(), format!("fff-{number}").parse().unwrap());
                    replica.authority.enrol(&Proof::Token(secret), &request(&key), Some(name), start()).is_ok()
                })
            })
            .collect();
        joining.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert_eq!(joined, 20);
}

#[test]
fn a_revocation_at_one_counts_at_the_other() {
    let (_keys, [one, other]) = two();
    let joined = Joined::join(&one.authority, "fff-c", start());
    let before = other.authority.revision();
    let mut changes = one.authority.changes().unwrap();
    changes.borrow_and_update();
    let revoked = other.authority.revoke_name(&"fff-c".parse().unwrap(), start()).unwrap();
    assert_eq!(revoked.certificates, 1);
    assert!(changes.has_changed().unwrap());
    one.authority.learn().unwrap();
    assert!(one.authority.is_revoked(joined.identity.serial()));
    assert_eq!(one.authority.revoked(start()).len(), 1);
    assert!(one.authority.revision() > before && one.authority.revision() == other.authority.revision());
    let renewed = one.authority.enrol(&Proof::Key, &request(&joined.key), None, start()).map(drop);
    assert!(matches!(renewed, Err(CaError::Refused(Refusal::CertificateRevoked(_)))));
}

#[test]
fn a_write_whose_answer_is_lost_counts_once() {
    let (_keys, [one, other]) = two();
    let (secret, _) = token(&one.authority, "fff-c", start());
    let key = KeyPair::generate().unwrap();
    one.faults.is_failing.store(true, Ordering::Relaxed);
    let join = |replica: &Replica| replica.authority.enrol(&Proof::Token(&secret), &request(&key), None, start()).map(drop);
    assert!(matches!(join(&one), Err(CaError::Shared(_))));
    one.faults.is_failing.store(false, Ordering::Relaxed);
    // The same key again is the same machine, which had no answer.
    join(&other).unwrap();
    join(&one).unwrap();
    let used: Vec<_> = one.authority.tokens().iter().map(|token| token.used).collect();
    assert_eq!(used, [1]);
}

#[test]
fn a_new_key_reaches_one_after_the_other_and_everybody_is_trusted_meanwhile() {
    let (keys, [one, other]) = two();
    let [early, late] = ["early", "late"].map(|name| Joined::join(&one.authority, name, start()));
    assert!(matches!(one.authority.rotate(start()), Err(CaError::SharedKey)));
    let now = start() + DAY;
    Authority::open_existing(keys.path()).unwrap().rotate(now).unwrap();
    copy_keys(keys.path(), one.folder.path());
    let before = other.authority.revision();
    one.authority.maintain(now).unwrap();
    assert_eq!(one.authority.authorities(now).1, 2);
    // The other has the old key, and tells of the new one.
    other.authority.maintain(now).unwrap();
    assert_eq!(other.authority.authorities(now).1, 1);
    assert_eq!(other.authority.authorities(now).0, one.authority.authorities(now).0);
    assert!(other.authority.revision() > before);
    // Who has heard of the new authority, who has not, and who joins now.
    let told = other.authority.trust(0, now).unwrap().authorities;
    let mut checking = vec![trusting(&told), trusting(&early.authorities)];
    for replica in [&one, &other] {
        let (_, named) = token(&replica.authority, "newcomer", now);
        let served = replica.authority.authorities(now).0;
        checking.push(trusting(&[served.into_iter().find(|ca| CaHash::of(ca) == named).unwrap()]));
    }
    for replica in [&one, &other] {
        let mut peers = [&early, &late].map(|joined| {
            let renewed = replica.authority.enrol(&Proof::Key, &request(&joined.key), None, now).unwrap();
            Identity::of_chain(renewed.chain).unwrap()
        });
        for checking in &checking {
            for peer in &mut peers {
                checking.check(peer.chain().to_vec(), now).unwrap();
            }
        }
    }
    copy_keys(keys.path(), other.folder.path());
    other.authority.maintain(now).unwrap();
    assert_eq!(other.authority.authorities(now).1, 2);
    // When all have had it for a while, tokens name it.
    let (_, named) = token(&other.authority, "later", now + 2 * DAY);
    assert!(named == CaHash::of(other.authority.authorities(now).0.last().unwrap()));
}

#[test]
fn the_ledger_of_a_registry_alone_becomes_that_of_several() {
    let folder = tempfile::tempdir().unwrap();
    let alone = open(folder.path(), start());
    let joined = Joined::join(&alone, "fff-c", start());
    let (secret, _) = token(&alone, "fff-d", start());
    let revoked = Joined::join(&alone, "fff-e", start());
    alone.revoke_name(&"fff-e".parse().unwrap(), start()).unwrap();
    drop(alone);
    let written = Arc::<Written>::default();
    let (first, ..) = shared(folder.path(), &written).unwrap();
    let second = Replica::start(folder.path(), &written);
    second.authority.enrol(&Proof::Key, &request(&joined.key), None, start()).unwrap();
    second.use_token(&secret).unwrap();
    assert!(second.authority.is_revoked(revoked.identity.serial()));
    // A replica that was first had nothing to take over; the folder's ledger counts all the same.
    let (late, other) = (tempfile::tempdir().unwrap(), Arc::<Written>::default());
    copy_keys(folder.path(), late.path());
    fs::rename(folder.path().join("ledger.redb.shared"), late.path().join("ledger.redb")).unwrap();
    let before = Replica::start(folder.path(), &other);
    drop(shared(late.path(), &other).unwrap());
    before.authority.learn().unwrap();
    assert!(before.authority.is_revoked(revoked.identity.serial()));
    before.authority.enrol(&Proof::Key, &request(&joined.key), None, start()).unwrap();
    // Only once: what is forgotten since does not come back.
    let rows = written.rows.lock().unwrap().len();
    drop(first);
    drop(shared(folder.path(), &written).unwrap());
    assert_eq!(written.rows.lock().unwrap().len(), rows);
}

#[test]
fn a_folder_without_a_key_or_of_another_network_is_refused_and_stays_as_it_is() {
    let (empty, written) = (tempfile::tempdir().unwrap(), Arc::<Written>::default());
    assert!(matches!(shared(empty.path(), &written), Err(CaError::Missing(_))));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
    let other = tempfile::tempdir().unwrap();
    let settings = CaSettings { network: "other".parse().unwrap(), ..CaSettings::default() };
    drop(Authority::open(other.path(), settings, start()).unwrap());
    assert!(matches!(shared(other.path(), &written), Err(CaError::Network { .. })));
    assert!(written.rows.lock().unwrap().is_empty());
}

#[test]
fn what_was_stored_before_the_store_failed_counts_here_too() {
    let (_keys, [one, other]) = two();
    let many: Vec<_> = (0..5)
        .map(|_| {
            let (key, (secret, _)) = (KeyPair::generate().unwrap(), token(&one.authority, "fff-c", start()));
            one.authority.enrol(&Proof::Token(&secret), &request(&key), None, start()).unwrap();
            key
        })
        .collect();
    // Two rows a write: the second has no answer.
    one.faults.fails_later.store(true, Ordering::Relaxed);
    one.faults.is_deaf.store(true, Ordering::Relaxed);
    assert!(matches!(one.authority.revoke_name(&"fff-c".parse().unwrap(), start()), Err(CaError::Shared(_))));
    one.faults.fails_later.store(false, Ordering::Relaxed);
    assert_eq!(one.authority.revoked(start()).len(), 2);
    one.faults.is_deaf.store(false, Ordering::Relaxed);
    for replica in [&one, &other] {
        replica.authority.learn().unwrap();
        assert_eq!(replica.authority.revoked(start()).len(), 4);
    }
    assert_eq!(one.authority.revoke_name(&"fff-c".parse().unwrap(), start()).unwrap().certificates, many.len() - 4);
}

#[test]
fn whoever_heard_more_than_a_replica_is_not_told_to_forget_it() {
    let (_keys, [one, other]) = two();
    Joined::join(&one.authority, "fff-c", start());
    other.authority.learn().unwrap();
    other.faults.is_deaf.store(true, Ordering::Relaxed);
    let known = one.authority.revoke_name(&"fff-c".parse().unwrap(), start()).unwrap().revision;
    assert!(other.authority.revision() < known);
    let told = other.authority.trust(known, start()).unwrap();
    assert!(!told.start_over && told.revision == known, "{told:?}");
}

#[test]
fn an_authority_that_somebody_wrote_into_the_ledger_is_not_trusted() {
    let keys = tempfile::tempdir().unwrap();
    drop(open(keys.path(), start()));
    let written = Arc::<Written>::default();
    let one = Replica::start(keys.path(), &written);
    let stranger = tempfile::tempdir().unwrap();
    drop(open(stranger.path(), start()));
    rotate_in_folder(stranger.path(), start()).unwrap();
    let pem = fs::read(stranger.path().join("ca-2.pem")).unwrap();
    let rows = [("authorities/2", pem.clone()), ("authorities/9", pem), ("authorities/3", b"rubbish".to_vec())];
    written.rows.lock().unwrap().extend(rows.map(|(name, value)| (name.to_owned(), Some(value))));
    assert!(one.authority.learn().is_err());
    assert_eq!(one.authority.authorities(start()).0.len(), 1);
    // It goes on.
    token(&one.authority, "fff-c", start());
}

#[test]
fn another_key_than_that_of_the_others_is_refused() {
    let [first, second] = [(); 2].map(|()| {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), start()));
        folder
    });
    let written = Arc::<Written>::default();
    let one = Replica::start(first.path(), &written);
    let refused = shared(second.path(), &written).map(drop).unwrap_err();
    assert!(refused.to_string().contains("is not the certificate authority of the other registries"), "{refused}");
    // Two new keys of the same number, which two people made.
    let other = Replica::start(first.path(), &written);
    let now = start() + DAY;
    for replica in [&one, &other] {
        rotate_in_folder(replica.folder.path(), now).unwrap();
    }
    one.authority.maintain(now).unwrap();
    assert!(matches!(other.authority.maintain(now), Err(CaError::OtherKey { .. })));
    assert_eq!(other.authority.authorities(now).1, 1, "it goes on with the old one");
}
