//! What is seen of a call: what it asks for, what it is named, and how it ended.

use http::{Method, StatusCode};
use proptest::prelude::*;
use reqwest_opencode_session::testing::record::{Answer, Log};
use reqwest_opencode_session::testing::{Gateway, SeenRequest};
use serde_json::{Value, json};

use super::support::{GENERATE, chat_in, post, record, start, streaming, user};
use crate::support::{CHAT, PROMPT};

#[tokio::test]
async fn a_seen_request_does_not_print_its_key() {
    let gateway = start();
    chat_in(&gateway, "s", &json!({"model": "m"})).await;
    let printed = format!("{:?}", gateway.requests());
    assert!(printed.contains("kimi") || printed.contains("x-opencode-session"));
    assert!(!printed.contains(Gateway::KEY), "{printed}");
}

#[tokio::test]
async fn a_call_is_seen_with_what_it_asks() {
    let gateway = start();
    let tool = |name| json!({"type": "function", "function": {"name": name}});
    let body = json!({
        "model": "kimi-k3",
        "stream": true,
        "tools": [tool("clock"), tool("search")],
        "messages": [
            {"role": "system", "content": "You are\n  brief."},
            user("What time is it?"),
            {"role": "assistant", "content": "Noon."},
            {"role": "user", "content": [{"type": "text", "text": "word ".repeat(100)}]},
        ],
    });
    chat_in(&gateway, "s", &body).await;
    let seen = gateway.requests().remove(0);
    assert_eq!(seen.model.as_deref(), Some("kimi-k3"));
    assert!(seen.stream);
    assert_eq!(seen.tools, ["clock", "search"]);
    assert_eq!(seen.messages, 4);
    assert_eq!(seen.system.as_deref(), Some("You are brief."));
    let prompt = seen.prompt.as_deref().unwrap();
    assert!(
        prompt.starts_with("word word") && prompt.ends_with('…'),
        "{prompt}"
    );
    assert_eq!(prompt.chars().count(), 121);
    let kept: Value = serde_json::from_slice(seen.body.as_ref().unwrap()).unwrap();
    assert_eq!(kept, body);
    assert_eq!(
        seen.name(),
        "call: 'word word word word word word word word…', kimi-k3, 4 messages, 2 tools"
    );

    let gemini = json!({
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"functionDeclarations": [{"name": "clock"}, {"name": "search"}]}],
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
    });
    let request = post(&gateway, &streaming(GENERATE)).json(&gemini);
    request
        .header("x-goog-api-key", Gateway::KEY)
        .send()
        .await
        .unwrap();
    let seen = gateway.requests().remove(1);
    assert!(seen.stream);
    assert_eq!(seen.tools, ["clock", "search"]);
    assert_eq!(seen.system.as_deref(), Some("Be brief."));
    assert_eq!(seen.prompt.as_deref(), Some("Hello"));
}

#[tokio::test]
async fn the_users_last_own_words_are_seen_whatever_tools_answered_since() {
    let gateway = start();
    let asked = user("What time is it?");
    let call = json!({"type": "tool_use", "id": "1", "name": "clock", "input": {}});
    let call = json!({"role": "assistant", "content": [call]});
    let result = json!({
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [{"type": "text", "text": "Noon."}, {"type": "text", "text": "Or later."}],
    });
    let text = |text| json!({"type": "text", "text": text});
    let found = json!({"type": "search_result", "content": [text("It is noon.")]});
    for (path, body, words) in [
        (
            CHAT,
            json!({"messages": [
                asked,
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "clock"}},
                ]},
                {"role": "tool", "tool_call_id": "1", "content": "Noon."},
            ]}),
            "What time is it?",
        ),
        (
            "/zen/v1/responses",
            json!({"input": [
                asked,
                {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Well."}]},
                {"type": "function_call", "call_id": "1", "name": "clock", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "Noon."},
                {"type": "compaction", "content": "A summary."},
                {"type": "mcp_approval_response", "text": "Approved."},
            ]}),
            "What time is it?",
        ),
        (
            "/zen/v1/responses",
            json!({"input": [asked, {"type": "message", "content": "In London, please."}]}),
            "In London, please.",
        ),
        (
            "/zen/v1/messages",
            json!({"messages": [asked, call, {"role": "user", "content": [result]}]}),
            "What time is it?",
        ),
        (
            "/zen/v1/messages",
            json!({"messages": [
                asked,
                call,
                {"role": "user", "content": [result, found, text("In London,"), text("please.")]},
            ]}),
            "In London, please.",
        ),
        (
            GENERATE,
            json!({"contents": [
                {"parts": [{"text": "What time is it?"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "clock", "args": {}}}]},
                {"role": "user", "parts": [
                    {"functionResponse": {"name": "clock", "response": {"content": "Noon."}}},
                ]},
            ]}),
            "What time is it?",
        ),
    ] {
        post(&gateway, path).json(&body).send().await.unwrap();
        let seen = gateway.requests().pop().unwrap();
        assert_eq!(seen.prompt.as_deref(), Some(words), "{body}");
    }
}

#[tokio::test]
async fn a_header_whose_name_speaks_of_a_key_is_hidden_whoevers_it_is() {
    let gateway = Gateway::start().unwrap();
    let names = [
        "authorization",
        "cookie",
        "x-api-key",
        "x-auth-token",
        "x-litellm-api-key",
        "helicone-auth",
        "x-csrf-token",
    ];
    let call = crate::support::plain_client().get(gateway.url("/zen/v1/models"));
    let call = names
        .iter()
        .fold(call, |call, name| call.header(*name, "sk-hidden"));
    call.send().await.unwrap();
    let shown = format!("{:?}", gateway.requests()[0]);
    assert!(!shown.contains("sk-hidden"), "{shown}");
}

/// A request as the log sees it.
fn seen(method: Method, path: &str, body: &str) -> SeenRequest {
    let log = Log::default();
    let number = record(&log, method, path, body);
    log.get(number).unwrap()
}

#[test]
fn a_request_asks_a_model_where_it_posts_to_a_path_of_calls() {
    for (method, path, body, asks) in [
        (Method::POST, CHAT, "{}", true),
        (Method::POST, CHAT, "no JSON", true),
        (Method::POST, "/a-new-family/go/v1/messages", "{}", true),
        (Method::POST, "/anywhere", PROMPT, false),
        (Method::POST, "/zen/v1/systemone", PROMPT, false),
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
fn a_prompt_is_what_the_user_typed_without_the_blocks_that_clients_add() {
    for (content, prompt) in [
        (
            "<system-reminder>\nBe brief.\n</system-reminder>\nWhere is it?",
            "Where is it?",
        ),
        (
            "<session_context><os>Linux</os></session_context>Where?",
            "Where?",
        ),
        (
            "Where is it?\n<environment_details>Noon</environment_details>",
            "Where is it?",
        ),
        ("Where <a-b>1</a-b>is <a-b>2</a-b>it?", "Where is it?"),
        // What the user may have typed.
        ("What is <div>1</div>?", "What is <div>1</div>?"),
        ("What is <my-element>?", "What is <my-element>?"),
        (
            "1 < 2 and <a-b c=\"d\">3</a-b>",
            "1 < 2 and <a-b c=\"d\">3</a-b>",
        ),
        // Nothing else is there.
        (
            "<system-reminder>Go on.</system-reminder>",
            "<system-reminder>Go on.</system-reminder>",
        ),
    ] {
        let body = json!({"model": "m", "messages": [user(content)]}).to_string();
        let seen = seen(Method::POST, CHAT, &body);
        assert_eq!(seen.prompt.as_deref(), Some(prompt));
    }
    let blocks = json!([
        {"type": "text", "text": "<system-reminder>Be brief.</system-reminder>"},
        {"type": "text", "text": "Where is it?"},
    ]);
    let reminder = json!([{"type": "text", "text": "<system-reminder>Hurry.</system-reminder>"}]);
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": blocks},
        {"role": "assistant", "content": "I look."},
        {"role": "user", "content": reminder},
    ]});
    let seen = seen(Method::POST, CHAT, &body.to_string());
    assert_eq!(seen.prompt.as_deref(), Some("Where is it?"));
    assert_eq!(seen.recalls.as_deref(), Some("I look."));
}

#[test]
fn the_first_words_of_an_answer_are_kept() {
    let log = Log::default();
    let number = record(&log, Method::POST, CHAT, PROMPT);
    let mut answer = Answer::with_status(StatusCode::OK);
    answer.text = Some(format!("It is\n{}", "x".repeat(200)));
    log.answer(number, &answer);
    let said = log.get(number).unwrap().said.unwrap();
    assert_eq!(said, format!("It is {}…", "x".repeat(114)));
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

proptest! {
    #[test]
    fn first_words_have_at_most_120_characters_and_an_ellipsis(
        words in prop::collection::vec("\\PC{0,150}|[a-zé]{100,130}|\\s{0,3}", 0..5),
    ) {
        let text = words.join(" ");
        let log = Log::default();
        let body = json!({
            "model": "m",
            "system": [{"type": "text", "text": text}, {"type": "text", "text": text}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
        });
        let number = record(&log, Method::POST, CHAT, &body.to_string());
        let seen = log.get(number).unwrap();
        for shown in [&seen.system, &seen.prompt].into_iter().flatten() {
            let length = shown.chars().count();
            prop_assert!(length <= 121, "{length}: {shown}");
            prop_assert!(length <= 120 || shown.ends_with('…'), "{length}: {shown}");
        }
        // Nothing is cut that fits.
        let whole = text.split(|c: char| c.is_whitespace() || c.is_control());
        let whole: Vec<_> = whole.filter(|word| !word.is_empty()).collect();
        let whole = whole.join(" ");
        let shown = seen.prompt.unwrap_or_default();
        match whole.chars().count() <= 120 {
            true => prop_assert_eq!(shown, whole),
            false => prop_assert!(whole.starts_with(shown.trim_end_matches('…'))),
        }
    }
}
