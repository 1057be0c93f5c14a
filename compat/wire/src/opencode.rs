//! opencode's conversations, in the order in which they were captured.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use reqwest_opencode_session::testing::{Failure, Gateway, Reply, SeenRequest};
use serde_json::json;

use crate::client::Client;
use crate::install::Installed;
use crate::wire::{Wire, gateway};

/// The models of its configuration: the id, and the npm package for their wire format.
const MODELS: [(&str, &str); 5] = [
    (CHAT, "@ai-sdk/openai-compatible"),
    (SMALL, "@ai-sdk/openai-compatible"),
    ("wire-responses", "@ai-sdk/openai"),
    ("wire-messages", "@ai-sdk/anthropic"),
    ("wire-gemini", "@ai-sdk/google"),
];
const CHAT: &str = "wire-chat";
/// The model that writes titles.
const SMALL: &str = "wire-small";

const ZEN: &str = "opencode/wire-chat";
const GO: &str = "opencode-go/wire-chat";

/// The switches for everything that would use the network on its own.
const SWITCHES: [&str; 5] = [
    "OPENCODE_DISABLE_AUTOUPDATE",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS",
    "OPENCODE_DISABLE_LSP_DOWNLOAD",
    "OPENCODE_DISABLE_MODELS_FETCH",
    "OPENCODE_DISABLE_SHARE",
];

pub async fn hold(installed: Installed, home: PathBuf) -> Result<Wire> {
    let gateway = gateway()?;
    let provider = |path: &str| {
        let mut models = json!({});
        for (id, package) in MODELS {
            models[id] = json!({
                "tool_call": true,
                "limit": {"context": 200_000, "output": 8_000},
                "provider": {"npm": package},
            });
        }
        let options = json!({"baseURL": gateway.url(path), "apiKey": Gateway::KEY});
        json!({"options": options, "models": models})
    };
    let config = json!({
        "autoupdate": false,
        "share": "disabled",
        "small_model": format!("opencode/{SMALL}"),
        "enabled_providers": ["opencode", "opencode-go"],
        "provider": {"opencode": provider("/zen/v1"), "opencode-go": provider("/zen/go/v1")},
    });
    let mut environment = vec![("OPENCODE_CONFIG_CONTENT", config.to_string())];
    environment.extend(SWITCHES.map(|switch| (switch, "1".to_owned())));
    let client = Client::new(installed, home, environment).await?;
    let mut wire = Wire::new("opencode", client, gateway);

    wire.client.repository("one").await?;
    wire.run(
        "A, a new conversation",
        &["title of conversation A", "first call of conversation A"],
        "one",
        &["run", "--model", ZEN, "Hello A"],
    )
    .await;
    wire.client.commit("one").await?;
    wire.run(
        "A, resumed",
        &["conversation A continued"],
        "one",
        &["run", "--model", ZEN, "--continue", "More"],
    )
    .await;
    wire.run(
        "B, a new conversation",
        &["title of conversation B", "first call of conversation B"],
        "one",
        &["run", "--model", ZEN, "Hello B"],
    )
    .await;
    wire.hold(
        "C, a retry after 503, a tool and a subagent",
        &[
            "title of conversation C",
            "first attempt of C's main call",
            "second attempt of the same call",
            "subagent that C's tool call started",
            "C's main call after the tool's answer",
        ],
        async |client, gateway| {
            gateway.reply_next(Reply::ToolCall {
                name: "task".to_owned(),
                arguments: json!({
                    "description": "A task",
                    "prompt": "Say hello",
                    "subagent_type": "general",
                }),
            });
            // Not the title, which is asked for at the same time.
            let is_main = |call: &SeenRequest| call.model.as_deref() == Some(CHAT);
            gateway.fail_to(1, is_main, Failure::Unavailable);
            client.run("one", &["run", "--model", ZEN, "Hello C"]).await
        },
    )
    .await;
    let original = wire.latest_session()?;
    wire.run(
        "D, a fork of C",
        &["conversation D, forked from C"],
        "one",
        &["run", "--model", ZEN, "--continue", "--fork", "Another way"],
    )
    .await;
    wire.declare_fork(&original)?;

    wire.client.repository("two").await?;
    wire.client.commit("two").await?;
    wire.run(
        "E, on Go",
        &["title of conversation E", "first call of conversation E"],
        "two",
        &["run", "--model", GO, "Hello E"],
    )
    .await;
    wire.run(
        "E, resumed",
        &["conversation E continued"],
        "two",
        &["run", "--model", GO, "--continue", "More"],
    )
    .await;
    let session = wire.latest_session()?;
    wire.hold(
        "E, a compaction",
        &["compaction of conversation E"],
        async |client, _| summarize(client, "two", &session).await,
    )
    .await;
    for (what, prompt) in [
        ("E, after it", "And then?"),
        ("E, resumed again", "And now?"),
    ] {
        wire.run(
            what,
            &[],
            "two",
            &["run", "--model", GO, "--continue", prompt],
        )
        .await;
    }

    for (what, captured, model) in [
        (
            "responses",
            "main call in the responses format",
            "opencode-go/wire-responses",
        ),
        (
            "messages",
            "main call in the messages format",
            "opencode-go/wire-messages",
        ),
        (
            "generateContent",
            "main call in the generateContent format",
            "opencode/wire-gemini",
        ),
    ] {
        wire.run(
            what,
            &[captured],
            "two",
            &["run", "--model", model, "Hello"],
        )
        .await;
    }
    Ok(wire)
}

/// Compacts a conversation on Go, which opencode's server can do, but not its command line.
async fn summarize(client: &Client, folder: &str, session: &str) -> Result<()> {
    let (mut server, origin) = client.serve(folder, &["serve", "--port", "0"]).await?;
    let request = reqwest::Client::builder()
        .no_proxy()
        .build()?
        .post(format!("{origin}/session/{session}/summarize"))
        .json(&json!({"providerID": "opencode-go", "modelID": CHAT}));
    let answer = request.send().await;
    server.kill().await?;
    let status = answer?.status();
    ensure!(status.is_success(), "opencode's server answers {status}");
    Ok(())
}
