//! The receiving side: the search for holders, the streams from them, and the job that owns both.

pub mod document;
mod download;
pub mod downloads;
pub mod job;
pub mod progress;
pub mod source_selection;
