//! Asking suspects whether they live, a sample at a time.

use crate::{shared_table::SharedTable, table::Suspect};
use p2pdi::{
    channel::Dial,
    probe::{Answering, identify},
};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

/// How often a sample is asked.
const EVERY: Duration = Duration::from_secs(1);
/// Suspects asked at once.
const SAMPLE: usize = 16;

/// Asks suspects, while there are some, until `stop`.
pub(crate) async fn probe_suspects(table: Arc<SharedTable>, dial: Dial, stop: CancellationToken) {
    let probing = async {
        loop {
            sleep(EVERY).await;
            let sample = table.with(|table, _| table.some_suspects(SAMPLE));
            let mut asked = JoinSet::new();
            for Suspect { cookie, endpoint } in sample {
                let dial = dial.clone();
                asked.spawn(async move {
                    let answers = match endpoint.parse() {
                        Ok(endpoint) => identify(&endpoint, &dial).await == Some(Answering::Peer),
                        Err(_) => false,
                    };
                    (cookie, answers)
                });
            }
            let answers = asked.join_all().await;
            let those = |alive| {
                answers.iter().filter(move |(_, answers)| *answers == alive).map(|(cookie, _)| *cookie).collect::<Vec<_>>()
            };
            let (alive, silent) = (those(true), those(false));
            if !answers.is_empty() {
                tracing::warn!(
                    answered = alive.len(),
                    silent = silent.len(),
                    "many leases ran out at once; they are held while a sample of the peers is asked"
                );
                table.with(|table, now| table.probed(&alive, &silent, now));
                table.wake_expiry();
            }
        }
    };
    let _stopped: Option<()> = stop.run_until_cancelled(probing).await;
}
