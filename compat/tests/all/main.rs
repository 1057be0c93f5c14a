//! Unmodified SDKs with the test gateway: every request is in its conversation's session.

mod ambient_context;
mod as_shown;
mod async_openai;
mod chain;
mod events;
mod genai;
mod rig;
mod support;
