//! The loopback gateway: what it answers, refuses and remembers, seen by a client without any
//! middleware.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use http::StatusCode;
use reqwest::{RequestBuilder, Response};
use reqwest_opencode_session::Session;
use reqwest_opencode_session::testing::{Fault, Gateway, Provider, Reply};
use serde_json::{Value, json};

use crate::support::{CHAT, PROMPT, plain_client};

const GENERATE: &str = "/zen/v1/models/kimi-k3:generateContent";

fn start() -> Gateway {
    Gateway::start().unwrap()
}

fn post(gateway: &Gateway, path: &str) -> RequestBuilder {
    plain_client().post(gateway.url(path))
}

/// A call of OpenCode Go in this session.
async fn chat_in(gateway: &Gateway, session: &str, prompt: &Value) -> Response {
    let request = post(gateway, CHAT).bearer_auth(Gateway::KEY).json(prompt);
    request
        .header("x-opencode-session", session)
        .send()
        .await
        .unwrap()
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// The data of a stream's events, without the end mark of chat completions.
fn events(stream: &str) -> Vec<Value> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// Every endpoint: its path, the header and value of its key, and where its answer's text is.
const ENDPOINTS: [(&str, &str, &str, &str); 7] = [
    (
        "/zen/v1/chat/completions",
        "authorization",
        "Bearer ",
        "/choices/0/message/content",
    ),
    (
        "/zen/go/v1/chat/completions",
        "authorization",
        "Bearer ",
        "/choices/0/message/content",
    ),
    (
        "/zen/v1/responses",
        "authorization",
        "Bearer ",
        "/output/0/content/0/text",
    ),
    (
        "/zen/go/v1/responses",
        "authorization",
        "Bearer ",
        "/output/0/content/0/text",
    ),
    ("/zen/v1/messages", "x-api-key", "", "/content/0/text"),
    ("/zen/go/v1/messages", "x-api-key", "", "/content/0/text"),
    (
        GENERATE,
        "x-goog-api-key",
        "",
        "/candidates/0/content/parts/0/text",
    ),
];

#[tokio::test]
async fn every_endpoint_answers_in_its_wire_format() {
    let gateway = start();
    for (path, key, prefix, text) in ENDPOINTS {
        let request = post(&gateway, path)
            .header(key, format!("{prefix}{}", Gateway::KEY))
            .header("x-opencode-session", "s");
        let response = request.body(PROMPT).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = response.json().await.unwrap();
        let text = body
            .pointer(text)
            .unwrap_or_else(|| panic!("{path}: {body}"));
        assert!(text.as_str().unwrap().contains("kimi-k3"), "{path}: {body}");
    }
}

#[tokio::test]
async fn every_endpoint_streams_in_several_pieces_what_it_answers_otherwise() {
    let gateway = start();
    gateway.set_providers("kimi-k3", [Provider::new("one")]);
    let text = "The loopback gateway answers for kimi-k3 by one.";
    for (path, key, prefix, delta) in [
        (
            "/zen/v1/chat/completions",
            "authorization",
            "Bearer ",
            "/choices/0/delta/content",
        ),
        ("/zen/go/v1/responses", "authorization", "Bearer ", "/delta"),
        ("/zen/go/v1/messages", "x-api-key", "", "/delta/text"),
        (
            "/zen/v1/models/kimi-k3:streamGenerateContent?alt=sse",
            "x-goog-api-key",
            "",
            "/candidates/0/content/parts/0/text",
        ),
    ] {
        let request = post(&gateway, path)
            .header(key, format!("{prefix}{}", Gateway::KEY))
            .header("x-opencode-session", "s")
            .json(&json!({"model": "kimi-k3", "stream": true, "messages": [user("Hello")]}));
        let mut response = request.send().await.unwrap();
        assert_eq!(
            response.headers()["content-type"],
            "text/event-stream",
            "{path}"
        );
        let (mut chunks, mut body) = (0, vec![]);
        while let Some(chunk) = response.chunk().await.unwrap() {
            chunks += 1;
            body.extend_from_slice(&chunk);
        }
        assert!(chunks > 1, "{path}");
        let events = events(std::str::from_utf8(&body).unwrap());
        let pieces: Vec<&str> = events
            .iter()
            .filter_map(|event| event.pointer(delta)?.as_str())
            .collect();
        assert_eq!(pieces.concat(), text, "{path}: {events:#?}");
    }
}

#[tokio::test]
async fn the_models_are_listed_without_a_key_and_without_a_session() {
    let gateway = Gateway::builder()
        .providers("my-model", [Provider::new("one")])
        .start()
        .unwrap();
    for path in ["/zen/v1/models", "/zen/go/v1/models"] {
        let response = plain_client().get(gateway.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body: Value = response.json().await.unwrap();
        let ids: Vec<_> = body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["id"])
            .collect();
        assert!(
            ids.contains(&&json!("my-model")) && ids.contains(&&json!("kimi-k3")),
            "{ids:?}"
        );
    }
}

#[tokio::test]
async fn go_refuses_a_request_without_a_session_in_the_operators_own_words() {
    let gateway = start();
    let endpoints = ENDPOINTS
        .iter()
        .filter(|(path, ..)| path.starts_with("/zen/go/"));
    for (path, key, prefix, _) in endpoints {
        for session in [None, Some("")] {
            let mut request = post(&gateway, path)
                .header(*key, format!("{prefix}{}", Gateway::KEY))
                .body(PROMPT);
            if let Some(session) = session {
                request = request.header("x-opencode-session", session);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            let expected = concat!(
                r#"{"type":"error","error":{"type":"MissingSessionID","message":"#,
                r#""Error from provider (Console Go): Request is missing x-opencode-session "#,
                r#"and cannot be routed efficiently. "#,
                r#"Please see https://opencode.ai/docs/go/#where-can-i-use-it"}}"#,
            );
            assert_eq!(response.text().await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn zen_takes_a_request_without_a_session_and_routes_it_by_the_keys_workspace() {
    let gateway = Gateway::builder().key("another").start().unwrap();
    for key in [Gateway::KEY, Gateway::KEY, "another"] {
        let request = post(&gateway, "/zen/v1/chat/completions")
            .bearer_auth(key)
            .body(PROMPT);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }
    let requests = gateway.requests();
    assert_eq!(requests[0].provider, requests[1].provider);
    assert_ne!(requests[0].provider, requests[2].provider);
    // The second request finds the first one's prompt in the cache, the third one is another's.
    assert_eq!(requests[1].cached_tokens, requests[1].prompt_tokens);
    assert_eq!(
        (requests[0].cached_tokens, requests[2].cached_tokens),
        (0, 0)
    );
}

#[tokio::test]
async fn an_unknown_key_is_refused_before_a_missing_session() {
    let gateway = start();
    for (path, key, prefix, _) in ENDPOINTS {
        for value in [None, Some("wrong")] {
            let mut request = post(&gateway, path).body(PROMPT);
            if let Some(value) = value {
                request = request.header(key, format!("{prefix}{value}"));
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["type"], "AuthError");
        }
    }
}

#[tokio::test]
async fn what_is_no_endpoint_or_no_prompt_is_refused() {
    let gateway = start();
    for path in [
        "/",
        "/zen/go/v1",
        "/zen/v1/completions",
        "/zen/go/v1/models/m:generateContent",
    ] {
        let response = post(&gateway, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let response = post(&gateway, "/zen/v1/models/kimi-k3:countTokens")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let response = chat_in(&gateway, "s", &json!(["no", "model"])).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    gateway.set_providers("nowhere", [Provider::new("off").weight(0)]);
    let response = chat_in(&gateway, "s", &json!({"model": "nowhere"})).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_session_is_taken_from_every_header_that_the_real_gateway_accepts() {
    let gateway = start();
    let names = [
        "session_id",
        "session-id",
        "x-session-id",
        "x-claude-code-session-id",
    ];
    for name in names {
        let request = post(&gateway, CHAT)
            .bearer_auth(Gateway::KEY)
            .header(name, name);
        assert_eq!(
            request.body(PROMPT).send().await.unwrap().status(),
            StatusCode::OK
        );
    }
    let sessions: Vec<_> = gateway
        .requests()
        .into_iter()
        .map(|seen| seen.session)
        .collect();
    assert_eq!(sessions, names.map(|name| Some(name.to_owned())));
}

#[tokio::test]
async fn the_session_picks_the_provider_as_the_real_gateways_arithmetic_does() {
    let vectors: Value =
        serde_json::from_str(include_str!("../fixtures/routing-vectors.json")).unwrap();
    let gateway = start();
    for vector in vectors.as_array().unwrap() {
        // An empty id is no session: its hash is checked where it is computed.
        let Some(id) = vector["id"].as_str().filter(|id| !id.is_empty()) else {
            continue;
        };
        for (length, index) in vector["index"].as_object().unwrap() {
            let model = format!("model-of-{length}");
            let providers = (0..length.parse().unwrap()).map(|i: u32| Provider::new(i.to_string()));
            gateway.set_providers(&model, providers);
            chat_in(&gateway, id, &json!({"model": model})).await;
            let picked = gateway.requests().pop().unwrap().provider;
            assert_eq!(picked, Some(index.to_string()), "{id} of {length}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_answered_a_session_wins_over_the_hash() {
    let gateway = start();
    gateway.set_providers("m", [Provider::new("first")]);
    gateway.fail_next(1, Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    chat_in(&gateway, "failed", &json!({"model": "m"})).await;
    chat_in(&gateway, "answered", &json!({"model": "m"})).await;
    gateway.set_providers("m", [Provider::new("second")]);
    for session in ["failed", "answered", "new"] {
        chat_in(&gateway, session, &json!({"model": "m"})).await;
    }
    let requests = gateway.requests();
    let provider = |index: usize| requests[index].provider.as_deref();
    assert_eq!(
        [2, 3, 4].map(provider),
        [Some("second"), Some("first"), Some("second")]
    );
}

#[tokio::test]
async fn the_cached_part_of_a_prompt_is_what_the_provider_has_seen_of_that_conversation() {
    let gateway = start();
    let mut messages = vec![json!({"role": "system", "content": "Be brief. ".repeat(50)})];
    for turn in 0..3 {
        messages.push(user(&format!("Question {turn}")));
        let prompt = json!({"model": "kimi-k3", "messages": messages});
        let body: Value = chat_in(&gateway, "one", &prompt)
            .await
            .json()
            .await
            .unwrap();
        let answer = body["choices"][0]["message"].clone();
        messages.push(answer);

        let seen = gateway.requests().pop().unwrap();
        assert_eq!(body["usage"]["prompt_tokens"], seen.prompt_tokens);
        assert_eq!(
            body["usage"]["prompt_tokens_details"]["cached_tokens"],
            seen.cached_tokens
        );
        assert_eq!(seen.cached_tokens > 0, turn > 0);
        assert!(seen.cached_tokens < seen.prompt_tokens);
    }
    chat_in(
        &gateway,
        "two",
        &json!({"model": "kimi-k3", "messages": messages}),
    )
    .await;
    assert_eq!(gateway.requests().pop().unwrap().cached_tokens, 0);
}

#[tokio::test]
async fn every_wire_format_says_how_much_of_the_prompt_was_cached() {
    let gateway = start();
    for (path, key, prefix, cached) in [
        (
            CHAT,
            "authorization",
            "Bearer ",
            "/usage/prompt_tokens_details/cached_tokens",
        ),
        (
            "/zen/v1/responses",
            "authorization",
            "Bearer ",
            "/usage/input_tokens_details/cached_tokens",
        ),
        (
            "/zen/v1/messages",
            "x-api-key",
            "",
            "/usage/cache_read_input_tokens",
        ),
        (
            GENERATE,
            "x-goog-api-key",
            "",
            "/usageMetadata/cachedContentTokenCount",
        ),
    ] {
        let mut counts = vec![];
        for _ in 0..2 {
            let request = post(&gateway, path)
                .header(key, format!("{prefix}{}", Gateway::KEY))
                .header("x-opencode-session", path)
                .json(&json!({
                    "model": "kimi-k3",
                    "messages": [user("Hello")],
                    "input": "Hello",
                    "contents": [{"parts": [{"text": "Hello"}]}],
                }));
            let body: Value = request.send().await.unwrap().json().await.unwrap();
            counts.push(body.pointer(cached).unwrap().as_u64().unwrap());
        }
        assert!(counts[0] == 0 && counts[1] > 0, "{path}: {counts:?}");
    }
}

#[tokio::test]
async fn a_reply_can_be_a_text_or_the_call_of_a_tool() {
    let gateway = start();
    let call = Reply::ToolCall {
        name: "clock".to_owned(),
        arguments: json!({"zone": "UTC"}),
    };
    for (path, key, prefix, name) in [
        (
            CHAT,
            "authorization",
            "Bearer ",
            "/choices/0/message/tool_calls/0/function/name",
        ),
        (
            "/zen/v1/responses",
            "authorization",
            "Bearer ",
            "/output/0/name",
        ),
        ("/zen/v1/messages", "x-api-key", "", "/content/0/name"),
        (
            GENERATE,
            "x-goog-api-key",
            "",
            "/candidates/0/content/parts/0/functionCall/name",
        ),
    ] {
        for stream in [false, true] {
            let path = match stream {
                true => path.replace("generateContent", "streamGenerateContent"),
                false => path.to_owned(),
            };
            gateway.reply_next(call.clone());
            let request = post(&gateway, &path)
                .header(key, format!("{prefix}{}", Gateway::KEY))
                .header("x-opencode-session", "s")
                .json(&json!({"model": "kimi-k3", "stream": stream}));
            let body = request.send().await.unwrap().text().await.unwrap();
            if stream {
                assert!(body.contains("clock") && events(&body).len() > 1, "{body}");
            } else {
                let body: Value = serde_json::from_str(&body).unwrap();
                assert_eq!(body.pointer(name).unwrap(), "clock", "{path}");
            }
        }
    }
    gateway.reply_next(Reply::Text("Yes.".to_owned()));
    let body: Value = chat_in(&gateway, "s", &json!({"model": "m"}))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "Yes.");
}

#[tokio::test]
async fn faults_happen_in_the_order_in_which_they_were_told_and_as_often() {
    let gateway = start();
    gateway.fail_next(2, Fault::Status(StatusCode::TOO_MANY_REQUESTS));
    gateway.fail_next(1, Fault::Status(StatusCode::BAD_GATEWAY));
    let mut statuses = vec![];
    for _ in 0..4 {
        statuses.push(
            chat_in(&gateway, "s", &json!({"model": "m"}))
                .await
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [429, 429, 502, 200]);
    let seen: Vec<_> = gateway
        .requests()
        .iter()
        .map(|r| r.status.unwrap().as_u16())
        .collect();
    assert_eq!(seen, statuses);
}

#[tokio::test]
async fn a_connection_can_be_closed_before_the_answer() {
    let gateway = start();
    gateway.fail_next(1, Fault::CloseBeforeAnswer);
    let request = post(&gateway, CHAT)
        .bearer_auth(Gateway::KEY)
        .header("x-opencode-session", "s");
    let error = request.body(PROMPT).send().await.unwrap_err();
    assert!(error.is_request(), "{error:?}");
    assert_eq!(gateway.requests()[0].status, None);
    assert_eq!(
        gateway.requests()[0].to_string(),
        "POST /zen/go/v1/chat/completions in session s, not answered"
    );
}

#[tokio::test]
async fn a_connection_can_be_closed_half_way_through_an_answer() {
    let gateway = start();
    for stream in [true, false] {
        gateway.fail_next(1, Fault::CloseMidAnswer);
        let prompt = json!({"model": "m", "stream": stream});
        let mut response = chat_in(&gateway, "s", &prompt).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut received = 0;
        let end = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => received += chunk.len(),
                end => break end,
            }
        };
        assert!(received > 0);
        assert!(end.is_err(), "the answer is whole");
    }
}

#[tokio::test]
async fn an_answer_can_be_late() {
    let gateway = start();
    gateway.fail_next(1, Fault::Delay(Duration::from_secs(60)));
    let request = post(&gateway, CHAT)
        .bearer_auth(Gateway::KEY)
        .header("x-opencode-session", "s");
    let request = request.body(PROMPT).timeout(Duration::from_millis(100));
    assert!(request.send().await.unwrap_err().is_timeout());
    assert_eq!(gateway.requests().len(), 1);
}

#[tokio::test]
async fn a_gateway_stops_when_it_is_dropped() {
    let gateway = start();
    let url = gateway.url("/zen/v1/models");
    plain_client().get(&url).send().await.unwrap();
    let address = gateway.address();
    drop(gateway);
    assert!(
        plain_client()
            .get(&url)
            .send()
            .await
            .unwrap_err()
            .is_connect()
    );
    // Its port can be taken again.
    let again = Gateway::builder().address(address).start().unwrap();
    assert_eq!(again.address(), address);
    assert_eq!(
        plain_client().get(&url).send().await.unwrap().status(),
        StatusCode::OK
    );
}

#[test]
fn a_gateway_needs_no_runtime_and_says_where_it_cannot_listen() {
    let gateway = start();
    let error = Gateway::builder()
        .address(gateway.address())
        .start()
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_seen_request_does_not_print_its_key() {
    let gateway = start();
    chat_in(&gateway, "s", &json!({"model": "m"})).await;
    let printed = format!("{:?}", gateway.requests());
    assert!(printed.contains("kimi") || printed.contains("x-opencode-session"));
    assert!(!printed.contains(Gateway::KEY), "{printed}");
}

/// What an assertion of the gateway fails with.
fn failure(assertion: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(assertion)).expect_err("the assertion holds");
    *panic.downcast::<String>().unwrap()
}

#[tokio::test]
async fn an_assertion_that_fails_names_the_calls_that_missed() {
    let gateway = start();
    let session = Session::new();
    let id = session.id();
    assert_eq!(
        failure(|| gateway.assert_every_request_in(&session)),
        format!("the gateway saw no request, expected some in session {id}")
    );

    chat_in(&gateway, id.as_str(), &json!({"model": "m"})).await;
    gateway.assert_every_request_in(&session);
    gateway.assert_no_session_missing();
    assert_eq!(
        failure(|| gateway.assert_every_client_is("my-agent")),
        format!(
            "1 of 1 requests were not from client my-agent:\
             \n  #1 POST /zen/go/v1/chat/completions in session {id}, answered 200 OK"
        )
    );

    chat_in(&gateway, "another", &json!({"model": "m"})).await;
    gateway.assert_no_session_missing();
    post(&gateway, "/zen/go/v1/messages")
        .header("x-api-key", Gateway::KEY)
        .send()
        .await
        .unwrap();
    assert_eq!(
        failure(|| gateway.assert_every_request_in(&session)),
        format!(
            "2 of 3 requests were not in session {id}:\
             \n  #2 POST /zen/go/v1/chat/completions in session another, answered 200 OK\
             \n  #3 POST /zen/go/v1/messages without a session, answered 400 Bad Request"
        )
    );
    assert_eq!(
        failure(|| gateway.assert_no_session_missing()),
        "1 of 3 requests were not in a session:\
         \n  #3 POST /zen/go/v1/messages without a session, answered 400 Bad Request"
    );
}
