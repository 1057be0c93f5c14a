//! Sessions: conversations, turns and subagents, as they are made, stored, received and sent.

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest_opencode_session::{Session, SessionId, TurnId, header};

use crate::support::map;

/// Two ids and a turn that tests can tell apart.
fn ids() -> (SessionId, SessionId, TurnId) {
    let [id, parent] = ["the-session", "the-parent"].map(|id| id.parse().unwrap());
    (id, parent, "the-turn".parse().unwrap())
}

/// A subagent's turn with the ids of [`ids`].
fn subagents_turn() -> Session {
    let (id, parent, turn) = ids();
    Session::from(id).with_parent(parent).with_turn(turn)
}

// Made

#[test]
fn a_turn_is_of_the_same_session_and_a_subagent_names_the_session_that_started_it() {
    let session = Session::new();
    assert_eq!((session.parent(), session.turn_id()), (None, None));

    let turn = session.turn();
    assert_eq!(turn.id(), session.id());
    assert_ne!(turn.turn_id(), session.turn().turn_id());

    let subagent = turn.subagent();
    assert_ne!(subagent.id(), session.id());
    assert_eq!(subagent.parent(), Some(session.id()));
    assert_eq!(subagent.turn_id(), None);
    assert_eq!(subagent.turn().parent(), Some(session.id()));
}

#[test]
fn a_session_is_resumed_by_its_id_its_turn_and_its_parent() {
    let (id, parent, turn) = ids();
    let session = subagents_turn();
    assert_eq!(session.id(), &id);
    assert_eq!(session.parent(), Some(&parent));
    assert_eq!(session.turn_id(), Some(&turn));
    assert_eq!(Session::from(&id), Session::from(id));

    // In the other order, and each of them replaced.
    let (id, ..) = ids();
    let other_way = Session::from(id)
        .with_turn(turn.clone())
        .with_parent(parent);
    assert_eq!(session, other_way);
    let later = session.with_turn("later".parse().unwrap());
    assert_eq!(later.parent(), session.parent());
    assert_ne!(later, session);
    assert_eq!(later.with_turn(turn), session);
}

#[test]
fn a_session_prints_what_it_sends() {
    assert_eq!(
        format!("{:?}", subagents_turn()),
        r#"Session { id: SessionId("the-session"), parent: Some(SessionId("the-parent")), turn: Some(TurnId("the-turn")) }"#
    );
}

#[test]
fn an_id_of_the_applications_own_becomes_a_session() {
    let session = Session::from(ids().0);
    assert_eq!("the-session".parse().as_ref(), Ok(&session));
    assert_eq!(Session::try_from("the-session").as_ref(), Ok(&session));
    assert_eq!(Session::try_from("the-session".to_owned()), Ok(session));
    for refused in [
        "two words".parse::<Session>(),
        Session::try_from("two words"),
        Session::try_from("two words".to_owned()),
    ] {
        assert_eq!(
            refused.unwrap_err(),
            "two words".parse::<SessionId>().unwrap_err()
        );
    }
    let derived = Session::from(SessionId::derive("my-agent", "a path"));
    assert_eq!(Session::derive("my-agent", "a path"), derived);
}

#[test]
fn a_parent_is_whatever_names_a_session_and_none_leaves_it_as_it_was() {
    let (session, parent) = (Session::new(), Session::new().turn());
    for named in [
        session.with_parent(&parent),
        session.with_parent(parent.clone()),
        session.with_parent(parent.id()),
        session.with_parent(Some(&parent)),
        session.with_parent(&parent).with_parent(None::<Session>),
        parent.in_scope(|| session.with_parent(Session::current())),
    ] {
        assert_eq!(named.id(), session.id());
        // The parent's own turn is not taken over.
        assert_eq!((named.parent(), named.turn_id()), (Some(parent.id()), None));
    }
    assert_eq!(session.with_parent(Session::current()), session);
}

// Derived

#[test]
fn a_derived_session_has_each_of_its_ids_derived() {
    let session = subagents_turn();
    let derived = session.derived("tenant 1");
    assert_eq!(derived, session.derived("tenant 1"));
    assert_eq!(*derived.id(), SessionId::derive("tenant 1", "the-session"));
    let parent = SessionId::derive("tenant 1", "the-parent");
    assert_eq!(derived.parent(), Some(&parent));
    let turn = SessionId::derive("tenant 1", "the-turn");
    assert_eq!(derived.turn_id().unwrap(), turn.as_str());
}

#[test]
fn a_subagent_that_is_derived_still_names_its_parents_derived_session() {
    let session = Session::new().turn();
    let subagent = session.subagent();
    let scope = "a secret";
    assert_eq!(
        subagent.derived(scope).parent(),
        Some(session.derived(scope).id())
    );
}

#[test]
fn what_a_session_does_not_have_is_not_derived_and_no_two_scopes_meet() {
    let session = Session::new();
    let derived = session.derived("tenant 1");
    assert_eq!((derived.parent(), derived.turn_id()), (None, None));
    assert_ne!(derived.id(), session.derived("tenant 2").id());
}

// Stored

#[test]
fn a_stored_session_comes_back_equal_from_json_and_from_a_format_that_does_not_describe_itself() {
    let plain = Session::new();
    for session in [plain.turn(), plain.subagent(), subagents_turn(), plain] {
        let json = serde_json::to_string(&session).unwrap();
        assert_eq!(serde_json::from_str::<Session>(&json).unwrap(), session);
        let bytes = postcard::to_allocvec(&session).unwrap();
        assert_eq!(postcard::from_bytes::<Session>(&bytes).unwrap(), session);
    }
}

#[test]
fn a_session_is_stored_as_a_struct_of_its_three_parts() {
    assert_eq!(
        serde_json::to_value(subagents_turn()).unwrap(),
        serde_json::json!({"id": "the-session", "parent": "the-parent", "turn": "the-turn"})
    );
    let stored = serde_json::to_value(Session::from(ids().0)).unwrap();
    let expected = serde_json::json!({"id": "the-session", "parent": null, "turn": null});
    assert_eq!(stored, expected);
    let written_by_hand = r#"{"id": "the-session"}"#;
    assert_eq!(
        serde_json::from_str::<Session>(written_by_hand).unwrap(),
        Session::from(ids().0)
    );
}

#[test]
fn a_stored_session_that_breaks_the_rules_is_refused() {
    for (stored, complaint) in [
        (r#"{"id": "two words"}"#, "character 4 of the value is ' '"),
        (r#"{"id": "a", "turn": ""}"#, "the value is empty"),
        (
            r#"{"id": "a", "parent": "\n"}"#,
            r"character 1 of the value is '\n'",
        ),
        (r#"{"turn": "a"}"#, "missing field `id`"),
        (r#"{"id": "a", "trun": "b"}"#, "unknown field `trun`"),
        (
            r#""an-id-alone""#,
            "expected a session: a struct of its `id`, `parent` and `turn`",
        ),
    ] {
        let error = serde_json::from_str::<Session>(stored)
            .unwrap_err()
            .to_string();
        assert!(error.contains(complaint), "{stored}: {error}");
    }
}

// Received

#[test]
fn an_incoming_session_is_found_under_every_name_and_the_gateways_own_names_come_first() {
    let names = [
        "x-opencode-session",
        "session_id",
        "session-id",
        "x-session-id",
        "x-claude-code-session-id",
        "x-session-affinity",
    ];
    let mut headers = HeaderMap::new();
    assert_eq!(Session::from_headers(&headers), None);
    for name in names.iter().rev() {
        headers.insert(*name, HeaderValue::from_static(name));
        assert_eq!(Session::from_headers(&headers).unwrap().id(), name);
    }
}

#[test]
fn an_incoming_session_brings_its_turn_and_its_parent() {
    let headers = subagents_turn().headers();
    assert_eq!(Session::from_headers(&headers), Some(subagents_turn()));

    let by_another_name = map(&[
        ("x-session-affinity", "the-session"),
        ("x-parent-session-id", "the-parent"),
        ("x-opencode-request-id", "the-turn"),
    ]);
    assert_eq!(
        Session::from_headers(&by_another_name),
        Some(subagents_turn())
    );
}

#[test]
fn of_two_names_of_an_incoming_turn_the_one_that_the_gateway_reads_wins() {
    let mut headers = map(&[
        ("x-opencode-session", "the-session"),
        ("x-opencode-request", "the-turn"),
        ("x-opencode-request-id", "wins"),
    ]);
    let turn = |headers: &HeaderMap| Session::from_headers(headers).unwrap().turn_id().cloned();
    assert_eq!(turn(&headers).unwrap(), "wins");
    headers.insert("x-opencode-request-id", HeaderValue::from_static(""));
    assert_eq!(turn(&headers).unwrap(), "the-turn");
}

#[test]
fn without_a_valid_session_there_is_no_turn_and_no_parent() {
    let headers = map(&[
        ("x-opencode-session", "two words"),
        ("x-opencode-request", "the-turn"),
        ("x-parent-session-id", "the-parent"),
    ]);
    assert_eq!(Session::from_headers(&headers), None);
}

#[test]
fn what_comes_in_empty_malformed_or_doubled_is_passed_over() {
    let (id, ..) = ids();
    for values in [
        &[""][..],
        &["two words"],
        &["caf\u{e9}"],
        &["one", "two"],
        &["one", "one", "two"],
    ] {
        let headers_with = |name: &HeaderName| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            headers
        };
        let mut headers = headers_with(&header::SESSION);
        assert_eq!(Session::from_headers(&headers), None, "{values:?}");
        headers.insert("x-session-id", HeaderValue::from_static("valid"));
        assert_eq!(Session::from_headers(&headers).unwrap().id(), &"valid");

        for name in [
            header::TURN,
            header::PARENT_SESSION,
            HeaderName::from_static("x-opencode-request-id"),
        ] {
            let mut headers = headers_with(&name);
            headers.insert(header::SESSION, id.clone().into());
            let session = Session::from_headers(&headers);
            assert_eq!(session, Some(Session::from(&id)), "{name}: {values:?}");
        }
    }
}

#[test]
fn after_a_malformed_or_doubled_session_the_turn_and_the_parent_are_another_ones() {
    for bad in [&[""][..], &["two words"], &["one", "two"]] {
        for before in [
            "x-opencode-session",
            "session-id",
            "x-claude-code-session-id",
        ] {
            let mut headers = vec![
                ("x-opencode-request-id", "a-turn"),
                ("x-parent-session-id", "a-parent"),
                ("x-session-affinity", "the-session"),
            ];
            headers.extend(bad.iter().map(|value| (before, *value)));
            let session = Session::from_headers(&map(&headers));
            assert_eq!(session, Some(Session::from(ids().0)), "{before}: {bad:?}");
        }
    }
    // One that stands after it says nothing about them.
    let mut headers = subagents_turn().headers();
    headers.insert("session_id", HeaderValue::from_static("two words"));
    assert_eq!(Session::from_headers(&headers), Some(subagents_turn()));
}

#[test]
fn the_same_value_twice_is_one_value() {
    let mut headers = subagents_turn().headers();
    for (name, value) in &subagents_turn().headers() {
        headers.append(name, value.clone());
    }
    assert_eq!(Session::from_headers(&headers), Some(subagents_turn()));
}

// Sent

#[test]
fn headers_hold_what_a_session_sends_and_nothing_else() {
    let session = Session::new();
    assert_eq!(session.headers().len(), 1);
    assert_eq!(session.headers()[header::SESSION], session.id().as_str());

    assert_eq!(
        subagents_turn().headers(),
        map(&[
            ("x-opencode-session", "the-session"),
            ("x-opencode-request", "the-turn"),
            ("x-parent-session-id", "the-parent"),
        ])
    );
}
