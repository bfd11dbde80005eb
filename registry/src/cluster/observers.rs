//! What a replica asks all others about observers, which no store keeps.

use super::{links::with_secret, shared::Cluster};
use p2pdi::{
    channel::Channel,
    cookie::CookieHash,
    name::PeerName,
    v1::{
        ClaimObserverRequest, ClaimObserverResponse, EndObserverRequest, EndObserverResponse, FindObserverRequest,
        FindObserverResponse, replica_client::ReplicaClient,
    },
};
use std::{future::Future, time::Duration};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Request, Response, Status};

/// Longest wait for who may know the cookie of a caller, which has no lease otherwise.
const FIND_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the others before a name is given, and after a lease ended: a replica that has stopped is known as such some seconds
/// later only, and callers do not wait for it.
const NAME_TIMEOUT: Duration = Duration::from_millis(500);

/// Asks all other replicas. Their answers come as they arrive; `None`: one did not answer in time.
fn ask_all<Q, A, F>(
    cluster: &Cluster,
    question: &Q,
    longest: Duration,
    call: impl Fn(ReplicaClient<Channel>, Request<Q>) -> F,
) -> JoinSet<Option<A>>
where
    Q: Clone,
    A: Send + 'static,
    F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for channel in cluster.all_channels() {
        let answer = call(ReplicaClient::new(channel), with_secret(question.clone(), cluster));
        asked.spawn(async move { Some(timeout(longest, answer).await.ok()?.ok()?.into_inner()) });
    }
    asked
}

/// The record of the observer with this cookie, if another replica has it.
pub(crate) async fn find_observer(cluster: &Cluster, cookie: &CookieHash) -> Option<FindObserverResponse> {
    let question = FindObserverRequest { cookie_hash: cookie.as_bytes().to_vec().into() };
    let mut asked =
        ask_all(cluster, &question, FIND_TIMEOUT, |mut replica, question| async move { replica.find_observer(question).await });
    while let Some(answer) = asked.join_next().await {
        if let Ok(Some(answer)) = answer
            && answer.found
        {
            return Some(answer);
        }
    }
    None
}

/// Claims a name for the observer with this cookie. Gives the seconds for which somebody else has it at another replica, if so. One that
/// does not answer does not count.
pub(crate) async fn claim_observer(cluster: &Cluster, name: &PeerName, cookie: &CookieHash, owned: bool) -> Option<u64> {
    let question = ClaimObserverRequest { name: name.to_string(), cookie_hash: cookie.as_bytes().to_vec().into(), owned };
    let mut asked =
        ask_all(cluster, &question, NAME_TIMEOUT, |mut replica, question| async move { replica.claim_observer(question).await });
    while let Some(answer) = asked.join_next().await {
        if let Ok(Some(ClaimObserverResponse { taken: true, retry_after_seconds })) = answer {
            return Some(retry_after_seconds);
        }
    }
    None
}

/// Which observers are to end.
pub(crate) enum Ended<'a> {
    /// The one with this cookie left.
    Left(&'a CookieHash),
    /// An operator freed this name.
    Freed(&'a PeerName),
}

/// Ends observers at all other replicas. Says whether there were any.
pub(crate) async fn end_observers(cluster: &Cluster, ended: Ended<'_>) -> bool {
    let question = match ended {
        Ended::Left(cookie) => EndObserverRequest { cookie_hash: cookie.as_bytes().to_vec().into(), name: String::new() },
        Ended::Freed(name) => EndObserverRequest { cookie_hash: Vec::new().into(), name: name.to_string() },
    };
    let asked =
        ask_all(cluster, &question, NAME_TIMEOUT, |mut replica, question| async move { replica.end_observer(question).await });
    asked.join_all().await.into_iter().flatten().any(|EndObserverResponse { ended }| ended)
}
