//! What users meet, over real sockets. One module for each part of the promise.

mod api;
mod conversations;
mod gateway;
mod ids;
mod precedence;
mod scope;
mod stress;
mod stack;
mod stacks;
mod support;
mod targets;
#[cfg(feature = "tracing")]
mod tracing;
