//! An SDK that sends ids of its own: the middleware replaces them.

use anyhow::Result;
use reqwest::Client;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{ExistingHeader, Fallback, OpencodeSessionMiddleware};
use reqwest_opencode_session::{Session, WithSession as _};
use serde_json::{Value, json};

pub fn client() -> Result<ClientWithMiddleware> {
    let opencode = OpencodeSessionMiddleware::builder()
        .existing_header(ExistingHeader::Replace)
        .fallback(Fallback::Reject);
    Ok(opencode.build()?.into_client(Client::builder())?)
}

/// A conversation: the SDK's calls are in its session.
pub async fn converse(sdk: &Sdk, prompts: &[&str]) -> Result<()> {
    let session = Session::new();
    for prompt in prompts {
        sdk.ask(prompt).with_session(session.turn()).await?;
    }
    Ok(())
}

/// An SDK in miniature, in place of yours.
pub struct Sdk {
    pub http: ClientWithMiddleware,
    pub url: String,
    pub key: String,
    pub model: String,
}

impl Sdk {
    async fn ask(&self, prompt: &str) -> Result<Value> {
        let fresh = Session::new();
        let messages = [json!({"role": "user", "content": prompt})];
        let call = self.http.post(&self.url).bearer_auth(&self.key);
        let call = call.header("x-opencode-session", fresh.id().as_str());
        let call = call.json(&json!({"model": self.model, "messages": messages}));
        Ok(call.send().await?.error_for_status()?.json().await?)
    }
}
