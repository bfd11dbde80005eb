//! What operators install: the chart, the manifests made of it, alerts and dashboards.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

#[path = "../support/mod.rs"]
mod support;

mod chart;
mod documented;
mod image;
mod observability;
mod programs;
mod render;
mod restricted;
