//! The rules of the log, one by one: right traffic stays clean, and wrong traffic is marked.

use http::{Method, Request, StatusCode};
use reqwest_opencode_session::testing::record::{Answer, Log, ToolCall};
use reqwest_opencode_session::testing::{Gateway, Limits, Mark, Reply};
use serde_json::{Value, json};

use super::played::{
    Call, Format, Message, Said, Tool, asks, continued, marked, moved, quotes, result, says, shared,
};
use super::support::{message_of, post, record, start, user};
use crate::support::CHAT;

const SYSTEM: &str = "You are an agent. Use the tools.";
const LONG: &str = "It is sunny in Lisbon today, with some wind from the sea.";
const LONG_ID: &str = "call_9fXk2LmQ0aZt7RwB4cYd";

fn call(session: &str, messages: &[Message]) -> Call {
    Call::in_format(session, Format::Chat, SYSTEM, messages)
}

fn tool(id: &str, city: &str) -> Tool {
    Tool::new(id, "weather", json!({"city": city, "unit": "C"}))
}

/// Plays a call with an answer, and then one that goes on in a session; returns the marks of the
/// second one.
fn goes_on(format: Format, answer: &Said, says_next: Said, session: &str) -> Vec<Mark> {
    let log = Log::default();
    let first = Call::in_format("x", format, SYSTEM, &[asks("Hello")]);
    first.answered(answer.clone()).of(&log);
    let messages = [asks("Hello"), says(says_next), asks("And then?")];
    Call::in_format(session, format, SYSTEM, &messages).of(&log);
    let [_, second] = &log.requests()[..] else {
        panic!("there are two calls");
    };
    second.marks.clone()
}

#[test]
fn an_answer_agrees_in_letters_and_digits_or_in_its_beginning_or_end() {
    let thoughts = format!("<think>Let me see.</think>\n{LONG}");
    let cut = &LONG[..LONG.len() - 10];
    let without_beginning = &LONG[10..];
    for (answer, next, agrees) in [
        ("Yes.", "Yes.", true),
        ("Yes.", "*Yes*\n", true),
        ("Yes.", "No.", false),
        ("Yes.", "Yes, it is.", false),
        (LONG, LONG, true),
        (LONG, cut, true),
        (LONG, without_beginning, true),
        (LONG, &LONG[10..40], false),
        (thoughts.as_str(), LONG, true),
        (LONG, thoughts.as_str(), true),
        ("<think>Let me see.</think>Yes.", "Yes.", true),
        (LONG, "It rains.", false),
        // 23 letters and digits of it are too few.
        (LONG, "It is sunny in Lisbon today, but", false),
        (LONG, "It is sunny in Lisbon today, with", true),
        // An answer that says nothing is not known.
        ("…", "Whatever the client says", true),
    ] {
        for format in Format::ALL {
            let marks = goes_on(format, &answer.into(), next.into(), "y");
            let expected = if agrees { moved(1, "x", false) } else { vec![] };
            assert_eq!(marks, expected, "{format:?}: {answer}; {next}");
            // In its own session, it may have been edited.
            assert_eq!(goes_on(format, &answer.into(), next.into(), "x"), []);
        }
    }
}

#[test]
fn of_a_long_answer_the_first_64_kib_count() {
    let long: String = (0..10_000).map(|n| format!("Sentence {n}. ")).collect();
    for length in [Answer::LONGEST_TEXT - 1, Answer::LONGEST_TEXT] {
        let answer = format!("{}é", &long[..length - 2]);
        let known = &answer[..Answer::LONGEST_TEXT.min(answer.len()) - 3];
        for (next, agrees) in [(&*answer, true), (known, true), (&answer[100..], false)] {
            // A log may be given no more than that, or all of it; the end is not known then.
            let is_whole = answer.len() < Answer::LONGEST_TEXT;
            let marks = goes_on(Format::Chat, &answer.as_str().into(), next.into(), "y");
            let expected = match agrees || is_whole {
                true => moved(1, "x", false),
                false => quotes(1, "x"),
            };
            assert_eq!(marks, expected, "{length}: {}", next.len());
        }
    }
}

#[test]
fn an_edited_answer_continues_in_its_own_session_and_in_no_other() {
    for format in Format::ALL {
        for (session, continues) in [("x", Some(1)), ("y", None)] {
            let log = Log::default();
            let first = Call::in_format("x", format, SYSTEM, &[asks("Hello")]);
            first.answered(LONG).of(&log);
            let messages = [asks("Hello"), says("Something else"), asks("And?")];
            Call::in_format(session, format, SYSTEM, &messages).of(&log);
            assert_eq!(continued(&log), [None, continues], "{format:?}");
            assert_eq!(marked(&log), []);
        }
    }
}

#[test]
fn two_conversations_that_begin_alike_are_told_apart_by_their_answers() {
    for format in Format::ALL {
        let log = Log::default();
        for (session, answer) in [("a", "Hi! I am here."), ("b", "Good morning.")] {
            let first = Call::in_format(session, format, SYSTEM, &[asks("hello")]);
            first.answered(answer).of(&log);
        }
        for (session, answer) in [("b", "Good morning."), ("a", "Hi! I am here.")] {
            let messages = [asks("hello"), says(answer), asks("How are you?")];
            Call::in_format(session, format, SYSTEM, &messages).of(&log);
        }
        assert_eq!(
            continued(&log),
            [None, None, Some(2), Some(1)],
            "{format:?}"
        );
        assert_eq!(marked(&log), []);
    }
}

#[test]
fn the_best_match_is_own_and_agreeing_then_own_and_unknown_then_anothers_and_agreeing() {
    let hello = || [asks("Hello")];
    let goes_on = |session: &str| call(session, &[asks("Hello"), says("Hi!"), asks("Bye")]);
    for (calls, continues) in [
        // Own and agreeing, before the latest of another session.
        (vec![("x", "Hi!"), ("y", "Hi!")], 1),
        // Own and unknown.
        (vec![("x", ""), ("y", "Hi!")], 1),
        // Another's and agreeing, before an own one that differs.
        (vec![("x", "No."), ("y", "Hi!")], 2),
        // Own and differing, before another's that is not known.
        (vec![("x", "No."), ("y", "")], 1),
        (vec![("y", "")], 1),
    ] {
        let log = Log::default();
        for (session, answer) in &calls {
            call(session, &hello()).answered(*answer).of(&log);
        }
        goes_on("x").of(&log);
        assert_eq!(continued(&log).pop(), Some(Some(continues)), "{calls:?}");
    }
}

#[test]
fn examples_of_the_client_are_no_answers() {
    let canned = "Got it. Thanks for the context! I will remember all of that.";
    let begins = |question: &str| [asks("(environment)"), says(canned), asks(question)];
    for format in Format::ALL {
        let log = Log::default();
        for (question, answer) in [("Lisbon?", LONG), ("Oslo?", "It rains.")] {
            let mut messages = begins(question).to_vec();
            Call::in_format("pinned", format, SYSTEM, &messages)
                .answered(answer)
                .of(&log);
            messages.extend([says(answer), asks("And then?")]);
            Call::in_format("pinned", format, SYSTEM, &messages).of(&log);
        }
        assert_eq!(marked(&log), [(4, shared(3, 1))], "{format:?}");

        // In sessions of their own, they continue nothing of each other.
        let log = Log::default();
        for (session, question) in [("a", "Lisbon?"), ("b", "Oslo?"), ("c", "Oslo?")] {
            let messages = begins(question);
            Call::in_format(session, format, SYSTEM, &messages)
                .answered(LONG)
                .of(&log);
        }
        assert_eq!(continued(&log), [None; 3]);
        assert_eq!(marked(&log), []);
    }
}

#[test]
fn a_move_is_found_under_other_tools_and_another_system_prompt_if_the_answer_agrees() {
    for format in Format::ALL {
        for (answer, found) in [("Hi!", true), ("Bye.", false), ("", false)] {
            let log = Log::default();
            let first = Call::in_format("x", format, "It is 10:00 in x.", &[asks("Hello")]);
            first.answered(answer).of(&log);
            let messages = [asks("Hello"), says("Hi!"), asks("And?")];
            let mut second = Call::in_format("y", format, "It is 10:01 in y.", &messages);
            second.body["tools"] = json!([{"name": "clock"}]);
            second.of(&log);
            let expected = match found {
                true => vec![(2, moved(1, "x", false))],
                false => vec![],
            };
            assert_eq!(marked(&log), expected, "{format:?}: {answer}");
        }
    }
}

#[test]
fn what_was_given_in_another_session_is_its_conversation_whatever_was_cut() {
    let earlier = [asks("1"), says("a"), asks("2")];
    for format in Format::ALL {
        for cut in [
            // A window that slides, a placeholder, a summary with the last turn as it was.
            vec![asks("2"), says(LONG), asks("3")],
            vec![asks("(cut)"), says(LONG), asks("3")],
            vec![
                asks("So far: 1."),
                says("Understood."),
                asks("2"),
                says(LONG),
                asks("3"),
            ],
        ] {
            for (session, parent, marks) in [
                ("x", None, vec![]),
                ("y", None, vec![(3, moved(2, "x", false))]),
                ("y", Some("x"), vec![]),
            ] {
                let log = Log::default();
                for messages in [&earlier[..1], &earlier[..]] {
                    Call::in_format("x", format, SYSTEM, messages)
                        .answered(if messages.len() == 1 { "a" } else { LONG })
                        .of(&log);
                }
                let mut call = Call::in_format(session, format, SYSTEM, &cut);
                call.parent = parent.map(str::to_owned);
                call.of(&log);
                assert_eq!(
                    continued(&log),
                    [None, Some(1), Some(2)],
                    "{format:?}: {cut:?}"
                );
                assert_eq!(marked(&log), marks, "{format:?}: {cut:?}");
            }
        }
    }
}

#[test]
fn an_answer_that_this_session_got_as_well_is_no_move_and_neither_is_one_that_several_got() {
    let cut = [asks("(cut)"), says(LONG), asks("3")];
    for (sessions, marks) in [
        (&["x"][..], vec![(2, moved(1, "x", false))]),
        (&["x", "y"], vec![]),
        (&["x", "z"], vec![]),
        (&["x", "z", "v", "w", "y"], vec![]),
    ] {
        let log = Log::default();
        for (number, session) in sessions.iter().enumerate() {
            call(session, &[asks(&number.to_string())])
                .answered(LONG)
                .of(&log);
        }
        call("y", &cut).of(&log);
        assert_eq!(marked(&log), marks, "{sessions:?}");
    }
}

#[test]
fn a_conversation_that_goes_back_and_forth_is_marked_though_its_beginning_is_cut() {
    let log = Log::default();
    let words = ["one", "two", "three"].map(|word| format!("This is the answer number {word}."));
    call("x", &[asks("1")]).answered(&*words[0]).of(&log);
    let window = |at: usize| [asks("(cut)"), says(&*words[at]), asks("Go on")];
    call("y", &window(0)).answered(&*words[1]).of(&log);
    call("x", &window(1)).answered(&*words[2]).of(&log);
    call("y", &window(2)).of(&log);
    let expected = [
        (2, moved(1, "x", false)),
        (3, moved(2, "y", false)),
        (4, moved(3, "x", false)),
    ];
    assert_eq!(marked(&log), expected);
    // An answer of its own shows that it was here before.
    let both = [
        asks("(cut)"),
        says(&*words[0]),
        asks("Go on"),
        says(&*words[1]),
        asks("And?"),
    ];
    let log = Log::default();
    call("x", &[asks("1")]).answered(&*words[0]).of(&log);
    call("y", &window(0)).answered(&*words[1]).of(&log);
    call("x", &both).of(&log);
    assert_eq!(marked(&log)[1], (3, moved(2, "y", true)));
}

#[test]
fn tool_calls_identify_a_conversation_by_a_long_id_or_by_two_names_with_arguments() {
    let lisbon = |id: &str| tool(id, "Lisbon");
    let oslo = |id: &str| tool(id, "Oslo");
    let cut = |calls: &[Tool]| -> Vec<Message> {
        let each = calls.iter();
        let each = each.flat_map(|call| [says(call.clone()), result(call, "sunny")]);
        [asks("(cut)")].into_iter().chain(each).collect()
    };
    let uuid = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for format in Format::ALL {
        // This format has no ids.
        let has_ids = format != Format::Generate;
        for (given, sent, found) in [
            (vec![lisbon(LONG_ID)], vec![lisbon(LONG_ID)], has_ids),
            (vec![lisbon(uuid)], vec![lisbon(uuid)], has_ids),
            (vec![lisbon("call_1")], vec![lisbon("call_1")], false),
            (
                vec![lisbon("toolu_of_letters_only")],
                vec![lisbon("toolu_of_letters_only")],
                false,
            ),
            (
                vec![lisbon("functions.weather:0")],
                vec![lisbon("functions.weather:0")],
                false,
            ),
            (
                vec![lisbon("functions.weather10_of_2026:0")],
                vec![lisbon("functions.weather10_of_2026:0")],
                false,
            ),
            (
                vec![lisbon("call_1"), oslo("call_2")],
                vec![lisbon("call_1"), oslo("call_2")],
                true,
            ),
            (
                vec![lisbon("call_1"), oslo("call_2")],
                vec![lisbon("call_3"), lisbon("call_4")],
                false,
            ),
            (
                vec![lisbon("call_1"), oslo("call_2")],
                vec![lisbon("call_1"), tool("call_2", "Quito")],
                false,
            ),
        ] {
            for session in ["x", "y"] {
                let log = Log::default();
                let mut messages = vec![asks("Which one?")];
                for call in &given {
                    Call::in_format("x", format, SYSTEM, &messages)
                        .answered(call.clone())
                        .of(&log);
                    messages.extend([says(call.clone()), result(call, "sunny")]);
                }
                let last = given.len() as u64;
                let number = Call::in_format(session, format, SYSTEM, &cut(&sent)).of(&log);
                let expected = match found && session == "y" {
                    true => vec![(number, moved(last, "x", false))],
                    false => vec![],
                };
                assert_eq!(marked(&log), expected, "{format:?}: {given:?}, {sent:?}");
            }
        }
    }
}

#[test]
fn arguments_are_compared_whatever_the_order_of_their_keys_and_however_none_are_written() {
    let with = |arguments: &str| {
        let call = json!({"id": "1", "function": {"name": "f", "arguments": arguments}});
        json!({"role": "assistant", "content": null, "tool_calls": [call]})
    };
    for (given, sent, same) in [
        (r#"{"a":1,"b":2}"#, r#"{ "b": 2.0, "a": 1 }"#, true),
        (r#"{"a":1,"b":2}"#, r#"{"a":2,"b":1}"#, false),
        ("", "{}", true),
        ("{}", " ", true),
        ("*** patch", "*** patch", true),
        ("*** patch", "*** another", false),
    ] {
        let log = Log::default();
        let body = |messages: &[&Value]| json!({"model": "m", "messages": messages}).to_string();
        let number = record(&log, Method::POST, CHAT, &body(&[&user("Hello")]));
        let mut answer = Answer::with_status(StatusCode::OK);
        let mut call = ToolCall::default();
        call.name = "f".to_owned();
        call.arguments = given.to_owned();
        answer.tool_calls = vec![call];
        log.answer(number, &answer);
        let result = json!({"role": "tool", "tool_call_id": "1", "content": "done"});
        let messages = body(&[&user("Hello"), &with(sent), &result]);
        Call::new("y", serde_json::from_str(&messages).unwrap()).of(&log);
        let expected = same.then_some(1);
        assert_eq!(continued(&log), [None, expected], "{given}, {sent}");
    }
}

#[test]
fn an_agent_that_says_nothing_but_tool_calls_does_not_share_its_session_with_itself() {
    for format in Format::ALL {
        let log = Log::default();
        let cities = ["Lisbon", "Oslo", "Quito", "Cairo", "Lima", "Rome"];
        let mut messages = vec![asks("Compare the weather.")];
        for (number, city) in cities.iter().enumerate() {
            let made = tool(&format!("call_{number}"), city);
            Call::in_format("s", format, SYSTEM, &messages)
                .answered(made.clone())
                .of(&log);
            // At the third call, what came before is cut.
            if number == 2 {
                messages = vec![asks("(cut)")];
            }
            messages.extend([says(made.clone()), result(&made, "sunny")]);
        }
        let root = Some(3);
        assert_eq!(continued(&log)[3], root, "{format:?}");
        assert_eq!(marked(&log), [], "{format:?}");
    }
}

#[test]
fn agents_that_name_themselves_may_share_a_session() {
    for (agents, marks) in [
        ([None, Some("a"), Some("b")], vec![]),
        (
            [None, None, None],
            vec![(4, shared(3, 1)), (6, shared(5, 1))],
        ),
        ([Some("a"), Some("b"), Some("a")], vec![(6, shared(5, 1))]),
    ] {
        let log = Log::default();
        for (number, agent) in agents.into_iter().enumerate() {
            let task = asks(&format!("Task {number}"));
            let answer = format!("Done {number}");
            for messages in [
                vec![task.clone()],
                vec![task.clone(), says(&*answer), asks("Go on")],
            ] {
                let mut call = Call::in_format("s", Format::Messages, SYSTEM, &messages);
                if let Some(agent) = agent {
                    call = call.agent(agent);
                }
                call.answered(&*answer).of(&log);
            }
        }
        assert_eq!(marked(&log), marks, "{agents:?}");
    }
}

#[test]
fn a_note_for_billing_is_not_compared_and_not_shown() {
    let log = Log::default();
    let body = |note: &str, first: &str| {
        let system = json!([
            {"type": "text", "text": format!("{note}: cc_version=2.1; cch=17a{first};")},
            {"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}},
        ]);
        json!({"model": "m", "system": system, "messages": [user(first)]})
    };
    for note in ["x-anthropic-billing-header", "another-note"] {
        let log = Log::default();
        for first in ["A", "B"] {
            let begins = body(note, first);
            let mut goes_on = begins.clone();
            let messages = goes_on["messages"].as_array_mut().unwrap();
            messages.extend([
                json!({"role": "assistant", "content": "Yes."}),
                user("Go on"),
            ]);
            for body in [begins, goes_on] {
                Call::new("s", body).answered("Yes.").of(&log);
            }
        }
        let is_note = note == "x-anthropic-billing-header";
        let expected = match is_note {
            true => vec![(4, shared(3, 1))],
            false => vec![],
        };
        assert_eq!(marked(&log), expected, "{note}");
    }
    Call::new("s", body("x-anthropic-billing-header", "A")).of(&log);
    assert_eq!(log.requests()[0].system.as_deref(), Some(SYSTEM));
}

#[test]
fn a_previous_response_is_continued_by_its_id() {
    let log = Log::default();
    let body = |previous: Option<&str>, text: &str| json!({"model": "m", "input": [user(text)], "previous_response_id": previous});
    let id = "resp_68c1";
    Call::new("x", body(None, "Hello")).with_id(id).of(&log);
    Call::new("x", body(Some(id), "And?"))
        .with_id("resp_2")
        .of(&log);
    Call::new("y", body(Some("resp_2"), "And then?")).of(&log);
    Call::new("z", body(Some("resp_2"), "And then?"))
        .parent("x")
        .of(&log);
    // One that is not known continues nothing.
    Call::new("y", body(Some("resp_0"), "And?")).of(&log);
    assert_eq!(continued(&log), [None, Some(1), Some(2), Some(2), None]);
    assert_eq!(marked(&log), [(3, moved(2, "x", false))]);

    // Of several with one id, its own is meant.
    let log = Log::default();
    for session in ["x", "y"] {
        let call = Call::new(session, body(None, session));
        call.with_id("resp_1").of(&log);
    }
    Call::new("x", body(Some("resp_1"), "And?")).of(&log);
    assert_eq!(continued(&log), [None, None, Some(1)]);
    assert_eq!(marked(&log), []);
}

#[test]
fn an_edit_of_the_first_message_is_accepted_where_it_is_expected() {
    let conversation = |log: &Log, session: &str, first: &str| {
        let messages = [asks(first), says("Yes."), asks("And then?")];
        call(session, &messages[..1]).answered("Yes.").of(log);
        call(session, &messages).answered("No.").of(log);
    };
    let log = Log::default();
    conversation(&log, "s", "Hello");
    conversation(&log, "s", "Hallo");
    conversation(&log, "t", "1");
    conversation(&log, "t", "2");
    let expected = [(4, shared(3, 1)), (8, shared(7, 5))];
    assert_eq!(marked(&log), expected);
    let words = log.get(4).unwrap().to_string();
    assert!(
        words.ends_with("or this is an edit of its first message"),
        "{words}"
    );
    assert!(log.get(4).unwrap().marks[0].may_be_edit());
    log.expect_edit("s");
    assert_eq!(marked(&log), expected[1..]);
    conversation(&log, "s", "Bonjour");
    assert_eq!(marked(&log), expected[1..]);
    log.allow_edits();
    assert_eq!(marked(&log), []);
    conversation(&log, "t", "3");
    assert_eq!(marked(&log), []);
}

#[test]
fn conversations_that_take_turns_are_no_edit() {
    for allowed in [false, true] {
        let log = Log::default();
        if allowed {
            log.allow_edits();
        }
        let mut histories = ["A", "B"].map(|first| vec![asks(first)]);
        // A and B begin, then go on by turns.
        for at in [0, 0, 1, 1, 0, 1, 0] {
            let answer = format!("Answer to {}", histories[at].len());
            call("s", &histories[at]).answered(&*answer).of(&log);
            histories[at].extend([says(&*answer), asks("Go on")]);
        }
        let by_turns = Mark::Shared {
            conversation: 1,
            other: 3,
            back: true,
        };
        let mut expected = vec![(4, shared(3, 1)), (5, vec![by_turns])];
        if allowed {
            expected.remove(0);
        }
        assert_eq!(marked(&log), expected);
        assert!(log.get(5).unwrap().to_string().ends_with(", by turns"));
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_read_is_said_and_not_judged() {
    let gateway = start();
    let send = async |encoding: Option<&str>, body: Vec<u8>| {
        let mut request = post(&gateway, CHAT).bearer_auth(Gateway::KEY).body(body);
        request = request.header("x-opencode-session", "s");
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        request.send().await.unwrap()
    };
    send(None, br#"{"model": "m", "messages": []}"#.to_vec()).await;
    assert!(!gateway.requests()[0].unread);
    gateway.assert_conversations_keep_their_session();
    gateway.assert_no_quotes();
    // As Codex compresses its prompts.
    send(Some("zstd"), vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0]).await;
    let seen = &gateway.requests()[1];
    assert!(seen.unread && seen.continues.is_none(), "{seen}");
    for message in [
        message_of(|| gateway.assert_conversations_keep_their_session()),
        message_of(|| gateway.assert_no_quotes()),
    ] {
        assert!(message.starts_with("1 of 2 calls was not"), "{message}");
        assert!(
            message.ends_with("; its prompt could not be read"),
            "{message}"
        );
    }
    gateway.assert_no_session_missing();
    // What is no call is nothing that must be read.
    gateway.take_requests();
    post(&gateway, "/zen/v1/systemone")
        .body("no JSON")
        .send()
        .await
        .unwrap();
    assert!(!gateway.requests()[0].unread);
}

#[test]
fn a_call_that_could_not_be_read_counts_though_it_is_no_longer_kept() {
    let log = Log::with_limits(Limits::default().requests(1));
    for body in ["no JSON", r#"{"model": "m"}"#] {
        let number = record(&log, Method::POST, CHAT, body);
        log.answer(number, &Answer::with_status(StatusCode::OK));
    }
    assert_eq!((log.dropped_faults(), log.dropped_unread()), (0, 1));
    log.take();
    assert_eq!(log.dropped_unread(), 0);
}

#[test]
fn the_order_of_keys_makes_no_difference_to_a_conversation() {
    let message =
        r#"{"role":"user","content":[{"type":"text","text":"A"},{"text":"B","type":"text"}]}"#;
    let turned =
        r#"{"content":[{"text":"A","type":"text"},{"type":"text","text":"B"}],"role":"user"}"#;
    let tools = r#"[{"name":"f","parameters":{"type":"object","required":[]}}]"#;
    let tools_turned = r#"[{"parameters":{"required":[],"type":"object"},"name":"f"}]"#;
    let log = Log::default();
    let next = r#"{"role":"assistant","content":"Yes."},{"role":"user","content":"And?"}"#;
    for (session, body) in [
        (
            "x",
            format!(r#"{{"model":"m","tools":{tools},"messages":[{message}]}}"#),
        ),
        (
            "y",
            format!(r#"{{"messages":[{turned},{next}],"tools":{tools_turned},"model":"m"}}"#),
        ),
    ] {
        let request = Request::post(CHAT).header("x-opencode-session", session);
        let (head, ()) = request.body(()).unwrap().into_parts();
        let number = log.record(&head, body);
        // Its answer is not known, so that tools and messages must be the same.
        log.answer(number, &Answer::with_status(StatusCode::OK));
    }
    assert_eq!(marked(&log), [(2, moved(1, "x", false))]);
}

#[test]
fn half_an_emoji_and_great_depth_are_read() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for odd in [
        r#""cut \ud83d""#,
        &format!(r#"[{{"type":"text","text":"x","deep":{deep}}}]"#),
        r#"[{"n":1e999}]"#,
    ] {
        let log = Log::default();
        let begins = format!(r#"{{"role":"user","content":{odd}}}"#);
        let next = r#"{"role":"assistant","content":"Yes."},{"role":"user","content":"And?"}"#;
        for (session, messages) in [("x", begins.clone()), ("y", format!("{begins},{next}"))] {
            let request = Request::post(CHAT).header("x-opencode-session", session);
            let (head, ()) = request.body(()).unwrap().into_parts();
            let number = log.record(&head, format!(r#"{{"model":"m","messages":[{messages}]}}"#));
            let mut answer = Answer::with_status(StatusCode::OK);
            answer.text = Some("Yes.".to_owned());
            log.answer(number, &answer);
        }
        assert_eq!(marked(&log), [(2, moved(1, "x", false))]);
    }
}

#[test]
fn a_retry_with_a_message_that_was_added_and_no_answer_continues() {
    let log = Log::default();
    call("s", &[asks("1")]).answered(LONG).of(&log);
    // The user stopped the answer, and asked again.
    call("s", &[asks("1"), asks("2")]).answered("b").of(&log);
    call("s", &[asks("1"), asks("2"), says("b"), asks("3")]).of(&log);
    assert_eq!(continued(&log), [None, Some(1), Some(2)]);
    assert_eq!(marked(&log), []);
}

#[test]
fn prompts_that_end_alike_with_what_the_model_is_to_go_on_with_do_not_continue_each_other() {
    let begun = [asks("A city, as JSON"), says("The answer is: {")];
    let log = Log::default();
    for session in ["x", "y", "y"] {
        // Its answer is not known.
        call(session, &begun).of(&log);
    }
    assert_eq!(continued(&log), [None; 3]);
    assert_eq!(marked(&log), []);
}

#[test]
fn a_fork_of_a_fork_is_one_as_well() {
    let log = Log::default();
    log.expect_fork("x", "y");
    log.expect_fork("y", "z");
    call("x", &[asks("1")]).answered(LONG).of(&log);
    for (session, marks) in [("z", vec![]), ("v", moved(1, "x", false))] {
        let messages = [asks("1"), says(LONG), asks(session)];
        let number = call(session, &messages).of(&log);
        assert_eq!(log.get(number).unwrap().marks, marks, "{session}");
    }
}

#[test]
fn a_conversation_that_is_edited_in_a_fork_is_still_that_fork() {
    let log = Log::default();
    log.expect_fork("x", "fork");
    call("x", &[asks("1")]).answered(LONG).of(&log);
    for question in ["2", "two", "zwei"] {
        let mut messages = vec![asks("1"), says(LONG), asks(question)];
        let answer = format!("Answer to {question}");
        call("fork", &messages).answered(&*answer).of(&log);
        messages.extend([says(&*answer), asks("Go on")]);
        call("fork", &messages).of(&log);
    }
    assert_eq!(marked(&log), []);
}

#[test]
fn of_sessions_that_got_the_same_answer_the_parent_is_continued() {
    let log = Log::default();
    for session in ["main", "another"] {
        call(session, &[asks("1")]).answered("Yes.").of(&log);
    }
    let messages = [asks("1"), says("Yes."), asks("A task")];
    call("sub", &messages).parent("main").of(&log);
    assert_eq!(continued(&log), [None, None, Some(1)]);
    assert_eq!(marked(&log), []);
}

#[test]
fn an_answer_that_the_model_is_to_go_on_with_is_part_of_its_answer() {
    for format in [Format::Chat, Format::Messages] {
        let begun = [asks("A city, as JSON"), says("{")];
        let goes_on = |session: &str, said: &str| {
            let messages = [asks("A city, as JSON"), says(said), asks("Another")];
            Call::in_format(session, format, SYSTEM, &messages)
        };
        let log = Log::default();
        for session in ["x", "y"] {
            Call::in_format(session, format, SYSTEM, &begun)
                .answered(format!("\"city\": \"{session}\"}}").as_str())
                .of(&log);
        }
        goes_on("x", r#"{"city": "x"}"#).of(&log);
        goes_on("z", r#"{"city": "y"}"#).of(&log);
        assert_eq!(
            continued(&log),
            [None, None, Some(1), Some(2)],
            "{format:?}"
        );
        assert_eq!(marked(&log), [(4, moved(2, "y", false))]);
    }
}

/// Reads the text and the tool calls of an answer, whole or as a stream.
fn read(format: Format, body: &str) -> Said {
    let events: Vec<Value> = match serde_json::from_str(body) {
        Ok(whole) => vec![whole],
        Err(_) => {
            let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
            let events = lines.filter_map(|data| serde_json::from_str(data).ok());
            events.collect()
        }
    };
    let mut said = Said::default();
    let mut arguments = String::new();
    for event in &events {
        let texts: &[&str] = match format {
            Format::Chat => &["/choices/0/message/content", "/choices/0/delta/content"],
            Format::Responses if event["type"] == "response.output_text.delta" => &["/delta"],
            Format::Responses => &["/output/0/content/0/text"],
            Format::Messages => &["/content/0/text", "/delta/text"],
            Format::Generate => &["/candidates/0/content/parts/0/text"],
        };
        for text in texts {
            said.text.push_str(
                event
                    .pointer(text)
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
            );
        }
        let calls: &[&str] = match format {
            Format::Chat => &[
                "/choices/0/message/tool_calls/0",
                "/choices/0/delta/tool_calls/0",
            ],
            Format::Responses if event["type"] == "response.output_item.done" => &["/item"],
            Format::Responses => &["/output/0"],
            Format::Messages => &["/content/0", "/content_block"],
            Format::Generate => &["/candidates/0/content/parts/0/functionCall"],
        };
        for call in calls.iter().filter_map(|call| event.pointer(call)) {
            let function = if call["function"].is_object() {
                &call["function"]
            } else {
                call
            };
            if let Some(name) = function["name"].as_str() {
                let id = call["call_id"].as_str().or(call["id"].as_str());
                let whole = [&function["input"], &function["args"]];
                let whole = whole.into_iter().find(|value| value.is_object());
                said.calls = vec![Tool::new(
                    id.unwrap_or_default(),
                    name,
                    whole.cloned().unwrap_or_default(),
                )];
            }
            arguments.push_str(function["arguments"].as_str().unwrap_or_default());
        }
        let piece = event.pointer("/delta/partial_json").and_then(Value::as_str);
        arguments.push_str(piece.unwrap_or_default());
    }
    if let (Some(call), false) = (said.calls.first_mut(), arguments.is_empty()) {
        call.arguments = serde_json::from_str(&arguments).unwrap();
    }
    said
}

#[tokio::test]
async fn answers_of_the_gateway_are_known_again_in_every_wire_format_whole_and_streamed() {
    let arguments = json!({"city": "Lisbon", "days": [1, 2]});
    let name = "weather".to_owned();
    let replies = [
        Reply::Text(LONG.to_owned()),
        Reply::Text("Sunny.".to_owned()),
        Reply::ToolCall { name, arguments },
    ];
    for format in Format::ALL {
        for stream in [false, true] {
            for reply in &replies {
                let gateway = start();
                gateway.reply_next(reply.clone());
                // Where it is said that a stream is asked for.
                let is_in_path = matches!(format, Format::Generate);
                let mut path = format.path().to_owned();
                if stream && is_in_path {
                    path = path.replace(":generate", ":streamGenerate");
                }
                let send = async |session: &str, messages: &[Message]| {
                    let mut body = format.body(SYSTEM, messages);
                    if !is_in_path {
                        body["stream"] = stream.into();
                    }
                    let request = post(&gateway, &path).bearer_auth(Gateway::KEY);
                    let request = request.header("x-api-key", Gateway::KEY);
                    let request = request.header("x-goog-api-key", Gateway::KEY);
                    let request = request.header("x-opencode-session", session);
                    request
                        .json(&body)
                        .send()
                        .await
                        .unwrap()
                        .text()
                        .await
                        .unwrap()
                };
                let said = read(format, &send("x", &[asks("Hello")]).await);
                let next = match said.calls.first() {
                    Some(call) => result(call, "sunny"),
                    None => asks("And then?"),
                };
                let messages = [asks("Hello"), says(said.clone()), next];
                send("x", &messages).await;
                gateway.assert_conversations_keep_their_session();
                send("y", &messages).await;
                // The client says something that the model did not.
                let others = [asks("Hello"), says("Something else"), asks("And then?")];
                send("z", &others).await;
                let log = gateway.log();
                let context = format!("{format:?}, {stream}: {said:?}");
                assert_eq!(continued(log), [None, Some(1), Some(1), None], "{context}");
                assert_eq!(marked(log), [(3, moved(1, "x", false))], "{context}");
            }
        }
    }
}
