//! Which requests get a session: those whose origin is a target.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::Uri;
use reqwest::Url;

use crate::error::InvalidTarget;

/// An origin, or the subdomains of one, whose requests get a session.
///
/// A target is written as its scheme, its host and, where it is not the scheme's own, its port:
/// `https://opencode.ai`, `http://127.0.0.1:8080`, `https://*.example.com`.
///
/// # What it matches
///
/// - Scheme, host and port must all be the target's. `http` is matched only where the target says
///   `http`.
/// - Hosts compare whole, in whatever case, and one trailing dot is ignored.
/// - `*.` stands for one or more whole labels: `https://*.example.com` matches
///   `https://a.b.example.com`, and neither `https://example.com` nor `https://badexample.com`.
/// - User info, path, query and fragment never matter.
///
/// ```
/// use reqwest_opencode_session::Target;
///
/// let target: Target = "https://*.example.com".parse()?;
/// assert!(target.matches(&"https://eu.example.com/v1".parse::<http::Uri>()?));
/// assert!(!target.matches(&"https://example.com.evil.test/v1".parse::<http::Uri>()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    origin: Origin<'static>,
    subdomains: bool,
}

impl Target {
    /// Whether a request to this URL gets a session.
    pub fn matches<U: RequestUrl + ?Sized>(&self, url: &U) -> bool {
        url.origin()
            .is_some_and(|origin| self.matches_origin(&origin))
    }

    pub(crate) fn matches_origin(&self, origin: &Origin<'_>) -> bool {
        let own = &self.origin;
        let host = origin.host.as_bytes();
        origin.port == own.port
            && origin.scheme == own.scheme
            && if self.subdomains {
                host.strip_suffix(own.host.as_bytes())
                    .and_then(|rest| rest.strip_suffix(b"."))
                    .is_some_and(|labels| {
                        labels
                            .split(|&byte| byte == b'.')
                            .all(|label| !label.is_empty())
                    })
            } else {
                host == own.host.as_bytes()
            }
    }

    /// `https://opencode.ai` and `https://*.opencode.ai`, where the staging hosts are.
    pub(crate) fn opencode() -> Vec<Self> {
        [false, true]
            .map(|subdomains| Self {
                origin: Origin {
                    scheme: Scheme::Https,
                    host: Cow::Borrowed("opencode.ai"),
                    port: Scheme::Https.default_port(),
                },
                subdomains,
            })
            .into()
    }
}

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
        let scheme =
            Scheme::parse(&lower_case(scheme)).ok_or_else(|| InvalidTarget::UnknownScheme {
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
        // Also one that was written as `%2a`.
        if host.contains('*') || (subdomains && !is_name) {
            return Err(InvalidTarget::BadWildcard);
        }
        let port = port.unwrap_or(scheme.default_port());
        Ok(Self {
            origin: Origin {
                scheme,
                host: host.into(),
                port,
            },
            subdomains,
        })
    }
}

impl TryFrom<&str> for Target {
    type Error = InvalidTarget;

    fn try_from(target: &str) -> Result<Self, InvalidTarget> {
        target.parse()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin
            .write(f, if self.subdomains { "*." } else { "" })
    }
}

/// Host and port of an authority without user info.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), InvalidTarget> {
    let end_of_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority[end_of_host..].find(':') else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(end_of_host + colon);
    let port = &port[1..];
    match parse_port(port) {
        Some(number) => Ok((host, Some(number))),
        None => Err(InvalidTarget::InvalidPort {
            port: port.to_owned(),
        }),
    }
}

fn parse_port(port: &str) -> Option<u16> {
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|&number| is_number && number > 0)
}

/// The host as URLs spell it, without a trailing dot, and whether it is a name and no address.
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
    let name = without_trailing_dot(name);
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

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

fn without_trailing_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// A URL of a request: [`reqwest::Url`], which is `url::Url`, or [`http::Uri`].
///
/// This trait is sealed: it is implemented here and nowhere else.
///
/// ```compile_fail
/// struct Address;
///
/// impl reqwest_opencode_session::RequestUrl for Address {}
/// ```
pub trait RequestUrl: sealed::Parts {}

impl<U: sealed::Parts + ?Sized> RequestUrl for U {}

/// The schemes that a target can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn parse(scheme: &str) -> Option<Self> {
        match scheme {
            "https" => Some(Self::Https),
            "http" => Some(Self::Http),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The part of a URL that targets look at. The host is in lower case and has no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin<'a> {
    scheme: Scheme,
    host: Cow<'a, str>,
    port: u16,
}

impl<'a> Origin<'a> {
    /// `None` where a target cannot have this scheme.
    fn new(scheme: &str, host: Cow<'a, str>, port: Option<u16>) -> Option<Self> {
        let scheme = Scheme::parse(scheme)?;
        Some(Self {
            scheme,
            host,
            port: port.unwrap_or(scheme.default_port()),
        })
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, before_host: &str) -> fmt::Result {
        write!(f, "{}://{before_host}{}", self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

mod sealed {
    use super::{Origin, Uri, Url, lower_case, parse_port, without_trailing_dot};

    pub trait Parts {
        fn origin(&self) -> Option<Origin<'_>>;
        fn path(&self) -> &str;
    }

    impl Parts for Url {
        fn origin(&self) -> Option<Origin<'_>> {
            // The parser has put both into lower case.
            let host = without_trailing_dot(self.host_str()?);
            Origin::new(self.scheme(), host.into(), self.port())
        }

        fn path(&self) -> &str {
            self.path()
        }
    }

    impl Parts for Uri {
        fn origin(&self) -> Option<Origin<'_>> {
            let host = self.host()?;
            let authority = self.authority()?.as_str();
            // `Uri::port` takes `+443` for a port and `65979` for none.
            let port = match authority.rsplit('@').next()?.strip_prefix(host)? {
                "" | ":" => None,
                rest => Some(parse_port(rest.strip_prefix(':')?)?),
            };
            let host = lower_case(without_trailing_dot(host));
            Origin::new(&lower_case(self.scheme_str()?), host, port)
        }

        fn path(&self) -> &str {
            self.path()
        }
    }
}
