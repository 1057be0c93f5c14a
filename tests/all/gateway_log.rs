//! What the log says about a call: what it is, how it ended, and how to find it.

use http::{Method, Request, StatusCode};
use reqwest_opencode_session::testing::{Answer, Limits, Log, SeenRequest};
use serde_json::{Value, json};

use crate::gateway_support::user;
use crate::support::{CHAT, PROMPT};

/// Records a request in a session, and returns its number.
fn record(log: &Log, method: Method, path: &str, body: &str) -> u64 {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("x-opencode-session", "s");
    let (head, ()) = request.body(()).unwrap().into_parts();
    log.record(&head, body.to_owned())
}

/// A request as the log sees it.
fn seen(method: Method, path: &str, body: &str) -> SeenRequest {
    let log = Log::default();
    let number = record(&log, method, path, body);
    log.get(number).unwrap()
}

#[test]
fn a_request_asks_a_model_where_it_posts_a_models_name_or_to_a_path_of_calls() {
    for (method, path, body, asks) in [
        (Method::POST, CHAT, "{}", true),
        (Method::POST, CHAT, "no JSON", true),
        (Method::POST, "/anywhere", PROMPT, true),
        (Method::POST, "/zen/v1/systemone", "{}", false),
        (Method::GET, CHAT, PROMPT, false),
        (Method::GET, "/anywhere", PROMPT, false),
    ] {
        let seen = seen(method, path, body);
        assert_eq!(seen.asks_a_model(), asks, "{seen}");
    }
}

#[test]
fn a_call_is_named_by_the_words_of_a_prompt_without_tools() {
    for (words, kind) in [
        ("What time is it?", "call"),
        ("Generate a Title for this conversation", "title"),
        ("Summarize the conversation", "summary"),
        ("Compact the conversation", "summary"),
        ("Write a commit message with a title", "commit message"),
    ] {
        let mut body = json!({"model": "m", "messages": [user(words)]});
        let of = |body: &Value| seen(Method::POST, CHAT, &body.to_string()).kind();
        assert_eq!(of(&body), kind, "{words}");
        body["tools"] = json!([{"type": "function", "function": {"name": "clock"}}]);
        assert_eq!(of(&body), "call", "{words}");
    }
    assert_eq!(seen(Method::GET, "/zen/v1/models", "").name(), "models");
    assert_eq!(seen(Method::GET, "/zen/go/v1/usage", "").name(), "request");
}

#[test]
fn a_calls_name_has_the_first_words_of_its_prompt_up_to_40_characters() {
    let x = |count| "x".repeat(count);
    for (prompt, words) in [
        (x(40), x(40)),
        (x(41), x(40) + "…"),
        (x(41) + " y", x(40) + "…"),
        (x(40) + " y", x(40) + "…"),
        (x(38) + " y", x(38) + " y"),
        (x(38) + " yz", x(38) + "…"),
        ("é".repeat(41), "é".repeat(40) + "…"),
    ] {
        let body = json!({"model": "m", "messages": [user(&prompt)]}).to_string();
        let name = seen(Method::POST, CHAT, &body).name();
        assert_eq!(name, format!("call: '{words}', m, 1 message, no tools"));
    }
}

#[test]
fn a_call_that_was_answered_with_an_error_was_refused_and_stands_out() {
    for (status, error, refused) in [
        (200, None, false),
        // A stream that ended in an error.
        (200, Some("overloaded_error"), true),
        (307, None, false),
        (400, None, true),
        (503, None, true),
    ] {
        let log = Log::default();
        let number = record(&log, Method::POST, CHAT, PROMPT);
        assert!(!log.get(number).unwrap().is_refused());
        let mut answer = Answer::with_status(StatusCode::from_u16(status).unwrap());
        answer.error = error.map(str::to_owned);
        log.answer(number, &answer);
        let seen = log.get(number).unwrap();
        assert_eq!(
            (seen.is_refused(), seen.stands_out()),
            (refused, refused),
            "{seen}"
        );
    }
}

#[test]
fn the_latest_call_is_kept_though_every_earlier_one_stands_out() {
    let log = Log::with_limits(Limits::default().requests(2));
    let body = json!({"model": "m", "messages": [user("Hello")]}).to_string();
    let refused = || {
        let number = record(&log, Method::POST, CHAT, &body);
        log.answer(number, &Answer::with_status(StatusCode::BAD_REQUEST));
        number
    };
    let faults = [refused(), refused(), refused()];
    let kept = || -> Vec<u64> { log.requests().iter().map(|call| call.number).collect() };
    assert_eq!(kept(), faults[1..]);
    assert_eq!((log.dropped(), log.dropped_faults()), (1, 1));

    let models = record(&log, Method::GET, "/zen/v1/models", "");
    assert_eq!(kept(), [faults[2], models]);
    // A later fault is kept instead of it.
    let fault = refused();
    assert_eq!(kept(), [faults[2], fault]);
    assert_eq!((log.dropped(), log.dropped_faults()), (3, 2));
}

#[test]
fn a_request_is_found_by_its_number_and_the_latest_by_a_condition() {
    let log = Log::default();
    for path in ["/1", "/2", "/3", "/4", "/5"] {
        record(&log, Method::GET, path, "");
    }
    assert_eq!(log.get(2).unwrap().path, "/2");
    assert!(log.get(6).is_none());
    let latest = |before, count| {
        let latest = log.latest(before, count, |seen| seen.path != "/3");
        let numbers = latest.iter().map(|seen| seen.number);
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(latest(u64::MAX, 2), [5, 4]);
    assert_eq!(latest(5, 2), [4, 2]);
    assert_eq!(latest(5, 10), [4, 2, 1]);
    assert_eq!(log.take().len(), 5);
    assert!(log.get(2).is_none());
}
