//! What an assertion claims, and what it says when it fails.

use http::{HeaderValue, StatusCode};
use reqwest_opencode_session::Session;
use reqwest_opencode_session::testing::{Failure, Gateway, Limits, Mark, Reply};
use serde_json::json;

use super::support::{chat_in, client, message_of, post, start, user};
use crate::support::{CHAT, PROMPT};

#[tokio::test]
async fn an_assertion_that_fails_names_the_calls_that_missed() {
    let gateway = start();
    let session = Session::new();
    let id = session.id();
    assert_eq!(
        message_of(|| gateway.assert_every_request_in(&session)),
        format!(
            "the gateway saw no request, where some in session {id} were expected; \
             take the client's base URL from `gateway.url(…)`"
        )
    );
    assert_eq!(
        message_of(|| gateway.assert_no_session_missing()),
        "the gateway saw no call, where some in a session were expected; \
         take the client's base URL from `gateway.url(…)`"
    );

    chat_in(&gateway, id.as_ref(), &json!({"model": "m"})).await;
    gateway.assert_every_request_in(&session);
    gateway.assert_no_session_missing();
    assert_eq!(
        message_of(|| gateway.assert_every_client_is("my-agent")),
        format!(
            "1 of 1 request was not from client my-agent; set it with `client_name`:\
             \n  #1 call: no prompt, m, no messages, no tools: \
             POST /zen/go/v1/chat/completions in session {id}, answered 200 OK"
        )
    );

    chat_in(&gateway, "another", &json!({"model": "m"})).await;
    gateway.assert_no_session_missing();
    let title = json!({
        "model": "kimi-k3",
        "system": "You name conversations.",
        "messages": [user("Generate a title for the conversation that begins with: Hello")],
    });
    let title = post(&gateway, "/zen/go/v1/messages").json(&title);
    title
        .header("x-api-key", Gateway::KEY)
        .send()
        .await
        .unwrap();
    let missed = "#3 title: 'Generate a title for the conversation…', kimi-k3, 1 message, \
        no tools: POST /zen/go/v1/messages without a session, \
        answered 400 Bad Request (MissingSessionID)";
    assert_eq!(
        message_of(|| gateway.assert_every_request_in(&session)),
        format!(
            "2 of 3 requests were not in session {id}; run each inside `.with_session(&session)`:\
             \n  #2 call: no prompt, m, no messages, no tools: \
             POST /zen/go/v1/chat/completions in session another, answered 200 OK\
             \n  {missed}"
        )
    );
    assert_eq!(
        message_of(|| gateway.assert_no_session_missing()),
        format!(
            "1 of 3 calls was not in a session; run each inside `.with_session(session)`:\n  {missed}"
        )
    );
}

#[tokio::test]
async fn a_request_that_asks_no_model_needs_no_session() {
    let gateway = start();
    let models = client().get(gateway.url("/zen/go/v1/models"));
    models.send().await.unwrap();
    chat_in(&gateway, "s", &json!({"model": "m"})).await;
    gateway.assert_no_session_missing();
    assert_eq!(
        gateway.requests()[0].to_string(),
        "#1 GET /zen/go/v1/models without a session, answered 200 OK"
    );
}

#[tokio::test]
async fn a_long_list_of_calls_is_cut() {
    let gateway = start();
    for _ in 0..60 {
        let request = post(&gateway, CHAT).bearer_auth(Gateway::KEY);
        request.body(PROMPT).send().await.unwrap();
    }
    let message = message_of(|| gateway.assert_no_session_missing());
    assert!(message.starts_with("60 of 60 calls"), "{message}");
    assert!(message.ends_with("\n  and 10 more"), "{message}");
}

#[tokio::test]
async fn doubled_and_malformed_ids_are_no_sessions() {
    let gateway = start();
    for (values, mark) in [
        (&["a", "b"][..], Mark::Doubled),
        (&["a", "a"], Mark::Doubled),
        (&["with a space"], Mark::Malformed),
        (&["é"], Mark::Malformed),
        (&["x".repeat(129).as_str()], Mark::Malformed),
        (&[""], Mark::Missing),
    ] {
        let mut request = post(&gateway, CHAT).bearer_auth(Gateway::KEY).body(PROMPT);
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request = request.header("x-opencode-session", value);
        }
        request.send().await.unwrap();
        let seen = gateway.requests().pop().unwrap();
        assert_eq!(seen.marks, [mark], "{values:?}");
    }
    let message = message_of(|| gateway.assert_no_session_missing());
    assert!(
        message.starts_with(
            "6 of 6 calls were not in a session; run each inside `.with_session(session)`:"
        ),
        "{message}"
    );
    assert!(
        message.contains("the session header appears more than once"),
        "{message}"
    );
}

#[tokio::test]
async fn a_redirect_off_the_gateway_is_seen_where_it_leads() {
    let gateway = start();
    assert!(message_of(|| gateway.assert_no_request_escaped()).contains("redirected no request"));

    let location = gateway.elsewhere(CHAT).unwrap();
    gateway.fail_next(2, Failure::Redirect { location });
    let stays = reqwest::Client::builder().no_proxy();
    let stays = stays
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let request = stays.post(gateway.url(CHAT)).bearer_auth(Gateway::KEY);
    let request = request.header("x-opencode-session", "s").body(PROMPT);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    gateway.assert_no_request_escaped();

    let response = chat_in(&gateway, "s", &json!({"model": "m"})).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(gateway.escaped()[0].session.as_deref(), Some("s"));
    let message = message_of(|| gateway.assert_no_request_escaped());
    assert!(
        message.starts_with("give the client `redirect_policy`: 1 request followed a redirect to another address:\n  #1 call"),
        "{message}"
    );
}

#[tokio::test]
async fn an_assertion_on_every_request_fails_where_some_were_dropped() {
    let limits = Limits::default().requests(1);
    let gateway = Gateway::builder().limits(limits).start().unwrap();
    let session = "s"
        .parse()
        .map(reqwest_opencode_session::SessionId::into)
        .unwrap();
    chat_in(&gateway, "s", &json!({"model": "m"})).await;
    gateway.assert_every_request_in(&session);
    chat_in(&gateway, "s", &json!({"model": "m"})).await;
    let message = message_of(|| gateway.assert_every_request_in(&session));
    assert!(message.contains("no longer has 1 request"), "{message}");
    gateway.assert_no_session_missing();
    gateway.assert_conversations_keep_their_session();
    message_of(|| gateway.assert_no_fallback());
}

#[tokio::test]
async fn a_fault_that_is_no_longer_kept_fails_the_assertion_about_it() {
    let limits = Limits::default().requests(1);
    let gateway = Gateway::builder().limits(limits).start().unwrap();
    let call = json!({"model": "m"});
    post(&gateway, CHAT).json(&call).send().await.unwrap();
    chat_in(&gateway, "s", &call).await;
    let message = message_of(|| gateway.assert_no_session_missing());
    assert!(message.contains("no longer has 1 call"), "{message}");
    message_of(|| gateway.assert_conversations_keep_their_session());
}

#[tokio::test]
async fn a_failure_or_a_reply_that_no_call_met_is_named_with_its_line() {
    let gateway = start();
    gateway.assert_every_failure_used();
    let line = line!();
    gateway.fail_next(3, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
    gateway.reply_next(Reply::Text("Hello".to_owned()));
    gateway.reply_to(
        |call| call.kind() == "title",
        Reply::Text("A title".to_owned()),
    );
    gateway.fail_to(1, |call| call.kind() == "title", Failure::FreeTier);
    let call = async |words: &str| {
        let body = json!({"model": "m", "messages": [user(words)]});
        chat_in(&gateway, "s", &body).await.status().as_u16()
    };
    assert_eq!(call("Hi").await, 503);
    let at = |offset: u32| format!("{}:{}:", file!(), line + offset);
    let message = message_of(|| gateway.assert_every_failure_used());
    for part in [
        "make calls that meet these, or set fewer: no call met\n  fail_next at ".to_owned(),
        at(1),
        ": Status(503), 2 times\n  fail_to at ".to_owned(),
        at(7),
        ": FreeTier\n  reply_next at ".to_owned(),
        at(2),
        ": Text(\"Hello\")\n  reply_to at ".to_owned(),
        at(3),
        ": Text(\"A title\")".to_owned(),
    ] {
        assert!(message.contains(&part), "{part}: {message}");
    }

    // A call that is refused for another reason meets none of them.
    post(&gateway, CHAT)
        .json(&json!({"model": "m"}))
        .send()
        .await
        .unwrap();
    assert_eq!([call("Hi").await, call("Hi").await], [503, 503]);
    for status in [403, 200] {
        assert_eq!(call("Write a title").await, status);
    }
    let message = message_of(|| gateway.assert_every_failure_used());
    assert!(
        !message.contains("fail_") && !message.contains("reply_to"),
        "{message}"
    );
    assert_eq!(call("Hi").await, 200);
    gateway.assert_every_failure_used();
}

#[tokio::test]
async fn a_refusal_that_is_no_longer_kept_leaves_assertions_about_faults_as_they_were() {
    let limits = Limits::default().requests(1);
    let gateway = Gateway::builder().limits(limits).start().unwrap();
    let call = json!({"model": "m"});
    gateway.fail_next(1, Failure::GoUsageLimit);
    for _ in 0..2 {
        chat_in(&gateway, "s", &call).await;
    }
    assert_eq!(
        (gateway.log().dropped(), gateway.log().dropped_faults()),
        (1, 0)
    );
    gateway.assert_no_session_missing();
    gateway.assert_conversations_keep_their_session();
}

#[tokio::test]
async fn a_call_that_could_not_be_read_fails_an_assertion_about_conversations_when_it_is_gone() {
    let limits = Limits::default().requests(1);
    let gateway = Gateway::builder().limits(limits).start().unwrap();
    for body in ["no JSON", r#"{"model": "m"}"#] {
        let request = post(&gateway, CHAT).bearer_auth(Gateway::KEY).body(body);
        let request = request.header("x-opencode-session", "s");
        request.send().await.unwrap();
    }
    gateway.assert_no_session_missing();
    let message = message_of(|| gateway.assert_conversations_keep_their_session());
    assert!(message.contains("no longer has 1 call"), "{message}");
}
