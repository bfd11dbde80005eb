//! ls and search: lists the documents of the network, or those that one peer knows of.

use crate::{
    args::{Global, Listing, Ls, Search},
    failure::{Failure, Outcome},
    peers::Peers,
    printer::{Printer, bytes},
};
use alphanumeric_sort::compare_str;
use p2pdi::{json, phrases::counted, v1::Document};
use peerd::{
    connections::channels::ChannelPool,
    holders::{
        listing::{ListingFilter, Offer, Offers, known_to, shared_by},
        source::Source,
    },
};
use serde_json::json;
use std::{cmp::Reverse, collections::BTreeSet};

/// Holders named in a row; of more, the count is given.
const NAMED_MAX: usize = 3;
/// Digits of a hash that tell documents of one name apart.
const HASH_DIGITS: usize = 12;

pub(super) async fn ls(global: &Global, channels: &ChannelPool, args: Ls, printer: Printer) -> Outcome {
    let what =
        args.pattern.as_ref().map_or_else(|| "no document".to_owned(), |pattern| format!("no document that matches {pattern}"));
    let hint = match args.pattern {
        Some(_) => "`p2pctl ls` lists all documents, `p2pctl search WORDS` those with words in name or title",
        None => "`peerd --share DIR` shares the documents of a folder",
    };
    let filter = ListingFilter::of_pattern(args.pattern);
    list(global, channels, &filter, (&what, hint), args.listing, printer).await
}

pub(super) async fn search(global: &Global, channels: &ChannelPool, args: Search, printer: Printer) -> Outcome {
    let words = args.words.join(" ");
    let what = format!("no document with {words} in its name or title");
    let filter = ListingFilter::of_words(words)?;
    let hint = "`p2pctl ls` lists all documents, `p2pctl ls '**/*.txt'` those whose name matches a pattern";
    list(global, channels, &filter, (&what, hint), args.listing, printer).await
}

/// The pair: what is not found if nothing is, and what to do then.
async fn list(
    global: &Global,
    channels: &ChannelPool,
    filter: &ListingFilter,
    (what, hint): (&str, &str),
    listing: Listing,
    printer: Printer,
) -> Outcome {
    let peers = Peers::new(global, channels, &listing.via);
    let offers = match &listing.of {
        Some(peer) => {
            let peer = peers.find(peer).await?;
            let known = known_to(channels, &peer, filter).await;
            known.map_err(|why| Failure::refused(format!("{peer} does not answer: {why}")))?
        }
        None => {
            let sample = peers.all().await?;
            if let Some(missing) = sample.missing() {
                printer.note(&format!("note: {missing}"));
            }
            shared_by(channels, sample.peers, filter).await
        }
    };
    let Offers { mut offers, answered, failed, mut is_cut } = offers;
    for (peer, why) in &failed {
        printer.note(&format!("warning: what {peer} has is not known: {why}"));
    }
    // As people count; of one name the document with the most holders first.
    offers.sort_by(|a, b| {
        let by_name = compare_str(a.document.name.as_str(), b.document.name.as_str());
        by_name.then_with(|| Reverse(a.held_by).cmp(&Reverse(b.held_by)))
    });
    if offers.is_empty() {
        let asked = match &listing.of {
            Some(peer) => format!("{peer} knows of {what}"),
            None => format!(
                "there is {what}; {} asked",
                if answered == 1 { "1 peer was".to_owned() } else { format!("{answered} peers were") }
            ),
        };
        return Err(Failure::refused(asked).hint(hint));
    }
    if let Some(limit) = listing.limit {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        is_cut |= offers.len() > limit;
        offers.truncate(limit);
    }
    if printer.is_json() {
        offers.iter().try_for_each(|offer| printer.json(&as_json(offer)))?;
        return Ok(());
    }
    let ambiguous = names_with_several(&offers);
    let rows: Vec<_> = offers.iter().map(|offer| row(offer, &ambiguous)).collect();
    printer.table(&["NAME", "SIZE", "HOLDERS", "TITLE"], &rows)?;
    if is_cut {
        printer.note("note: there are more documents");
    }
    if printer.is_watched() {
        let size = offers.iter().map(|offer| offer.document.size()).fold(0, u64::saturating_add);
        printer.note(&format!("{}, {}", counted(offers.len() as u64, "document"), bytes(size)));
    }
    Ok(())
}

/// Names that more than one document has.
fn names_with_several(offers: &[Offer]) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    offers.iter().map(|offer| offer.document.name.as_str()).filter(|name| !seen.insert(*name)).collect()
}

fn row(offer: &Offer, ambiguous: &BTreeSet<&str>) -> Vec<String> {
    let name = offer.document.name.as_str();
    let hash = offer.document.hash.to_string();
    let hash = ambiguous.contains(name).then(|| format!(" (b3:{}…)", hash.get(..HASH_DIGITS).unwrap_or(&hash)));
    let labels: Vec<_> = offer.holders.iter().map(Source::label).collect();
    let holders = if offer.held_by <= NAMED_MAX { labels.join(",") } else { format!("{} peers", offer.held_by) };
    vec![format!("{name}{}", hash.unwrap_or_default()), bytes(offer.document.size()), holders, offer.document.title.clone()]
}

fn as_json(offer: &Offer) -> serde_json::Value {
    let holder = |holder: &Source| json!({ "peer_name": holder.label(), "endpoint": holder.endpoint.as_str() });
    json!({
        "document": json::value(&Document::from(&offer.document)),
        "holders": offer.holders.iter().map(holder).collect::<Vec<_>>(),
        "held_by": offer.held_by,
    })
}
