//! Jobs that wait, and jobs that outlive their peer.

use super::*;
use p2pdi::content::ContentHash;

#[tokio::test]
async fn a_job_waits_for_a_holder_and_goes_on_when_one_appears_also_after_a_restart() {
    let content = bytes(300_000);
    let fetcher = peer("fetcher", &[], &[], |_| {}).await;
    let hash = format!("b3:{}", ContentHash::of(&content));
    // A handle keeps the state folder in use: only the id is kept.
    let id = fetcher.handle.jobs().submit(JobRequest::try_from(request(&[&hash])).unwrap()).await.unwrap().id();
    let waiting = until(&fetcher, &id, JobState::Waiting).await;
    assert!(waiting.detail.contains("nobody has") && waiting.detail.contains("s so far"), "{waiting:?}");
    let folder = fetcher.stop().await;
    let fetcher = again("fetcher", folder, &[]).await;
    let before = until(&fetcher, &id, JobState::Waiting).await;
    assert_eq!((before.created_at, &before.wanted), (waiting.created_at, &vec![hash]));
    let _seed = peer("seed", &[("a/doc.bin", &content)], &[&fetcher], |_| {}).await;
    let done = until(&fetcher, &id, JobState::Done).await;
    assert!(done.ended_at.is_some() && done.documents_done == 1, "{done:?}");
    assert_eq!(read(&fetcher.share(), "a/doc.bin"), Some(content));
    // The next job has another id, and the ended one stays listed.
    let folder = fetcher.stop().await;
    let fetcher = again("fetcher", folder, &[]).await;
    let next = fetch(&fetcher, request(&["a/doc.bin"])).await;
    assert_eq!(next.state(), JobState::Done);
    let listed: Vec<_> = fetcher.handle.jobs().list().into_iter().map(|job| job.id).collect();
    assert_eq!(listed, [done.id, next.id]);
}

#[tokio::test]
async fn a_pattern_waits_for_documents_and_a_job_with_a_bound_fails() {
    let fetcher = peer("fetcher", &[], &[], |_| {}).await;
    let jobs = fetcher.handle.jobs();
    let second = prost_types::Duration { seconds: 1, nanos: 0 };
    let bounded = FetchRequest { wait_for_holders: Some(second), ..request(&["missing.txt"]) };
    let failed = fetch(&fetcher, bounded).await;
    assert!(failed.state() == JobState::Failed && failed.detail.contains("waited 1 s"), "{failed:?}");
    let job = jobs.submit(JobRequest::try_from(request(&["later/**"])).unwrap()).await.unwrap();
    let waiting = until(&fetcher, &job.id(), JobState::Waiting).await;
    assert!(waiting.detail.contains("no document matches later/**"), "{waiting:?}");
    let _seed = peer("seed", &[("later/x", b"x")], &[&fetcher], |_| {}).await;
    assert_eq!(until(&fetcher, &job.id(), JobState::Done).await.documents_done, 1);
}

#[tokio::test]
async fn a_cancelled_job_fetches_nothing_more_and_stays_listed() {
    let fetcher = peer("fetcher", &[], &[], |_| {}).await;
    let jobs = fetcher.handle.jobs();
    let job = jobs.submit(JobRequest::try_from(request(&["missing.txt"])).unwrap()).await.unwrap();
    until(&fetcher, &job.id(), JobState::Waiting).await;
    let cancelled = job.cancel().await.unwrap();
    assert!(cancelled.state() == JobState::Cancelled && cancelled.ended_at.is_some());
    assert_eq!(job.cancel().await.unwrap(), cancelled, "a second time changes nothing");
    drop(job);
    let folder = fetcher.stop().await;
    let fetcher = again("fetcher", folder, &[]).await;
    assert_eq!(fetcher.handle.jobs().list(), [cancelled]);
}

#[tokio::test]
async fn a_file_of_jobs_that_cannot_be_read_is_kept_and_said() {
    let fetcher = peer("fetcher", &[], &[], |_| {}).await;
    fetcher.handle.jobs().submit(JobRequest::try_from(request(&["missing.txt"])).unwrap()).await.unwrap();
    let folder = fetcher.stop().await;
    fs::write(folder.path().join("state/jobs"), "garbage").unwrap();
    let fetcher = again("fetcher", folder, &[]).await;
    assert!(fetcher.handle.jobs().list().is_empty());
    let detail = fetcher.handle.jobs().fetched().detail;
    let aside = detail.split_once("kept as ").unwrap().1.split_once(", and").unwrap().0;
    assert_eq!(fs::read_to_string(aside).unwrap(), "garbage", "{detail}");
}
