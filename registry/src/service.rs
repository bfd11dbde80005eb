//! The RPCs: raw values become validated ones, the table decides, errors become statuses.

use crate::{
    access::{check_admin, check_network},
    announcing,
    cluster::pass_on_announce,
    enrolling::{Enrolling, certificate_missing, no_authority},
    leases::{CallError, Leases},
    names,
    own_endpoint::OwnEndpoint,
    table::{Lease, PAGE_MAX, Query, Refusal, Registration, shard_of, to_ipv6},
    watching::watch,
};
use p2pdi::{
    cookie::{COOKIE_HEADER, Cookie},
    endpoint::Endpoint,
    field::InvalidField,
    id::PeerId,
    name::PeerName,
    network::NetworkName,
    selector::{NamePattern, validate_labels},
    server::{Caller, Ending},
    status::{Reason, internal},
    v1::{
        AnnounceRequest, AnnounceResponse, EnrollRequest, EnrollResponse, FreeNameRequest, FreeNameResponse, GetTrustRequest,
        GetTrustResponse, KeepAliveRequest, KeepAliveResponse, LeaveRequest, LeaveResponse, PQueryRequest, PQueryResponse,
        RegisterRequest, RegisterResponse, WatchPeersRequest, WatchPeersResponse, registry_server::Registry,
    },
};
use std::{
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tonic::{Request, Response, Status, codegen::tokio_stream::Stream, metadata::MetadataMap};

/// Largest request accepted, in bytes: 16 labels of full length (2 KiB), a name, an endpoint, and room for fields of later
/// versions.
pub(crate) const REQUEST_MAX_BYTES: usize = 16 * 1024;

/// When to call again after the store, or another replica, did not answer: both recover within some seconds, if they do.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The service `p2pdi.v1.Registry`.
pub(crate) struct RegistryService {
    /// The network whose peers it keeps.
    pub(crate) network: NetworkName,
    pub(crate) leases: Leases,
    /// `None`: the registry is no certificate authority.
    pub(crate) enrolling: Option<Enrolling>,
    pub(crate) own_endpoint: OwnEndpoint,
    /// Callers have certificates, or are nobody.
    pub(crate) certified: bool,
}

#[tonic::async_trait]
impl Registry for RegistryService {
    type WatchPeersStream = Pin<Box<dyn Stream<Item = Result<WatchPeersResponse, Status>> + Send>>;

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        check_network(&self.network, &request.get_ref().network)?;
        let caller = Caller::of(request.extensions()).cloned();
        let registration = registration(request, self.certified)?;
        if let Some(endpoint) = &registration.endpoint {
            self.own_endpoint.check(endpoint, caller.as_ref()).await?;
        }
        let (lease, cookie) = self.leases.register(&registration).await?;
        tracing::debug!(name = %registration.name, endpoint = %lease.peer.endpoint, revision = lease.revision, "registered");
        let (ttl, interval) = (milliseconds(lease.ttl_ms), milliseconds(lease.interval_ms));
        Ok(Response::new(RegisterResponse {
            peer: Some(lease.peer),
            cookie: cookie.reveal(),
            ttl,
            keep_alive_interval: interval,
            revision: lease.revision,
            trust_revision: self.trust_revision(),
        }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        let cookie = required_cookie(request.metadata())?;
        let revision = self.leases.leave(&cookie.hash()).await?;
        Ok(Response::new(LeaveResponse { revision }))
    }

    async fn free_name(&self, request: Request<FreeNameRequest>) -> Result<Response<FreeNameResponse>, Status> {
        check_admin(self.enrolling.as_ref(), Caller::of(request.extensions()))?;
        let name: PeerName = request.into_inner().name.parse()?;
        let (was_held, revision) = self.leases.free(&name).await?;
        tracing::info!(%name, was_held, "an operator freed a name");
        Ok(Response::new(FreeNameResponse { was_held, revision }))
    }

    async fn keep_alive(&self, request: Request<KeepAliveRequest>) -> Result<Response<KeepAliveResponse>, Status> {
        let cookie = required_cookie(request.metadata())?.hash();
        let report = request.into_inner();
        let Lease { peer, ttl_ms, interval_ms, revision } = self.leases.keep_alive(&cookie, report).await?;
        let (ttl, interval) = (milliseconds(ttl_ms), milliseconds(interval_ms));
        let trust_revision = self.trust_revision();
        Ok(Response::new(KeepAliveResponse { peer: Some(peer), ttl, keep_alive_interval: interval, revision, trust_revision }))
    }

    async fn p_query(&self, request: Request<PQueryRequest>) -> Result<Response<PQueryResponse>, Status> {
        let cookie = required_cookie(request.metadata())?.hash();
        let min_revision = request.get_ref().min_revision;
        let query = query(request.into_inner())?;
        self.leases.reached(min_revision).await?;
        if self.leases.cluster.is_some() {
            // Another replica gave it, which may be ahead. One of another registry is not reached, and gets a full listing.
            let _another = self.leases.reached(query.since_revision).await;
        }
        let answer = self.leases.of_caller(&cookie, |table, now| Ok(table.query(&cookie, &query, now)?)).await?;
        Ok(Response::new(answer))
    }

    async fn watch_peers(&self, request: Request<WatchPeersRequest>) -> Result<Response<Self::WatchPeersStream>, Status> {
        let cookie = required_cookie(request.metadata())?.hash();
        let ending = Ending::of(request.extensions());
        let since = request.into_inner().since_revision;
        if self.leases.cluster.is_some() {
            // As in PQuery.
            let _another = self.leases.reached(since).await;
        }
        let begun = self.leases.of_caller(&cookie, |table, now| Ok(table.watch(&cookie, since, now)?)).await?;
        Ok(Response::new(Box::pin(watch(Arc::clone(&self.leases.table), begun, ending))))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<AnnounceResponse>, Status> {
        let cookie = required_cookie(request.metadata())?.hash();
        let from = Caller::of(request.extensions()).cloned();
        let request = request.into_inner();
        let (announce, endpoint) = announcing::parse(request.clone())?;
        if let Some(endpoint) = &endpoint {
            self.own_endpoint.check(endpoint, from.as_ref()).await?;
        }
        // One lock after the other: nobody waits for both.
        let (record, now_ms) =
            self.leases.of_caller(&cookie, |table, now| Ok((table.caller(&cookie, now)?, now.mono_ms))).await?;
        let caller = announcing::caller(cookie, record, endpoint)?;
        if let Some(cluster) = &self.leases.cluster {
            let shard = shard_of(announce.document.hash.as_bytes());
            if let Some(answer) = pass_on_announce(cluster, shard, &caller, request).await {
                return answer.map(Response::new);
            }
        }
        Ok(Response::new(self.leases.swarms.announce(&caller, &announce, now_ms)?))
    }

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let enrolling = self.enrolling.as_ref().ok_or_else(no_authority)?;
        let caller = Caller::of(request.extensions()).and_then(|caller| caller.identity().cloned());
        Ok(Response::new(enrolling.enroll(request.into_inner(), caller).await?))
    }

    async fn get_trust(&self, request: Request<GetTrustRequest>) -> Result<Response<GetTrustResponse>, Status> {
        let enrolling = self.enrolling.as_ref().ok_or_else(no_authority)?;
        Ok(Response::new(GetTrustResponse { trust: Some(enrolling.trust(request.into_inner().since_revision).await?) }))
    }
}

impl RegistryService {
    /// The revision of whom to trust; 0 without a certificate authority.
    fn trust_revision(&self) -> u64 {
        self.enrolling.as_ref().map_or(0, Enrolling::revision)
    }
}

fn registration(request: Request<RegisterRequest>, certified: bool) -> Result<Registration, Status> {
    let is_from_outside = Caller::of(request.extensions()).is_some();
    // Only calls from inside the process have no address.
    let address =
        to_ipv6(Caller::of(request.extensions()).map_or(IpAddr::V6(Ipv6Addr::LOCALHOST), |caller| caller.address().ip()));
    let presented = cookie(request.metadata())?;
    let identity = Caller::of(request.extensions()).and_then(|caller| caller.identity().cloned());
    let RegisterRequest { name, endpoint, mut labels, id, observer, network: _ } = request.into_inner();
    // What a token gave cannot be overwritten by whoever joined with it.
    labels.extend(identity.iter().flat_map(|identity| identity.labels().clone()));
    let name: PeerName = name.parse()?;
    let endpoint: Option<Endpoint> = if observer { None } else { Some(endpoint.parse()?) };
    validate_labels(&labels)?;
    let id = if id.is_empty() { None } else { Some(PeerId::from_field("id", &id)?) };
    let id = match &identity {
        Some(identity) => names::check(&name, id, observer, identity)?,
        // `--tls-client-auth optional`: nobody has no name.
        None if certified && is_from_outside && !observer => return Err(certificate_missing()),
        None => id,
    };
    Ok(Registration {
        name,
        endpoint,
        labels: crate::table::Labels::pack(&labels),
        id,
        presented,
        candidate_cookie: Cookie::generate().map_err(|error| internal("generating a cookie", &error))?,
        address,
        owned: identity.is_some(),
    })
}

fn query(request: PQueryRequest) -> Result<Query, InvalidField> {
    let PQueryRequest { name, labels, page_size, page_token, sample, since_revision, include_observers, min_revision: _ } =
        request;
    let pattern = NamePattern::parse(&name)?;
    validate_labels(&labels)?;
    if sample > 0 && (!page_token.is_empty() || since_revision > 0) {
        return Err(InvalidField::new("sample", "cannot be combined with page_token or since_revision"));
    }
    if include_observers && (sample > 0 || since_revision > 0) {
        let problem = "cannot be combined with sample or since_revision, which never list observers";
        return Err(InvalidField::new("include_observers", problem));
    }
    let at_most = |requested: u32| usize::try_from(requested).unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let page_size = if page_size == 0 { PAGE_MAX } else { at_most(page_size) };
    Ok(Query { name, pattern, labels, page_size, page_token, sample: at_most(sample), since_revision, include_observers })
}

/// The caller's cookie, if it sent one.
fn cookie(metadata: &MetadataMap) -> Result<Option<Cookie>, Status> {
    let mut sent = metadata.get_all(COOKIE_HEADER).iter();
    let Some(first) = sent.next() else { return Ok(None) };
    if sent.next().is_some() {
        return Err(Reason::CookieMalformed.status(format!("{COOKIE_HEADER} was sent more than once; send it once")));
    }
    let text = first.to_str().map_err(|_| p2pdi::cookie::MalformedCookie)?;
    Ok(Some(text.parse::<Cookie>()?))
}

fn required_cookie(metadata: &MetadataMap) -> Result<Cookie, Status> {
    cookie(metadata)?.ok_or_else(|| {
        Reason::CookieMissing.status(format!("this call needs the header {COOKIE_HEADER}; Register returns its value"))
    })
}

#[expect(clippy::unnecessary_wraps, reason = "message fields are optional")]
fn milliseconds(ms: u64) -> Option<prost_types::Duration> {
    Some(crate::table::duration(ms))
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let refusal = match error {
            CallError::Refused(refusal) => refusal,
            CallError::NotStored => {
                let message = "the registry cannot write to its store now, and nothing was changed; try again in a moment";
                return Reason::StoreUnavailable.status_retry_after(message, RETRY_AFTER);
            }
            CallError::Unknown => {
                let message = "the registry's store does not answer; the change may or may not have been written; call again";
                return Reason::StoreUnavailable.status_retry_after(message, RETRY_AFTER);
            }
            CallError::NotSafe => {
                let message = "the replica that keeps this lease does not answer this one; call another replica of the registry, or again in a moment";
                return Reason::LeaseNotSafe.status_retry_after(message, RETRY_AFTER);
            }
            CallError::NotReached => {
                let message = "this registry has not seen that revision; call again in a moment, or another replica";
                return Reason::RevisionNotReached.status_retry_after(message, RETRY_AFTER);
            }
            CallError::Stopping => return Reason::ShuttingDown.status("the registry is stopping; try again in a moment"),
        };
        match refusal {
            Refusal::NameTaken { name, has_lease, retry_after_seconds: seconds } => {
                let state = if has_lease {
                    "active elsewhere, and is free when nothing is heard of its holder"
                } else {
                    "reserved for the peer that had it"
                };
                Reason::NameTaken.status_with(
                    format!(
                        "the name {name} is {state} for {seconds} s more; use another name, send the cookie it was registered with, \
                         or free it on the registry's machine: p2pctl registry expire {name}"
                    ),
                    [("retry_after_seconds", seconds.to_string())],
                )
            }
            Refusal::CookieUnknown => {
                Reason::CookieUnknown.status("this registry does not know the cookie; wait a random moment, then register again")
            }
            Refusal::LeaseExpired => {
                Reason::LeaseExpired.status("the lease ran out, or the peer left; register again, with the same cookie")
            }
            Refusal::Full { max } => {
                Reason::RegistryFull.status(format!("{max} peers hold leases, which is the limit of this registry (--max-peers)"))
            }
            Refusal::AddressFull { max } => Reason::RegistryFull.status(format!(
                "callers from your address hold {max} leases, which is the limit for one address (--max-peers-per-address)"
            )),
            // `Leases` waits and tries again, so no caller sees it.
            Refusal::Busy => Reason::StoreUnavailable.status("a change of this name is being written; try again in a moment"),
            Refusal::Lagged => Reason::Lagged.status(
                "peers change faster than this watcher reads, and changes that it has not read are not kept any more; watch again, or ask by \
                 PQuery, with the `revision` of its last message as `since_revision`",
            ),
            Refusal::PageTokenInvalid => {
                Reason::PageTokenInvalid.status("page_token is not valid for this query (any more); start again without it")
            }
        }
    }
}
