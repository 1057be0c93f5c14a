//! The tests of `tests/all`, once more with reqwest 0.12 and reqwest-middleware 0.4.

mod stack;

mod both;
#[path = "../all/stacks.rs"]
mod stacks;
#[allow(dead_code, reason = "not every module of `tests/all` is here")]
#[path = "../all/support.rs"]
mod support;
#[cfg(feature = "tracing")]
#[path = "../all/tracing.rs"]
mod tracing;
