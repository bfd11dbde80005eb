//! Calls to the registry: with the cookie that `register` saved, or registered as an observer for as long as a verb runs.

use crate::{
    call::{CALL_TIMEOUT, RETRY_LIMIT, bounded, explained, server_time},
    failure::{Failure, Outcome},
};
use p2pdi::{
    channel::{Dial, REGISTRY_RESPONSE_MAX_BYTES},
    cookie::{COOKIE_CHARS, Cookie, with_cookie},
    endpoint::Endpoint,
    enrol::Trusted,
    name::{NAME_MAX_BYTES, PeerName},
    network::NetworkName,
    platform::state_folder,
    private_file,
    registries::RegistryChannel,
    retry::Retry,
    status::Reason,
    v1::{
        GetTrustRequest, LeaveRequest, PQueryRequest, PQueryResponse, RegisterRequest, RegisterResponse,
        registry_client::RegistryClient,
    },
};
use peerd::holders::{find_peers::PeerSample, source::Source};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

/// Time limit of the Leave at the end of a verb: the user waits for it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest sample that a registry gives.
const SAMPLE_MAX: u32 = 1_000;

/// The cookie file of one registry.
#[derive(Debug)]
pub(crate) struct SavedCookie {
    path: PathBuf,
    pub(crate) name: PeerName,
    pub(crate) cookie: Cookie,
    /// The lease was ended. The registry keeps the name for this cookie for a while.
    pub(crate) left: bool,
}

/// The folder of cookies and chat history: `state`, or p2pctl's folder in the user's state folder.
pub(crate) fn folder(state: Option<&Path>) -> Option<PathBuf> {
    state.map(Path::to_owned).or_else(|| state_folder().map(|folder| folder.join("p2pctl")))
}

/// Third line of a cookie file whose lease was ended.
const LEFT: &str = "left";
/// Room reserved for a cookie file: the name, the cookie, [`LEFT`] and three line ends.
const COOKIE_FILE_BYTES: usize = NAME_MAX_BYTES + COOKIE_CHARS + LEFT.len() + 3;

impl SavedCookie {
    /// The cookie file for `registries`, which are replicas of one: the one that is there for one of them, or else that of the first. `None`
    /// without any state folder.
    fn path(state: Option<&Path>, registries: &[Endpoint]) -> Option<PathBuf> {
        let folder = folder(state)?;
        // A host is letters, digits, dots, hyphens, colons and brackets.
        let file = |registry: &Endpoint| format!("{}.cookie", registry.as_str().replace([':', '[', ']'], "_"));
        let mut paths = registries.iter().map(|registry| folder.join(file(registry)));
        paths.clone().find(|path| path.exists()).or_else(|| paths.next())
    }

    /// The cookie that `register` saved for one of `registries`, if any.
    pub(crate) fn read(state: Option<&Path>, registries: &[Endpoint]) -> Outcome<Option<Self>> {
        let Some(path) = Self::path(state, registries) else { return Ok(None) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(Failure::refused(format!("cannot read {}: {error}", path.display()))),
        };
        let mut lines = text.lines();
        let read = lines.next().and_then(|name| name.parse().ok()).zip(lines.next().and_then(|cookie| cookie.parse().ok()));
        match read {
            Some((name, cookie)) => Ok(Some(Self { path, name, cookie, left: lines.next() == Some(LEFT) })),
            None => {
                Err(Failure::refused(format!("{} is damaged", path.display())).hint("delete it and run p2pctl register again"))
            }
        }
    }

    /// Reserves the cookie's file, before the call that yields a cookie: without a place for it the lease would be of no use.
    pub(crate) fn reserve(state: Option<&Path>, registries: &[Endpoint]) -> Outcome<ReservedCookie> {
        let path = Self::path(state, registries).ok_or_else(|| {
            Failure::usage("neither XDG_STATE_HOME nor HOME is set, so there is no folder for cookies")
                .hint("give a folder with --state")
        })?;
        let cannot = |error| {
            Failure::refused(format!("cannot write {}: {error}", path.display()))
                .hint("the cookie must be kept for later verbs: give a folder that can be written to with --state")
        };
        let file = private_file::reserve(&path, COOKIE_FILE_BYTES).map_err(cannot)?;
        Ok(ReservedCookie { file, path })
    }

    /// Keeps the cookie for a later `register`, and for nothing else.
    pub(crate) fn mark_left(self) -> Outcome {
        let text = format!("{}\n{}\n{LEFT}\n", self.name, self.cookie.reveal());
        private_file::write(&self.path, text)
            .map_err(|error| Failure::refused(format!("cannot write {}: {error}", self.path.display())))
    }

    pub(crate) fn forget(self) -> Outcome {
        fs::remove_file(&self.path).map_err(|error| Failure::refused(format!("cannot delete {}: {error}", self.path.display())))
    }
}

/// A cookie file about to be written.
pub(crate) struct ReservedCookie {
    file: private_file::Reserved,
    path: PathBuf,
}

impl ReservedCookie {
    pub(crate) fn write(self, name: &PeerName, cookie: &Cookie) -> Outcome {
        let written = self.file.write(format!("{name}\n{}\n", cookie.reveal()));
        written.map_err(|error| Failure::refused(format!("cannot write {}: {error}", self.path.display())))
    }
}

/// A random name for a verb that needs the registry.
pub(crate) fn observer_name(dial: &Dial) -> String {
    dial.observer_name(&format!("p2pctl-{:016x}", rand::random::<u64>()))
}

/// How the registry is reached.
#[derive(Debug, Clone)]
pub(crate) struct RegistryAccess {
    pub(crate) registry: RegistryChannel,
    pub(crate) network: NetworkName,
    pub(crate) dial: Dial,
    /// Observers' leases are ended here.
    pub(crate) leaving: Leaving,
}

/// A client of the registry, with its cookie.
pub(crate) struct RegistrySession {
    client: RegistryClient<RegistryChannel>,
    access: RegistryAccess,
    cookie: Option<Cookie>,
    /// Registered for this verb only; leaves when it is dropped.
    observer: bool,
    /// While it is here, the end of the program waits for its lease's end.
    held: Option<TaskTrackerToken>,
    /// What it registers as an observer; `None`: a random name.
    observes_as: Option<RegisterRequest>,
    /// How often it registered as an observer.
    observations: u64,
    name: Option<PeerName>,
    /// The time of its latest answer, by the registry's clock.
    time: SystemTime,
}

impl RegistrySession {
    /// A client without a cookie, or with the saved one.
    pub(crate) fn new(access: &RegistryAccess, kept: Option<&SavedCookie>) -> Self {
        let client = RegistryClient::new(access.registry.clone()).max_decoding_message_size(REGISTRY_RESPONSE_MAX_BYTES);
        let (cookie, name) = (kept.map(|kept| kept.cookie.clone()), kept.map(|kept| kept.name.clone()));
        Self {
            client,
            access: access.clone(),
            cookie,
            observer: false,
            held: None,
            observes_as: None,
            observations: 0,
            name,
            time: SystemTime::now(),
        }
    }

    /// A client that is registered as this observer.
    pub(crate) async fn observer(access: &RegistryAccess, observer: RegisterRequest) -> Outcome<Self> {
        let mut session = Self::new(access, None);
        session.observes_as = Some(RegisterRequest { observer: true, ..observer });
        session.observe().await?;
        Ok(session)
    }

    /// A client that may query: with the saved cookie, or registered as an observer.
    pub(crate) async fn connect(access: &RegistryAccess, state: Option<&Path>) -> Outcome<Self> {
        let kept = SavedCookie::read(state, access.registry.registries())?.filter(|kept| !kept.left);
        let mut session = Self::new(access, kept.as_ref());
        if kept.is_none() {
            session.observe().await?;
        }
        Ok(session)
    }

    /// The name that the saved cookie is for.
    pub(crate) fn name(&self) -> Option<&PeerName> {
        self.name.as_ref()
    }

    /// The time of the latest answer, by the registry's clock.
    pub(crate) fn time(&self) -> SystemTime {
        self.time
    }

    pub(crate) fn client(&mut self) -> &mut RegistryClient<RegistryChannel> {
        &mut self.client
    }

    /// How often it registered as an observer.
    pub(crate) fn observations(&self) -> u64 {
        self.observations
    }

    /// Registers for as long as this verb runs.
    pub(crate) async fn observe(&mut self) -> Outcome {
        self.cookie = None;
        self.observer = true;
        self.held = Some(self.access.leaving.0.token());
        let nameless = || RegisterRequest { name: observer_name(&self.access.dial), observer: true, ..Default::default() };
        let request =
            RegisterRequest { network: self.access.network.to_string(), ..self.observes_as.clone().unwrap_or_else(nameless) };
        let leaving = self.access.leaving.clone();
        let register = |client, request| {
            let leaving = leaving.clone();
            async move { leaving.register(client, request).await }
        };
        let asked = self.call(request, register).await;
        let unclaimed = asked.map_err(|failure| failure.hint("in a network without a registry, ask a peer: --via HOST:PORT"))?;
        let answer = unclaimed.claim();
        self.cookie = Some(answer.cookie.parse().map_err(|_| Failure::refused("the registry gave a malformed cookie"))?);
        self.observations += 1;
        self.learn_revoked(answer.trust_revision).await;
        Ok(())
    }

    /// Has peers refused whose certificates the registry revoked. Without an answer the verb goes on: the registry refuses them, too.
    async fn learn_revoked(&mut self, trust_revision: u64) {
        let Some(tls) = self.access.dial.tls.clone().filter(|_| trust_revision > 0) else { return };
        let trusted = Trusted::new(tls, None);
        let pages = async {
            loop {
                let since_revision = trusted.revision();
                let trust =
                    self.client.get_trust(GetTrustRequest { since_revision }).await?.into_inner().trust.unwrap_or_default();
                trusted.take(&trust, SystemTime::now());
                // A page that ends where the last one did would be asked for without end.
                if !trust.more || trusted.revision() == since_revision {
                    return Ok::<_, Status>(());
                }
            }
        };
        match timeout(CALL_TIMEOUT, pages).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => tracing::warn!(%status, "cannot fetch the revoked certificates"),
            Err(_) => tracing::warn!("cannot fetch the revoked certificates in time"),
        }
    }

    /// One call with the cookie, bounded in time. It is made again when the registry refuses it for now and says when.
    pub(crate) async fn call<M: Clone, T, F>(
        &mut self,
        message: M,
        call: impl Fn(RegistryClient<RegistryChannel>, Request<M>) -> F,
    ) -> Outcome<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let registry = format!("the registry at {}", self.access.registry);
        let mut time = self.time;
        let dated = async {
            let mut retry = Retry::within(RETRY_LIMIT);
            let answer = loop {
                match call(self.client.clone(), self.request(message.clone())).await {
                    Ok(answer) => break answer,
                    Err(refused) => retry.wait(refused).await?,
                }
            };
            time = server_time(answer.metadata());
            Ok(answer)
        };
        let answered = bounded(&registry, CALL_TIMEOUT, dated).await;
        self.time = time;
        match answered {
            Err(failure) if failure.is_unanswered() => {
                let failure = failure.explained(explained(self.access.registry.registries(), &self.access.dial).await);
                let hint = match failure.is_wrong_server() {
                    true => "name the registry with --registry URL; where it has certificates, `p2pctl login TOKEN` gets one",
                    false => "start one with `registry`, or name another with --registry URL",
                };
                Err(failure.hint(hint))
            }
            answered => answered,
        }
    }

    /// One page of peers. Registers as an observer where the saved cookie is not valid any more.
    pub(crate) async fn p_query(&mut self, query: &PQueryRequest) -> Outcome<PQueryResponse> {
        let may_observe = !self.observer;
        match self.page(query).await {
            Err(failure)
                if may_observe && (failure.is_reason(Reason::CookieUnknown) || failure.is_reason(Reason::LeaseExpired)) =>
            {
                self.observe().await?;
                self.page(query).await
            }
            answer => answer,
        }
    }

    async fn page(&mut self, query: &PQueryRequest) -> Outcome<PQueryResponse> {
        self.call(query.clone(), |mut client, request| async move { client.p_query(request).await }).await
    }

    /// All pages of a query.
    pub(crate) async fn all(&mut self, mut query: PQueryRequest) -> Outcome<PQueryResponse> {
        let mut whole = self.p_query(&query).await?;
        while !whole.next_page_token.is_empty() {
            query.page_token = std::mem::take(&mut whole.next_page_token);
            let page = self.p_query(&query).await?;
            whole.peers.extend(page.peers);
            whole.gone.extend(page.gone);
            whole.next_page_token = page.next_page_token;
        }
        Ok(whole)
    }

    /// All peers; of more than a registry samples at once, that many random ones.
    pub(crate) async fn sources(&mut self) -> Outcome<Vec<Source>> {
        Ok(self.sample(SAMPLE_MAX as usize).await?.peers)
    }

    /// About `count` random peers.
    pub(crate) async fn sample(&mut self, count: usize) -> Outcome<PeerSample> {
        let sample = u32::try_from(count).unwrap_or(SAMPLE_MAX).clamp(1, SAMPLE_MAX);
        let peers = self.p_query(&PQueryRequest { sample, ..Default::default() }).await?.peers;
        let are_all = peers.len() < sample as usize;
        Ok(PeerSample { peers: peers.iter().filter_map(Source::of_record).collect(), are_all })
    }

    /// The peer called `peer`, or the one at that HOST:PORT.
    pub(crate) async fn find(&mut self, peer: &str) -> Outcome<Source> {
        if let Some(direct) = direct(peer) {
            return Ok(direct);
        }
        let name: PeerName = peer.parse()?;
        let query = PQueryRequest { name: name.to_string(), ..Default::default() };
        let found = self.p_query(&query).await?.peers.iter().find_map(Source::of_record);
        found.ok_or_else(|| {
            Failure::refused(format!("no active peer is called {name}"))
                .hint("`p2pctl peers` lists the active peers; HOST:PORT works too")
        })
    }

    /// Ends an observer's lease, however the verb ends: done, failed or interrupted.
    pub(crate) fn end(&mut self) {
        if self.observer && self.cookie.is_some() {
            self.access.leaving.leave(self.client.clone(), self.request(LeaveRequest {}));
            self.cookie = None;
        }
    }

    /// A request with the cookie, if there is one.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        with_cookie(message, self.cookie.as_ref())
    }
}

impl Drop for RegistrySession {
    fn drop(&mut self) {
        self.end();
    }
}

/// The Leave calls of observers, which the program waits for at its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leaving(TaskTracker);

/// The answer to an observer's Register. Dropped without being claimed, it ends the lease.
struct Unclaimed {
    answer: Option<RegisterResponse>,
    client: RegistryClient<RegistryChannel>,
    leaving: Leaving,
}

impl Unclaimed {
    /// The answer, whose lease is the caller's to end from now on.
    fn claim(mut self) -> RegisterResponse {
        self.answer.take().unwrap_or_default()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(cookie) = self.answer.take().and_then(|answer| answer.cookie.parse().ok()) {
            self.leaving.leave(self.client.clone(), with_cookie(LeaveRequest {}, Some(&cookie)));
        }
    }
}

impl Leaving {
    /// Registers an observer. A call that was begun is answered even if the verb is interrupted meanwhile: only who knows the cookie can end
    /// the lease.
    async fn register(
        &self,
        mut client: RegistryClient<RegistryChannel>,
        request: Request<RegisterRequest>,
    ) -> Result<Response<Unclaimed>, Status> {
        let (sender, answer) = oneshot::channel();
        let leaving = self.clone();
        let registering = async move {
            let answered = client.register(request).await;
            let unclaimed = |answer| Unclaimed { answer: Some(answer), client, leaving };
            // Nobody waits for it any more: it is dropped.
            let _interrupted = sender.send(answered.map(|answered| answered.map(unclaimed)));
        };
        self.0.spawn(registering.in_current_span());
        answer.await.unwrap_or_else(|_| Err(Status::cancelled("the call was given up")))
    }

    /// Ends an observer's lease.
    fn leave(&self, mut client: RegistryClient<RegistryChannel>, request: Request<LeaveRequest>) {
        let leave = async move {
            if let Err(status) = client.leave(request).await {
                tracing::debug!(%status, "an observer's lease is left to expire");
            }
        };
        self.0.spawn(leave.in_current_span());
    }

    /// Waits for all of them, for at most [`LEAVE_TIMEOUT`].
    pub(crate) async fn finish(&self) {
        self.0.close();
        if timeout(LEAVE_TIMEOUT, self.0.wait()).await.is_err() {
            tracing::debug!("the registry did not answer the leave in time");
        }
    }
}

/// A peer given by its address: no registry is needed.
pub(crate) fn direct(peer: &str) -> Option<Source> {
    let endpoint: Endpoint = peer.parse().ok()?;
    Some(Source::new(None, endpoint))
}
