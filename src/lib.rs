// The README's doc tests need the gateway.
#![cfg_attr(any(feature = "testing", not(doctest)), doc = include_str!("../README.md"))]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod adapters;
#[cfg(any(doc, all(doctest, feature = "testing")))]
pub mod docs;
pub mod header;
mod middleware;
mod redirect;
mod rule;
mod scope;
mod session;
mod target;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;

#[cfg(all(
    any(feature = "reqwest-012", feature = "reqwest-013"),
    not(target_arch = "wasm32")
))]
pub use adapters::reqwest::RedirectPolicy;
#[cfg(any(feature = "reqwest-012", feature = "reqwest-013"))]
pub use adapters::reqwest::{RequestBuilderError, RequestBuilderExt, ReqwestClientBuilder};
#[cfg(feature = "tower")]
pub use adapters::tower::{OpencodeSessionLayer, OpencodeSessionService, ResponseFuture};
pub use header::InvalidValue;
pub use middleware::{BuildError, OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder};
pub use redirect::RedirectRefused;
pub use rule::{Applied, ExistingHeader, Fallback, HttpRequest, MissingSession, Source};
pub use scope::{InSession, WithSession};
pub use session::{IntoSession, Session, SessionId, TurnId};
pub use target::{InvalidTarget, RequestUrl, Target};
