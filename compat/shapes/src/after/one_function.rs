//! A plain client whose requests all go through one function.

use anyhow::Result;
use futures::TryStreamExt;
use reqwest::{Client, RequestBuilder, Response};
use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt};
use reqwest_opencode_session::{Session, WithSession};
use serde_json::json;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

/// The provider, which all conversations share.
#[derive(Clone)]
pub struct Provider {
    http: Client,
    url: String,
    key: String,
}

impl Provider {
    pub fn new(base_url: &str, key: &str) -> Result<Self> {
        let http = Client::builder()
            .no_proxy()
            .user_agent("my-agent/1.0")
            .redirect(OPENCODE.redirect_policy())
            .build()?;
        let url = format!("{base_url}/chat/completions");
        let key = key.to_owned();
        Ok(Self { http, url, key })
    }

    fn prompt(&self, model: &str, text: &str, stream: bool) -> RequestBuilder {
        let messages = [json!({"role": "user", "content": text})];
        let body = json!({"model": model, "stream": stream, "messages": messages});
        self.http.post(&self.url).json(&body)
    }

    /// Every request goes through this function.
    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let request = request.bearer_auth(&self.key).opencode_session(&OPENCODE)?;
        Ok(request.send().await?.error_for_status()?)
    }

    async fn title(self, model: String) -> Result<String> {
        let request = self.prompt(&model, "A title, please.", false);
        Ok(self.send(request).await?.text().await?)
    }
}

/// An agent's conversation. A subagent's runs inside it.
pub async fn converse(provider: &Provider, model: &str, prompts: &[&str]) -> Result<()> {
    let session = Session::new().with_parent(Session::current());
    for prompt in prompts {
        let turn = answer(provider, model, prompt);
        turn.with_session(session.turn()).await?;
    }
    Ok(())
}

/// All that is done for one prompt.
async fn answer(provider: &Provider, model: &str, prompt: &str) -> Result<()> {
    let title = provider.clone().title(model.to_owned());
    let title = tokio::spawn(title.with_current_session());
    let request = provider.prompt(model, prompt, true);
    let mut pieces = provider.send(request).await?.bytes_stream();
    while pieces.try_next().await?.is_some() {}
    if prompt.contains("research") {
        let research = converse(provider, model, &["Find out.", "Sum up."]);
        Box::pin(research).await?;
    }
    title.await??;
    Ok(())
}
