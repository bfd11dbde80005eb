//! Shows on a terminal how far the share is read.

use indicatif::{ProgressBar, ProgressStyle};
use peerd::node::NodeHandle;
use std::io::{IsTerminal as _, stderr};

/// Draws until the share is read; does nothing where nobody watches.
pub(crate) fn show(node: NodeHandle) {
    if !stderr().is_terminal() {
        return;
    }
    tokio::spawn(async move {
        let mut progress = node.share().progress();
        let style = ProgressStyle::with_template("indexing {pos} of {len} files, {bytes_hashed} {wide_bar}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style);
        let settled = node.share().settled();
        let draw = async {
            while progress.changed().await.is_ok() {
                let now = progress.borrow_and_update().clone();
                bar.set_length(now.files_seen);
                bar.set_position(now.files_done);
            }
        };
        tokio::select! {
            () = settled => {}
            () = draw => {}
        }
        bar.finish_and_clear();
    });
}
