//! What is compared and shown of a URL: its origin.

use http::Uri;
use url::{Host, Url};

/// The URL of a request: [`url::Url`], which is `reqwest::Url`, or [`http::Uri`].
///
/// This trait is sealed: it is implemented only for these types. A `Uri` without scheme and host,
/// such as the bare path that `hyper::client::conn` takes, is never for a target.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the URL of a request",
    note = "use a `url::Url`, which is `reqwest::Url`, or an `http::Uri`",
    note = "a string becomes one by `url.parse::<http::Uri>()?`"
)]
pub trait RequestUrl: sealed::RequestUrl {}

impl RequestUrl for Url {}
impl RequestUrl for Uri {}

/// The schemes that a target can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    pub fn parse(scheme: &str) -> Option<Self> {
        // A scheme is nearly always in lower case, which is faster to compare.
        match scheme {
            "https" => Some(Self::Https),
            "http" => Some(Self::Http),
            other => [Self::Https, Self::Http]
                .into_iter()
                .find(|known| other.eq_ignore_ascii_case(known.as_str())),
        }
    }

    pub fn of<U: RequestUrl + ?Sized>(url: &U) -> Option<Self> {
        Self::parse(url.scheme()?)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Calls `matches` with the URL's host as a [`Url`] spells it, and without a trailing dot.
pub(crate) fn with_host<U: RequestUrl + ?Sized, T: Default>(
    url: &U,
    matches: impl FnOnce(&str) -> T,
) -> T {
    let Some(host) = url.host() else {
        return T::default();
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let respelled = if U::IS_NORMALIZED {
        None
    } else {
        respelled(host)
    };
    matches(respelled.as_deref().unwrap_or(host))
}

/// Returns the host as a [`Url`] spells it, if that is another spelling.
fn respelled(host: &str) -> Option<String> {
    // Such as `127.1`, `0x7f000001` or `[0::1]`. Most names end in another letter.
    let may_be_address = host.ends_with(|end: char| end.is_ascii_hexdigit() || end == ']');
    if may_be_address && (host.starts_with('[') || starts_with_digit(last_label(host))) {
        return Host::parse(host).ok().map(|address| address.to_string());
    }
    let has_upper_case = host.bytes().any(|byte| byte.is_ascii_uppercase());
    has_upper_case.then(|| host.to_ascii_lowercase())
}

fn last_label(host: &str) -> &str {
    host.rfind('.').map_or(host, |dot| &host[dot + 1..])
}

fn starts_with_digit(label: &str) -> bool {
    label.starts_with(|start: char| start.is_ascii_digit())
}

/// Returns what an error may show of a URL: scheme, host and port, without user info. Empty if the
/// URL has no host.
pub(crate) fn origin<U: RequestUrl + ?Sized>(url: &U) -> String {
    let Some(host) = url.host() else {
        return String::new();
    };
    let default_port = Scheme::of(url).map_or(0, Scheme::default_port);
    let origin = match url.scheme() {
        Some(scheme) => format!("{scheme}://{host}"),
        None => host.to_owned(),
    };
    match url.port_or(default_port) {
        Some(port) if port != default_port => format!("{origin}:{port}"),
        _ => origin,
    }
}

/// Returns the port, if it is one.
pub(crate) fn parse_port(port: &str) -> Option<u16> {
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|&number| is_number && number > 0)
}

mod sealed {
    use super::{Scheme, Uri, Url, parse_port};

    pub trait RequestUrl {
        /// Returns the authority, perhaps with what follows it, if the URL has this scheme.
        fn after_scheme(&self, scheme: Scheme) -> Option<&str>;
        /// Whether scheme and host have only one spelling.
        const IS_NORMALIZED: bool;

        fn scheme(&self) -> Option<&str>;
        fn host(&self) -> Option<&str>;
        /// Returns the port, or the default one if the URL has none; `None` if it is not valid.
        fn port_or(&self, default: u16) -> Option<u16>;
        fn path(&self) -> &str;
    }

    /// Returns whether an authority is only a name.
    fn is_name(authority: &str) -> bool {
        !authority
            .bytes()
            .any(|byte| matches!(byte, b'@' | b'[' | b':'))
    }

    impl RequestUrl for Url {
        #[inline]
        fn after_scheme(&self, scheme: Scheme) -> Option<&str> {
            match scheme {
                Scheme::Http => self.as_str().strip_prefix("http://"),
                Scheme::Https => self.as_str().strip_prefix("https://"),
            }
        }

        const IS_NORMALIZED: bool = true;

        fn scheme(&self) -> Option<&str> {
            Some(self.scheme())
        }

        fn host(&self) -> Option<&str> {
            self.host_str()
        }

        fn port_or(&self, default: u16) -> Option<u16> {
            Some(self.port().unwrap_or(default))
        }

        fn path(&self) -> &str {
            self.path()
        }
    }

    impl RequestUrl for Uri {
        #[inline]
        fn after_scheme(&self, scheme: Scheme) -> Option<&str> {
            (self.scheme_str()? == scheme.as_str()).then_some(self.authority()?.as_str())
        }

        const IS_NORMALIZED: bool = false;

        fn scheme(&self) -> Option<&str> {
            self.scheme_str()
        }

        fn host(&self) -> Option<&str> {
            let authority = self.authority()?.as_str();
            // `Uri::host` would search it for user info, brackets and a port.
            if is_name(authority) {
                Some(authority)
            } else {
                self.host()
            }
        }

        fn port_or(&self, default: u16) -> Option<u16> {
            let authority = self.authority()?.as_str();
            if is_name(authority) {
                return Some(default);
            }
            // `Uri::port` accepts `+443`, and treats `65979` like no port.
            let after_user_info = authority.rsplit('@').next()?;
            match after_user_info.strip_prefix(self.host()?)? {
                "" | ":" => Some(default),
                port => parse_port(port.strip_prefix(':')?),
            }
        }

        fn path(&self) -> &str {
            self.path()
        }
    }
}
