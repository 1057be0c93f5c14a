//! How to adopt the crate: find the row that describes your client.
//!
//! | your client has | page |
//! |---|---|
//! | a plain `reqwest::Client`, in one function | [`one_function`] |
//! | a plain `reqwest::Client`, with `.send()` in many places | [`many_sends`] |
//! | a new client for each call or provider | [`client_per_call`] |
//! | a plain client that becomes a `ClientWithMiddleware` | [`error_type`] |
//! | reqwest-retry, reqwest-tracing, server-sent events | [`chain`] |
//! | an ambient session of its own | [`own_session`] |
//! | a URL, and headers as pairs of strings | [`string_headers`] |
//! | blocking code, or `spawn_blocking` | [`blocking`] |
//! | an HTTP trait of its own, hyper or tower | [`http_trait`] |
//! | rig | [`rig`] |
//! | async-openai | [`async_openai`] |
//! | genai | [`genai`] |
//!
//! | your client | page |
//! |---|---|
//! | stores conversations and resumes them | [`resume`] |
//! | compacts conversations that grow long | [`compaction`] |
//! | continues turns in other processes | [`job_queue`] |
//! | forwards other clients' requests | [`proxy`] |
//! | talks to several gateways | [`several_gateways`] |
//! | must never send a call without its session | [`strict`] |
//! | already sends a pinned header | [`pinned_header`] |
//! | proves any of this in its tests | [`testing`] |
//!
//! The code on these pages is from whole clients that run in this crate's own tests, with two
//! conversations at a time.

// The code of some pages needs other crates, or features. All of it is tested in `compat`.

#[cfg(not(doctest))]
#[doc = include_str!("async_openai.md")]
pub mod async_openai {}

#[cfg(any(not(doctest), feature = "blocking"))]
#[doc = include_str!("blocking.md")]
pub mod blocking {}

#[cfg(not(doctest))]
#[doc = include_str!("chain.md")]
pub mod chain {}

#[doc = include_str!("client_per_call.md")]
pub mod client_per_call {}

#[doc = include_str!("compaction.md")]
pub mod compaction {}

#[doc = include_str!("error_type.md")]
pub mod error_type {}

#[cfg(not(doctest))]
#[doc = include_str!("genai.md")]
pub mod genai {}

#[doc = include_str!("http_trait.md")]
pub mod http_trait {}

#[cfg(any(not(doctest), feature = "serde"))]
#[doc = include_str!("job_queue.md")]
pub mod job_queue {}

#[doc = include_str!("many_sends.md")]
pub mod many_sends {}

#[doc = include_str!("one_function.md")]
pub mod one_function {}

#[doc = include_str!("own_session.md")]
pub mod own_session {}

#[doc = include_str!("pinned_header.md")]
pub mod pinned_header {}

#[doc = include_str!("proxy.md")]
pub mod proxy {}

#[doc = include_str!("reqwest_012.md")]
pub mod reqwest_012 {}

#[cfg(any(not(doctest), feature = "serde"))]
#[doc = include_str!("resume.md")]
pub mod resume {}

#[cfg(not(doctest))]
#[doc = include_str!("rig.md")]
pub mod rig {}

#[doc = include_str!("several_gateways.md")]
pub mod several_gateways {}

#[doc = include_str!("strict.md")]
pub mod strict {}

#[doc = include_str!("string_headers.md")]
pub mod string_headers {}

#[doc = include_str!("testing.md")]
pub mod testing {}
