//! The headers that the gateways read, and the rule for the values that this crate sends.

use std::ptr;

use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use uuid::Uuid;

/// `x-opencode-session`: one stable id per conversation; the gateway routes by it.
pub const SESSION: HeaderName = HeaderName::from_static("x-opencode-session");

/// `x-opencode-request`: one id per turn of the user, the same for every call made on its behalf.
pub const TURN: HeaderName = HeaderName::from_static("x-opencode-request");

/// `x-opencode-client`: the client's name, for the gateway's statistics.
pub const CLIENT: HeaderName = HeaderName::from_static("x-opencode-client");

/// `x-opencode-project`: an opaque name of the project that the conversation is about.
pub const PROJECT: HeaderName = HeaderName::from_static("x-opencode-project");

/// `x-parent-session-id`: in a subagent's calls, the session that started it.
pub const PARENT_SESSION: HeaderName = HeaderName::from_static("x-parent-session-id");

/// Another name of [`TURN`]: where both are on a request, the gateway reads this one.
pub(crate) const OTHER_TURN: HeaderName = HeaderName::from_static("x-opencode-request-id");

/// `x-session-affinity`: what OpenCode's client sends to providers that are not OpenCode.
pub(crate) const AFFINITY: HeaderName = HeaderName::from_static("x-session-affinity");

/// Every header that the gateways of OpenCode take a session from, the first one first.
pub(crate) const SESSION_NAMES: [HeaderName; 5] = [
    SESSION,
    HeaderName::from_static("session_id"),
    HeaderName::from_static("session-id"),
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("x-claude-code-session-id"),
];

/// The longest value, in characters, that this crate sends in a header of its own.
///
/// The gateway's routing table has 255 characters for `model/session`.
const MAX_LENGTH: usize = 128;

/// A string that this crate does not send as a header's value: an id, a client's name, a project
/// or a user agent.
///
/// Such a value has 1 to 128 visible ASCII characters (0x21 to 0x7E). In a user agent, spaces may
/// separate words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// It has no characters.
    #[error("the value is empty; it must have 1 to {MAX_LENGTH} visible ASCII characters")]
    Empty,
    /// It has more than 128 characters.
    #[error(
        "the value has {length} characters, and at most {MAX_LENGTH} are allowed; \
         for an id, `SessionId::derive` derives a short one from any text"
    )]
    #[non_exhaustive]
    TooLong {
        /// How many characters it has.
        length: usize,
    },
    /// It holds a character that is not visible ASCII (0x21 to 0x7E).
    #[error(
        "character {} of the value is {character:?}, and only visible ASCII is allowed; \
         for an id, `SessionId::derive` derives a valid one from any text", position + 1
    )]
    #[non_exhaustive]
    IllegalCharacter {
        /// How many characters stand before it.
        position: usize,
        /// The character.
        character: char,
    },
}

/// A value of 1 to [`MAX_LENGTH`] visible ASCII characters (0x21 to 0x7E).
pub(crate) fn token(value: &str) -> Result<HeaderValue, InvalidValue> {
    checked(value, |_, character| character.is_ascii_graphic())
}

/// As [`token`], with spaces allowed between the words.
pub(crate) fn words(value: &str) -> Result<HeaderValue, InvalidValue> {
    let inner =
        value.len() - value.trim_start_matches(' ').len()..value.trim_end_matches(' ').len();
    checked(value, |at, character| {
        character.is_ascii_graphic() || (character == ' ' && inner.contains(&at))
    })
}

fn checked(value: &str, legal: impl Fn(usize, char) -> bool) -> Result<HeaderValue, InvalidValue> {
    if value.is_empty() {
        return Err(InvalidValue::Empty);
    }
    let illegal = value
        .char_indices()
        .enumerate()
        .find(|&(_, (at, character))| !legal(at, character));
    if let Some((position, (_, character))) = illegal {
        return Err(InvalidValue::IllegalCharacter {
            position,
            character,
        });
    }
    if value.len() > MAX_LENGTH {
        return Err(InvalidValue::TooLong {
            length: value.len(),
        });
    }
    Ok(shared(
        HeaderValue::from_str(value).expect("printable ASCII is a valid header value"),
    ))
}

/// A UUID in its usual form: 36 characters, lower case, with hyphens.
pub(crate) fn uuid(id: Uuid) -> HeaderValue {
    let text = &mut Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(text);
    shared(HeaderValue::from_str(text).expect("a UUID is a valid header value"))
}

/// The same value, whose clones no longer allocate.
fn shared(value: HeaderValue) -> HeaderValue {
    // The first clone of its bytes moves them behind a reference count: better now than in a
    // request.
    drop(value.clone());
    value
}

/// What a map holds under one name.
pub(crate) enum Existing<'a> {
    Nothing,
    /// Several values, or one that does not obey the rule of [`token`].
    Malformed,
    Token(&'a HeaderValue),
}

impl<'a> Existing<'a> {
    pub fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        // A look at the few names that there are takes less than a look-up: 100 instructions less.
        let Some(key) = headers.keys().find(|other| *other == name) else {
            return Self::Nothing;
        };
        // The map lends a name from one place, whose address costs less to compare: 67 less.
        let mut values = headers.iter().filter(|(other, _)| ptr::eq(*other, key));
        match (values.next(), values.next()) {
            (Some((_, value)), None) if is_token(value) => Self::Token(value),
            _ => Self::Malformed,
        }
    }
}

/// The value of a header that is there exactly once and obeys the rule of [`token`].
pub(crate) fn sole_token<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    match Existing::of(headers, name) {
        Existing::Token(value) => Some(value),
        Existing::Nothing | Existing::Malformed => None,
    }
}

fn is_token(value: &HeaderValue) -> bool {
    // No early exit: so the compiler checks many bytes at once.
    (1..=MAX_LENGTH).contains(&value.len())
        && (value.as_bytes().iter()).fold(true, |all, byte| all & byte.is_ascii_graphic())
}
