//! The status page, metrics and probes over plain HTTP.

use crate::{
    cluster::Cluster, leases::Leases, shared_swarms::SharedSwarms, shared_table::SharedTable, store_health::StoreHealth, swarms,
};
use axum::{
    Router,
    extract::State,
    http::{Extensions, HeaderMap, StatusCode, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use metrics::{Counter, Gauge};
use p2pdi::{
    VERSION, hex, json,
    metrics::Metrics,
    network::NetworkName,
    platform::uptime,
    server::{Caller, HostNames, HttpTokens, ServedTls, check_host, login, page as shared, refused, security_headers},
    status::Reason,
    v1::{PeerRecord, PeerState},
};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

const PAGE: &str = include_str!("http/page/index.html");
const SCRIPT: &str = include_str!("http/page/registry.js");

/// Most peers on the status page: the table is locked for some 100 µs while they are copied. PQuery lists all of them.
const PEERS_SHOWN: usize = 250;
/// Most changes on the status page, the latest ones.
const CHANGES_SHOWN: usize = 50;

/// Content security policy of answers without one of their own: load nothing, and show it in no frame.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What the pages show.
#[derive(Clone)]
pub(crate) struct Page {
    table: Arc<SharedTable>,
    swarms: Arc<SharedSwarms>,
    health: Arc<StoreHealth>,
    network: NetworkName,
    metrics: Metrics,
    stop: CancellationToken,
    gauges: Arc<[Gauge; 6]>,
    changes: Counter,
    announces: Counter,
    started_at: SystemTime,
    tls: ServedTls,
    /// Who may see the page from other machines.
    tokens: Arc<HttpTokens>,
    cluster: Option<ReplicaGauges>,
}

/// Of a replica.
#[derive(Clone)]
struct ReplicaGauges {
    cluster: Arc<Cluster>,
    replicas: Gauge,
    shards: Gauge,
    suspects: Gauge,
    store_reachable: Gauge,
}

impl ReplicaGauges {
    fn new(cluster: Arc<Cluster>, metrics: &Metrics) -> Self {
        let gauge = |name, help| metrics.gauge(name, help, &[]);
        Self {
            cluster,
            replicas: gauge("p2pdi_registry_replicas", "Replicas of this registry that are alive"),
            shards: gauge("p2pdi_registry_shards", "Shards, of 32, whose leases this replica keeps"),
            suspects: gauge(
                "p2pdi_registry_suspects",
                "Peers whose lease ran out with many others at once, and is held for a while",
            ),
            store_reachable: gauge("p2pdi_registry_store_reachable", "1 while this replica reaches the store that it shares"),
        }
    }

    fn set(&self, suspects: usize) {
        let reachable = self.cluster.store_reachable();
        let (replicas, shards) = self.cluster.counts();
        self.replicas.set(f64::from(replicas));
        self.shards.set(f64::from(shards));
        self.store_reachable.set(f64::from(u8::from(reachable)));
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        let suspects = suspects as f64;
        self.suspects.set(suspects);
    }
}

impl Page {
    pub(crate) fn new(
        leases: &Leases,
        health: Arc<StoreHealth>,
        network: NetworkName,
        metrics: Metrics,
        stop: CancellationToken,
        tls: ServedTls,
        tokens: HttpTokens,
    ) -> Self {
        let (table, swarms) = (Arc::clone(&leases.table), Arc::clone(&leases.swarms));
        let cluster = leases.cluster.clone().map(|cluster| ReplicaGauges::new(cluster, &metrics));
        let gauge = |name, help| metrics.gauge(name, help, &[]);
        let gauges = Arc::new([
            gauge("p2pdi_registry_peers_active", "Peers with a lease"),
            gauge("p2pdi_registry_peers_inactive", "Peers whose lease ended, kept for 30 days"),
            gauge("p2pdi_registry_observers", "Callers with a lease that only ask"),
            gauge("p2pdi_registry_unwritten", "Changes that the store has not answered yet"),
            gauge("p2pdi_registry_swarms", "Documents that a peer fetches or holds, by announces"),
            gauge("p2pdi_registry_swarm_members", "Peers in swarms, once for each swarm"),
        ]);
        let changes = metrics.counter("p2pdi_registry_changes_total", "Changes to the records: the revision", &[]);
        let announces = metrics.counter("p2pdi_registry_announces_total", "Announces of members of swarms", &[]);
        Self {
            table,
            swarms,
            health,
            network,
            metrics,
            stop,
            gauges,
            changes,
            announces,
            started_at: SystemTime::now(),
            tls,
            tokens: Arc::new(tokens),
            cluster,
        }
    }

    /// Ready until it stops or its disk hangs. A disk that returns errors shows on the status page and in the metrics only: KeepAlive and
    /// PQuery work without it, and an unready registry would get no calls at all.
    /// A replica that others could reach the store without is not ready: it can vouch for no lease, and the others can.
    pub(crate) fn is_ready(&self) -> bool {
        !self.stop.is_cancelled() && !self.hangs() && self.is_useful()
    }

    fn is_useful(&self) -> bool {
        self.cluster.as_ref().is_none_or(|replica| replica.cluster.is_useful())
    }

    /// A disk that hangs. Etcd that does not answer says nothing of this replica.
    fn hangs(&self) -> bool {
        self.cluster.is_none() && self.health.hangs()
    }
}

/// The routes of the server's own port: the status page, and [`probes`].
pub(crate) fn routes(page: Page, hosts: HostNames) -> Router {
    Router::new()
        .route("/", get(status))
        .route("/registry.js", get(|| async { shared::file("text/javascript; charset=utf-8", SCRIPT) }))
        .with_state(page.clone())
        .merge(login(Arc::clone(&page.tokens), page.tls.tls.is_some()))
        .merge(shared::files())
        .merge(probes(page))
        .layer(middleware::from_fn_with_state(hosts, check_host))
        .layer(middleware::map_response(async |answer: Response| security_headers(answer, POLICY)))
}

/// What kubelets and Prometheus ask for.
pub(crate) fn probes(page: Page) -> Router {
    Router::new()
        .route("/metrics", get(measurements))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(page)
}

/// See [`Page::is_ready`].
async fn ready(State(page): State<Page>) -> Response {
    if page.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else if !page.is_useful() {
        (StatusCode::SERVICE_UNAVAILABLE, "this replica reaches neither the store nor the replicas that do\n").into_response()
    } else if page.hangs() {
        (StatusCode::SERVICE_UNAVAILABLE, "the disk does not answer\n").into_response()
    } else {
        "ok\n".into_response()
    }
}

async fn measurements(State(page): State<Page>) -> Response {
    let counts = page.table.with(|table, _| table.counts());
    let swarms::Counts { swarms, members, announces, .. } = page.swarms.counts();
    let values = [counts.active, counts.inactive, counts.observers, counts.in_flight, swarms, members];
    for (gauge, value) in page.gauges.iter().zip(values) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        gauge.set(value as f64);
    }
    if let Some(replica) = &page.cluster {
        replica.set(counts.suspects);
    }
    page.changes.absolute(counts.revision);
    page.announces.absolute(announces);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.metrics.render()).into_response()
}

/// Whether the caller may see the peers: from the registry's own machine, with a certificate of the network, or with the token.
fn may_see(page: &Page, caller: Option<&Caller>, headers: &HeaderMap) -> Result<(), Status> {
    // Only calls from inside the process have no caller.
    let Some(caller) = caller else { return Ok(()) };
    if caller.identity().is_some() || caller.is_local_machine() {
        return Ok(());
    }
    if page.tokens.are_used() {
        return page.tokens.shown(headers, Some(caller.address().ip()), uptime()).judge();
    }
    Err(Reason::LoopbackOnly.status(match page.tls.tls {
        Some(_) => "this page is for the registry's own machine, and for callers with a certificate of the network; others need a token: start it with --http-token FILE",
        None => "this page is for the registry's own machine; from others it needs a token: start the registry with --http-token FILE",
    }))
}

async fn status(State(page): State<Page>, extensions: Extensions, headers: HeaderMap) -> Response {
    if let Err(refusal) = may_see(&page, Caller::of(&extensions), &headers) {
        return refused(&refusal, &headers);
    }
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let as_json = accept.contains("application/json");
    let (counts, ttl_ms, mut peers, latest) = page.table.with(|table, now| {
        let latest = if as_json { table.latest_changes(CHANGES_SHOWN, now) } else { Vec::new() };
        (table.counts(), table.ttl_ms(), table.some_active(PEERS_SHOWN, now), latest)
    });
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let store = page.health.word(page.cluster.as_ref().map(|replica| replica.cluster.store_reachable()));
    let swarms::Counts { swarms, members, .. } = page.swarms.counts();
    let tls = page.tls.status(SystemTime::now());
    if as_json {
        let body = json!({
            "version": VERSION,
            "network": page.network.as_str(),
            "started_at": prost_types::Timestamp::from(page.started_at).to_string(),
            "active_peers": counts.active,
            "inactive_peers": counts.inactive,
            "observers": counts.observers,
            "swarms": swarms,
            "swarm_members": members,
            "revision": counts.revision,
            "records_skipped": page.health.skipped().count,
            "ttl": format!("{}s", Duration::from_millis(ttl_ms).as_secs_f64()),
            "store": store,
            "replica": page.cluster.as_ref().map(|replica| {
                let (replicas, shards) = replica.cluster.counts();
                json!({ "suspects": counts.suspects, "id": replica.cluster.me().to_string(), "replicas": replicas, "shards": shards })
            }),
            "unwritten": counts.in_flight,
            "tls": json::value(&tls),
            "peers": peers.iter().map(peer_value).collect::<Vec<_>>(),
            "changes": latest.iter().map(change_value).collect::<Vec<_>>(),
        });
        return ([(header::CONTENT_TYPE, "application/json")], format!("{body:#}\n")).into_response();
    }
    let mut text = format!(
        "P2P-DI registry {VERSION}\n\n\
         network       {}\nactive peers  {}\ninactive      {}\nobservers     {}\nswarms        {swarms} with {members} members\nrevision      {}\nttl           {}\nstore         {}\n",
        page.network,
        counts.active,
        counts.inactive,
        counts.observers,
        counts.revision,
        humantime::format_duration(Duration::from_millis(ttl_ms)),
        match store {
            "failing" => "failing: registrations are refused",
            store => store,
        },
    );
    if let Some(replica) = &page.cluster {
        let (replicas, shards) = replica.cluster.counts();
        let _ = writeln!(
            text,
            "replica       {}, one of {replicas}; keeps the leases of {shards} shards of 32",
            replica.cluster.me()
        );
    }
    if counts.suspects > 0 {
        let _ =
            writeln!(text, "suspects      {}: their leases ran out at once, and are held for up to two ttls", counts.suspects);
    }
    let skipped = page.health.skipped();
    if skipped.count > 0 {
        let _ = writeln!(text, "skipped       {} records that this version refuses, such as {}", skipped.count, skipped.first);
    }
    let ends = tls.certificate_ends_at.map(|at| format!(", until {at}")).unwrap_or_default();
    if tls.enabled {
        let _ = writeln!(text, "tls           certificate for {}{ends}", tls.certificate_for);
    }
    if !tls.problem.is_empty() {
        let _ = writeln!(text, "problem       {}", tls.problem);
    }
    if !peers.is_empty() {
        let width = peers.iter().map(|peer| peer.name.len()).max().unwrap_or(0).max(4);
        let _ = write!(text, "\n{:width$}  {:28}  lease left\n", "name", "endpoint");
        for peer in &peers {
            let left = peer.lease_remaining.map_or(0, |left| left.seconds);
            let _ = writeln!(text, "{:width$}  {:28}  {left} s", peer.name, peer.endpoint);
        }
        if counts.active > peers.len() {
            let _ = writeln!(text, "… and {} more", counts.active - peers.len());
        }
    }
    if accept.contains("text/html") { shared::html(PAGE, "P2P-DI registry", &text) } else { text.into_response() }
}

fn peer_value(peer: &PeerRecord) -> Value {
    json!({
        "name": peer.name,
        "endpoint": peer.endpoint,
        "id": hex::encode(&peer.id),
        "labels": peer.labels,
        "registration_count": peer.registration_count,
        "lease_remaining_seconds": peer.lease_remaining.map_or(0, |left| left.seconds),
        "documents": peer.documents,
        "load": peer.load.as_ref().map(json::value),
    })
}

/// The latest change of a peer: it registered, or its lease ended. When a lease ended is not recorded, only when the peer was last active.
fn change_value(peer: &PeerRecord) -> Value {
    let (what, at) = match peer.state() {
        PeerState::Active => ("registered", peer.last_registered_at),
        _ => ("left", peer.last_active_at),
    };
    json!({ "at": at.map(|at| at.to_string()), "what": what, "peer": peer.name })
}
