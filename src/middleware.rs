//! The plugin: composes "which requests" and "which session" into one rule, for any HTTP stack.

use std::future::ready;
use std::pin::Pin;

use http::header::USER_AGENT;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

use crate::error::{BuildError, MissingSession};
use crate::header::{self, CLIENT, PROJECT, SESSION, Violation};
use crate::scope;
use crate::session::{Session, SessionId};
use crate::target::{RequestUrl, Target};
use crate::trace::{Source, Trace};

/// Gives every request to OpenCode its conversation's session, and leaves every other request
/// alone.
///
/// ```
/// use reqwest_middleware::ClientBuilder;
/// use reqwest_opencode_session::OpencodeSessionMiddleware;
///
/// let client = ClientBuilder::new(reqwest::Client::new())
///     .with(OpencodeSessionMiddleware::new())
///     .build();
/// ```
///
/// # Which requests
///
/// Those whose URL a [`Target`] matches: `https://opencode.ai` and its subdomains, unless
/// [`targets`](OpencodeSessionMiddlewareBuilder::targets) says otherwise.
///
/// # Which session
///
/// The first that there is:
///
/// 1. a valid `x-opencode-session` header that is already on the request;
/// 2. a [`Session`], or else a [`SessionId`], in the request's [`Extensions`];
/// 3. the ambient session: the innermost [`WithSession`](crate::WithSession) scope, or else a
///    [`Session`] or [`SessionId`] that the application put into its own `task_local_extensions`;
/// 4. the [`Fallback`].
///
/// A header that is empty, malformed or there twice counts as absent, and is replaced.
///
/// # What else is sent
///
/// With the session go its turn and its parent, where it has them. They are left out when the
/// caller's own header is kept, because they would belong to another session. The client's name and
/// the project are set where the caller has not set them, and so is the user agent.
///
/// # Default headers
///
/// reqwest adds a client's `default_headers`, and its `user_agent`, after every middleware, and
/// only where a name is vacant. So the plugin does not see them, and whatever it sets wins over
/// them.
///
/// # Redirects
///
/// reqwest follows redirects below every middleware, and carries these headers along to whatever
/// host it is sent to. [`into_client`](Self::into_client) and
/// [`redirect_policy`](Self::redirect_policy) keep the session on its targets.
///
/// # Tracing
///
/// With the feature `tracing`, each request to a target is an event at debug level: the host, and
/// where the session came from. The first request that falls back is a warning, once for a plugin
/// and its clones. Neither a key nor a session's id is ever in an event.
#[derive(Debug, Clone)]
pub struct OpencodeSessionMiddleware {
    targets: Vec<Target>,
    client_name: Option<HeaderValue>,
    project: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    fallback: Fallback,
    existing_header: ExistingHeader,
    trace: Trace,
}

/// Which session a request gets that nothing gave one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// This one. The default, with a session that [`OpencodeSessionMiddleware::builder`] makes:
    /// right for a client that holds one conversation, such as a command-line agent.
    Session(Session),
    /// A new one for each request, the same for all its attempts. No request is refused, and no
    /// prompt cache is ever warm.
    PerRequest,
    /// None: the request goes out without a session, and OpenCode Go refuses it.
    Omit,
    /// None: the request fails with [`MissingSession`] before it goes out.
    Reject,
}

/// What becomes of the valid headers that the caller itself set on a request: session, client and
/// project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExistingHeader {
    /// They stay.
    #[default]
    Keep,
    /// They count as absent, as if the caller had not set them.
    Replace,
}

impl OpencodeSessionMiddleware {
    /// A plugin for `https://opencode.ai` and its subdomains, with a session of its own as the
    /// fallback.
    #[expect(
        clippy::new_without_default,
        reason = "a default that is never the same twice would hide a new id"
    )]
    pub fn new() -> Self {
        Self::builder().middleware
    }

    /// Starts from the settings of [`new`](Self::new).
    ///
    /// ```
    /// use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware};
    ///
    /// let middleware = OpencodeSessionMiddleware::builder()
    ///     .client_name("my-agent")
    ///     .user_agent(concat!("my-agent/", env!("CARGO_PKG_VERSION")))
    ///     .fallback(Fallback::Reject)
    ///     .build()?;
    /// # Ok::<(), reqwest_opencode_session::BuildError>(())
    /// ```
    pub fn builder() -> OpencodeSessionMiddlewareBuilder {
        OpencodeSessionMiddlewareBuilder {
            middleware: Self {
                targets: Target::opencode(),
                client_name: None,
                project: None,
                user_agent: None,
                fallback: Fallback::Session(Session::new()),
                existing_header: ExistingHeader::default(),
                trace: Trace::default(),
            },
            error: None,
        }
    }

    /// The session of requests that nothing gave one, where the fallback is [`Fallback::Session`].
    pub fn session(&self) -> Option<&Session> {
        match &self.fallback {
            Fallback::Session(session) => Some(session),
            _ => None,
        }
    }

    /// Applies the whole rule to the headers of a request: what the plugin does in a client, for
    /// any HTTP stack.
    ///
    /// Use the same `extensions` for each attempt of one request: [`Fallback::PerRequest`]
    /// remembers its id there. Nothing else is stored.
    ///
    /// # Errors
    ///
    /// [`MissingSession`] where nothing gives a session and the fallback is [`Fallback::Reject`].
    /// The headers are then as they were.
    ///
    /// ```
    /// use http::{Extensions, HeaderMap, Uri};
    /// use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, header};
    ///
    /// let middleware = OpencodeSessionMiddleware::new();
    /// let session = Session::new();
    ///
    /// let url: Uri = "https://opencode.ai/zen/go/v1/messages".parse()?;
    /// let (mut headers, mut extensions) = (HeaderMap::new(), Extensions::new());
    /// extensions.insert(session.clone());
    /// middleware.apply(&url, &mut headers, &mut extensions)?;
    ///
    /// assert_eq!(headers[header::SESSION], session.id().as_str());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn apply<U: RequestUrl + ?Sized>(
        &self,
        url: &U,
        headers: &mut HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<(), MissingSession> {
        if self.is_target(url) {
            let applied = self.apply_to_target(headers, extensions);
            self.outcome(url, applied)?;
        }
        Ok(())
    }

    pub(crate) fn is_target<U: RequestUrl + ?Sized>(&self, url: &U) -> bool {
        url.origin().is_some_and(|origin| {
            self.targets
                .iter()
                .any(|target| target.matches_origin(&origin))
        })
    }

    fn apply_to_target(
        &self,
        headers: &mut HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<Source, Unresolved> {
        let source = if self.keeps(headers, &SESSION) {
            Source::Header
        } else {
            self.set_session(headers, extensions)?
        };
        if let Some(client_name) = &self.client_name {
            self.set(headers, CLIENT, client_name);
        }
        if let Some(project) = &self.project {
            self.set(headers, PROJECT, project);
        }
        if let Some(user_agent) = &self.user_agent {
            headers
                .entry(USER_AGENT)
                .or_insert_with(|| user_agent.clone());
        }
        Ok(source)
    }

    /// Tells what became of a request to a target.
    fn outcome<U: RequestUrl + ?Sized>(
        &self,
        url: &U,
        applied: Result<Source, Unresolved>,
    ) -> Result<(), MissingSession> {
        match applied {
            Ok(source) => {
                self.trace.request(url, source);
                Ok(())
            }
            Err(Unresolved) => {
                self.trace.request(url, Source::Nothing);
                Err(MissingSession::new(url))
            }
        }
    }

    /// Sets a header of the plugin's own, unless the caller's stays.
    fn set(&self, headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
        if !self.keeps(headers, &name) {
            headers.insert(name, value.clone());
        }
    }

    /// Whether the caller's own header stays.
    fn keeps(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        self.existing_header == ExistingHeader::Keep && header::sole_token(headers, name).is_some()
    }

    /// The rule of which session, from its second line on.
    fn set_session(
        &self,
        headers: &mut HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<Source, Unresolved> {
        Ok(if let Some(session) = extensions.get::<Session>() {
            session.write(headers);
            Source::Extensions
        } else if let Some(id) = extensions.get::<SessionId>() {
            id.write(headers);
            Source::Extensions
        } else if let Some(session) = scope::scoped() {
            session.write(headers);
            Source::Scope
        } else if let Some(session) = scope::local::<Session>() {
            session.write(headers);
            Source::TaskLocal
        } else if let Some(id) = scope::local::<SessionId>() {
            id.write(headers);
            Source::TaskLocal
        } else {
            match &self.fallback {
                Fallback::Session(session) => {
                    session.write(headers);
                    Source::Fallback
                }
                Fallback::PerRequest => {
                    let id = SessionId::new();
                    id.write(headers);
                    extensions.insert(id);
                    Source::Fallback
                }
                Fallback::Omit => {
                    headers.remove(SESSION);
                    Source::Nothing
                }
                Fallback::Reject => return Err(Unresolved),
            }
        })
    }
}

/// Nothing gave a session, and the fallback is to refuse.
struct Unresolved;

#[cfg(not(target_arch = "wasm32"))]
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
#[cfg(target_arch = "wasm32")]
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Implements the `Middleware` of one generation of reqwest.
macro_rules! impl_middleware {
    ($reqwest:ident, $reqwest_middleware:ident) => {
        impl $reqwest_middleware::Middleware for OpencodeSessionMiddleware {
            // What `#[async_trait]` would write, but for its box: there is nothing to await before
            // `next`.
            fn handle<'a, 'b, 'c, 'future>(
                &'a self,
                mut request: $reqwest::Request,
                extensions: &'b mut Extensions,
                next: $reqwest_middleware::Next<'c>,
            ) -> BoxFuture<'future, $reqwest_middleware::Result<$reqwest::Response>>
            where
                Self: 'future,
                'a: 'future,
                'b: 'future,
                'c: 'future,
            {
                if self.is_target(request.url()) {
                    let applied = self.apply_to_target(request.headers_mut(), extensions);
                    if let Err(error) = self.outcome(request.url(), applied) {
                        let error = $reqwest_middleware::Error::middleware(error);
                        return Box::pin(ready(Err(error)));
                    }
                }
                next.run(request, extensions)
            }
        }
    };
}

impl_middleware!(reqwest, reqwest_middleware);
#[cfg(feature = "reqwest-012")]
impl_middleware!(reqwest_012, reqwest_middleware_04);

/// Settings for an [`OpencodeSessionMiddleware`]. Made by [`OpencodeSessionMiddleware::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct OpencodeSessionMiddlewareBuilder {
    middleware: OpencodeSessionMiddleware,
    error: Option<BuildError>,
}

impl OpencodeSessionMiddlewareBuilder {
    /// The client's name, for `x-opencode-client`: 1 to 128 visible ASCII characters.
    pub fn client_name(mut self, name: impl AsRef<str>) -> Self {
        self.middleware.client_name = self.checked("client_name", header::token(name.as_ref()));
        self
    }

    /// The project, for `x-opencode-project`: 1 to 128 visible ASCII characters.
    ///
    /// Like a session id, it must hold no secret, path or user name.
    pub fn project(mut self, project: impl AsRef<str>) -> Self {
        self.middleware.project = self.checked("project", header::token(project.as_ref()));
        self
    }

    /// The `user-agent` of requests that have none: 1 to 128 visible ASCII characters, and spaces
    /// between words.
    ///
    /// OpenCode asks for one that names the client itself, such as `my-agent/1.0`. It wins over the
    /// user agent of a [`reqwest::ClientBuilder`], so set it in one of the two places.
    pub fn user_agent(mut self, user_agent: impl AsRef<str>) -> Self {
        self.middleware.user_agent = self.checked("user_agent", header::words(user_agent.as_ref()));
        self
    }

    /// Adds a target to those that there are.
    pub fn target(mut self, target: Target) -> Self {
        self.middleware.targets.push(target);
        self
    }

    /// Replaces all targets, the default ones too.
    pub fn targets(mut self, targets: impl IntoIterator<Item = Target>) -> Self {
        self.middleware.targets = targets.into_iter().collect();
        self
    }

    /// Which session a request gets that nothing gave one.
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.middleware.fallback = fallback;
        self
    }

    /// What becomes of the valid headers that the caller itself set on a request.
    pub fn existing_header(mut self, existing_header: ExistingHeader) -> Self {
        self.middleware.existing_header = existing_header;
        self
    }

    /// The plugin with these settings.
    ///
    /// # Errors
    ///
    /// [`BuildError`] for the first setting that was given a bad value, and where there is no
    /// target.
    pub fn build(self) -> Result<OpencodeSessionMiddleware, BuildError> {
        match self.error {
            Some(error) => Err(error),
            None if self.middleware.targets.is_empty() => Err(BuildError::NoTargets),
            None => Ok(self.middleware),
        }
    }

    fn checked(
        &mut self,
        setting: &'static str,
        value: Result<HeaderValue, Violation>,
    ) -> Option<HeaderValue> {
        value
            .map_err(|violation| {
                self.error
                    .get_or_insert(BuildError::from_violation(setting, violation));
            })
            .ok()
    }
}
