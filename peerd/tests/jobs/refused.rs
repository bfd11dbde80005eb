//! Requests that are refused, with their reasons.

use super::*;
use p2pdi::{
    status::{Reason, metadata},
    v1::{CancelJobRequest, FetchResponse, ListJobsRequest, PinRequest, control_client::ControlClient},
};
use tonic::{Status, transport::Channel};

async fn control(peer: &Peer) -> ControlClient<Channel> {
    ControlClient::connect(format!("http://{}", peer.address)).await.unwrap()
}

async fn first(client: &mut ControlClient<Channel>, request: FetchRequest) -> Result<FetchResponse, Status> {
    let mut stream = client.fetch(request).await?.into_inner();
    Ok(stream.message().await?.unwrap())
}

#[tokio::test]
async fn requests_that_are_refused_carry_their_reason() {
    let sharer = peer("sharer", &[("a.txt", b"a")], &[], |_| {}).await;
    let mut client = control(&sharer).await;
    let error = first(&mut client, request(&[])).await.unwrap_err();
    assert_eq!((Reason::of(&error), metadata(&error, "field").as_deref()), (Some(Reason::InvalidField), Some("wanted")));
    let error = client.cancel_job(CancelJobRequest { id: "77".into() }).await.unwrap_err();
    assert_eq!(Reason::of(&error), Some(Reason::JobUnknown));
    let pin = |name: &str, unpin| PinRequest { name: name.into(), unpin };
    let error = client.pin(pin("missing.txt", false)).await.unwrap_err();
    assert_eq!(Reason::of(&error), Some(Reason::DocumentUnknown));
    assert!(client.pin(pin("../x", false)).await.is_err());
    assert!(!client.pin(pin("A.txt", false)).await.unwrap().into_inner().unchanged);
    assert!(client.pin(pin("a.txt", false)).await.unwrap().into_inner().unchanged);
    assert!(!client.pin(pin("a.txt", true)).await.unwrap().into_inner().unchanged);

    let bare = peer("bare", &[], &[], |config| config.share = None).await;
    let mut client = control(&bare).await;
    let error = first(&mut client, request(&["a.txt"])).await.unwrap_err();
    assert!(Reason::of(&error) == Some(Reason::NoShare) && error.message().contains("--share"), "{error}");
    assert!(client.list_jobs(ListJobsRequest {}).await.unwrap().into_inner().jobs.is_empty());
}

#[tokio::test]
async fn a_stream_follows_a_job_to_its_end_and_without_wait_ends_at_once() {
    let seed = peer("seed", &[("a.txt", b"a")], &[], |_| {}).await;
    let fetcher = peer("fetcher", &[], &[&seed], |_| {}).await;
    let mut client = control(&fetcher).await;
    let mut accepted = client.fetch(request(&["missing.txt"])).await.unwrap().into_inner();
    let job = accepted.message().await.unwrap().unwrap().job.unwrap();
    assert!(job.ended_at.is_none() && accepted.message().await.unwrap().is_none(), "{job:?}");
    let mut stream = client.fetch(FetchRequest { wait: true, ..request(&["*.txt"]) }).await.unwrap().into_inner();
    let mut last = None;
    while let Some(response) = within("the next message", stream.message()).await.unwrap() {
        last = response.job;
    }
    assert_eq!(last.unwrap().state(), JobState::Done);
    assert_eq!(read(&fetcher.share(), "a.txt").as_deref(), Some(&b"a"[..]));
    // A client that leaves does not end its job.
    let left = client.fetch(FetchRequest { wait: true, ..request(&["never.txt"]) }).await.unwrap();
    drop(left);
    assert!(client.list_jobs(ListJobsRequest {}).await.unwrap().into_inner().jobs.iter().any(|job| job.wanted == ["never.txt"]));
}
