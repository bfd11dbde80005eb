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
        let is_deaf = self.given.is_some() && self.is_deaf.load(Ordering::Relaxed);
        Ok(if is_deaf { News::Changed(Vec::new()) } else { self.give() })
    }

    fn catch_up(&mut self) -> Result<News, String> {
        Ok(self.give())
    }

    fn write(&mut self, rows: &[Row]) -> Result<bool, String> {
        if self.given != Some(self.written().len()) {
            return Ok(false);
        }
        self.written().extend_from_slice(rows);
        self.written.changes.send_replace(());
        if self.is_failing.load(Ordering::Relaxed) {
            return Err("no answer".to_owned());
        }
        let written = self.written().len();
        self.given = Some(written);
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
    is_deaf: Arc<AtomicBool>,
    is_failing: Arc<AtomicBool>,
}

fn copy_keys(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if file.file_name().to_str().is_some_and(|name| name.starts_with("ca-")) {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

fn shared(folder: &Path, written: &Arc<Written>) -> Result<(Authority, Arc<AtomicBool>, Arc<AtomicBool>), CaError> {
    let (is_deaf, is_failing) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (written, given) = (Arc::clone(written), None);
    let rows = Rows { written, given, is_deaf: Arc::clone(&is_deaf), is_failing: Arc::clone(&is_failing) };
    let authority = Authority::open_shared(folder, Box::new(rows), CaSettings::default(), start())?;
    Ok((authority, is_deaf, is_failing))
}

impl Replica {
    fn start(keys: &Path, written: &Arc<Written>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_keys(keys, folder.path());
        let (authority, is_deaf, is_failing) = shared(folder.path(), written).unwrap();
        Self { folder, authority, is_deaf, is_failing }
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
        replica.is_deaf.store(true, Ordering::Relaxed);
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
    let revoked = other.authority.revoke_name(&"fff-c".parse().unwrap(), start()).unwrap();
    assert_eq!(revoked.certificates, 1);
    assert!(one.authority.changes().unwrap().has_changed().unwrap_or(true));
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
    one.is_failing.store(true, Ordering::Relaxed);
    let join = |replica: &Replica| replica.authority.enrol(&Proof::Token(&secret), &request(&key), None, start()).map(drop);
    assert!(matches!(join(&one), Err(CaError::Shared(_))));
    one.is_failing.store(false, Ordering::Relaxed);
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
    let told = other.authority.trust(0, now).authorities;
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
