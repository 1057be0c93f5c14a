//! The middleware and its builder: what a user meets first.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Extensions, HeaderMap, HeaderValue};
use thiserror::Error;

use crate::error::impl_debug;
use crate::header::{self, InvalidValue};
use crate::origin::RequestUrl;
use crate::redirect::{self, RedirectRefused};
use crate::request::{HttpRequest, RequestParts};
use crate::rule::{Applied, ExistingHeader, Fallback, MissingSession, Rule, SessionFrom, Settings};
use crate::session::{IntoSession, Session};
use crate::target::{InvalidTarget, Target};
use crate::trace::Trace;

/// Tags every request to OpenCode with its conversation's session, and leaves all other requests
/// alone.
///
/// ```
/// use reqwest_opencode_session::OpencodeSessionMiddleware;
///
/// let client = OpencodeSessionMiddleware::new().into_client(reqwest::Client::builder())?;
/// # Ok::<(), reqwest::Error>(())
/// ```
///
/// If requests are sent from many places, keep the middleware in a `static`:
///
/// ```
/// use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt as _};
///
/// static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();
///
/// # fn call() -> Result<(), Box<dyn std::error::Error>> {
/// // The redirect policy keeps the session on its targets.
/// let client = reqwest::Client::builder().redirect(OPENCODE.redirect_policy()).build()?;
/// let call = client.post("https://opencode.ai/zen/go/v1/messages").opencode_session(&OPENCODE)?;
/// # Ok(())
/// # }
/// # call().unwrap();
/// ```
///
/// Its settings are reference-counted, so a clone allocates nothing.
///
/// # Entry points
///
/// | what your client has | entry point |
/// |---|---|
/// | a `ClientBuilder` of reqwest | `into_client`, which builds a `ClientWithMiddleware` |
/// | a `RequestBuilder` of reqwest | `opencode_session`, from the trait `RequestBuilderExt` |
/// | a `reqwest::Request`, an [`http::Request`], [`http::request::Parts`] | [`apply`](Self::apply) |
/// | a URL, headers and extensions | [`apply_parts`](Self::apply_parts) |
/// | a URL, and headers as pairs of strings | [`headers_for`](Self::headers_for) |
/// | a tower service | `layer`, with the feature `tower` |
///
/// A chain reads the session when its future is first polled: a scope around `.send()` is enough,
/// and a middleware above may run `next` in a session of its choice. A layer reads it in
/// `Service::call`. The others read it immediately: put the scope around the function that calls
/// them, or name the session with [`bound_to`](Self::bound_to).
///
/// # Which requests
///
/// A request gets a session if its URL matches a [`Target`]: `https://opencode.ai` and its
/// subdomains, unless [`targets`](OpencodeSessionMiddlewareBuilder::targets) says otherwise. If
/// several match, the one that was added last decides.
///
/// # Which session
///
/// The first of these that is present:
///
/// 1. a valid `x-opencode-session` header that is already on the request;
/// 2. a [`Session`], or else a [`SessionId`](crate::SessionId), in the request's [`Extensions`];
/// 3. the session that the middleware is [bound to](Self::bound_to);
/// 4. the ambient session: the innermost [`WithSession`](crate::WithSession) scope;
/// 5. a [`Session`] or [`SessionId`](crate::SessionId) that the application put into its own
///    `task_local_extensions`;
/// 6. what [`session_from`](OpencodeSessionMiddlewareBuilder::session_from) returns;
/// 7. a session that the request names in another header that the gateways take one from:
///    `session_id`, `session-id`, `x-session-id` or `x-claude-code-session-id`;
/// 8. the [`Fallback`].
///
/// A session header that is empty, malformed or has different values counts as absent. A value that
/// is repeated counts as one.
///
/// The seventh is for proxies that copy headers: it is sent as `x-opencode-session`. It is the
/// client's own claim, so a server that must not take its tenants' word runs the call inside
/// [`Session::from_headers`]`(..)` with [`derived(tenant)`](Session::derived), or removes the
/// headers. It counts as absent under [`ExistingHeader::Replace`], and for a target with a
/// [session header](Target::session_header) of its own.
///
/// # What else is sent
///
/// A session's turn and parent are sent with it, if it has them. A turn and a parent that are on
/// the request already stay only beside the session header that stays, or that the session is taken
/// from if no header before that one is malformed. With any other session, they are removed. So
/// give each request a fresh map: by default, a reused one keeps its whole old session.
///
/// The client's name, the project and the user agent are set if the caller has not set them.
///
/// # Order
///
/// Append it last. Everything that changes a request's URL, such as a failover, must be above it.
/// Below it, a failover would take the session to the other host.
///
/// # Default headers
///
/// reqwest adds a client's `default_headers` and `user_agent` after every middleware, and only if
/// the request does not have them yet. So the middleware does not see them, and its own headers
/// win: the middleware's session overrides one pinned there, and [`Fallback::Reject`] refuses a
/// request that has no other. Pin no turn or parent there: they would be sent with every session
/// that has none.
///
/// # Redirects
///
/// reqwest follows redirects below every middleware, and carries these headers to any host that a
/// redirect points to. `into_client` and `redirect_policy` keep the session on its targets.
/// [`check_redirect`](Self::check_redirect) makes the same decision for other HTTP stacks.
///
/// # Tracing
///
/// With the feature `tracing`, each request to a target emits an event at debug level, with the
/// host and the source of the session. The first request in the fallback's session emits one at
/// info level, and the first one without a session a warning: once for a middleware and its clones,
/// and once for all that [`new`](Self::new) makes. No event contains a key or a session's id.
#[derive(Clone, Default)]
pub struct OpencodeSessionMiddleware {
    /// `None` for the default settings, so that `new` can be a `const fn`.
    shared: Option<Arc<Shared>>,
    bound: Option<Session>,
}

struct Shared {
    settings: Settings,
    trace: Trace,
}

impl OpencodeSessionMiddleware {
    /// Creates a middleware for `https://opencode.ai` and its subdomains, with the process-wide
    /// session as the fallback.
    pub const fn new() -> Self {
        Self {
            shared: None,
            bound: None,
        }
    }

    /// Returns a builder that starts from the settings of [`new`](Self::new).
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
            settings: Settings::new(),
            error: None,
        }
    }

    /// Returns the same middleware, bound to one conversation.
    ///
    /// Use it for an SDK that takes a client by value and works on tasks of its own, and for a plain
    /// client that holds its session as a value. It takes a [`Session`], a
    /// [`SessionId`](crate::SessionId), a reference to either, or an [`Option`] of them; `None`
    /// leaves the binding as it was. With a `Session`, it costs two reference counts.
    ///
    /// If the ambient session is a turn of the same conversation, that turn is sent. Any other
    /// ambient session, such as a subagent's, is ignored.
    ///
    /// ```
    /// use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, header};
    ///
    /// static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();
    ///
    /// let session = Session::new();
    /// let url = "https://opencode.ai/zen/go/v1/messages".parse::<http::Uri>()?;
    /// let headers = OPENCODE.bound_to(&session).headers_for(&url)?;
    /// assert_eq!(headers[header::SESSION], session.id().as_str());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "the bound middleware is another one; this one is unchanged"]
    pub fn bound_to(&self, session: impl IntoSession) -> Self {
        Self {
            shared: self.shared.clone(),
            bound: session.into_session().or_else(|| self.bound.clone()),
        }
    }

    /// Applies the middleware to a request of any client.
    ///
    /// The extensions of a `reqwest::Request` are private, so they cannot name its session; use
    /// [`bound_to`](Self::bound_to). An [`http::Request`] whose URI has no scheme and host, as
    /// `hyper::client::conn` takes it, is never for a target: pass the whole URI to
    /// [`apply_parts`](Self::apply_parts).
    ///
    /// # Errors
    ///
    /// Returns [`MissingSession`] if nothing gives a session and the fallback is
    /// [`Fallback::Reject`]. The headers are then unchanged.
    ///
    /// ```
    /// use reqwest_opencode_session::{Applied, OpencodeSessionMiddleware, header};
    ///
    /// let mut request = http::Request::post("https://opencode.ai/zen/v1/messages").body("{}")?;
    /// let applied = OpencodeSessionMiddleware::new().apply(&mut request)?;
    ///
    /// assert!(matches!(applied, Applied::Session(_)));
    /// assert!(request.headers().contains_key(header::SESSION));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn apply<R: HttpRequest>(&self, request: &mut R) -> Result<Applied, MissingSession> {
        self.rule().apply(request)
    }

    /// Applies the middleware to the parts of a request, for any HTTP stack.
    ///
    /// Use the same `extensions` for each attempt of one request, because they remember what
    /// [`session_from`](OpencodeSessionMiddlewareBuilder::session_from) returned. Use new ones for
    /// the next request: with the old ones, it would be sent in the old session. Nothing else is
    /// stored.
    ///
    /// Insert a [`Session`] or a [`SessionId`](crate::SessionId). An `Option<Session>` or an
    /// `Arc<Session>` is ignored, because extensions are found by their type.
    ///
    /// # Errors
    ///
    /// The same as [`apply`](Self::apply).
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
    /// middleware.apply_parts(&url, &mut headers, &mut extensions)?;
    ///
    /// assert_eq!(headers[header::SESSION], session.id().as_str());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn apply_parts<U: RequestUrl + ?Sized>(
        &self,
        url: &U,
        headers: &mut HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<Applied, MissingSession> {
        self.rule().apply(&mut RequestParts {
            url,
            headers,
            extensions,
        })
    }

    /// Returns the headers for a request to this URL: none if it is not a target.
    ///
    /// Use it for a client that holds headers as pairs of strings. A user agent is never among them.
    /// The method cannot see which headers the caller sets. If your list has a session already, add
    /// none of these headers, because another session's turn must not be sent with it.
    ///
    /// With reqwest, call `.headers(middleware.headers_for(&url)?)` after the caller's own headers:
    /// it replaces a session that is there. `.header(…)` would add a second one.
    ///
    /// # Errors
    ///
    /// The same as [`apply`](Self::apply).
    ///
    /// ```
    /// use reqwest_opencode_session::{OpencodeSessionMiddleware, header};
    ///
    /// let middleware = OpencodeSessionMiddleware::new();
    /// let url = "https://opencode.ai/zen/go/v1/messages".parse::<http::Uri>()?;
    /// let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    ///
    /// let is_session = |name: &str| name.eq_ignore_ascii_case(header::SESSION.as_str());
    /// if !headers.iter().any(|(name, _)| is_session(name)) {
    ///     for (name, value) in &middleware.headers_for(&url)? {
    ///         headers.push((name.to_string(), value.to_str()?.to_owned()));
    ///     }
    /// }
    /// assert_eq!(headers[1].0, "x-opencode-session");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn headers_for<U: RequestUrl + ?Sized>(
        &self,
        url: &U,
    ) -> Result<HeaderMap, MissingSession> {
        let mut headers = HeaderMap::new();
        self.apply_parts(url, &mut headers, &mut Extensions::new())?;
        headers.remove(USER_AGENT);
        Ok(headers)
    }

    /// Returns whether a request to this URL gets a session.
    pub fn is_target<U: RequestUrl + ?Sized>(&self, url: &U) -> bool {
        self.settings().targets.find(url).is_some()
    }

    /// Checks whether a redirect may be followed, for HTTP stacks that follow redirects themselves.
    ///
    /// `previous` holds the URLs of the chain so far, in order, and `to` is the next one. A chain
    /// that began at a target may continue to any target that takes the same headers. A chain that
    /// began elsewhere carries no session, and may continue anywhere. Where the beginning is not
    /// known, because `previous` is empty or its first URL has no scheme or host, the chain may
    /// continue to targets alone. A stack that knows only the last URL passes that one: the session
    /// stays on its targets, and a chain that has once come to a target is refused elsewhere.
    ///
    /// # Errors
    ///
    /// Returns [`RedirectRefused`] if the redirect would carry a session to an address that may not
    /// have it.
    ///
    /// ```
    /// use http::Uri;
    /// use reqwest_opencode_session::OpencodeSessionMiddleware;
    ///
    /// let middleware = OpencodeSessionMiddleware::new();
    /// let call = Uri::from_static("https://opencode.ai/zen/go/v1/messages");
    /// let stranger = Uri::from_static("https://example.com/");
    ///
    /// let refused = middleware.check_redirect(&[call], &stranger).unwrap_err();
    /// assert_eq!(refused.from_origin(), "https://opencode.ai");
    /// assert_eq!(refused.to_origin(), "https://example.com");
    /// ```
    pub fn check_redirect<U: RequestUrl>(
        &self,
        previous: &[U],
        to: &U,
    ) -> Result<(), RedirectRefused> {
        redirect::check(&self.settings().targets, previous, to)
    }

    fn settings(&self) -> &Settings {
        self.rule().settings
    }

    pub(crate) fn rule(&self) -> Rule<'_> {
        static DEFAULT: Shared = Shared {
            settings: Settings::new(),
            trace: Trace::new(),
        };
        let Shared { settings, trace } = self.shared.as_deref().unwrap_or(&DEFAULT);
        Rule {
            settings,
            bound: &self.bound,
            trace,
        }
    }
}

impl fmt::Debug for OpencodeSessionMiddleware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpencodeSessionMiddleware")
            .field("settings", self.settings())
            .field("bound_to", &self.bound)
            .finish()
    }
}

/// Builds an [`OpencodeSessionMiddleware`]. Created by [`OpencodeSessionMiddleware::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct OpencodeSessionMiddlewareBuilder {
    settings: Settings,
    error: Option<BuildError>,
}

impl OpencodeSessionMiddlewareBuilder {
    /// Sets the client's name, for `x-opencode-client`: 1 to 128 visible ASCII characters.
    pub fn client_name(mut self, name: impl AsRef<str>) -> Self {
        self.settings.client_name = self.value("client_name", header::token(name.as_ref()));
        self
    }

    /// Sets the project, for `x-opencode-project`: 1 to 128 visible ASCII characters.
    ///
    /// Like a session id, it must contain no secret, path or user name.
    pub fn project(mut self, project: impl AsRef<str>) -> Self {
        self.settings.project = self.value("project", header::token(project.as_ref()));
        self
    }

    /// Sets the `user-agent` of requests that have none: 1 to 128 characters of visible ASCII, with
    /// spaces allowed between words.
    ///
    /// OpenCode asks for one that names the client itself, such as `my-agent/1.0`. It wins over the
    /// user agent of a `reqwest::ClientBuilder`, so set only one of the two.
    pub fn user_agent(mut self, user_agent: impl AsRef<str>) -> Self {
        self.settings.user_agent = self.value("user_agent", header::words(user_agent.as_ref()));
        self
    }

    /// Adds a target: a [`Target`], or a string that parses as one.
    pub fn target<T>(mut self, target: T) -> Self
    where
        T: TryInto<Target, Error: Into<InvalidTarget>>,
    {
        if let Some(target) = self.checked(target) {
            self.settings.targets.push(target);
        }
        self
    }

    /// Replaces all targets, including the default ones.
    pub fn targets<T>(mut self, targets: impl IntoIterator<Item = T>) -> Self
    where
        T: TryInto<Target, Error: Into<InvalidTarget>>,
    {
        let targets = targets.into_iter();
        self.settings.targets = targets.filter_map(|target| self.checked(target)).collect();
        self
    }

    /// Sets the application's own source of the current session, asked before the fallback.
    ///
    /// A session that it returns is remembered in the request's extensions, if the entry point has
    /// them, so that a retry keeps it even if the application has moved on; after `None`, a retry
    /// asks again. While a source runs, none is asked on its thread: a request that the source
    /// itself sends gets the fallback.
    ///
    /// ```
    /// use reqwest_opencode_session::{OpencodeSessionMiddleware, Session};
    ///
    /// tokio::task_local!(static CONVERSATION: Session);
    ///
    /// let middleware = OpencodeSessionMiddleware::builder()
    ///     .session_from(|| CONVERSATION.try_get().ok())
    ///     .build()?;
    /// # Ok::<(), reqwest_opencode_session::BuildError>(())
    /// ```
    pub fn session_from(
        mut self,
        source: impl Fn() -> Option<Session> + Send + Sync + 'static,
    ) -> Self {
        self.settings.session_from = Some(SessionFrom::new(source));
        self
    }

    /// Sets the session for a request that was not given one.
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.settings.fallback = fallback;
        self
    }

    /// Sets what happens to valid headers that the caller set on a request.
    pub fn existing_header(mut self, existing_header: ExistingHeader) -> Self {
        self.settings.existing_header = existing_header;
        self
    }

    /// Builds the middleware.
    ///
    /// # Errors
    ///
    /// Returns a [`BuildError`] for the first setting with an invalid value, if there is no target,
    /// or if one target has two session headers.
    pub fn build(self) -> Result<OpencodeSessionMiddleware, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let targets = self.settings.targets.as_slice();
        if targets.is_empty() {
            return Err(BuildError::NoTargets);
        }
        let mut dialects = HashMap::new();
        for target in targets {
            let other = *dialects.entry(target.origin()).or_insert(target.dialect());
            if other != target.dialect() {
                return Err(BuildError::TwoSessionHeaders {
                    target: target.to_string(),
                    headers: [other, target.dialect()]
                        .map(|dialect| dialect.session_header().to_string()),
                });
            }
        }
        Ok(OpencodeSessionMiddleware {
            shared: Some(Arc::new(Shared {
                settings: self.settings,
                trace: Trace::new(),
            })),
            bound: None,
        })
    }

    fn value(
        &mut self,
        setting: &'static str,
        value: Result<HeaderValue, InvalidValue>,
    ) -> Option<HeaderValue> {
        value
            .map_err(|reason| {
                self.error
                    .get_or_insert(BuildError::InvalidValue { setting, reason });
            })
            .ok()
    }

    fn checked<T>(&mut self, target: T) -> Option<Target>
    where
        T: TryInto<Target, Error: Into<InvalidTarget>>,
    {
        target
            .try_into()
            .map_err(|reason| {
                self.error
                    .get_or_insert(BuildError::InvalidTarget(reason.into()));
            })
            .ok()
    }
}

/// A setting that [`OpencodeSessionMiddlewareBuilder::build`] refuses.
#[derive(Clone, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A value is not valid.
    #[error("`{setting}` was refused: {}", reason.rule())]
    #[non_exhaustive]
    InvalidValue {
        /// The builder's method that took the value.
        setting: &'static str,
        /// What is wrong with it.
        reason: InvalidValue,
    },
    /// A string is not a target.
    #[error("a target was refused: {0}")]
    InvalidTarget(InvalidTarget),
    /// The list of targets is empty, so no request would get a session.
    #[error("`targets` is empty, so no request would get a session; name at least one target")]
    NoTargets,
    /// One target is listed twice, with different session headers.
    #[error(
        "the target {target} is listed with {}; keep one of them",
        both(headers)
    )]
    #[non_exhaustive]
    TwoSessionHeaders {
        /// The target.
        target: String,
        /// Its session headers. Both are `x-opencode-session` if one of the two also takes
        /// OpenCode's other headers.
        headers: [String; 2],
    },
}

impl_debug!(BuildError);

fn both([one, other]: &[String; 2]) -> String {
    match one == other {
        true => format!("all of OpenCode's headers and with `{one}` alone"),
        false => format!("two session headers, `{one}` and `{other}`"),
    }
}
