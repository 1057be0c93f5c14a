// The README's own test needs the gateway.
#![cfg_attr(any(feature = "testing", not(doctest)), doc = include_str!("../README.md"))]
//!
//! # Further reading
//!
//! - [Where the session comes from](docs::sessions)
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(any(doc, all(doctest, feature = "testing")))]
pub mod docs;
mod error;
pub mod header;
mod middleware;
#[cfg(not(target_arch = "wasm32"))]
mod redirect;
mod scope;
mod session;
mod target;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;

pub use error::{BuildError, InvalidSessionId, InvalidTarget, MissingSession, RedirectRefused};
pub use middleware::{
    ExistingHeader, Fallback, OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder,
};
pub use scope::{InSession, WithSession};
pub use session::{Session, SessionId};
pub use target::{RequestUrl, Target};
