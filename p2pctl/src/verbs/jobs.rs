//! fetch, jobs, pin and unpin: calls to a running peer about what it fetches for its share.

use crate::{
    args::{Fetch, Global, Jobs, JobsWhat, Pin, ProgressMode},
    call::{CALL_TIMEOUT, bounded, to_peer},
    failure::{Failure, Outcome},
    printer::{Printer, bytes, holder},
    progress::{Display, Overall},
};
use p2pdi::{
    channel::Channel,
    endpoint::Endpoint,
    phrases::counted,
    status::Reason,
    v1::{
        CancelJobRequest, FetchRequest, FetchResponse, Job, JobPriority, JobSource, JobState, ListJobsRequest, PinRequest,
        control_client::ControlClient,
    },
};
use peerd::{
    connections::channels::ChannelPool,
    documents::{pattern::DocumentPattern, selector::DocumentSelector, wanted::Wanted},
};
use std::io;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

/// Holders of a job that are listed; of more, the count is given.
const SOURCES_SHOWN_MAX: usize = 10;

/// Has the peer fetch documents; with --wait, until they are there.
pub(super) async fn fetch(
    global: &Global,
    channels: &ChannelPool,
    args: Fetch,
    printer: Printer,
    stop: CancellationToken,
) -> Outcome {
    let at = args.at.at;
    let wait_for_holders = args.wait_for_holders.map(prost_types::Duration::try_from).transpose();
    let texts = |patterns: &[DocumentPattern]| patterns.iter().map(ToString::to_string).collect();
    let request = FetchRequest {
        wanted: args.wanted.iter().map(as_text).collect(),
        include: texts(&args.choice.include),
        exclude: texts(&args.choice.exclude),
        from: args.from,
        priority: JobPriority::from(args.priority).into(),
        wait: args.wait,
        wait_for_holders: wait_for_holders.map_err(|_| Failure::usage("--wait-for-holders is too long"))?,
    };
    let accepting = async {
        let mut stream = call(channels, &at, async |mut client| client.fetch(request).await).await?;
        let first = next(&at, &mut stream).await?;
        Ok::<_, Failure>((stream, first))
    };
    let (mut stream, first) = tokio::select! {
        accepted = accepting => accepted?,
        () = stop.cancelled() => return Err(Failure::interrupted()),
    };
    let mut job = first.ok_or_else(|| Failure::refused(format!("{at} ended the call without a job")))?;
    if !args.wait {
        if args.quiet && !printer.is_json() {
            printer.text(&job.id)?;
        } else {
            printer.message(&job, || format!("job {} is accepted; `p2pctl jobs` shows how far it is", job.id))?;
        }
        return Ok(());
    }
    // Lines of JSON are for programs.
    if !args.quiet && global.progress != ProgressMode::Json {
        let id = &job.id;
        printer.note(&format!("job {id} is accepted; Ctrl-C leaves it to the peer, `p2pctl jobs cancel {id}` ends it"));
    }
    let mut display = Display::new(global.progress, args.quiet, printer);
    let watched = watch(&at, &mut stream, &mut job, &mut display, &stop).await;
    display.finish(&Overall::of_job(&job));
    watched?;
    ended(&job, &at, args.quiet, printer)
}

/// A document or pattern as the peer reads it. A name that would be read as a pattern becomes one that matches this name alone.
fn as_text(wanted: &Wanted) -> String {
    match wanted {
        Wanted::One(DocumentSelector::Name(name)) if DocumentPattern::is_pattern(name.as_str()) => {
            let escaped = name.as_str().chars().flat_map(|c| matches!(c, '*' | '?' | '[').then_some('\\').into_iter().chain([c]));
            std::iter::once('/').chain(escaped).collect()
        }
        wanted => wanted.to_string(),
    }
}

/// Shows the job until it ends; `job` is its latest state.
async fn watch(
    at: &Endpoint,
    stream: &mut Streaming<FetchResponse>,
    job: &mut Job,
    display: &mut Display,
    stop: &CancellationToken,
) -> Outcome {
    let goes_on = |failure: Failure, id: &str| {
        failure.hint(format!("the job goes on without this command; `p2pctl jobs` shows it, `p2pctl jobs cancel {id}` ends it"))
    };
    let mut tick = tokio::time::interval(display.interval());
    loop {
        tokio::select! {
            message = stream.message() => match message {
                Ok(Some(FetchResponse { job: Some(latest) })) => *job = latest,
                Ok(Some(FetchResponse { job: None })) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(goes_on(Failure::call(at.as_str(), &status), &job.id)),
            },
            _ = tick.tick() => display.update(&Overall::of_job(job)),
            () = stop.cancelled() => return Err(goes_on(Failure::interrupted(), &job.id)),
        }
    }
}

/// Prints how a job ended.
fn ended(job: &Job, at: &Endpoint, quiet: bool, printer: Printer) -> Outcome {
    let detail = if job.detail.is_empty() { String::new() } else { format!(": {}", job.detail) };
    match job.state() {
        JobState::Done if quiet && !printer.is_json() => Ok(printer.text(&job.id)?),
        JobState::Done => {
            let there = counted(job.documents_done, "document");
            printer.message(job, || format!("job {} is done: {there}, {}", job.id, bytes(job.bytes_done)))?;
            Ok(sources(job, "  ", printer)?)
        }
        JobState::Cancelled => Err(Failure::refused(format!("job {} was cancelled{detail}", job.id))),
        JobState::Failed => {
            for line in source_lines(job) {
                printer.note(&format!("note: {line}"));
            }
            let failed = job.failed.iter().map(|failed| (failed.name.clone(), Failure::refused(failed.why.clone())));
            Err(Failure::of_several(format!("job {} failed{detail}", job.id), failed.collect()))
        }
        _ => Err(Failure::refused(format!("{at} ended the call before job {} did", job.id))
            .hint("the job goes on; `p2pctl jobs` shows it")),
    }
}

/// What each holder of a job sent, and what went wrong with it, in lines that begin with `before`.
fn sources(job: &Job, before: &str, printer: Printer) -> io::Result<()> {
    if printer.is_json() {
        return Ok(());
    }
    source_lines(job).into_iter().try_for_each(|line| printer.text(&format!("{before}{line}")))
}

fn source_lines(job: &Job) -> Vec<String> {
    let line = |source: &JobSource| {
        let label = match source.peer_name.as_str() {
            "" => source.endpoint.clone(),
            name => format!("{name} ({})", source.endpoint),
        };
        holder(&label, source.bytes, source.faults, &source.first_fault)
    };
    let mut lines: Vec<_> = job.sources.iter().take(SOURCES_SHOWN_MAX).map(line).collect();
    if let Some(more) = job.sources.len().checked_sub(SOURCES_SHOWN_MAX).filter(|more| *more > 0) {
        lines.push(format!("from {more} more"));
    }
    lines
}

/// The next state of a job.
async fn next(at: &Endpoint, stream: &mut Streaming<FetchResponse>) -> Outcome<Option<Job>> {
    let message = bounded(at.as_str(), CALL_TIMEOUT, async { stream.message().await.map(Response::new) }).await?;
    Ok(message.and_then(|response| response.job))
}

/// Lists the jobs of a peer, or cancels one.
pub(super) async fn jobs(channels: &ChannelPool, args: Jobs, printer: Printer) -> Outcome {
    let at = args.at;
    if let Some(JobsWhat::Cancel { id }) = args.what {
        let request = CancelJobRequest { id: id.clone() };
        let cancelled = call(channels, &at, async |mut client| client.cancel_job(request).await).await;
        let answer = cancelled.map_err(|failure| match failure.is_reason(Reason::JobUnknown) {
            true => failure.hint("`p2pctl jobs` lists the jobs"),
            false => failure,
        })?;
        let job = answer.job.unwrap_or_default();
        printer.message(&job, || format!("job {id} is {}", state(job.state())))?;
        return Ok(());
    }
    let answer = call(channels, &at, async |mut client| client.list_jobs(ListJobsRequest {}).await).await?;
    if printer.is_json() {
        printer.message(&answer, String::new)?;
        return Ok(());
    }
    let rows: Vec<_> = answer.jobs.iter().map(row).collect();
    printer.table(&["ID", "STATE", "DONE", "DOCUMENTS", "BYTES", "RATE", "HOLDERS", "WANTED", "DETAIL"], &rows)?;
    for job in &answer.jobs {
        sources(job, &format!("job {}: ", job.id), printer)?;
    }
    for (job, failed) in answer.jobs.iter().flat_map(|job| job.failed.iter().map(move |failed| (job, failed))) {
        printer.text(&format!("job {}: {}: {}", job.id, failed.name, failed.why))?;
    }
    Ok(())
}

fn row(job: &Job) -> Vec<String> {
    let moves = job.state() == JobState::Running;
    let priority = match job.priority() {
        JobPriority::High => ", first",
        JobPriority::Low => ", last",
        _ => "",
    };
    let overall = Overall::of_job(job);
    vec![
        job.id.clone(),
        format!("{}{priority}", state(job.state())),
        if job.bytes == 0 { "-".to_owned() } else { format!("{}%", overall.percent()) },
        format!("{}/{}", job.documents_done, job.documents),
        format!("{}/{}", bytes(job.bytes_done), bytes(job.bytes)),
        if moves { format!("{}/s", bytes(job.bytes_per_second)) } else { "-".to_owned() },
        if moves { job.holders.to_string() } else { "-".to_owned() },
        job.wanted.join(" "),
        job.detail.clone(),
    ]
}

fn state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Waiting => "waiting",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Unspecified => "unknown",
    }
}

/// Pins or releases a document.
pub(super) async fn pin(channels: &ChannelPool, args: Pin, unpin: bool, printer: Printer) -> Outcome {
    let request = PinRequest { name: args.name.to_string(), unpin };
    let answer = call(channels, &args.at.at, async |mut client| client.pin(request).await).await;
    let answer = answer.map_err(|failure| match failure.is_reason(Reason::DocumentUnknown) {
        true => {
            let failure =
                failure.hint(format!("`p2pctl ls --of {}` lists the names, which have their folders in them", args.at.at));
            if unpin {
                failure
            } else {
                failure.hint(format!("`p2pctl fetch {} --at {}` has the peer fetch it first", args.name, args.at.at))
            }
        }
        false => failure,
    })?;
    let (now, before) = if unpin { ("released", "not pinned") } else { ("pinned", "pinned") };
    printer.message(&answer, || match answer.unchanged {
        false => format!("{} is {now}", args.name),
        true => format!("{} was {before} before", args.name),
    })?;
    Ok(())
}

/// One call of Control on the peer at `at`.
pub(super) async fn call<T>(
    channels: &ChannelPool,
    at: &Endpoint,
    call: impl AsyncFnOnce(ControlClient<Channel>) -> Result<Response<T>, Status>,
) -> Outcome<T> {
    let answered = to_peer(at.as_str(), at, channels.dial(), CALL_TIMEOUT, call(channels.control(at, None))).await;
    answered.map_err(|failure| failure.hint_if_unanswered("--at HOST:PORT names the peer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::document::DocumentName;

    #[test]
    fn a_name_with_the_characters_of_a_pattern_reaches_the_peer_as_that_name() {
        let name = |text: &str| DocumentName::parse(text).unwrap();
        for text in ["a[1]*.txt", "what?.txt", "d/a[b.txt"] {
            let sent = as_text(&Wanted::One(DocumentSelector::Name(name(text))));
            let Ok(Wanted::Matching(pattern)) = Wanted::parse(&sent) else { panic!("{sent}") };
            assert!(pattern.matches(&name(text)) && !pattern.matches(&name(&format!("x/{text}"))), "{sent}");
        }
        for text in ["rfc48.txt", "rfc:48", "models/**"] {
            assert_eq!(as_text(&Wanted::parse(text).unwrap()), text);
        }
    }
}
