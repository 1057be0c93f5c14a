//! What happens to headers that are already on a request.

use http::{Extensions, HeaderMap, HeaderValue, StatusCode, Uri};
use reqwest_opencode_session::testing::SeenRequest;
use reqwest_opencode_session::{
    Applied, ExistingHeader, Fallback, MissingSession, OpencodeSessionMiddleware,
    OpencodeSessionMiddlewareBuilder, Session, SessionId, Source, Target, TurnId, WithSession,
    header,
};

use crate::stack::reqwest;
use crate::stack::reqwest_middleware::ClientBuilder;
use crate::support::{assert_carries, chat, client_with, map, middleware_for, only, start, values};

// The caller's own session

#[tokio::test]
async fn an_existing_header_that_is_empty_malformed_or_doubled_is_replaced() {
    let gateway = start();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let long = "x".repeat(129);
    for bad in [
        &[&b""[..]][..],
        &[b" "],
        &[b"two words"],
        &["caf\u{e9}".as_bytes()],
        &[b"\xff"],
        &[b"tab\tbed"],
        &[long.as_bytes()],
        &[b"one", b"two"],
        &[b"one", b"one", b"two"],
        &[b"two words", b"two words"],
        &[b"", b"one"],
    ] {
        gateway.take_requests();
        let session = Session::new();
        let request = bad.iter().fold(chat(&client, &gateway), |request, value| {
            request.header(header::SESSION, *value)
        });
        let response = request
            .with_extension(session.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            values(&only(&gateway), "x-opencode-session"),
            [session.id().as_str().as_bytes()],
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn the_same_value_several_times_is_one_value_and_is_sent_once() {
    let gateway = start();
    let middleware = middleware_for(&gateway).client_name("ours").build();
    let client = client_with(middleware.unwrap());
    let own = [
        (header::SESSION, "own-session"),
        (header::CLIENT, "own-client"),
    ];
    let mut request = chat(&client, &gateway).header(header::TURN, "own-turn");
    for (name, value) in own.iter().chain(&own).chain(&own) {
        request = request.header(name, *value);
    }
    request
        .send()
        .with_session(Session::new().turn())
        .await
        .unwrap();
    let seen = only(&gateway);
    assert_eq!(seen.turn.as_deref(), Some("own-turn"));
    for (name, value) in own {
        assert_eq!(values(&seen, name.as_str()), [value.as_bytes()]);
    }
}

#[tokio::test]
async fn a_malformed_header_is_taken_away_where_the_session_is_omitted() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Omit)
        .build()
        .unwrap();
    let request = chat(&client_with(middleware), &gateway).header(header::SESSION, "two words");
    request.send().await.unwrap();
    assert_eq!(values(&only(&gateway), "x-opencode-session"), [b""; 0]);
}

#[tokio::test]
async fn where_the_callers_header_stays_turn_and_parent_are_left_alone_and_the_rest_is_set() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .client_name("my-agent")
        .project("my-project")
        .user_agent("my-agent/1.0")
        .build()
        .unwrap();
    let request = chat(&client_with(middleware), &gateway)
        .header(header::SESSION, "the-callers-own")
        .with_extension(Session::new().subagent().turn());
    request.send().await.unwrap();

    let seen = only(&gateway);
    assert_eq!((seen.turn, seen.parent), (None, None));
    assert_eq!(seen.client.as_deref(), Some("my-agent"));
    assert_eq!(seen.project.as_deref(), Some("my-project"));
    assert_eq!(seen.headers["user-agent"], "my-agent/1.0");
}

#[tokio::test]
async fn replace_puts_the_applications_session_in_the_place_of_the_callers_header() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .existing_header(ExistingHeader::Replace)
        .build()
        .unwrap();
    let client = client_with(middleware.clone());
    let own = || chat(&client, &gateway).header(header::SESSION, "the-callers-own");
    let session = Session::new().turn();
    own().with_extension(session.clone()).send().await.unwrap();
    own().send().await.unwrap();

    let requests = gateway.requests();
    assert_eq!(
        values(&requests[0], "x-opencode-session"),
        [session.id().as_str().as_bytes()]
    );
    assert_eq!(
        requests[0].turn.as_deref(),
        session.turn_id().map(TurnId::as_str)
    );
    let process = Session::process();
    let fallback = process.id().as_str();
    assert_eq!(
        values(&requests[1], "x-opencode-session"),
        [fallback.as_bytes()]
    );
}

#[tokio::test]
async fn replace_takes_the_callers_header_for_absent_where_nothing_gives_a_session() {
    let gateway = start();
    for (fallback, reaches) in [(Fallback::Omit, true), (Fallback::Reject, false)] {
        gateway.take_requests();
        let middleware = middleware_for(&gateway)
            .existing_header(ExistingHeader::Replace)
            .fallback(fallback)
            .build()
            .unwrap();
        let request = chat(&client_with(middleware), &gateway).header(header::SESSION, "own");
        assert_eq!(request.send().await.is_ok(), reaches);
        assert!(
            gateway
                .requests()
                .iter()
                .all(|request| request.session.is_none())
        );
    }
}

#[test]
fn a_rejected_request_keeps_its_headers() {
    let middleware = OpencodeSessionMiddleware::builder()
        .client_name("my-agent")
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(header::SESSION, HeaderValue::from_static("two words"));
    let before = headers.clone();
    let url: http::Uri = "https://opencode.ai/zen/v1/models".parse().unwrap();
    middleware
        .apply_parts(&url, &mut headers, &mut Extensions::new())
        .unwrap_err();
    assert_eq!(headers, before);
}

// Turn and parent belong to their session

/// All headers of one session, as a client's own code sets them, or as a reused map contains them.
const OLD: [(&str, &str); 4] = [
    ("x-opencode-session", "old-session"),
    ("x-opencode-request", "old-turn"),
    ("x-opencode-request-id", "old-turn"),
    ("x-parent-session-id", "old-parent"),
];

/// [`OLD`] with these values of the session header.
fn old_with<'a>(sessions: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let sessions = sessions.iter().map(|value| ("x-opencode-session", *value));
    sessions.chain(OLD[1..].iter().copied()).collect()
}

/// Those headers of a request that say which session, turn and parent it belongs to.
fn belongings(request: &SeenRequest) -> Vec<(&str, &[u8])> {
    let names = OLD.iter().map(|(name, _)| *name);
    let all = names.flat_map(|name| values(request, name).into_iter().map(move |it| (name, it)));
    all.collect()
}

#[tokio::test]
async fn no_request_carries_one_sessions_id_with_another_ones_turn_or_parent() {
    use ExistingHeader::{Keep, Replace};

    let plain = Session::from("ours".parse::<SessionId>().unwrap());
    let turn = plain.with_turn("our-turn".parse().unwrap());
    let subagent = plain.with_parent("our-parent".parse::<SessionId>().unwrap());
    const SESSION: (&str, &str) = ("x-opencode-session", "ours");
    const TURN: (&str, &str) = ("x-opencode-request", "our-turn");
    const PARENT: (&str, &str) = ("x-parent-session-id", "our-parent");
    let whole = OLD.to_vec();
    let stray = OLD[1..].to_vec();

    // The middleware's setting, the headers already there, the session, and the headers sent.
    let mut cases = vec![
        (Keep, whole.clone(), Some(&plain), whole.clone()),
        (Keep, whole.clone(), Some(&turn), whole.clone()),
        (Keep, whole.clone(), None, whole.clone()),
        (Replace, whole.clone(), Some(&plain), vec![SESSION]),
        (Replace, whole.clone(), Some(&turn), vec![SESSION, TURN]),
        (
            Replace,
            whole.clone(),
            Some(&subagent),
            vec![SESSION, PARENT],
        ),
        (Replace, whole, None, vec![]),
    ];
    for existing in [Keep, Replace] {
        for bad in [&["two words"][..], &[""], &["old-session", "older-session"]] {
            cases.push((existing, old_with(bad), Some(&plain), vec![SESSION]));
            cases.push((existing, old_with(bad), Some(&turn), vec![SESSION, TURN]));
            cases.push((existing, old_with(bad), None, vec![]));
        }
        // Beside a session that names them otherwise, or beside none, they are another session's.
        let named_otherwise = [&[("x-session-id", "old-session")], &stray[..]].concat();
        for old in [&stray, &named_otherwise] {
            cases.push((existing, old.clone(), Some(&plain), vec![SESSION]));
            cases.push((existing, old.clone(), Some(&turn), vec![SESSION, TURN]));
            let with_parent = vec![SESSION, PARENT];
            cases.push((existing, old.clone(), Some(&subagent), with_parent));
        }
        // Where no session is sent, they are left alone.
        cases.push((existing, stray.clone(), None, stray.clone()));
    }

    let gateway = start();
    for (existing, there, session, expected) in cases {
        gateway.take_requests();
        let middleware = middleware_for(&gateway)
            .existing_header(existing)
            .fallback(Fallback::Omit)
            .build()
            .unwrap();
        let request = chat(&client_with(middleware), &gateway).headers(map(&there));
        request.send().with_session(session).await.unwrap();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        let seen = only(&gateway);
        assert_eq!(
            belongings(&seen),
            expected,
            "{existing:?}, {there:?}, {session:?}"
        );
    }
}

#[test]
fn a_map_that_is_used_again_keeps_its_old_session_or_is_replaced_whole() {
    let url = Uri::from_static("https://opencode.ai/zen/v1/messages");
    let mut extensions = Extensions::new();
    let subagents_turn = Session::new().subagent().turn();
    let plain = Session::new();
    for (existing, source, expected) in [
        (ExistingHeader::Keep, Source::Header, &subagents_turn),
        (ExistingHeader::Replace, Source::Bound, &plain),
    ] {
        let middleware = OpencodeSessionMiddleware::builder().existing_header(existing);
        let middleware = middleware.build().unwrap();
        let mut headers = HeaderMap::new();
        let mut apply = |session| {
            let bound = middleware.bound_to(session);
            bound
                .apply_parts(&url, &mut headers, &mut extensions)
                .unwrap()
        };
        assert_eq!(apply(&subagents_turn), Applied::Session(Source::Bound));
        assert_eq!(apply(&plain), Applied::Session(source));
        assert_eq!(headers, expected.headers());
    }
}

// A session under another name

/// The names that the gateways take a session from, besides OpenCode's own, in the order that they
/// are tried in.
const OTHER_NAMES: [&str; 4] = [
    "session_id",
    "session-id",
    "x-session-id",
    "x-claude-code-session-id",
];

/// What a middleware with these settings does with these headers.
fn applied(
    settings: OpencodeSessionMiddlewareBuilder,
    there: &[(&str, &str)],
) -> (Result<Applied, MissingSession>, HeaderMap) {
    let url = Uri::from_static("https://opencode.ai/zen/v1/messages");
    let (mut headers, mut extensions) = (map(there), Extensions::new());
    let applied = settings
        .build()
        .unwrap()
        .apply_parts(&url, &mut headers, &mut extensions);
    assert!(extensions.is_empty());
    (applied, headers)
}

#[tokio::test]
async fn a_session_under_another_name_is_sent_with_its_turn_and_parent_whatever_the_fallback_is() {
    let gateway = start();
    for fallback in [
        Fallback::Process,
        Fallback::Session(Session::new().turn()),
        Fallback::Omit,
        Fallback::Reject,
    ] {
        for name in OTHER_NAMES {
            gateway.take_requests();
            let middleware = middleware_for(&gateway).fallback(fallback.clone());
            let client = client_with(middleware.build().unwrap());
            let theirs = [
                (name, "theirs"),
                ("x-opencode-request", "their-turn"),
                ("x-parent-session-id", "their-parent"),
            ];
            let request = chat(&client, &gateway).headers(map(&theirs));
            assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
            let session = Session::try_from("theirs").unwrap();
            let session = session.with_turn("their-turn".parse().unwrap());
            let parent: SessionId = "their-parent".parse().unwrap();
            assert_carries(&only(&gateway), &session.with_parent(parent));
        }
    }
}

#[test]
fn of_several_other_names_the_first_valid_one_is_taken() {
    let settings = || OpencodeSessionMiddleware::builder().fallback(Fallback::Reject);
    let mut there = vec![];
    for name in OTHER_NAMES.into_iter().rev() {
        there.push((name, name));
        let (applied, headers) = applied(settings(), &there);
        assert_eq!(applied, Ok(Applied::Session(Source::OtherHeader)));
        assert_eq!(headers[header::SESSION], name);
        // The others stay.
        for (other, value) in &there {
            assert_eq!(headers[*other], value);
        }
    }
    for bad in ["", "two words"] {
        let there = [("session_id", bad), ("x-session-id", "theirs")];
        let (applied, headers) = applied(settings(), &there);
        assert_eq!(applied, Ok(Applied::Session(Source::OtherHeader)));
        assert_eq!(headers[header::SESSION], "theirs");
    }
}

#[test]
fn after_a_malformed_or_doubled_session_header_the_turn_and_the_parent_are_not_taken() {
    let settings = || OpencodeSessionMiddleware::builder().fallback(Fallback::Reject);
    let turn_and_parent = [
        ("x-opencode-request", "a-turn"),
        ("x-opencode-request-id", "a-turn"),
        ("x-parent-session-id", "a-parent"),
    ];
    for name in ["x-opencode-session", "session_id", "session-id"] {
        for bad in [&[""][..], &["two words"], &["one", "another"]] {
            let mut there = turn_and_parent.to_vec();
            there.extend(bad.iter().map(|value| (name, *value)));
            there.push(("x-session-id", "theirs"));
            let (applied, headers) = applied(settings(), &there);
            assert_eq!(
                applied,
                Ok(Applied::Session(Source::OtherHeader)),
                "{there:?}"
            );
            assert_eq!(headers.get_all(header::SESSION).iter().count(), 1);
            assert_eq!(headers[header::SESSION], "theirs");
            for (name, _) in turn_and_parent {
                assert!(!headers.contains_key(name), "{name} in {there:?}");
            }
        }
        // The same value twice is one value.
        if name != "x-opencode-session" {
            let mut there = turn_and_parent.to_vec();
            there.extend([(name, "theirs"), (name, "theirs")]);
            let (_, headers) = applied(settings(), &there);
            assert_eq!(headers[header::TURN], "a-turn", "{name}");
        }
    }
}

#[test]
fn a_session_under_another_name_is_nothing_under_replace_and_to_a_target_with_a_header_of_its_own()
{
    let there = [("session_id", "theirs")];
    let own = || {
        let target: Target = "https://opencode.ai".parse().unwrap();
        OpencodeSessionMiddleware::builder().targets([target.session_header("x-own").unwrap()])
    };
    let replace = || OpencodeSessionMiddleware::builder().existing_header(ExistingHeader::Replace);
    for settings in [own, replace] {
        let (refused, headers) = applied(settings().fallback(Fallback::Reject), &there);
        assert!(refused.is_err());
        assert_eq!(headers, map(&there));
        let (omitted, headers) = applied(settings().fallback(Fallback::Omit), &there);
        assert_eq!(omitted, Ok(Applied::NoSession));
        assert_eq!(headers, map(&there));
        let (applied, _) = applied(settings(), &there);
        assert_eq!(applied, Ok(Applied::Session(Source::Fallback)));
    }
}

#[test]
fn what_is_not_known_to_be_a_session_is_not_taken_for_one() {
    for name in [
        "x-session-affinity",
        "conversation_id",
        "x-codex-session-id",
        "thread-id",
        "x-client-request-id",
        "mcp-session-id",
    ] {
        let settings = OpencodeSessionMiddleware::builder().fallback(Fallback::Reject);
        let (refused, _) = applied(settings, &[(name, "theirs")]);
        assert!(refused.is_err(), "{name}");
    }
}

// Default headers

#[tokio::test]
async fn a_session_pinned_in_the_default_headers_gives_way_to_the_conversations_own() {
    let gateway = start();
    let pinned = HeaderMap::from_iter([(header::SESSION, HeaderValue::from_static("pinned"))]);
    let pinned = reqwest::Client::builder()
        .no_proxy()
        .default_headers(pinned)
        .build()
        .unwrap();
    let middleware = middleware_for(&gateway).build().unwrap();
    let client = ClientBuilder::new(pinned).with(middleware).build();
    let session = Session::new();
    chat(&client, &gateway)
        .send()
        .with_session(session.clone())
        .await
        .unwrap();
    assert_eq!(
        values(&only(&gateway), "x-opencode-session"),
        [session.id().as_str().as_bytes()]
    );
}
