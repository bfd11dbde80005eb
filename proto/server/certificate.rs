//! Keeps the certificate of a server up to date, and says when it ends.

use crate::{metrics::Metrics, tls::Tls, v1::TlsStatus};
use jiff::Timestamp;
use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio_util::sync::CancellationToken;

/// What is said of a server without TLS that others than its own machine can reach.
const OPEN_WITHOUT_TLS: &str =
    "no TLS: whoever reaches this port can read every message, and take every name; give --tls-cert, --tls-key and --tls-ca";
/// A certificate that was made for at least this long is said to end a week before. Certificates of a day are renewed at two thirds of
/// their life: those that are not are said to end when a fifth is left.
const SOON_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// See [`SOON_MAX`].
const SOON_PART: u32 = 5;

/// Reads the files of `tls` again whenever they change, logs when its certificate ends soon, and sets
/// `p2pdi_tls_certificate_expiry_seconds`, until `stop`.
pub async fn keep_certificate(tls: Tls, metrics: Metrics, stop: CancellationToken) {
    let gauge = metrics.gauge(
        "p2pdi_tls_certificate_expiry_seconds",
        "When the certificate of this server ends, in seconds since 1970",
        &[],
    );
    let mut warned = None;
    let following = tls.follow_files(|tls| {
        let Some(identity) = tls.identity() else { return };
        let (until, now) = (identity.not_after(), SystemTime::now());
        gauge.set(until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let Some(text) = expiry(tls, now) else { return };
        // Once, and once more when it has ended.
        let stage = (identity.serial().clone(), until <= now);
        if warned.as_ref() != Some(&stage) {
            tracing::warn!("{text}");
            warned = Some(stage);
        }
    });
    stop.run_until_cancelled(following).await;
}

/// Logs that a server without TLS listens on an `address` that other machines can reach.
pub fn report_open(tls: Option<&Tls>, address: SocketAddr) {
    if tls.is_none() && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(%address, "{OPEN_WITHOUT_TLS}");
    }
}

/// The TLS of a server, for its status.
#[derive(Debug, Clone)]
pub struct ServedTls {
    /// Its certificates; `None`: it has no TLS.
    pub tls: Option<Tls>,
    /// The address that it listens on.
    pub address: SocketAddr,
}

impl ServedTls {
    /// Its status at the time `now`.
    pub fn status(&self, now: SystemTime) -> TlsStatus {
        let identity = self.tls.as_ref().and_then(Tls::identity);
        let problem = match &self.tls {
            Some(tls) => expiry(tls, now),
            None => (!self.address.ip().to_canonical().is_loopback()).then(|| OPEN_WITHOUT_TLS.to_owned()),
        };
        TlsStatus {
            enabled: self.tls.is_some(),
            certificate_for: identity.as_ref().map(ToString::to_string).unwrap_or_default(),
            certificate_ends_at: identity.map(|identity| identity.not_after().into()),
            problem: problem.unwrap_or_default(),
        }
    }
}

/// What to say of the certificate of `tls` if it has ended, ends soon, or is not valid yet: "the certificate for fff-c ends on …".
fn expiry(tls: &Tls, now: SystemTime) -> Option<String> {
    let identity = tls.identity()?;
    let (from, until) = (identity.not_before(), identity.not_after());
    let life = until.duration_since(from).unwrap_or_default();
    let soon = (life / SOON_PART).min(SOON_MAX);
    let said = match until.duration_since(now) {
        Err(_) => format!("ended on {}; no connection can be made with it until it is replaced", date(until)),
        Ok(left) if left < soon => format!("ends on {}; replace it before", date(until)),
        Ok(_) if from > now => format!("is valid from {} on only; check the clock of this machine", date(from)),
        Ok(_) => return None,
    };
    Some(format!("the certificate for {identity} {said}"))
}

fn date(time: SystemTime) -> String {
    Timestamp::try_from(time)
        .map_or_else(|_| "an unknown date".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
