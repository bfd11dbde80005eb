//! The verbs.

mod authority;
mod bench;
mod certificates;
mod chat;
mod cluster;
mod context;
mod demo;
mod documents;
mod drain;
mod get;
mod graph;
mod jobs;
mod lease;
mod login;
mod ls;
mod mesh;
mod message;
mod operate;
mod pquery;
mod rfc_query;
mod shell;
mod status;
mod swarm;
mod tokens;
mod up;
mod watch;

use crate::{
    args::{BenchWhat, Ca, CaWhat, Cli, Pquery, Verb},
    failure::{Failure, Outcome},
    printer::Printer,
};
use p2pdi::{
    server::{Stopped, until_stopped},
    tls::Tls,
};
use peerd::connections::channels::ChannelPool;
use std::{convert::Infallible, future::pending};
use tracing::Instrument as _;

/// Runs the verb; Ctrl-C cancels it.
pub(crate) async fn run(cli: Cli, printer: Printer) -> Outcome {
    let Cli { mut global, verb } = cli;
    if calls_servers(&verb) {
        login::renew(global.certificate(), printer).await;
        global.read_certificates()?;
    }
    let (leaving, tls) = (global.leaving.clone(), global.dial.tls.clone());
    let span = tracing::info_span!("p2pctl", otel.name = format!("p2pctl {}", name(&verb)), otel.kind = "client");
    let channels = ChannelPool::dialling(global.dial.clone());
    let running = async move |stop: tokio_util::sync::CancellationToken| {
        // Verbs that run until Ctrl-C shut down in order; the others are cancelled.
        match verb {
            Verb::Up(args) => up::up(args, printer, stop).await,
            Verb::Demo(args) => cancellable(demo::demo(args, printer), stop).await,
            Verb::Bench(bench) => match bench.what {
                BenchWhat::Tasks(args) => cancellable(bench::tasks(args, printer), stop).await,
            },
            Verb::Register(args) => cancellable(lease::register(&global, args, printer), stop).await,
            Verb::Keepalive => cancellable(lease::keepalive(&global, printer), stop).await,
            Verb::Leave => cancellable(lease::leave(&global, printer), stop).await,
            Verb::Registry(args) => cancellable(Box::pin(operate::operate(&global, args.what, printer)), stop).await,
            Verb::Pquery(Pquery { of: Some(peer), via, .. }) => {
                cancellable(mesh::peers_of(&global, &channels, &via, &peer, printer), stop).await
            }
            Verb::Pquery(args) if args.via.via.is_some() && args.has_filter() => Err(Failure::usage(
                "a peer has no filters and cannot be watched: leave out --via (or P2PDI_CTL_VIA) to ask the registry, or the filters and --watch to ask the peer",
            )),
            Verb::Pquery(args) if args.via.via.is_some() => {
                let via = args.via.via.as_ref().map(ToString::to_string).unwrap_or_default();
                cancellable(mesh::peers_of(&global, &channels, &args.via, &via, printer), stop).await
            }
            Verb::Pquery(args) if args.watch => Box::pin(watch::watch(&global, args, printer, stop)).await,
            Verb::Pquery(args) => cancellable(Box::pin(pquery::pquery(&global, args, printer)), stop).await,
            Verb::Broadcast(args) => cancellable(mesh::broadcast(&channels, args, printer), stop).await,
            Verb::Listen(args) => mesh::listen(&channels, args, printer, stop).await,
            Verb::Chat(args) => chat::chat(&global, channels, args, printer, stop).await,
            Verb::Join(args) => cancellable(mesh::join(&channels, args, printer), stop).await,
            Verb::Drain(args) => cancellable(drain::drain(&channels, args, printer), stop).await,
            Verb::PeerCount(args) => cancellable(mesh::peer_count(&channels, args, printer), stop).await,
            Verb::Graph(args) => cancellable(graph::graph(&channels, args, printer), stop).await,
            Verb::RfcQuery(args) => cancellable(Box::pin(rfc_query::rfc_query(&global, &channels, args, printer)), stop).await,
            Verb::Ls(args) => cancellable(Box::pin(ls::ls(&global, &channels, args, printer)), stop).await,
            Verb::Search(args) => cancellable(Box::pin(ls::search(&global, &channels, args, printer)), stop).await,
            Verb::GetRfc(args) => Box::pin(get::get_rfc(&global, &channels, args, printer, stop)).await,
            Verb::Get(args) => Box::pin(get::get(&global, &channels, args, printer, stop)).await,
            Verb::Fetch(args) => Box::pin(jobs::fetch(&global, &channels, args, printer, stop)).await,
            Verb::Jobs(args) => cancellable(jobs::jobs(&channels, args, printer), stop).await,
            Verb::Pin(args) => cancellable(jobs::pin(&channels, args, false, printer), stop).await,
            Verb::Unpin(args) => cancellable(jobs::pin(&channels, args, true, printer), stop).await,
            Verb::Swarm(args) => cancellable(Box::pin(swarm::swarm(&global, &channels, args, printer)), stop).await,
            Verb::Whisper(args) => cancellable(message::whisper(&global, &channels, args, printer), stop).await,
            Verb::Ping(args) => cancellable(message::ping(&global, &channels, args, printer), stop).await,
            Verb::Status(args) => cancellable(status::status(&global, &channels, args, printer), stop).await,
            Verb::Context(args) => context::context(&global, args, printer),
            Verb::Token(args) => cancellable(tokens::token(&global, args, printer), stop).await,
            Verb::Revoke(args) => cancellable(tokens::revoke(&global, args, printer), stop).await,
            Verb::Ca(Ca { what: CaWhat::Copy(args) }) => certificates::copy(args, printer, stop).await,
            Verb::Ca(args) => cancellable(Box::pin(authority::ca(&global, args, printer)), stop).await,
            Verb::Login(args) => cancellable(login::login(args, printer), stop).await,
            Verb::Completions(args) => shell::completions(args.shell, printer),
            Verb::Man(args) => shell::man(args.out.as_deref(), printer),
        }
    };
    let stopped = tokio::select! {
        stopped = until_stopped(async |stop| Box::pin(running(stop).instrument(span)).await) => stopped?,
        never = follow_files(tls) => match never {},
    };
    leaving.finish().await;
    match stopped {
        Stopped::Done(outcome) => outcome,
        Stopped::AtOnce => Err(Failure::interrupted()),
    }
}

/// Verbs that run until Ctrl-C use certificates that were renewed meanwhile.
async fn follow_files(tls: Option<Tls>) -> Infallible {
    if let Some(tls) = tls {
        tls.follow_files(|_| {}).await;
    }
    pending().await
}

/// Whether a verb calls servers that others started.
fn calls_servers(verb: &Verb) -> bool {
    !matches!(verb, Verb::Up(_) | Verb::Demo(_) | Verb::Bench(_) | Verb::Context(_) | Verb::Completions(_) | Verb::Man(_))
}

async fn cancellable(verb: impl Future<Output = Outcome>, stop: tokio_util::sync::CancellationToken) -> Outcome {
    tokio::select! {
        outcome = verb => outcome,
        () = stop.cancelled() => Err(Failure::interrupted()),
    }
}

fn name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Register(_) => "register",
        Verb::Keepalive => "keepalive",
        Verb::Leave => "leave",
        Verb::Registry(_) => "registry",
        Verb::Pquery(_) => "pquery",
        Verb::RfcQuery(_) => "rfc-query",
        Verb::Ls(_) => "ls",
        Verb::Search(_) => "search",
        Verb::GetRfc(_) => "get-rfc",
        Verb::Get(_) => "get",
        Verb::Fetch(_) => "fetch",
        Verb::Jobs(_) => "jobs",
        Verb::Pin(_) => "pin",
        Verb::Unpin(_) => "unpin",
        Verb::Swarm(_) => "swarm",
        Verb::Whisper(_) => "whisper",
        Verb::Broadcast(_) => "broadcast",
        Verb::Listen(_) => "listen",
        Verb::Chat(_) => "chat",
        Verb::Join(_) => "join",
        Verb::Drain(_) => "drain",
        Verb::PeerCount(_) => "peer-count",
        Verb::Graph(_) => "graph",
        Verb::Ping(_) => "ping",
        Verb::Status(_) => "status",
        Verb::Up(_) => "up",
        Verb::Demo(_) => "demo",
        Verb::Bench(_) => "bench",
        Verb::Context(_) => "context",
        Verb::Token(_) => "token",
        Verb::Login(_) => "login",
        Verb::Revoke(_) => "revoke",
        Verb::Ca(_) => "ca",
        Verb::Completions(_) => "completions",
        Verb::Man(_) => "man",
    }
}
