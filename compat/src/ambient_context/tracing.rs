use reqwest_opencode_session::{BuildError, Fallback, OpencodeSessionMiddleware, Session};
use tracing::Span;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan;

pub fn middleware() -> Result<OpencodeSessionMiddleware, BuildError> {
    OpencodeSessionMiddleware::builder()
        .session_from(current)
        .fallback(Fallback::Reject)
        .build()
}

/// Puts a session into a span.
pub fn put(span: &Span, session: Session) {
    span.with_subscriber(|(id, subscriber)| {
        let registry = subscriber.downcast_ref::<Registry>();
        if let Some(span) = registry.and_then(|registry| registry.span(id)) {
            span.extensions_mut().replace(session);
        }
    });
}

/// The session of the innermost span that has one.
fn current() -> Option<Session> {
    let found = Span::current().with_subscriber(|(id, subscriber)| {
        let span = subscriber.downcast_ref::<Registry>()?.span(id)?;
        let mut spans = span.scope();
        spans.find_map(|span| span.extensions().get::<Session>().cloned())
    });
    found.flatten()
}
