//! The rule: which session a request to a target carries, and in which headers.
//!
//! It needs a URL, a `HeaderMap` and `Extensions`, and no HTTP client. Every entry point calls it.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use crate::error::impl_debug;
use crate::header::{self, CLIENT, Existing, Named, PROJECT, Survey};
use crate::origin::{self, RequestUrl};
use crate::request::sealed::HttpRequest;
use crate::scope;
use crate::session::{Ids, Session, SessionId};
use crate::target::{Dialect, Targets};
use crate::trace::Trace;

/// The settings of one middleware.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub targets: Targets,
    pub client_name: Option<HeaderValue>,
    pub project: Option<HeaderValue>,
    pub user_agent: Option<HeaderValue>,
    pub session_from: Option<SessionFrom>,
    pub fallback: Fallback,
    pub existing_header: ExistingHeader,
}

/// The application's own source of the current session.
#[derive(Clone)]
pub(crate) struct SessionFrom(Arc<dyn Fn() -> Option<Session> + Send + Sync>);

/// What happens to a request that has no session, and is given none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fallback {
    /// The request is sent in [`Session::process`]: one session for the whole process, no matter
    /// how many clients it builds. This suits a program that holds one conversation, such as a
    /// command-line agent.
    #[default]
    Process,
    /// The request is sent in the given session.
    Session(Session),
    /// The request is sent without a session, and OpenCode Go refuses it. A session that is pinned
    /// in a client's default headers is then sent, because reqwest adds those later.
    Omit,
    /// The request fails with [`MissingSession`] before it is sent. This suits a program that holds
    /// several conversations.
    ///
    /// Only the origin is checked, so listing models needs a session here: send that call in
    /// [`Session::process`], or with a client of its own.
    ///
    /// A request that has its session in another header, such as `session_id`, is not refused. In a
    /// server that copies headers, that is the client's own claim: a tenant can choose another
    /// tenant's session, and a login in `session_id` would be sent as a session. To take no tenant's
    /// word, run the call inside [`Session::from_headers`]`(..)` with
    /// [`derived(tenant)`](Session::derived), or remove the header.
    Reject,
}

/// What happens to valid headers that the caller set on a request: session, client and project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExistingHeader {
    /// The caller's headers stay.
    #[default]
    Keep,
    /// The middleware's own headers replace them. A session that the caller set counts as absent,
    /// so [`Fallback::Omit`] removes it, and none is taken from another header; a client or a
    /// project stays if the middleware has none of its own.
    Replace,
}

/// What was done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Applied {
    /// Nothing: its URL is not a target's.
    NoTarget,
    /// It carries a session.
    Session(Source),
    /// It carries no session, because of [`Fallback::Omit`].
    NoSession,
}

/// Where a request's session came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// A valid header that was already on the request.
    Header,
    /// The request's extensions.
    Extensions,
    /// The session that the middleware is bound to.
    Bound,
    /// The ambient session.
    Scope,
    /// The application's own `task_local_extensions`.
    TaskLocal,
    /// The source that was given to `session_from`.
    SessionFrom,
    /// Another header of the request that the gateways take a session from, such as `session_id`.
    OtherHeader,
    /// The [`Fallback`].
    Fallback,
}

/// A request to a target has no session, and the fallback is [`Fallback::Reject`].
#[derive(Clone, PartialEq, Eq, Hash, Error)]
#[error(
    "no session for the request to {url}: run the call inside `.with_session(session)`, put a \
     `Session` into the request's extensions, or use a middleware that is `bound_to(session)`"
)]
pub struct MissingSession {
    url: String,
}

impl_debug!(MissingSession);

impl MissingSession {
    fn new<U: RequestUrl + ?Sized>(url: &U) -> Self {
        Self {
            url: origin::origin(url) + url.path(),
        }
    }

    /// Returns the URL of the request, without user info, query and fragment.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// A session that was found for a request. The id in its extensions is not made into a `Session`,
/// because that would allocate.
enum Found<'a> {
    Session(Cow<'a, Session>),
    Id(&'a SessionId),
    Process,
}

impl Found<'_> {
    fn ids(&self) -> Ids<'_> {
        match self {
            Self::Session(session) => session.ids(),
            Self::Id(id) => Ids::from(*id),
            Self::Process => Ids::process(),
        }
    }
}

/// In a request's extensions: what each `session_from` source returned, so that a retry keeps it.
///
/// A request may pass through two middlewares, and a failover between them must not give one's
/// session to the other's gateway.
#[derive(Clone, Default)]
struct Remembered(Vec<(SessionFrom, Session)>);

impl Remembered {
    fn of(&self, source: &SessionFrom) -> Option<&Session> {
        let mut answers = self.0.iter();
        let answer = answers.find(|(asked, _)| asked.is(source));
        answer.map(|(_, session)| session)
    }
}

/// Nothing gave a session, and the fallback is [`Fallback::Reject`].
struct Unresolved;

impl Settings {
    /// The settings of [`OpencodeSessionMiddleware::new`](crate::OpencodeSessionMiddleware::new).
    pub const fn new() -> Self {
        Self {
            targets: Targets::opencode(),
            client_name: None,
            project: None,
            user_agent: None,
            session_from: None,
            fallback: Fallback::Process,
            existing_header: ExistingHeader::Keep,
        }
    }
}

/// The rule for one middleware: its settings, and the session that it is bound to.
#[derive(Clone, Copy)]
pub(crate) struct Rule<'a> {
    pub settings: &'a Settings,
    pub bound: &'a Option<Session>,
    pub trace: &'a Trace,
}

impl<'a> Rule<'a> {
    /// Applies the rule to a request.
    pub fn apply<R: HttpRequest>(self, request: &mut R) -> Result<Applied, MissingSession> {
        let Some(dialect) = self.settings.targets.find(request.url()) else {
            return Ok(Applied::NoTarget);
        };
        let outcome = request.edit(|headers, extensions| self.edit(dialect, headers, extensions));
        self.tell(request.url(), &outcome);
        outcome.map_err(|Unresolved| MissingSession::new(request.url()))
    }

    fn edit(
        self,
        dialect: Dialect<'_>,
        headers: &mut HeaderMap,
        extensions: Option<&mut Extensions>,
    ) -> Result<Applied, Unresolved> {
        let applied = self.set_session(dialect, headers, extensions)?;
        if dialect == Dialect::OpenCode {
            self.set_names(headers);
        }
        Ok(applied)
    }

    fn set_session(
        self,
        dialect: Dialect<'_>,
        headers: &mut HeaderMap,
        extensions: Option<&mut Extensions>,
    ) -> Result<Applied, Unresolved> {
        let header = dialect.session_header();
        let mut survey = Survey::of(headers, header);
        if survey.has_session && self.keeps() {
            match Existing::of(headers, header) {
                Existing::Token(_) => return Ok(Applied::Session(Source::Header)),
                Existing::Repeated(session) => {
                    let session = session.clone();
                    headers.insert(header, session);
                    return Ok(Applied::Session(Source::Header));
                }
                Existing::Nothing | Existing::Malformed => {}
            }
        }
        let found = match self.given(extensions.as_deref()) {
            Some(found) => Some(found),
            None => self.answered(extensions),
        };
        let found = found.or_else(|| self.named(dialect, headers, &mut survey));
        let Some((found, source)) = found.or_else(|| self.fallback()) else {
            if self.settings.fallback == Fallback::Reject {
                return Err(Unresolved);
            }
            if survey.has_session {
                headers.remove(header);
                forget_turn_and_parent(headers);
            }
            return Ok(Applied::NoSession);
        };
        if survey.has_turn_or_parent {
            forget_turn_and_parent(headers);
        }
        let ids = found.ids();
        match dialect {
            Dialect::OpenCode => ids.write(headers),
            Dialect::Other(header) => {
                headers.insert(header, ids.session.clone().into());
            }
        }
        Ok(Applied::Session(source))
    }

    /// Sets who sends the request: the client's name, the project and the user agent.
    fn set_names(self, headers: &mut HeaderMap) {
        let Settings {
            client_name,
            project,
            user_agent,
            ..
        } = self.settings;
        if let Some(client_name) = client_name {
            self.set_name(headers, CLIENT, client_name);
        }
        if let Some(project) = project {
            self.set_name(headers, PROJECT, project);
        }
        if let Some(user_agent) = user_agent {
            headers
                .entry(USER_AGENT)
                .or_insert_with(|| user_agent.clone());
        }
    }

    fn set_name(self, headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
        let value = match Existing::of(headers, &name) {
            Existing::Token(_) if self.keeps() => return,
            Existing::Repeated(own) if self.keeps() => own.clone(),
            _ => value.clone(),
        };
        headers.insert(name, value);
    }

    /// Returns whether the caller's own valid headers stay.
    fn keeps(self) -> bool {
        self.settings.existing_header == ExistingHeader::Keep
    }

    /// Returns the session that the application has said the request is in.
    fn given<'b>(self, extensions: Option<&'b Extensions>) -> Option<(Found<'b>, Source)>
    where
        'a: 'b,
    {
        if let Some(session) = extensions.and_then(Extensions::get::<Session>) {
            return Some((Found::Session(Cow::Borrowed(session)), Source::Extensions));
        }
        if let Some(id) = extensions.and_then(Extensions::get::<SessionId>) {
            return Some((Found::Id(id), Source::Extensions));
        }
        let scoped = scope::scoped();
        if let Some(bound) = self.bound {
            // An ambient turn of the same conversation is the turn that the request belongs to.
            // Without a turn, the ambient session says no more than the bound one.
            let session = match scoped {
                Some(turn) if turn.turn_id().is_some() && turn.id() == bound.id() => {
                    Cow::Owned(turn)
                }
                _ => Cow::Borrowed(bound),
            };
            return Some((Found::Session(session), Source::Bound));
        }
        if let Some(session) = scoped {
            return Some((Found::Session(Cow::Owned(session)), Source::Scope));
        }
        if let Some(session) = scope::local::<Session>() {
            return Some((Found::Session(Cow::Owned(session)), Source::TaskLocal));
        }
        if let Some(id) = scope::local::<SessionId>() {
            return Some((Found::Session(Cow::Owned(id.into())), Source::TaskLocal));
        }
        None
    }

    /// Returns what `session_from` answers, or what it answered to an earlier attempt.
    fn answered(self, extensions: Option<&mut Extensions>) -> Option<(Found<'a>, Source)> {
        let source = self.settings.session_from.as_ref()?;
        let session = match extensions {
            None => source.ask()?,
            Some(extensions) => {
                let remembered = extensions.get::<Remembered>();
                match remembered.and_then(|answers| answers.of(source)) {
                    Some(session) => session.clone(),
                    None => {
                        let session = source.ask()?;
                        let Remembered(answers) = extensions.get_or_insert_default();
                        answers.push((source.clone(), session.clone()));
                        session
                    }
                }
            }
        };
        Some((Found::Session(Cow::Owned(session)), Source::SessionFrom))
    }

    /// Returns the session that the request names in another header than OpenCode's own. The turn
    /// and the parent beside it may be its own.
    fn named(
        self,
        dialect: Dialect<'_>,
        headers: &HeaderMap,
        survey: &mut Survey,
    ) -> Option<(Found<'a>, Source)> {
        if !survey.has_other_name || dialect != Dialect::OpenCode || !self.keeps() {
            return None;
        }
        let named = Named::find(headers, header::SESSION_NAMES)?;
        let id = SessionId::try_from(named.id).ok()?;
        survey.has_turn_or_parent &= !named.has_turn_and_parent;
        let session = Cow::Owned(id.into());
        Some((Found::Session(session), Source::OtherHeader))
    }

    fn fallback(self) -> Option<(Found<'a>, Source)> {
        let found = match &self.settings.fallback {
            Fallback::Process => Found::Process,
            Fallback::Session(session) => Found::Session(Cow::Borrowed(session)),
            Fallback::Omit | Fallback::Reject => return None,
        };
        Some((found, Source::Fallback))
    }

    fn tell<U: RequestUrl + ?Sized>(self, url: &U, outcome: &Result<Applied, Unresolved>) {
        let source = match outcome {
            Ok(Applied::Session(source)) => source.as_str(),
            _ => "nothing",
        };
        self.trace.request(url, source);
        match outcome {
            Ok(Applied::Session(Source::Fallback)) => self.trace.fallback(),
            Ok(Applied::NoSession) => self.trace.omitted(),
            _ => {}
        }
    }
}

/// Removes the turn and parent of another session than the one that is sent.
fn forget_turn_and_parent(headers: &mut HeaderMap) {
    for name in header::TURN_AND_PARENT {
        headers.remove(name);
    }
}

impl SessionFrom {
    pub fn new(source: impl Fn() -> Option<Session> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// Returns whether both are the same source, like those of a middleware and its clones.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Asks the source, unless one is being asked on this thread: a source that sends a request of
    /// its own would ask itself forever.
    fn ask(&self) -> Option<Session> {
        thread_local!(static ASKING: Cell<bool> = const { Cell::new(false) });

        struct Asking;

        impl Drop for Asking {
            fn drop(&mut self) {
                ASKING.set(false);
            }
        }

        if ASKING.replace(true) {
            return None;
        }
        let _asking = Asking;
        (self.0)()
    }
}

impl fmt::Debug for SessionFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fn() -> Option<Session>")
    }
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Extensions => "extensions",
            Self::Bound => "bound",
            Self::Scope => "scope",
            Self::TaskLocal => "task-local",
            Self::SessionFrom => "session-from",
            Self::OtherHeader => "other-header",
            Self::Fallback => "fallback",
        }
    }
}
