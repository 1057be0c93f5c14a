//! How to adopt the crate: find the row that describes your client.
//!
//! | your client has | page |
//! |---|---|
//! | a plain `reqwest::Client`, in one function | [`one_function`] |
//! | a plain `reqwest::Client`, with `.send()` in many places | [`many_sends`] |
//! | a new client for each call or provider | [`client_per_call`] |
//! | a plain client that becomes a `ClientWithMiddleware` | [`error_type`] |
//! | reqwest 0.12 | [`reqwest_012`] |
//! | a fork of reqwest | [`reqwest_fork`] |
//! | reqwest-retry, reqwest-tracing, server-sent events | [`chain`] |
//! | an ambient session of its own | [`own_session`] |
//! | a context of opentelemetry, or spans of tracing | [`ambient_context`] |
//! | a URL, and headers as pairs of strings | [`string_headers`] |
//! | blocking code, or `spawn_blocking` | [`blocking`] |
//! | an HTTP trait of its own, hyper or tower | [`http_trait`] |
//! | tower-http's `FollowRedirect` | [`follow_redirect`] |
//! | rig | [`rig`] |
//! | async-openai | [`async_openai`] |
//! | genai | [`genai`] |
//! | an SDK that sends ids of its own | [`sdk_with_ids`] |
//!
//! | your client | page |
//! |---|---|
//! | is an actor whose conversation changes | [`engine`] |
//! | stores conversations and resumes them | [`resume`] |
//! | compacts conversations that grow long | [`compaction`] |
//! | continues turns in other processes | [`job_queue`] |
//! | forwards other clients' requests | [`proxy`] |
//! | forwards those of clients that send no session | [`proxy_without_sessions`] |
//! | talks to several gateways | [`several_gateways`] |
//! | has to put the session into the body | [`session_in_body`] |
//! | must never send a call without its session | [`strict`] |
//! | must not grow a new place that forgets | [`compile_time`] |
//! | already sends a pinned header | [`pinned_header`] |
//! | proves any of this in its tests | [`testing`] |
//!
//! The code on these pages is whole files, which this crate's own tests run with two conversations
//! at a time. `// new` marks a line that adopts the crate, and `// new: …` marks all lines below it,
//! down to the next blank one. The files are modules of a program with these dependencies:
//!
//! ```toml
//! [dependencies]
//! anyhow = "1"
//! futures = "0.3"
//! http = "1"
//! reqwest = { version = "0.13", features = ["blocking", "json", "stream"] }
//! reqwest-middleware = { version = "0.5", features = ["json"] }
//! reqwest-opencode-session = { version = "0.1", features = ["blocking", "serde"] }
//! reqwest-retry = "0.9"
//! serde = { version = "1", features = ["derive"] }
//! serde_json = "1"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "sync"] }
//! ```
//!
//! A page whose code needs another crate names it.

// The code of some pages needs other crates, or features. All of it is tested in `compat`.

#[cfg(not(doctest))]
#[doc = include_str!("ambient_context.md")]
pub mod ambient_context {}

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

#[doc = include_str!("compile_time.md")]
pub mod compile_time {}

#[doc = include_str!("engine.md")]
pub mod engine {}

#[doc = include_str!("error_type.md")]
pub mod error_type {}

#[cfg(any(not(doctest), feature = "tower"))]
#[doc = include_str!("follow_redirect.md")]
pub mod follow_redirect {}

#[cfg(not(doctest))]
#[doc = include_str!("genai.md")]
pub mod genai {}

#[cfg(any(not(doctest), feature = "tower"))]
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

#[doc = include_str!("proxy_without_sessions.md")]
pub mod proxy_without_sessions {}

#[doc = include_str!("reqwest_012.md")]
pub mod reqwest_012 {}

#[cfg(not(doctest))]
#[doc = include_str!("reqwest_fork.md")]
pub mod reqwest_fork {}

#[cfg(any(not(doctest), feature = "serde"))]
#[doc = include_str!("resume.md")]
pub mod resume {}

#[cfg(not(doctest))]
#[doc = include_str!("rig.md")]
pub mod rig {}

#[doc = include_str!("sdk_with_ids.md")]
pub mod sdk_with_ids {}

#[cfg(any(not(doctest), feature = "serde"))]
#[doc = include_str!("session_in_body.md")]
pub mod session_in_body {}

#[doc = include_str!("several_gateways.md")]
pub mod several_gateways {}

#[doc = include_str!("strict.md")]
pub mod strict {}

#[doc = include_str!("string_headers.md")]
pub mod string_headers {}

#[doc = include_str!("testing.md")]
pub mod testing {}
