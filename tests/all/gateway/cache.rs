//! The providers' caches: what they show a correct client and a faulty one.

use http::StatusCode;
use reqwest_opencode_session::testing::{Gateway, Limits, Provider, SeenRequest};
use serde_json::{Value, json};

use super::support::{chat_in, post, start, user};
use crate::support::CHAT;

/// A system prompt of an agent's usual length.
fn system() -> Value {
    json!({"role": "system", "content": "Use the tools, and be brief. ".repeat(100)})
}

fn answer() -> Value {
    json!({"role": "assistant", "content": "Yes."})
}

/// The share of a call's prompt that was cached.
fn share(request: &SeenRequest) -> f64 {
    request.cached_tokens as f64 / request.prompt_tokens as f64
}

/// The share of the latest call.
fn latest_share(gateway: &Gateway) -> f64 {
    let seen = gateway.requests().pop().unwrap();
    assert_eq!(seen.status, Some(StatusCode::OK), "{seen}");
    share(&seen)
}

async fn send(gateway: &Gateway, path: &str, body: &Value) -> Value {
    let request = post(gateway, path)
        .bearer_auth(Gateway::KEY)
        .header("x-opencode-session", "s");
    request
        .json(body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_conversation_that_goes_on_is_cached_up_to_what_is_new() {
    let gateway = start();
    let mut messages = vec![system()];
    for turn in 0..4 {
        messages.push(user(&format!("Question {turn}")));
        let prompt = json!({"model": "kimi-k3", "messages": messages});
        let body: Value = chat_in(&gateway, "s", &prompt).await.json().await.unwrap();
        messages.push(body["choices"][0]["message"].clone());
        let seen = gateway.requests().pop().unwrap();
        assert_eq!(body["usage"]["prompt_tokens"], seen.prompt_tokens);
        assert_eq!(
            body["usage"]["prompt_tokens_details"]["cached_tokens"],
            seen.cached_tokens
        );
        match turn {
            0 => assert_eq!(seen.cached_tokens, 0),
            _ => assert!(
                share(&seen) > 0.95 && share(&seen) < 1.0,
                "{}",
                share(&seen)
            ),
        }
    }
}

#[tokio::test]
async fn a_title_between_two_turns_leaves_the_next_turn_warm() {
    let gateway = start();
    let mut messages = vec![system(), user("What time is it?")];
    chat_in(&gateway, "s", &json!({"model": "m", "messages": messages})).await;
    let title = json!({"model": "m", "messages": [user("A title for: What time is it?")]});
    chat_in(&gateway, "s", &title).await;
    messages.extend([answer(), user("And now?")]);
    chat_in(&gateway, "s", &json!({"model": "m", "messages": messages})).await;
    assert!(latest_share(&gateway) > 0.95, "{}", latest_share(&gateway));
}

#[tokio::test]
async fn a_marker_of_the_cache_may_move() {
    let gateway = start();
    let path = "/zen/go/v1/messages";
    let mark = json!({"type": "ephemeral"});
    let long = "Use the tools, and be brief. ".repeat(100);
    let body = json!({
        "model": "m",
        "system": [{"type": "text", "text": long, "cache_control": mark}],
        "tools": [{"name": "clock", "input_schema": {}, "cache_control": mark}],
        "messages": [{
            "role": "user",
            "content": [{"type": "text", "text": "Hello", "cache_control": mark}],
        }],
    });
    let request = async |body: &Value| {
        let request = post(&gateway, path).header("x-api-key", Gateway::KEY);
        let request = request.header("x-opencode-session", "s");
        request.json(body).send().await.unwrap()
    };
    request(&body).await;
    // The content that had the marker is a plain string now.
    let body = json!({
        "model": "m",
        "system": [{"type": "text", "text": long}],
        "tools": [{"name": "clock", "input_schema": {}}],
        "messages": [
            {"role": "user", "content": "Hello"},
            answer(),
            {
                "role": "user",
                "content": [{"type": "text", "text": "More", "cache_control": mark}],
            },
        ],
    });
    request(&body).await;
    assert!(latest_share(&gateway) > 0.95, "{}", latest_share(&gateway));
    let requests = gateway.requests();
    assert_eq!(requests[1].continues, Some(1));
}

#[tokio::test]
async fn an_input_that_grows_is_cached_as_far_as_it_was() {
    let gateway = start();
    let mut input = "Use the tools, and be brief. ".repeat(100);
    for turn in 0..3 {
        input.push_str(&format!("\nQuestion {turn}"));
        let body = json!({"model": "m", "instructions": "Be brief.", "input": input});
        send(&gateway, "/zen/go/v1/responses", &body).await;
        if turn > 0 {
            assert!(latest_share(&gateway) > 0.95, "{}", latest_share(&gateway));
        }
    }
    // The same conversation as a list, which the SDK's documentation shows next.
    let body = json!({
        "model": "m",
        "instructions": "Be brief.",
        "input": [{"role": "user", "content": input}, answer(), user("More")],
    });
    send(&gateway, "/zen/go/v1/responses", &body).await;
    assert!(latest_share(&gateway) > 0.95, "{}", latest_share(&gateway));
}

#[tokio::test]
async fn geminis_system_prompt_is_read_in_both_spellings() {
    let gateway = start();
    let long = json!({"parts": [{"text": "Use the tools, and be brief. ".repeat(100)}]});
    for name in ["systemInstruction", "system_instruction"] {
        let body = json!({name: long, "contents": [{"parts": [{"text": "Hello"}]}]});
        let path = "/inference/go/google/v1beta/models/m:generateContent";
        let body = send(&gateway, path, &body).await;
        let usage = &body["usageMetadata"];
        assert!(usage["promptTokenCount"].as_u64().unwrap() > 500, "{body}");
    }
    assert!(latest_share(&gateway) > 0.95, "{}", latest_share(&gateway));
}

#[tokio::test]
async fn every_wire_format_says_how_much_of_the_prompt_was_cached() {
    for (path, cached) in [
        (
            "/inference/openai/v1/chat/completions",
            "/usage/prompt_tokens_details/cached_tokens",
        ),
        (
            "/inference/openai/v1/responses",
            "/usage/input_tokens_details/cached_tokens",
        ),
        (
            "/inference/anthropic/v1/messages",
            "/usage/cache_read_input_tokens",
        ),
        (
            "/inference/google/v1beta/models/m:generateContent",
            "/usageMetadata/cachedContentTokenCount",
        ),
    ] {
        let gateway = start();
        let body = json!({"model": "m", "messages": [user("Hello")]});
        let mut counts = vec![];
        for _ in 0..2 {
            let body = send(&gateway, path, &body).await;
            counts.push(body.pointer(cached).unwrap().as_u64().unwrap());
        }
        assert!(counts[0] == 0 && counts[1] > 0, "{path}: {counts:?}");
    }
}

#[tokio::test]
async fn a_changed_first_message_is_cold_and_so_are_changed_tools() {
    let gateway = start();
    for (first, tools) in [
        ("Use the tools. ", json!([])),
        ("No tools today. ", json!([])),
        ("No tools today. ", json!([{"name": "clock"}])),
    ] {
        let system = json!({"role": "system", "content": first.repeat(100)});
        let messages = [system, user("Hello"), answer(), user("More")];
        let prompt = json!({"model": "m", "tools": tools, "messages": messages});
        chat_in(&gateway, "s", &prompt).await;
        assert!(latest_share(&gateway) < 0.05, "{}", latest_share(&gateway));
    }
}

#[tokio::test]
async fn another_order_of_keys_is_cold_and_another_way_to_write_the_same_is_warm() {
    let gateway = start();
    let long = "Use the tools, and be brief. ".repeat(100);
    // As text, because the order of keys in `json!` depends on what other crates turn on.
    let body = |tool: &str, hello: &str| {
        let system = format!(r#"{{"role": "system", "content": "{long}"}}"#);
        let user = format!(r#"{{"role": "user", "content": {hello}}}"#);
        format!(r#"{{"model": "m", "tools": [{tool}], "messages": [{system}, {user}]}}"#)
    };
    let first = r#"{"name": "clock", "parameters": {"type": "object", "properties": {}}}"#;
    let other = r#"{"name": "clock", "parameters": {"properties": {}, "type": "object"}}"#;
    let spaced = r#"{ "name":"cl\u006fck",  "parameters":{"type":"object","properties":{ } } }"#;
    for (tool, hello, warm) in [
        (first, r#""Hello é""#, false),
        (other, r#""Hello é""#, false),
        (spaced, r#""Hello é""#, true),
        (first, r#""Hello \u00e9""#, true),
        (other, r#"[{"type": "text", "text": "Hello é"}]"#, true),
    ] {
        let request = post(&gateway, CHAT).bearer_auth(Gateway::KEY);
        let request = request
            .header("x-opencode-session", "s")
            .body(body(tool, hello));
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        let share = latest_share(&gateway);
        assert!(
            if warm { share == 1.0 } else { share < 0.05 },
            "{tool}: {share}"
        );
    }
    // In a message as well.
    let call = |arguments: &str| {
        let call = format!(r#"{{"type": "tool_use", "name": "clock", "input": {arguments}}}"#);
        let asks = format!(r#"{{"content": [{call}], "role": "assistant"}}"#);
        let system = format!(r#"{{"role": "system", "content": "{long}"}}"#);
        format!(r#"{{"model": "m", "messages": [{system}, {asks}]}}"#)
    };
    let mut cached = vec![];
    for arguments in [
        r#"{"a": 1, "b": 2}"#,
        r#"{"b": 2, "a": 1}"#,
        r#"{"a": 1, "b": 2}"#,
    ] {
        let request = post(&gateway, CHAT).bearer_auth(Gateway::KEY);
        let request = request
            .header("x-opencode-session", "t")
            .body(call(arguments));
        request.send().await.unwrap();
        let seen = gateway.requests().pop().unwrap();
        cached.push(seen.prompt_tokens - seen.cached_tokens);
    }
    assert!(
        cached[1] > 0 && cached[1] < 30 && cached[2] == 0,
        "{cached:?}"
    );
}

#[tokio::test]
async fn another_session_on_another_provider_is_cold() {
    let gateway = start();
    // The gateway's hashes of "a" and "b" are 97 and 98, of different parity.
    gateway.set_providers("m", ["one", "two"].map(Provider::new));
    let prompt = json!({"model": "m", "messages": [system(), user("Hello")]});
    for session in ["a", "b"] {
        chat_in(&gateway, session, &prompt).await;
        assert!(latest_share(&gateway) < 0.05, "{}", latest_share(&gateway));
    }
    let requests = gateway.requests();
    assert_ne!(requests[0].provider, requests[1].provider);
    chat_in(&gateway, "a", &prompt).await;
    assert!(latest_share(&gateway) > 0.95, "{}", latest_share(&gateway));
}

#[tokio::test]
async fn the_oldest_conversation_is_forgotten() {
    let prompt = json!({"model": "m", "messages": [system(), user("Hello")]});
    let length = prompt["messages"].to_string().len();
    for limits in [
        Limits::default().prompts(2),
        Limits::default().cache(5 * length / 2),
    ] {
        let gateway = Gateway::builder().limits(limits).start().unwrap();
        for session in ["a", "b", "a", "c"] {
            chat_in(&gateway, session, &prompt).await;
        }
        chat_in(&gateway, "a", &prompt).await;
        assert!(latest_share(&gateway) > 0.95, "{}", latest_share(&gateway));
        chat_in(&gateway, "b", &prompt).await;
        assert!(latest_share(&gateway) < 0.05, "{}", latest_share(&gateway));
    }
}
