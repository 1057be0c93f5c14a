//! The recipes whose code needs other crates, so that they are tested.
//!
//! A module contains the code of its page, word for word, and the tests run that code.

#[doc = include_str!("../../src/docs/recipes/ambient_context.md")]
pub mod ambient_context {
    pub mod opentelemetry;
    pub mod tracing;
}

#[doc = include_str!("../../src/docs/recipes/async_openai.md")]
pub mod async_openai;

#[doc = include_str!("../../src/docs/recipes/chain.md")]
pub mod chain {}

#[doc = include_str!("../../src/docs/recipes/genai.md")]
pub mod genai;

#[doc = include_str!("../../src/docs/recipes/rig.md")]
pub mod rig;
