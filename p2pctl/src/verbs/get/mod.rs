//! get-rfc and get: fetches documents, verified, into a folder.

mod entry;
mod local;
mod report;
mod room;
mod run;
mod selection;
mod setting;

use crate::{
    args::{Fetching, Get, GetRfc, Global},
    failure::{Failure, Outcome},
    peers::Peers,
    printer::Printer,
    progress::{Display, Overall},
    sharing::Sharing,
};
use entry::Entry;
use p2pdi::phrases::counted;
use peerd::{
    connections::channels::ChannelPool,
    documents::{pattern::PatternSet, selector::DocumentSelector, wanted::Wanted},
    transfer::{FetchPhase, Throttle},
};
use report::Report;
use room::Room;
use selection::Selection;
use setting::Setting;
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

pub(super) async fn get_rfc(
    global: &Global,
    channels: &ChannelPool,
    args: GetRfc,
    printer: Printer,
    stop: CancellationToken,
) -> Outcome {
    let wanted = args.numbers.into_iter().map(|number| Wanted::One(DocumentSelector::Number(number))).collect();
    get_wanted(global, channels, wanted, PatternSet::default(), args.fetching, printer, stop).await
}

pub(super) async fn get(
    global: &Global,
    channels: &ChannelPool,
    args: Get,
    printer: Printer,
    stop: CancellationToken,
) -> Outcome {
    let has_pattern = args.wanted.iter().any(|wanted| matches!(wanted, Wanted::Matching(_)));
    if args.choice.is_given() && !has_pattern {
        return Err(Failure::usage("--include and --exclude choose among what patterns match; there is no pattern")
            .hint("'**' matches all documents"));
    }
    get_wanted(global, channels, args.wanted, args.choice.patterns()?, args.fetching, printer, stop).await
}

async fn get_wanted(
    global: &Global,
    channels: &ChannelPool,
    wanted: Vec<Wanted>,
    choice: PatternSet,
    fetching: Fetching,
    printer: Printer,
    stop: CancellationToken,
) -> Outcome {
    let peers = Arc::new(Peers::new(global, channels, &fetching.via));
    let is_single = matches!(wanted.as_slice(), [Wanted::One(_)]);
    let preparing = async {
        let from = peers.find_all(&fetching.from).await?;
        let limit = Throttle::new(fetching.limit);
        let sharing = Sharing::start(global, channels, &fetching.via, &fetching.sharing).await?;
        let channels = if fetching.limit.is_some() { channels.limited_to(fetching.limit) } else { channels.clone() };
        let setting = Setting { channels, peers: Arc::clone(&peers), fetching, from, printer, limit, sharing };
        let selection = match wanted.as_slice() {
            // Its name is settled and its holders are found by the fetch itself.
            [Wanted::One(selector)] if !setting.fetching.dry_run => Selection::of(Entry::wanted(selector.clone())),
            _ => selection::select(&setting, &wanted, &choice).await?,
        };
        Ok::<_, Failure>((setting, selection))
    };
    // Boxed: the search holds the calls of many peers.
    let prepared = tokio::select! {
        prepared = Box::pin(preparing) => prepared,
        () = stop.cancelled() => return Err(Failure::interrupted()),
    };
    let (setting, selection) = prepared?;
    let Selection { entries, failed, notes } = selection;
    for note in notes {
        printer.note(&note);
    }
    if setting.fetching.dry_run {
        return local::dry_run(entries, failed, &setting).await;
    }
    let mut display = Display::new(global.progress, setting.fetching.quiet, printer);
    let mut report = Report::new(printer, setting.fetching.quiet, is_single);
    for (label, failure) in failed {
        report.not_found(label, failure);
    }
    // One document alone is looked at, and room for it reserved, by its fetch.
    let (entries, room) = match is_single {
        true => (entries, Room::default()),
        false => tokio::select! {
            left = local::leave_out_present(entries, &setting, &mut report, &display) => left?,
            () = stop.cancelled() => return Err(Failure::interrupted()),
        },
    };
    let (ended, last) = run::run(entries, room, &setting, &mut display, &mut report, &stop).await;
    // With --keep-going, what failed does not end what is done with the others.
    let goes_on = !ended.interrupted && report.is_printed() && (setting.fetching.keep_going || report.failures() == 0);
    let asked = setting.fetching.sharing.seed.filter(|_| goes_on);
    // Without a document that others can find there is nothing to wait for.
    let shared = report.shared();
    let seeds = asked.filter(|_| shared > 0);
    match seeds {
        Some(_) => display.go_on(&last),
        None => display.finish(&last),
    }
    let finished = report.finish(ended);
    if let Some(time) = asked.filter(|_| !setting.fetching.quiet) {
        printer.note(&match shared {
            0 => "note: nothing is shared on: nothing of 1 MiB or more was fetched".to_owned(),
            _ => {
                let documents = counted(shared as u64, "document");
                format!("sharing {documents} for {}; Ctrl-C ends it", humantime::format_duration(time))
            }
        });
    }
    if let Some(time) = seeds {
        seed(&setting, time, &mut display, last, &stop).await;
    }
    finished
}

/// Goes on sharing for `time`, or until `stop`.
async fn seed(setting: &Setting, time: Duration, display: &mut Display, last: Overall, stop: &CancellationToken) {
    let seeding = async {
        let mut tick = interval(display.interval());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let overall =
                Overall { phase: FetchPhase::Seeding, bytes_per_second: 0, holders: 0, holder_names: Vec::new(), ..last.clone() };
            display.update(&overall.with_sent(setting.sharing.swarms().sent()));
        }
    };
    tokio::select! {
        _ = timeout(time, seeding) => {}
        () = stop.cancelled() => {}
    }
    display.finish(&last.with_sent(setting.sharing.swarms().sent()));
}
