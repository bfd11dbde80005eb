//! The rules, at times of the test's choice.

use super::*;
use p2pdi::{name::PeerName, selector::NamePattern, token::TokenSecret};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
const START: u64 = 1_800_000_000;
const LIFE: u64 = DAY;

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

/// A ledger, and what happens to it.
#[derive(Default)]
struct World {
    ledger: Ledger,
    serials: u8,
}

impl World {
    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        changes.into_iter().for_each(|change| self.ledger.apply(change));
    }

    fn token(&mut self, names: &str, uses: u32) -> TokenHash {
        let hash = TokenSecret::from_bytes([u8::try_from(self.ledger.tokens.len()).unwrap(); 16]).hash();
        let token = Token {
            hash,
            names: NamePattern::parse(names).unwrap().unwrap(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            operator: false,
            created_at: START,
            expires_at: START + HOUR,
            uses,
            used: 0,
            revoked: false,
            rejoin: false,
            hosts: vec!["registry.example".to_owned()],
        };
        check_token(&token).unwrap();
        let change = self.ledger.add_token(token).unwrap();
        self.apply([change]);
        hash
    }

    fn ask(&mut self, by: By, key: u8, wanted: Option<&str>, now: u64) -> Result<SerialBytes, Refusal> {
        let admission = self.ledger.admit(&Admit { by, key: [key; 32], wanted: wanted.map(name) }, now)?;
        self.serials += 1;
        let serial = [self.serials; 16];
        self.apply(Ledger::issue(admission, serial, now + LIFE));
        Ok(serial)
    }

    fn used(&self, hash: &TokenHash) -> u32 {
        self.ledger.tokens[hash].used
    }
}

#[test]
fn a_token_is_for_one_name_and_one_use() {
    let mut world = World::default();
    let token = world.token("fff-c", 1);
    let other = world.ask(By::Token(token), 1, Some("fff-d"), START).unwrap_err();
    assert!(matches!(&other, Refusal::NameNotYours { allowed, .. } if allowed == "fff-c"), "{other}");
    world.ask(By::Token(token), 1, Some("FFF-C"), START).unwrap();
    let certificate = world.ledger.certificates.values().next().unwrap();
    assert_eq!((certificate.subject.name.as_str(), certificate.subject.labels["zone"].as_str()), ("FFF-C", "a"));
    assert!(matches!(world.ask(By::Token(token), 2, None, START), Err(Refusal::TokenUsed { uses: 1, .. })));
}

#[test]
fn whose_answer_was_lost_comes_again_with_its_token_and_key_also_after_the_tokens_end() {
    let mut world = World::default();
    let token = world.token("fff-c", 1);
    world.ask(By::Token(token), 1, None, START).unwrap();
    world.ask(By::Token(token), 1, None, START + 1).unwrap();
    world.ask(By::Token(token), 1, None, START + 5 * HOUR).unwrap();
    assert_eq!(world.used(&token), 1);
    assert!(matches!(world.ask(By::Token(token), 1, Some("fff-d"), START + 2), Err(Refusal::TokenUsed { .. })));
}

#[test]
fn a_token_that_expired_was_revoked_or_is_unknown_says_so() {
    let mut world = World::default();
    let token = world.token("fff-c", 1);
    let late = world.ask(By::Token(token), 1, None, START + HOUR + 7).unwrap_err();
    assert!(matches!(late, Refusal::TokenExpired { ago: 7, .. }), "{late}");
    let revoked = world.ledger.revoke_token(&token.id().to_uppercase()).unwrap();
    world.apply([Change::Token(revoked)]);
    assert!(matches!(world.ask(By::Token(token), 1, None, START), Err(Refusal::TokenRevoked { .. })));
    assert!(matches!(world.ask(By::Token(TokenHash([9; 32])), 1, None, START), Err(Refusal::TokenUnknown)));
    assert!(matches!(world.ledger.revoke_token("nothing"), Err(Refusal::TokenIdUnknown(_))));
}

#[test]
fn a_token_for_several_names_gives_each_name_to_one_key() {
    let mut world = World::default();
    let token = world.token("gpu-*", 3);
    assert!(matches!(world.ask(By::Token(token), 1, None, START), Err(Refusal::NameNeeded { .. })));
    assert!(matches!(world.ask(By::Token(token), 1, Some("cpu-1"), START), Err(Refusal::NameNotYours { .. })));
    world.ask(By::Token(token), 1, Some("gpu-1"), START).unwrap();
    assert!(matches!(world.ask(By::Token(token), 2, Some("GPU-1"), START), Err(Refusal::NameInUse(_))));
    world.ask(By::Token(token), 2, Some("gpu-2"), START).unwrap();
    assert_eq!(world.used(&token), 2);
    // A token for this name alone is meant for it.
    let token = world.token("gpu-1", 1);
    world.ask(By::Token(token), 3, None, START).unwrap();
}

#[test]
fn with_a_token_to_rejoin_a_lost_key_is_replaced_and_names_of_other_tokens_are_not() {
    let mut world = World::default();
    let other = world.token("gpu-9", 1);
    world.ask(By::Token(other), 9, None, START).unwrap();
    let token = world.token("gpu-*", 9);
    world.ledger.tokens.get_mut(&token).unwrap().rejoin = true;
    for key in 1..=3 {
        world.ask(By::Token(token), key, Some("gpu-1"), START).unwrap();
    }
    assert_eq!(world.used(&token), 3);
    assert!(matches!(world.ask(By::Token(token), 4, Some("gpu-9"), START), Err(Refusal::NameInUse(_))));
    // Nor does it bring back who was revoked.
    let (changes, ..) = world.ledger.revoke_name(&name("gpu-1"), START).unwrap();
    world.apply(changes);
    assert!(matches!(world.ask(By::Token(token), 5, Some("gpu-1"), START), Err(Refusal::CertificateRevoked(_))));
}

#[test]
fn names_of_the_registry_itself_are_given_to_nobody() {
    let mut world = World::default();
    for reserved in ["localhost", "Registry", "Registry.Example"] {
        let token = world.token("*", 1);
        assert!(matches!(world.ask(By::Token(token), 1, Some(reserved), START), Err(Refusal::NameReserved(_))));
    }
}

#[test]
fn a_token_for_a_name_of_the_registry_itself_is_not_made() {
    let mut world = World::default();
    world.token("a", 1);
    let add = |names: &str, operator: bool, hosts: &[&str]| {
        let names = NamePattern::parse(names).unwrap().unwrap();
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let (hash, labels) = (TokenHash([0; 32]), BTreeMap::new());
        let token = Token {
            hash,
            names,
            labels,
            operator,
            created_at: 0,
            expires_at: 1,
            uses: 1,
            used: 0,
            revoked: false,
            rejoin: false,
            hosts,
        };
        world.ledger.add_token(token).map(drop)
    };
    // `registry.example` is an address in a token that was made before.
    for reserved in ["localhost", "Registry", "registry.example", "own.example"] {
        let refused = add(reserved, false, &["own.example"]).unwrap_err();
        assert!(matches!(refused, Refusal::NameReserved(_)), "{refused}");
        // A pattern may match it and others, and an operator is no host.
        add(&format!("{reserved}*"), false, &["own.example"]).unwrap();
        add(reserved, true, &["own.example"]).unwrap();
    }
}

#[test]
fn a_certificate_is_renewed_with_it_or_with_its_key_until_a_month_after_its_end() {
    let mut world = World::default();
    let token = world.token("fff-c", 1);
    let first = world.ask(By::Token(token), 1, None, START).unwrap();
    // With another key, too: the caller has the certificate.
    world.ask(By::Certificate(first), 2, None, START + HOUR).unwrap();
    world.ask(By::Key, 2, None, START + 2 * HOUR).unwrap();
    let end = START + 2 * HOUR + LIFE;
    assert!(matches!(world.ask(By::Key, 2, Some("fff-d"), START + 2), Err(Refusal::NameNotYours { .. })));
    assert!(matches!(world.ask(By::Key, 2, None, end + RENEWAL_GRACE), Err(Refusal::KeyUnknown)));
    world.ask(By::Key, 2, None, end + RENEWAL_GRACE - 1).unwrap();
    assert!(matches!(world.ask(By::Key, 9, None, START), Err(Refusal::KeyUnknown)));
    assert!(matches!(world.ask(By::Certificate([99; 16]), 1, None, START), Err(Refusal::KeyUnknown)));
}

#[test]
fn a_revoked_name_is_listed_cannot_renew_and_can_join_anew() {
    let mut world = World::default();
    let (token, unused) = (world.token("fff-c", 1), world.token("FFF-c", 1));
    let first = world.ask(By::Token(token), 1, None, START).unwrap();
    let second = world.ask(By::Key, 1, None, START + 1).unwrap();
    let before = world.ledger.revision();
    let (changes, certificates, tokens) = world.ledger.revoke_name(&name("fff-C"), START + 2).unwrap();
    world.apply(changes);
    assert_eq!((certificates, tokens), (2, 2));
    assert!(world.ledger.is_revoked(&first) && world.ledger.is_revoked(&second));
    for by in [By::Key, By::Certificate(first)] {
        assert!(matches!(world.ask(by, 1, None, START + 3), Err(Refusal::CertificateRevoked(_))));
    }
    for token in [token, unused] {
        assert!(matches!(world.ask(By::Token(token), 1, None, START + 3), Err(Refusal::TokenRevoked { .. })));
    }
    let since = world.ledger.revoked_since(before, START + 3);
    assert_eq!(since.revoked.len(), 2);
    assert_eq!((since.revision, since.start_over, since.more), (before + 2, false, false));
    assert!(world.ledger.revoked_since(since.revision, START + 3).revoked.is_empty());
    assert!(matches!(world.ledger.revoke_name(&name("fff-c"), START + 3), Err(Refusal::NameUnknown(_))));
    let token = world.token("fff-c", 1);
    let anew = world.ask(By::Token(token), 1, None, START + 4).unwrap();
    assert!(!world.ledger.is_revoked(&anew));
    world.ask(By::Key, 1, None, START + 5).unwrap();
}

#[test]
fn who_was_revoked_does_not_come_back_with_the_uses_that_its_token_has_left() {
    let mut world = World::default();
    let token = world.token("gpu-*", 3);
    world.ask(By::Token(token), 1, Some("gpu-1"), START).unwrap();
    let (changes, ..) = world.ledger.revoke_name(&name("gpu-1"), START + 1).unwrap();
    world.apply(changes);
    let open = world.ledger.open_tokens(&name("GPU-1"), START + 2);
    assert_eq!(open.iter().map(|open| (open.hash, open.uses - open.used)).collect::<Vec<_>>(), [(token, 2)]);
    assert!(world.ledger.open_tokens(&name("gpu-1"), START + HOUR).is_empty(), "it expired");
    for (key, wanted) in [(1, "gpu-1"), (2, "GPU-1"), (1, "gpu-2")] {
        let refused = world.ask(By::Token(token), key, Some(wanted), START + 2);
        assert!(matches!(refused, Err(Refusal::CertificateRevoked(name)) if name.as_str() == "gpu-1"), "{key} {wanted}");
    }
    world.ask(By::Token(token), 3, Some("gpu-3"), START + 2).unwrap();
    let anew = world.token("gpu-*", 1);
    world.ask(By::Token(anew), 1, Some("gpu-1"), START + 3).unwrap();
}

#[test]
fn many_certificates_of_whoever_was_revoked_do_not_keep_the_owner_out() {
    let mut world = World::default();
    let token = world.token("fff-c", 1);
    world.ask(By::Token(token), 1, None, START).unwrap();
    while world.ask(By::Key, 1, None, START + 1).is_ok() {}
    let (changes, ..) = world.ledger.revoke_name(&name("fff-c"), START + 2).unwrap();
    world.apply(changes);
    let token = world.token("fff-c", 1);
    world.ask(By::Token(token), 2, None, START + 3).unwrap();
}

#[test]
fn the_list_of_revoked_certificates_comes_in_pages_and_starts_over_for_a_stranger() {
    let mut world = World::default();
    let count = revoke::REVOKED_PAGE + 10;
    for number in 0..count {
        let mut serial = [0; 16];
        serial[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let subject = Subject { name: name("a"), labels: BTreeMap::new(), operator: false };
        let change = Ledger::issue_file(subject, [1; 32], serial, START + LIFE);
        world.apply([change]);
    }
    let (changes, ..) = world.ledger.revoke_name(&name("a"), START).unwrap();
    world.apply(changes);
    let first = world.ledger.revoked_since(0, START);
    assert!(first.more && first.revoked.len() == revoke::REVOKED_PAGE);
    let second = world.ledger.revoked_since(first.revision, START);
    assert!(!second.more && second.revoked.len() == 10 && second.revision == world.ledger.revision());
    let stranger = world.ledger.revoked_since(u64::MAX, START);
    assert!(stranger.start_over && stranger.revoked.len() == revoke::REVOKED_PAGE);
}

#[test]
fn what_ended_is_forgotten_and_the_revision_does_not_go_back() {
    let mut world = World::default();
    let token = world.token("fff-c", 1);
    world.ask(By::Token(token), 1, None, START).unwrap();
    world.ask(By::Key, 1, None, START + HOUR).unwrap();
    let (changes, ..) = world.ledger.revoke_name(&name("fff-c"), START + HOUR).unwrap();
    world.apply(changes);
    let revision = world.ledger.revision();
    assert!(world.ledger.outdated(START + LIFE + CLOCK_SKEW).is_empty());
    let superseded = world.ledger.outdated(START + LIFE + CLOCK_SKEW + 1);
    assert_eq!(superseded, [Change::ForgetCertificate([1; 16])]);
    let end = START + HOUR + LIFE + RENEWAL_GRACE + 1;
    assert!(world.ledger.revoked_since(0, end).revoked.is_empty());
    let all = world.ledger.outdated(end);
    assert_eq!(all.len(), 3, "{all:?}");
    world.apply(all);
    assert!(world.ledger.certificates.is_empty() && world.ledger.by_name.is_empty() && world.ledger.by_key.is_empty());
    assert!(world.ledger.by_revision.is_empty() && world.ledger.tokens.is_empty());
    assert_eq!(world.ledger.revision(), revision);
}

#[test]
fn who_renews_without_end_is_told_to_wait() {
    let mut world = World::default();
    let token = world.token("fff-c", 1);
    world.ask(By::Token(token), 1, None, START).unwrap();
    let refused = (1..1_000).find_map(|second| world.ask(By::Key, 1, None, START + second).err().map(|error| (second, error)));
    assert!(matches!(refused, Some((64, Refusal::TooManyCertificates(_)))), "{refused:?}");
    // Until some of them end.
    world.ask(By::Key, 1, None, START + LIFE + 1).unwrap();
}

#[test]
fn tokens_that_cannot_be_are_refused() {
    let token = |names: &str, life: u64, uses: u32, operator: bool| {
        let names = NamePattern::parse(names).unwrap().unwrap();
        let (hash, labels) = (TokenHash([0; 32]), BTreeMap::new());
        let hosts = Vec::new();
        check_token(&Token {
            hash,
            names,
            labels,
            operator,
            created_at: 0,
            expires_at: life,
            uses,
            used: 0,
            revoked: false,
            rejoin: false,
            hosts,
        })
    };
    assert!(token("a", HOUR, 1, true).is_ok() && token("a-*", TOKEN_LIFE_MAX, TOKEN_USES_MAX, false).is_ok());
    for (refused, field) in [
        (token("a", 0, 1, false), "ttl"),
        (token("a", TOKEN_LIFE_MAX + 1, 1, false), "ttl"),
        (token("a", HOUR, 0, false), "uses"),
        (token("a", HOUR, TOKEN_USES_MAX + 1, false), "uses"),
        (token("a-*", HOUR, 1, true), "name"),
    ] {
        assert_eq!(refused.unwrap_err().field, field);
    }
}
