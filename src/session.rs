//! Who a request belongs to: ids, and the sessions that they name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::error::InvalidSessionId;
use crate::header;

/// A conversation's id: 1 to 128 visible ASCII characters (0x21 to 0x7E), cheap to clone.
///
/// The gateway may hand an id on to the provider that it picks, so an id must hold no secret, path,
/// user name or e-mail address. [`SessionId::new`] makes one that holds nothing at all;
/// [`SessionId::derive`] makes one of a name that must not be seen.
///
/// ```
/// use reqwest_opencode_session::{InvalidSessionId, SessionId};
///
/// let stored: SessionId = "01a20360-f6d2-7083-9a19-5a139a403ac6".parse()?;
/// assert_eq!(stored.as_ref(), "01a20360-f6d2-7083-9a19-5a139a403ac6");
/// assert_eq!("".parse::<SessionId>(), Err(InvalidSessionId::Empty));
/// # Ok::<(), InvalidSessionId>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(HeaderValue);

impl SessionId {
    /// A new id, unlike every other: a UUIDv7.
    ///
    /// Ids made later sort later. The last four characters are random, and they are all that the
    /// gateway's hash looks at when it spreads conversations over providers.
    #[expect(
        clippy::new_without_default,
        reason = "a default that is never the same twice would hide a new id"
    )]
    pub fn new() -> Self {
        Uuid::now_v7().into()
    }

    /// The id that belongs to a name: the same on every machine and after every restart.
    ///
    /// For names that are private, too long or not ASCII. `scope` keeps the ids of different
    /// applications apart. Where names can be guessed, use a secret as the scope: without it nobody
    /// can test a guess.
    ///
    /// The id is the UUIDv5 of `name` in the namespace that is the UUIDv5 of `scope` in the nil
    /// namespace, so other languages can compute it, too.
    ///
    /// ```
    /// use reqwest_opencode_session::SessionId;
    ///
    /// let id = SessionId::derive("my-agent", "/home/user/notes.md");
    /// assert_eq!(id, SessionId::derive("my-agent", "/home/user/notes.md"));
    /// assert_ne!(id, SessionId::derive("another-agent", "/home/user/notes.md"));
    /// ```
    pub fn derive(scope: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Self {
        let namespace = Uuid::new_v5(&Uuid::nil(), scope.as_ref());
        Uuid::new_v5(&namespace, name.as_ref()).into()
    }

    /// The session of an incoming request, for proxies that send it on.
    ///
    /// Looks at the headers that the gateways take a session from: `x-opencode-session`, then
    /// `session_id`, `session-id`, `x-session-id` and `x-claude-code-session-id`. The first one
    /// that is there exactly once and holds a valid id counts.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue};
    /// use reqwest_opencode_session::SessionId;
    ///
    /// let mut incoming = HeaderMap::new();
    /// assert_eq!(SessionId::from_headers(&incoming), None);
    /// incoming.insert("x-session-id", HeaderValue::from_static("42"));
    /// assert_eq!(SessionId::from_headers(&incoming).unwrap().as_ref(), "42");
    /// ```
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = header::SESSION_NAMES
            .iter()
            .find_map(|name| header::sole_token(headers, name))?;
        // Copied, because the value may be a slice of the connection's whole read buffer.
        value.to_str().ok()?.parse().ok()
    }

    /// The id as a string.
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("a session id is visible ASCII")
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(header::SESSION, self.0.clone());
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(id: &str) -> Result<Self, InvalidSessionId> {
        Ok(Self(header::token(id)?))
    }
}

impl TryFrom<&str> for SessionId {
    type Error = InvalidSessionId;

    fn try_from(id: &str) -> Result<Self, InvalidSessionId> {
        id.parse()
    }
}

impl TryFrom<String> for SessionId {
    type Error = InvalidSessionId;

    fn try_from(id: String) -> Result<Self, InvalidSessionId> {
        id.parse()
    }
}

impl TryFrom<HeaderValue> for SessionId {
    type Error = InvalidSessionId;

    fn try_from(id: HeaderValue) -> Result<Self, InvalidSessionId> {
        String::from_utf8_lossy(id.as_bytes()).parse()
    }
}

impl From<Uuid> for SessionId {
    fn from(id: Uuid) -> Self {
        Self(header::uuid(id))
    }
}

impl From<SessionId> for HeaderValue {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl AsRef<str> for SessionId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionId").field(&self.as_str()).finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A conversation, or one turn of it: what its requests say about whom they belong to.
///
/// A session never changes. [`turn`](Self::turn), [`subagent`](Self::subagent) and
/// [`fork`](Self::fork) make another one from it, and a clone is the same one.
///
/// | made by | `x-opencode-session` | `x-opencode-request` | `x-parent-session-id` |
/// |---|---|---|---|
/// | `Session::new()` | new | none | none |
/// | `Session::from(id)` | `id` | none | none |
/// | `session.turn()` | the same | new | the same |
/// | `session.subagent()` | new | none | `session`'s id |
/// | `session.fork()` | new | none | none |
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
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Session(Arc<Parts>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Parts {
    id: SessionId,
    parent: Option<SessionId>,
    request: Option<HeaderValue>,
}

impl Session {
    /// A new conversation, with an id made by [`SessionId::new`].
    #[expect(
        clippy::new_without_default,
        reason = "a default that is never the same twice would hide a new id"
    )]
    pub fn new() -> Self {
        SessionId::new().into()
    }

    /// The conversation's id.
    pub fn id(&self) -> &SessionId {
        &self.0.id
    }

    /// In a subagent's session, the id of the session that started it.
    pub fn parent(&self) -> Option<&SessionId> {
        self.0.parent.as_ref()
    }

    /// The turn's id, where this is a [`turn`](Self::turn).
    pub fn request_id(&self) -> Option<&str> {
        self.0
            .request
            .as_ref()
            .map(|id| id.to_str().expect("a request id is a UUID"))
    }

    /// The same session with a new `x-opencode-request`: one for each prompt of the user.
    ///
    /// Everything that is done for that prompt belongs to the turn: the conversation's title,
    /// retries, the calls after a tool's answer.
    #[must_use = "a turn is another session; this one is unchanged"]
    pub fn turn(&self) -> Self {
        Self(Arc::new(Parts {
            request: Some(header::uuid(Uuid::now_v7())),
            ..Parts::clone(&self.0)
        }))
    }

    /// A new session that names this one as its parent.
    #[must_use = "a subagent is another session; this one is unchanged"]
    pub fn subagent(&self) -> Self {
        Self(Arc::new(Parts {
            id: SessionId::new(),
            parent: Some(self.id().clone()),
            request: None,
        }))
    }

    /// A new session with no parent, for a conversation that goes its own way from here.
    ///
    /// The same as [`Session::new`], under the name of what the user does.
    #[must_use = "a fork is another session; this one is unchanged"]
    pub fn fork(&self) -> Self {
        Self::new()
    }

    /// The headers that a request of this session bears, for clients that take extra headers.
    ///
    /// They go to whichever host the request is for, so give them only to a client of OpenCode.
    ///
    /// ```
    /// use reqwest_opencode_session::{Session, header};
    ///
    /// let session = Session::new();
    /// assert_eq!(session.headers()[header::SESSION], session.id().as_str());
    /// ```
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.write(&mut headers);
        headers
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let Parts {
            id,
            parent,
            request,
        } = &*self.0;
        id.write(headers);
        if let Some(request) = request {
            headers.insert(header::REQUEST, request.clone());
        }
        if let Some(parent) = parent {
            headers.insert(header::PARENT_SESSION, parent.0.clone());
        }
    }
}

impl From<SessionId> for Session {
    fn from(id: SessionId) -> Self {
        Self(Arc::new(Parts {
            id,
            parent: None,
            request: None,
        }))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", self.id())
            .field("parent", &self.parent())
            .field("request_id", &self.request_id())
            .finish()
    }
}

/// The id of the process's session; none while it was never needed.
#[cfg(feature = "testing")]
pub(crate) fn process_id() -> Option<&'static SessionId> {
    None
}
