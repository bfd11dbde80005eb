//! Contexts: registry, network and certificates under a name.

use crate::contexts::parse_name;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Context {
    #[command(subcommand)]
    pub(crate) what: ContextWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextWhat {
    /// List the contexts
    List,
    /// Use this context from now on, when --context is not given
    Use {
        /// The context
        #[arg(value_parser = parse_name)]
        name: String,
    },
    /// Show what a context sets
    Show {
        /// The context; without, the current one
        #[arg(value_parser = parse_name)]
        name: Option<String>,
    },
    /// Make or change a context: it keeps the values of the flags given with this verb, such as --registry
    Set {
        /// The context
        #[arg(value_parser = parse_name)]
        name: String,
    },
    /// Delete a context; the files of its certificates stay
    Delete {
        /// The context
        #[arg(value_parser = parse_name)]
        name: String,
    },
}
