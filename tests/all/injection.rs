//! Every string that the API takes, with content that must not get into a header: a typed error
//! says which rule it breaks and where.

use std::collections::HashSet;
use std::fmt;

use http::HeaderValue;
use reqwest_opencode_session::{
    BuildError, InvalidTarget, InvalidValue, OpencodeSessionMiddleware,
    OpencodeSessionMiddlewareBuilder, SessionId, Target, TurnId,
};

use self::Rule::{Empty, IllegalCharacter, TooLong, Untrimmed};
use crate::ids::Id;

/// A rule that a string breaks: an `InvalidValue`, whose variants only the library can make.
#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Empty,
    TooLong { length: usize },
    Untrimmed { position: usize, character: char },
    IllegalCharacter { position: usize, character: char },
}

impl PartialEq<Rule> for InvalidValue {
    fn eq(&self, rule: &Rule) -> bool {
        rule == &match *self {
            Self::Empty => Empty,
            Self::TooLong { length, .. } => TooLong { length },
            Self::Untrimmed {
                position,
                character,
                ..
            } => Untrimmed {
                position,
                character,
            },
            Self::IllegalCharacter {
                position,
                character,
                ..
            } => IllegalCharacter {
                position,
                character,
            },
            _ => return false,
        }
    }
}

/// Strings that no header of this crate may contain, and the rule that each breaks.
fn bad_strings() -> Vec<(String, Rule)> {
    let illegal = [
        (" ", 0, ' '),
        ("   ", 0, ' '),
        ("\t", 0, '\t'),
        ("4\t2", 1, '\t'),
        ("4\t2\n", 1, '\t'),
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
    let untrimmed = [
        (" 42", 0, ' '),
        ("42 ", 2, ' '),
        ("42\n", 2, '\n'),
        ("42\r\n", 2, '\r'),
        ("\t42\n", 0, '\t'),
    ];
    let untrimmed = untrimmed.map(|(string, position, character)| {
        let error = Untrimmed {
            position,
            character,
        };
        (string.to_owned(), error)
    });
    let too_long = [129, 100_000].map(|length| ("x".repeat(length), TooLong { length }));
    let empty = (String::new(), Empty);
    let all = illegal.into_iter().chain(untrimmed);
    all.chain(too_long).chain([empty]).collect()
}

/// Asserts that the error names the rule in words, and puts no control character into a log.
fn assert_told(error: &impl fmt::Display, rule: &Rule) {
    let message = error.to_string();
    let words = match rule {
        TooLong { length } => vec![length.to_string(), "128".to_owned()],
        IllegalCharacter {
            position,
            character,
        } => vec![
            format!("character {}", position + 1),
            format!("is {character:?}"),
        ],
        Untrimmed {
            position,
            character,
        } => vec![
            format!("character {}", position + 1),
            format!("is {character:?}"),
            "trim the value".to_owned(),
        ],
        Empty => vec!["is empty".to_owned()],
    };
    for words in words {
        assert!(message.contains(&words), "{message:?} does not say {words}");
    }
    assert!(!message.contains(char::is_control), "{message:?}");
}

fn an_id_is_refused_wherever_it_comes_from<I: Id>() {
    for (string, rule) in bad_strings() {
        let mut refusals = vec![
            string.parse::<I>(),
            I::try_from(&*string),
            I::try_from(string.clone()),
        ];
        if let Ok(value) = HeaderValue::from_bytes(string.as_bytes()) {
            refusals.extend([I::try_from(&value), I::try_from(value)]);
        }
        for refused in refusals {
            let error = refused.unwrap_err();
            assert_eq!(error, rule);
            assert_told(&error, &rule);
            let derives = matches!(rule, TooLong { .. } | IllegalCharacter { .. });
            assert_eq!(error.to_string().contains("derive"), derives, "{error}");
        }
        let error = serde_json::from_value::<I>(string.into()).unwrap_err();
        assert_told(&error, &rule);
    }
    let not_unicode = HeaderValue::from_bytes(b"42\xff").unwrap();
    let rule = IllegalCharacter {
        position: 2,
        character: char::REPLACEMENT_CHARACTER,
    };
    assert_eq!(I::try_from(not_unicode).unwrap_err(), rule);
}

#[test]
fn a_session_id_is_refused_wherever_it_comes_from() {
    an_id_is_refused_wherever_it_comes_from::<SessionId>();
}

#[test]
fn a_turn_id_is_refused_wherever_it_comes_from() {
    an_id_is_refused_wherever_it_comes_from::<TurnId>();
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
            let BuildError::InvalidValue {
                setting: named,
                reason,
                ..
            } = &error
            else {
                panic!("{error:?}");
            };
            assert_eq!(*named, setting);
            assert_eq!(*reason, rule);
            assert_told(&error, &rule);
            assert!(error.to_string().contains(setting), "{error}");
            // Only an id can be derived.
            assert!(!error.to_string().contains("SessionId"), "{error}");
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
            let rule = IllegalCharacter {
                position: before.len() + position,
                character,
            };
            let InvalidTarget::IllegalCharacter {
                position,
                character,
                ..
            } = error
            else {
                panic!("{error}");
            };
            let found = IllegalCharacter {
                position,
                character,
            };
            assert_eq!(found, rule);
            assert_told(&error, &rule);
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
