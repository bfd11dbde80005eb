//! demo: the main job on this machine, with real servers.

use super::{
    cluster::{Authority, Cluster},
    documents,
};
use crate::{
    args::Demo,
    failure::{Failure, Outcome},
    printer::{Printer, bytes, rate, span},
};
use p2pdi::{
    json,
    v1::{Document, RfcQueryRequest, WhisperRequest},
};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::{
        rfc_query::{Limits, query},
        search::{Found, ask},
        settlement::Settlement,
        source::Source,
    },
    transfer::{FetchOptions, Fetched, NoMoreHolders, Progress, Swarms, fetch},
};
use serde_json::json;
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// The RFC that the README fetches first.
const SMALL: u32 = 48;
/// The largest embedded RFC.
const LARGE: u32 = 8881;
const NAMES: [&str; 3] = ["fff-a", "fff-b", "fff-c"];
/// An acknowledged message must be in the inbox within this time.
const INBOX_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn demo(args: Demo, printer: Printer) -> Outcome {
    let begun = Instant::now();
    let folder = tempfile::tempdir()?;
    let authority = if args.tls { Some(Authority::new()?) } else { None };
    let mut cluster = Cluster::start(folder.path(), 0, authority).await?;
    for (index, name) in NAMES.iter().enumerate() {
        let share = documents::distribute(&folder.path().join("share"), index, NAMES.len())?;
        cluster.add_peer(name, Some(share), 0).await?;
    }
    cluster.ready().await?;
    let channels = ChannelPool::dialling(cluster.dial()?);
    let shown = show(&cluster, &channels, folder.path(), printer).await;
    let stopped = cluster.stop().await;
    shown?;
    stopped?;
    if printer.is_json() {
        printer.json(&json!({ "step": "done", "elapsed": format!("{:.3}s", begun.elapsed().as_secs_f64()) }))?;
    } else {
        printer.text(&format!(
            "\nEvery step succeeded, in {}. Next: p2pctl up, then p2pctl get-rfc 48 in another terminal.",
            span(begun.elapsed())
        ))?;
    }
    Ok(())
}

async fn show(cluster: &Cluster, channels: &ChannelPool, folder: &Path, printer: Printer) -> Outcome {
    let peers: Vec<_> = cluster.peers().iter().map(|peer| peer.identity().clone()).collect();
    say(
        printer,
        &format!("registry   {}, leases on disk", cluster.url()),
        || json!({ "step": "registry", "registry": cluster.url() }),
    )?;
    for peer in cluster.peers() {
        let (me, index) = (peer.identity(), peer.share().index());
        let numbers: Vec<_> = index.documents().iter().filter_map(|document| document.number).collect();
        say(
            printer,
            &format!("registered {} at {}, sharing RFCs {numbers:?}", me.name(), me.endpoint()),
            || json!({ "step": "registered", "name": me.name().to_string(), "endpoint": me.endpoint().as_str(), "rfcs": numbers }),
        )?;
    }
    let sources: Vec<_> = peers.iter().map(Source::from).collect();
    for number in [SMALL, LARGE] {
        let found = find(channels, &sources, number, printer).await?;
        let fetched = get(channels, found, folder).await?;
        check(&fetched, number)?;
        say_fetched(printer, &fetched)?;
    }
    whisper(cluster, channels, printer).await?;
    let request = RfcQueryRequest { own_only: true, ..Default::default() };
    let answer = query(channels.peer(&sources[0].endpoint, sources[0].name.as_ref()), request, Limits::LISTING).await;
    let answer = answer.map_err(|status| Failure::call(NAMES[0], &status))?;
    if answer.documents.is_empty() {
        return Err(Failure::refused(format!("{} lists nothing", NAMES[0])));
    }
    Ok(())
}

async fn find(channels: &ChannelPool, sources: &[Source], number: u32, printer: Printer) -> Outcome<Found> {
    let answers = ask(channels, sources, &DocumentSelector::Number(number)).await;
    let Settlement::Settled(settled) = answers.settle() else {
        return Err(Failure::refused(format!("nobody has RFC {number}; {}", answers.summary())));
    };
    let found = settled.found;
    let holders: Vec<_> = found.holders.iter().map(|holder| holder.label().to_owned()).collect();
    let Found { document, .. } = &found;
    let text =
        format!("\nfound      RFC {number}: {} ({}), held by {}", document.title, bytes(document.size()), holders.join(" and "));
    say(printer, &text, || json!({ "step": "found", "document": json::value(&Document::from(document)), "holders": holders }))?;
    Ok(found)
}

async fn get(channels: &ChannelPool, found: Found, folder: &Path) -> Outcome<Fetched> {
    let options =
        FetchOptions::new(folder.join("out"), Swarms::of_a_client("demo".parse()?, Arc::new(peerd::holders::tracker::NoTracker)));
    let wanted = DocumentSelector::Hash(found.document.hash);
    let progress = Arc::new(Progress::default());
    // Boxed: the future holds the hash state of a piece, which is large.
    Ok(Box::pin(fetch(channels, &wanted, found.holders, Arc::new(NoMoreHolders), &options, &progress)).await?)
}

/// Compares the fetched file with the embedded RFC.
fn check(fetched: &Fetched, number: u32) -> Outcome {
    let published = documents::RFCS.iter().find(|(n, _)| *n == number).map(|(_, text)| *text);
    if Some(fs::read(&fetched.path)?.as_slice()) == published {
        Ok(())
    } else {
        Err(Failure::refused(format!("{} is not RFC {number} as published", fetched.path.display())))
    }
}

fn say_fetched(printer: Printer, fetched: &Fetched) -> Outcome {
    let from: Vec<_> =
        fetched.sources.iter().filter(|report| report.bytes > 0).map(|report| report.source.label().to_owned()).collect();
    let (size, elapsed) = (fetched.document.size(), fetched.elapsed);
    let text = format!(
        "fetched    {} from {} in {}, {}\nverified   b3:{}",
        fetched.document.name,
        from.join(" and "),
        span(elapsed),
        rate(size, elapsed),
        fetched.document.hash
    );
    say(
        printer,
        &text,
        || json!({ "step": "fetched", "document": json::value(&Document::from(&fetched.document)), "from": from, "elapsed": format!("{:.6}s", elapsed.as_secs_f64()) }),
    )
}

async fn whisper(cluster: &Cluster, channels: &ChannelPool, printer: Printer) -> Outcome {
    let [first, .., last] = cluster.peers() else { return Err(Failure::refused("the demo needs two peers")) };
    let (from, to) = (first.identity(), last.identity());
    let request = WhisperRequest {
        to: to.name().to_string(),
        body: "hello from the demo".into(),
        from: from.name().to_string(),
        ..Default::default()
    };
    // Through the first peer, which finds the last one by itself.
    let begun = Instant::now();
    let answer = channels.peer(from.endpoint(), Some(from.name())).whisper(request).await;
    let took = begun.elapsed();
    let answer = answer.map_err(|status| Failure::call(from.name().as_str(), &status))?.into_inner();
    let arrived = async {
        while !last.inbox().latest(1).iter().any(|message| message.body == "hello from the demo") {
            tokio::task::yield_now().await;
        }
    };
    timeout(INBOX_TIMEOUT, arrived)
        .await
        .map_err(|_| Failure::refused("the message was acknowledged but is not in the inbox"))?;
    let text = format!(
        "\nwhispered  {} to {}, delivered by {} after {} hop in {}",
        from.name(),
        to.name(),
        answer.delivered_by,
        answer.hops,
        span(took)
    );
    say(printer, &text, || {
        let mut value = json::value(&answer);
        value["step"] = json!("whispered");
        value
    })
}

fn say(printer: Printer, text: &str, value: impl FnOnce() -> serde_json::Value) -> Outcome {
    if printer.is_json() {
        printer.json(&value())?
    } else {
        printer.text(text)?
    }
    Ok(())
}
