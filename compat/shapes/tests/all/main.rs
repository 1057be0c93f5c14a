//! Two conversations at once through each shape of client, against the test gateway.
//!
//! While a gateway runs, it is a target of every middleware in the process, so none of these
//! applications needs a hook for its tests.

mod ambient;
mod engine;
mod errors;
#[cfg(unix)]
mod forks;
mod gateways;
mod others;
mod pages;
mod plain;
mod pool;
mod queue;
mod sessions;
mod support;
