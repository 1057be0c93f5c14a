//! Blocking calls on the threads of `spawn_blocking`.

use anyhow::Result;
use reqwest::blocking::Client;
use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt as _}; // new
use reqwest_opencode_session::{Session, WithSession as _}; // new
use serde_json::json;
use tokio::task::spawn_blocking;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new(); // new

/// Blocks, as every call of this client does.
pub fn client() -> Result<Client> {
    let http = Client::builder().user_agent("my-agent/1.0");
    let http = http.redirect(OPENCODE.redirect_policy()); // new
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
        let request = request.opencode_session(&OPENCODE)?; // new
        Ok(request.send()?.error_for_status()?.text()?)
    }
}

/// Runs a call where it may block.
async fn call(provider: &Provider, prompt: &str) -> Result<String> {
    let (provider, prompt) = (provider.clone(), prompt.to_owned());
    let call = move || provider.ask(&prompt);
    let call = Session::carry(call); // new
    spawn_blocking(call).await?
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
    let title = call(provider, "A title, please.");
    tokio::try_join!(title, call(provider, prompt))?;
    if prompt.contains("research") {
        Box::pin(converse(provider, &["Find out.", "Sum up."])).await?;
    }
    Ok(())
}
