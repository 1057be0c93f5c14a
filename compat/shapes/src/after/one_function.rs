//! A plain client whose requests all go through one function.

use anyhow::Result;
use reqwest::{Client, RequestBuilder};
use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt as _}; // new
use reqwest_opencode_session::{Session, WithSession as _}; // new
use serde_json::json;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new(); // new

pub fn client() -> Result<Client> {
    let http = Client::builder().user_agent("my-agent/1.0");
    let http = http.redirect(OPENCODE.redirect_policy()); // new
    Ok(http.build()?)
}

/// A model, which all conversations share.
#[derive(Clone)]
pub struct Provider {
    pub http: Client,
    pub url: String,
    pub key: String,
    pub model: String,
}

impl Provider {
    /// Every request goes through this function.
    async fn send(&self, request: RequestBuilder) -> Result<String> {
        let request = request.bearer_auth(&self.key);
        let request = request.opencode_session(&OPENCODE)?; // new
        Ok(request.send().await?.error_for_status()?.text().await?)
    }

    async fn ask(self, prompt: &str) -> Result<String> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "messages": messages});
        self.send(self.http.post(&self.url).json(&body)).await
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
