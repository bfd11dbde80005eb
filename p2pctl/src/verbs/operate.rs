//! registry status, peers, backup, restore: for operators of a registry.

use crate::{
    args::{AsOperator, BackupTo, Global, RegistryPeers, RegistryWhat, RestoreFrom},
    backup_file::{self, BackupFile},
    call::CALL_TIMEOUT,
    failure::{Failure, Outcome},
    operator::{Calling, Operator},
    printer::{Printer, ago, proto_span},
};
use alphanumeric_sort::compare_str;
use p2pdi::{
    json,
    phrases::counted,
    v1::{
        BackupRequest, GetRegistryStatusRequest, ListRecordsRequest, RegistryRecord, RegistryRecordState, ReplicaStatus,
        RestoreRequest, backup_part::Part,
    },
};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use tonic::{Streaming, codegen::tokio_stream};

/// Longest time that a restore may take: a million records are written in less than a minute.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// All verbs but expire, which needs no login.
pub(super) async fn operate(global: &Global, what: RegistryWhat, printer: Printer) -> Outcome {
    match what {
        RegistryWhat::Expire(args) => super::lease::expire(global, &args, printer).await,
        RegistryWhat::Status(by) => status(global, &by, printer).await,
        RegistryWhat::Peers(args) => peers(global, args, printer).await,
        RegistryWhat::Backup(args) => backup(global, args, printer).await,
        RegistryWhat::Restore(args) => Box::pin(restore(global, args, printer)).await,
    }
}

async fn calling(global: &Global, by: &AsOperator, printer: Printer) -> Outcome<Box<Calling>> {
    match Operator::new(global, by, printer).await? {
        Operator::Calling(calling) => Ok(calling),
        Operator::Folder(_) => Err(Failure::refused("no registry runs with that --ca folder now").hint("start it first")),
    }
}

/// The next message of a stream, bounded in time.
async fn next<T>(stream: &mut Streaming<T>, server: &str) -> Outcome<Option<T>> {
    match timeout(CALL_TIMEOUT, stream.message()).await {
        Ok(message) => message.map_err(|status| Failure::call(server, &status)),
        Err(_) => Err(Failure::timed_out(server, CALL_TIMEOUT)),
    }
}

async fn status(global: &Global, by: &AsOperator, printer: Printer) -> Outcome {
    let mut calling = calling(global, by, printer).await?;
    let answer = calling.call(async |client| client.get_registry_status(GetRegistryStatusRequest {}).await).await?;
    printer.message(&answer, || {
        let since = ago(answer.started_at, SystemTime::now());
        let store = match answer.store.as_str() {
            "failing" if answer.store_problem.is_empty() => "failing: registrations are refused".to_owned(),
            "failing" => format!("failing: registrations are refused: {}", answer.store_problem),
            "hanging" => "hanging: it does not answer".to_owned(),
            store => store.to_owned(),
        };
        let mut text = format!(
            "registry {} at {}\nnetwork       {}\nstarted       {since}\nactive peers  {}\ninactive      {}\nobservers     {}\nrevision      {}\nttl           {}\nstore         {store}\nunwritten     {}",
            answer.version,
            calling.at(),
            answer.network,
            answer.active_peers,
            answer.inactive_peers,
            answer.observers,
            answer.revision,
            proto_span(answer.ttl),
            answer.unwritten,
        );
        if let Some(ReplicaStatus { id, replicas, shards, suspects }) = &answer.replica {
            text += &format!("\nreplica       {id}, one of {replicas}; keeps the leases of {shards} shards of 32");
            if *suspects > 0 {
                text += &format!("\nsuspects      {suspects}, whose leases ran out at once; a sample of them is asked");
            }
        }
        if answer.records_skipped > 0 {
            text += &format!("\nskipped       {}, which this version refuses", counted(answer.records_skipped, "record"));
        }
        text
    })?;
    Ok(())
}

async fn peers(global: &Global, args: RegistryPeers, printer: Printer) -> Outcome {
    let mut calling = calling(global, &args.as_operator, printer).await?;
    let wanted = args.name.unwrap_or_default();
    let request = ListRecordsRequest { name: wanted.clone() };
    let mut stream = calling.call(async |client| client.list_records(request).await).await?;
    let mut records = Vec::new();
    while let Some(page) = next(&mut stream, calling.name()).await? {
        records.extend(page.records);
    }
    if records.is_empty() && !wanted.is_empty() {
        return Err(Failure::refused(format!("no peer called {wanted} is registered, nor was one in the last 30 days"))
            .hint("`p2pctl registry peers` lists all of them"));
    }
    records.sort_by(|a, b| compare_str(a.name.to_lowercase(), b.name.to_lowercase()));
    if printer.is_json() {
        records.iter().try_for_each(|record| printer.json(&json::value(record)))?;
        return Ok(());
    }
    let now = SystemTime::now();
    let rows: Vec<_> = records.iter().map(|record| row(record, now)).collect();
    printer.table(&["NAME", "ENDPOINT", "STATE", "LEFT", "ACTIVE", "REGISTERED", "FROM", "REVISION", "LABELS"], &rows)?;
    Ok(())
}

fn row(record: &RegistryRecord, now: SystemTime) -> Vec<String> {
    let labels: Vec<_> = record.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let left = record.remaining.is_some_and(|left| left.seconds > 0 || left.nanos > 0);
    let state = match record.state() {
        RegistryRecordState::Active => "active",
        RegistryRecordState::Inactive if left => "reserved",
        RegistryRecordState::Inactive => "inactive",
        RegistryRecordState::Observer => "observer",
        RegistryRecordState::Unspecified => "-",
    };
    vec![
        record.name.clone(),
        if record.endpoint.is_empty() { "-".to_owned() } else { record.endpoint.clone() },
        state.to_owned(),
        if left { proto_span(record.remaining) } else { "-".to_owned() },
        ago(record.last_active_at, now),
        format!("{}x", record.registration_count),
        record.registered_from.clone(),
        record.revision.to_string(),
        labels.join(","),
    ]
}

async fn backup(global: &Global, args: BackupTo, printer: Printer) -> Outcome {
    let mut calling = calling(global, &args.as_operator, printer).await?;
    let mut file = BackupFile::create(&args.file, args.force)?;
    let mut stream = calling.call(async |client| client.backup(BackupRequest {}).await).await?;
    let mut revision = 0;
    while let Some(message) = next(&mut stream, calling.name()).await? {
        let part = message.part.unwrap_or_default();
        if let Some(Part::Header(header)) = &part.part {
            revision = header.revision;
        }
        file.add(&part)?;
    }
    let records = file.finish()?;
    if printer.is_json() {
        printer.json(&serde_json::json!({ "file": args.file, "records": records, "revision": revision.to_string() }))?;
    } else {
        printer.text(&format!("{} at revision {revision} are in {}", counted(records, "record"), args.file.display()))?;
    }
    Ok(())
}

async fn restore(global: &Global, args: RestoreFrom, printer: Printer) -> Outcome {
    let mut calling = calling(global, &args.as_operator, printer).await?;
    let parts = backup_file::read(&args.file)?.map(|part| RestoreRequest { part: Some(part) });
    let parts = tokio_stream::iter(parts);
    let restoring = calling.call_within(RESTORE_TIMEOUT, async |client| client.restore(parts).await);
    let answer = Box::pin(restoring).await?;
    printer.message(&answer, || {
        format!(
            "{} restored, {} of them active; peers go on with their cookies",
            counted(answer.records, "record"),
            answer.active_peers
        )
    })?;
    Ok(())
}
