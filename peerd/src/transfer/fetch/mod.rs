//! The receiving side: the search for holders, the streams from them, and the job that owns both.

pub mod document;
mod download;
pub mod downloads;
mod driver;
mod fault_log;
pub(crate) mod fetch_metrics;
mod freed_memory;
mod holder_table;
mod identify;
pub mod job;
pub(crate) mod leads;
mod opened;
pub mod options;
pub mod outcome;
mod payment;
pub mod progress;
pub mod reading;
mod run;
pub mod source_selection;
pub mod source_totals;
