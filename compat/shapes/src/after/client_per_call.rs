//! A client that is built for each call.

use anyhow::{Context, Result};
use futures::TryStreamExt;
use reqwest::{Client, Response};
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession};
use serde_json::json;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

/// Where a model is served.
#[derive(Clone)]
pub struct Provider {
    pub base_url: String,
    pub key: String,
    pub model: String,
}

impl Provider {
    pub async fn call(self, prompt: String, stream: bool) -> Result<Response> {
        let client = Client::builder().user_agent("my-agent/1.0");
        let client = client.no_proxy();
        let client = OPENCODE.clone().into_client(client)?;
        let messages = [json!({"role": "user", "content": prompt})];
        let request = client
            .post(format!("{}/chat/completions", self.base_url))
            .bearer_auth(self.key)
            .json(&json!({"model": self.model, "stream": stream, "messages": messages}));
        Ok(request.send().await?.error_for_status()?)
    }
}

/// An agent's conversation. A subagent's runs inside it.
pub async fn converse(provider: &Provider, prompts: &[&str]) -> Result<()> {
    answer_all(provider, prompts)
        .with_session(Session::new().with_parent(Session::current()))
        .await
        .with_context(|| format!("the conversation with {} broke off", provider.model))
}

async fn answer_all(provider: &Provider, prompts: &[&str]) -> Result<()> {
    for prompt in prompts {
        let title = provider.clone().call("A title, please.".into(), false);
        let title = tokio::spawn(title.with_current_session());
        let answer = provider.clone().call(prompt.to_string(), true);
        let mut pieces = answer.await?.bytes_stream();
        while pieces.try_next().await?.is_some() {}
        if prompt.contains("research") {
            Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
        }
        title.await??;
    }
    Ok(())
}
