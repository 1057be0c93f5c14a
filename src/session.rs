//! Sessions, and the ids that they are made of.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue};
use uuid::{Builder, NoContext, Timestamp, Uuid};

use crate::header::{self, InvalidValue, Named};

/// A conversation's id: 1 to 128 visible ASCII characters (0x21 to 0x7E), cheap to clone.
///
/// The gateway may pass an id on to the provider that it picks, so an id must contain no secret,
/// path, user name or e-mail address. [`SessionId::new`] makes one that says only when it was made;
/// [`SessionId::derive`] makes one from a name that must stay private.
///
/// ```
/// use reqwest_opencode_session::{InvalidValue, SessionId};
///
/// let stored: SessionId = "01a20360-f6d2-7083-9a19-5a139a403ac6".parse()?;
/// assert_eq!(stored, *"01a20360-f6d2-7083-9a19-5a139a403ac6");
/// assert_eq!("".parse::<SessionId>(), Err(InvalidValue::Empty));
/// # Ok::<(), InvalidValue>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(HeaderValue);

/// The id of one turn: 1 to 128 visible ASCII characters (0x21 to 0x7E), cheap to clone.
///
/// A turn is one user prompt and everything that is done for it. [`Session::turn`] begins one. To
/// use your application's own id for a prompt, or to continue a turn in another process, pass the
/// id to [`Session::with_turn`]. What a [`SessionId`] must not contain, a `TurnId` must not either.
///
/// ```
/// use reqwest_opencode_session::{InvalidValue, Session, TurnId};
///
/// let turn: TurnId = "01a20360-f6d2-7083-9a19-5a139a403ac6".parse()?;
/// assert_eq!(Session::new().with_turn(turn.clone()).turn_id(), Some(&turn));
/// # Ok::<(), InvalidValue>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TurnId(HeaderValue);

impl SessionId {
    /// Creates a new, unique id: a UUIDv7.
    ///
    /// It is made of the time and of the operating system's random numbers alone, so ids are also
    /// unique in forked processes. Ids that are made at least a quarter of a microsecond apart sort in
    /// that order, if the clock is as exact; a browser's counts milliseconds. The last four characters
    /// are random, and they are all that the gateway's hash looks at when it spreads conversations
    /// over providers.
    ///
    /// # Panics
    ///
    /// Panics if the operating system has no random numbers.
    #[expect(
        clippy::new_without_default,
        reason = "a default that is never the same twice would hide a new id"
    )]
    pub fn new() -> Self {
        unique().into()
    }

    /// Derives an id from a name: the same one on every machine and after every restart.
    ///
    /// Use it for names that are private, too long or not ASCII. `scope` keeps the ids of different
    /// applications apart. If names can be guessed, use a secret as the scope: without it, an
    /// attacker cannot check a guessed name.
    ///
    /// The namespace is the UUIDv5 of `scope` in the nil namespace, and the id is the UUIDv5 of
    /// `name` in that one, so other languages can compute it.
    ///
    /// ```
    /// use reqwest_opencode_session::SessionId;
    ///
    /// let id = SessionId::derive("my-agent", "/home/user/notes.md");
    /// assert_eq!(id, SessionId::derive("my-agent", "/home/user/notes.md"));
    /// assert_ne!(id, SessionId::derive("another-agent", "/home/user/notes.md"));
    /// ```
    pub fn derive(scope: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Self {
        derived(scope.as_ref(), name.as_ref()).into()
    }
}

impl TurnId {
    /// Creates a new, unique id, as [`SessionId::new`] does.
    ///
    /// # Panics
    ///
    /// Panics if the operating system has no random numbers.
    #[expect(
        clippy::new_without_default,
        reason = "a default that is never the same twice would hide a new id"
    )]
    pub fn new() -> Self {
        unique().into()
    }
}

/// Returns a UUIDv7 that has no state, which a forked process would copy.
///
/// The bits after the milliseconds are their fraction: RFC 9562, section 6.2, method 3.
fn unique() -> Uuid {
    // Not `SystemTime`, which a browser lacks.
    let (seconds, nanoseconds) = Timestamp::now(NoContext).to_unix();
    let (milliseconds, rest) = (nanoseconds / 1_000_000, nanoseconds % 1_000_000);
    let [_, _, fraction @ ..] = ((rest << 12) / 1_000_000).to_be_bytes();
    let mut after_time = [0; 10];
    let (start, random) = after_time.split_at_mut(fraction.len());
    start.copy_from_slice(&fraction);
    getrandom::fill(random).expect("the operating system has random numbers");
    Builder::from_unix_timestamp_millis(seconds * 1000 + u64::from(milliseconds), &after_time)
        .into_uuid()
}

fn derived(scope: &[u8], name: &[u8]) -> Uuid {
    let namespace = Uuid::new_v5(&Uuid::nil(), scope);
    Uuid::new_v5(&namespace, name)
}

/// What both kinds of id can do.
macro_rules! impl_id {
    ($id:ident) => {
        impl $id {
            /// Returns the id as a string.
            pub fn as_str(&self) -> &str {
                self.0.to_str().expect("an id is visible ASCII")
            }

            /// Returns the id in a header that has one valid value.
            fn from_header(headers: &HeaderMap, name: &http::HeaderName) -> Option<Self> {
                header::sole_token(headers, name)?.try_into().ok()
            }
        }

        impl FromStr for $id {
            type Err = InvalidValue;

            fn from_str(id: &str) -> Result<Self, InvalidValue> {
                Ok(Self(header::token(id)?))
            }
        }

        impl TryFrom<&str> for $id {
            type Error = InvalidValue;

            fn try_from(id: &str) -> Result<Self, InvalidValue> {
                id.parse()
            }
        }

        impl TryFrom<String> for $id {
            type Error = InvalidValue;

            fn try_from(id: String) -> Result<Self, InvalidValue> {
                id.parse()
            }
        }

        impl TryFrom<&String> for $id {
            type Error = InvalidValue;

            fn try_from(id: &String) -> Result<Self, InvalidValue> {
                id.parse()
            }
        }

        impl TryFrom<&HeaderValue> for $id {
            type Error = InvalidValue;

            fn try_from(id: &HeaderValue) -> Result<Self, InvalidValue> {
                String::from_utf8_lossy(id.as_bytes()).parse()
            }
        }

        impl TryFrom<HeaderValue> for $id {
            type Error = InvalidValue;

            fn try_from(id: HeaderValue) -> Result<Self, InvalidValue> {
                Self::try_from(&id)
            }
        }

        impl From<Uuid> for $id {
            fn from(id: Uuid) -> Self {
                Self(header::uuid(id))
            }
        }

        impl From<$id> for HeaderValue {
            fn from(id: $id) -> Self {
                id.0
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.as_str().to_owned()
            }
        }

        impl AsRef<str> for $id {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        /// A map with ids as keys can be searched for a string.
        impl Borrow<str> for $id {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        /// The same as the hash of the string.
        impl Hash for $id {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }

        impl PartialEq<str> for $id {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $id {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl PartialEq<String> for $id {
            fn eq(&self, other: &String) -> bool {
                self.as_str() == other
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($id))
                    .field(&self.as_str())
                    .finish()
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $id {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $id {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

impl_id!(SessionId);
impl_id!(TurnId);

/// A conversation, or one turn of it: the ids that its requests carry.
///
/// A session never changes: its methods return new sessions. A clone is the same session.
///
/// | made by | `x-opencode-session` | `x-opencode-request` | `x-parent-session-id` |
/// |---|---|---|---|
/// | `Session::new()` | new | none | none |
/// | `Session::from(id)` | `id` | none | none |
/// | `Session::derive(scope, name)` | derived | none | none |
/// | `session.turn()` | the same | new | the same |
/// | `session.with_turn(turn)` | the same | `turn` | the same |
/// | `session.subagent()` | new | none | `session`'s id |
/// | `session.with_parent(parent)` | the same | the same | `parent` |
///
/// A fork of a conversation is a new session.
///
/// ```
/// use reqwest_opencode_session::Session;
///
/// let conversation = Session::new();
/// let turn = conversation.turn();
/// assert_eq!(turn.id(), conversation.id());
///
/// let helper = turn.subagent();
/// assert_eq!(helper.parent(), Some(conversation.id()));
/// assert_ne!(helper.id(), conversation.id());
/// ```
///
/// An id of your own becomes a session by `parse`, `try_from` or, if it is private, too long or not
/// ASCII, by [`derive`](Self::derive).
///
/// # Serde
///
/// With the feature `serde`, a session is stored as a struct of its `id`, `parent` and `turn`, and
/// comes back equal. To store only the id, use a [`SessionId`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Session(Arc<Parts>);

#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        deny_unknown_fields,
        rename = "Session",
        expecting = "a session: a struct of its `id`, `parent` and `turn`"
    )
)]
struct Parts {
    id: SessionId,
    parent: Option<SessionId>,
    turn: Option<TurnId>,
}

impl Session {
    /// Begins a new conversation, with an id from [`SessionId::new`].
    #[expect(
        clippy::new_without_default,
        reason = "a default that is never the same twice would hide a new id"
    )]
    pub fn new() -> Self {
        SessionId::new().into()
    }

    /// Resumes the conversation that your application knows by this name, or begins it: its id is
    /// [`SessionId::derive`]'s.
    ///
    /// ```
    /// use reqwest_opencode_session::{Session, SessionId};
    ///
    /// let session = Session::derive("my-agent", "/home/user/notes.md");
    /// assert_eq!(session.id(), &SessionId::derive("my-agent", "/home/user/notes.md"));
    /// ```
    pub fn derive(scope: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Self {
        SessionId::derive(scope, name).into()
    }

    /// Returns the session of this process: created when first needed, the same from then on.
    ///
    /// It is the default [`Fallback`](crate::Fallback), and suits a program that holds one
    /// conversation, no matter how many clients it builds. A process that is forked after it was
    /// needed shares it with its parent.
    ///
    /// ```
    /// use reqwest_opencode_session::Session;
    ///
    /// assert_eq!(Session::process(), Session::process());
    /// ```
    pub fn process() -> Self {
        process().clone()
    }

    /// Reads the session of an incoming request, for proxies that forward it: the client's own
    /// claim.
    ///
    /// The id comes from the first of these headers that has one valid value: those that the
    /// gateways take a session from, `x-opencode-session`, `session_id`, `session-id`,
    /// `x-session-id` and `x-claude-code-session-id`, and then `x-session-affinity`, which
    /// OpenCode's client sends to other providers. The turn (`x-opencode-request-id`, or else
    /// `x-opencode-request`) and the parent are also read, if they are valid. They are not read if a
    /// header before the one with the id is malformed or has different values, because they
    /// may belong to that one. A value that is repeated counts as one. Returns `None` if there is no
    /// session.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue};
    /// use reqwest_opencode_session::Session;
    ///
    /// let mut incoming = HeaderMap::new();
    /// assert_eq!(Session::from_headers(&incoming), None);
    /// incoming.insert("x-session-id", HeaderValue::from_static("42"));
    /// assert_eq!(Session::from_headers(&incoming).unwrap().id(), &"42");
    /// ```
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let names = header::SESSION_NAMES.into_iter().chain([header::AFFINITY]);
        let named = Named::find(headers, names)?;
        // Copied, because the value may be a slice of the connection's whole read buffer.
        let id = SessionId::try_from(named.id).ok()?;
        if !named.has_turn_and_parent {
            return Some(id.into());
        }
        Some(Self(Arc::new(Parts {
            id,
            parent: SessionId::from_header(headers, &header::PARENT_SESSION),
            turn: [header::OTHER_TURN, header::TURN]
                .iter()
                .find_map(|name| TurnId::from_header(headers, name)),
        })))
    }

    /// Returns the conversation's id.
    pub fn id(&self) -> &SessionId {
        &self.0.id
    }

    /// Returns the id of the session that started this one, if this is a subagent's.
    pub fn parent(&self) -> Option<&SessionId> {
        self.0.parent.as_ref()
    }

    /// Returns the turn's id, if this is a turn.
    pub fn turn_id(&self) -> Option<&TurnId> {
        self.0.turn.as_ref()
    }

    /// Returns this session with a new turn: call it once for each user prompt.
    ///
    /// Everything that is done for that prompt belongs to the turn: the conversation's title,
    /// retries, the calls after a tool's answer. A compaction is a turn of its own.
    #[must_use = "a turn is another session; this one is unchanged"]
    pub fn turn(&self) -> Self {
        self.with_turn(TurnId::new())
    }

    /// Returns this session with the given turn: one that began in another process, or the
    /// application's own id for it.
    #[must_use = "a turn is another session; this one is unchanged"]
    pub fn with_turn(&self, turn: TurnId) -> Self {
        Self(Arc::new(Parts {
            turn: Some(turn),
            ..Parts::clone(&self.0)
        }))
    }

    /// Begins a new session that names this one as its parent.
    #[must_use = "a subagent is another session; this one is unchanged"]
    pub fn subagent(&self) -> Self {
        Self::new().with_parent(self)
    }

    /// Returns this session with the given parent.
    ///
    /// Takes a [`Session`], a [`SessionId`], a reference to either, or an [`Option`] of them;
    /// `None` leaves the parent as it was. So it resumes a subagent, or begins one under the session
    /// that is around, if there is one:
    ///
    /// ```
    /// use reqwest_opencode_session::Session;
    ///
    /// let begin = || Session::new().with_parent(Session::current());
    ///
    /// let conversation = Session::new();
    /// let subagent = conversation.in_scope(begin);
    /// assert_eq!(subagent.parent(), Some(conversation.id()));
    /// assert_eq!(begin().parent(), None);
    /// ```
    #[must_use = "a subagent is another session; this one is unchanged"]
    pub fn with_parent(&self, parent: impl IntoSession) -> Self {
        let Some(parent) = parent.into_session() else {
            return self.clone();
        };
        Self(Arc::new(Parts {
            parent: Some(parent.id().clone()),
            ..Parts::clone(&self.0)
        }))
    }

    /// Returns this session with each of its ids run through [`SessionId::derive`].
    ///
    /// For proxies and routers: with a scope for each tenant, the ids of two tenants never collide.
    /// Run the call inside the derived session, or put that into the request's extensions: either
    /// goes before the headers that the client has sent, unless one of them is
    /// `x-opencode-session`, which a proxy does not copy.
    ///
    /// ```
    /// use reqwest_opencode_session::{Session, SessionId};
    ///
    /// let claimed = Session::from(SessionId::try_from("notes")?).turn();
    /// let sent = claimed.derived("tenant 1 of my-proxy, and a secret");
    /// assert_eq!(sent, claimed.derived("tenant 1 of my-proxy, and a secret"));
    /// assert_ne!(sent.id(), claimed.derived("tenant 2 of my-proxy, and a secret").id());
    /// # Ok::<(), reqwest_opencode_session::InvalidValue>(())
    /// ```
    #[must_use = "the derived session is another one; this one is unchanged"]
    pub fn derived(&self, scope: impl AsRef<[u8]>) -> Self {
        let derived = |id: &str| derived(scope.as_ref(), id.as_bytes());
        Self(Arc::new(Parts {
            id: derived(self.id().as_str()).into(),
            parent: self.parent().map(|id| derived(id.as_str()).into()),
            turn: self.turn_id().map(|id| derived(id.as_str()).into()),
        }))
    }

    /// Returns the headers that name this session, for clients that take extra headers.
    ///
    /// Such a client sends them to every host that it calls, so give them only to a client of
    /// OpenCode. [`headers_for`](crate::OpencodeSessionMiddleware::headers_for) looks at the URL
    /// first.
    ///
    /// ```
    /// use reqwest_opencode_session::{Session, header};
    ///
    /// let session = Session::new();
    /// assert_eq!(session.headers()[header::SESSION], session.id().as_str());
    /// ```
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.ids().write(&mut headers);
        headers
    }

    pub(crate) fn ids(&self) -> Ids<'_> {
        let Parts { id, parent, turn } = &*self.0;
        Ids {
            session: id,
            parent: parent.as_ref(),
            turn: turn.as_ref(),
        }
    }
}

static PROCESS: OnceLock<Session> = OnceLock::new();

fn process() -> &'static Session {
    PROCESS.get_or_init(Session::new)
}

/// Returns the id of the process-wide session, or `None` if it has not been needed so far.
#[cfg(feature = "testing")]
pub(crate) fn process_id() -> Option<&'static SessionId> {
    PROCESS.get().map(Session::id)
}

/// The ids that a request is given: those of a [`Session`], or only a [`SessionId`].
#[derive(Clone, Copy)]
pub(crate) struct Ids<'a> {
    pub session: &'a SessionId,
    pub parent: Option<&'a SessionId>,
    pub turn: Option<&'a TurnId>,
}

impl<'a> Ids<'a> {
    /// Returns the ids of [`Session::process`], without counting a reference.
    pub fn process() -> Self {
        process().ids()
    }

    /// Writes them into the headers that OpenCode's gateways read.
    #[inline]
    pub fn write(self, headers: &mut HeaderMap) {
        headers.insert(header::SESSION, self.session.0.clone());
        if let Some(turn) = self.turn {
            headers.insert(header::TURN, turn.0.clone());
        }
        if let Some(parent) = self.parent {
            headers.insert(header::PARENT_SESSION, parent.0.clone());
        }
    }
}

impl<'a> From<&'a SessionId> for Ids<'a> {
    fn from(session: &'a SessionId) -> Self {
        Self {
            session,
            parent: None,
            turn: None,
        }
    }
}

impl From<SessionId> for Session {
    fn from(id: SessionId) -> Self {
        Self(Arc::new(Parts {
            id,
            parent: None,
            turn: None,
        }))
    }
}

impl From<&SessionId> for Session {
    fn from(id: &SessionId) -> Self {
        id.clone().into()
    }
}

impl FromStr for Session {
    type Err = InvalidValue;

    fn from_str(id: &str) -> Result<Self, InvalidValue> {
        id.parse().map(|id: SessionId| id.into())
    }
}

impl TryFrom<&str> for Session {
    type Error = InvalidValue;

    fn try_from(id: &str) -> Result<Self, InvalidValue> {
        id.parse()
    }
}

impl TryFrom<String> for Session {
    type Error = InvalidValue;

    fn try_from(id: String) -> Result<Self, InvalidValue> {
        id.parse()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", self.id())
            .field("parent", &self.parent())
            .field("turn", &self.turn_id())
            .finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Session {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Session {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::new(Parts::deserialize(deserializer)?)))
    }
}

/// A value that stands for a session: a [`Session`], a [`SessionId`], an [`Option`] of either, or a
/// reference to any of these.
///
/// `None` changes nothing.
///
/// This trait is sealed: it is implemented only for these types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a session",
    label = "not a session",
    note = "pass a `Session`, a `SessionId`, an `Option` of either, or a reference to any of these",
    note = "a string becomes a session by `parse`, or by `Session::derive(scope, name)`"
)]
pub trait IntoSession: sealed::IntoSession {}

mod sealed {
    use super::Session;

    pub trait IntoSession {
        fn to_session(&self) -> Option<Session>;

        fn into_session(self) -> Option<Session>
        where
            Self: Sized,
        {
            self.to_session()
        }
    }
}

impl IntoSession for Session {}
impl IntoSession for SessionId {}
impl<T: IntoSession> IntoSession for Option<T> {}
impl<T: IntoSession> IntoSession for &T {}

impl sealed::IntoSession for Session {
    fn to_session(&self) -> Option<Session> {
        Some(self.clone())
    }

    fn into_session(self) -> Option<Session> {
        Some(self)
    }
}

impl sealed::IntoSession for SessionId {
    fn to_session(&self) -> Option<Session> {
        Some(self.into())
    }

    fn into_session(self) -> Option<Session> {
        Some(self.into())
    }
}

impl<T: IntoSession> sealed::IntoSession for Option<T> {
    fn to_session(&self) -> Option<Session> {
        self.as_ref().and_then(T::to_session)
    }

    fn into_session(self) -> Option<Session> {
        self.and_then(T::into_session)
    }
}

impl<T: IntoSession> sealed::IntoSession for &T {
    fn to_session(&self) -> Option<Session> {
        T::to_session(self)
    }
}
