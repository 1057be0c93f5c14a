//! The rules hold for whatever is thrown at them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::rules;

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(words).prop_map(str::to_owned)
}

fn some_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let word = prop_oneof![8 => one_of(words), 1 => any::<char>().prop_map(String::from)];
    vec(word, 0..4).prop_map(|words| words.concat())
}

/// A URL as far as its port, which is mostly near to being a target.
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
        1 => one_of(&["X-OpenCode-Session", "x-opencode-request", "authorization"]),
        1 => "[a-zA-Z-]{1,20}",
    ];
    let line = (name, value()).prop_map(|(name, value)| [name.as_bytes(), b": ", &value].concat());
    vec(line, 0..8).prop_map(|lines| lines.join(&b'\n'))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(4096)
    })]

    #[test]
    fn a_target_is_and_matches_what_the_rules_say(target in origin(), url in url()) {
        rules::check_target(&target, &url);
    }

    #[test]
    fn a_string_that_goes_on_after_its_origin_is_no_target(url in url()) {
        rules::check_target(&url, &url);
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
