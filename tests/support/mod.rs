//! Helpers of the system tests: the real programs, a folder for each test, no fixed port, no wait without a deadline.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod browser;
pub mod http;
pub mod lan;
pub mod network;
pub mod process;
pub mod programs;
pub mod terminal;
pub mod tools;
pub mod wait;
pub mod world;
