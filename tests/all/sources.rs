//! Every source of a request's session, for the tests of precedence and of the entry points.

use http::{Extensions, HeaderMap};
use reqwest_opencode_session::{
    Fallback, OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder, Session, SessionId,
    Source, WithSession, header,
};
use task_local_extensions::with_extensions;

/// A source of a session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Given {
    Header,
    SessionInExtensions,
    IdInExtensions,
    Bound,
    Scope,
    SessionInTaskLocals,
    IdInTaskLocals,
    SessionFrom,
    OtherHeader,
    Fallback,
}

use Given::*;

impl Given {
    /// All of them, in the order of precedence.
    pub const ALL: [Self; 10] = [
        Header,
        SessionInExtensions,
        IdInExtensions,
        Bound,
        Scope,
        SessionInTaskLocals,
        IdInTaskLocals,
        SessionFrom,
        OtherHeader,
        Fallback,
    ];

    /// The session from this source, different from that of every other. A header and an id have no
    /// turn and no parent.
    pub fn session(self) -> Session {
        let id = |kind: &str| -> SessionId { format!("{kind}-{self:?}").parse().unwrap() };
        let session = Session::from(id("session"));
        match self {
            Header | IdInExtensions | IdInTaskLocals => session,
            _ => session
                .with_parent(id("parent"))
                .with_turn(format!("turn-{self:?}").parse().unwrap()),
        }
    }

    /// The name of this source in the crate.
    pub fn source(self) -> Source {
        match self {
            Header => Source::Header,
            SessionInExtensions | IdInExtensions => Source::Extensions,
            Bound => Source::Bound,
            Scope => Source::Scope,
            SessionInTaskLocals | IdInTaskLocals => Source::TaskLocal,
            SessionFrom => Source::SessionFrom,
            OtherHeader => Source::OtherHeader,
            Given::Fallback => Source::Fallback,
        }
    }
}

/// The sources that one request has.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a>(pub &'a [Given]);

impl Sources<'_> {
    fn get(self, given: Given) -> Option<Session> {
        self.0.contains(&given).then(|| given.session())
    }

    /// The middleware with those of the sources that it is built with. Without a fallback, it
    /// rejects.
    pub fn middleware(
        self,
        builder: OpencodeSessionMiddlewareBuilder,
    ) -> OpencodeSessionMiddleware {
        let builder = match self.get(SessionFrom) {
            Some(session) => builder.session_from(move || Some(session.clone())),
            None => builder,
        };
        let fallback = self.get(Given::Fallback);
        builder
            .fallback(fallback.map_or(Fallback::Reject, Fallback::Session))
            .build()
            .unwrap()
            .bound_to(self.get(Bound))
    }

    /// The session headers that the caller itself sets.
    pub fn headers(self) -> HeaderMap {
        let (own, other) = (self.get(Header), self.get(OtherHeader));
        // The turn and the parent are those of the header that stays.
        let whole = own.as_ref().or(other.as_ref());
        let mut headers = whole.map_or_else(HeaderMap::new, Session::headers);
        if own.is_none() {
            headers.remove(header::SESSION);
        }
        other.map(|session| headers.insert("session_id", session.id().clone().into()));
        headers
    }

    /// What the caller puts into the request's extensions.
    pub fn extensions(self) -> Extensions {
        let mut extensions = Extensions::new();
        self.get(SessionInExtensions)
            .map(|session| extensions.insert(session));
        self.get(IdInExtensions)
            .map(|session| extensions.insert(session.id().clone()));
        extensions
    }

    /// Runs a future inside those of the sources that are around a call.
    pub async fn around<F: Future>(self, future: F) -> F::Output {
        let mut items = task_local_extensions::Extensions::new();
        self.get(SessionInTaskLocals)
            .map(|session| items.insert(session));
        self.get(IdInTaskLocals)
            .map(|session| items.insert(session.id().clone()));
        let (_, output) = with_extensions(items, future.with_session(self.get(Scope))).await;
        output
    }
}
