//! Tests of the states.

use super::*;
use p2pdi::{content::ContentHash, document::DocumentName};

const QUIET: Duration = Duration::from_millis(500);
const SECOND_NS: i64 = 1_000_000_000;
/// A time, in nanoseconds since 1970.
const T: i64 = 1_700_000_000 * SECOND_NS + 123;

struct Clock(Instant);

impl Clock {
    fn at(&self, after: Duration) -> Now {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(T.unsigned_abs()) + after;
        Now { instant: self.0 + after, wall }
    }
}

fn print(size: u64, modified_ns: i64, changed_ns: i64) -> Fingerprint {
    Fingerprint { size, inode: 7, modified_ns, changed_ns }
}

fn found(entries: &[(&str, Entry)]) -> BTreeMap<Box<str>, Entry> {
    entries.iter().map(|(name, entry)| ((*name).into(), *entry)).collect()
}

fn document(name: &str, fingerprint: Fingerprint) -> Arc<SharedDocument> {
    Arc::new(SharedDocument {
        name: DocumentName::parse(name).unwrap(),
        number: None,
        title: name.into(),
        size: fingerprint.size,
        hash: ContentHash::of(name.as_bytes()),
        modified: fingerprint.modified(),
        fingerprint,
    })
}

/// How long a file found at time T waits before it is hashed.
fn wait(fingerprint: Fingerprint) -> Duration {
    let clock = Clock(Instant::now());
    let mut file_states = FileStates::new(QUIET);
    file_states.observe("", found(&[("a", Entry::File(fingerprint))]), clock.at(Duration::ZERO));
    file_states.next_due().unwrap() - clock.0
}

#[test]
fn a_file_waits_until_it_has_been_quiet_by_its_timestamps() {
    let ms = |ms: i64| T - ms * 1_000_000;
    assert_eq!(wait(print(1, ms(3_600_000), ms(3_600_000))), Duration::ZERO, "an old file");
    assert_eq!(wait(print(1, ms(100), ms(100))), Duration::from_millis(400), "a file written just now");
    assert_eq!(wait(print(1, ms(3_600_000), ms(10))), Duration::from_millis(40), "an old file renamed just now");
    assert_eq!(wait(print(1, ms(-3_600_000), ms(-3_600_000))), QUIET, "a file with a time in the future");
    let whole = T / SECOND_NS * SECOND_NS;
    assert!(wait(print(1, whole, whole)) > Duration::from_secs(1), "a file system that stores whole seconds");
}

#[test]
fn a_file_that_changes_between_scans_waits_again_whatever_its_timestamps() {
    let clock = Clock(Instant::now());
    let mut file_states = FileStates::new(QUIET);
    let old = T - 3600 * SECOND_NS;
    for step in 0..5 {
        let now = clock.at(Duration::from_millis(300 * step));
        file_states.observe("a", found(&[("a", Entry::File(print(step, old, old)))]), now);
        if step > 0 {
            assert!(file_states.take_due(now.instant, 10).is_empty(), "step {step}");
        }
    }
    let later = clock.at(Duration::from_millis(300 * 4) + QUIET);
    assert_eq!(file_states.take_due(later.instant, 10), [("a".into(), print(4, old, old))]);
    // A document of an earlier version of the file is not offered.
    assert!(!file_states.offer(document("a", print(3, old, old))));
    assert!(file_states.offer(document("a", print(4, old, old))));
    assert_eq!(file_states.take_changes().len(), 1);
}

#[test]
fn a_file_whose_times_change_stays_in_the_index_until_it_is_hashed_again() {
    let clock = Clock(Instant::now());
    let mut file_states = FileStates::new(QUIET);
    let scan = |states: &mut FileStates, fingerprint| {
        states.observe("a", found(&[("a", Entry::File(fingerprint))]), clock.at(Duration::ZERO));
        states.take_changes().into_values().collect::<Vec<_>>()
    };
    let offer = |states: &mut FileStates, fingerprint| {
        assert!(states.offer(document("a", fingerprint)));
        states.take_changes().len()
    };
    assert!(scan(&mut file_states, print(5, 1, 1)).is_empty());
    assert_eq!(offer(&mut file_states, print(5, 1, 1)), 1);
    // `chmod` twice, then `touch` once: the index still has it, and after hashing has it with the new times.
    for next in [print(5, 1, 2), print(5, 1, 3), print(5, 4, 4)] {
        assert!(scan(&mut file_states, next).is_empty(), "{next:?}");
        assert_eq!(file_states.counts().pending, 1);
        if next == print(5, 1, 3) {
            assert_eq!(offer(&mut file_states, next), 1);
        }
    }
    // Modified again before it was hashed: it is being written.
    assert_eq!(scan(&mut file_states, print(5, 5, 5)), [None]);
    assert_eq!(offer(&mut file_states, print(5, 5, 5)), 1);
    // Another size, and another file.
    assert_eq!(scan(&mut file_states, print(6, 6, 6)), [None]);
    assert_eq!(offer(&mut file_states, print(6, 6, 6)), 1);
    assert_eq!(scan(&mut file_states, Fingerprint { inode: 8, ..print(6, 6, 6) }), [None]);
}

#[test]
fn a_scan_of_a_part_does_not_change_the_rest() {
    let clock = Clock(Instant::now());
    let mut file_states = FileStates::new(QUIET);
    let file = Entry::File(print(1, 1, 1));
    let names = ["a", "a-b", "a/x", "a/y/z", "a0", "b"];
    let all: Vec<_> = names.iter().map(|name| (*name, file)).collect();
    file_states.observe("", found(&all), clock.at(Duration::ZERO));
    file_states.observe("a", found(&[("a/y/z", file)]), clock.at(Duration::ZERO));
    let left: Vec<_> = names.into_iter().filter(|name| file_states.knows(name)).collect();
    assert_eq!(left, ["a-b", "a/y/z", "a0", "b"]);
}

#[test]
fn a_file_that_failed_is_retried_by_a_scan_of_everything() {
    let clock = Clock(Instant::now());
    let mut file_states = FileStates::new(QUIET);
    let scan = || found(&[("a", Entry::File(print(1, 1, 1)))]);
    file_states.observe("", scan(), clock.at(Duration::ZERO));
    assert!(!file_states.settled());
    file_states.take_due(clock.0, 1);
    file_states.fail("a", &print(1, 1, 1));
    assert!(file_states.settled() && file_states.counts().unreadable == 1);
    assert!(file_states.observe("a", scan(), clock.at(Duration::ZERO)).is_empty());
    assert_eq!(file_states.observe("", scan(), clock.at(Duration::ZERO)).len(), 1);
    assert_eq!((file_states.counts().unreadable, file_states.counts().pending), (0, 1));
}

#[test]
fn a_scan_that_was_asked_for_is_settled_once_what_waited_and_what_it_finds_is_offered() {
    let clock = Clock(Instant::now());
    let mut file_states = FileStates::new(QUIET);
    file_states.observe("", found(&[]), clock.at(Duration::ZERO));
    file_states.observe("a", found(&[("a", Entry::File(print(1, 1, 1)))]), clock.at(Duration::ZERO));
    assert!(file_states.settled(), "what appears later is not waited for");
    file_states.begin_anew();
    assert!(!file_states.settled());
    let scan = [("a", Entry::File(print(1, 1, 1))), ("b", Entry::File(print(2, 2, 2)))];
    file_states.observe("", found(&scan), clock.at(Duration::ZERO));
    for (name, print) in [("a", print(1, 1, 1)), ("b", print(2, 2, 2))] {
        assert!(!file_states.settled(), "{name} waits");
        file_states.fail(name, &print);
    }
    assert!(file_states.settled());
}

/// Numbers from a seed (xorshift64*).
fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
}

#[test]
fn counts_and_changes_stay_consistent_under_random_events() {
    for seed in 1..200 {
        let mut state = seed;
        let clock = Clock(Instant::now());
        let mut file_states = FileStates::new(QUIET);
        let mut offered: BTreeMap<Box<str>, Arc<SharedDocument>> = BTreeMap::new();
        let mut taken: Vec<(Box<str>, Fingerprint)> = Vec::new();
        for step in 0..100 {
            let now = clock.at(Duration::from_millis(step * 100));
            let name = format!("{}", random(&mut state, 8));
            match random(&mut state, 6) {
                0 | 1 => {
                    let mut found = BTreeMap::new();
                    let reasons = [Reason::Hidden, Reason::Unreadable, Reason::Outside, Reason::TooLarge];
                    match random(&mut state, 8) as usize {
                        0 => {}
                        reason @ 1..=4 => drop(found.insert(name.as_str().into(), Entry::LeftOut(reasons[reason - 1]))),
                        size => drop(found.insert(name.as_str().into(), Entry::File(print(size as u64, 1, 1)))),
                    }
                    file_states.observe(if random(&mut state, 10) == 0 { "" } else { &name }, found, now);
                }
                2 => taken.extend(file_states.take_due(now.instant, 3)),
                3 | 4 => {
                    if let Some((name, fingerprint)) = taken.pop() {
                        match random(&mut state, 3) {
                            0 => file_states.fail(&name, &fingerprint),
                            1 => file_states.postpone(&name, &fingerprint, now.instant),
                            _ => drop(file_states.offer(document(&name, fingerprint))),
                        }
                    }
                }
                _ => {
                    for (name, change) in file_states.take_changes() {
                        match change {
                            Some(document) => drop(offered.insert(name, document)),
                            None => drop(offered.remove(&name)),
                        }
                    }
                    let now_offered: BTreeMap<_, _> = file_states
                        .entries
                        .iter()
                        .filter_map(|(name, entry)| Some((name.clone(), Arc::clone(entry.offered()?))))
                        .collect();
                    assert_eq!(offered, now_offered, "seed {seed}, step {step}");
                }
            }
            let mut fresh = FileStates::new(QUIET);
            for entry in file_states.entries.values() {
                fresh.count(entry, |count, by| *count += by, |bytes, by| *bytes += by);
            }
            assert_eq!(file_states.counts, fresh.counts, "seed {seed}, step {step}");
            let waiting = file_states.entries.values().filter(|entry| matches!(entry, FileState::Pending(p) if p.due.is_some()));
            assert_eq!(file_states.due.len(), waiting.count(), "seed {seed}, step {step}");
        }
    }
}
