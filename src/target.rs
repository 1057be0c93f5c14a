//! Which requests get a session, and in which header: those whose origin is a target.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use thiserror::Error;
use url::Url;

use crate::error::impl_debug;
use crate::header;
use crate::origin::{RequestUrl, Scheme, parse_port, with_host};

/// An address whose requests get a session: an origin, or the subdomains of one.
///
/// A target is written as its scheme, its host and, unless it is the scheme's default, its port:
/// `https://opencode.ai`, `http://127.0.0.1:8080`, `https://*.example.com`.
///
/// # What it matches
///
/// - Scheme, host and port must all be the target's. An `http` URL matches only an `http` target.
/// - Hosts are compared whole, in any case, and one trailing dot is ignored.
/// - `*.` stands for one or more whole labels: `https://*.example.com` matches
///   `https://a.b.example.com`, but neither `https://example.com` nor `https://badexample.com`.
/// - User info, path, query and fragment are ignored.
///
/// ```
/// use reqwest_opencode_session::Target;
///
/// let target: Target = "https://*.example.com".parse()?;
/// assert!(target.matches(&"https://eu.example.com/v1".parse::<http::Uri>()?));
/// assert!(!target.matches(&"https://example.com.evil.test/v1".parse::<http::Uri>()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it receives
///
/// A target receives the headers that OpenCode's gateways read, unless it names a
/// [session header](Self::session_header) of its own.
///
/// # Serde
///
/// With the feature `serde`, a target is its origin as a string or, if it has a session header of
/// its own, a map: `{"origin": "https://openrouter.ai", "session_header": "x-session-id"}`. Reading
/// either takes a self-describing format, such as JSON or TOML.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    scheme: Scheme,
    /// In lower case and without a trailing dot.
    host: Cow<'static, str>,
    port: u16,
    subdomains: bool,
    /// The header that it takes a session in, if it does not take OpenCode's headers.
    session_header: Option<HeaderName>,
}

/// `https://*.opencode.ai`, where the staging hosts are, and `https://opencode.ai`.
static OPENCODE: [Target; 2] = [Target::of_opencode(true), Target::of_opencode(false)];

impl Target {
    const fn of_opencode(subdomains: bool) -> Self {
        Self {
            scheme: Scheme::Https,
            host: Cow::Borrowed("opencode.ai"),
            port: Scheme::Https.default_port(),
            subdomains,
            session_header: None,
        }
    }

    /// Returns whether this target matches a URL.
    pub fn matches<U: RequestUrl + ?Sized>(&self, url: &U) -> bool {
        with_host(url, |host| self.matches_host(host, url))
    }

    /// Sets the session header of this target, for a gateway that does not take OpenCode's.
    ///
    /// Requests to it get their session's id in that header, and nothing else from this crate: no
    /// turn, parent, client's name, project or user agent.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidTarget::InvalidHeader`] if the name is not that of a header, and
    /// [`InvalidTarget::ReservedHeader`] if the header has another meaning:
    ///
    /// | meaning | names |
    /// |---|---|
    /// | credentials | that contain `auth`, `credential`, `jwt`, `key`, `passw`, `secret`, `signature` or `token` |
    /// | cookies | that contain `cookie` |
    /// | forwarding | that contain `forwarded`, or `ip` as a word between hyphens; `from`, `origin`, `referer`, `via` |
    /// | transport | that begin with `proxy-` or `sec-`; hop-by-hop headers; `date`, `expect`, `host`, `max-forwards` |
    /// | content | that begin with `accept` or `content-`; `digest`, `range` |
    /// | caching | that begin with `cache-`, `cdn-cache-` or `if-`; `age`, `etag`, `expires`, `last-modified`, `pragma`, `vary`, `warning` |
    /// | an id that the server gives | `mcp-session-id`, `last-event-id` |
    /// | what the client says of itself | `user-agent`, `dnt` |
    /// | answers | that HTTP defines for them, such as `location` |
    /// | OpenCode | its headers other than the session's |
    ///
    /// ```
    /// use reqwest_opencode_session::Target;
    ///
    /// let target = "https://openrouter.ai".parse::<Target>()?.session_header("x-session-id")?;
    /// # Ok::<(), reqwest_opencode_session::InvalidTarget>(())
    /// ```
    pub fn session_header(self, name: impl AsRef<str>) -> Result<Self, InvalidTarget> {
        let name = name.as_ref();
        let invalid = || InvalidTarget::InvalidHeader {
            name: name.to_owned(),
        };
        let header = HeaderName::from_str(name).map_err(|_| invalid())?;
        if let Some(purpose) = reserved_for(&header) {
            return Err(InvalidTarget::ReservedHeader {
                name: name.to_owned(),
                purpose,
            });
        }
        Ok(Self {
            session_header: Some(header),
            ..self
        })
    }

    /// Returns what it matches: all of it except the session header.
    pub(crate) fn origin(&self) -> (Scheme, &str, u16, bool) {
        (self.scheme, &self.host, self.port, self.subdomains)
    }

    /// Returns what a request to this target carries.
    pub(crate) fn dialect(&self) -> Dialect<'_> {
        match &self.session_header {
            None => Dialect::OpenCode,
            Some(header) => Dialect::Other(header),
        }
    }

    /// Returns whether the URL's text alone shows a match: the target's own host after its scheme,
    /// in lower case, with neither user info nor a port.
    fn matches_text<U: RequestUrl + ?Sized>(&self, url: &U) -> bool {
        let is_host = |authority: &str| {
            matches!(authority.as_bytes().get(self.host.len()), None | Some(b'/'))
                && authority.starts_with(&*self.host)
        };
        url.after_scheme(self.scheme).is_some_and(is_host)
            && !self.subdomains
            && self.port == self.scheme.default_port()
    }

    // The host comes first, because it differs most often.
    #[inline]
    fn matches_host<U: RequestUrl + ?Sized>(&self, host: &str, url: &U) -> bool {
        let (host, own) = (host.as_bytes(), self.host.as_bytes());
        let is_host = if self.subdomains {
            host.strip_suffix(own)
                .and_then(|rest| rest.strip_suffix(b"."))
                .is_some_and(are_whole_labels)
        } else {
            host == own
        };
        is_host
            && Scheme::of(url) == Some(self.scheme)
            && url.port_or(self.scheme.default_port()) == Some(self.port)
    }
}

fn are_whole_labels(labels: &[u8]) -> bool {
    labels
        .split(|&byte| byte == b'.')
        .all(|label| !label.is_empty())
}

/// What the requests to a target carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect<'a> {
    /// All of OpenCode's headers.
    OpenCode,
    /// The session in this header, and nothing else.
    Other(&'a HeaderName),
}

impl<'a> Dialect<'a> {
    /// Returns the header that carries the session.
    pub fn session_header(self) -> &'a HeaderName {
        static SESSION: HeaderName = header::SESSION;
        match self {
            Self::OpenCode => &SESSION,
            Self::Other(header) => header,
        }
    }
}

/// The targets of one middleware.
#[derive(Debug, Clone)]
pub(crate) struct Targets(Cow<'static, [Target]>);

impl Targets {
    /// `https://opencode.ai` and its subdomains.
    pub const fn opencode() -> Self {
        Self(Cow::Borrowed(&OPENCODE))
    }

    pub fn as_slice(&self) -> &[Target] {
        &self.0
    }

    pub fn push(&mut self, target: Target) {
        self.0.to_mut().push(target);
    }

    /// Returns what a request to this URL carries, if it is a target. If several targets match, the
    /// last one decides.
    pub fn find<U: RequestUrl + ?Sized>(&self, url: &U) -> Option<Dialect<'_>> {
        // The last one is tried first anyway, and its text is nearly always enough.
        if let Some(target) = self.0.last().filter(|target| target.matches_text(url)) {
            return Some(target.dialect());
        }
        let found = with_host(url, |host| {
            let mut targets = self.0.iter().rev();
            targets.find(|target| target.matches_host(host, url))
        });
        match found {
            Some(target) => Some(target.dialect()),
            #[cfg(feature = "testing")]
            None => implicit::find(url),
            #[cfg(not(feature = "testing"))]
            None => None,
        }
    }
}

impl FromIterator<Target> for Targets {
    fn from_iter<I: IntoIterator<Item = Target>>(targets: I) -> Self {
        Self(targets.into_iter().collect())
    }
}

/// The gateways of `testing` that run in this process: targets of every middleware that has no
/// other target for their URL.
#[cfg(feature = "testing")]
pub(crate) mod implicit {
    use std::sync::{PoisonError, RwLock};

    use super::{Dialect, RequestUrl, Target};

    static RUNNING: RwLock<Vec<Target>> = RwLock::new(Vec::new());

    /// Makes origins targets until it is dropped.
    #[derive(Debug)]
    pub struct Guard(Vec<Target>);

    impl Guard {
        pub fn new(origins: Vec<Target>) -> Self {
            let mut running = RUNNING.write().unwrap_or_else(PoisonError::into_inner);
            running.extend_from_slice(&origins);
            Self(origins)
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let mut running = RUNNING.write().unwrap_or_else(PoisonError::into_inner);
            // Only once each: another gateway may be the same target.
            for target in &self.0 {
                let same = running.iter().position(|other| other == target);
                same.map(|index| running.swap_remove(index));
            }
        }
    }

    pub(super) fn find<U: RequestUrl + ?Sized>(url: &U) -> Option<Dialect<'static>> {
        let running = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
        let is_running = running.iter().any(|target| target.matches(url));
        is_running.then_some(Dialect::OpenCode)
    }
}

/// Returns what a header is reserved for, or `None` if it can be a session header.
///
/// The documentation of [`Target::session_header`] states the rule.
fn reserved_for(header: &HeaderName) -> Option<&'static str> {
    let name = header.as_str();
    let is = |names: &[&str]| names.contains(&name);
    let begins = |beginnings: &[&str]| beginnings.iter().any(|it| name.starts_with(it));
    let has_word = |word| name.split(['-', '_', '.']).any(|own| own == word);
    Some(
        if header::OPENCODE_ONLY.contains(header) || is(&["x-opencode-org-id"]) {
            "OpenCode"
        } else if is(&["last-event-id", "mcp-session-id"]) {
            "an id that the server gives"
        } else if begins(&["access-control-", "public-key-pins"]) || is(&ANSWERS) {
            "answers"
        } else if name.contains("cookie") {
            "cookies"
        } else if header::is_secret(header) {
            "credentials"
        } else if name.contains("forwarded") || has_word("ip") || is(&FORWARDING) {
            "forwarding"
        } else if begins(&["proxy-", "sec-"]) || is(&TRANSPORT) {
            "transport"
        } else if begins(&["cache-", "cdn-cache-", "if-"]) || is(&CACHING) {
            "caching"
        } else if begins(&["accept", "content-"]) || is(&["digest", "range"]) {
            "content"
        } else if is(&["dnt", "user-agent"]) {
            "what the client says of itself"
        } else {
            return None;
        },
    )
}

const ANSWERS: [&str; 13] = [
    "allow",
    "alt-svc",
    "link",
    "location",
    "referrer-policy",
    "refresh",
    "retry-after",
    "server",
    "strict-transport-security",
    "x-content-type-options",
    "x-dns-prefetch-control",
    "x-frame-options",
    "x-xss-protection",
];

const FORWARDING: [&str; 4] = ["from", "origin", "referer", "via"];

const TRANSPORT: [&str; 12] = [
    "connection",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
];

const CACHING: [&str; 7] = [
    "age",
    "etag",
    "expires",
    "last-modified",
    "pragma",
    "vary",
    "warning",
];

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(target: &str) -> Result<Self, InvalidTarget> {
        if let Some((position, character)) = target
            .chars()
            .enumerate()
            .find(|(_, character)| !character.is_ascii_graphic())
        {
            return Err(InvalidTarget::IllegalCharacter {
                position,
                character,
            });
        }
        let (scheme, rest) = target
            .split_once("://")
            .filter(|(scheme, _)| !scheme.is_empty())
            .ok_or(InvalidTarget::NoScheme)?;
        let scheme = Scheme::parse(scheme).ok_or_else(|| InvalidTarget::UnknownScheme {
            scheme: scheme.to_owned(),
        })?;
        let (authority, rest) =
            rest.split_at(rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(InvalidTarget::UserInfo);
        }
        if !matches!(rest, "" | "/") {
            return Err(InvalidTarget::NotAnOrigin {
                position: target.len() - rest.len(),
            });
        }
        let (name, port) = split_port(authority)?;
        let (subdomains, name) = match name.strip_prefix("*.") {
            Some(parent) => (true, parent),
            None => (false, name),
        };
        let (host, is_name) = parse_host(name)?;
        // Including one that was written as `%2a`.
        if host.contains('*') || (subdomains && !is_name) {
            return Err(InvalidTarget::BadWildcard);
        }
        Ok(Self {
            scheme,
            host: host.into(),
            port: port.unwrap_or(scheme.default_port()),
            subdomains,
            session_header: None,
        })
    }
}

impl TryFrom<&str> for Target {
    type Error = InvalidTarget;

    fn try_from(target: &str) -> Result<Self, InvalidTarget> {
        target.parse()
    }
}

impl TryFrom<String> for Target {
    type Error = InvalidTarget;

    fn try_from(target: String) -> Result<Self, InvalidTarget> {
        target.parse()
    }
}

/// Writes the target's origin, in the form in which it is parsed.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = if self.subdomains { "*." } else { "" };
        write!(f, "{}://{labels}{}", self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
mod written {
    use std::fmt;

    use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
    use serde::de::{Error, MapAccess, SeqAccess, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Target;

    /// A target with a session header of its own.
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct WithHeader {
        origin: String,
        session_header: String,
    }

    impl Serialize for Target {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let origin = self.to_string();
            match &self.session_header {
                None => origin.serialize(serializer),
                Some(header) => WithHeader {
                    origin,
                    session_header: header.to_string(),
                }
                .serialize(serializer),
            }
        }
    }

    impl<'de> Deserialize<'de> for Target {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(TargetVisitor)
        }
    }

    struct TargetVisitor;

    impl<'de> Visitor<'de> for TargetVisitor {
        type Value = Target;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(
                "an origin such as `https://opencode.ai`, or a map of `origin` and `session_header`",
            )
        }

        fn visit_str<E: Error>(self, origin: &str) -> Result<Target, E> {
            origin.parse().map_err(E::custom)
        }

        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Target, M::Error> {
            self.with_header(WithHeader::deserialize(MapAccessDeserializer::new(map))?)
        }

        // MessagePack writes a struct like this.
        fn visit_seq<S: SeqAccess<'de>>(self, fields: S) -> Result<Target, S::Error> {
            self.with_header(WithHeader::deserialize(SeqAccessDeserializer::new(fields))?)
        }
    }

    impl TargetVisitor {
        fn with_header<E: Error>(self, written: WithHeader) -> Result<Target, E> {
            let target = self.visit_str(&written.origin)?;
            target
                .session_header(written.session_header)
                .map_err(E::custom)
        }
    }
}

/// Splits an authority without user info into host and port.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), InvalidTarget> {
    let bracket = authority.rfind(']').unwrap_or(0);
    let Some(colon) = authority[bracket..].find(':') else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(bracket + colon);
    let port = &port[1..];
    match parse_port(port) {
        Some(number) => Ok((host, Some(number))),
        None => Err(InvalidTarget::InvalidPort {
            port: port.to_owned(),
        }),
    }
}

/// Returns the host as URLs spell it, without a trailing dot, and whether it is a name rather than
/// an address.
fn parse_host(host: &str) -> Result<(String, bool), InvalidTarget> {
    let invalid = |reason: String| InvalidTarget::InvalidHost {
        host: host.to_owned(),
        reason,
    };
    if host.is_empty() {
        return Err(InvalidTarget::EmptyHost);
    }
    let url = Url::parse(&format!("https://{host}")).map_err(|error| invalid(error.to_string()))?;
    let Some(name) = url.domain() else {
        return Ok((url.host_str().unwrap_or_default().to_owned(), false));
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    // The limits of DNS: RFC 1035, section 2.3.4.
    if name.len() > 253
        || name
            .split('.')
            .any(|label| !(1..=63).contains(&label.len()))
    {
        return Err(invalid(
            "a name has at most 253 characters, in labels of 1 to 63".to_owned(),
        ));
    }
    Ok((name.to_owned(), true))
}

/// A string that is not a [`Target`], or a header that a target cannot take a session in.
#[derive(Clone, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum InvalidTarget {
    /// The target does not begin with a scheme and `://`.
    #[error("the target has no scheme; write it as in `https://opencode.ai`")]
    NoScheme,
    /// The scheme is neither `http` nor `https`.
    #[error("the target's scheme is `{scheme}`; it must be `https` or `http`")]
    #[non_exhaustive]
    UnknownScheme {
        /// The scheme.
        scheme: String,
    },
    /// The target contains a character that is not visible ASCII (0x21 to 0x7E).
    #[error(
        "character {} of the target is {character:?}, and only visible ASCII is allowed; \
         write an international name in its `xn--` form", position + 1
    )]
    #[non_exhaustive]
    IllegalCharacter {
        /// How many characters come before it.
        position: usize,
        /// The character.
        character: char,
    },
    /// The target contains a user name or a password.
    #[error("the target has user info before an `@`; leave it out, because matching ignores it")]
    UserInfo,
    /// The target has no host.
    #[error("the target has no host; write it as in `https://opencode.ai`")]
    EmptyHost,
    /// The host is not one that a URL can have.
    #[error("the target's host `{host}` is not valid: {reason}")]
    #[non_exhaustive]
    InvalidHost {
        /// The host, as it was written.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The host has a `*` that is not the whole first label before a name.
    #[error(
        "the target's `*` must be the whole first label before a name, \
         as in `https://*.example.com`"
    )]
    BadWildcard,
    /// The port is not a number from 1 to 65535.
    #[error("the target's port is `{port}`; it must be a number from 1 to 65535")]
    #[non_exhaustive]
    InvalidPort {
        /// What follows the host's colon.
        port: String,
    },
    /// The target has a path, a query or a fragment.
    #[error(
        "the target continues after host and port, at character {}; \
         leave out path, query and fragment", position + 1
    )]
    #[non_exhaustive]
    NotAnOrigin {
        /// How many characters come before the path, query or fragment.
        position: usize,
    },
    /// The session header cannot be the name of a header.
    #[error("the session header {name:?} is not a header's name; write it as in `x-session-id`")]
    #[non_exhaustive]
    InvalidHeader {
        /// The name, as it was written.
        name: String,
    },
    /// The session header has another meaning.
    #[error(
        "the session header `{name}` is reserved for {purpose}; \
         name the header in which the gateway takes a session, such as `x-session-id`"
    )]
    #[non_exhaustive]
    ReservedHeader {
        /// The name, as it was written.
        name: String,
        /// What the header is for.
        purpose: &'static str,
    },
}

impl_debug!(InvalidTarget);

/// So that a builder takes both a [`Target`] and a string that parses as one.
impl From<Infallible> for InvalidTarget {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
