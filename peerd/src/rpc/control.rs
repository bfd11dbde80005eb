//! The service `Control`, for those who operate the peer.

use super::{access::unread, drain::drain, jobs, services::Services};
use crate::{
    connections::slow_reader::SlowReaderGuard,
    inbox::MessageKind,
    mesh::{Joined, RELAYED_MAX_BYTES},
    overlay::wire,
};
use p2pdi::{
    field::InvalidField,
    server::Caller,
    v1::{
        BroadcastRequest, BroadcastResponse, CancelJobRequest, CancelJobResponse, DrainRequest, DrainResponse, FetchRequest,
        FetchResponse, JoinRequest, JoinResponse, ListJobsRequest, ListJobsResponse, PinRequest, PinResponse, StatusRequest,
        StatusResponse, SubscribeRequest, SubscribeResponse, TopologyRequest, TopologyResponse,
        control_server::{Control, ControlServer},
    },
};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// Largest request accepted, in bytes: a broadcast with the longest body.
const REQUEST_MAX_BYTES: usize = RELAYED_MAX_BYTES;
/// Most kinds in one subscription. A guess: more than a program handles.
const KINDS_MAX: usize = 64;

/// The service `Control`.
pub(crate) struct ControlRpc(Arc<Services>);

impl ControlRpc {
    /// The service, ready to be routed.
    pub(crate) fn server(services: Arc<Services>) -> ControlServer<Self> {
        ControlServer::new(Self(services)).max_decoding_message_size(REQUEST_MAX_BYTES)
    }

    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.0.check_control(Caller::of(request.extensions()))
    }
}

#[tonic::async_trait]
impl Control for ControlRpc {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;
    type DrainStream = Pin<Box<dyn Stream<Item = Result<DrainResponse, Status>> + Send>>;
    type FetchStream = Pin<Box<dyn Stream<Item = Result<FetchResponse, Status>> + Send>>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.check(&request)?;
        let mut status = self.0.status();
        if let Some(share) = status.share.as_mut().filter(|_| request.get_ref().left_out) {
            share.left_out = self.0.catalog.share().left_out();
        }
        Ok(Response::new(status))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        self.check(&request)?;
        let Joined { contact, already } = self.0.mesh.join(request.into_inner().endpoint.parse()?).await?;
        Ok(Response::new(JoinResponse { peer: Some(wire::contact(&contact)), already_linked: already }))
    }

    async fn broadcast(&self, request: Request<BroadcastRequest>) -> Result<Response<BroadcastResponse>, Status> {
        self.check(&request)?;
        let BroadcastRequest { kind, body, wait } = request.into_inner();
        let kind: MessageKind = kind.parse()?;
        let wait = Duration::try_from(wait.unwrap_or_default())
            .map_err(|_| InvalidField::new("wait", "is negative; give how long to wait for acknowledgements, or nothing"))?;
        self.0.mesh.broadcast(&kind, body, wait).await.map(Response::new)
    }

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        self.check(&request)?;
        let caller = Caller::of(request.extensions()).cloned();
        let kinds = request.into_inner().kinds;
        if kinds.len() > KINDS_MAX {
            return Err(InvalidField::new("kinds", format!("has {} kinds; give at most {KINDS_MAX}", kinds.len())).into());
        }
        let kinds = kinds.iter().map(|kind| kind.parse()).collect::<Result<Vec<MessageKind>, _>>()?;
        let mut subscription = self.0.inbox.subscribe(kinds)?;
        let stop = self.0.stop.clone();
        let stream = async_stream::stream! {
            // Tells the caller that the subscription is in place.
            yield Ok(SubscribeResponse::default());
            loop {
                let next = tokio::select! {
                    () = stop.cancelled() => None,
                    next = subscription.next() => next,
                };
                match next {
                    Some((message, dropped)) => yield Ok(SubscribeResponse { message: Some(message.into()), dropped }),
                    None => return,
                }
            }
        };
        Ok(Response::new(Box::pin(SlowReaderGuard::new(stream, caller, self.0.unread, unread))))
    }

    async fn topology(&self, request: Request<TopologyRequest>) -> Result<Response<TopologyResponse>, Status> {
        self.check(&request)?;
        let view = self.0.mesh.view();
        Ok(Response::new(TopologyResponse { peers: Some(self.0.list_peers(&view)), mesh: Some(view.status.clone()) }))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.check(&request)?;
        let caller = Caller::of(request.extensions()).cloned();
        let stream = jobs::fetch(&self.0, request.into_inner(), caller).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<Self::DrainStream>, Status> {
        self.check(&request)?;
        tracing::info!("stopping, as an operator asked");
        Ok(Response::new(Box::pin(drain(Arc::clone(&self.0)))))
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        self.check(&request)?;
        Ok(Response::new(jobs::list(&self.0)))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<CancelJobResponse>, Status> {
        self.check(&request)?;
        jobs::cancel(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn pin(&self, request: Request<PinRequest>) -> Result<Response<PinResponse>, Status> {
        self.check(&request)?;
        jobs::pin(&self.0, request.into_inner()).await.map(Response::new)
    }
}
