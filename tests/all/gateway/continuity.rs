//! Which prompt continues which, and what stands out: faults of real clients are found, and correct
//! traffic gets no mark.

use std::time::Duration;

use http::{Request, StatusCode};
use proptest::prelude::*;
use reqwest_opencode_session::Session;
use reqwest_opencode_session::testing::record::{Answer, Log};
use reqwest_opencode_session::testing::{Failure, Gateway, Limits, Mark, Reply, SeenRequest};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::played::{Call, continued, marked, moved, shared};
use super::support::{chat_in, message_of, post, start, user};
use crate::support::CHAT;

const SYSTEM: &str = "You are an agent. Use the tools.";

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// The prompt of an agent: user and assistant take turns, and the user begins.
fn prompt(messages: &[&str]) -> Value {
    prompt_under(SYSTEM, messages)
}

fn prompt_under(system: &str, messages: &[&str]) -> Value {
    let roles = ["user", "assistant"].into_iter().cycle();
    let messages = roles
        .zip(messages)
        .map(|(role, content)| message(role, content));
    let messages: Vec<_> = [message("system", system)]
        .into_iter()
        .chain(messages)
        .collect();
    let tools = json!([{"type": "function", "function": {"name": "clock"}}]);
    json!({"model": "kimi-k3", "messages": messages, "tools": tools})
}

/// A one-shot call without tools.
fn helper(system: &str, text: &str) -> Value {
    let messages = [message("system", system), message("user", text)];
    json!({"model": "small", "messages": messages})
}

#[test]
fn a_conversation_that_goes_on_continues_its_latest_prompt() {
    let log = Log::default();
    Call::new("s", prompt(&["1"])).of(&log);
    Call::new("s", helper("You name conversations.", "1")).of(&log);
    Call::new("s", prompt(&["1", "a", "2"])).of(&log);
    Call::new("s", prompt(&["1", "a", "2", "b", "3"])).of(&log);
    // The user took the second question back.
    Call::new("s", prompt(&["1", "a", "two"])).of(&log);
    assert_eq!(continued(&log), [None, None, Some(1), Some(3), Some(1)]);
    assert_eq!(marked(&log), []);
}

#[test]
fn a_conversation_that_alternates_between_two_ids_is_found() {
    let words = ["1", "a", "2", "b", "3", "c", "4"];
    let alternate = |log: &Log| {
        for (session, length) in [("x", 1), ("y", 3), ("x", 5), ("y", 7)] {
            Call::new(session, prompt(&words[..length])).of(log);
        }
    };
    let log = Log::default();
    alternate(&log);
    let expected = [
        (2, moved(1, "x", false)),
        (3, moved(2, "y", true)),
        (4, moved(3, "x", true)),
    ];
    assert_eq!(marked(&log), expected);
    // A fork never returns to its old session.
    log.allow_forks();
    assert_eq!(marked(&log), expected[1..]);
    let log = Log::default();
    log.allow_forks();
    alternate(&log);
    assert_eq!(marked(&log), expected[1..]);
}

#[test]
fn it_is_found_under_a_system_prompt_that_changes() {
    let log = Log::default();
    let at = |time: &str, messages: &[&str]| prompt_under(&format!("It is {time}."), messages);
    Call::new("x", at("10:00", &["1"])).of(&log);
    Call::new("x", at("10:01", &["1", "a", "2"])).of(&log);
    Call::new("y", at("10:02", &["1", "a", "2", "b", "3"])).of(&log);
    assert_eq!(marked(&log), [(3, moved(2, "x", false))]);
}

/// Asks in a session, and returns the answer.
async fn answer_in(gateway: &Gateway, session: &str, messages: &[String]) -> String {
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    let response = chat_in(gateway, session, &prompt(&messages)).await;
    let body: Value = response.json().await.unwrap();
    let answer = body["choices"][0]["message"]["content"].as_str();
    answer.unwrap().to_owned()
}

#[tokio::test]
async fn one_id_that_is_pinned_over_several_conversations_is_found() {
    let gateway = start();
    for conversation in ["Lisbon", "Oslo", "Quito"] {
        let mut messages = vec![conversation.to_owned()];
        for turn in 0..3 {
            let answer = answer_in(&gateway, "pinned", &messages).await;
            messages.extend([answer, format!("Question {turn}")]);
        }
    }
    let log = gateway.log();
    assert_eq!(marked(log), [(5, shared(4, 1)), (8, shared(7, 1))]);
    let message = message_of(|| gateway.assert_conversations_keep_their_session());
    assert!(
        message.starts_with(
            "2 of 9 calls were not in the session of their conversation; keep one session"
        ),
        "{message}"
    );
    assert!(
        message.contains(
            "#5 call: 'Question 0', kimi-k3, 4 messages, 1 tool: POST /zen/go/v1/chat/completions \
             in session pinned, answered 200 OK; shared: its session contains the conversation \
             that began with #4 and the one that began with #1, or this is an edit of its first \
             message"
        ),
        "{message}"
    );
}

#[test]
fn it_is_found_where_conversations_begin_alike_and_alternate() {
    let log = Log::default();
    Call::new("s", prompt(&["Hello"])).of(&log);
    Call::new("s", prompt(&["Hello", "Hi!", "A"])).of(&log);
    Call::new("s", prompt(&["Hello"])).of(&log);
    Call::new("s", prompt(&["Hello", "Hi!", "B"])).of(&log);
    assert_eq!(marked(&log), [(4, shared(3, 1))]);

    let log = Log::default();
    Call::new("s", prompt(&["A"])).of(&log);
    Call::new("s", prompt(&["B"])).of(&log);
    Call::new("s", prompt(&["B", "b", "B"])).of(&log);
    Call::new("s", prompt(&["A", "a", "A"])).of(&log);
    assert_eq!(marked(&log), [(4, shared(1, 2))]);
}

#[test]
fn one_shot_helper_calls_raise_nothing() {
    let log = Log::default();
    Call::new("s", prompt(&["1"])).of(&log);
    for text in [
        "a title",
        "a summary",
        "a commit message",
        "a branch",
        "tags",
    ] {
        Call::new("s", helper("You help.", text)).of(&log);
        Call::new("s", helper(SYSTEM, text)).of(&log);
    }
    Call::new("s", prompt(&["1", "a", "2"])).of(&log);
    assert_eq!(marked(&log), []);
}

#[test]
fn a_compaction_raises_nothing_wherever_its_summary_goes() {
    let summary =
        "<summary>\nThe user asked for the weather in Lisbon.\nIt is \"sunny\".\n</summary>";
    let quoted = format!("Go on from this:\n{summary}");
    // A client that strips the tags, and one that sends the summary as the model's own words.
    let trimmed = "The user asked for the weather in Lisbon.\nIt is \"sunny\".";
    for begins in [
        vec![quoted.as_str()],
        vec![trimmed],
        vec!["What did we do so far?", summary, "Go on"],
    ] {
        for summarize in [
            prompt(&["1", "a", "2", "b", "Summarize"]),
            helper("You summarize.", "1 a 2 b"),
        ] {
            let log = Log::default();
            Call::new("s", prompt(&["1"])).of(&log);
            Call::new("s", prompt(&["1", "a", "2"])).of(&log);
            Call::new("s", summarize).answered(summary).of(&log);
            let mut messages = begins.clone();
            Call::new("s", prompt(&messages)).of(&log);
            messages.extend(["c", "3"]);
            Call::new("s", prompt(&messages)).of(&log);
            messages.extend(["d", "4"]);
            Call::new("s", prompt(&messages)).of(&log);
            assert_eq!(marked(&log), [], "{begins:?}");
        }
    }
}

#[test]
fn agents_with_system_prompts_of_their_own_may_share_a_session() {
    let log = Log::default();
    for system in ["You plan.", "You write."] {
        Call::new("s", prompt_under(system, &["1"])).of(&log);
        Call::new("s", prompt_under(system, &["1", "a", "2"])).of(&log);
    }
    assert_eq!(continued(&log), [None, Some(1), None, Some(3)]);
    assert_eq!(marked(&log), []);
}

/// Returns whether a session's next conversation, which begins with this message, is recognized by
/// its summary as the continuation of an earlier one. Otherwise the session is shared.
fn is_known(summary: &str, begins: &str) -> bool {
    let log = Log::default();
    Call::new("s", prompt(&["1"])).of(&log);
    Call::new("s", prompt(&["1", "a", "2"])).of(&log);
    Call::new("s", helper("You summarize.", "1 a 2"))
        .answered(summary)
        .of(&log);
    Call::new("s", prompt(&[begins])).of(&log);
    Call::new("s", prompt(&[begins, "c", "3"])).of(&log);
    let marks = marked(&log);
    if !marks.is_empty() {
        assert_eq!(marks, [(5, shared(4, 1))]);
    }
    marks.is_empty()
}

#[test]
fn a_summary_is_known_by_a_part_of_it_or_if_it_is_short_by_all_of_it() {
    let long = "The user asked for the weather in Lisbon, and then for that in Oslo. It is fine.";
    let lines = "The weather is fine.\nThe user asked for the weather in Lisbon.";
    for (summary, begins, known) in [
        (
            long,
            "Go on. The user asked for the weather in Lisbon, and",
            true,
        ),
        (
            long,
            "For the weather in Lisbon, and then for that in Oslo. It is fine.",
            true,
        ),
        (long, "The user asked. Then for Oslo.", false),
        (
            lines,
            "Go on:\nThe user asked for the weather in Lisbon.",
            true,
        ),
        (lines, "Go on: The weather in Oslo is bad.", false),
        // A short one is known as a whole, but never one of fewer than four letters.
        ("Sunny.", "Go on: Sunny.", true),
        ("Sun, rain.", "Go on: *Sun* rain", true),
        ("Go on.\nThe weather is fine.", "Go on. And then?", false),
        ("Yes", "Go on: Yes", false),
    ] {
        assert_eq!(is_known(summary, begins), known, "{summary:?}: {begins}");
    }
}

#[test]
fn a_summary_is_looked_for_in_the_first_256_kib_of_letters_and_a_short_one_in_the_first_four() {
    let long = "The user asked for the weather in Lisbon.";
    let letters = long
        .chars()
        .filter(|letter| letter.is_alphanumeric())
        .count();
    // Of a long one, a part is enough.
    for (summary, letters, searched, cut) in [
        (long, letters, 256 << 10, letters),
        ("Sunny.", 5, 4 << 10, 1),
    ] {
        for (too_many, known) in [(0, true), (cut, false)] {
            // Neither punctuation nor gaps count; the bound falls inside a character of two bytes.
            let before = searched - letters + too_many;
            let before = format!("{}{}", "é, ".repeat(before / 2), "x".repeat(before % 2));
            let begins = format!("{before}{summary}");
            assert_eq!(
                is_known(summary, &begins),
                known,
                "{summary} after {}",
                before.len()
            );
        }
    }
}

#[test]
fn a_message_is_the_same_however_its_one_text_is_written() {
    let with = |name: &str, value: Value| {
        let mut message = user("Hello");
        message[name] = value;
        message
    };
    let text = |kind| with("content", json!([{"type": kind, "text": "Hello"}]));
    let two = |other| with("content", json!([{"text": "Hello"}, {"text": other}]));
    let cited = json!([{"text": "Hello", "citations": []}]);
    let hello = || user("Hello");
    for (message, again, same) in [
        (hello(), with("content", json!([{"text": "Hello"}])), true),
        (hello(), text("text"), true),
        (hello(), text("input_text"), true),
        (hello(), text("thinking"), false),
        (hello(), with("content", cited), false),
        (hello(), with("type", "message".into()), true),
        (hello(), with("id", "1".into()), true),
        (hello(), with("name", "Ann".into()), false),
        (hello(), two("Hello"), false),
        (two("Lisbon"), two("Lisbon"), true),
        (two("Lisbon"), two("Oslo"), false),
    ] {
        let log = Log::default();
        let body = |messages: &[&Value]| json!({"model": "m", "messages": messages});
        Call::new("s", body(&[&message])).of(&log);
        let goes_on = [
            &again,
            &json!({"role": "assistant", "content": "Hi!"}),
            &user("Bye"),
        ];
        Call::new("s", body(&goes_on)).of(&log);
        let expected = same.then_some(1);
        assert_eq!(continued(&log), [None, expected], "{message}, {again}");
    }
}

#[test]
fn a_conversation_that_goes_on_after_its_compaction_did_raises_nothing() {
    let log = Log::default();
    let summary = "The user asked for the weather in Lisbon.";
    Call::new("s", prompt(&["1"])).of(&log);
    Call::new("s", helper("You summarize.", "1"))
        .answered(summary)
        .of(&log);
    Call::new("s", prompt(&[summary])).of(&log);
    Call::new("s", prompt(&[summary, "b", "2"])).of(&log);
    Call::new("s", prompt(&["1", "a", "2"])).of(&log);
    assert_eq!(marked(&log), []);
}

#[test]
fn a_history_that_is_cut_at_its_beginning_raises_nothing() {
    let log = Log::default();
    let long = "The weather in Lisbon is fine";
    Call::new("s", prompt(&["1"])).of(&log);
    Call::new("s", prompt(&["1", long, "2"])).of(&log);
    Call::new("s", prompt(&["1", long, "2", "b", "3"])).of(&log);
    // Its first question is gone.
    Call::new("s", prompt(&["(cut)", long, "2", "b", "3", "c", "4"])).of(&log);
    Call::new(
        "s",
        prompt(&["(cut)", long, "2", "b", "3", "c", "4", "d", "5"]),
    )
    .of(&log);
    assert_eq!(marked(&log), []);
}

#[test]
fn subagents_raise_nothing() {
    let log = Log::default();
    Call::new("main", prompt(&["1"])).of(&log);
    Call::new("sub", prompt(&["a task"]))
        .parent("main")
        .of(&log);
    Call::new("sub", prompt(&["a task", "a", "2"]))
        .parent("main")
        .of(&log);
    // A subagent that is given the whole conversation.
    Call::new("heir", prompt(&["1", "a", "a task"]))
        .parent("main")
        .of(&log);
    Call::new("main", prompt(&["1", "a", "2"])).of(&log);
    assert_eq!(marked(&log), []);
    assert_eq!(continued(&log), [None, None, Some(2), Some(1), Some(1)]);

    // A parent other than the continued session is no excuse for a move.
    Call::new("lost", prompt(&["1", "a", "2", "b", "3"]))
        .parent("sub")
        .of(&log);
    assert_eq!(marked(&log), [(6, moved(5, "main", false))]);
}

#[test]
fn calls_that_were_refused_count_for_nothing() {
    let log = Log::default();
    Call::new("s", prompt(&["1"])).of(&log);
    for status in [400, 401, 429, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        let body = prompt(&["1", "a", "2"]);
        Call::new("lost", body).refused(status).of(&log);
    }
    Call::new("s", prompt(&["1", "a", "2"])).of(&log);
    assert_eq!(marked(&log), []);
    assert_eq!(continued(&log).pop().unwrap(), Some(1));
}

#[tokio::test]
async fn calls_that_were_never_answered_count_for_nothing() {
    let gateway = start();
    chat_in(&gateway, "s", &prompt(&["1"])).await;
    gateway.fail_next(1, Failure::CloseBeforeAnswer);
    let body = prompt(&["1", "a", "2"]);
    let request = post(&gateway, CHAT).bearer_auth(Gateway::KEY).json(&body);
    let request = request.header("x-opencode-session", "lost");
    request.send().await.unwrap_err();
    chat_in(&gateway, "s", &body).await;
    gateway.assert_conversations_keep_their_session();
    assert_eq!(continued(gateway.log()), [None, None, Some(1)]);
}

#[test]
fn retries_raise_nothing() {
    let log = Log::default();
    for messages in [&["1"][..], &["1", "a", "2"]] {
        Call::new("s", prompt(messages))
            .refused(StatusCode::SERVICE_UNAVAILABLE)
            .of(&log);
        // The second call broke off in the middle of its stream.
        Call::new("s", prompt(messages)).of(&log);
        Call::new("s", prompt(messages)).of(&log);
    }
    assert_eq!(marked(&log), []);
    assert_eq!(continued(&log), [None, None, None, None, Some(3), Some(3)]);
}

#[test]
fn conversations_with_the_same_words_in_their_own_sessions_raise_nothing() {
    let log = Log::default();
    let words = ["1", "a", "2", "a", "3"];
    for length in [1, 3, 5] {
        for session in ["x", "y", "z"] {
            Call::new(session, prompt(&words[..length]))
                .answered("a")
                .of(&log);
        }
    }
    Call::new("late", prompt(&words[..1])).of(&log);
    Call::new("late", prompt(&words[..3])).of(&log);
    assert_eq!(marked(&log), []);
}

#[test]
fn a_call_without_a_session_in_between_is_missing_and_nothing_else() {
    let log = Log::default();
    Call::new("s", prompt(&["1"])).of(&log);
    // Zen answers a call without a session.
    Call::new("", prompt(&["1", "a", "2"])).of(&log);
    Call::new("s", prompt(&["1", "a", "2", "b", "3"])).of(&log);
    assert_eq!(marked(&log), [(2, vec![Mark::Missing])]);
    assert_eq!(continued(&log), [None, Some(1), Some(2)]);
}

#[test]
fn an_input_of_one_string_continues_another_where_it_holds_its_answer() {
    let body = |input: &str| json!({"model": "m", "instructions": SYSTEM, "input": input});
    let log = Log::default();
    Call::new("x", body("Hello"))
        .answered("Hello to you!")
        .of(&log);
    Call::new("x", body("Hello\nHello to you!\nBye"))
        .answered("See you soon.")
        .of(&log);
    Call::new("y", body("Hello\nHello to you!\nBye\nSee you soon.\nNo")).of(&log);
    assert_eq!(marked(&log), [(3, moved(2, "x", false))]);

    // The same conversation as a list, which the SDK's documentation shows next.
    let list = json!([
        user("Hello"),
        message("assistant", "Hello to you!"),
        user("Bye")
    ]);
    let list = json!({"model": "m", "instructions": SYSTEM, "input": list});
    Call::new("x", list).of(&log);
    assert_eq!(continued(&log), [None, Some(1), Some(2), Some(1)]);

    // Questions that begin alike do not make a conversation.
    let log = Log::default();
    Call::new("x", body("Summarize")).answered("What?").of(&log);
    Call::new("y", body("Summarize this: yes"))
        .answered("Yes.")
        .of(&log);
    assert_eq!(continued(&log), [None, None]);
}

#[test]
fn an_input_of_one_string_is_compared_where_it_is_no_longer_than_256_kib() {
    let body = |input: &str| json!({"model": "m", "input": input});
    for (length, expected) in [(256 << 10, Some(1)), ((256 << 10) + 1, None)] {
        let log = Log::default();
        Call::new("s", body("Hello")).answered("Hi there!").of(&log);
        let mut input = "Hello\nHi there!\n".to_owned();
        input.push_str(&"x".repeat(length - input.len()));
        Call::new("s", body(&input)).of(&log);
        assert_eq!(continued(&log), [None, expected], "{length}");
    }
}

#[tokio::test]
async fn a_fork_is_a_move_unless_it_is_expected() {
    for before in [true, false] {
        let gateway = start();
        if before {
            gateway.expect_fork("original", "fork");
        }
        let mut messages = vec!["1".to_owned()];
        for (session, next) in [
            ("original", "2"),
            ("original", "3"),
            ("fork", "4"),
            ("fork", "5"),
        ] {
            let answer = answer_in(&gateway, session, &messages).await;
            messages.extend([answer, next.to_owned()]);
        }
        messages.truncate(5);
        messages[4] = "another 3".to_owned();
        answer_in(&gateway, "original", &messages).await;
        if !before {
            let message = message_of(|| gateway.assert_conversations_keep_their_session());
            assert!(
                message.contains("#3") && message.contains("or is a fork of it"),
                "{message}"
            );
            gateway.expect_fork("fork", "original");
            message_of(|| gateway.assert_conversations_keep_their_session());
            gateway.expect_fork("original", "fork");
        }
        gateway.assert_conversations_keep_their_session();
    }
}

#[tokio::test]
async fn an_expected_fork_changes_the_call_that_made_it_and_no_other() {
    let log = Log::default();
    Call::new("x", prompt(&["1"])).of(&log);
    Call::new("another-fork", prompt(&["1", "a", "2"])).of(&log);
    Call::new("fork", prompt(&["1", "a", "2", "b", "3"])).of(&log);
    Call::new("x", prompt(&["one"])).of(&log);
    Call::new("fork", prompt(&["one", "a", "2"])).of(&log);
    let expected = [
        (2, moved(1, "x", false)),
        (3, moved(2, "another-fork", false)),
        (5, moved(4, "x", false)),
    ];
    assert_eq!(marked(&log), expected);
    let mut changes = log.changes();
    assert_eq!(changes.next().await.unwrap().len(), 5);
    // It waits for what comes next.
    let expect = async { log.expect_fork("x", "fork") };
    let told = futures::future::join(changes.next(), expect);
    let (changed, ()) = timeout(Duration::from_secs(20), told).await.unwrap();
    let changed: Vec<_> = changed.unwrap().iter().map(|seen| seen.number).collect();
    assert_eq!(changed, [5]);
    assert_eq!(marked(&log), expected[..2]);
}

/// The calls of `captures.jsonl` and `other-clients.jsonl`. Only their headers were captured; the
/// prompts follow the description of each call.
fn captures() -> Vec<(Value, Value)> {
    let title = |text: &str| helper("You name conversations.", text);
    let responses = json!({"model": "m", "instructions": SYSTEM, "input": [user("Hello")]});
    let messages = json!({"model": "m", "system": SYSTEM, "messages": [user("Hello")]});
    let generate = json!({
        "systemInstruction": {"parts": [{"text": SYSTEM}]},
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
    });
    let e = ["Hello E", "e1", "More", "e2", "Summarize the conversation."];
    let bodies = [
        title("Hello A"),
        prompt(&["Hello A"]),
        prompt_under(
            "You are an agent. There is a commit.",
            &["Hello A", "a1", "More"],
        ),
        title("Hello B"),
        prompt(&["Hello B"]),
        title("Hello C"),
        prompt(&["Hello C"]),
        prompt(&["Hello C"]),
        prompt_under("You are a researcher.", &["A task"]),
        prompt(&["Hello C", "(calls the tool)", "(its answer)"]),
        prompt(&[
            "Hello C",
            "(calls the tool)",
            "(its answer)",
            "c2",
            "Another way",
        ]),
        prompt_under("You are pi.", &["Hello P"]),
        prompt_under("You are pi.", &["Hello P", "p1", "More"]),
        title("Hello E"),
        prompt(&e[..1]),
        prompt(&e[..3]),
        prompt_under("You summarize.", &e),
        responses.clone(),
        messages.clone(),
        generate.clone(),
        responses.clone(),
        messages.clone(),
        generate,
        prompt(&["Hello"]),
        messages,
        prompt_under("You are a researcher.", &["A task"]),
        responses,
    ];
    let lines = [
        include_str!("../../fixtures/captures.jsonl"),
        include_str!("../../fixtures/other-clients.jsonl"),
    ];
    let captures: Vec<Value> = lines
        .iter()
        .flat_map(|lines| lines.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(captures.len(), bodies.len());
    captures.into_iter().zip(bodies).collect()
}

#[test]
fn the_traffic_of_opencode_pi_and_codex_raises_no_mark_but_for_its_fork() {
    let log = Log::default();
    for (capture, body) in captures() {
        let mut request = Request::post(capture["path"].as_str().unwrap());
        for (name, value) in capture["headers"].as_object().unwrap() {
            request = request.header(name, value.as_str().unwrap());
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let number = log.record(&head, body.to_string());
        let status = capture["status"].as_u64().unwrap();
        let status = StatusCode::from_u16(status.try_into().unwrap()).unwrap();
        log.answer(number, &Answer::with_status(status));
    }
    let what = |seen: &SeenRequest| captures()[seen.number as usize - 1].0["what"].to_string();
    let continuing = log
        .requests()
        .into_iter()
        .filter(|seen| seen.continues.is_some());
    let continuing: Vec<_> = continuing.map(|seen| what(&seen)).collect();
    assert_eq!(continuing.len(), 6, "{continuing:#?}");

    let marked: Vec<_> = log
        .requests()
        .into_iter()
        .filter(SeenRequest::has_fault)
        .collect();
    let [fork] = &marked[..] else {
        panic!("{marked:#?}");
    };
    assert!(what(fork).contains("forked from C"), "{fork}");
    assert!(fork.marks[0].may_be_fork());
    let Mark::Moved { from, .. } = &fork.marks[0] else {
        panic!("{fork}");
    };
    log.expect_fork(from, fork.session.as_ref().unwrap());
    assert!(!log.requests().iter().any(SeenRequest::has_fault));
}

#[test]
fn what_was_forgotten_is_continued_by_nothing() {
    let log = Log::with_limits(Limits::default().prompts(2).requests(2));
    Call::new("x", prompt(&["1"])).of(&log);
    Call::new("x", prompt(&["another"])).of(&log);
    Call::new("x", prompt(&["a third"])).of(&log);
    Call::new("y", prompt(&["1", "a", "2"])).of(&log);
    assert_eq!(continued(&log), [None, None]);
    assert_eq!(log.dropped(), 2);
    // The latest prompts are remembered, up to the limit.
    let log = Log::with_limits(Limits::default().prompts(2));
    Call::new("x", prompt(&["1"])).of(&log);
    Call::new("x", prompt(&["another"])).of(&log);
    Call::new("y", prompt(&["1", "a", "2"])).of(&log);
    assert_eq!(marked(&log), [(3, moved(1, "x", false))]);
    // A call that was dropped is remembered by its prompt.
    let log = Log::with_limits(Limits::default().requests(1));
    Call::new("x", prompt(&["1"])).of(&log);
    Call::new("x", prompt(&["another"])).of(&log);
    Call::new("y", prompt(&["1", "a", "2"])).of(&log);
    assert_eq!(marked(&log), [(3, moved(1, "x", false))]);
}

#[test]
fn the_conversations_of_a_session_are_known_until_its_last_prompt_is_forgotten() {
    let go_on = |log: &Log, session, first| {
        Call::new(session, prompt(&[first])).of(log);
        Call::new(session, prompt(&[first, "a", "2"])).of(log);
    };
    let log = Log::with_limits(Limits::default().prompts(3));
    go_on(&log, "s", "A");
    Call::new("s", prompt(&["A", "a", "2", "b", "3"])).of(&log);
    go_on(&log, "s", "B");
    assert_eq!(marked(&log), [(5, shared(4, 1))]);

    let log = Log::with_limits(Limits::default().prompts(2));
    go_on(&log, "s", "A");
    go_on(&log, "another", "C");
    go_on(&log, "s", "B");
    assert_eq!(marked(&log), []);
}

#[tokio::test]
async fn a_summary_that_the_gateway_gives_is_known_again() {
    let gateway = start();
    let summary = "The user asked for the weather.";
    let asks = |call: &SeenRequest| call.prompt.as_deref() == Some("Summarize");
    gateway.reply_to(asks, Reply::Text(summary.to_owned()));
    for messages in [
        &["1"][..],
        &["1", "a", "2"],
        &["1", "a", "2", "b", "Summarize"],
        &["So far: The user asked for the weather. Go on."],
        &["So far: The user asked for the weather. Go on.", "c", "3"],
    ] {
        chat_in(&gateway, "s", &prompt(messages)).await;
    }
    gateway.assert_conversations_keep_their_session();
    gateway.assert_no_fallback();
}

#[tokio::test]
async fn a_call_in_the_session_of_the_process_is_named() {
    let gateway = start();
    let process = Session::process();
    chat_in(&gateway, process.id().as_str(), &prompt(&["1"])).await;
    let seen = &gateway.requests()[0];
    assert_eq!(seen.marks, [Mark::ProcessSession]);
    assert!(!seen.has_fault() && !seen.stands_out());
    let message = message_of(|| gateway.assert_no_fallback());
    assert!(
        message.starts_with("1 of 1 call was not in a session other than the process-wide one; run each conversation"),
        "{message}"
    );
}

/// One step of a correct client, in one of its conversations.
#[derive(Debug, Clone)]
enum Step {
    Ask,
    Helper,
    Retry,
    Subagent,
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step, usize)>> {
    let step = prop_oneof![
        4 => Just(Step::Ask),
        1 => Just(Step::Helper),
        1 => Just(Step::Retry),
        1 => Just(Step::Subagent),
        1 => Just(Step::Compact),
    ];
    // Few words, so that different conversations use the same ones.
    prop::collection::vec((0..4usize, step, 0..3usize), 0..60)
}

proptest! {
    #[test]
    fn right_traffic_raises_no_mark_however_it_is_mixed(steps in steps()) {
        let log = Log::default();
        let sessions = ["a", "b", "c", "d"];
        let mut histories = vec![Vec::<String>::new(); sessions.len()];
        let mut subagents = 0;
        for (conversation, step, word) in steps {
            let session = sessions[conversation];
            let history = &mut histories[conversation];
            let words = |history: &[String]| {
                prompt(&history.iter().map(String::as_str).collect::<Vec<_>>())
            };
            match step {
                Step::Ask => {
                    history.push(format!("question {word}"));
                    Call::new(session, words(history)).answered("an answer").of(&log);
                    history.push("an answer".to_owned());
                }
                Step::Helper => {
                    Call::new(session, helper("You help.", &format!("question {word}"))).of(&log);
                }
                Step::Retry => {
                    history.push(format!("question {word}"));
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    Call::new(session, words(history)).refused(status).of(&log);
                    Call::new(session, words(history)).answered("an answer").of(&log);
                    history.push("an answer".to_owned());
                }
                Step::Subagent => {
                    subagents += 1;
                    let own = format!("subagent-{subagents}");
                    let call = Call::new(&own, words(&[format!("question {word}")]));
                    call.parent(session).of(&log);
                }
                Step::Compact => {
                    let summary = format!("a summary of the conversation, number {word}");
                    history.push("summarize".to_owned());
                    Call::new(session, words(history)).answered(&*summary).of(&log);
                    history.clear();
                    history.push(format!("so far: {summary}"));
                    Call::new(session, words(history)).answered("an answer").of(&log);
                    history.push("an answer".to_owned());
                }
            }
        }
        prop_assert_eq!(marked(&log), []);
    }

    #[test]
    fn a_session_that_changes_is_found_wherever_it_does(at in 1..8usize, length in 8..12usize) {
        let log = Log::default();
        let mut history = vec![];
        for turn in 0..length {
            history.push(format!("question {turn}"));
            let words: Vec<_> = history.iter().map(String::as_str).collect();
            let session = if turn < at { "before" } else { "after" };
            Call::new(session, prompt(&words)).of(&log);
            history.push("an answer".to_owned());
        }
        let at = at as u64;
        prop_assert_eq!(marked(&log), [(at + 1, moved(at, "before", false))]);
    }
}
