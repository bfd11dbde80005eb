//! The calls that a program makes, by method.

use super::{Metrics, methods::methods_of};
use crate::channel::CountSent;
use metrics::Counter;
use std::{collections::HashMap, fmt};

/// Counts the calls of a client in its program's metrics.
pub struct SentCalls(HashMap<String, Counter>);

impl SentCalls {
    /// For those services of the contract whose full names are in `called`. Calls of others are not counted.
    pub fn new(metrics: &Metrics, called: &[&str]) -> Self {
        let counter = |method: &String| {
            metrics.counter("p2pdi_rpc_sent_total", "Calls made to others, by method, however they end", &[("method", method)])
        };
        Self(methods_of(called).into_iter().map(|method| (format!("/{method}"), counter(&method))).collect())
    }
}

impl fmt::Debug for SentCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentCalls").finish_non_exhaustive()
    }
}

impl CountSent for SentCalls {
    fn begins(&self, path: &str) {
        if let Some(counter) = self.0.get(path) {
            counter.increment(1);
        }
    }
}
