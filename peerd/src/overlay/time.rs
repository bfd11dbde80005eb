//! The clock of the overlay's state machines.

use std::time::Duration;

/// Time since a start of the driver's choosing; never goes back.
pub type Time = Duration;
