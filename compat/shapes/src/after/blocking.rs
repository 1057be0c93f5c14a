//! Blocking calls on the threads of `spawn_blocking`.

use anyhow::{Context, Result};
use reqwest::blocking::Client;
use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt};
use reqwest_opencode_session::{Session, WithSession};
use serde_json::json;
use tokio::task::spawn_blocking;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

/// A client that blocks.
#[derive(Clone)]
pub struct Provider {
    http: Client,
    url: String,
    key: String,
    model: String,
}

impl Provider {
    /// Blocks, as every call of this client does.
    pub fn new(base_url: &str, key: &str, model: &str) -> Result<Self> {
        let http = Client::builder()
            .no_proxy()
            .user_agent("my-agent/1.0")
            .redirect(OPENCODE.redirect_policy())
            .build()?;
        Ok(Self {
            http,
            url: format!("{base_url}/chat/completions"),
            key: key.to_owned(),
            model: model.to_owned(),
        })
    }

    fn answer(&self, prompt: &str, stream: bool) -> Result<String> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "stream": stream, "messages": messages});
        let request = self.http.post(&self.url).bearer_auth(&self.key).json(&body);
        let request = request.opencode_session(&OPENCODE)?;
        Ok(request.send()?.error_for_status()?.text()?)
    }
}

/// Runs a call where it may block.
async fn call(provider: &Provider, prompt: &str, stream: bool) -> Result<String> {
    let (provider, prompt) = (provider.clone(), prompt.to_owned());
    let call = move || provider.answer(&prompt, stream);
    spawn_blocking(Session::carry(call)).await?
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
        let title = call(provider, "A title, please.", false);
        let answer = call(provider, prompt, true);
        tokio::try_join!(title, answer)?;
        if prompt.contains("research") {
            Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
        }
    }
    Ok(())
}
