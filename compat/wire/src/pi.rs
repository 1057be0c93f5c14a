//! pi's conversations, in the order in which they were captured.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use reqwest_opencode_session::testing::{Failure, Gateway, Reply};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::install::Installed;
use crate::wire::{Wire, gateway};

/// The provider and the wire format of each model.
const MODELS: [(&str, &str); 4] = [
    ("opencode-go", "openai-completions"),
    ("opencode-go", "openai-responses"),
    ("opencode-go", "anthropic-messages"),
    ("opencode", "google-generative-ai"),
];

pub async fn hold(installed: Installed, home: PathBuf) -> Result<Wire> {
    let gateway = gateway()?;
    let environment = [
        ("OPENCODE_API_KEY", Gateway::KEY),
        ("PI_OFFLINE", "1"),
        ("PI_SKIP_VERSION_CHECK", "1"),
    ];
    let environment = environment.map(|(name, value)| (name, value.to_owned()));
    let client = Client::new(installed, home, environment.into()).await?;

    let models = models(&client).await?;
    let settings = client.home().join(".pi/agent");
    fs::create_dir_all(&settings)?;
    fs::write(
        settings.join("models.json"),
        configured(&models, &gateway).to_string(),
    )?;
    let ids = models.map(|model| model["id"].as_str().unwrap_or_default().to_owned());
    let [chat, responses, messages, gemini] =
        [0, 1, 2, 3].map(|n| format!("{}/{}", MODELS[n].0, ids[n]));
    let mut wire = Wire::new("pi", client, gateway);

    wire.run(
        "P, a new conversation",
        &["first call of conversation P"],
        "one",
        &["--print", "--model", &chat, "Hello P"],
    )
    .await;
    wire.run(
        "P, resumed",
        &["conversation P continued"],
        "one",
        &["--print", "--model", &chat, "--continue", "More"],
    )
    .await;
    wire.hold(
        "Q, a retry after 503 and a tool",
        &[],
        async |client, gateway| {
            gateway.reply_next(Reply::ToolCall {
                name: "ls".to_owned(),
                arguments: json!({"path": "."}),
            });
            gateway.fail_next(1, Failure::Unavailable);
            let run = ["--print", "--model", &chat, "--tools", "ls", "Hello Q"];
            client.run("one", &run).await
        },
    )
    .await;
    let original = wire.latest_session()?;
    wire.run(
        "R, a fork of Q",
        &[],
        "one",
        &[
            "--print",
            "--model",
            &chat,
            "--fork",
            &original,
            "Another way",
        ],
    )
    .await;
    wire.declare_fork(&original)?;

    for (what, captured, model) in [
        ("responses", "call in the responses format", responses),
        ("messages", "call in the messages format", messages),
        (
            "generateContent",
            "call in the generateContent format",
            gemini,
        ),
    ] {
        wire.run(
            what,
            &[captured],
            "one",
            &["--print", "--model", &model, "Hello"],
        )
        .await;
    }
    Ok(wire)
}

/// One of pi's own models for each of [`MODELS`], as pi describes it.
async fn models(client: &Client) -> Result<[Value; MODELS.len()]> {
    let question = json!({"type": "get_available_models"});
    let answer = client.ask("one", &["--mode", "rpc"], &question).await?;
    let all = answer["data"]["models"]
        .as_array()
        .context("pi does not tell its models")?;
    let mut models = MODELS.map(|_| Value::Null);
    for (model, (provider, api)) in models.iter_mut().zip(MODELS) {
        let found = all.iter().find(|model| {
            // Free models are for OpenCode's own client alone.
            let id = model["id"].as_str().unwrap_or_default();
            model["provider"] == provider && model["api"] == api && !id.ends_with("-free")
        });
        *model = found
            .with_context(|| format!("pi has no model of {provider} by {api}"))?
            .clone();
        ensure!(
            model["baseUrl"].is_string(),
            "pi does not tell where its models are"
        );
    }
    Ok(models)
}

/// The same models at the gateway, each at its own path.
fn configured(models: &[Value], gateway: &Gateway) -> Value {
    let mut providers = Map::new();
    for model in models {
        let base = model["baseUrl"].as_str().unwrap_or_default();
        let base = gateway.url(base.trim_start_matches("https://opencode.ai"));
        let mut own = json!({"baseUrl": base});
        for name in ["id", "name", "api", "compat"] {
            if !model[name].is_null() {
                own[name] = model[name].clone();
            }
        }
        let name = model["provider"].as_str().unwrap_or_default();
        let provider = providers
            .entry(name)
            .or_insert_with(|| json!({"apiKey": Gateway::KEY, "baseUrl": base, "models": []}));
        if let Some(models) = provider["models"].as_array_mut() {
            models.push(own);
        }
    }
    json!({"providers": providers})
}
