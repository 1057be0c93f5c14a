//! Session ids: what they are, what they are made of, and what is refused.

use std::collections::HashSet;

use http::{HeaderMap, HeaderValue};
use reqwest_opencode_session::{InvalidSessionId, Session, SessionId, header};
use uuid::Uuid;

#[test]
fn a_new_id_is_a_hyphenated_uuid_of_version_7() {
    let id = SessionId::new();
    let uuid: Uuid = id.as_str().parse().unwrap();
    assert_eq!(uuid.get_version_num(), 7);
    assert_eq!(id.as_str(), uuid.hyphenated().to_string());
}

#[test]
fn new_ids_sort_in_the_order_in_which_they_were_made() {
    let ids: Vec<_> = (0..1000).map(|_| SessionId::new()).collect();
    assert!(ids.is_sorted());
}

#[test]
fn the_last_four_characters_of_new_ids_vary_so_that_providers_share_the_load() {
    let tails: HashSet<String> = (0..1000)
        .map(|_| SessionId::new().as_str()[32..].to_owned())
        .collect();
    // Of 65,536 tails, a thousand random ones are almost all different.
    assert!(tails.len() > 900, "{} of 1,000", tails.len());
}

#[test]
fn a_derived_id_is_the_same_everywhere() {
    // uuid.uuid5(uuid.uuid5(uuid.UUID(int=0), "my-agent"), "notes") in Python
    assert_eq!(
        SessionId::derive("my-agent", "notes").as_str(),
        "d8a2bf09-907a-5042-b637-9eedce66b1af"
    );
}

#[test]
fn a_derived_id_depends_on_where_the_scope_ends_and_the_name_begins() {
    let ids = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "")]
        .map(|(scope, name)| SessionId::derive(scope, name));
    assert_eq!(HashSet::from(ids).len(), 4);
}

#[test]
fn every_visible_ascii_character_may_stand_in_an_id() {
    let all: String = ('!'..='~').collect();
    assert_eq!(all.parse::<SessionId>().unwrap().as_str(), all);
}

#[test]
fn an_id_of_128_characters_is_accepted_and_one_of_129_is_not() {
    let longest = "x".repeat(128);
    assert_eq!(longest.parse::<SessionId>().unwrap().as_str(), longest);
    let error = "x".repeat(129).parse::<SessionId>().unwrap_err();
    assert_eq!(error, InvalidSessionId::TooLong { length: 129 });
}

#[test]
fn what_is_no_id_is_refused_with_the_rule_and_the_place() {
    let illegal = |position, character| InvalidSessionId::IllegalCharacter {
        position,
        character,
    };
    for (text, expected) in [
        ("", InvalidSessionId::Empty),
        (" ", illegal(0, ' ')),
        ("two words", illegal(3, ' ')),
        ("line\n", illegal(4, '\n')),
        ("tab\t", illegal(3, '\t')),
        ("nul\0", illegal(3, '\0')),
        ("del\x7f", illegal(3, '\x7f')),
        ("caf\u{e9}", illegal(3, '\u{e9}')),
        ("\u{1f980}crab", illegal(0, '\u{1f980}')),
    ] {
        assert_eq!(text.parse::<SessionId>(), Err(expected.clone()), "{text:?}");
        assert_eq!(SessionId::try_from(text), Err(expected.clone()));
        assert_eq!(SessionId::try_from(text.to_owned()), Err(expected));
    }
}

#[test]
fn the_errors_say_what_to_do() {
    let message = |text: &str| text.parse::<SessionId>().unwrap_err().to_string();
    assert_eq!(
        message("caf\u{e9}"),
        "the session id has 'é' as character 4, and only visible ASCII may stand there; \
         `SessionId::derive` makes a valid one of it"
    );
    assert_eq!(
        message(&"x".repeat(200)),
        "the session id has 200 characters and may have 128; \
         `SessionId::derive` makes a short one of it"
    );
    assert_eq!(
        message(""),
        "the session id is empty; it must have 1 to 128 visible ASCII characters"
    );
}

#[test]
fn a_header_value_is_held_to_the_same_rule() {
    let value = HeaderValue::from_static("abc");
    let id = SessionId::try_from(value.clone()).unwrap();
    assert_eq!(id.as_str(), "abc");
    assert_eq!(HeaderValue::from(id), value);
    for bytes in [
        &b""[..],
        b"a b",
        b"caf\xe9",
        "caf\u{e9}".as_bytes(),
        &[b'x'; 129],
    ] {
        let value = HeaderValue::from_bytes(bytes).unwrap();
        assert!(SessionId::try_from(value).is_err(), "{bytes:?}");
    }
}

#[test]
fn an_incoming_session_is_found_under_every_name_that_the_gateway_accepts() {
    let names = [
        "x-opencode-session",
        "session_id",
        "session-id",
        "x-session-id",
        "x-claude-code-session-id",
    ];
    let mut headers = HeaderMap::new();
    assert_eq!(SessionId::from_headers(&headers), None);
    for name in names.iter().rev() {
        headers.insert(*name, HeaderValue::from_static(name));
        assert_eq!(SessionId::from_headers(&headers).unwrap().as_str(), *name);
    }
}

#[test]
fn an_incoming_session_that_is_empty_malformed_or_doubled_is_passed_over() {
    for values in [
        &[""][..],
        &["two words"],
        &["caf\u{e9}"],
        &["one", "two"],
        &["one", "one"],
    ] {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::SESSION,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        assert_eq!(SessionId::from_headers(&headers), None, "{values:?}");
        headers.insert("x-session-id", HeaderValue::from_static("valid"));
        assert_eq!(SessionId::from_headers(&headers).unwrap().as_str(), "valid");
    }
}

#[test]
fn a_stored_id_is_read_back_and_one_that_breaks_the_rules_is_an_error() {
    let id = SessionId::new();
    let stored = serde_json::to_string(&id).unwrap();
    assert_eq!(stored, format!("\"{id}\""));
    assert_eq!(serde_json::from_str::<SessionId>(&stored).unwrap(), id);

    let error = serde_json::from_str::<SessionId>("\"two words\"")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the session id has ' ' as character 4"),
        "{error}"
    );
    assert!(serde_json::from_str::<SessionId>("17").is_err());
}

#[test]
fn a_session_sends_its_turn_and_its_parent() {
    let session = Session::new();
    assert_eq!((session.parent(), session.request_id()), (None, None));

    let turn = session.turn();
    assert_eq!(turn.id(), session.id());
    assert_ne!(turn.request_id(), session.turn().request_id());

    let subagent = turn.subagent();
    assert_ne!(subagent.id(), session.id());
    assert_eq!(subagent.parent(), Some(session.id()));
    assert_eq!(subagent.request_id(), None);
    assert_eq!(subagent.turn().parent(), Some(session.id()));

    let fork = subagent.fork();
    assert_ne!(fork.id(), subagent.id());
    assert_eq!((fork.parent(), fork.request_id()), (None, None));
}

#[test]
fn headers_hold_what_a_session_sends_and_nothing_else() {
    let session = Session::new();
    assert_eq!(session.headers().len(), 1);
    assert_eq!(session.headers()[header::SESSION], session.id().as_str());

    let step = session.subagent().turn();
    let headers = step.headers();
    assert_eq!(headers.len(), 3);
    assert_eq!(headers[header::SESSION], step.id().as_str());
    assert_eq!(headers[header::REQUEST], step.request_id().unwrap());
    assert_eq!(headers[header::PARENT_SESSION], session.id().as_str());
}
