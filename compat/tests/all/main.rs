//! Unmodified SDKs against the loopback gateway: every request in its conversation, none missed.

mod async_openai;
mod chain;
mod events;
mod genai;
mod rig;
mod support;
