//! The rules of targets, session ids and incoming headers, read naively, and checks of the library
//! against that reading. The properties and the fuzz targets both call them.

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use reqwest::Url;
use reqwest_opencode_session::{
    InvalidSessionId, InvalidTarget, OpencodeSessionMiddleware, Session, SessionId, Target, header,
};

/// The headers that a session is read from, the first one first.
pub const SESSION_NAMES: [&str; 5] = [
    "x-opencode-session",
    "session_id",
    "session-id",
    "x-session-id",
    "x-claude-code-session-id",
];

/// Scheme, host and port, the host in lower case and as its labels, without one trailing dot.
type Origin = (String, Vec<String>, u16);

/// A target is one only where the rules say so, says why where not, and matches what they say.
pub fn check_target(target: &str, url: &str) {
    let expected = read_target(target);
    let parsed = match target.parse::<Target>() {
        Ok(parsed) => parsed,
        Err(error) => {
            assert_eq!(expected, None, "{target:?}: {error}");
            return check_target_error(target, &error);
        }
    };
    let Some((subdomains, (own_scheme, own_host, own_port))) = expected else {
        panic!("{target:?} is no target, and became {parsed}");
    };
    assert_eq!(parsed.to_string().parse().as_ref(), Ok(&parsed), "{target}");

    let expected = |origin: Option<Origin>| {
        origin.is_some_and(|(scheme, host, port)| {
            let is_host = if subdomains {
                let whole_labels = host.iter().all(|label| !label.is_empty());
                host.len() > own_host.len() && host.ends_with(&own_host) && whole_labels
            } else {
                host == own_host
            };
            scheme == own_scheme && is_host && port == own_port
        })
    };
    let parsed_url = Url::parse(url);
    if let Ok(url) = &parsed_url {
        let matches = parsed.matches(url);
        assert_eq!(matches, expected(read_url(url)), "{target} and {url}");
        // The same URL in the other type.
        if let Ok(uri) = url.as_str().parse::<Uri>() {
            assert_eq!(parsed.matches(&uri), matches, "{target} and {uri}");
        }
    }
    if let Ok(uri) = url.parse::<Uri>() {
        let matches = parsed.matches(&uri);
        assert_eq!(matches, expected(read_uri(url)), "{target} and {uri}");
        if matches {
            let same = parsed_url.is_ok_and(|url| parsed.matches(&url));
            assert!(same, "{target} matches {uri} as a Uri only");
        }
    }
}

/// `scheme://[*.]host[:port][/]`, and whether it has the `*`.
fn read_target(target: &str) -> Option<(bool, Origin)> {
    let (scheme, rest) = target.split_once("://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (subdomains, rest) = match rest.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.contains(['/', '\\', '?', '#', '@']) || rest.ends_with(':') {
        return None;
    }
    let url = Url::parse(&format!("{scheme}://{rest}")).ok()?;
    let origin = read_url(&url)?;
    let (_, host, port) = &origin;
    let is_name = url.domain().is_some();
    let as_in_dns =
        host.iter().all(|label| (1..=63).contains(&label.len())) && host.join(".").len() <= 253;
    let legal = target.chars().all(is_visible)
        && is_http(scheme)
        && *port != 0
        && !host.concat().contains('*')
        && if is_name { as_in_dns } else { !subdomains };
    legal.then_some((subdomains, origin))
}

fn is_http(scheme: &str) -> bool {
    ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str())
}

fn read_url(url: &Url) -> Option<Origin> {
    let host = labels(url.host_str()?);
    Some((url.scheme().to_owned(), host, url.port_or_known_default()?))
}

fn read_uri(uri: &str) -> Option<Origin> {
    let (scheme, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let end_of_host = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end_of_host);
    let scheme = scheme.to_ascii_lowercase();
    let port = match port.strip_prefix(':').unwrap_or(port) {
        "" if scheme == "https" => 443,
        "" => 80,
        port if port.chars().all(|digit| digit.is_ascii_digit()) => port.parse().ok()?,
        _ => return None,
    };
    Some((scheme, labels(host), port))
}

fn labels(host: &str) -> Vec<String> {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    host.split('.').map(str::to_owned).collect()
}

fn check_target_error(target: &str, error: &InvalidTarget) {
    let holds = match error {
        InvalidTarget::NoScheme => target.find("://").is_none_or(|at| at == 0),
        InvalidTarget::UnknownScheme { scheme } => {
            target.starts_with(&format!("{scheme}://")) && !is_http(scheme)
        }
        InvalidTarget::IllegalCharacter {
            position,
            character,
        } => is_first_illegal(target, *position, *character),
        InvalidTarget::UserInfo => target.contains('@'),
        InvalidTarget::EmptyHost => target.split_once("://").is_some_and(|(_, rest)| {
            let rest = rest.strip_prefix("*.").unwrap_or(rest);
            rest.is_empty() || rest.starts_with([':', '/'])
        }),
        InvalidTarget::InvalidHost { host, reason } => target.contains(host) && !reason.is_empty(),
        InvalidTarget::BadWildcard => target.contains('*') || target.to_lowercase().contains("%2a"),
        InvalidTarget::InvalidPort { port } => target.contains(&format!(":{port}")),
        InvalidTarget::NotAnOrigin { position } => {
            matches!(target.as_bytes()[*position], b'/' | b'\\' | b'?' | b'#')
        }
        _ => false,
    };
    assert!(
        holds,
        "{target:?} was refused for what is not true: {error}"
    );
}

/// An id is what it was made of and obeys the limits, or the reason that it is none holds.
pub fn check_session_id(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let parsed = text.parse::<SessionId>();
        assert_eq!(SessionId::try_from(text), parsed);
        assert_eq!(SessionId::try_from(text.to_owned()), parsed);
        check_parsed(text, parsed);
    }
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        check_parsed(&String::from_utf8_lossy(bytes), value.try_into());
    }
    let (scope, name) = bytes.split_at(bytes.len() / 2);
    let derived = SessionId::derive(scope, name);
    check_parsed(derived.as_str(), Ok(derived.clone()));
}

fn check_parsed(text: &str, parsed: Result<SessionId, InvalidSessionId>) {
    match parsed {
        Ok(id) => {
            assert!(is_session_id(text.as_bytes()), "{text:?} became an id");
            assert_eq!((id.as_str(), &*id.to_string()), (text, text));
            let headers = Session::from(id.clone()).headers();
            assert_eq!(headers[header::SESSION], text);
            assert_eq!(
                SessionId::try_from(headers[header::SESSION].clone()),
                Ok(id)
            );
        }
        Err(error) => {
            let holds = match error {
                InvalidSessionId::Empty => text.is_empty(),
                InvalidSessionId::TooLong { length } => {
                    length > 128 && text.chars().count() == length
                }
                InvalidSessionId::IllegalCharacter {
                    position,
                    character,
                } => is_first_illegal(text, position, character),
                _ => false,
            };
            assert!(holds, "{text:?} was refused for what is not true: {error}");
        }
    }
}

fn is_first_illegal(text: &str, position: usize, character: char) -> bool {
    text.chars().nth(position) == Some(character)
        && !is_visible(character)
        && text.chars().take(position).all(is_visible)
}

fn is_session_id(bytes: &[u8]) -> bool {
    (1..=128).contains(&bytes.len()) && bytes.iter().all(|&byte| is_visible(byte.into()))
}

fn is_visible(character: char) -> bool {
    matches!(character, '!'..='~')
}

/// The session of incoming headers is the one that the rules name; and what goes out bears exactly
/// one valid session, whatever was there before, and nothing new where it goes elsewhere.
pub fn check_headers(headers: &HeaderMap) {
    let expected = SESSION_NAMES.iter().find_map(|name| {
        let values: Vec<_> = headers.get_all(*name).iter().collect();
        let [value] = values[..] else { return None };
        is_session_id(value.as_bytes()).then(|| value.as_bytes())
    });
    let id = SessionId::from_headers(headers);
    assert_eq!(id.as_ref().map(|id| id.as_str().as_bytes()), expected);

    let middleware = OpencodeSessionMiddleware::new();
    let sent_to = |url: &'static str| {
        let mut sent = headers.clone();
        let result = middleware.apply(&Uri::from_static(url), &mut sent, &mut Default::default());
        result.expect("there is a fallback");
        sent
    };
    assert_eq!(sent_to("https://opencode.ai.example.com/zen"), *headers);
    let mut sent = sent_to("https://opencode.ai/zen");
    let values: Vec<_> = sent.get_all(header::SESSION).iter().collect();
    assert_eq!(values.len(), 1, "{values:?}");
    assert!(is_session_id(values[0].as_bytes()), "{values:?}");

    // Nothing else changes.
    let mut before = headers.clone();
    sent.remove(header::SESSION);
    before.remove(header::SESSION);
    assert_eq!(sent, before);
}

/// The headers of a text such as `name: value`, line by line. What can be no header is left out.
pub fn headers(text: &[u8]) -> HeaderMap {
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            let value = line[colon + 1..]
                .strip_prefix(b" ")
                .unwrap_or(&line[colon + 1..]);
            Some((
                HeaderName::from_bytes(&line[..colon]).ok()?,
                HeaderValue::from_bytes(value).ok()?,
            ))
        })
        .collect()
}
