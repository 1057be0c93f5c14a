//! Quotations: helpers under an id of their own and conversations that go on elsewhere are marked,
//! and what only looks alike is not.

use reqwest_opencode_session::testing::Limits;
use reqwest_opencode_session::testing::record::Log;
use serde_json::json;

use super::played::{Call, Format, Message, Tool, asks, continued, marked, quotes, result, says};
use super::support::{chat_in, message_of, start, user};

const SYSTEM: &str = "You are an agent. Use the tools.";
const LONG: &str = "It is sunny in Lisbon today, with some wind from the sea.";

fn call(session: &str, messages: &[Message]) -> Call {
    Call::in_format(session, Format::Chat, SYSTEM, messages)
}

/// A conversation of one call in session `x`, with this answer.
fn answered(answer: &str) -> Log {
    let log = Log::default();
    call("x", &[asks("How is the weather?")])
        .answered(answer)
        .of(&log);
    log
}

#[test]
fn a_prompt_that_continues_nothing_and_holds_an_answer_of_one_other_session_quotes_it() {
    let transcript = format!("Summarize:\nuser: How is the weather?\nassistant: {LONG}");
    let summary = format!("So far, the model said: {LONG} Go on from there.");
    for format in Format::ALL {
        for text in [&transcript, &summary] {
            for session in ["x", "y"] {
                let log = Log::default();
                Call::in_format("x", format, SYSTEM, &[asks("How is the weather?")])
                    .answered(LONG)
                    .of(&log);
                Call::in_format(session, format, "You summarize.", &[asks(text)]).of(&log);
                let expected = match session {
                    "x" => vec![],
                    _ => vec![(2, quotes(1, "x"))],
                };
                assert_eq!(marked(&log), expected, "{format:?}: {text}");
                assert_eq!(continued(&log), [None, None]);
            }
        }
    }
}

#[test]
fn a_quotation_stands_out_and_is_no_fault() {
    let log = answered(LONG);
    call("y", &[asks(LONG)]).of(&log);
    let seen = log.get(2).unwrap();
    assert!(seen.stands_out() && !seen.has_fault());
    assert_eq!(
        (seen.marks[0].name(), seen.marks[0].is_fault()),
        ("quotes", false)
    );
    let words = seen.to_string();
    let told = "; quotes the answer to #1, which was in session x: a helper call outside of that \
        session, or a text that was passed on";
    assert!(words.ends_with(told), "{words}");
}

#[test]
fn a_prompt_that_continues_a_call_quotes_nothing() {
    let log = answered(LONG);
    call("y", &[asks("Hello")]).answered("Hi!").of(&log);
    // The user pastes it.
    call("y", &[asks("Hello"), says("Hi!"), asks(LONG)]).of(&log);
    assert_eq!(marked(&log), []);
}

#[test]
fn a_compaction_of_its_own_conversation_quotes_nothing_though_it_holds_a_paste() {
    let log = answered(LONG);
    let summary = "The user asked for three things, and all of them were done.";
    call("y", &[asks("Hello")]).answered(summary).of(&log);
    call("y", &[asks(&format!("{summary} {LONG}"))]).of(&log);
    assert_eq!(marked(&log), []);
}

#[test]
fn system_prompts_and_what_tools_answered_are_not_searched() {
    let reads = Tool::new("call_1", "read", json!({"path": "weather.txt"}));
    for format in Format::ALL {
        let log = answered(LONG);
        let memory = format!("Remember: {LONG}");
        Call::in_format("y", format, &memory, &[asks("Hello")]).of(&log);
        let messages = [asks("Read it"), says(reads.clone()), result(&reads, LONG)];
        Call::in_format("y", format, SYSTEM, &messages).of(&log);
        assert_eq!(marked(&log), [], "{format:?}");
    }
    // Neither is a message of the system between the others.
    let log = answered(LONG);
    let note = json!({"role": "developer", "content": LONG});
    let messages = [user("Hello"), note, user("Bye")];
    Call::new("y", json!({"model": "m", "messages": messages})).of(&log);
    assert_eq!(marked(&log), []);
}

#[test]
fn sessions_that_belong_together_may_quote_each_other() {
    for (first, second, marks) in [
        (None, None, vec![(2, quotes(1, "x"))]),
        // A subagent is given it, or its answer is passed on to its parent, or to a sibling.
        (None, Some("x"), vec![]),
        (Some("y"), None, vec![]),
        (Some("main"), Some("main"), vec![]),
        (Some("main"), Some("another"), vec![(2, quotes(1, "x"))]),
        (Some("main"), None, vec![(2, quotes(1, "x"))]),
    ] {
        let log = Log::default();
        for (session, parent, text, answer) in
            [("x", first, "Hello", LONG), ("y", second, LONG, "")]
        {
            let mut call = call(session, &[asks(text)]);
            call.parent = parent.map(str::to_owned);
            call.answered(answer).of(&log);
        }
        assert_eq!(marked(&log), marks, "{first:?}, {second:?}");
    }
}

#[test]
fn an_expected_fork_may_quote_its_original() {
    for before in [true, false] {
        let log = answered(LONG);
        if before {
            log.expect_fork("x", "y");
        }
        call("y", &[asks(LONG)]).of(&log);
        call("z", &[asks(LONG)]).of(&log);
        log.expect_fork("x", "y");
        assert_eq!(marked(&log), [(3, quotes(1, "x"))]);
    }
}

#[test]
fn an_answer_that_several_sessions_got_or_that_repeats_its_prompt_is_no_evidence() {
    let log = answered(LONG);
    call("z", &[asks("And now?")]).answered(LONG).of(&log);
    call("y", &[asks(LONG)]).of(&log);
    assert_eq!(marked(&log), []);

    // So it is if most of it does.
    let log = Log::default();
    let answer = format!("{LONG} Indeed.");
    call("x", &[asks(&format!("Correct this: {LONG}"))])
        .answered(&*answer)
        .of(&log);
    call("y", &[asks(&answer)]).of(&log);
    assert_eq!(marked(&log), []);

    let reads = Tool::new("call_1", "read", json!({"path": "weather.txt"}));
    for prompt in [
        vec![asks(&format!("Repeat: {LONG}"))],
        vec![asks("Read it"), says(reads.clone()), result(&reads, LONG)],
    ] {
        for format in Format::ALL {
            let log = Log::default();
            Call::in_format("x", format, SYSTEM, &prompt)
                .answered(LONG)
                .of(&log);
            Call::in_format("y", format, SYSTEM, &[asks(LONG)]).of(&log);
            assert_eq!(marked(&log), [], "{format:?}: {prompt:?}");
        }
    }
    let log = Log::default();
    Call::in_format("x", Format::Chat, LONG, &[asks("Say it")])
        .answered(LONG)
        .of(&log);
    call("y", &[asks(LONG)]).of(&log);
    assert_eq!(marked(&log), []);
}

#[test]
fn an_answer_is_contained_if_it_has_24_letters_and_more_than_half_of_it_is_there() {
    let twenty_four = "One, two, three, four, five, six, 78";
    let twenty_three = "One, two, three, four, five, six, 7";
    let essay: String = (0..200)
        .map(|n| format!("Sentence number {n} says {}. ", n * n))
        .collect();
    let part =
        |from: usize, to: usize| essay[essay.len() * from / 16..essay.len() * to / 16].to_owned();
    for (answer, text, contained) in [
        (LONG, LONG.to_owned(), true),
        (LONG, format!("«{}»", LONG.replace(' ', "\n> ")), true),
        (LONG, LONG[..12].to_owned(), false),
        (twenty_four, twenty_four.to_owned(), true),
        (twenty_three, twenty_three.to_owned(), false),
        (&essay, essay.clone(), true),
        (&essay, part(0, 11), true),
        (&essay, part(5, 16), true),
        (&essay, part(0, 6), false),
        (&essay, part(10, 16), false),
        // The same phrase at the end of two answers is none.
        (
            "The parser reads one token after another. Let me know if you need anything else!",
            "Tests are green. Let me know if you need anything else!".to_owned(),
            false,
        ),
    ] {
        let log = answered(answer);
        call("y", &[asks(&text)]).of(&log);
        let expected = match contained {
            true => vec![(2, quotes(1, "x"))],
            false => vec![],
        };
        assert_eq!(marked(&log), expected, "{} in {}", answer.len(), text.len());
    }
}

#[test]
fn a_quotation_is_looked_for_in_the_first_256_kib_of_letters() {
    for (before, found) in [(200 << 10, true), (256 << 10, false)] {
        let log = answered(LONG);
        call("y", &[asks(&format!("{} {LONG}", "x".repeat(before)))]).of(&log);
        assert_eq!(marked(&log).len(), usize::from(found), "{before}");
    }
}

#[test]
fn an_answer_is_forgotten_with_its_call() {
    let limits = Limits::default().prompts(2);
    for (others, found) in [(0, true), (1, true), (2, false)] {
        let log = Log::with_limits(limits.clone());
        call("x", &[asks("1")]).answered(LONG).of(&log);
        for number in 0..others {
            let answer = format!("The answer to question number {number} is no.");
            call("z", &[asks(&number.to_string())])
                .answered(&*answer)
                .of(&log);
        }
        call("y", &[asks(LONG)]).of(&log);
        assert_eq!(!marked(&log).is_empty(), found, "{others}");
    }
}

#[tokio::test]
async fn an_assertion_fails_on_a_quotation_only_if_it_is_about_quotations() {
    let gateway = start();
    let prompt = |text: &str| json!({"model": "m", "messages": [user(text)]});
    assert_eq!(
        message_of(|| gateway.assert_no_quotes()),
        "the gateway saw no call, where some free of other sessions' answers were expected; \
         take the client's base URL from `gateway.url(…)`"
    );
    let answer: serde_json::Value = chat_in(&gateway, "x", &prompt("Hello"))
        .await
        .json()
        .await
        .unwrap();
    gateway.assert_no_quotes();
    let answer = answer["choices"][0]["message"]["content"].as_str().unwrap();
    chat_in(&gateway, "y", &prompt(&format!("Summarize: {answer}"))).await;
    gateway.assert_conversations_keep_their_session();
    gateway.assert_no_session_missing();
    let message = message_of(|| gateway.assert_no_quotes());
    let begins = "1 of 2 calls was not free of other sessions' answers; run helper calls in the session of \
                  the conversation that they quote:\n  #2 summary";
    assert!(message.starts_with(begins), "{message}");
    gateway.expect_fork("x", "y");
    gateway.assert_no_quotes();
}
