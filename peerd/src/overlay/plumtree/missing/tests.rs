//! Choice of holders, pulls and timeouts.

use super::*;

const LIAR: PeerId = PeerId::from_u128(1);
const HONEST: PeerId = PeerId::from_u128(2);

fn id(sequence: u64) -> MessageId {
    MessageId { origin: PeerId::from_u128(9), incarnation: 1, sequence }
}

/// The broadcasts that `holder` is asked for.
fn asked_of(due: &Due, holder: PeerId) -> Vec<MessageId> {
    due.pulls.iter().filter(|pull| pull.holder == holder).flat_map(|pull| pull.ids.clone()).collect()
}

#[test]
fn a_holder_that_answers_in_parts_is_asked_until_it_has_sent_all() {
    let mut missing = Missing::new(&Config::default());
    let mut now = Time::from_secs(1);
    for sequence in 0..200 {
        missing.advertised(id(sequence), Duration::ZERO, HONEST, true, now);
    }
    let mut sent = 0;
    for _ in 0..100 {
        let due = missing.tick(now);
        assert_eq!((due.forgotten, due.broken_promises.len()), (0, 0), "after {sent}");
        for (place, wanted) in asked_of(&due, HONEST).iter().enumerate() {
            now += Duration::from_millis(1);
            if place < 17 {
                missing.arrived(wanted, HONEST, false, now);
                sent += 1;
            } else {
                missing.advertised(*wanted, Duration::ZERO, HONEST, true, now);
            }
        }
        now += Duration::from_millis(100);
    }
    assert_eq!((sent, missing.len(), missing.pulls_in_flight), (200, 0, 0));
}

#[test]
fn a_holder_that_does_not_answer_is_asked_twice_and_reported() {
    let config = Config::default();
    let mut missing = Missing::new(&config);
    missing.advertised(id(1), Duration::ZERO, LIAR, true, Time::ZERO);
    let mut now = Time::ZERO;
    let mut pulls = 0;
    while !missing.is_empty() {
        assert!(now < config.retention * 10, "{missing:?}");
        now += config.graft_retry;
        let due = missing.tick(now);
        pulls += due.pulls.len();
        assert!(due.forgotten == 0 || due.broken_promises == [LIAR]);
    }
    assert_eq!((pulls, missing.pulls_in_flight), (2, 0));
}

#[test]
fn a_holder_with_a_slow_link_is_not_asked_again_for_broadcasts_in_flight() {
    let mut missing = Missing::new(&Config::default());
    let mut now = Time::from_secs(1);
    missing.gave(HONEST, now);
    for sequence in 0..INITIAL_PULL_WINDOW as u64 {
        missing.advertised(id(sequence), Duration::ZERO, HONEST, true, now);
    }
    missing.gave(HONEST, now);
    assert_eq!(asked_of(&missing.tick(now), HONEST).len(), INITIAL_PULL_WINDOW);
    for sequence in 0..INITIAL_PULL_WINDOW as u64 {
        for _ in 0..7 {
            now += Duration::from_millis(100);
            assert_eq!(missing.tick(now).pulls, [], "{sequence} at {now:?}");
        }
        missing.gave(HONEST, now);
        missing.arrived(&id(sequence), HONEST, false, now);
    }
    assert!(missing.is_empty());
}

#[test]
fn a_broadcast_that_a_holder_skips_is_pulled_from_the_next_one() {
    let mut missing = Missing::new(&Config::default());
    let mut now = Time::from_secs(1);
    for sequence in 0..2 {
        missing.advertised(id(sequence), Duration::ZERO, LIAR, true, now);
        missing.advertised(id(sequence), Duration::ZERO, HONEST, true, now);
    }
    let asked: Vec<PeerId> = missing.tick(now).pulls.iter().map(|pull| pull.holder).collect();
    assert_eq!(asked, [LIAR, HONEST]);
    // Three were asked for in this order; the second arrives.
    for sequence in 2..4 {
        missing.advertised(id(sequence), Duration::ZERO, LIAR, true, now);
        missing.tick(now);
    }
    missing.arrived(&id(2), LIAR, false, now);
    let mut again = Vec::new();
    for _ in 0..4 {
        now += Duration::from_millis(150);
        missing.gave(LIAR, now);
        again.extend(asked_of(&missing.tick(now), HONEST));
    }
    assert!(!again.is_empty());
}

#[test]
fn a_holder_that_invents_broadcasts_does_not_delay_pulls_from_others() {
    let mut missing = Missing::new(&Config::default());
    let mut now = Time::from_secs(1);
    let mut invented = 0;
    let mut sent = 0;
    for sequence in 0..200 {
        while missing.len() < MAX_MISSING {
            invented += 1;
            missing.advertised(id(1_000_000 + invented), Duration::ZERO, LIAR, true, now);
        }
        // The malicious holder advertises this one too.
        missing.advertised(id(sequence), Duration::ZERO, LIAR, true, now);
        missing.advertised(id(sequence), Duration::ZERO, HONEST, true, now);
        now += Duration::from_millis(100);
        for wanted in asked_of(&missing.tick(now), HONEST) {
            missing.arrived(&wanted, HONEST, false, now);
            sent += usize::from(wanted.sequence < 1_000);
        }
    }
    assert!(sent >= 190, "{sent}");
    assert!(missing.len() <= MAX_MISSING);
}

#[test]
fn broadcasts_past_their_retention_are_given_up_without_a_report() {
    let config = Config::default();
    let mut missing = Missing::new(&config);
    for sequence in 0..100 {
        missing.advertised(id(sequence), config.retention / 2, HONEST, true, Time::ZERO);
    }
    missing.tick(Time::ZERO);
    let mut now = config.retention / 2;
    let mut due = missing.tick(now);
    while !missing.is_empty() {
        assert!(now < config.retention * 10, "{missing:?}");
        now += config.graft_retry;
        due = missing.tick(now);
    }
    assert!(due.broken_promises.len() <= INITIAL_PULL_WINDOW, "{due:?}");
}

#[test]
fn when_a_link_ends_the_other_holders_are_asked() {
    let mut missing = Missing::new(&Config::default());
    let now = Time::from_secs(1);
    for sequence in 0..10 {
        missing.advertised(id(sequence), Duration::ZERO, LIAR, true, now);
        missing.advertised(id(sequence), Duration::ZERO, HONEST, true, now);
    }
    missing.tick(now);
    missing.down(LIAR);
    let mut asked = 0;
    for step in 1..100 {
        let now = now + Duration::from_millis(10 * step);
        let due = missing.tick(now);
        assert_eq!(asked_of(&due, LIAR), []);
        asked += due.pulls.len();
        for wanted in asked_of(&due, HONEST) {
            missing.arrived(&wanted, HONEST, false, now);
        }
    }
    assert!(asked > 0);
    missing.down(HONEST);
    assert_eq!((missing.len(), missing.pulls_in_flight), (0, 0));
}
