use super::*;
use p2pdi::content::ContentHash;

fn target(name: &str, size: u64) -> Target {
    let name = DocumentName::parse(name).unwrap();
    Target {
        selector: DocumentSelector::Name(name.clone()),
        label: name.to_string(),
        save_as: Some(name),
        found_by: None,
        size,
        holders: Vec::new(),
        modified: None,
        restricted: false,
    }
}

fn items(names: &[&str]) -> Items {
    let mut items = Items::default();
    names.iter().for_each(|name| items.want((*name).into(), target(name, 10)));
    items
}

#[test]
fn documents_are_taken_in_order_and_counted() {
    let (mut items, now) = (items(&["b", "a", "c"]), Instant::now());
    let started: Vec<_> = std::iter::from_fn(|| items.start(|key, _| &**key != "c")).map(|(key, _)| key).collect();
    assert_eq!(started, ["a".into(), "b".into()]);
    assert_eq!((items.running(), items.ended(), items.bytes()), (2, false, 30));
    items.finish(&"a".into(), Outcome::Present(12), now, None);
    items.finish(&"b".into(), Outcome::Failed("no".into()), now, None);
    assert_eq!((items.present(), items.present_bytes(), items.failed(), items.bytes()), (1, 12, 1, 32));
    assert_eq!(items.failures()[0].why, "no");
    items.retain(|key| &**key != "c");
    assert!(items.ended() && items.len() == 2);
    // What is there or failed is taken up again if it is wanted anew.
    items.want("a".into(), target("a", 10));
    assert_eq!((items.present(), items.bytes()), (0, 20));
}

#[test]
fn a_document_without_holder_is_tried_again_later_and_later_until_patience_ends() {
    let (mut items, start) = (items(&["a"]), Instant::now());
    let patience = Some(Duration::from_secs(100));
    let (mut now, mut pauses) = (start, Vec::new());
    while items.failed() == 0 {
        items.start(|_, _| true).unwrap();
        items.finish(&"a".into(), Outcome::NoHolder("nobody".into()), now, patience);
        if let Some(next) = items.next_wake() {
            assert_eq!(items.longest_wait(), Some(("nobody".into(), start)));
            pauses.push((next - now).as_secs());
            items.wake(now);
            assert!(items.start(|_, _| true).is_none());
            now = next;
            items.wake(now);
        }
    }
    assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 30]);
    assert!((100..131).contains(&(now - start).as_secs()));
    assert!(items.failures()[0].why.contains("waited 100 s"), "{:?}", items.failures());
}

#[test]
fn news_of_a_holder_shorten_the_pause() {
    let (mut items, now) = (items(&["a"]), Instant::now());
    for _ in 0..5 {
        items.start(|_, _| true).unwrap();
        items.finish(&"a".into(), Outcome::NoHolder("nobody".into()), now, None);
        items.wake(items.next_wake().unwrap());
    }
    items.start(|_, _| true).unwrap();
    items.finish(&"a".into(), Outcome::NoRoom("full".into()), now, None);
    assert!(items.next_wake().unwrap() > now + RETRY_MIN);
    items.wake_early(false, now);
    assert_eq!(items.next_wake(), Some(now + RETRY_MIN));
}

#[test]
fn news_of_room_shorten_the_pauses_of_those_that_wait_for_it() {
    let (mut items, now) = (items(&["a", "b"]), Instant::now());
    for _ in 0..5 {
        items.start(|_, _| true).unwrap();
        items.start(|_, _| true).unwrap();
        assert!(!items.wait_for_room());
        items.finish(&"a".into(), Outcome::NoRoom("full".into()), now, None);
        items.finish(&"b".into(), Outcome::NoHolder("nobody".into()), now, None);
        assert!(items.wait_for_room());
        items.wake(now + RETRY.longest);
    }
    assert!(!items.wait_for_room());
    items.start(|key, _| &**key == "a").unwrap();
    items.start(|_, _| true).unwrap();
    items.finish(&"a".into(), Outcome::NoRoom("full".into()), now, None);
    items.finish(&"b".into(), Outcome::NoHolder("nobody".into()), now, None);
    items.wake_early(true, now);
    assert_eq!(items.next_wake(), Some(now + RETRY_MIN));
    items.wake(now + RETRY_MIN);
    assert_eq!((items.waiting(), items.wait_for_room()), (1, false));
}

#[test]
fn what_a_pattern_found_is_searched_for_by_its_name_once_it_is_gone_for_a_while() {
    let start = Instant::now();
    let by_hash = |content: &[u8]| Target {
        selector: DocumentSelector::Hash(ContentHash::of(content)),
        found_by: DocumentName::parse("a").ok(),
        ..target("a", 10)
    };
    let gone = || Outcome::Gone { why: "nobody has it".into(), everywhere: true };
    let mut items = Items::default();
    items.want("a".into(), by_hash(b"old"));
    assert_eq!(items.start(|_, _| true).unwrap().1.selector, DocumentSelector::Hash(ContentHash::of(b"old")));
    items.finish(&"a".into(), gone(), start, None);
    assert!(items.longest_wait().unwrap().0.contains("a changed since it was listed"));
    // A listing from before changes nothing.
    items.want("a".into(), by_hash(b"old"));
    let mut now = start;
    while items.failed() == 0 {
        now = items.next_wake().unwrap();
        items.wake(now);
        let (_, target) = items.start(|_, _| true).unwrap();
        assert_eq!((target.selector, target.size), (DocumentSelector::Name(DocumentName::parse("a").unwrap()), 0));
        // That somebody does not answer does not end it, whatever time has passed.
        items.finish(&"a".into(), Outcome::NoHolder("down".into()), now + GONE_PATIENCE, None);
        assert_eq!(items.failed(), 0);
        items.wake(items.next_wake().unwrap());
        items.start(|_, _| true).unwrap();
        items.finish(&"a".into(), gone(), now, None);
    }
    assert!(now >= start + GONE_PATIENCE && now < start + 2 * GONE_PATIENCE);
    assert!(items.failures()[0].why.contains("changed or was removed"), "{:?}", items.failures());
    // It is not tried for ever.
    items.want("a".into(), by_hash(b"new"));
    assert_eq!((items.failed(), items.bytes()), (1, 0));
}
