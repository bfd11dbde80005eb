//! A progress bar on the terminal while the share is read.

use crate::node::NodeHandle;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{IsTerminal as _, stderr},
    thread,
};
use tokio::runtime::Handle;

/// Draws until the share is read, on a thread of its own: a terminal that is stopped (Ctrl-S) must not stop the peer. Does nothing if
/// standard error is not a terminal.
pub(crate) fn show(node: NodeHandle) {
    if !stderr().is_terminal() {
        return;
    }
    let drawing = async move {
        let mut progress = node.share().progress();
        let style = ProgressStyle::with_template("reading the share: {pos} of {len} files {wide_bar} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style);
        let settled = node.share().settled();
        let draw = async {
            while progress.changed().await.is_ok() {
                let now = *progress.borrow_and_update();
                bar.set_length(now.files);
                bar.set_position(now.files.saturating_sub(now.pending));
                bar.set_message(format!("{} hashed", bytesize::ByteSize(now.hashed_bytes).display().iec()));
            }
        };
        tokio::select! {
            () = settled => {}
            () = draw => {}
        }
        bar.finish_and_clear();
    };
    let runtime = Handle::current();
    thread::spawn(move || runtime.block_on(drawing));
}
