//! A client that refuses a call without a session, and lists the models outside every conversation.

use anyhow::Result;
use reqwest::Client;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{Fallback, MissingSession, OpencodeSessionMiddleware};
use reqwest_opencode_session::{Session, WithSession as _};
use serde_json::json;

pub fn client() -> Result<ClientWithMiddleware> {
    let strict = OpencodeSessionMiddleware::builder().fallback(Fallback::Reject);
    Ok(strict.build()?.into_client(Client::builder())?)
}

#[derive(Clone)]
pub struct Provider {
    pub http: ClientWithMiddleware,
    pub base_url: String,
    pub key: String,
    pub model: String,
}

impl Provider {
    /// The list of models, which belongs to no conversation.
    pub async fn models(&self) -> Result<String> {
        let call = self.http.get(format!("{}/models", self.base_url)).send();
        let answer = call.with_session(Session::process()).await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    pub async fn ask(self, prompt: &str) -> Result<String> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": self.model, "messages": messages});
        let url = format!("{}/chat/completions", self.base_url);
        let call = self.http.post(url).bearer_auth(&self.key).json(&body);
        Ok(call.send().await?.error_for_status()?.text().await?)
    }
}

/// Returns the call that has no session, if that is what went wrong.
pub fn missing_session(error: &anyhow::Error) -> Option<&MissingSession> {
    match error.downcast_ref() {
        Some(reqwest_middleware::Error::Middleware(error)) => error.downcast_ref(),
        _ => None,
    }
}
