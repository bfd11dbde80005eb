//! Calls to etcd, each with a time limit, tried again at another member when one does not answer.

use super::layout::Keys;
use crate::store::{
    StoreError,
    etcd_address::{EtcdAddress, EtcdFiles},
};
use etcd_client::{
    Certificate, Client, ConnectOptions, Error, GetOptions, GetResponse, Identity, KeyValue, LeaseKeepAliveStream, LeaseKeeper,
    PutOptions, TlsOptions, Txn, TxnResponse, WatchOptions, WatchStream,
};
use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for a connection to a member.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for one answer. A member that was cut off from the others does not answer; the next try goes to another one.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time for all tries of a call: less than a caller waits for a change.
const CALL_TIMEOUT: Duration = Duration::from_secs(7);
/// Pause between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Largest message of a watch.
const WATCH_MAX_BYTES: usize = 1024 * 1024 * 1024;
/// How often a connection is checked, and how long a check may take.
const PING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(2));

/// How often it is looked whether certificates in files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A client. Clones share its connections. When the files of its certificates change, calls that begin afterwards use the new ones.
#[derive(Clone)]
pub(super) struct Calls {
    client: Arc<RwLock<Client>>,
}

/// The content of [`EtcdFiles`].
#[derive(Clone, PartialEq, Eq)]
struct Certificates {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Calls {
    /// Connects; it fails when no member answers in time.
    pub(super) async fn connect(address: &EtcdAddress) -> Result<Self, StoreError> {
        let certificates = Certificates::read(&address.files)?;
        let client = Arc::new(RwLock::new(dial(address, &certificates).await?));
        if address.files != EtcdFiles::default() {
            tokio::spawn(follow_files(Arc::downgrade(&client), address.clone(), certificates));
        }
        Ok(Self { client })
    }

    fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key and its value, if it is there, with etcd's revision.
    pub(super) async fn get(&self, key: String) -> Result<(Option<KeyValue>, i64), StoreError> {
        let mut answer = self
            .retry("read from etcd", |mut client| {
                let key = key.clone();
                async move { client.get(key, None).await }
            })
            .await?;
        let revision = revision(answer.header());
        Ok((answer.take_kvs().pop(), revision))
    }

    /// Up to `limit` keys from `from` up to `end`, as of the revision `at`; 0: the latest.
    pub(super) async fn range(&self, from: Vec<u8>, end: Vec<u8>, limit: i64, at: i64) -> Result<GetResponse, StoreError> {
        self.retry("read from etcd", |mut client| {
            let options = GetOptions::new().with_range(end.clone()).with_limit(limit).with_revision(at);
            let from = from.clone();
            async move { client.get(from, Some(options)).await }
        })
        .await
    }

    /// A transaction, tried again when a member does not answer. It must not matter whether an earlier try was made.
    pub(super) async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.retry("write to etcd", |mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        })
        .await
    }

    /// A lease of `ttl`.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<i64, StoreError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let grant = self.retry("get a lease of etcd", |mut client| async move { client.lease_grant(seconds, None).await });
        Ok(grant.await?.id())
    }

    /// Ends a lease, and the keys that have it.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), StoreError> {
        self.retry("give back a lease of etcd", |mut client| async move { client.lease_revoke(lease).await }).await.map(drop)
    }

    /// A stream of renewals of a lease.
    pub(super) async fn renewals(&self, lease: i64) -> Result<(LeaseKeeper, LeaseKeepAliveStream), StoreError> {
        self.once("renew a lease of etcd", self.client().lease_keep_alive(lease)).await
    }

    /// Writes a key with a lease, whatever is there.
    pub(super) async fn put(&self, key: String, value: Vec<u8>, lease: i64) -> Result<(), StoreError> {
        self.retry("write to etcd", |mut client| {
            let (key, value) = (key.clone(), value.clone());
            async move { client.put(key, value, Some(PutOptions::new().with_lease(lease))).await }
        })
        .await
        .map(drop)
    }

    /// What changes below `prefix` from etcd's revision `from` on.
    pub(super) async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, StoreError> {
        let options = WatchOptions::new().with_prefix().with_start_revision(from).with_progress_notify();
        // A watch that is behind gets up to 1,000 revisions in one message, of 120 changes each. With the usual 4 MiB it would fail for ever.
        self.once(
            "follow etcd",
            self.client().watch_client().max_decoding_message_size(WATCH_MAX_BYTES).watch(prefix, Some(options)),
        )
        .await
    }

    async fn once<T>(&self, doing: &'static str, call: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
        match timeout(ATTEMPT_TIMEOUT, call).await {
            Ok(outcome) => outcome.map_err(|error| StoreError::Failed { doing, problem: plain(&error) }),
            Err(_) => Err(StoreError::Failed { doing, problem: "no answer".into() }),
        }
    }

    async fn retry<T, F: Future<Output = Result<T, Error>>>(
        &self,
        doing: &'static str,
        call: impl Fn(Client) -> F,
    ) -> Result<T, StoreError> {
        let until = Instant::now() + CALL_TIMEOUT;
        loop {
            let error = match timeout(ATTEMPT_TIMEOUT, call(self.client())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if !may_pass(&error) => return Err(StoreError::Failed { doing, problem: plain(&error) }),
                Ok(Err(error)) => plain(&error),
                Err(_) => "no answer".into(),
            };
            if Instant::now() + RETRY_AFTER >= until {
                return Err(StoreError::Failed { doing, problem: error });
            }
            sleep(RETRY_AFTER).await;
        }
    }
}

async fn dial(address: &EtcdAddress, certificates: &Certificates) -> Result<Client, StoreError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(PING.0, PING.1)
        .with_keep_alive_while_idle(true)
        // A member that has no leader answers at once that it has none.
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some((name, password)) = &address.user {
        options = options.with_user(name, password);
    }
    let Certificates { ca, identity } = certificates;
    if ca.is_some() || identity.is_some() {
        let mut tls = TlsOptions::new();
        if let Some(ca) = ca {
            tls = tls.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        options = options.with_tls(tls);
    }
    let connect = Client::connect(address.endpoints.clone(), Some(options));
    match timeout(CALL_TIMEOUT, connect).await {
        Ok(client) => client.map_err(|error| unreachable_etcd(address, &plain(&error))),
        Err(_) => Err(unreachable_etcd(address, "no answer")),
    }
}

/// A client that has had an answer: one that only connected may have a certificate that no member accepts.
async fn dial_and_try(address: &EtcdAddress, certificates: &Certificates) -> Result<Client, StoreError> {
    let client = Arc::new(RwLock::new(dial(address, certificates).await?));
    let calls = Calls { client };
    calls.get(Keys::new(&address.prefix).meta()).await?;
    Ok(calls.client())
}

/// Puts a client with other certificates in the place of the present one whenever the files change, until nobody uses it.
async fn follow_files(client: Weak<RwLock<Client>>, address: EtcdAddress, mut used: Certificates) {
    let mut tried = used.clone();
    loop {
        sleep(LOOK_EVERY).await;
        if client.strong_count() == 0 {
            return;
        }
        // A certificate and a key of different times do not fit; the next look finds both.
        let Ok(found) = Certificates::read(&address.files) else { continue };
        if found == used {
            continue;
        }
        match dial_and_try(&address, &found).await {
            Ok(dialled) => {
                let Some(client) = client.upgrade() else { return };
                *client.write().unwrap_or_else(PoisonError::into_inner) = dialled;
                tracing::info!("the certificates for etcd have changed; they are used from now on");
                used = found.clone();
            }
            Err(error) if tried != found => {
                tracing::warn!(%error, "the new certificates for etcd cannot be used; the old ones are")
            }
            Err(_) => {}
        }
        tried = found;
    }
}

impl Certificates {
    fn read(EtcdFiles { ca, identity }: &EtcdFiles) -> Result<Self, StoreError> {
        let pair = |(certificate, key): &(PathBuf, PathBuf)| Ok::<_, StoreError>((read(certificate)?, read(key)?));
        Ok(Self { ca: ca.as_deref().map(read).transpose()?, identity: identity.as_ref().map(pair).transpose()? })
    }
}

/// Etcd's revision of an answer.
pub(super) fn revision(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.map_or(0, etcd_client::ResponseHeader::revision)
}

/// Whether another try may succeed.
fn may_pass(error: &Error) -> bool {
    use tonic::Code;
    match error {
        Error::GRpcStatus(status) => matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Unknown
                | Code::Cancelled
                | Code::ResourceExhausted
                | Code::Aborted
        ),
        Error::TransportError(_) | Error::IoError(_) | Error::LeaseKeepAliveError(_) | Error::WatchError(_) => true,
        _ => false,
    }
}

/// The error as one line for people.
fn plain(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    }
}

fn unreachable_etcd(address: &EtcdAddress, problem: &str) -> StoreError {
    StoreError::Unreachable { endpoints: address.endpoints.join(","), problem: problem.to_owned() }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|source| StoreError::File { path: path.to_owned(), source })
}
