//! Why the program `peerd` ends: what it says of it.

use crate::{
    documents::share::ShareError,
    identity::{JoinError, StateError},
    node::NodeError,
};
use p2pdi::{
    field::InvalidField,
    server::{Judgement, ListenError},
};
use std::error::Error;

fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
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
    error.is::<InvalidField>() || matches!(error.downcast_ref(), Some(NodeError::Config(_)))
}

/// What to do about the error that ended the program, and whether it is wrong usage.
pub(super) fn judge(error: &(dyn Error + 'static)) -> Judgement {
    Judgement { hint: hint(error).map(str::to_owned), is_usage: is_usage(error) }
}
