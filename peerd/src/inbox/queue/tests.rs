use super::*;
use std::time::Duration;
use tokio::time::timeout;

fn message(from: usize, kind: &str, len: usize) -> Message {
    Message {
        from: from.to_string(),
        kind: kind.parse().unwrap(),
        body: vec![0; len].into(),
        received_at: SystemTime::now(),
        broadcast: false,
        hops: 0,
    }
}

#[test]
fn a_flood_of_one_sender_leaves_the_messages_of_others() {
    let inbox = Inbox::new(&Metrics::default());
    inbox.deliver(message(1, "", 10), &[], None);
    for _ in 0..3 * MESSAGES_MAX {
        inbox.deliver(message(2, "", 100), &[], None);
    }
    let kept = inbox.latest(MESSAGES_MAX);
    assert_eq!((kept.len(), kept[0].from.as_str()), (MESSAGES_MAX, "1"));
}

#[test]
fn past_its_bounds_the_oldest_message_is_dropped_and_counted() {
    let inbox = Inbox::new(&Metrics::default());
    for n in 0..MESSAGES_MAX + 5 {
        inbox.deliver(message(n, "", 1), &[], None);
    }
    assert_eq!(inbox.status(), InboxStatus { messages: 1000, received: 1005, dropped: 5, unclaimed: 0 });
    let inbox = Inbox::new(&Metrics::default());
    for n in 0..20 {
        inbox.deliver(message(n, "", 256 * 1024), &[], None);
    }
    assert_eq!(inbox.status().messages, 16);
    assert_eq!(inbox.latest(1)[0].from, "19");
}

#[tokio::test]
async fn a_slow_subscription_loses_the_oldest_messages_and_delays_no_other() {
    let inbox = Arc::new(Inbox::new(&Metrics::default()));
    let (mut slow, mut quick) = (inbox.subscribe(vec![]).unwrap(), inbox.subscribe(vec![]).unwrap());
    for n in 0..MESSAGES_MAX + 7 {
        inbox.deliver(message(n, "", 1), &[], None);
        assert_eq!(quick.next().await.unwrap().0.from, n.to_string());
    }
    let (first, lost) = slow.next().await.unwrap();
    assert_eq!((first.from.as_str(), lost), ("7", 7));
    assert_eq!(slow.next().await.unwrap().1, 0);
}

#[tokio::test]
async fn a_message_of_an_unwanted_kind_is_counted_and_dropped() {
    let inbox = Arc::new(Inbox::new(&Metrics::default()));
    inbox.deliver(message(1, "TEST", 1), &[], None);
    assert_eq!((inbox.status().messages, inbox.status().unclaimed), (0, 1));
    let mut subscription = inbox.subscribe(vec!["TEST".parse().unwrap()]).unwrap();
    inbox.deliver(message(2, "text", 1), &[], None);
    inbox.deliver(message(3, "TEST", 1), &[], None);
    assert_eq!(subscription.next().await.unwrap().0.from, "3");
    drop(subscription);
    inbox.deliver(message(4, "TEST", 1), &[], None);
    assert_eq!(inbox.status().unclaimed, 2);
}

#[test]
fn a_message_that_arrives_twice_is_kept_once() {
    let inbox = Inbox::new(&Metrics::default());
    assert!(matches!(inbox.deliver(message(1, "", 3), &[7; 16], None), DeliveryOutcome::Kept));
    assert!(matches!(inbox.deliver(message(1, "", 3), &[7; 16], None), DeliveryOutcome::Duplicate));
    assert_eq!(inbox.status().received, 1);
}

#[tokio::test]
async fn a_message_that_arrives_twice_is_handled_once_and_both_senders_get_the_reply() {
    let inbox = Arc::new(Inbox::new(&Metrics::default()));
    let mut handler = inbox.subscribe_handler("TEST".parse().unwrap()).unwrap();
    let deliver = || match inbox.deliver(message(1, "TEST", 1), &[7; 16], None) {
        DeliveryOutcome::Handled(reply) => reply,
        _ => panic!("it has a handler"),
    };
    let (first, second) = (deliver(), deliver());
    let (_, _, reply) = handler.next_to_handle().await.unwrap();
    reply.unwrap().send(Reply::new("ECHO", "x")).unwrap();
    let third = deliver();
    for reply in [first, second, third] {
        assert_eq!(reply.await.unwrap(), Reply::new("ECHO", "x"));
    }
    assert_eq!(inbox.status().received, 1);
}

#[tokio::test]
async fn a_sender_stops_waiting_when_its_message_is_dropped_or_the_handler_is_gone() {
    let inbox = Arc::new(Inbox::new(&Metrics::default()));
    let mut handler = inbox.subscribe_handler("TEST".parse().unwrap()).unwrap();
    let deliver = |from, kind| match inbox.deliver(message(from, kind, 1), &[], None) {
        DeliveryOutcome::Handled(reply) => Some(reply),
        _ => None,
    };
    let (first, second) = (deliver(1, "TEST").unwrap(), deliver(2, "TEST").unwrap());
    assert!(deliver(3, "").is_none());
    let (read, lost, reply) = handler.next_to_handle().await.unwrap();
    assert_eq!((read.from.as_str(), lost), ("1", 0));
    reply.unwrap().send(Reply::new("ECHO", "x")).unwrap();
    assert_eq!(first.await.unwrap().kind, "ECHO");
    for n in 0..MESSAGES_MAX {
        deliver(n, "");
    }
    assert!(second.await.is_err());
    let third = deliver(4, "TEST").unwrap();
    drop(handler);
    assert!(third.await.is_err());
    assert!(matches!(inbox.deliver(message(5, "TEST", 1), &[], None), DeliveryOutcome::Unclaimed));
    assert_eq!(inbox.kept().replies.len(), 0);
}

#[tokio::test]
async fn a_handler_that_takes_the_place_of_another_replies_when_that_is_gone() {
    let inbox = Arc::new(Inbox::new(&Metrics::default()));
    let before = inbox.subscribe_handler("TEST".parse().unwrap()).unwrap();
    let mut handler = inbox.subscribe_handler("TEST".parse().unwrap()).unwrap();
    let deliver = || match inbox.deliver(message(1, "TEST", 1), &[], None) {
        DeliveryOutcome::Handled(reply) => reply,
        _ => panic!("it has a handler"),
    };
    let first = deliver();
    drop(before);
    let second = deliver();
    for reply in [first, second] {
        let (_, _, sender) = handler.next_to_handle().await.unwrap();
        sender.unwrap().send(Reply::new("ECHO", "x")).unwrap();
        assert_eq!(reply.await.unwrap().kind, "ECHO");
    }
}

#[tokio::test]
async fn a_subscription_to_some_kinds_is_neither_woken_by_others_nor_misses_them() {
    let inbox = Arc::new(Inbox::new(&Metrics::default()));
    let mut subscription = inbox.subscribe(vec!["TEST".parse().unwrap()]).unwrap();
    let others = || (0..3 * MESSAGES_MAX).for_each(|n| drop(inbox.deliver(message(n % 7, "", 1), &[], None)));
    others();
    let Reading::Some { changed, .. } = &subscription.reading else { panic!("it reads some") };
    assert!(timeout(Duration::ZERO, changed.notified()).await.is_err());
    inbox.deliver(message(9, "TEST", 1), &[], None);
    let (message, lost) = subscription.next().await.unwrap();
    assert_eq!((message.from.as_str(), lost), ("9", 0));
    others();
    // From now on it reads all.
    subscription.widen();
    inbox.deliver(self::message(10, "", 1), &[], None);
    let (message, lost) = subscription.next().await.unwrap();
    assert_eq!((message.from.as_str(), lost), ("10", 0));
}

#[tokio::test]
async fn what_a_wider_subscription_wanted_before_and_did_not_read_comes_first() {
    let inbox = Arc::new(Inbox::new(&Metrics::default()));
    let mut subscription = inbox.subscribe(vec!["TEST".parse().unwrap()]).unwrap();
    for (from, kind) in [(1, ""), (2, "TEST"), (3, "")] {
        inbox.deliver(message(from, kind, 1), &[], None);
    }
    subscription.widen();
    for from in ["2", "3"] {
        assert_eq!(subscription.next().await.unwrap().0.from, from);
    }
}
