//! swarm: shows who has how much of a document, who sends it to whom, and why nothing moves.

mod draw;
mod seen;
mod walk;

use crate::{
    args::{Global, Swarm},
    failure::{Failure, Outcome},
    peers::Peers,
    printer::Printer,
    registry_client::RegistrySession,
};
use p2pdi::{content::ContentHash, v1::AnnounceRequest};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::{search::ask, settlement::Settlement, source::Source, tracker::Announced},
};
use walk::{Walk, swarms_of};

pub(super) async fn swarm(global: &Global, channels: &ChannelPool, args: Swarm, printer: Printer) -> Outcome {
    let peers = Peers::new(global, channels, &args.via);
    let wanted = args.document;
    let (hash, walk) = match args.at {
        Some(at) => from_one(channels, Source::new(None, at), &wanted).await?,
        None => {
            let sample = peers.all().await?;
            if let Some(missing) = sample.missing() {
                printer.note(&format!("note: {missing}"));
            }
            let (hash, walk) = from_all(channels, sample.peers, &wanted).await?;
            let tracked = tracked(global, hash, walk.size()).await;
            (hash, walk.and(tracked))
        }
    };
    let seen = walk.run(channels, hash).await;
    if seen.is_empty() {
        return Err(Failure::refused(format!("nobody has or fetches {wanted}")));
    }
    if printer.is_json() {
        printer.json(&draw::json(&seen, hash))?;
        return Ok(());
    }
    for line in draw::head(&seen, hash) {
        printer.text(&line)?;
    }
    printer.table(&draw::COLUMNS, &draw::rows(&seen))?;
    for line in draw::reasons(&seen) {
        printer.text(&line)?;
    }
    Ok(())
}

/// The members that the registry knows of: those that are no registered peers, such as a `get` that only seeds, are connected to nobody who
/// could name them.
async fn tracked(global: &Global, hash: ContentHash, size: u64) -> Vec<Source> {
    let asked = async {
        // An observer of its own: what it announces ends with the session. The one that `register` saved may be a member.
        let mut session = RegistrySession::new(&global.access(), None);
        session.observe().await?;
        let asking = AnnounceRequest { blake3: hash.to_field(), size, ..Default::default() };
        session.call(asking, |mut client, request| async move { client.announce(request).await }).await.map(Announced::from)
    };
    match asked.await {
        Ok(announced) => announced.others.into_iter().map(|candidate| candidate.source).collect(),
        Err(failure) => {
            tracing::info!(?failure, "the registry was not asked for members of the swarm");
            Vec::new()
        }
    }
}

/// Begins with the peer of --at, which knows the document by its name if it is in its swarm.
async fn from_one(channels: &ChannelPool, at: Source, wanted: &DocumentSelector) -> Outcome<(ContentHash, Walk)> {
    if let DocumentSelector::Hash(hash) = wanted {
        return Ok((*hash, Walk::starting_at(vec![at])));
    }
    let swarms = swarms_of(channels, &at, None).await.map_err(|status| Failure::call(at.label(), &status))?;
    let found = swarms.iter().find_map(|swarm| {
        let is_it = match wanted {
            DocumentSelector::Name(name) => peerd::documents::name_match::name_match(name.as_str(), &swarm.name).is_some(),
            DocumentSelector::Number(_) | DocumentSelector::Hash(_) => false,
        };
        ContentHash::from_field(&swarm.blake3).ok().filter(|_| is_it)
    });
    match found {
        Some(hash) => Ok((hash, Walk::starting_at(vec![at]))),
        None => from_all(channels, vec![at], wanted).await,
    }
}

/// Begins with all that hold the document; if nobody does, with all peers.
async fn from_all(channels: &ChannelPool, peers: Vec<Source>, wanted: &DocumentSelector) -> Outcome<(ContentHash, Walk)> {
    let answers = ask(channels, &peers, wanted).await;
    let asked = answers.summary();
    match (answers.settle(), wanted) {
        (Settlement::Settled(settled), _) => Ok((settled.found.document.hash, Walk::from_holders(settled.found))),
        (Settlement::Ambiguous(found), _) => Err(Failure::ambiguous(wanted, &found)),
        (Settlement::Nobody, DocumentSelector::Hash(hash)) => Ok((*hash, Walk::starting_at(peers))),
        (Settlement::Nobody, _) => Err(Failure::refused(format!("nobody has {wanted}; {asked}"))
            .hint("of a document that nobody has whole, give the hash: p2pctl swarm b3:HASH")),
    }
}
