//! The events of the feature `tracing`. Without it, nothing here costs anything.

#[cfg(feature = "tracing")]
use std::sync::atomic::{AtomicBool, Ordering};

use crate::origin::RequestUrl;

/// Reports where sessions come from, for a middleware and all its clones.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    #[cfg(feature = "tracing")]
    told: AtomicBool,
}

#[cfg(feature = "tracing")]
impl Trace {
    pub const fn new() -> Self {
        Self {
            told: AtomicBool::new(false),
        }
    }

    /// Emits an event for a request to a target.
    pub fn request<U: RequestUrl + ?Sized>(&self, url: &U, session_from: &'static str) {
        tracing::debug!(host = url.host(), session_from, "a request to a target");
    }

    /// Only a notice, because the fallback suits a program with one conversation.
    pub fn fallback(&self) {
        if self.is_first() {
            tracing::info!(
                "a request had no session, so the fallback was used (shown once): in a program \
                 with several conversations, run each call inside `.with_session(session)`"
            );
        }
    }

    pub fn omitted(&self) {
        if self.is_first() {
            tracing::warn!(
                "a request went out without a session (shown once): run the call inside \
                 `.with_session(session)`, or put a `Session` into the request's extensions"
            );
        }
    }

    fn is_first(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }
}

#[cfg(not(feature = "tracing"))]
impl Trace {
    pub const fn new() -> Self {
        Self {}
    }

    pub fn request<U: RequestUrl + ?Sized>(&self, _: &U, _: &'static str) {}

    pub fn fallback(&self) {}

    pub fn omitted(&self) {}
}
