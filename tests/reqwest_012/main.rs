//! The tests of `tests/all`, once more with reqwest 0.12 and reqwest-middleware 0.4.

mod stack;

mod both;
#[path = "../all/conversations.rs"]
mod conversations;
#[path = "../all/faults.rs"]
mod faults;
#[path = "../all/precedence.rs"]
mod precedence;
#[path = "../all/stacks.rs"]
mod stacks;
#[path = "../all/stress.rs"]
mod stress;
#[allow(dead_code, reason = "not every module of `tests/all` is here")]
#[path = "../all/support.rs"]
mod support;
#[path = "../all/targets.rs"]
mod targets;
