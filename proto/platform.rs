//! What differs between operating systems: opening files below a folder and nothing outside of it, renames that replace nothing, free
//! space, positioned reads and writes, signals, options of sockets, limits of the process and what it uses, the terminal, the user's
//! folders, the clock that counts suspended time.
//!
//! Linux and macOS have system calls for all of it. Other Unixes and the rest get a fall-back of each that uses the standard library
//! only, so that a port edits this module and no other. The fall-backs for files
//! and folders are compiled and tested on every system; those for signals, limits and the rest do nothing or are one call of a library.
//!
//! Locks on files are not here: [`std::fs::File::try_lock`] works everywhere.

mod files;
mod folder;
mod limits;
mod process;
mod signals;
mod sockets;
mod space;
mod terminal;
mod uptime;
mod user_folders;

pub use files::{
    Readers, create_private_folder, disk_bytes, free_bytes, open_no_follow, private, read_exact_at, readers, rename_no_replace,
    sync_folder, write_all_at,
};
pub use folder::{Entries, FileId, FileKind, FileStat, Folder, FolderEntry, LookupError};
pub use limits::{descriptor_limit, is_shortage, lower_thread_priority, raise_descriptor_limit};
pub use process::ProcessStats;
pub use signals::{Hangups, StopSignals, report_file_size_limit};
pub use sockets::limit_unsent;
pub use space::{allocate, allocated_bytes, data_ranges, is_no_room, punch_hole, sync_file_system};
pub use terminal::TerminalMode;
pub use uptime::uptime;
pub use user_folders::{config_folder, state_folder};
