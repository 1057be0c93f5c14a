//! The rules of targets, session ids and headers, implemented naively, and checks that the library
//! agrees. Both the property tests and the fuzz targets call them.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Uri};
use reqwest::Url;
use reqwest_opencode_session::{
    Applied, BuildError, ExistingHeader, Fallback, InvalidTarget, InvalidValue,
    OpencodeSessionMiddleware, Session, SessionId, Source, Target, header,
};

/// The headers that a session is read from, in order of precedence.
pub const SESSION_NAMES: [&str; 6] = [
    "x-opencode-session",
    "session_id",
    "session-id",
    "x-session-id",
    "x-claude-code-session-id",
    "x-session-affinity",
];

/// The headers that a turn is read from, in order of precedence.
pub const TURN_NAMES: [&str; 2] = ["x-opencode-request-id", "x-opencode-request"];

/// Headers in which no target can take a session, whatever the rule for their names says.
pub const RESERVED: [&str; 32] = [
    "accept",
    "accept-encoding",
    "api-key",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "mcp-session-id",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "www-authenticate",
    "x-api-key",
    "x-goog-api-key",
    "x-opencode-client",
    "x-opencode-org-id",
    "x-opencode-project",
    "x-opencode-request",
    "x-opencode-request-id",
    "x-parent-session-id",
];

/// The scheme, the host and the port. The host is in lower case, without one trailing dot, and split
/// into labels.
type Origin = (String, Vec<String>, u16);

/// Checks that a string is a target only if the rules say so, that the error gives a true reason
/// otherwise, and that the target matches what the rules say.
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
        panic!("{target:?} is no target, but was parsed as {parsed}");
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
        // The same URL as the other type.
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

/// Reads `scheme://[*.]host[:port][/]`, and whether it has the `*`.
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
    let host = labels(host);
    // An address is written as in a `Url`.
    let last = host.last()?;
    if last.starts_with('[') || last.starts_with(|first: char| first.is_ascii_digit()) {
        if let Ok(url) = Url::parse(&format!("http://{}", host.join("."))) {
            return Some((scheme, labels(url.host_str()?), port));
        }
    }
    Some((scheme, host, port))
}

fn labels(host: &str) -> Vec<String> {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    host.split('.').map(str::to_owned).collect()
}

fn check_target_error(target: &str, error: &InvalidTarget) {
    let holds = match error {
        InvalidTarget::NoScheme => target.find("://").is_none_or(|at| at == 0),
        InvalidTarget::UnknownScheme { scheme, .. } => {
            target.starts_with(&format!("{scheme}://")) && !is_http(scheme)
        }
        InvalidTarget::IllegalCharacter {
            position,
            character,
            ..
        } => is_first_illegal(target, *position, *character),
        InvalidTarget::UserInfo => target.contains('@'),
        InvalidTarget::EmptyHost => target.split_once("://").is_some_and(|(_, rest)| {
            let rest = rest.strip_prefix("*.").unwrap_or(rest);
            rest.is_empty() || rest.starts_with([':', '/'])
        }),
        InvalidTarget::InvalidHost { host, reason, .. } => {
            target.contains(host) && !reason.is_empty()
        }
        InvalidTarget::BadWildcard => target.contains('*') || target.to_lowercase().contains("%2a"),
        InvalidTarget::InvalidPort { port, .. } => target.contains(&format!(":{port}")),
        InvalidTarget::NotAnOrigin { position, .. } => {
            matches!(target.as_bytes()[*position], b'/' | b'\\' | b'?' | b'#')
        }
        _ => false,
    };
    assert!(
        holds,
        "{target:?} was refused for a reason that is not true: {error}"
    );
}

/// Checks that a target takes only a valid header name without another meaning, and that a request
/// to it then carries the session in that header and nothing else.
pub fn check_session_header(target: &str, name: &str, url: &str) {
    let Ok(target) = target.parse::<Target>() else {
        return;
    };
    let is_name = (1..1 << 16).contains(&name.len()) && name.bytes().all(is_token_character);
    let is_reserved = is_reserved(&name.to_ascii_lowercase());
    let with_header = match target.clone().session_header(name) {
        Ok(with_header) => with_header,
        Err(InvalidTarget::InvalidHeader { name: refused, .. }) => {
            return assert!(refused == name && !is_name, "{name:?} is a header's name");
        }
        Err(InvalidTarget::ReservedHeader { name: refused, .. }) => {
            return assert!(refused == name && is_reserved, "{name:?} is not reserved");
        }
        Err(error) => panic!("{name:?} was refused for a reason that is not true: {error}"),
    };
    assert!(is_name && !is_reserved, "{name:?} became a session header");
    assert_ne!(with_header, target);
    assert_eq!(with_header.to_string(), target.to_string());

    let Ok(url) = Url::parse(url) else { return };
    assert_eq!(with_header.matches(&url), target.matches(&url));
    let middleware = OpencodeSessionMiddleware::builder()
        .targets([with_header])
        .build();
    let session = Session::new().subagent().turn();
    let headers = middleware
        .unwrap()
        .bound_to(&session)
        .headers_for(&url)
        .unwrap();
    if target.matches(&url) {
        assert_eq!(
            (headers.len(), &headers[name]),
            (1, &session.id().clone().into())
        );
    } else {
        assert!(headers.is_empty(), "{headers:?}");
    }
}

/// The rule for the names that no session header may have. Of names that HTTP defines, it knows
/// those that the tests make.
fn is_reserved(name: &str) -> bool {
    let contained = [
        "auth",
        "cookie",
        "credential",
        "forwarded",
        "jwt",
        "key",
        "passw",
        "secret",
        "signature",
        "token",
    ];
    let beginnings = [
        "accept",
        "access-control-",
        "cache-",
        "cdn-cache-",
        "content-",
        "if-",
        "proxy-",
        "sec-",
    ];
    let defined = [
        "age", "allow", "alt-svc", "date", "digest", "dnt", "etag", "expires", "from", "link",
        "location", "origin", "pragma", "range", "referer", "refresh", "server", "vary", "via",
        "warning",
    ];
    RESERVED.contains(&name)
        || defined.contains(&name)
        || contained.iter().any(|part| name.contains(part))
        || beginnings
            .iter()
            .any(|beginning| name.starts_with(beginning))
        || format!("-{}-", name.replace(['_', '.'], "-")).contains("-ip-")
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Checks that an id equals its input and obeys the limits, or that the reason for its refusal is
/// true.
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

fn check_parsed(text: &str, parsed: Result<SessionId, InvalidValue>) {
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
                InvalidValue::Empty => text.is_empty(),
                InvalidValue::TooLong { length, .. } => {
                    length > 128 && text.chars().count() == length
                }
                InvalidValue::IllegalCharacter {
                    position,
                    character,
                    ..
                } => {
                    is_first_illegal(text, position, character)
                        && !is_session_id(text.trim().as_bytes())
                }
                InvalidValue::Untrimmed {
                    position,
                    character,
                    ..
                } => {
                    is_first_illegal(text, position, character)
                        && is_session_id(text.trim().as_bytes())
                }
                _ => false,
            };
            assert!(
                holds,
                "{text:?} was refused for a reason that is not true: {error}"
            );
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

/// Checks that incoming headers name the session that the rules say, and that a request with these
/// headers goes out with the session that the rules say, or unchanged to another host.
pub fn check_headers(headers: &HeaderMap) {
    let expected = read_session(headers, &SESSION_NAMES).map(|id| {
        if !brings_turn_and_parent(headers, &SESSION_NAMES) {
            return (id, None, None);
        }
        let turn = read_session(headers, &TURN_NAMES);
        let parent = read_session(headers, &["x-parent-session-id"]);
        (id, turn, parent)
    });
    let session = Session::from_headers(headers);
    let read = session.as_ref().map(|session| {
        let turn = session.turn_id().map(|id| id.as_str().as_bytes());
        let parent = session.parent().map(|id| id.as_str().as_bytes());
        (session.id().as_str().as_bytes(), turn, parent)
    });
    assert_eq!(read, expected);

    let targets = [
        ("https://opencode.ai", None),
        ("https://openrouter.ai", Some("x-session-id")),
    ];
    for url in [
        "https://opencode.ai/zen",
        "https://openrouter.ai/api",
        "https://opencode.ai.example.com/zen",
    ] {
        for existing in [ExistingHeader::Keep, ExistingHeader::Replace] {
            check_sent(&targets, url, headers, existing);
        }
    }
}

/// The first of these headers that has one valid value, however often.
fn read_session<'a>(headers: &'a HeaderMap, names: &[&str]) -> Option<&'a [u8]> {
    names.iter().find_map(|name| {
        let values: Vec<_> = headers.get_all(*name).iter().collect();
        let (first, rest) = values.split_first()?;
        let is_one = rest.iter().all(|value| value == first);
        (is_one && is_session_id(first.as_bytes())).then(|| first.as_bytes())
    })
}

/// Whether the turn and the parent belong to the session of [`read_session`]: no header before that
/// one is there.
fn brings_turn_and_parent(headers: &HeaderMap, names: &[&str]) -> bool {
    let there = names.iter().find(|name| headers.contains_key(**name));
    there.is_some_and(|first| read_session(headers, &[first]).is_some())
}

/// Checks that a request gets exactly the session header of its target, and no other header of ours
/// unless the target is OpenCode. A target is an origin in its shortest spelling, and its header.
pub fn check_sent(
    targets: &[(&str, Option<&str>)],
    url: &str,
    headers: &HeaderMap,
    existing: ExistingHeader,
) {
    let is_twice_with_two_headers = targets
        .iter()
        .any(|(origin, header)| targets.iter().any(|it| it.0 == *origin && it.1 != *header));
    let parsed = targets.iter().map(|(origin, header)| {
        let target: Target = origin.parse().unwrap();
        header
            .map_or(Ok(target.clone()), |header| target.session_header(header))
            .unwrap()
    });
    let parsed: Vec<_> = parsed.collect();
    let built = OpencodeSessionMiddleware::builder()
        .targets(parsed.clone())
        .existing_header(existing)
        .build();
    let middleware = match built {
        Ok(middleware) => middleware,
        Err(error) => {
            assert!(
                matches!(error, BuildError::TwoSessionHeaders { .. }),
                "{error}"
            );
            return assert!(is_twice_with_two_headers, "{targets:?}: {error}");
        }
    };
    assert!(!is_twice_with_two_headers, "{targets:?} was built");

    let uri: Uri = url.parse().unwrap();
    let last = parsed.iter().rposition(|target| target.matches(&uri));
    let own = last.map(|index| targets[index].1);
    let session = Session::new().subagent().turn();
    for given in [Some((&session, Source::Bound)), None] {
        let (applied, expected) = match own {
            None => (Some(Applied::NoTarget), headers.clone()),
            Some(own) => sent(own, headers, existing, given, &Fallback::Process),
        };
        let (mut sent, mut extensions) = (headers.clone(), Extensions::new());
        let bound = middleware.bound_to(given.map(|(session, _)| session));
        let result = bound.apply_parts(&uri, &mut sent, &mut extensions);
        assert_eq!(result.ok(), applied, "{targets:?}, {url}, {headers:?}");
        assert_eq!(sent, expected, "{targets:?}, {url}, {headers:?}");
        assert!(extensions.is_empty());
    }
}

fn without_turn_and_parent(headers: &mut HeaderMap) {
    for name in [
        "x-opencode-request",
        "x-opencode-request-id",
        "x-parent-session-id",
    ] {
        headers.remove(name);
    }
}

/// What becomes of a request to a target, `None` if it is refused, and its headers. `own` is the
/// target's own header, and `given` the session that the application gives.
pub fn sent(
    own: Option<&str>,
    headers: &HeaderMap,
    existing: ExistingHeader,
    given: Option<(&Session, Source)>,
    fallback: &Fallback,
) -> (Option<Applied>, HeaderMap) {
    let name = own.unwrap_or("x-opencode-session");
    let names = &SESSION_NAMES[..5];
    let keeps = existing == ExistingHeader::Keep;
    let kept = read_session(headers, &[name]).filter(|_| keeps);
    let other = read_session(headers, names).filter(|_| keeps && own.is_none());
    let fallback = match fallback {
        Fallback::Process => Some(Session::process()),
        Fallback::Session(session) => Some(session.clone()),
        Fallback::Reject if kept.or(other).is_none() && given.is_none() => {
            return (None, headers.clone());
        }
        _ => None,
    };
    let fallback = fallback.as_ref().map(|session| (session, Source::Fallback));
    let mut sent = headers.clone();
    let mut insert = |id: &[u8], session: Option<&Session>| {
        if let Some(session) = session {
            without_turn_and_parent(&mut sent);
            if own.is_none() {
                sent.extend(session.headers());
            }
        }
        let name: HeaderName = name.parse().unwrap();
        sent.insert(name, HeaderValue::from_bytes(id).unwrap());
    };
    let source = if let Some(kept) = kept {
        insert(kept, None);
        Source::Header
    } else if let Some((given, source)) = given {
        insert(given.id().as_str().as_bytes(), Some(given));
        source
    } else if let Some(other) = other {
        insert(other, None);
        if !brings_turn_and_parent(headers, names) {
            without_turn_and_parent(&mut sent);
        }
        Source::OtherHeader
    } else if let Some((fallback, source)) = fallback {
        insert(fallback.id().as_str().as_bytes(), Some(fallback));
        source
    } else {
        if sent.remove(name).is_some() {
            without_turn_and_parent(&mut sent);
        }
        return (Some(Applied::NoSession), sent);
    };
    (Some(Applied::Session(source)), sent)
}

/// Reads lines such as `name: value` as headers. A line that cannot be a header is left out.
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
