//! The headers that the gateways read, and the rule for the values that this crate sends.

use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use uuid::Uuid;

use crate::error::impl_debug;

// Each stands below both as a constant of its own and in a list.
const SESSION_NAME: &str = "x-opencode-session";
const TURN_NAME: &str = "x-opencode-request";
const OTHER_TURN_NAME: &str = "x-opencode-request-id";
const PARENT_SESSION_NAME: &str = "x-parent-session-id";

/// `x-opencode-session`: one stable id per conversation; the gateway routes by it.
pub const SESSION: HeaderName = HeaderName::from_static(SESSION_NAME);

/// `x-opencode-request`: one id per turn, the same for every call that belongs to it.
pub const TURN: HeaderName = HeaderName::from_static(TURN_NAME);

/// `x-opencode-client`: the client's name, for the gateway's statistics.
pub const CLIENT: HeaderName = HeaderName::from_static("x-opencode-client");

/// `x-opencode-project`: an opaque name of the project that the conversation is about.
pub const PROJECT: HeaderName = HeaderName::from_static("x-opencode-project");

/// `x-parent-session-id`: in a subagent's calls, the session that started it.
pub const PARENT_SESSION: HeaderName = HeaderName::from_static(PARENT_SESSION_NAME);

/// Another name for [`TURN`]: if a request has both, the gateway reads this one.
pub(crate) const OTHER_TURN: HeaderName = HeaderName::from_static(OTHER_TURN_NAME);

/// `x-session-affinity`: what OpenCode's client sends to providers that are not OpenCode.
pub(crate) const AFFINITY: &str = "x-session-affinity";

/// Every header that OpenCode's gateways take a session from, in the order that we read them.
pub(crate) const SESSION_NAMES: [&str; 5] = [
    SESSION_NAME,
    "session_id",
    "session-id",
    "x-session-id",
    "x-claude-code-session-id",
];

/// The headers that belong to a session, and are never sent with another one.
pub(crate) const TURN_AND_PARENT: [&str; 3] = [TURN_NAME, OTHER_TURN_NAME, PARENT_SESSION_NAME];

/// OpenCode's headers other than the session's.
pub(crate) const OPENCODE_ONLY: [HeaderName; 5] =
    [TURN, OTHER_TURN, CLIENT, PROJECT, PARENT_SESSION];

/// Returns whether a header's name suggests a key or a cookie, of any service.
pub(crate) fn is_secret(name: &HeaderName) -> bool {
    const PARTS: [&str; 9] = [
        "auth",
        "cookie",
        "credential",
        "jwt",
        "key",
        "passw",
        "secret",
        "signature",
        "token",
    ];
    PARTS.iter().any(|part| name.as_str().contains(part))
}

/// The longest value, in characters, that this crate sends in a header of its own.
///
/// The gateway's routing table has room for 255 characters of `model/session`.
const MAX_LENGTH: usize = 128;

/// A string that is not valid as an id, a client's name, a project or a user agent.
///
/// A valid value has 1 to 128 visible ASCII characters (0x21 to 0x7E). In a user agent, spaces may
/// separate words.
#[derive(Clone, PartialEq, Eq, Hash, Error)]
#[error("{}{}", self.rule(), self.hint())]
#[non_exhaustive]
pub enum InvalidValue {
    /// The value is empty.
    Empty,
    /// The value has more than 128 characters.
    #[non_exhaustive]
    TooLong {
        /// How many characters it has.
        length: usize,
    },
    /// The value would be valid without the white space around it, such as the newline at the end
    /// of a file.
    #[non_exhaustive]
    Untrimmed {
        /// How many characters come before the first one that is too much.
        position: usize,
        /// That character.
        character: char,
    },
    /// The value contains a character that is not visible ASCII (0x21 to 0x7E).
    #[non_exhaustive]
    IllegalCharacter {
        /// How many characters come before it.
        position: usize,
        /// The character.
        character: char,
    },
}

impl_debug!(InvalidValue);

impl InvalidValue {
    /// Says which rule the value breaks.
    pub(crate) fn rule(&self) -> String {
        let is = |position, character: &char| {
            format!("character {} of the value is {character:?}", position + 1)
        };
        match self {
            Self::Empty => {
                format!("the value is empty; give it 1 to {MAX_LENGTH} visible ASCII characters")
            }
            Self::TooLong { length } => {
                format!("the value has {length} characters, and at most {MAX_LENGTH} are allowed")
            }
            Self::Untrimmed {
                position,
                character,
            } => format!("trim the value: {}", is(position, character)),
            Self::IllegalCharacter {
                position,
                character,
            } => format!(
                "{}, and only visible ASCII is allowed",
                is(position, character)
            ),
        }
    }

    /// Says how any text becomes an id.
    fn hint(&self) -> &'static str {
        match self {
            Self::Empty | Self::Untrimmed { .. } => "",
            Self::TooLong { .. } | Self::IllegalCharacter { .. } => {
                "; `SessionId::derive` derives a valid id from any text"
            }
        }
    }
}

/// Accepts 1 to [`MAX_LENGTH`] visible ASCII characters (0x21 to 0x7E).
pub(crate) fn token(value: &str) -> Result<HeaderValue, InvalidValue> {
    checked(value, |character| character.is_ascii_graphic())
}

/// Like [`token`], but also accepts spaces between words.
pub(crate) fn words(value: &str) -> Result<HeaderValue, InvalidValue> {
    checked(value, |character| {
        character.is_ascii_graphic() || character == ' '
    })
}

fn checked(value: &str, is_legal: impl Fn(char) -> bool) -> Result<HeaderValue, InvalidValue> {
    if value.is_empty() {
        return Err(InvalidValue::Empty);
    }
    let trimmed = value.trim();
    let start = value.len() - value.trim_start().len();
    let inner = start..start + trimmed.len();
    let illegal = value
        .char_indices()
        .enumerate()
        .find(|&(_, (at, character))| !inner.contains(&at) || !is_legal(character));
    if let Some((position, (_, character))) = illegal {
        let is_valid_when_trimmed =
            (1..=MAX_LENGTH).contains(&trimmed.len()) && trimmed.chars().all(is_legal);
        return Err(match is_valid_when_trimmed {
            true => InvalidValue::Untrimmed {
                position,
                character,
            },
            false => InvalidValue::IllegalCharacter {
                position,
                character,
            },
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
#[derive(Debug, Clone, Copy)]
pub(crate) enum Existing<'a> {
    Nothing,
    /// Different values, or one that [`token`] would refuse.
    Malformed,
    Token(&'a HeaderValue),
    /// The same token several times, which counts as one.
    Repeated(&'a HeaderValue),
}

impl<'a> Existing<'a> {
    pub fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        // Scanning the few names takes 100 fewer instructions than a look-up.
        let values = headers.iter().filter(|(other, _)| *other == name);
        values.fold(Self::Nothing, |existing, (_, value)| existing.and(value))
    }

    fn and(self, value: &'a HeaderValue) -> Self {
        match self {
            Self::Nothing if is_token(value) => Self::Token(value),
            Self::Token(first) | Self::Repeated(first) if first == value => Self::Repeated(first),
            _ => Self::Malformed,
        }
    }

    pub fn token(self) -> Option<&'a HeaderValue> {
        match self {
            Self::Token(value) | Self::Repeated(value) => Some(value),
            Self::Nothing | Self::Malformed => None,
        }
    }
}

/// Which headers of a session a map contains, from one pass over its names.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Survey {
    /// The one that a target takes its session in.
    pub has_session: bool,
    /// Another of [`SESSION_NAMES`].
    pub has_other_name: bool,
    /// A turn or a parent.
    pub has_turn_or_parent: bool,
}

impl Survey {
    #[inline]
    pub fn of(headers: &HeaderMap, session_header: &HeaderName) -> Self {
        let mut survey = Self::default();
        let session_header = session_header.as_str();
        for name in headers.keys() {
            let name = name.as_str();
            if name == session_header {
                survey.has_session = true;
            } else if let Some(b's' | b'x') = name.as_bytes().first() {
                // All of these begin so, and most others do not.
                survey.has_other_name |= SESSION_NAMES.contains(&name);
                survey.has_turn_or_parent |= TURN_AND_PARENT.contains(&name);
            }
        }
        survey
    }
}

/// A session that a request names in one of several headers.
pub(crate) struct Named<'a> {
    pub id: &'a HeaderValue,
    /// Whether the turn and the parent beside it are this session's: every header before this one
    /// was absent.
    pub has_turn_and_parent: bool,
}

impl<'a> Named<'a> {
    /// Returns the session in the first of these headers that names one.
    pub fn find(
        headers: &'a HeaderMap,
        names: impl IntoIterator<Item = &'static str>,
    ) -> Option<Self> {
        let mut has_turn_and_parent = true;
        names.into_iter().find_map(|name| {
            let existing = Existing::of(headers, &HeaderName::from_static(name));
            let named = existing.token().map(|id| Self {
                id,
                has_turn_and_parent,
            });
            has_turn_and_parent &= matches!(existing, Existing::Nothing);
            named
        })
    }
}

/// Returns the value of a header, if it has only one, and [`token`] would accept that.
pub(crate) fn sole_token<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    Existing::of(headers, name).token()
}

fn is_token(value: &HeaderValue) -> bool {
    // Without an early exit, the compiler can check many bytes together.
    (1..=MAX_LENGTH).contains(&value.len())
        && (value.as_bytes().iter()).fold(true, |all, byte| all & byte.is_ascii_graphic())
}
