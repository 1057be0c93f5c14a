//! A client that refuses a call without a session, and fetches the list of models without a
//! conversation.

use anyhow::Result;
use reqwest::Client;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{Fallback, MissingSession, OpencodeSessionMiddleware};
use reqwest_opencode_session::{Session, WithSession};
use serde_json::json;

#[derive(Clone)]
pub struct Provider {
    http: ClientWithMiddleware,
    base_url: String,
    key: String,
}

impl Provider {
    pub fn new(base_url: &str, key: &str) -> Result<Self> {
        let builder = Client::builder();
        let builder = builder.no_proxy();
        let http = OpencodeSessionMiddleware::builder()
            .fallback(Fallback::Reject)
            .build()?
            .into_client(builder)?;
        Ok(Self {
            http,
            base_url: base_url.to_owned(),
            key: key.to_owned(),
        })
    }

    /// The list of models, which belongs to no conversation.
    pub async fn models(&self) -> Result<String> {
        let call = self.http.get(format!("{}/models", self.base_url)).send();
        let answer = call.with_session(Session::process()).await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    pub async fn answer(self, model: String, prompt: &str, stream: bool) -> Result<String> {
        let messages = [json!({"role": "user", "content": prompt})];
        let body = json!({"model": model, "stream": stream, "messages": messages});
        let url = format!("{}/chat/completions", self.base_url);
        let request = self.http.post(url).bearer_auth(&self.key).json(&body);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }
}

/// Returns the call that has no session, if that is what went wrong.
pub fn missing_session(error: &anyhow::Error) -> Option<&MissingSession> {
    match error.downcast_ref() {
        Some(reqwest_middleware::Error::Middleware(error)) => error.downcast_ref(),
        _ => None,
    }
}
