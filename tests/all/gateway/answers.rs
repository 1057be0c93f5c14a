//! The test gateway: what it answers and refuses, to a client without any middleware.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{Method, StatusCode};
use reqwest_opencode_session::testing::record::End;
use reqwest_opencode_session::testing::{Failure, Gateway, Mark, Provider, Reply, SeenRequest};
use serde_json::{Value, json};

use super::support::{GENERATE, chat_in, client, message_of, post, start, streaming, user};
use crate::support::{CHAT, PROMPT};

/// The data of a stream's events, without the end mark of chat completions.
fn events(stream: &str) -> Vec<Value> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// A wire format: pointers to an answer's text, a piece of a stream's text, a tool's name, the
/// answer's id, and the reason why an answer or its stream ends; then that reason after a text and
/// after a tool call.
struct Format {
    text: &'static str,
    delta: &'static str,
    tool: &'static str,
    id: &'static str,
    end: &'static str,
    stream_end: &'static str,
    ends: [&'static str; 2],
}

const CHAT_COMPLETIONS: Format = Format {
    text: "/choices/0/message/content",
    delta: "/choices/0/delta/content",
    tool: "/choices/0/message/tool_calls/0/function/name",
    id: "/id",
    end: "/choices/0/finish_reason",
    stream_end: "/choices/0/finish_reason",
    ends: ["stop", "tool_calls"],
};
const RESPONSES: Format = Format {
    text: "/output/0/content/0/text",
    delta: "/delta",
    tool: "/output/0/name",
    id: "/id",
    end: "/output/0/status",
    stream_end: "/response/output/0/status",
    ends: ["completed", "completed"],
};
const MESSAGES: Format = Format {
    text: "/content/0/text",
    delta: "/delta/text",
    tool: "/content/0/name",
    id: "/id",
    end: "/stop_reason",
    stream_end: "/delta/stop_reason",
    ends: ["end_turn", "tool_use"],
};
const GENERATE_CONTENT: Format = Format {
    text: "/candidates/0/content/parts/0/text",
    delta: "/candidates/0/content/parts/0/text",
    tool: "/candidates/0/content/parts/0/functionCall/name",
    id: "/responseId",
    end: "/candidates/0/finishReason",
    stream_end: "/candidates/0/finishReason",
    ends: ["STOP", "STOP"],
};

/// Every endpoint: its path, the header and the scheme of its key, and its wire format.
const ENDPOINTS: [(&str, &str, &str, Format); 15] = [
    (
        "/zen/v1/chat/completions",
        "authorization",
        "Bearer ",
        CHAT_COMPLETIONS,
    ),
    (
        "/zen/go/v1/chat/completions",
        "authorization",
        "Bearer ",
        CHAT_COMPLETIONS,
    ),
    ("/zen/v1/responses", "authorization", "Bearer ", RESPONSES),
    (
        "/zen/go/v1/responses",
        "authorization",
        "bearer ",
        RESPONSES,
    ),
    ("/zen/v1/messages", "x-api-key", "", MESSAGES),
    ("/zen/go/v1/messages", "x-api-key", "", MESSAGES),
    (GENERATE, "x-goog-api-key", "", GENERATE_CONTENT),
    (
        "/inference/openai/v1/chat/completions",
        "authorization",
        "Bearer ",
        CHAT_COMPLETIONS,
    ),
    (
        "/inference/go/openai/v1/chat/completions",
        "authorization",
        "Key ",
        CHAT_COMPLETIONS,
    ),
    (
        "/inference/openai/v1/responses",
        "authorization",
        "Bearer ",
        RESPONSES,
    ),
    (
        "/inference/go/openai/v1/responses",
        "x-api-key",
        "",
        RESPONSES,
    ),
    (
        "/inference/anthropic/v1/messages",
        "authorization",
        "Bearer ",
        MESSAGES,
    ),
    (
        "/inference/go/anthropic/v1/messages",
        "x-api-key",
        "",
        MESSAGES,
    ),
    (
        "/inference/google/v1beta/models/kimi-k3:generateContent",
        "x-goog-api-key",
        "",
        GENERATE_CONTENT,
    ),
    (
        "/inference/go/google/v1beta/models/kimi-k3:generateContent",
        "authorization",
        "Bearer ",
        GENERATE_CONTENT,
    ),
];

/// Every reason that a stream gives for its end.
fn ends_of<'a>(events: &'a [Value], format: &Format) -> Vec<&'a str> {
    let ends = events.iter().map(|event| event.pointer(format.stream_end));
    ends.filter_map(|end| end?.as_str()).collect()
}

#[tokio::test]
async fn every_endpoint_answers_in_its_wire_format_and_each_answer_has_its_own_id() {
    let gateway = start();
    let mut ids = HashSet::new();
    for (path, key, scheme, format) in ENDPOINTS {
        let request = post(&gateway, path)
            .header(key, format!("{scheme}{}", Gateway::KEY))
            .header("x-opencode-session", "s");
        let response = request.body(PROMPT).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = response.json().await.unwrap();
        let text = body.pointer(format.text);
        let text = text.unwrap_or_else(|| panic!("{path}: {body}"));
        assert!(!text.as_str().unwrap().is_empty(), "{path}: {body}");
        assert_eq!(body.pointer(format.end).unwrap(), format.ends[0], "{path}");
        let id = body.pointer(format.id).and_then(Value::as_str);
        assert!(ids.insert(id.unwrap().to_owned()), "{path}: {body}");
        let cost: f64 = body["cost"].as_str().unwrap().parse().unwrap();
        assert!(cost > 0.0, "{path}: {body}");
        let seen = gateway.requests().pop().unwrap();
        assert_eq!(seen.cost, Some(cost));
        assert!(seen.output_tokens > 0);
    }
}

#[tokio::test]
async fn every_endpoint_streams_in_several_pieces_what_it_answers_otherwise() {
    let gateway = start();
    let text = "In the beginning, there were several pieces.";
    for (path, key, scheme, format) in ENDPOINTS {
        gateway.reply_next(Reply::Text(text.to_owned()));
        let request = post(&gateway, &streaming(path))
            .header(key, format!("{scheme}{}", Gateway::KEY))
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
        let body = std::str::from_utf8(&body).unwrap();
        let events = events(body);
        let pieces: Vec<&str> = events
            .iter()
            .filter_map(|event| event.pointer(format.delta)?.as_str())
            .collect();
        assert_eq!(pieces.concat(), text, "{path}: {events:#?}");
        assert_eq!(ends_of(&events, &format), format.ends[..1], "{path}");
        // Usage, though it was not asked for, and the cost in the very last frame.
        assert!(body.to_lowercase().contains("usage"), "{path}: {body}");
        let cost = events.last().unwrap()["cost"].as_str().unwrap();
        assert!(cost.parse::<f64>().unwrap() > 0.0, "{path}: {body}");
    }
}

#[tokio::test]
async fn the_cost_comes_after_the_end_mark_of_chat_completions() {
    let gateway = start();
    for (path, before) in [
        ("/zen/v1/chat/completions", false),
        ("/inference/openai/v1/chat/completions", true),
    ] {
        let request = post(&gateway, path).bearer_auth(Gateway::KEY);
        let request = request.json(&json!({"model": "m", "stream": true}));
        let body = request.send().await.unwrap().text().await.unwrap();
        let (stream, after) = body.split_once("data: [DONE]\n\n").unwrap();
        assert_eq!(after, "data: {\"choices\":[],\"cost\":\"0\"}\n\n");
        assert_eq!(stream.contains("inference-cost"), before, "{stream}");
        assert_eq!(stream.contains("normalizedUsage"), before, "{stream}");
    }
}

#[tokio::test]
async fn answers_are_from_now_and_each_has_an_id_of_its_own() {
    let gateway = start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let mut ids = vec![];
    for _ in 0..2 {
        let body: Value = chat_in(&gateway, "s", &json!({"model": "m"}))
            .await
            .json()
            .await
            .unwrap();
        let created = body["created"].as_u64().unwrap();
        assert!((now..now + 3600).contains(&created), "{created}");
        ids.push(body["id"].as_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_call_costs_what_its_models_prices_say() {
    let gateway = start();
    // 4,000 bytes as a provider reads it, with the role and two newlines.
    let messages = [user(&"x".repeat(3994))];
    for (model, cold, warm) in [
        ("deepseek-v4.1-flash", "0.00021", "0.000063"),
        ("glm-5.2", "0.00184", "0.0007"),
        ("kimi-k3", "0.0045", "0.0018"),
        ("a-model-without-a-price", "0", "0"),
    ] {
        for (cached, cost) in [(0, cold), (1000, warm)] {
            gateway.reply_next(Reply::Text("y".repeat(400)));
            let prompt = json!({"model": model, "messages": messages});
            let response = chat_in(&gateway, "s", &prompt).await;
            let body: Value = response.json().await.unwrap();
            let seen = gateway.requests().pop().unwrap();
            let tokens = (seen.prompt_tokens, seen.cached_tokens, seen.output_tokens);
            assert_eq!(tokens, (1000, cached, 100), "{model}");
            assert_eq!(body["cost"], cost, "{model}");
            let known = model != "a-model-without-a-price";
            assert_eq!(seen.cost.is_some(), known, "{model}");
        }
    }
}

#[tokio::test]
async fn models_are_listed_without_a_key_but_for_those_below_openai() {
    let gateway = Gateway::start().unwrap();
    gateway.set_providers("my-model", [Provider::new("one")]);
    for (path, key, any_origin) in [
        ("/zen/v1/models", false, false),
        ("/zen/go/v1/models", false, true),
        ("/inference/v1/models", false, false),
        ("/inference/go/v1/models", false, true),
        ("/inference/openai/v1/models", true, false),
        ("/inference/go/openai/v1/models", true, true),
    ] {
        let request = client().get(gateway.url(path));
        let response = request.try_clone().unwrap().send().await.unwrap();
        let expected = if key { 401 } else { 200 };
        assert_eq!(response.status(), expected, "{path}");
        let response = request.bearer_auth(Gateway::KEY).send().await.unwrap();
        let origin = response.headers().get("access-control-allow-origin");
        assert_eq!(origin.is_some_and(|it| it == "*"), any_origin, "{path}");
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
    let calls = gateway.requests();
    assert!(
        calls
            .iter()
            .all(|seen| seen.kind() == "models" && seen.marks.is_empty())
    );
}

#[tokio::test]
async fn limits_and_the_classifier_are_for_those_who_have_a_key() {
    let gateway = start();
    for (method, path) in [
        (Method::GET, "/zen/go/v1/usage"),
        (Method::GET, "/inference/go/v1/usage"),
        (Method::POST, "/zen/v1/systemone"),
        (Method::POST, "/zen/go/v1/systemone"),
        (Method::POST, "/inference/systemone/v1/systemone"),
        (Method::POST, "/inference/go/systemone/v1/systemone"),
    ] {
        let request = client().request(method, gateway.url(path));
        let response = request.try_clone().unwrap().send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        let response = request.bearer_auth(Gateway::KEY).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(response.json::<Value>().await.unwrap().is_object());
    }
    let other = "/inference/systemone/v1/classify";
    let response = post(&gateway, other).bearer_auth(Gateway::KEY);
    assert_eq!(response.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn the_usage_of_gos_limits_is_told_to_those_who_have_a_subscription() {
    let gateway = start();
    for path in ["/zen/go/v1/usage", "/inference/go/v1/usage"] {
        let usage = async || {
            let request = client().get(gateway.url(path)).bearer_auth(Gateway::KEY);
            request.send().await.unwrap()
        };
        let body: Value = usage().await.json().await.unwrap();
        assert!(body["workspaceID"].is_string() && body["userID"].is_string());
        let limits = ["rolling", "weekly", "monthly"].map(|limit| &body["usage"][limit]);
        let resets = limits.map(|limit| {
            assert_eq!(
                (&limit["status"], &limit["percent"]),
                (&json!("ok"), &json!(0))
            );
            limit["resetsAt"].as_str().unwrap()
        });
        // Times in this form are in the order of their letters.
        assert!(
            resets.is_sorted() && resets[0] > "2026" && resets[2].ends_with(".000Z"),
            "{body}"
        );

        gateway.fail_next(1, Failure::Entitlement);
        let response = usage().await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let expected = concat!(
            r#"{"type":"error","error":{"type":"EntitlementError","#,
            r#""message":"OpenCode Go subscription required."}}"#,
        );
        assert_eq!(response.text().await.unwrap(), expected);
        // It is none of its business that a call is to fail.
        gateway.fail_next(1, Failure::GoUsageLimit);
        assert_eq!(usage().await.status(), StatusCode::OK);
        assert_eq!(
            chat_in(&gateway, "s", &json!({"model": "m"}))
                .await
                .status(),
            429
        );
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_send_a_session() {
    let gateway = start();
    for (path, ..) in ENDPOINTS {
        let request = client().request(Method::OPTIONS, gateway.url(path));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(
            response.headers()["access-control-allow-headers"],
            "Content-Type, Authorization, x-api-key, x-goog-api-key, anthropic-version",
        );
    }
}

#[tokio::test]
async fn go_refuses_a_request_without_a_session_in_the_operators_own_words() {
    let gateway = start();
    let endpoints = ENDPOINTS.iter().filter(|(path, ..)| path.contains("/go/"));
    assert_eq!(endpoints.clone().count(), 7);
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
async fn a_free_model_is_for_opencodes_own_client_alone() {
    let gateway = start();
    for path in ["/zen/v1/chat/completions", CHAT] {
        for (key, session, status, kind) in [
            (Some(Gateway::KEY), Some("s"), 403, "FreeTierError"),
            (Some(Gateway::KEY), None, 403, "FreeTierError"),
            (None, Some("s"), 403, "FreeTierError"),
            (Some("wrong"), Some("s"), 401, "AuthError"),
        ] {
            let mut request = post(&gateway, path).json(&json!({"model": "big-pickle-free"}));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            if let Some(session) = session {
                request = request.header("x-opencode-session", session);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{path}: {key:?}, {session:?}");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["type"], kind, "{path}: {key:?}, {session:?}");
        }
    }
    let request = post(&gateway, "/zen/v1/chat/completions").bearer_auth(Gateway::KEY);
    let request = request.json(&json!({"model": "big-pickle"}));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
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
    // The second request finds the first one's prompt in the cache; the third has another key.
    assert_eq!(requests[1].cached_tokens, requests[1].prompt_tokens);
    assert_eq!(
        (requests[0].cached_tokens, requests[2].cached_tokens),
        (0, 0)
    );
}

#[tokio::test]
async fn an_unknown_key_is_refused_before_a_missing_session_and_the_header_is_named() {
    let gateway = start();
    for (path, key, scheme, _) in ENDPOINTS {
        for value in [None, Some("wrong")] {
            let mut request = post(&gateway, path).body(PROMPT);
            if let Some(value) = value {
                request = request.header(key, format!("{scheme}{value}"));
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["type"], "AuthError");
            let message = body["error"]["message"].as_str().unwrap();
            let problem = if value.is_some() {
                "Invalid"
            } else {
                "Missing"
            };
            assert!(
                message.contains(key) && message.contains(problem),
                "{message}"
            );
        }
    }
    // On /zen, a key counts only in one header.
    let request = post(&gateway, "/zen/go/v1/messages").bearer_auth(Gateway::KEY);
    let response = request.body(PROMPT).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_body_that_is_no_json_is_an_internal_error_before_the_key_is_looked_at() {
    let gateway = start();
    for (path, ..) in ENDPOINTS {
        for body in ["", "Hello", "{\"model\": "] {
            let response = post(&gateway, path).body(body).send().await.unwrap();
            assert_eq!(
                response.status(),
                StatusCode::INTERNAL_SERVER_ERROR,
                "{path}"
            );
            let expected = concat!(
                r#"{"type":"error","error":{"type":"error","#,
                r#""message":"Internal server error"}}"#,
            );
            assert_eq!(response.text().await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn what_javascript_reads_as_json_is_answered() {
    let gateway = start();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let ask = |content: &str, field: &str| {
        let content = content.as_bytes();
        let message = [br#"{"role": "user", "content": ""#, content, br#""}"#].concat();
        let contents = [
            br#"{"role": "user", "parts": [{"text": ""#,
            content,
            br#""}]}"#,
        ]
        .concat();
        let field = field.as_bytes();
        [
            br#"{"model": "kimi-k3", "messages": ["#,
            &message[..],
            br#"], "contents": ["#,
            &contents,
            br#"], "metadata": "#,
            field,
            b"}",
        ]
        .concat()
    };
    for (path, key, scheme, _) in ENDPOINTS {
        for (body, words) in [
            (ask(r"Where is it? \ud83d", "null"), "Where is it? \u{fffd}"),
            (ask(r"\ude00 Where is it?", "null"), "\u{fffd} Where is it?"),
            (ask("Hello", &deep(100_000)), "Hello"),
            (ask("Hello", "[1e999, -1e999, 1e-999]"), "Hello"),
            (ask("Hello", r#"{"a": 1, "a": 2}"#), "Hello"),
            (
                ["\u{feff}".as_bytes(), &ask("Hello", "0")].concat(),
                "Hello",
            ),
        ] {
            let request = post(&gateway, path)
                .header(key, format!("{scheme}{}", Gateway::KEY))
                .header("x-opencode-session", "s");
            let response = request.body(body).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{path}: {words}");
            let seen = gateway.take_requests().remove(0);
            assert_eq!(seen.prompt.as_deref(), Some(words), "{path}");
        }
    }
    // A byte that is no character.
    let mut body = ask("Hello?", "null");
    let at = body.windows(6).position(|text| text == b"Hello?").unwrap();
    body[at + 5] = 0xff;
    let request = post(&gateway, "/zen/v1/chat/completions").bearer_auth(Gateway::KEY);
    let response = request.body(body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen = gateway.take_requests().remove(0);
    assert_eq!(seen.prompt.as_deref(), Some("Hello\u{fffd}"));
}

#[tokio::test]
async fn a_model_that_is_none_of_the_gateways_is_refused() {
    let gateway = Gateway::builder().models(["m"]).start().unwrap();
    for (body, status) in [
        (json!({"model": "m"}), 200),
        (json!({"model": "M"}), 401),
        (json!({}), 401),
        (json!(["no", "object"]), 401),
    ] {
        let response = chat_in(&gateway, "s", &body).await;
        assert_eq!(response.status(), status, "{body}");
        if status != 200 {
            let answer: Value = response.json().await.unwrap();
            assert_eq!(answer["error"]["type"], "ModelError", "{body}");
        }
    }
    let response = client().get(gateway.url("/zen/v1/models")).send().await;
    let models: Value = response.unwrap().json().await.unwrap();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_model_without_a_provider_is_refused_as_an_unknown_one() {
    let gateway = start();
    gateway.set_providers("nowhere", [Provider::new("off").weight(0)]);
    let response = chat_in(&gateway, "s", &json!({"model": "nowhere"})).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["type"], "ModelError");
    assert_eq!(body["error"]["message"], "No provider available");
}

#[tokio::test]
async fn an_answer_that_came_over_inference_says_who_gave_it() {
    let gateway = start();
    gateway.set_providers("kimi-k3", [Provider::new("one")]);
    let mut ids = HashSet::new();
    for (path, key, scheme, _) in ENDPOINTS {
        let request = post(&gateway, path)
            .header(key, format!("{scheme}{}", Gateway::KEY))
            .header("x-opencode-session", "s");
        let response = request.body(PROMPT).send().await.unwrap();
        let headers = ["log-id", "endpoint-id", "upstream-model-id"].map(|name| {
            let value = response.headers().get(format!("x-opencode-{name}"))?;
            Some(value.to_str().unwrap().to_owned())
        });
        let [log_id, provider, model] = &headers;
        if path.starts_with("/inference/") {
            assert_eq!(provider.as_deref(), Some("one"), "{path}");
            assert_eq!(model.as_deref(), Some("kimi-k3"), "{path}");
            assert!(ids.insert(log_id.clone().unwrap()), "{path}");
        } else {
            assert_eq!(headers, [None, None, None], "{path}");
        }
    }
}

#[tokio::test]
async fn replies_that_nobody_chose_can_be_told_apart() {
    let gateway = start();
    let prompt = json!({"model": "kimi-k3", "messages": [user("Hello")]});
    client()
        .get(gateway.url("/zen/v1/models"))
        .send()
        .await
        .unwrap();
    let mut words = HashSet::new();
    for number in 2..200 {
        let body: Value = chat_in(&gateway, "s", &prompt).await.json().await.unwrap();
        assert_eq!(gateway.requests().last().unwrap().number, number);
        let text = body["choices"][0]["message"]["content"].as_str().unwrap();
        let number = number.to_string();
        assert!(text.starts_with(&format!("{number}:")), "{text}");
        assert!(text.ends_with(&format!(" {number}")), "{text}");
        let letters = text.chars().filter(|letter| letter.is_alphanumeric());
        assert!(letters.count() >= 24, "{text}");
        for foreign in ["Hello", "kimi", "north", "east", "south"] {
            assert!(!text.contains(foreign), "{text}");
        }
        // Without the numbers, they differ as well.
        assert!(words.insert(text.replace(&number, "")), "{text}");
    }
}

#[tokio::test]
async fn a_call_by_websocket_is_sent_to_http_at_once_and_is_no_call() {
    let gateway = start();
    for (path, ..) in ENDPOINTS {
        for (name, value) in [
            ("upgrade", "websocket"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            let request = client().get(gateway.url(path)).header(name, value);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED, "{path}");
            assert!(response.headers().contains_key("upgrade"), "{path}");
        }
        let response = client().get(gateway.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let models = client().get(gateway.url("/zen/v1/models"));
    let response = models.header("upgrade", "websocket").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    for seen in gateway.requests() {
        assert!(!seen.asks_a_model() && !seen.stands_out(), "{seen}");
    }
}

#[tokio::test]
async fn a_request_to_a_path_of_no_calls_is_no_call_whatever_its_answer() {
    let gateway = start();
    for (method, path) in [
        (Method::POST, "/zen/go/v1/embeddings"),
        (Method::POST, "/zen/go/v1/completions"),
        (Method::POST, "/zen/go/v1/messages/count_tokens"),
        (
            Method::POST,
            "/inference/go/anthropic/v1/messages/count_tokens",
        ),
        (Method::POST, "/zen/v1/models/kimi-k3:countTokens"),
        (Method::POST, "/zen/go/v1/systemone"),
        (Method::HEAD, "/"),
        (Method::HEAD, "/inference/go/anthropic"),
        (Method::HEAD, "/zen/go/v1/messages"),
        (Method::GET, "/zen/go/v1/usage"),
        (Method::GET, "/inference/openai/v1/models"),
    ] {
        let request = client().request(method, gateway.url(path));
        // A session header that is wrong is wrong in a call alone.
        let request = request.header("x-opencode-session", "with a space");
        request.body(PROMPT).send().await.unwrap();
        let seen = gateway.requests().pop().unwrap();
        assert!(seen.is_refused(), "{seen}");
        assert!(!seen.asks_a_model() && !seen.stands_out(), "{seen}");
        assert_eq!(seen.marks, [], "{seen}");
    }
    let message = message_of(|| gateway.assert_no_session_missing());
    assert!(message.contains("saw no call"), "{message}");
}

#[tokio::test]
async fn a_call_to_a_path_that_is_none_was_refused_and_misses_no_session() {
    let gateway = start();
    let response = post(&gateway, "/v1/chat/completions").body(PROMPT);
    assert_eq!(response.send().await.unwrap().status(), 404);
    let seen = gateway.requests().remove(0);
    assert!(seen.asks_a_model() && seen.stands_out(), "{seen}");
    assert_eq!(seen.marks, []);
}

#[tokio::test]
async fn a_path_that_is_none_is_refused_with_the_nearest_one() {
    let gateway = start();
    for (path, nearest) in [
        (
            "/zen/go/v1/v1/messages",
            "POST /zen/go/v1/messages: the base URL of an Anthropic SDK ends before /v1.",
        ),
        ("/zen/go/messages", "POST /zen/go/v1/messages"),
        (
            "/v1/chat/completions",
            "POST /zen/v1/chat/completions: the base URL of an OpenAI SDK ends in /v1.",
        ),
        ("/zen/go/v1/completions", "POST /zen/go/v1/chat/completions"),
        (
            "/zen/go/v1/text/completions",
            "POST /zen/go/v1/chat/completions",
        ),
        (
            "/zen/go/chat/completions",
            "POST /zen/go/v1/chat/completions",
        ),
        (
            "/inference/go/openai/v1/messages",
            "POST /inference/go/anthropic/v1/messages",
        ),
        (
            "/inference/go/v1/chat/completions",
            "POST /inference/go/openai/v1/chat/completions",
        ),
        (
            "/zen/go/v1/models/m:generateContent",
            "POST /zen/v1/models/m:generateContent: the base URL of a Google SDK ends before \
             the version, which google-genai takes from HttpOptions(api_version=\"v1\").",
        ),
        (
            "/inference/go/google/v1/models/m:streamGenerateContent",
            "POST /inference/go/google/v1beta/models/m:streamGenerateContent: the base URL of a \
             Google SDK ends before the version, which google-genai takes from \
             HttpOptions(api_version=\"v1beta\").",
        ),
        ("/zen/go/v1/mesages", "POST /zen/go/v1/messages"),
        (
            "/zen/go/v1/chat%2Fcompletions",
            "POST /zen/go/v1/chat/completions",
        ),
        ("/Zen/Go/V1/Responses", "POST /zen/go/v1/responses"),
    ] {
        let response = post(&gateway, path).body(PROMPT).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let body: Value = response.json().await.unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("There is no POST {path}. ")),
            "{message}"
        );
        assert!(message.contains(nearest), "{message}");
    }
    // The base URL is right if the call itself is wrong.
    for (path, hint) in [
        (
            "/zen/go/v1/mesages",
            " The nearest path is POST /zen/go/v1/messages.",
        ),
        // A path for something else is no hint.
        ("/zen/go/v1/embeddings", ""),
        ("/zen/go/v1/messages/count_tokens", ""),
        ("/zen/v1/models/m:countTokens", ""),
        ("/", ""),
        ("/zen/go/v1", ""),
    ] {
        let response = post(&gateway, path).body(PROMPT).send().await.unwrap();
        let body: Value = response.json().await.unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!(message, format!("There is no POST {path}.{hint}"));
    }
    // Of equally near paths, the one with the method of the request.
    for (path, nearest) in [
        (CHAT, "POST /zen/go/v1/chat/completions:"),
        ("/zen/go/v1/model", "GET /zen/go/v1/models."),
        (
            "/inference/openai/v1/model",
            "GET /inference/openai/v1/models.",
        ),
        ("/inference/go/models", "GET /inference/go/v1/models."),
        ("/inference/v2/usage", "GET /inference/go/v1/usage."),
    ] {
        let response = client().get(gateway.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let body: Value = response.json().await.unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("The nearest path is {nearest}")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_long_path_that_is_none_is_told_by_its_beginning() {
    let gateway = start();
    for (length, shown) in [(190, 190), (191, 190), (60_000, 190)] {
        let path = format!("/zen/go/v1/{}", "m".repeat(length - 1));
        let response = post(&gateway, &path).body(PROMPT).send().await.unwrap();
        let body: Value = response.json().await.unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        let rest = if length > shown { "…" } else { "" };
        let told = "m".repeat(shown - 1);
        assert_eq!(
            message,
            format!("There is no POST /zen/go/v1/{told}{rest}.")
        );
    }
}

#[tokio::test]
async fn the_paths_that_were_served_once_are_gone() {
    let gateway = start();
    for path in ["/inference/v1/chat/completions", "/inference/v1/messages"] {
        let response = post(&gateway, path).body(PROMPT).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::GONE, "{path}");
    }
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
        serde_json::from_str(include_str!("../../fixtures/routing-vectors.json")).unwrap();
    let gateway = start();
    for vector in vectors.as_array().unwrap() {
        // An empty id is no session; a unit test checks its hash.
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
    let provider = async |session| {
        chat_in(&gateway, session, &json!({"model": "m"})).await;
        gateway.requests().pop().unwrap().provider.unwrap()
    };
    gateway.set_providers("m", [Provider::new("first")]);
    gateway.fail_next(1, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(provider("failed").await, "first");
    assert_eq!(provider("answered").await, "first");
    // Of weight 0, it keeps its sessions and gets no new one.
    for first in [
        Provider::new("first").priority(1),
        Provider::new("first").weight(0),
    ] {
        gateway.set_providers("m", [first, Provider::new("second")]);
        assert_eq!(provider("answered").await, "first");
    }
    for session in ["failed", "new"] {
        assert_eq!(provider(session).await, "second", "{session}");
    }
    // Another model has a provider of its own.
    gateway.set_providers("n", [Provider::new("third")]);
    chat_in(&gateway, "answered", &json!({"model": "n"})).await;
    assert_eq!(gateway.requests().pop().unwrap().provider.unwrap(), "third");
    // One that is gone is hashed anew.
    gateway.set_providers("m", [Provider::new("second")]);
    assert_eq!(provider("answered").await, "second");
}

#[tokio::test]
async fn a_reply_can_be_a_text_or_the_call_of_a_tool() {
    let gateway = start();
    let call = Reply::ToolCall {
        name: "clock".to_owned(),
        arguments: json!({"zone": "UTC"}),
    };
    for (path, key, scheme, format) in ENDPOINTS {
        for stream in [false, true] {
            let path = match stream {
                true => streaming(path),
                false => path.to_owned(),
            };
            gateway.reply_next(call.clone());
            let request = post(&gateway, &path)
                .header(key, format!("{scheme}{}", Gateway::KEY))
                .header("x-opencode-session", "s")
                .json(&json!({"model": "kimi-k3", "stream": stream}));
            let body = request.send().await.unwrap().text().await.unwrap();
            if stream {
                assert!(body.contains("clock") && events(&body).len() > 1, "{body}");
                assert_eq!(ends_of(&events(&body), &format), format.ends[1..], "{path}");
            } else {
                let body: Value = serde_json::from_str(&body).unwrap();
                assert_eq!(body.pointer(format.tool).unwrap(), "clock", "{path}");
                assert_eq!(body.pointer(format.end).unwrap(), format.ends[1], "{path}");
            }
            // One token for each four bytes of the name and of the arguments.
            assert_eq!(gateway.requests().pop().unwrap().output_tokens, 2 + 4);
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
async fn failures_happen_in_the_order_in_which_they_were_told_and_as_often() {
    let gateway = start();
    gateway.fail_next(2, Failure::Status(StatusCode::TOO_MANY_REQUESTS));
    gateway.fail_next(1, Failure::Status(StatusCode::BAD_GATEWAY));
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
async fn a_failure_for_calls_of_a_kind_waits_for_them() {
    let gateway = start();
    let is_of =
        |model: &'static str| move |call: &SeenRequest| call.model.as_deref() == Some(model);
    gateway.fail_to(2, is_of("a"), Failure::Unavailable);
    gateway.fail_next(1, Failure::GoUsageLimit);
    gateway.fail_to(1, is_of("b"), Failure::ModelUnavailable);
    for (model, status) in [
        ("b", 429),
        ("a", 503),
        ("b", 400),
        ("b", 200),
        ("a", 503),
        ("a", 200),
    ] {
        let response = chat_in(&gateway, "s", &json!({"model": model})).await;
        assert_eq!(response.status(), status, "{model}");
    }
}

#[tokio::test]
async fn a_connection_can_be_closed_before_the_answer() {
    let gateway = start();
    gateway.fail_next(1, Failure::CloseBeforeAnswer);
    let request = post(&gateway, CHAT)
        .bearer_auth(Gateway::KEY)
        .header("x-opencode-session", "s");
    let error = request.body(PROMPT).send().await.unwrap_err();
    assert!(error.is_request(), "{error:?}");
    assert_eq!(gateway.requests()[0].status, None);
    assert_eq!(
        gateway.requests()[0].to_string(),
        "#1 call: 'Hello', kimi-k3, 1 message, no tools: \
         POST /zen/go/v1/chat/completions in session s, not answered"
    );
}

#[tokio::test]
async fn a_connection_can_be_closed_half_way_through_an_answer() {
    let gateway = start();
    for stream in [true, false] {
        let prompt = json!({"model": "kimi-k3", "stream": stream, "messages": [user("Hello")]});
        let whole = chat_in(&gateway, "s", &prompt).await.bytes().await.unwrap();
        gateway.fail_next(1, Failure::CloseMidAnswer);
        let mut response = chat_in(&gateway, "s", &prompt).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut received = 0;
        let end = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => received += chunk.len(),
                end => break end,
            }
        };
        assert!(end.is_err(), "the answer is whole");
        let half = whole.len() / 4..=whole.len() * 3 / 4;
        assert!(half.contains(&received), "{received} of {}", whole.len());
        let [seen_whole, seen] = &gateway.take_requests()[..] else {
            panic!("there were two calls");
        };
        assert!(seen_whole.cost.is_some() && seen_whole.prompt_tokens > 0);
        assert_eq!(seen.status, Some(StatusCode::OK));
        assert_eq!((seen.cost, seen.prompt_tokens), (None, 0));
        assert_eq!(seen.end, Some(End::Cut));
        assert_eq!(
            seen.failure.as_deref(),
            Some("closed halfway through the answer")
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_has_none() {
    let gateway = start();
    gateway.fail_next(1, Failure::Delay(Duration::from_millis(500)));
    let request = post(&gateway, CHAT)
        .bearer_auth(Gateway::KEY)
        .header("x-opencode-session", "s");
    let request = request.body(PROMPT).timeout(Duration::from_millis(50));
    assert!(request.send().await.unwrap_err().is_timeout());
    // When this one is answered, the first one would have been as well.
    gateway.fail_next(1, Failure::Delay(Duration::from_secs(1)));
    chat_in(&gateway, "s", &json!({"model": "kimi-k3"})).await;
    let [left, stayed] = &gateway.requests()[..] else {
        panic!("there were two calls");
    };
    assert_eq!((left.status, left.cost), (None, None), "{left}");
    assert_eq!((left.prompt_tokens, left.output_tokens), (0, 0), "{left}");
    assert!(left.provider.is_some(), "{left}");
    assert_eq!(left.end, Some(End::ClientLeft), "{left}");
    assert!(left.ended_after.is_some() && left.answered_after.is_none());
    assert_eq!(left.failure.as_deref(), Some("delayed by 0.5 seconds"));
    assert_eq!(stayed.status, Some(StatusCode::OK));
    assert!(stayed.cost.is_some(), "{stayed}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_has_what_was_sent() {
    let gateway = start();
    // More than the buffers on the way can hold.
    let long = Reply::Text(format!("{} ", "x".repeat(1 << 20)).repeat(12));
    for (path, tokens) in [
        ("/zen/go/v1/chat/completions", false),
        ("/zen/go/v1/responses", false),
        // Only this stream begins with the tokens of the prompt.
        ("/zen/go/v1/messages", true),
    ] {
        gateway.reply_next(long.clone());
        let body = json!({"model": "kimi-k3", "stream": true, "messages": [user("Hello")]});
        let request = post(&gateway, path).json(&body);
        let request = request
            .bearer_auth(Gateway::KEY)
            .header("x-api-key", Gateway::KEY);
        let mut response = request
            .header("x-opencode-session", "s")
            .send()
            .await
            .unwrap();
        let mut changes = gateway.log().changes();
        let seen = changes.next().await.unwrap().remove(0);
        assert_eq!((seen.status, seen.end), (Some(StatusCode::OK), None));
        response.chunk().await.unwrap().unwrap();
        drop(response);
        // It is recorded when the gateway notices.
        let seen = changes.next().await.unwrap().remove(0);
        assert_eq!(
            (seen.status, seen.cost, seen.end),
            (Some(StatusCode::OK), None, Some(End::ClientLeft)),
            "{path}"
        );
        assert_eq!(seen.prompt_tokens > 0, tokens, "{path}");
        gateway.take_requests();
    }
}

#[tokio::test]
async fn of_an_answer_that_was_cut_only_what_was_sent_is_known_later() {
    let words = |from: usize| -> String {
        let words = (from..from + 40).map(|number| format!("word{} ", number * number));
        words.collect()
    };
    for (quoted, marked) in [(words(0), true), (words(60), false)] {
        let gateway = start();
        gateway.reply_next(Reply::Text(words(0) + &words(40) + &words(80)));
        gateway.fail_next(1, Failure::CloseMidAnswer);
        let body = json!({"model": "m", "stream": true, "messages": [user("Hello")]});
        chat_in(&gateway, "s", &body)
            .await
            .bytes()
            .await
            .unwrap_err();
        let body = json!({"model": "m", "messages": [user(&format!("What is this? {quoted}"))]});
        chat_in(&gateway, "t", &body).await;
        let marks = gateway.requests().remove(1).marks;
        let quotes = marks.iter().any(|mark| matches!(mark, Mark::Quotes { .. }));
        assert_eq!(quotes, marked, "{marks:?}");
    }
}

#[tokio::test]
async fn an_answer_can_be_late() {
    let gateway = start();
    gateway.fail_next(1, Failure::Delay(Duration::from_secs(60)));
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
    client().get(&url).send().await.unwrap();
    let address = gateway.address();
    drop(gateway);
    assert!(client().get(&url).send().await.unwrap_err().is_connect());
    // Its port can be taken again.
    let again = Gateway::builder().address(address).start().unwrap();
    assert_eq!(again.address(), address);
    assert_eq!(
        client().get(&url).send().await.unwrap().status(),
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

#[test]
fn a_gateway_listens_on_loopback_unless_another_address_is_given() {
    let gateway = start();
    assert_eq!(gateway.address().ip(), Ipv4Addr::LOCALHOST);
    let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    // Not every system has this address.
    if let Ok(gateway) = Gateway::builder().address(elsewhere).start() {
        assert_eq!(gateway.address().ip(), elsewhere.ip());
    }
}

#[tokio::test]
async fn a_reply_for_a_kind_of_call_leaves_the_line_to_the_others() {
    let gateway = start();
    let tool = Reply::ToolCall {
        name: "clock".to_owned(),
        arguments: json!({}),
    };
    gateway.reply_next(tool);
    gateway.reply_to(
        |call| call.kind() == "title",
        Reply::Text("A title".to_owned()),
    );
    let printed = format!("{gateway:?}");
    assert!(
        printed.contains("clock") && printed.contains("A title"),
        "{printed}"
    );
    let ask = async |text: &str| -> Value {
        let prompt = json!({"model": "m", "messages": [user(text)]});
        chat_in(&gateway, "s", &prompt).await.json().await.unwrap()
    };
    for _ in 0..2 {
        let title = ask("Generate a title: What time is it?").await;
        assert_eq!(title["choices"][0]["message"]["content"], "A title");
    }
    let main = ask("What time is it?").await;
    assert_eq!(main["choices"][0]["finish_reason"], "tool_calls");
    let main = ask("And now?").await;
    assert_eq!(main["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn failures_have_the_shapes_of_the_real_ones() {
    let gateway = start();
    let wait = Duration::from_secs(7);
    let of = |status| Failure::Status(StatusCode::from_u16(status).unwrap());
    for (failure, status, kind, retry_after) in [
        (
            Failure::RateLimit { retry_after: wait },
            429,
            "RateLimitError",
            Some("7"),
        ),
        (
            Failure::GoUsageLimit,
            429,
            "GoUsageLimitError",
            Some("3600"),
        ),
        (
            Failure::FreeUsageLimit,
            429,
            "FreeUsageLimitError",
            Some("3600"),
        ),
        (Failure::UnknownModel, 401, "ModelError", None),
        (
            Failure::ProtocolUnsupported,
            400,
            "ModelProtocolUnsupported",
            None,
        ),
        (Failure::ModelUnavailable, 400, "server_error", None),
        (Failure::FreeTier, 403, "FreeTierError", None),
        (Failure::Entitlement, 403, "EntitlementError", None),
        (Failure::Unavailable, 503, "api_error", None),
        (of(401), 401, "AuthError", None),
        (of(403), 403, "RegionError", None),
        (of(429), 429, "RateLimitError", None),
        (of(500), 500, "error", None),
        (of(503), 503, "api_error", None),
    ] {
        gateway.fail_next(1, failure.clone());
        let response = chat_in(&gateway, "s", &json!({"model": "m"})).await;
        assert_eq!(response.status(), status, "{failure:?}");
        let header = response.headers().get("retry-after");
        assert_eq!(header.map(|value| value.to_str().unwrap()), retry_after);
        let cache_control = response.headers().get("cache-control").cloned();
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["type"], kind, "{failure:?}");
        assert_eq!(body.get("type").is_some(), status != 503, "{body}");
        let metadata = match &failure {
            Failure::GoUsageLimit => json!({"workspace": "workspace-0", "limitName": "5 hour"}),
            _ => json!({}),
        };
        let metadata = (status == 429).then_some(&metadata);
        assert_eq!(body.get("metadata"), metadata, "{body}");
        if status == 503 {
            let message = "Inference routing is unavailable. Please retry later.";
            assert_eq!(body["error"]["message"], message);
            assert_eq!(cache_control.unwrap(), "no-store");
        }
        assert_eq!(
            gateway.requests().pop().unwrap().error.as_deref(),
            Some(kind)
        );
    }
}

#[tokio::test]
async fn a_session_in_the_affinity_header_alone_is_refused_on_go() {
    let gateway = Gateway::start().unwrap();
    let call = crate::support::plain_client()
        .post(gateway.url(crate::support::CHAT))
        .bearer_auth(Gateway::KEY)
        .header("x-session-affinity", "a-session")
        .body(crate::support::PROMPT);
    assert_eq!(call.send().await.unwrap().status(), 400);
    assert_eq!(gateway.requests()[0].session, None);
}
