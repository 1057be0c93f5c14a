//! Blocking calls on the threads of `spawn_blocking`.

use anyhow::Result;
use reqwest::blocking::Client;
use serde_json::json;
use tokio::task::spawn_blocking;

/// Blocks, as every call of this client does.
pub fn client() -> Result<Client> {
    let http = Client::builder().user_agent("my-agent/1.0");
    Ok(http.build()?)
}

#[derive(Clone)]
pub struct Provider {
    pub http: Client,
    pub url: String,
    pub key: String,
    pub model: String,
}

impl Provider {
    fn ask(&self, prompt: &str) -> Result<String> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "messages": messages});
        let request = self.http.post(&self.url).bearer_auth(&self.key).json(&body);
        Ok(request.send()?.error_for_status()?.text()?)
    }
}

/// Runs a call where it may block.
async fn call(provider: &Provider, prompt: &str) -> Result<String> {
    let (provider, prompt) = (provider.clone(), prompt.to_owned());
    let call = move || provider.ask(&prompt);
    spawn_blocking(call).await?
}

/// A conversation, or inside one, a subagent's.
pub async fn converse(provider: &Provider, prompts: &[&str]) -> Result<()> {
    for prompt in prompts {
        let work = answer(provider, prompt);
        work.await?;
    }
    Ok(())
}

/// Everything that is done for one prompt.
async fn answer(provider: &Provider, prompt: &str) -> Result<()> {
    let title = call(provider, "A title, please.");
    tokio::try_join!(title, call(provider, prompt))?;
    if prompt.contains("research") {
        Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
    }
    Ok(())
}
