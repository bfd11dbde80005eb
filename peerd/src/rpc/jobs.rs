//! The RPCs of jobs and pins.

use super::{access::unread, services::Services};
use crate::{
    connections::slow_reader::SlowReaderGuard,
    transfer::jobs::{JobRequest, JobsError},
};
use p2pdi::{
    server::Caller,
    status::Reason,
    v1::{CancelJobRequest, CancelJobResponse, FetchRequest, FetchResponse, ListJobsResponse, PinRequest, PinResponse},
};
use tokio_stream::Stream;
use tonic::Status;

impl From<JobsError> for Status {
    fn from(error: JobsError) -> Self {
        let message = error.to_string();
        let reason = match error {
            JobsError::NoShare => Reason::NoShare,
            JobsError::TooMany => Reason::TooManyJobs,
            JobsError::Unknown { .. } => Reason::JobUnknown,
            JobsError::NoDocument { .. } => Reason::DocumentUnknown,
            JobsError::Invalid(invalid) => return invalid.into(),
            JobsError::State(_) => Reason::StoreUnavailable,
        };
        reason.status(message)
    }
}

/// Accepts a job. The first message comes once it is on disk; if the request says so, further ones follow until it ends.
pub(super) async fn fetch(
    services: &Services,
    request: FetchRequest,
    caller: Option<Caller>,
) -> Result<impl Stream<Item = Result<FetchResponse, Status>> + Send + use<>, Status> {
    if services.stop.is_cancelled() {
        return Err(Reason::ShuttingDown.status("this peer is stopping, and takes no new jobs; ask another"));
    }
    let wait = request.wait;
    let mut handle = services.jobs.submit(JobRequest::try_from(request)?).await?;
    let stop = services.stop.clone();
    let stream = async_stream::stream! {
        let mut next = handle.status();
        while let Some(job) = next.take() {
            let ended = job.ended_at.is_some();
            yield Ok(FetchResponse { job: Some(job) });
            if ended || !wait {
                return;
            }
            next = tokio::select! {
                () = stop.cancelled() => None,
                next = handle.changed() => next,
            };
        }
        yield Err(Reason::ShuttingDown.status("the peer stops; the job goes on with its next start"));
    };
    Ok(SlowReaderGuard::new(stream, caller, services.unread, unread))
}

/// All jobs.
pub(super) fn list(services: &Services) -> ListJobsResponse {
    ListJobsResponse { jobs: services.jobs.list() }
}

/// Ends a job.
pub(super) async fn cancel(services: &Services, request: CancelJobRequest) -> Result<CancelJobResponse, Status> {
    Ok(CancelJobResponse { job: Some(services.jobs.cancel(&request.id).await?) })
}

/// Pins a document, or releases it.
pub(super) async fn pin(services: &Services, request: PinRequest) -> Result<PinResponse, Status> {
    Ok(PinResponse { unchanged: services.jobs.pin(&request.name, !request.unpin).await? })
}
