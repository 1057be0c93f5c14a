//! The rules hold for any input.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use reqwest_opencode_session::ExistingHeader;

use crate::rules;
use crate::support::cases;

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(words).prop_map(str::to_owned)
}

fn some_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let word = prop_oneof![8 => one_of(words), 1 => any::<char>().prop_map(String::from)];
    vec(word, 0..4).prop_map(|words| words.concat())
}

/// A URL up to its port, in most cases almost a target.
fn origin() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![
        8 => Just("https://".to_owned()),
        2 => one_of(&["http://", "HTTPS://", "ftp://", "https:", "://"]),
    ];
    let before_host = prop_oneof![
        8 => Just(String::new()),
        2 => one_of(&["*.", "user@", "user:pass@", "opencode.ai@"]),
    ];
    let host = prop_oneof![
        4 => one_of(&["opencode.ai", "OpenCode.ai.", "127.0.0.1", "[::1]"]),
        4 => one_of(&["a.b.opencode.ai", ".opencode.ai", "evilopencode.ai", "127.1", "[0::1]"]),
        2 => some_of(&["opencode", "ai", ".", "*", "evil", "xn--bcher-kva", "%2a", "1", "-"]),
    ];
    let port = prop_oneof![
        6 => Just(String::new()),
        3 => one_of(&[":443", ":80", ":", ":0", ":+443", ":0443", ":65979", ":x"]),
        1 => any::<u16>().prop_map(|port| format!(":{port}")),
    ];
    (scheme, before_host, host, port)
        .prop_map(|(scheme, before_host, host, port)| scheme + &before_host + &host + &port)
}

fn url() -> impl Strategy<Value = String> {
    let rest = some_of(&[
        "/",
        "/zen/go/v1",
        "?q=1",
        "#f",
        "@opencode.ai",
        "\\",
        ".",
        ":443",
    ]);
    (origin(), rest).prop_map(|(origin, rest)| origin + &rest)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[!-~]{0,140}".prop_map(String::into_bytes),
        "[ -~\r\n\t\0]{0,9}".prop_map(String::into_bytes),
        any::<String>().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..140),
    ]
}

fn headers() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        5 => one_of(&rules::SESSION_NAMES),
        3 => one_of(&["X-OpenCode-Session", "X-Parent-Session-Id", "authorization"]),
        3 => one_of(&rules::TURN_NAMES),
        1 => "[a-zA-Z-]{1,20}",
    ];
    let line = (name, value()).prop_map(|(name, value)| [name.as_bytes(), b": ", &value].concat());
    vec(line, 0..8).prop_map(|lines| lines.join(&b'\n'))
}

/// A target in its shortest spelling, and its session header. The targets overlap.
fn target() -> impl Strategy<Value = (&'static str, Option<&'static str>)> {
    let origin = select(
        &[
            "https://opencode.ai",
            "https://*.opencode.ai",
            "https://dev.opencode.ai",
            "https://*.dev.opencode.ai",
            "https://example.com",
        ][..],
    );
    let headers = [
        "x-opencode-session",
        "x-session-id",
        "x-session-affinity",
        "x-own",
    ];
    (origin, proptest::option::of(select(headers.to_vec())))
}

proptest! {
    #![proptest_config(cases(4096))]

    #[test]
    fn a_target_is_and_matches_what_the_rules_say(target in origin(), url in url()) {
        rules::check_target(&target, &url);
    }

    #[test]
    fn a_string_that_goes_on_after_its_origin_is_no_target(url in url()) {
        rules::check_target(&url, &url);
    }

    #[test]
    fn a_session_header_is_what_the_rules_say(
        target in origin(),
        name in prop_oneof![
            one_of(&rules::RESERVED),
            one_of(&rules::SESSION_NAMES),
            "[a-zA-Z-]{1,20}",
            "[ -~]{0,9}",
            any::<String>(),
        ],
        url in url(),
    ) {
        rules::check_session_header(&target, &name, &url);
        // The same with a URL that matches.
        rules::check_session_header(&target, &name, &target);
    }

    #[test]
    fn of_our_session_headers_a_request_gets_exactly_the_one_of_its_target(
        targets in vec(target(), 1..5),
        host in select(&["opencode.ai", "dev.opencode.ai", "a.dev.opencode.ai", "example.com"][..]),
        text in headers(),
        keep in any::<bool>(),
    ) {
        let existing = if keep { ExistingHeader::Keep } else { ExistingHeader::Replace };
        let headers = rules::headers(&text);
        rules::check_sent(&targets, &format!("https://{host}/v1"), &headers, existing);
    }

    #[test]
    fn a_session_id_is_what_it_was_made_of(bytes in value()) {
        rules::check_session_id(&bytes);
    }

    #[test]
    fn incoming_headers_name_the_session_that_the_rules_say(text in headers()) {
        rules::check_headers(&rules::headers(&text));
    }
}
