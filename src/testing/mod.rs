//! The test gateway, to test a client against.
//!
//! [`Gateway`] answers like OpenCode Zen and Go, on a free port of the loopback interface. It
//! refuses the same calls and picks providers by the same rule, and it reports which request came in
//! which session. So a test of your own client finds the call that forgets the session.
//! [`Gateway`] begins with an example, and the [recipe](crate::docs::recipes::testing) is a whole
//! test.
//!
//! # What it is faithful to
//!
//! - **Endpoints** of both families of addresses, `/zen` and `/inference`: chat completions,
//!   responses, messages and `generateContent`, whole and as streams that come in several pieces;
//!   the lists of models, Go's limits, and the classifier. A 404 names the nearest path. A call by
//!   WebSocket is answered with 426, so that its client goes on by HTTP.
//! - **JSON** is read as JavaScript reads it: half of an emoji, any depth and `1e999` are taken.
//! - **Refusals**: 500 for a body that is not JSON; `ModelError` for a model that is not one of
//!   [`models`](GatewayBuilder::models), or has no provider; `FreeTierError` for a free model, one
//!   whose name ends in `-free`, because free models are for OpenCode's own client alone;
//!   `AuthError` for an unknown key; then `MissingSessionID` for a call to OpenCode Go without a
//!   session. [`Failure`] has the other refusals, the limits and the outages.
//! - **Routing**: the session picks a provider by the real gateway's hash; a provider that answered
//!   a session before is picked again. Without a session, the key's workspace decides. The real
//!   gateway sometimes leaves a provider that is slow or over its budget; this one never does.
//! - **Usage**: the start of a prompt is cached as far as the provider has seen it at the start of
//!   any prompt of this conversation, without `cache_control`. Only what is written in the same
//!   order is the same: a tool whose keys are in another order makes all after it cold. Tokens are
//!   counted roughly, one per four bytes. Each answer says what it costs, for the three models whose
//!   prices are known.
//! - **Clients that leave**: a call has the status, the tokens and the cost that were sent. A client
//!   that leaves before the answer has none of them, and one that leaves in the middle of a stream
//!   has what came until then. A client that stops at the end of a stream, such as `[DONE]`, has all,
//!   though the cost comes behind it.
//! - **Limits**: it serves several calls at once, and keeps no more than its [`Limits`] allow.
//!
//! Its answers have no meaningful text unless you set a [`Reply`], but no two have the same: each
//! begins and ends with its call's number.
//!
//! # What it sees
//!
//! [`Gateway::requests`] returns the calls, with what each of them asked for, how it was answered,
//! and what [stands out](Mark) in its session: that it is missing, that it moved, or that several
//! conversations share it. The assertions of [`Gateway`] fail with a list of these calls. They are
//! recorded in a [`Log`](record::Log), which a proxy in front of the real gateway can also keep.

mod answer;
mod cache;
mod continuity;
mod endpoint;
mod failure;
mod gateway;
mod json;
mod log;
mod outcome;
mod outline;
mod prices;
mod prompt;
mod quotes;
mod reply;
mod routing;
mod seen;
mod server;
mod state;
// Last, so that `start` comes first on the page of `Gateway`.
mod assertions;

pub use self::failure::Failure;
pub use self::gateway::{Gateway, GatewayBuilder};
pub use self::log::Limits;
pub use self::prices::Price;
pub use self::reply::Reply;
pub use self::routing::Provider;
pub use self::seen::{Mark, SeenRequest};

/// The record of calls, for a program that keeps one itself, such as a proxy in front of the real
/// gateway. Tests of a client do not need it: [`Gateway`] keeps one for them.
pub mod record {
    pub use super::answer::{Answer, End, ToolCall, Usage};
    pub use super::log::{Changes, Log};
}
