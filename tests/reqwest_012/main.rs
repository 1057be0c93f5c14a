//! The tests of `tests/all`, again with reqwest 0.12 and reqwest-middleware 0.4.

mod stack;

mod both;
#[path = "../all/client.rs"]
mod client;
#[path = "../all/conversations.rs"]
mod conversations;
#[path = "../all/entry_points.rs"]
mod entry_points;
#[path = "../all/existing.rs"]
mod existing;
#[path = "../all/failures.rs"]
mod failures;
#[path = "../all/limits.rs"]
mod limits;
#[path = "../all/policies.rs"]
mod policies;
#[path = "../all/precedence.rs"]
mod precedence;
#[path = "../all/request_builder.rs"]
mod request_builder;
#[path = "../all/session_from.rs"]
mod session_from;
#[path = "../all/sources.rs"]
mod sources;
#[path = "../all/stacks.rs"]
mod stacks;
#[path = "../all/stress.rs"]
mod stress;
#[allow(dead_code, reason = "not every module of `tests/all` is here")]
#[path = "../all/support.rs"]
mod support;
#[path = "../all/targets.rs"]
mod targets;
#[path = "../all/when.rs"]
mod when;
