// The README's doc tests need the gateway.
#![cfg_attr(any(feature = "testing", not(doctest)), doc = include_str!("../README.md"))]
#![cfg_attr(docsrs, feature(doc_cfg))]
// A reader turns on neither of them.
#![cfg_attr(
    docsrs,
    doc(auto_cfg(hide(feature = "_reqwest", target_arch = "wasm32")))
)]
#![forbid(unsafe_code)]

// Its pages are for every reader, even if their code needs features.
#[cfg(any(doc, all(doctest, feature = "testing")))]
#[cfg_attr(docsrs, doc(auto_cfg = false))]
pub mod docs;
mod error;
pub mod header;
mod middleware;
mod origin;
mod redirect;
mod request;
mod rule;
mod scope;
mod session;
mod target;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
// Last, so that `new` and `builder` come first on the pages of the documentation.
mod adapters;

#[cfg(all(feature = "_reqwest", not(target_arch = "wasm32")))]
pub use adapters::reqwest::RedirectPolicy;
#[cfg(feature = "_reqwest")]
pub use adapters::reqwest::{RequestBuilderError, RequestBuilderExt, ReqwestClientBuilder};
#[cfg(feature = "tower")]
pub use adapters::tower::{OpencodeSessionLayer, OpencodeSessionService, ResponseFuture};
// Beside the other errors, and not alone under "Re-exports".
#[doc(inline)]
pub use header::InvalidValue;
pub use middleware::{BuildError, OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder};
pub use origin::RequestUrl;
pub use redirect::RedirectRefused;
pub use request::HttpRequest;
pub use rule::{Applied, ExistingHeader, Fallback, MissingSession, Source};
pub use scope::{InSession, WithSession};
pub use session::{IntoSession, Session, SessionId, TurnId};
pub use target::{InvalidTarget, Target};
