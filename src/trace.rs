//! What the feature `tracing` tells. Without it nothing here costs anything.

#[cfg(feature = "tracing")]
use std::sync::atomic::{AtomicBool, Ordering};

use crate::target::RequestUrl;

/// Tells where sessions come from, on behalf of a middleware and all its clones.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    #[cfg(feature = "tracing")]
    warned: AtomicBool,
}

impl Trace {
    pub const fn new() -> Self {
        Self {
            #[cfg(feature = "tracing")]
            warned: AtomicBool::new(false),
        }
    }

    #[cfg(not(feature = "tracing"))]
    pub fn request<U: RequestUrl + ?Sized>(&self, _: &U, _: &'static str, _: bool) {}

    /// One event for a request to a target, and a warning with the first one that was `without` a
    /// session until the fallback.
    #[cfg(feature = "tracing")]
    pub fn request<U: RequestUrl + ?Sized>(
        &self,
        url: &U,
        session_from: &'static str,
        without: bool,
    ) {
        tracing::debug!(host = url.host(), session_from, "a request to a target");
        if without && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a request had no session, so the fallback was used (shown once): put a `Session` \
                 into the request's extensions, or run the call inside `.with_session(session)`"
            );
        }
    }
}
