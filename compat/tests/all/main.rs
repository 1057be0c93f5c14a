//! Unmodified SDKs with the loopback gateway: every request is in its conversation's session.

mod async_openai;
mod chain;
mod events;
mod genai;
mod rig;
mod support;
