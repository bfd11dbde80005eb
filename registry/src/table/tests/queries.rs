//! Queries: filters, pages, samples and deltas.

use super::*;

#[test]
fn a_filtered_delta_reports_a_peer_gone_when_its_labels_no_longer_match() {
    let mut table = table();
    let zone = |zone: &str| BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
    let (_, me) = register(&mut table, &ask("me", 1), at(0)).unwrap();
    let labelled = |name, number, value: &str| Registration { labels: Labels::pack(&zone(value)), ..holder(name, number) };
    register(&mut table, &labelled("a", 2, "eu"), at(0)).unwrap();
    let (_, other) = register(&mut table, &labelled("other", 3, "us"), at(0)).unwrap();
    let since_revision = table.revision();
    register(&mut table, &labelled("a", 2, "us"), at(1)).unwrap();
    leave(&mut table, &other, at(1)).unwrap();
    let query = Query { labels: zone("eu"), page_size: 10, since_revision, ..Query::default() };
    let answer = table.query(&me, &query, at(2)).unwrap();
    let gone: Vec<_> = answer.gone.iter().map(|gone| gone.name.as_str()).collect();
    assert_eq!((gone, answer.peers.len()), (vec!["a"], 0));
}

#[test]
fn pages_neither_repeat_nor_miss_peers_while_others_join_and_leave() {
    let mut table = table();
    let (_, me) = register(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    for number in 0..100 {
        register(&mut table, &ask(&format!("stays-{number}"), number), at(0)).unwrap();
        register(&mut table, &ask(&format!("goes-{number}"), 1_000 + number), at(0)).unwrap();
    }
    let (mut page_token, mut seen, mut round) = (String::new(), Vec::new(), 0);
    loop {
        let page = table.query(&me, &Query { page_size: 7, page_token, ..Query::default() }, at(1)).unwrap();
        seen.extend(page.peers.into_iter().map(|peer| peer.name).filter(|name| name.starts_with("stays")));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        leave(&mut table, &cookie(1_000 + round).hash(), at(1)).unwrap();
        register(&mut table, &ask(&format!("comes-{round}"), 2_000 + round), at(1)).unwrap();
        register(&mut table, &holder(&format!("stays-{round}"), round), at(1)).unwrap();
        round += 1;
    }
    assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (100, 100));
}

#[test]
fn a_scan_without_matches_returns_a_token_for_the_next_page() {
    let mut table = table();
    let (_, me) = register(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    for number in 0..40_000 {
        register(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
    }
    let pattern = p2pdi::selector::NamePattern::parse("*39999").unwrap();
    let query = Query { name: "*39999".into(), pattern, page_size: 10, ..Query::default() };
    let (mut found, mut page_token, mut calls) = (0, String::new(), 0);
    loop {
        let page = table.query(&me, &Query { page_token, ..query.clone() }, at(1)).unwrap();
        (found, page_token, calls) = (found + page.peers.len(), page.next_page_token, calls + 1);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((found, calls), (1, 3));
}

#[test]
fn samples_are_distinct_uniform_and_without_the_caller() {
    let mut table = table();
    let (_, me) = register(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    for number in 0..100 {
        register(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
    }
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..2_000 {
        let some = table.query(&me, &Query { sample: 10, ..Query::default() }, at(1)).unwrap().peers;
        assert_eq!(some.iter().map(|peer| &peer.name).collect::<BTreeSet<_>>().len(), 10);
        some.into_iter().for_each(|peer| *times.entry(peer.name).or_default() += 1);
    }
    assert_eq!((times.len(), times.contains_key("me")), (100, false));
    // 200 expected; five standard deviations are about 67.
    assert!(times.values().all(|times| (133..=267).contains(times)), "{times:?}");
}

#[test]
fn pages_samples_and_deltas_stay_within_the_answer_size_of_clients() {
    let mut table = table();
    let (_, me) = register(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    let since_revision = table.revision();
    // As an older registry accepted them.
    let endpoint = format!("10.0.0.1:{}80", "0".repeat(16_000));
    for slot in 1..=600 {
        let name = format!("p{slot}");
        register(&mut table, &ask(&name, u128::from(slot)), at(0)).unwrap();
        table.records.get_mut(slot).unwrap().peer.strings = PackedStrings::new(&name, &endpoint, &Labels::default());
    }
    let fits = |answer: &PQueryResponse| {
        assert!(prost::Message::encoded_len(answer) < p2pdi::channel::REGISTRY_RESPONSE_MAX_BYTES);
        assert!(!answer.peers.is_empty());
    };
    let sampled = table.query(&me, &Query { sample: 1_000, ..Query::default() }, at(1)).unwrap();
    fits(&sampled);
    for since_revision in [0, since_revision] {
        let (mut page_token, mut seen) = (String::new(), BTreeSet::new());
        loop {
            let query = Query { page_size: PAGE_MAX, page_token, since_revision, ..Query::default() };
            let page = table.query(&me, &query, at(1)).unwrap();
            fits(&page);
            seen.extend(page.peers.into_iter().map(|peer| peer.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen.len(), 600);
    }
}
