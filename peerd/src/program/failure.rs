//! Why the program `peerd` ends: what it says, and its exit code.

use crate::{
    documents::share::ShareError,
    identity::{JoinError, StateError},
    node::NodeError,
};
use p2pdi::{
    field::InvalidField,
    server::{ListenError, report_failure},
    telemetry::TelemetryError,
};
use std::{error::Error, process::ExitCode};

fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if error.is::<TelemetryError>() {
        return Some("see --help for --log, and OpenTelemetry's documentation for OTEL_*");
    }
    if let Some(error) = error.downcast_ref::<ListenError>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<JoinError>() {
        return error.hint();
    }
    match error.downcast_ref::<NodeError>()? {
        NodeError::State(StateError::Locked { .. }) | NodeError::Share(ShareError::StateInUse { .. }) => {
            Some("give each peer its own folder with --state")
        }
        NodeError::State(StateError::Io { .. }) | NodeError::Share(ShareError::State { .. }) => {
            Some("free space on its disk (and see ulimit -f), or choose a folder that this user can write to with --state")
        }
        NodeError::Share(_) => Some("give a folder that this user can read with --share"),
        _ => None,
    }
}

/// Whether a flag or a variable is not valid, which is wrong usage.
fn is_usage(error: &(dyn Error + 'static)) -> bool {
    error.is::<InvalidField>() || error.is::<TelemetryError>() || matches!(error.downcast_ref(), Some(NodeError::Config(_)))
}

/// Says why the program ends. The exit code is 2 for wrong usage and 1 otherwise.
pub(super) fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    report_failure(error, hint(error));
    if is_usage(error) { ExitCode::from(2) } else { ExitCode::FAILURE }
}
