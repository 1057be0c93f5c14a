//! Other gateways: targets that take the session in their own header.

use http::{Extensions, HeaderMap, HeaderName, StatusCode, Uri};
use reqwest_opencode_session::{
    Applied, BuildError, ExistingHeader, Fallback, InvalidTarget, OpencodeSessionMiddleware,
    Session, Source, Target, header,
};
use serde_json::json;

use crate::rules::RESERVED;
use crate::support::{chat, client_with, is_opencode_header, map, start, values};

const OWN: &str = "x-session-id";

fn target(origin: &str, header: Option<&str>) -> Target {
    let target: Target = origin.parse().unwrap();
    match header {
        Some(header) => target.session_header(header).unwrap(),
        None => target,
    }
}

/// The headers that a request to this URL gets, sorted by name.
fn sent(middleware: &OpencodeSessionMiddleware, url: &'static str) -> Vec<String> {
    let headers = middleware.headers_for(&Uri::from_static(url)).unwrap();
    let mut names: Vec<_> = headers
        .keys()
        .map(|name| name.as_str().to_owned())
        .collect();
    names.sort_unstable();
    names
}

// What is sent

#[tokio::test]
async fn a_target_gets_the_session_in_its_own_header_and_nothing_else_of_ours() {
    let gateway = start();
    let session = Session::new().subagent().turn();
    let target = gateway.target().session_header("X-Session-Id").unwrap();
    let middleware = OpencodeSessionMiddleware::builder()
        .targets([target])
        .client_name("my-agent")
        .project("my-project")
        .user_agent("my-agent/1.0")
        .build()
        .unwrap();
    let client = client_with(middleware.bound_to(&session));
    let response = chat(&client, &gateway).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen = &gateway.requests()[0];
    assert_eq!(values(seen, OWN), [session.id().as_str().as_bytes()]);
    assert!(
        !seen
            .headers
            .keys()
            .any(|name| is_opencode_header(name.as_str()))
    );
    assert!(!seen.headers.contains_key("user-agent"));
}

#[tokio::test]
async fn one_client_speaks_to_several_gateways_each_in_its_own_header() {
    let (opencode, other) = (start(), start());
    let session = Session::new().turn();
    let middleware = OpencodeSessionMiddleware::builder()
        .target(opencode.target())
        .target(other.target().session_header(OWN).unwrap())
        .build()
        .unwrap();
    let client = client_with(middleware.bound_to(&session));
    for gateway in [&opencode, &other] {
        chat(&client, gateway).send().await.unwrap();
    }
    let id = [session.id().as_str().as_bytes()];
    let (to_opencode, to_other) = (&opencode.requests()[0], &other.requests()[0]);
    assert_eq!(values(to_opencode, "x-opencode-session"), id);
    assert_eq!(values(to_opencode, OWN), [b""; 0]);
    assert!(to_opencode.turn.is_some());
    assert_eq!(values(to_other, OWN), id);
    assert_eq!(values(to_other, "x-opencode-session"), [b""; 0]);
    assert_eq!(to_other.turn, None);
}

#[test]
fn the_callers_own_header_is_kept_or_replaced_by_the_same_rule() {
    use ExistingHeader::{Keep, Replace};

    let url = Uri::from_static("https://gateway.test/v1");
    let session = Session::from(
        "ours"
            .parse::<reqwest_opencode_session::SessionId>()
            .unwrap(),
    );
    let ours = (OWN, "ours");
    let beside = [
        ("x-opencode-request", "old-turn"),
        ("x-parent-session-id", "old-parent"),
    ];
    let whole = |values: &[&'static str]| {
        let own = values.iter().map(|value| (OWN, *value));
        own.chain(beside).collect::<Vec<_>>()
    };
    let kept = Applied::Session(Source::Header);
    let bound = Applied::Session(Source::Bound);
    let mut cases = vec![
        (Keep, whole(&["old"]), kept, whole(&["old"])),
        (Replace, whole(&["old"]), bound, vec![ours]),
        // OpenCode's header means nothing here, so the caller's own stays.
        (
            Keep,
            vec![("x-opencode-session", "old")],
            bound,
            vec![("x-opencode-session", "old"), ours],
        ),
    ];
    for existing in [Keep, Replace] {
        for bad in [&["two words"][..], &[""], &["old", "older"]] {
            cases.push((existing, whole(bad), bound, vec![ours]));
        }
        cases.push((existing, beside.to_vec(), bound, vec![ours]));
    }
    for (existing, there, expected, left) in cases {
        let middleware = OpencodeSessionMiddleware::builder()
            .targets([target("https://gateway.test", Some(OWN))])
            .existing_header(existing)
            .build()
            .unwrap();
        let (mut headers, mut extensions) = (map(&there), Extensions::new());
        let middleware = middleware.bound_to(&session);
        let applied = middleware.apply_parts(&url, &mut headers, &mut extensions);
        assert_eq!(applied, Ok(expected), "{existing:?}, {there:?}");
        assert_eq!(headers, map(&left), "{existing:?}, {there:?}");
    }
}

#[test]
fn a_target_with_a_header_of_its_own_is_refused_a_request_without_a_session_as_any_other() {
    let url = Uri::from_static("https://gateway.test/v1");
    for (fallback, expected) in [
        (Fallback::Reject, None),
        (Fallback::Omit, Some(Applied::NoSession)),
        (Fallback::Process, Some(Applied::Session(Source::Fallback))),
    ] {
        let middleware = OpencodeSessionMiddleware::builder()
            .targets([target("https://gateway.test", Some(OWN))])
            .fallback(fallback)
            .build()
            .unwrap();
        let (mut headers, mut extensions) = (HeaderMap::new(), Extensions::new());
        let applied = middleware.apply_parts(&url, &mut headers, &mut extensions);
        assert_eq!(applied.ok(), expected);
        let has_session = matches!(expected, Some(Applied::Session(_)));
        assert_eq!(headers.contains_key(OWN), has_session);
    }
}

// Which target

#[test]
fn of_overlapping_targets_the_one_that_was_added_last_decides() {
    let [all, one, below, plain] = [
        target("https://*.gateway.test", Some("x-of-all")),
        target("https://eu.gateway.test", Some("x-of-one")),
        target("https://*.eu.gateway.test", Some("x-of-those-below")),
        target("https://us.gateway.test", None),
    ];
    let [eu, below_eu, us] = [
        "https://eu.gateway.test/",
        "https://a.eu.gateway.test/",
        "https://us.gateway.test/",
    ];
    for (targets, url, expected) in [
        (vec![&all, &one], eu, "x-of-one"),
        (vec![&one, &all], eu, "x-of-all"),
        (vec![&all, &one], us, "x-of-all"),
        (vec![&all, &below, &one], below_eu, "x-of-those-below"),
        (vec![&below, &one, &all], below_eu, "x-of-all"),
        (vec![&all, &plain], us, "x-opencode-session"),
        (vec![&plain, &all], us, "x-of-all"),
    ] {
        let builder =
            OpencodeSessionMiddleware::builder().targets(targets.iter().copied().cloned());
        assert_eq!(
            sent(&builder.build().unwrap(), url),
            [expected],
            "{targets:?}"
        );
        // The same, added one by one to the default targets.
        let builder = targets.into_iter().cloned();
        let builder = builder.fold(OpencodeSessionMiddleware::builder(), |builder, target| {
            builder.target(target)
        });
        let middleware = builder.build().unwrap();
        assert_eq!(sent(&middleware, url), [expected]);
        assert_eq!(
            sent(&middleware, "https://opencode.ai/"),
            ["x-opencode-session"]
        );
    }
}

#[test]
fn one_origin_with_two_session_headers_is_refused_and_both_are_named() {
    for (origin, again, headers) in [
        (
            "https://a.test",
            "https://A.test.:443/",
            [Some("x-one"), Some("x-two")],
        ),
        (
            "https://*.a.test",
            "https://*.a.test",
            [Some("x-one"), None],
        ),
        ("https://a.test", "https://a.test", [None, Some("x-one")]),
        // OpenCode's default targets are targets like any other.
        (
            "https://b.test",
            "https://opencode.ai",
            [None, Some("x-one")],
        ),
        (
            "https://a.test",
            "https://a.test",
            [None, Some("x-opencode-session")],
        ),
    ] {
        let error = OpencodeSessionMiddleware::builder()
            .target(target(origin, headers[0]))
            .target(target(again, headers[1]))
            .build()
            .unwrap_err();
        let BuildError::TwoSessionHeaders {
            target: named,
            headers: both,
            ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(*named, target(again, None).to_string());
        assert_eq!(
            *both,
            headers.map(|header| header.unwrap_or("x-opencode-session"))
        );
        for part in [named, &both[0], &both[1]] {
            assert!(error.to_string().contains(part.as_str()), "{error}");
        }
        let words = match both[0] == both[1] {
            true => "is listed with all of OpenCode's headers and with `x-opencode-session` alone;",
            false => "is listed with two session headers, `x-",
        };
        assert!(error.to_string().contains(words), "{error}");
    }
    // Neither the same header again nor another port is a contradiction.
    OpencodeSessionMiddleware::builder()
        .target(target("https://a.test", Some("x-one")))
        .target(target("https://a.test", Some("X-One")))
        .target(target("https://a.test:8443", Some("x-two")))
        .build()
        .unwrap();
}

// Which headers

#[test]
fn headers_with_another_meaning_are_refused_with_the_reason() {
    let opencode = "https://opencode.ai".parse::<Target>().unwrap();
    for name in RESERVED {
        for name in [name.to_owned(), name.to_uppercase()] {
            let error = opencode.clone().session_header(&name).unwrap_err();
            let InvalidTarget::ReservedHeader {
                name: refused,
                purpose,
                ..
            } = &error
            else {
                panic!("{error:?}");
            };
            assert_eq!((refused, purpose.is_empty()), (&name, false));
            let message = error.to_string();
            assert!(
                message.contains(&name) && message.contains(purpose),
                "{message}"
            );
        }
    }
    let purpose = |name: &str| {
        opencode
            .clone()
            .session_header(name)
            .unwrap_err()
            .to_string()
    };
    assert!(purpose("x-api-key").contains("reserved for credentials"));
    assert!(purpose("Cookie").contains("reserved for cookies"));
    assert!(purpose("host").contains("reserved for transport"));
    assert!(purpose("x-opencode-request").contains("reserved for OpenCode"));
}

/// All headers that the crate `http` has a constant for.
const STANDARD: [HeaderName; 81] = {
    use http::header::*;
    [
        ACCEPT,
        ACCEPT_CHARSET,
        ACCEPT_ENCODING,
        ACCEPT_LANGUAGE,
        ACCEPT_RANGES,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD,
        AGE,
        ALLOW,
        ALT_SVC,
        AUTHORIZATION,
        CACHE_CONTROL,
        CACHE_STATUS,
        CDN_CACHE_CONTROL,
        CONNECTION,
        CONTENT_DISPOSITION,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_LENGTH,
        CONTENT_LOCATION,
        CONTENT_RANGE,
        CONTENT_SECURITY_POLICY,
        CONTENT_SECURITY_POLICY_REPORT_ONLY,
        CONTENT_TYPE,
        COOKIE,
        DNT,
        DATE,
        ETAG,
        EXPECT,
        EXPIRES,
        FORWARDED,
        FROM,
        HOST,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        LAST_MODIFIED,
        LINK,
        LOCATION,
        MAX_FORWARDS,
        ORIGIN,
        PRAGMA,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        PUBLIC_KEY_PINS,
        PUBLIC_KEY_PINS_REPORT_ONLY,
        RANGE,
        REFERER,
        REFERRER_POLICY,
        REFRESH,
        RETRY_AFTER,
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION,
        SERVER,
        SET_COOKIE,
        STRICT_TRANSPORT_SECURITY,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        USER_AGENT,
        UPGRADE,
        UPGRADE_INSECURE_REQUESTS,
        VARY,
        VIA,
        WARNING,
        WWW_AUTHENTICATE,
        X_CONTENT_TYPE_OPTIONS,
        X_DNS_PREFETCH_CONTROL,
        X_FRAME_OPTIONS,
        X_XSS_PROTECTION,
    ]
};

#[test]
fn no_header_that_http_defines_is_a_session_header() {
    for name in STANDARD {
        let target: Target = "https://gateway.test".parse().unwrap();
        let refused = target.session_header(&name);
        assert!(
            matches!(refused, Err(InvalidTarget::ReservedHeader { .. })),
            "{name}"
        );
    }
}

#[test]
fn names_are_refused_by_a_rule_and_not_by_a_list_of_examples() {
    for (purpose, names) in [
        (
            "credentials",
            &[
                "x-access-token",
                "x-amz-security-token",
                "apikey",
                "x-apikey",
                "api_key",
                "ocp-apim-subscription-key",
                "x-functions-key",
                "x-client-secret",
                "x-hub-signature-256",
                "x-auth-user",
                "proxy-authorization",
                "x-jwt-assertion",
            ][..],
        ),
        ("cookies", &["cookie2", "set-cookie2", "x-cookie"]),
        (
            "forwarding",
            &[
                "x-forwarded-for",
                "x-forwarded-host",
                "x-real-ip",
                "cf-connecting-ip",
                "x-client-ip",
            ],
        ),
        (
            "transport",
            &["proxy-connection", "sec-fetch-site", "http2-settings"],
        ),
        ("content", &["content-digest", "accept-patch"]),
        ("caching", &["if-match", "cache-status"]),
        (
            "an id that the server gives",
            &["mcp-session-id", "Last-Event-ID"],
        ),
    ] {
        for name in names {
            let target: Target = "https://gateway.test".parse().unwrap();
            let error = target.session_header(name).unwrap_err().to_string();
            assert!(
                error.contains(&format!("reserved for {purpose};")),
                "{error}"
            );
        }
    }
}

#[test]
fn what_cannot_be_a_headers_name_is_refused() {
    let opencode = "https://opencode.ai".parse::<Target>().unwrap();
    for name in [
        "",
        " ",
        "two words",
        "x-session-id ",
        "x:session",
        "sitzung-ä",
        "a\r\nb: c",
    ] {
        let error = opencode.clone().session_header(name).unwrap_err();
        assert!(
            matches!(&error, InvalidTarget::InvalidHeader { name: refused, .. } if refused == name),
            "{error:?}"
        );
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
}

#[test]
fn every_known_header_of_another_gateway_can_be_named() {
    for name in [
        "x-session-id",
        "x-session-affinity",
        "x-grok-conv-id",
        "x-affinity",
        "X-Session-Id",
        "x-bf-session-id",
        "X-Dynamo-Session-ID",
        "session_id",
        "x-claude-code-session-id",
    ] {
        let middleware = OpencodeSessionMiddleware::builder()
            .targets([target("https://gateway.test", Some(name))])
            .build()
            .unwrap();
        let names = sent(&middleware, "https://gateway.test/v1");
        assert_eq!(names, [name.to_ascii_lowercase()]);
    }
    // Named explicitly, OpenCode's header carries the session and nothing else.
    let session = header::SESSION;
    let middleware = OpencodeSessionMiddleware::builder()
        .targets([target("https://gateway.test", Some(session.as_str()))])
        .client_name("my-agent")
        .build()
        .unwrap()
        .bound_to(Session::new().turn());
    assert_eq!(
        sent(&middleware, "https://gateway.test/v1"),
        [session.as_str()]
    );
}

#[test]
fn a_redirect_to_a_target_that_takes_the_session_alone_is_refused() {
    let alone = target("https://gateway.test", Some(header::SESSION.as_str()));
    let middleware = OpencodeSessionMiddleware::builder().target(alone);
    let middleware = middleware.build().unwrap();
    let opencode = Uri::from_static("https://opencode.ai/zen/go/v1/messages");
    let gateway = Uri::from_static("https://gateway.test/v1");
    let refused = middleware.check_redirect(&[opencode], &gateway);
    assert!(refused.unwrap_err().to_string().contains("without turn"));
}

// Stored

#[test]
fn a_target_is_a_string_or_a_map_of_its_origin_and_its_header() {
    for (target, written) in [
        (
            target("https://opencode.ai", None),
            json!("https://opencode.ai"),
        ),
        (
            target("HTTPS://*.A.test:443/", None),
            json!("https://*.a.test"),
        ),
        (
            target("https://openrouter.ai", Some("X-Session-Id")),
            json!({"origin": "https://openrouter.ai", "session_header": "x-session-id"}),
        ),
    ] {
        assert_eq!(serde_json::to_value(&target).unwrap(), written);
        assert_eq!(
            serde_json::from_value::<Target>(written.clone()).unwrap(),
            target
        );
        let text = written.to_string();
        assert_eq!(serde_json::from_str::<Target>(&text).unwrap(), target);
    }
}

#[test]
fn what_is_written_wrong_is_refused_with_the_reason() {
    for (written, complaint) in [
        (json!("opencode.ai"), "has no scheme"),
        (
            json!({"origin": "opencode.ai", "session_header": "x-own"}),
            "has no scheme",
        ),
        (
            json!({"origin": "https://a.test", "session_header": "cookie"}),
            "reserved for cookies",
        ),
        (
            json!({"origin": "https://a.test", "session_header": ""}),
            "not a header's name",
        ),
        (
            json!({"origin": "https://a.test"}),
            "missing field `session_header`",
        ),
        (json!({"session_header": "x-own"}), "missing field `origin`"),
        (
            json!({"origin": "https://a.test", "session_header": "x-own", "header": "x"}),
            "unknown field `header`",
        ),
        (
            json!(17),
            "an origin such as `https://opencode.ai`, or a map",
        ),
        (
            json!(null),
            "an origin such as `https://opencode.ai`, or a map",
        ),
    ] {
        for error in [
            serde_json::from_value::<Target>(written.clone()).unwrap_err(),
            serde_json::from_str::<Target>(&written.to_string()).unwrap_err(),
        ] {
            assert!(error.to_string().contains(complaint), "{written}: {error}");
        }
    }
}
