//! A new client for each call.

use anyhow::Result;
use reqwest::Client;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession as _}; // new
use serde_json::json;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new(); // new

/// Where a model is served.
#[derive(Clone)]
pub struct Provider {
    pub base_url: String,
    pub key: String,
    pub model: String,
}

impl Provider {
    pub async fn ask(self, prompt: &str) -> Result<String> {
        let http = Client::builder().user_agent("my-agent/1.0");
        let http = OPENCODE.clone().into_client(http)?; // new
        let messages = [json!({"role": "user", "content": prompt})];
        let request = http
            .post(format!("{}/chat/completions", self.base_url))
            .bearer_auth(self.key)
            .json(&json!({"model": self.model, "messages": messages}));
        Ok(request.send().await?.error_for_status()?.text().await?)
    }
}

/// A conversation, or inside one, a subagent's.
pub async fn converse(provider: &Provider, prompts: &[&str]) -> Result<()> {
    let session = Session::new().with_parent(Session::current()); // new
    for prompt in prompts {
        let work = answer(provider, prompt);
        let work = work.with_session(session.turn()); // new
        work.await?;
    }
    Ok(())
}

/// Everything that is done for one prompt.
async fn answer(provider: &Provider, prompt: &str) -> Result<()> {
    let title = provider.clone().ask("A title, please.");
    let title = title.with_current_session(); // new
    let title = tokio::spawn(title);
    provider.clone().ask(prompt).await?;
    if prompt.contains("research") {
        Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
    }
    title.await??;
    Ok(())
}
