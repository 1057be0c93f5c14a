//! How to adopt the crate, for one kind of client after the other.
//!
//! | your client | page |
//! |---|---|
//! | an agent built on rig | [`rig`] |
//! | async-openai | [`async_openai`] |
//! | genai | [`genai`] |
//! | reqwest-retry, reqwest-tracing, readers of server-sent events | [`chain`] |
//! | an HTTP trait of its own, or another HTTP library | [`http_trait`] |
//! | a proxy or a router | [`proxy`] |
//! | one that sends a pinned header today | [`pinned_header`] |
//! | any of them, in its tests | [`testing`] |

// The code of some pages needs other crates. It is tested in the package `compat`.

#[cfg(not(doctest))]
#[doc = include_str!("async_openai.md")]
pub mod async_openai {}

#[cfg(not(doctest))]
#[doc = include_str!("chain.md")]
pub mod chain {}

#[cfg(not(doctest))]
#[doc = include_str!("genai.md")]
pub mod genai {}

#[doc = include_str!("http_trait.md")]
pub mod http_trait {}

#[doc = include_str!("pinned_header.md")]
pub mod pinned_header {}

#[doc = include_str!("proxy.md")]
pub mod proxy {}

#[cfg(not(doctest))]
#[doc = include_str!("rig.md")]
pub mod rig {}

#[doc = include_str!("testing.md")]
pub mod testing {}
