//! What can go wrong. Every error says which rule was broken, where, and what to do.

use thiserror::Error;

use crate::header::{MAX_LENGTH, Violation};
use crate::target::RequestUrl;

/// A string that is no session id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum InvalidSessionId {
    /// It has no characters.
    #[error("the session id is empty; it must have 1 to {MAX_LENGTH} visible ASCII characters")]
    Empty,
    /// It has more than 128 characters.
    #[error(
        "the session id has {length} characters and may have {MAX_LENGTH}; \
         `SessionId::derive` makes a short one of it"
    )]
    TooLong {
        /// How many characters it has.
        length: usize,
    },
    /// It holds a character that is not visible ASCII (0x21 to 0x7E).
    #[error(
        "the session id has {character:?} as character {}, and only visible ASCII may stand there; \
         `SessionId::derive` makes a valid one of it", position + 1
    )]
    IllegalCharacter {
        /// How many characters stand before it.
        position: usize,
        /// The character.
        character: char,
    },
}

impl From<Violation> for InvalidSessionId {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Empty => Self::Empty,
            Violation::TooLong { length } => Self::TooLong { length },
            Violation::IllegalCharacter {
                position,
                character,
            } => Self::IllegalCharacter {
                position,
                character,
            },
        }
    }
}

/// A string that is no [`Target`](crate::Target).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum InvalidTarget {
    /// It does not begin with a scheme and `://`.
    #[error("the target names no scheme; write it as in `https://opencode.ai`")]
    NoScheme,
    /// Its scheme is neither `http` nor `https`.
    #[error("the target's scheme is `{scheme}`; it must be `https` or `http`")]
    UnknownScheme {
        /// The scheme that it names.
        scheme: String,
    },
    /// It holds a character that is not visible ASCII (0x21 to 0x7E).
    #[error(
        "the target has {character:?} as character {}, and only visible ASCII may stand there; \
         write an international name in its `xn--` form", position + 1
    )]
    IllegalCharacter {
        /// How many characters stand before it.
        position: usize,
        /// The character.
        character: char,
    },
    /// It holds a user name or a password.
    #[error("the target has user info before an `@`; leave that out, a target never looks at it")]
    UserInfo,
    /// It names no host.
    #[error("the target names no host; write it as in `https://opencode.ai`")]
    EmptyHost,
    /// Its host is none that a URL can have.
    #[error("the target's host `{host}` is not valid: {reason}")]
    InvalidHost {
        /// The host, as it was written.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Its host has a `*` elsewhere than as the whole first label before a name.
    #[error(
        "the target's `*` must be the whole first label before a name, \
         as in `https://*.example.com`"
    )]
    BadWildcard,
    /// Its port is no number from 1 to 65535.
    #[error("the target's port is `{port}`; it must be a number from 1 to 65535")]
    InvalidPort {
        /// What stands behind the host's colon.
        port: String,
    },
    /// It has a path, a query or a fragment.
    #[error(
        "the target goes on after host and port, from character {} on; \
         leave out path, query and fragment",
        position + 1
    )]
    NotAnOrigin {
        /// How many characters stand before the path, query or fragment.
        position: usize,
    },
}

/// A setting that [`OpencodeSessionMiddlewareBuilder::build`] refuses.
///
/// [`OpencodeSessionMiddlewareBuilder::build`]: crate::OpencodeSessionMiddlewareBuilder::build
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A value has no characters.
    #[error(
        "`{setting}` is empty; give it 1 to {MAX_LENGTH} visible ASCII characters, or leave it out"
    )]
    Empty {
        /// The builder's method that took the value.
        setting: &'static str,
    },
    /// A value has more than 128 characters.
    #[error("`{setting}` has {length} characters and may have {MAX_LENGTH}")]
    TooLong {
        /// The builder's method that took the value.
        setting: &'static str,
        /// How many characters the value has.
        length: usize,
    },
    /// A value holds a character that is not visible ASCII (0x21 to 0x7E).
    ///
    /// In a user agent, spaces may stand between words.
    #[error(
        "`{setting}` has {character:?} as character {}, and only visible ASCII may stand there",
        position + 1
    )]
    IllegalCharacter {
        /// The builder's method that took the value.
        setting: &'static str,
        /// How many characters stand before it.
        position: usize,
        /// The character.
        character: char,
    },
    /// The list of targets is empty, so that no request could ever get a session.
    #[error("`targets` is empty, so no request would get a session; name at least one target")]
    NoTargets,
}

impl BuildError {
    pub(crate) fn from_violation(setting: &'static str, violation: Violation) -> Self {
        match violation {
            Violation::Empty => Self::Empty { setting },
            Violation::TooLong { length } => Self::TooLong { setting, length },
            Violation::IllegalCharacter {
                position,
                character,
            } => Self::IllegalCharacter {
                setting,
                position,
                character,
            },
        }
    }
}

/// A request to a target that nothing gave a session, under [`Fallback::Reject`].
///
/// It comes out of a client as [`reqwest_middleware::Error::Middleware`]:
///
/// ```
/// # fn show(error: reqwest_middleware::Error) {
/// use reqwest_opencode_session::MissingSession;
///
/// if let reqwest_middleware::Error::Middleware(error) = &error {
///     if let Some(missing) = error.downcast_ref::<MissingSession>() {
///         eprintln!("{missing}");
///     }
/// }
/// # }
/// ```
///
/// [`Fallback::Reject`]: crate::Fallback::Reject
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[error(
    "no session for the request to {url}: put a `Session` into the request's extensions, \
     or run the call inside `.with_session(session)`"
)]
pub struct MissingSession {
    url: String,
}

impl MissingSession {
    pub(crate) fn new<U: RequestUrl + ?Sized>(url: &U) -> Self {
        let origin = url
            .origin()
            .map(|origin| origin.to_string())
            .unwrap_or_default();
        Self {
            url: origin + url.path(),
        }
    }

    /// The URL of the request, without user info, query and fragment.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// A redirect from a target to an address that is none.
///
/// It is the source of a [`reqwest::Error`] for which `is_redirect` is true.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[error(
    "the redirect from {from} to {to} was refused: {to} is no target, so the session must not \
     go there; if it should, add it as a `Target`"
)]
pub struct RedirectRefused {
    from: String,
    to: String,
}

impl RedirectRefused {
    // In the browser, redirects are none of ours.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn new(from: &reqwest::Url, to: &reqwest::Url) -> Self {
        let [from, to] = [from, to].map(|url| url.origin().ascii_serialization());
        Self { from, to }
    }

    /// The origin that redirected.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The origin that it redirected to.
    pub fn to(&self) -> &str {
        &self.to
    }
}
