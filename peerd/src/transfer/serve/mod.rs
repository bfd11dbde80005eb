//! The sending side.

pub(crate) mod uploads;
