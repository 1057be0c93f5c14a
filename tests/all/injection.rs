//! Every string that the API takes, when it holds what must not come into a header: a typed error
//! says which rule it breaks and where.

use std::collections::HashSet;
use std::fmt;

use http::HeaderValue;
use reqwest_opencode_session::InvalidSessionId::{self, Empty, IllegalCharacter, TooLong};
use reqwest_opencode_session::{
    BuildError, InvalidTarget, OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder,
    SessionId, Target,
};

/// Strings that no header of this crate may hold, and the rule that each breaks.
fn bad_strings() -> Vec<(String, InvalidSessionId)> {
    let illegal = [
        (" ", 0, ' '),
        ("   ", 0, ' '),
        (" 42", 0, ' '),
        ("42 ", 2, ' '),
        ("\t", 0, '\t'),
        ("4\t2", 1, '\t'),
        ("42\n", 2, '\n'),
        ("42\r\nx-injected: 1", 2, '\r'),
        ("42\nx-injected: 1", 2, '\n'),
        ("\0", 0, '\0'),
        ("42\0", 2, '\0'),
        ("\u{7f}42", 0, '\u{7f}'),
        ("Gespräch", 5, 'ä'),
        ("会话\r\n", 0, '会'),
        ("4\u{a0}2", 1, '\u{a0}'),
        ("\u{feff}42", 0, '\u{feff}'),
        ("4\u{200b}2", 1, '\u{200b}'),
    ];
    let illegal = illegal.map(|(string, position, character)| {
        let error = IllegalCharacter {
            position,
            character,
        };
        (string.to_owned(), error)
    });
    let too_long = [129, 100_000].map(|length| ("x".repeat(length), TooLong { length }));
    let empty = (String::new(), Empty);
    illegal.into_iter().chain(too_long).chain([empty]).collect()
}

/// Asserts that the error says so in words, and brings no control character into a log.
fn assert_told(error: &impl fmt::Display, rule: &InvalidSessionId) {
    let message = error.to_string();
    let words = match rule {
        TooLong { length } => vec![length.to_string(), "128".to_owned()],
        IllegalCharacter {
            position,
            character,
        } => vec![format!("{character:?} as character {}", position + 1)],
        _ => vec!["is empty".to_owned()],
    };
    for words in words {
        assert!(message.contains(&words), "{message:?} does not say {words}");
    }
    assert!(!message.contains(char::is_control), "{message:?}");
}

#[test]
fn a_session_id_is_refused_wherever_it_comes_from() {
    for (string, rule) in bad_strings() {
        let refused = Err(rule.clone());
        assert_eq!(string.parse::<SessionId>(), refused);
        assert_eq!(SessionId::try_from(&*string), refused);
        assert_eq!(SessionId::try_from(string.clone()), refused);
        if let Ok(value) = HeaderValue::from_bytes(string.as_bytes()) {
            assert_eq!(SessionId::try_from(value), refused);
        }
        assert_told(&rule, &rule);
        let error = serde_json::from_value::<SessionId>(string.into()).unwrap_err();
        assert_told(&error, &rule);
    }
    assert!("x".repeat(128).parse::<SessionId>().is_ok());
    let not_unicode = HeaderValue::from_bytes(b"42\xff").unwrap();
    let rule = IllegalCharacter {
        position: 2,
        character: char::REPLACEMENT_CHARACTER,
    };
    assert_eq!(SessionId::try_from(not_unicode), Err(rule));
}

#[test]
fn a_builder_names_the_setting_that_it_refuses() {
    type Builder = OpencodeSessionMiddlewareBuilder;
    type Set = fn(Builder, &str) -> Builder;
    let settings: [(_, Set); 3] = [
        ("client_name", |builder, value| builder.client_name(value)),
        ("project", |builder, value| builder.project(value)),
        ("user_agent", |builder, value| builder.user_agent(value)),
    ];
    for (setting, set) in settings {
        let build = |value: &str| set(OpencodeSessionMiddleware::builder(), value).build();
        for (string, rule) in bad_strings() {
            let error = build(&string).unwrap_err();
            let expected = match rule {
                TooLong { length } => BuildError::TooLong { setting, length },
                IllegalCharacter {
                    position,
                    character,
                } => BuildError::IllegalCharacter {
                    setting,
                    position,
                    character,
                },
                _ => BuildError::Empty { setting },
            };
            assert_eq!(error, expected);
            assert_told(&error, &rule);
            assert!(error.to_string().contains(setting), "{error}");
        }
        build(&"x".repeat(128)).unwrap();
        assert_eq!(build("my agent").is_ok(), setting == "user_agent");
    }
}

#[test]
fn a_target_is_refused_at_the_character_that_is_wrong() {
    for (string, rule) in bad_strings() {
        let IllegalCharacter {
            position,
            character,
        } = rule
        else {
            continue;
        };
        for (before, after) in [
            ("", "https://opencode.ai"),
            ("https", "://opencode.ai"),
            ("https://", ".opencode.ai"),
            ("https://opencode.ai", ""),
            ("https://opencode.ai:", ""),
            ("https://opencode.ai/", ""),
        ] {
            let error = format!("{before}{string}{after}")
                .parse::<Target>()
                .unwrap_err();
            let position = before.len() + position;
            let expected = InvalidTarget::IllegalCharacter {
                position,
                character,
            };
            assert_eq!(error, expected);
            assert_told(
                &error,
                &IllegalCharacter {
                    position,
                    character,
                },
            );
        }
    }
    assert_eq!("".parse::<Target>(), Err(InvalidTarget::NoScheme));
    assert_eq!("https://".parse::<Target>(), Err(InvalidTarget::EmptyHost));
    let long = format!("https://{}", "x".repeat(129)).parse::<Target>();
    assert!(
        matches!(long, Err(InvalidTarget::InvalidHost { .. })),
        "{long:?}"
    );
}

#[test]
fn an_id_is_derived_from_anything() {
    let mut strings: Vec<_> = bad_strings()
        .into_iter()
        .map(|(string, _)| string)
        .collect();
    strings.push("x".repeat(128));
    let mut ids = HashSet::new();
    for scope in &strings {
        for name in &strings {
            let id = SessionId::derive(scope, name);
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
            assert_eq!(id.as_str().len(), 36);
            ids.insert(id);
        }
    }
    assert_eq!(ids.len(), strings.len() * strings.len());
}
