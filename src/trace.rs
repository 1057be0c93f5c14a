//! What the feature `tracing` tells. Without it nothing here costs anything.

#[cfg(feature = "tracing")]
use std::sync::Arc;
#[cfg(feature = "tracing")]
use std::sync::atomic::{AtomicBool, Ordering};

use crate::target::RequestUrl;

/// Where a request's session came from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Header,
    Extensions,
    Scope,
    TaskLocal,
    Fallback,
    /// Nothing gave one, and the fallback does not either.
    Nothing,
}

/// Tells where sessions come from, on behalf of a plugin and all its clones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace {
    #[cfg(feature = "tracing")]
    warned: Arc<AtomicBool>,
}

impl Trace {
    #[cfg(not(feature = "tracing"))]
    pub fn request<U: RequestUrl + ?Sized>(&self, _: &U, _: Source) {}

    /// One event for a request to a target, and a warning with the first one that nothing gave a
    /// session.
    #[cfg(feature = "tracing")]
    pub fn request<U: RequestUrl + ?Sized>(&self, url: &U, source: Source) {
        tracing::debug!(
            host = url.origin().as_ref().map(|origin| origin.host()),
            session_from = source.as_str(),
            "a request to OpenCode"
        );
        if matches!(source, Source::Fallback | Source::Nothing)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "nothing gave a request its session, so the fallback decides, now and from now on: \
                 put a `Session` into the request's extensions, or run the call inside \
                 `.with_session(session)`"
            );
        }
    }
}

#[cfg(feature = "tracing")]
impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Extensions => "extensions",
            Self::Scope => "scope",
            Self::TaskLocal => "task-local",
            Self::Fallback => "fallback",
            Self::Nothing => "nothing",
        }
    }
}
