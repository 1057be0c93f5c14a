//! The recipes whose code needs other crates, so that it is tested.
//!
//! A module holds the code that its page shows, word for word, and the tests run that very code.

#[doc = include_str!("../../src/docs/recipes/async_openai.md")]
pub mod async_openai;

#[doc = include_str!("../../src/docs/recipes/chain.md")]
pub mod chain {}

#[doc = include_str!("../../src/docs/recipes/genai.md")]
pub mod genai;

#[doc = include_str!("../../src/docs/recipes/rig.md")]
pub mod rig;
