//! The headers that the gateways read, and the rule for the values that this crate sends.

use std::ptr;

use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use uuid::Uuid;

/// `x-opencode-session`: one stable id per conversation; the gateway routes by it.
pub const SESSION: HeaderName = HeaderName::from_static("x-opencode-session");

/// `x-opencode-request`: one id per turn, the same for every call that belongs to it.
pub const TURN: HeaderName = HeaderName::from_static("x-opencode-request");

/// `x-opencode-client`: the client's name, for the gateway's statistics.
pub const CLIENT: HeaderName = HeaderName::from_static("x-opencode-client");

/// `x-opencode-project`: an opaque name of the project that the conversation is about.
pub const PROJECT: HeaderName = HeaderName::from_static("x-opencode-project");

/// `x-parent-session-id`: in a subagent's calls, the session that started it.
pub const PARENT_SESSION: HeaderName = HeaderName::from_static("x-parent-session-id");

/// Another name for [`TURN`]: if a request has both, the gateway reads this one.
pub(crate) const OTHER_TURN: HeaderName = HeaderName::from_static("x-opencode-request-id");

/// `x-session-affinity`: what OpenCode's client sends to providers that are not OpenCode.
pub(crate) const AFFINITY: HeaderName = HeaderName::from_static("x-session-affinity");

/// Every header that OpenCode's gateways take a session from, in the order that we read them.
pub(crate) const SESSION_NAMES: [HeaderName; 5] = [
    SESSION,
    HeaderName::from_static("session_id"),
    HeaderName::from_static("session-id"),
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("x-claude-code-session-id"),
];

/// OpenCode's headers other than the session's.
pub(crate) const OPENCODE_ONLY: [HeaderName; 5] =
    [TURN, OTHER_TURN, CLIENT, PROJECT, PARENT_SESSION];

/// The longest value, in characters, that this crate sends in a header of its own.
///
/// The gateway's routing table has room for 255 characters of `model/session`.
const MAX_LENGTH: usize = 128;

/// A string that is not valid as an id, a client's name, a project or a user agent.
///
/// A valid value has 1 to 128 visible ASCII characters (0x21 to 0x7E). In a user agent, spaces may
/// separate words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// The value is empty.
    #[error("the value is empty; it must have 1 to {MAX_LENGTH} visible ASCII characters")]
    Empty,
    /// The value has more than 128 characters.
    #[error(
        "the value has {length} characters, and at most {MAX_LENGTH} are allowed; \
         for an id, `SessionId::derive` derives a short one from any text"
    )]
    #[non_exhaustive]
    TooLong {
        /// How many characters it has.
        length: usize,
    },
    /// The value contains a character that is not visible ASCII (0x21 to 0x7E).
    #[error(
        "character {} of the value is {character:?}, and only visible ASCII is allowed; \
         for an id, `SessionId::derive` derives a valid one from any text", position + 1
    )]
    #[non_exhaustive]
    IllegalCharacter {
        /// How many characters come before it.
        position: usize,
        /// The character.
        character: char,
    },
}

/// Accepts 1 to [`MAX_LENGTH`] visible ASCII characters (0x21 to 0x7E).
pub(crate) fn token(value: &str) -> Result<HeaderValue, InvalidValue> {
    checked(value, |_, character| character.is_ascii_graphic())
}

/// Like [`token`], but also accepts spaces between words.
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

/// Formats a UUID in its usual form: 36 characters, lower case, with hyphens.
pub(crate) fn uuid(id: Uuid) -> HeaderValue {
    let text = &mut Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(text);
    shared(HeaderValue::from_str(text).expect("a UUID is a valid header value"))
}

/// Returns the same value in a form whose clones do not allocate.
fn shared(value: HeaderValue) -> HeaderValue {
    // The first clone moves the bytes behind a reference count: better now than in a request.
    drop(value.clone());
    value
}

/// What a map contains under one name.
pub(crate) enum Existing<'a> {
    Nothing,
    /// Several values, or one that [`token`] would refuse.
    Malformed,
    Token(&'a HeaderValue),
}

impl<'a> Existing<'a> {
    pub fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        // Scanning the few names takes 100 fewer instructions than a look-up.
        let Some(key) = headers.keys().find(|other| *other == name) else {
            return Self::Nothing;
        };
        // The map lends each name from one place: comparing addresses takes 67 fewer instructions.
        let mut values = headers.iter().filter(|(other, _)| ptr::eq(*other, key));
        match (values.next(), values.next()) {
            (Some((_, value)), None) if is_token(value) => Self::Token(value),
            _ => Self::Malformed,
        }
    }
}

/// Returns the value of a header that appears exactly once, if [`token`] would accept it.
pub(crate) fn sole_token<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    match Existing::of(headers, name) {
        Existing::Token(value) => Some(value),
        Existing::Nothing | Existing::Malformed => None,
    }
}

fn is_token(value: &HeaderValue) -> bool {
    // Without an early exit, the compiler can check many bytes together.
    (1..=MAX_LENGTH).contains(&value.len())
        && (value.as_bytes().iter()).fold(true, |all, byte| all & byte.is_ascii_graphic())
}
